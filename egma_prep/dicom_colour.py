"""DICOM images in colour to 8-bit colours, which may be a grey picture all the same."""

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSTransferSyntaxes,
)

from egma_prep.dicom_grey import whole

PALETTE = "PALETTE COLOR"
COLOURS = (PALETTE, "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
# gdcm, which pydicom asks first, ends the whole process at some damage; of JPEG 2000 it alone reads
# tiles whose parts alternate, and the caller has checked what ends it.
_DECODERS = dict.fromkeys(JPEGLSTransferSyntaxes, "pyjpegls") | dict.fromkeys(
    (JPEGBaseline8Bit, JPEGExtended12Bit), "pillow"
)


def decode_colours(header: pydicom.Dataset, interpretation: str) -> NDArray[np.uint8]:
    """Decode an image of `COLOURS`: ``(rows, columns, 3)`` blue, green, red, as OpenCV has them."""
    decoder = _DECODERS.get(UID(header.file_meta.TransferSyntaxUID), "")
    pixels = pixel_array(header, raw=interpretation == PALETTE, decoding_plugin=decoder)
    if interpretation == PALETTE:
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
