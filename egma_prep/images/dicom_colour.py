"""DICOM images in colour to 8-bit colours, which may be a grey picture all the same."""

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    JPEG2000,
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
)

from egma_prep.images.dicom_grey import whole

PALETTE = "PALETTE COLOR"
COLOURS = (PALETTE, "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# gdcm, which pydicom would ask first, ends the whole process at some damage. It alone reads JPEG
# 2000 of alternating tile parts or of more than 8 bits; what ends it there the caller has refused.
_DECODERS = (
    dict.fromkeys(JPEGLSTransferSyntaxes, ("pyjpegls",))
    | dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit), ("pillow",))
    | dict.fromkeys((JPEG2000, JPEG2000Lossless), ("pillow", "gdcm"))
)


def decode_colours(
    header: pydicom.Dataset, interpretation: str, precision: int
) -> NDArray[np.uint8]:
    """Decode an image of `COLOURS`: ``(rows, columns, 3)`` blue, green, red, as OpenCV has them.

    Parameters
    ----------
    precision : int
        Of a JPEG, else 0; `BitsStored` is corrected where values go beyond it.
    """
    first, *others = _DECODERS.get(UID(header.file_meta.TransferSyntaxUID), ("",))
    is_palette = interpretation == PALETTE
    stored = whole(header, "BitsStored")
    header.BitsStored = precision or stored
    try:
        pixels = pixel_array(header, raw=is_palette, decoding_plugin=first)
    except Exception:  # each decoder has its own
        if not others:
            raise
        pixels = pixel_array(header, raw=is_palette, decoding_plugin=others[0])
    header.BitsStored = max(stored, int(pixels.max()).bit_length())
    if is_palette:
        pixels = apply_color_lut(pixels, header)
        # Some say entries of 16 bits and fill the lower 8.
        full = 65535 if pixels.dtype == np.uint16 and pixels.max() > 255 else 255
    else:
        full = 2 ** whole(header, "BitsStored") - 1
    if pixels.ndim != 3:
        raise ValueError(f"pixels of shape {pixels.shape}")
    if full != 255:
        pixels = np.floor(pixels * (255 / full) + 0.5)
    return np.ascontiguousarray(pixels[..., 2::-1], dtype=np.uint8)
