"""DICOM images in colour to 8-bit colours, which may be a grey picture all the same."""

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.processing import apply_color_lut
from pydicom.pixels.utils import pixel_array

from egma_prep.dicom_grey import whole

PALETTE = "PALETTE COLOR"
COLOURS = (PALETTE, "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")


def decode_colours(header: pydicom.Dataset, interpretation: str) -> NDArray[np.uint8]:
    """Decode an image of `COLOURS`: ``(rows, columns, 3)`` blue, green, red, as OpenCV has them."""
    if interpretation == PALETTE:
        pixels = apply_color_lut(pixel_array(header, raw=True), header)
        # Some say entries of 16 bits and fill the lower 8.
        full = 65535 if pixels.dtype == np.uint16 and pixels.max() > 255 else 255
    else:
        pixels = pixel_array(header, raw=False)  # from YBR to RGB
        full = 2 ** whole(header, "BitsStored") - 1
    if pixels.ndim != 3:
        raise ValueError(f"pixels of shape {pixels.shape}")
    if full != 255:
        pixels = np.floor(pixels * (255 / full) + 0.5)
    return np.ascontiguousarray(pixels[..., 2::-1], dtype=np.uint8)
