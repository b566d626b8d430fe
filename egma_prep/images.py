"""Image bytes to the 224 frame, by their content (DESIGN, "Image frame")."""

from functools import lru_cache
from types import ModuleType

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.geometry import FRAME_PX, Frame, area_weights

_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
}
_STORED_PX_PER_FRAME_PX = 4
"""Reduced decoding must leave this many pixels a frame pixel, so that it cannot be seen."""

_START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA
_MOST_SCANS = 100
"""A progressive JPEG has about ten; each one more walks over the whole image."""
_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def image_size(data: bytes, path: str) -> tuple[int, int]:
    """Read width and height in pixels from a JPEG's or DICOM's header.

    Raises
    ------
    BadInputError
        If the bytes are neither, or not whole.
    """
    return _dicom().dicom_size(data, path) if _is_dicom(data) else jpeg_size(data, path)


def framed(data: bytes, path: str, frame: Frame) -> NDArray[np.uint8]:
    """Decode an image into the frame made for its size; ``(FRAME_PX, FRAME_PX)`` uint8."""
    if not _is_dicom(data):
        return frame_jpeg(data, path, frame.width, frame.height, frame)
    pixels = _dicom().decode_dicom(data, path)
    if pixels.shape != (frame.height, frame.width):
        raise BadInputError("undecodable_image", path, f"{path} decodes to {pixels.shape}")
    return to_frame(pixels, 1, frame)


def _is_dicom(data: bytes) -> bool:
    return data[128:132] == b"DICM"


def _dicom() -> ModuleType:
    # Whoever has JPEGs only need not wait for pydicom.
    from egma_prep import dicom

    return dicom


def jpeg_size(data: bytes, path: str) -> tuple[int, int]:
    """Read width and height from a whole JPEG's header.

    Raises
    ------
    BadInputError
        If the bytes are no JPEG, or one without its end: decoders fill that with grey.
    """
    if not data:
        raise BadInputError("empty_file", path, f"{path} is empty")
    if not data.startswith(_START):
        raise BadInputError("not_an_image", path, f"{path} is neither a JPEG nor a DICOM file")
    at, size = len(_START), (0, 0)
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] in _FRAME_HEADERS:
            size = int.from_bytes(data[at + 7 : at + 9]), int.from_bytes(data[at + 5 : at + 7])
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    if at + 9 > len(data) or data.rfind(_END, at) < 0:
        raise BadInputError("truncated_image", path, f"{path} has no JPEG end marker")
    if _scans(data) > _MOST_SCANS:
        what = f"{path} has more than {_MOST_SCANS} scans"
        raise BadInputError("undecodable_image", path, what)
    if 0 in size:
        raise BadInputError("undecodable_image", path, f"{path} has no JPEG frame header")
    return size


def _scans(data: bytes) -> int:
    values = np.frombuffer(data, np.uint8)  # bytes.count takes a tenth of the decoding
    return int(np.count_nonzero((values[1:] == _SCAN) & (values[:-1] == 0xFF)))


def decode_jpeg(data: bytes, width: int, height: int, path: str) -> tuple[NDArray[np.uint8], int]:
    """Decode to grey, at half size where that cannot be seen in the frame.

    Returns
    -------
    pixels : ndarray
        ``(ceil(height / reduction), ceil(width / reduction))`` uint8.
    reduction : int
        Original pixels per stored pixel.
    """
    side = max(width, height)
    reduction = max(r for r in _REDUCED if r == 1 or side >= r * _STORED_PX_PER_FRAME_PX * FRAME_PX)
    flags = _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        pixels = None
    if pixels is None or pixels.shape != (-(-height // reduction), -(-width // reduction)):
        raise BadInputError("undecodable_image", path, f"{path} cannot be decoded")
    return pixels.astype(np.uint8, copy=False), reduction


def to_frame(pixels: NDArray[np.uint8], reduction: int, frame: Frame) -> NDArray[np.uint8]:
    """Average the stored pixels over each frame pixel, exactly by area; zeros around.

    Parameters
    ----------
    pixels : ndarray
        ``(rows, columns)`` as `decode_jpeg` returns them.
    frame : Frame
        Of the original image.

    Returns
    -------
    ndarray
        ``(FRAME_PX, FRAME_PX)`` uint8.
    """
    down = _weights(frame.height, reduction, frame.offset_y, frame.scale_y)
    across = _weights(frame.width, reduction, frame.offset_x, frame.scale_x)
    rows = down @ pixels.astype(np.float32)  # (224, columns)
    framed = (across @ np.ascontiguousarray(rows.T)).T  # (224, 224)
    return np.floor(framed + 0.5).astype(np.uint8)


def frame_jpeg(data: bytes, path: str, width: int, height: int, frame: Frame) -> NDArray[np.uint8]:
    """Decode a JPEG of known size into its frame."""
    pixels, reduction = decode_jpeg(data, width, height, path)
    return to_frame(pixels, reduction, frame)


_weights = lru_cache(maxsize=64)(area_weights)
