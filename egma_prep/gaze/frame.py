"""The 224 frame: where original pixels and points land (DESIGN, "Image frame")."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

FRAME_PX = 224
FITS = ("pad", "stretch")

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Frame:
    """An affine map from original pixels to frame pixels, pixel centres at integers.

    Attributes
    ----------
    width, height : int
        Size of the original image in pixels.
    offset_x, offset_y : int
        Columns and rows of zeros before the image.
    scale_x, scale_y : float
        Frame pixels per original pixel.
    """

    width: int
    height: int
    offset_x: int
    offset_y: int
    scale_x: float
    scale_y: float

    def x(self, x_px: FloatArray) -> FloatArray:
        """Map original columns to frame columns."""
        return (x_px + self.offset_x + 0.5) * self.scale_x - 0.5

    def y(self, y_px: FloatArray) -> FloatArray:
        """Map original rows to frame rows."""
        return (y_px + self.offset_y + 0.5) * self.scale_y - 0.5


def frame_of(width: int, height: int, fit: str = "pad") -> Frame:
    """Pad to a centred square (or stretch) and scale to the frame.

    Parameters
    ----------
    width, height : int
        Size of the original image in pixels.
    fit : {"pad", "stretch"}
        ``pad`` keeps the aspect ratio with zeros around the image.
    """
    if fit == "stretch":
        return Frame(width, height, 0, 0, FRAME_PX / width, FRAME_PX / height)
    side = max(width, height)
    scale = FRAME_PX / side
    return Frame(width, height, (side - width) // 2, (side - height) // 2, scale, scale)


def area_weights(length_px: int, reduction: int, offset: int, scale: float) -> csr_array:
    """Weigh each stored pixel by the area of each frame pixel that it covers, along one axis.

    The exact weights make padding and reduced decoding free of shifts: a stored pixel covers
    `reduction` original pixels, the last one perhaps fewer.

    Parameters
    ----------
    length_px : int
        Original image length along the axis.
    reduction : int
        Original pixels per stored pixel.
    offset : int
        Original pixels of padding before the image.
    scale : float
        Frame pixels per original pixel.

    Returns
    -------
    csr_array
        ``(FRAME_PX, ceil(length_px / reduction))``, float32; rows in the padding are zero.
    """
    stored = -(-length_px // reduction)
    pixel_edges = (np.minimum(np.arange(stored + 1) * reduction, length_px) + offset) * scale
    edges = np.union1d(pixel_edges, np.arange(FRAME_PX + 1.0))
    edges = edges[(edges >= pixel_edges[0]) & (edges <= pixel_edges[-1])]
    middle = (edges[1:] + edges[:-1]) / 2
    row = np.minimum(middle.astype(np.intp), FRAME_PX - 1)
    column = np.searchsorted(pixel_edges, middle) - 1
    weights = np.diff(edges).astype(np.float32)
    return csr_array((weights, (row, column)), shape=(FRAME_PX, stored))
