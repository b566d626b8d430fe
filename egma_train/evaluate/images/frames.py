"""Image files to the shards' frame of 224, padded and averaged by area, or as a system has it."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from egma_train.data.shards import FRAME_PX
from egma_train.errors import UnreadableImageError, first_line
from egma_train.evaluate.images.dicom import grey_of_dicom, looks_like_dicom
from egma_train.evaluate.images.pictures import grey_of_picture
from egma_train.geometry import FRAME, Geometry
from egma_train.storage.ordinary import MOST_IMAGE_BYTES, read_ordinary

_FEW_LEVELS, _TINY_RANGE, _MIDDLE = 16, 32, (0.01, 0.99)

Frame = NDArray[np.uint8]


def read_frame(path: Path, geometry: Geometry = FRAME, side_px: int = FRAME_PX) -> Frame:
    """Read a JPEG, PNG or DICOM file, told apart by content.

    Parameters
    ----------
    geometry : Geometry
        The shards' frame, or a system's own preparation.
    side_px : int
        Of the system's input.

    Returns
    -------
    ndarray
        ``(224, 224)`` or ``(side_px, side_px)`` uint8.

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
    return to_frame(pixels) if geometry.fit == "frame" else prepared(pixels, geometry, side_px)


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


def prepared(pixels: Frame, geometry: Geometry, side_px: int) -> Frame:
    """Prepare a picture as a system's authors do: ``(side_px, side_px)`` uint8."""
    if geometry.stretch and pixels.max() > pixels.min():
        low, high = (float(one) for one in (pixels.min(), pixels.max()))
        pixels = ((pixels - low) / (high - low) * 255).astype(np.uint8)  # cut, not rounded
    rows, columns = pixels.shape
    size = geometry.resize_px
    if geometry.fit == "squash":
        shape = (size, size)
    else:
        whole = max(rows, columns) if geometry.fit == "pad" else min(rows, columns)
        shape = (max(1, rows * size // whole), max(1, columns * size // whole))
    pixels = _resized(pixels, shape, geometry.interpolation)
    # What is shorter than the square is padded, what is longer is cut below.
    square = np.zeros((max(size, shape[0]), max(size, shape[1])), np.uint8)
    top, left = ((all_of - own) // 2 for all_of, own in zip(square.shape, shape, strict=True))
    square[top : top + shape[0], left : left + shape[1]] = pixels
    crop = geometry.crop_px
    top, left = (round((one - crop) / 2) for one in square.shape)  # as torchvision rounds
    square = square[top : top + crop, left : left + crop]
    return square if crop == side_px else _resized(square, (side_px, side_px), "bicubic")


def _resized(pixels: Frame, shape: tuple[int, int], interpolation: str) -> Frame:
    """Resize by OpenCV's areas, or by Pillow, as torchvision does on pictures."""
    if pixels.shape == shape:
        return pixels
    if interpolation == "area":
        return cv2.resize(pixels, shape[::-1], interpolation=cv2.INTER_AREA).astype(np.uint8)
    how = getattr(Image.Resampling, interpolation.upper())
    return np.asarray(Image.fromarray(pixels).resize(shape[::-1], how))


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


def frame_or_reason(path: Path | None, geometry: Geometry, side_px: int) -> Frame | str:
    """Read an image as `read_frame`, or say why it cannot be."""
    try:
        return "not found" if path is None else read_frame(path, geometry, side_px)
    except UnreadableImageError as error:
        return str(error)
