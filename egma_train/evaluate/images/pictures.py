"""JPEG and PNG bytes to 8-bit grey, by the rules of the shards' images (semantics.md)."""

import re
import zlib

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_train.errors import UnreadableImageError
from egma_train.evaluate.images.colour import grey_of_colours

_JPEG, _JPEG_END, _JPEG_SCAN = b"\xff\xd8", b"\xff\xd9", 0xDA
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_READ = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_MOST_PIXELS = 100_000_000
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
_CONVERT = "; convert it to an 8-bit grey PNG or JPEG"

Pixels = NDArray[np.uint8]


def grey_of_picture(data: bytes) -> Pixels:
    """Decode a JPEG or PNG, told apart by content: ``(rows, columns)``.

    Raises
    ------
    UnreadableImageError
        If it is neither, damaged, of another kind or in colour.
    """
    if data.startswith(_JPEG):
        pixels = _decoded(data, *_jpeg_size(data), cv2.IMREAD_ANYCOLOR)
    elif data.startswith(_PNG):
        pixels = _from_png(data)
    else:
        kinds = (kind for kind, begins in _UNSUPPORTED.items() if re.match(begins, data, re.DOTALL))
        if kind := next(kinds, None):
            raise UnreadableImageError(f"a {kind} file is not read{_CONVERT}")
        raise UnreadableImageError("neither a JPEG, PNG nor DICOM file")
    return grey_of_colours(pixels) if pixels.ndim == 3 else pixels


def _decoded(data: bytes, width: int, height: int, flags: int) -> Pixels:
    if width * height > _MOST_PIXELS:
        raise UnreadableImageError(f"{width} x {height} pixels are too many")
    stored = np.frombuffer(data, np.uint8)
    try:
        pixels = cv2.imdecode(stored, flags | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        pixels = None
    if pixels is None or pixels.shape[:2] != (height, width):
        raise UnreadableImageError("cannot be decoded")
    return np.asarray(pixels)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Read width and height of a whole JPEG of a kind that is read."""
    at, frame = len(_JPEG), b""
    while at + 9 <= len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_SCAN:
        if data[at + 1] in _FRAME_HEADERS:
            frame = data[at + 1 : at + 10]
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if at + 9 > len(data) or data.rfind(_JPEG_END, at) < 0:  # decoders fill with grey
        raise UnreadableImageError("cut off: no end marker")
    if len(frame) < 9:
        raise UnreadableImageError("cannot be decoded")
    process, bits, components = frame[0], frame[3], frame[8]
    if process not in _READ or bits != 8 or components not in (1, 3):
        what = f"a JPEG of process {process - 0xC0}, {bits} bits and {components} colours"
        raise UnreadableImageError(f"{what} is not read{_CONVERT}")
    return int.from_bytes(frame[6:8], "big"), int.from_bytes(frame[4:6], "big")


def _from_png(data: bytes) -> NDArray[np.uint8]:
    """Decode to 8 bits; transparency, gamma and further frames are left out."""
    chunks: dict[bytes, list[bytes]] = {}
    at = len(_PNG)
    while b"IEND" not in chunks:
        kind, end = data[at + 4 : at + 8], at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data) or not kind.isalpha():
            raise UnreadableImageError("cut off: no end marker")
        whole = zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        if kind in _PNG_PIXELS and not whole:
            raise UnreadableImageError("damaged: a checksum is wrong")
        chunks.setdefault(kind, []).append(data[at : end + 4])
        at = end + 4
    header = chunks.get(b"IHDR", [b""])[0][8:-4]
    if len(header) != 13:
        raise UnreadableImageError("cannot be decoded")
    size = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    plain = _PNG + b"".join(chunk for kind in _PNG_PIXELS for chunk in chunks.get(kind, []))
    pixels = _decoded(plain, *size, cv2.IMREAD_UNCHANGED)
    is_grey = header[9] in (0, 4)
    if pixels.ndim == 3:
        pixels = pixels[..., 0] if is_grey else pixels[..., :3]
    if pixels.dtype == np.uint16:
        declared = chunks.get(b"sBIT", [b""])[0][8:-4][: 1 if is_grey else 3]
        pixels = _to_8_bits(pixels, max(declared, default=0))
    return np.ascontiguousarray(pixels, dtype=np.uint8)


def _to_8_bits(pixels: NDArray[np.generic], bits: int) -> Pixels:
    """Bring 16 bits to 8: from 0 to the largest value of the declared bits, else to its own."""
    largest = int(pixels.max())
    full = 2**bits - 1 if 0 < bits <= 16 else max(largest, 1)
    if largest > full:  # the writer scaled its bits to 16, as the standard wants
        full = 65535
    return np.floor(255 / full * pixels.astype(np.float64) + 0.5).astype(np.uint8)
