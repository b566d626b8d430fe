"""The decoder of JPEG and PNG: one thread, and one way to fail."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError


def decoded(data: bytes, flags: int, shape: tuple[int, int], path: str) -> NDArray[Any]:
    """Decode a picture that must have so many rows and columns.

    Raises
    ------
    BadInputError
        If it cannot be decoded, or to another size.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        pixels = None
    if pixels is None or pixels.shape[:2] != shape:
        raise BadInputError("undecodable_image", path, f"{path} cannot be decoded")
    return np.asarray(pixels)
