"""PNG bytes to 8-bit pixels, whatever their depth."""

import zlib
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.images import Decoded
from egma_prep.images.opencv import decoded
from egma_prep.options import ImageOptions

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL_CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND")
_GREY_KINDS = (0, 4)  # IHDR's colour type, without and with transparency

Pixels = NDArray[np.uint8]


class Png(NamedTuple):
    """A whole file's size, colour type, and chunks by name, each as it stands in the file."""

    width: int
    height: int
    colour_type: int
    chunks: dict[bytes, list[bytes]]

    @property
    def significant_bits(self) -> int | None:
        """Bits of the original samples, where the file declares them (sBIT)."""
        declared = self.chunks.get(b"sBIT", [b""])[0][8:-4]
        bits = declared[:1] if self.colour_type in _GREY_KINDS else declared[:3]
        return max(bits) if bits and 0 < max(bits) <= 16 else None


def recognises(data: bytes) -> bool:
    """See `egma_prep.images.Decoder`."""
    return data.startswith(SIGNATURE)


def size_of(data: bytes, path: str) -> tuple[int, int]:
    """See `egma_prep.images.Decoder`."""
    return parse_png(data, path)[:2]


def decode(data: bytes, path: str, options: ImageOptions) -> Decoded:
    """See `egma_prep.images.Decoder`."""
    pixels, notes = decode_png(parse_png(data, path), path)
    return Decoded(pixels, notes=notes)


def parse_png(data: bytes, path: str) -> Png:
    """Cut a PNG into its chunks; those of its pixels must be whole: decoders differ in damage.

    Raises
    ------
    BadInputError
        If it is cut off or damaged.
    """
    chunks: dict[bytes, list[bytes]] = {}
    at = len(SIGNATURE)
    while b"IEND" not in chunks:
        body = at + 8
        kind, end = data[at + 4 : body], body + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data) or not kind.isalpha():
            raise BadInputError("truncated_image", path, f"{path} has no PNG end marker")
        whole = zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")
        if kind in _PIXEL_CHUNKS and not whole:
            what = f"{path}: the checksum of its {kind.decode('ascii')} chunk is wrong"
            raise BadInputError("undecodable_image", path, what)
        chunks.setdefault(kind, []).append(data[at : end + 4])
        at = end + 4
    header = chunks.get(b"IHDR", [b""])[0][8:-4]
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    if len(header) != 13 or not width or not height:
        raise BadInputError("undecodable_image", path, f"{path} has no PNG header")
    return Png(width, height, header[9], chunks)


def decode_png(png: Png, path: str) -> tuple[Pixels, tuple[str, ...]]:
    """Decode to 8 bits: as they are, or 16 bits from 0 to the declared or the largest value.

    Transparency, gamma, orientation and further frames are ignored: the chunks that hold them are
    left out, since decoders differ in what they make of them.

    Returns
    -------
    pixels : ndarray
        ``(rows, columns)`` grey, or ``(rows, columns, 3)`` blue, green, red.
    notes : tuple of str
        Which of `errors.NOTES` are true of it.
    """
    plain = SIGNATURE + b"".join(
        chunk for kind in _PIXEL_CHUNKS for chunk in png.chunks.get(kind, [])
    )
    pixels = decoded(plain, cv2.IMREAD_UNCHANGED, (png.height, png.width), path)
    opaque = b"tRNS" not in png.chunks
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        opaque = opaque and bool((pixels[..., 3] == np.iinfo(pixels.dtype).max).all())
        pixels = pixels[..., :3]
    if pixels.ndim == 3 and png.colour_type in _GREY_KINDS:
        pixels = pixels[..., 0]
    notes = ("transparency_ignored",) * (not opaque)
    if pixels.dtype == np.uint16:
        pixels, note = _to_8_bits(pixels, png.significant_bits)
        notes += (note,)
    return np.ascontiguousarray(pixels, dtype=np.uint8), notes


def _to_8_bits(pixels: NDArray[np.uint16], bits: int | None) -> tuple[Pixels, str]:
    """Bring 16 bits to 8, rounding half up.

    A writer that follows the standard has scaled 12 bits to 16 and declares 12; others store the 12
    bits as they were. Which one it was, the largest value tells.
    """
    largest = int(pixels.max())
    note = "png_16_bit_own_maximum" if bits is None else "png_16_bit_declared_maximum"
    full = max(largest, 1) if bits is None else 2**bits - 1
    if largest > full:
        full = 65535
    levels = np.floor(255 * np.arange(full + 1) / full + 0.5).astype(np.uint8)
    return levels[pixels], note
