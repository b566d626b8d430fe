"""Image files to the 224 frame that the shards hold: padded with zeros, averaged by area."""

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_train.ahead import in_order
from egma_train.errors import UnreadableImageError, first_line
from egma_train.evaluate.pictures import grey_of_picture
from egma_train.shards import FRAME_PX

_FAR = 1e9  # beyond every pixel value: where a window's output has come to its ends
_PERCENTILES = (0.5, 99.5)
_THREADS = 2

Frame = NDArray[np.uint8]


def read_frame(path: Path) -> Frame:
    """Read a JPEG, PNG or DICOM file, told apart by content: ``(224, 224)`` uint8.

    Raises
    ------
    UnreadableImageError
        If it is not there, damaged or no grey image.
    """
    try:
        data = path.read_bytes()
        pixels = _from_dicom(data) if data[128:132] == b"DICM" else grey_of_picture(data)
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


def read_ahead(paths: Iterable[Path | None], ahead: int) -> Iterator[Frame | str]:
    """Read images in background threads, in order; a reason in place of one that cannot be."""
    return in_order(_frame_or_reason, paths, _THREADS, ahead)


def _frame_or_reason(path: Path | None) -> Frame | str:
    try:
        return "not found" if path is None else read_frame(path)
    except UnreadableImageError as error:
        return str(error)


def _from_dicom(data: bytes) -> Frame:
    """Bring stored values to 8 bits: rescaled, windowed or between percentiles, bright is dense."""
    import pydicom
    from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(io.BytesIO(data))
        kind = str(header.get("PhotometricInterpretation", "")).strip()
        if kind not in ("MONOCHROME1", "MONOCHROME2") or int(header.get("NumberOfFrames") or 1) > 1:
            raise UnreadableImageError(f"DICOM of {kind or 'no image'}, not one grey frame")
        values = apply_modality_lut(header.pixel_array, header).astype(np.float64)
        low: Any
        high: Any
        if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
            low, high = apply_windowing(np.array([-_FAR, _FAR]), header)
            values = apply_windowing(values, header)
        elif header.get("VOILUTSequence"):
            low, high = 0, 2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1
            values = apply_voi(values.astype(np.int64), header)
        else:
            low, high = np.percentile(values, _PERCENTILES)
    spread = high - low
    share = np.clip((values - low) / spread, 0, 1) if spread else np.zeros(values.shape)
    return np.floor(255 * (1 - share if kind == "MONOCHROME1" else share) + 0.5).astype(np.uint8)
