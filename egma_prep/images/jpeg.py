"""JPEG bytes to 8-bit pixels."""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.images import Decoded
from egma_prep.images.opencv import decoded
from egma_prep.options import ImageOptions

START, _END = b"\xff\xd8", b"\xff\xd9"
_SCAN = 0xDA  # SOS: what follows is compressed and has no marker segments
_MOST_SCANS = 100
"""A progressive JPEG has about ten; each one more walks over the whole image."""
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_READ = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what libjpeg decodes
_OTHER_PROCESSES = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xF7: "near-lossless"}

HALF_SIZE_FROM_PX = 2750
"""Of the long side. At half size real JPEGs missed the promise (99.9 % of the frame within 2 grey
levels) up to 2,061 px, X-rays with sharp letters, brought to many sizes, up to 2,688."""


class JpegHeader(NamedTuple):
    """Size in pixels, and whether there is colour."""

    width: int
    height: int
    colour: bool


def recognises(data: bytes) -> bool:
    """See `egma_prep.images.Decoder`."""
    return data.startswith(START)


def size_of(data: bytes, path: str) -> tuple[int, int]:
    """See `egma_prep.images.Decoder`."""
    return parse_jpeg(data, path)[:2]


def decode(data: bytes, path: str, options: ImageOptions) -> Decoded:
    """See `egma_prep.images.Decoder`."""
    return Decoded(*decode_jpeg(data, parse_jpeg(data, path), path))


def parse_jpeg(data: bytes, path: str) -> JpegHeader:
    """Read a whole JPEG's header.

    Raises
    ------
    BadInputError
        If it is one without its end, which decoders fill with grey, or of a kind that is not read.
    """
    at, frame = len(START), b""
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        if data[at + 1] in _FRAME_HEADERS:
            frame = data[at + 1 : at + 10]
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if at + 9 > len(data) or data.rfind(_END, at) < 0:
        raise BadInputError("truncated_image", path, f"{path} has no JPEG end marker")
    values = np.frombuffer(data, np.uint8)  # bytes.count takes a tenth of the decoding
    if np.count_nonzero((values[1:] == _SCAN) & (values[:-1] == 0xFF)) > _MOST_SCANS:
        what = f"{path} has more than {_MOST_SCANS} scans"
        raise BadInputError("undecodable_image", path, what)
    height, width = int.from_bytes(frame[4:6], "big"), int.from_bytes(frame[6:8], "big")
    if not width or not height:
        raise BadInputError("undecodable_image", path, f"{path} has no JPEG frame header")
    process, bits, components = frame[0], frame[3], frame[8]
    if process not in _READ or bits != 8 or components not in (1, 3):
        of = f"{bits} bits" if components in (1, 3) else f"{components} colours (CMYK?)"
        kind = "" if process in _READ else f"{_OTHER_PROCESSES.get(process, 'unusual')} "
        what = f"{path} is a {kind}JPEG of {of}: convert it to an 8-bit grey PNG or JPEG"
        raise BadInputError("unsupported_image", path, what)
    return JpegHeader(width, height, components == 3)


def decode_jpeg(data: bytes, header: JpegHeader, path: str) -> tuple[NDArray[np.uint8], int]:
    """Decode; grey at half size where that cannot be seen in the frame.

    Returns
    -------
    pixels : ndarray
        ``(ceil(height / reduction), ceil(width / reduction))`` grey, or ``(height, width, 3)``
        blue, green, red.
    reduction : int
        Original pixels per stored pixel.
    """
    width, height, colour = header
    if colour:
        flags, reduction = cv2.IMREAD_COLOR, 1
    elif max(width, height) < HALF_SIZE_FROM_PX:
        flags, reduction = cv2.IMREAD_GRAYSCALE, 1
    else:
        flags, reduction = cv2.IMREAD_REDUCED_GRAYSCALE_2, 2
    stored = -(-height // reduction), -(-width // reduction)
    pixels = decoded(data, flags | cv2.IMREAD_IGNORE_ORIENTATION, stored, path)
    return pixels.astype(np.uint8, copy=False), reduction
