"""A reading as a card of the gallery: a small image, smaller maps, a time line."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import cv2
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from egma_prep.shards.encode import jpeg
from egma_prep.shards.reader import Map, Reading

Rows = list[dict[str, Any]]

_IMAGE_PX, _IMAGE_QUALITY = 160, 45
_MAP_PX, _LEVELS = 28, 16  # a map of sigma 16 is smooth: an eighth of its pixels shows it

_SHARES = (np.arange(_LEVELS) / (_LEVELS - 1)) ** 2  # finer steps where there is little
_COLOURS = (matplotlib.colormaps["inferno"](_SHARES)[:, :3] * 255).round().astype(np.uint8)
_OPACITY = (0.75 * np.sqrt(_SHARES) * 255).round().astype(np.uint8)


def card_of(reading: Reading, rows: Mapping[str, Rows]) -> dict[str, Any]:
    """Describe a reading for the page's script, in seconds and frame px.

    Parameters
    ----------
    rows : mapping
        The reading's ``words`` and, unless the run was private, ``fixations``.
    """
    return {
        "image": _base64(jpeg(_shrunk(reading.image, _IMAGE_PX), _IMAGE_QUALITY)),
        "map": _overlay(reading.heatmap),
        "sentences": [
            [*_times(vars(one)), round(one.gaze_seconds, 2), _overlay(one.heatmap)]
            for one in reading.sentences
        ],
        "words": [[row["text"], *_times(row)] for row in rows["words"]],
        "fixations": [
            [*_times(row), round(row["x_224"]), round(row["y_224"]), int(row["on_image"])]
            for row in rows.get("fixations", [])
        ],
    }


def _overlay(heatmap: Map | None) -> str | None:
    """Encode a map as a small coloured PNG that is see-through where there is little gaze."""
    if heatmap is None:
        return None
    share = _shrunk(heatmap, _MAP_PX) / 255
    levels = np.sqrt(share) * (_LEVELS - 1)
    image = Image.fromarray(levels.round().astype(np.uint8))
    image.putpalette(_COLOURS.tobytes())
    data = io.BytesIO()
    image.save(data, "png", transparency=_OPACITY.tobytes(), bits=4, optimize=True)
    return _base64(data.getvalue())


def _shrunk(values: Map, size_px: int) -> NDArray[Any]:
    return cv2.resize(values, (size_px, size_px), interpolation=cv2.INTER_AREA)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _times(row: Mapping[str, Any]) -> list[float | None]:
    return [None if row[name] is None else round(row[name], 2) for name in ("begin", "end")]
