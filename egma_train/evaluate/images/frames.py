"""Image files to the 224 frame that the shards hold: padded with zeros, averaged by area."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_train.data.ahead import in_order
from egma_train.data.shards import FRAME_PX
from egma_train.errors import UnreadableImageError, first_line
from egma_train.evaluate.images.dicom import grey_of_dicom, looks_like_dicom
from egma_train.evaluate.images.pictures import grey_of_picture
from egma_train.storage.ordinary import MOST_IMAGE_BYTES, read_ordinary

_THREADS = 2
_FEW_LEVELS, _TINY_RANGE, _MIDDLE = 16, 32, (0.01, 0.99)

Frame = NDArray[np.uint8]


def read_frame(path: Path) -> Frame:
    """Read a JPEG, PNG or DICOM file, told apart by content: ``(224, 224)`` uint8.

    Raises
    ------
    UnreadableImageError
        If it is not there, damaged or no grey image.
    """
    try:
        data = read_ordinary(path, MOST_IMAGE_BYTES)
        pixels = grey_of_dicom(data) if looks_like_dicom(data) else grey_of_picture(data)
    except OSError as error:
        raise UnreadableImageError(str(error.strerror)) from None
    except UnreadableImageError:
        raise
    except Exception as error:  # each decoder has its own for damage
        raise UnreadableImageError(first_line(error)) from None
    return to_frame(pixels)


def to_frame(pixels: Frame) -> Frame:
    """Pad to a centred square with zeros and average by area."""
    rows, columns = pixels.shape
    side = max(rows, columns)
    times = -(-FRAME_PX // side)  # OpenCV averages by area only when it shrinks
    top, left = (side - rows) // 2, (side - columns) // 2
    square = np.zeros((side, side), np.uint8)
    square[top : top + rows, left : left + columns] = pixels
    square = square.repeat(times, 0).repeat(times, 1)
    return cv2.resize(square, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_AREA).astype(np.uint8)


def is_nearly_one_grey(frame: Frame) -> bool:
    """Tell a blank picture: under 16 grey levels, or nearly all within 32.

    As `egma_prep` counts them; of the frame is looked at what is not black around.
    """
    rows, columns = (np.flatnonzero(frame.any(axis)) for axis in (1, 0))
    if not len(rows):
        return True
    # Its outermost pixels may be averages with the black around.
    seen = frame[rows[0] + 1 : rows[-1], columns[0] + 1 : columns[-1]]
    if not seen.size:
        return True
    counts = np.bincount(seen.ravel(), minlength=256)
    dark, bright = np.searchsorted(np.cumsum(counts) / seen.size, _MIDDLE)
    return bool(bright - dark < _TINY_RANGE or np.count_nonzero(counts) < _FEW_LEVELS)


def read_ahead(paths: Iterable[Path | None], ahead: int) -> Iterator[Frame | str]:
    """Read images in background threads, in order; a reason in place of one that cannot be."""
    return in_order(_frame_or_reason, paths, _THREADS, ahead)


def _frame_or_reason(path: Path | None) -> Frame | str:
    try:
        return "not found" if path is None else read_frame(path)
    except UnreadableImageError as error:
        return str(error)
