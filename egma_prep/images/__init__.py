"""Image bytes to the 224 frame, by their content (DESIGN, "Image frame")."""

import importlib
import re
from functools import lru_cache
from typing import NamedTuple, Protocol, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.frame import Frame, area_weights
from egma_prep.images.colour import grey_of_colours
from egma_prep.options import ImageOptions

_DEFAULTS = ImageOptions()

_FEW_LEVELS, _TINY_RANGE, _MIDDLE = 16, 32, (0.01, 0.99)
"""An X-ray has nearly all 256 grey levels; a lookup table read wrongly gave 17, a mask has two. The
range is that of the middle shares of the pixels: burnt-in letters are white in any picture."""

_UNSUPPORTED = {
    "GIF": rb"GIF8",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{4}\0{4}",
    "WebP": rb"RIFF.{4}WEBP",
    "HEIC or AVIF": rb".{4}ftyp(hei|hev|mif1|msf1|avi)",
    "JPEG XL": rb"\xff\x0a|.{4}JXL ",
    "JPEG 2000": rb".{4}jP  |\xff\x4f\xff\x51",
    "PDF": rb"%PDF",
}
"""How files begin that hold pictures of kinds that are not read."""


class Decoded(NamedTuple):
    """What a file's decoder gives.

    Attributes
    ----------
    pixels : ndarray
        ``(ceil(height / reduction), ceil(width / reduction))`` uint8 grey, or with a third axis of
        blue, green and red.
    reduction : int
        Original pixels per stored pixel, along each axis.
    notes : tuple of str
        Which of `errors.NOTES` are true of it.
    """

    pixels: NDArray[np.uint8]
    reduction: int = 1
    notes: tuple[str, ...] = ()


class Decoder(Protocol):
    """One kind of image file; a module of this folder whose name is in `_DECODERS`."""

    def recognises(self, data: bytes) -> bool:
        """Tell by the content whether a file is of the kind."""

    def size_of(self, data: bytes, path: str) -> tuple[int, int]:
        """Read width and height in pixels from the header; `BadInputError` if it is not whole."""

    def decode(self, data: bytes, path: str, options: ImageOptions) -> Decoded:
        """Decode; `BadInputError` where that cannot be."""


# Who has JPEGs alone need not wait for pydicom: it is imported when nothing before recognises.
_DECODERS = ("jpeg", "png", "dicom")


def _decoder_of(data: bytes, path: str) -> Decoder:
    for name in _DECODERS:
        decoder = cast(Decoder, importlib.import_module(f"{__name__}.{name}"))
        if decoder.recognises(data):
            return decoder
    if not data:
        raise BadInputError("empty_file", path, f"{path} is empty")
    for kind, begins in _UNSUPPORTED.items():
        if re.match(begins, data, re.DOTALL):
            what = f"{path} is a {kind} file: convert it to an 8-bit grey PNG or JPEG"
            raise BadInputError("unsupported_image", path, what)
    raise BadInputError("not_an_image", path, f"{path} is no JPEG, PNG or DICOM file")


def image_size(data: bytes, path: str) -> tuple[int, int]:
    """Read width and height in pixels from the header of a JPEG, PNG or DICOM file.

    Raises
    ------
    BadInputError
        If the bytes are none of them, or not whole.
    """
    return _decoder_of(data, path).size_of(data, path)


def framed(
    data: bytes, path: str, frame: Frame, options: ImageOptions = _DEFAULTS
) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Decode an image into the frame made for its size.

    Parameters
    ----------
    options : ImageOptions
        Say how stored DICOM values, and colours, become grey.

    Returns
    -------
    values : ndarray
        ``(FRAME_PX, FRAME_PX)`` uint8.
    notes : tuple of str
        Which of `errors.NOTES` are true of it.
    """
    pixels, reduction, notes = _decoder_of(data, path).decode(data, path, options)
    if pixels.ndim == 3:
        pixels, of_colours = grey_of_colours(pixels, path, options.colour)
        notes += of_colours
    if pixels.shape != (-(-frame.height // reduction), -(-frame.width // reduction)):
        raise BadInputError("undecodable_image", path, f"{path} decodes to {pixels.shape}")
    counts = np.ravel(cv2.calcHist([pixels], [0], None, [256], [0, 256]))
    dark, bright = np.searchsorted(np.cumsum(counts) / pixels.size, _MIDDLE)
    if bright - dark < _TINY_RANGE or np.count_nonzero(counts) < _FEW_LEVELS:
        notes += ("tiny_grey_range",)
    return to_frame(pixels, reduction, frame), notes


def to_frame(pixels: NDArray[np.uint8], reduction: int, frame: Frame) -> NDArray[np.uint8]:
    """Average the stored pixels over each frame pixel, exactly by area; zeros around.

    Parameters
    ----------
    pixels : ndarray
        ``(rows, columns)`` grey.
    reduction : int
        Original pixels per stored pixel, as `jpeg.decode_jpeg` tells.
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


_weights = lru_cache(maxsize=64)(area_weights)
