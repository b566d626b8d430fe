"""A page of what a model sees, its best and worst sentences, in one file."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from egma_train.evaluate.page import page
from egma_train.evaluate.sight import Pixels, View, overlaid, told_of
from egma_train.storage.atomic import write_whole

_PICTURE_PX, _JPEG_QUALITY = 160, 80


def write_sight_page(
    path: Path, views: Sequence[View], seen: Mapping[str, Any], facts: Sequence[tuple[str, str]]
) -> None:
    """Write a page of its own: no network, no other file.

    Parameters
    ----------
    views : sequence of View
        The best first.
    seen : mapping
        What `best_and_worst` counted.
    facts : sequence of tuple
        Names and values about model and data.
    """
    cards = [
        {
            "view": view,
            "told": told_of(view),
            "right": bool(view.figures["pointing"]),
            "pictures": [
                ("image", _embedded(np.repeat(view.image[..., None], 3, axis=2))),
                ("model", _embedded(overlaid(view.image, view.similarity))),
                ("reader", _embedded(overlaid(view.image, _of(view)))),
            ],
        }
        for view in views
    ]
    told = {"cards": cards, "seen": seen, "facts": facts}
    write_whole(path, page("sight.html", title="What a model sees", **told))


def _of(view: View) -> Any:
    if view.gaze is None:
        raise ValueError("a view without gaze has no place on the page")
    return view.gaze / 255


def _embedded(picture: Pixels) -> str:
    size = (_PICTURE_PX, _PICTURE_PX)
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"
