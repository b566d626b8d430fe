"""A reading's arrays as PNG or JPEG, and its facts as JSON can hold them."""

from dataclasses import fields
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.shards.reader import Reading, Sentence


def png(values: NDArray[np.uint8]) -> bytes:
    """Encode grey values, ``(rows, columns)``, without loss."""
    return cv2.imencode(".png", values)[1].tobytes()


def jpeg(values: NDArray[np.uint8], quality: int) -> bytes:
    """Encode grey values, ``(rows, columns)``."""
    return cv2.imencode(".jpg", values, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def facts_of(reading: Reading) -> dict[str, Any]:
    """List what a reading has beside its image and maps, grids as lists of 49."""
    sentences = [_facts(one) for one in reading.sentences]
    for facts, sentence in zip(sentences, reading.sentences, strict=True):
        facts["grid"] = None if sentence.grid is None else sentence.grid.ravel().tolist()
    return _facts(reading) | {"sentences": sentences}


def _facts(one: Reading | Sentence) -> dict[str, Any]:
    names = {field.name for field in fields(one)} - {"image", "heatmap"}
    return {name: value for name, value in vars(one).items() if name in names}
