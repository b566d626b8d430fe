"""How a system's own preparation of a picture lies in the frame that the shards hold."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Geometry(NamedTuple):
    """How a system's published code brings a picture to its input.

    Attributes
    ----------
    fit : str
        ``pad`` to a square with zeros, resize the ``shorter`` side, ``squash`` both sides, or
        ``frame``: the frame of the shards, averaged by area.
    resize_px : int
        The square's, or the shorter side's, length after resizing.
    crop_px : int
        Side of the centre that is kept; it is resized to the input where that has another side.
    interpolation : str
        ``area``, ``bilinear``, ``bicubic`` or ``lanczos``.
    stretch : bool
        Grey levels are first spread from 0 to 255.
    """

    fit: str
    resize_px: int
    crop_px: int
    interpolation: str
    stretch: bool = False

    def told(self) -> str:
        """Describe in a report."""
        if self.fit == "frame":
            return "padded to a square of 224 px, averaged by area"
        what = {"pad": "padded to a square", "shorter": "shorter side", "squash": "squashed"}
        crop = f", centre {self.crop_px}" if self.crop_px < self.resize_px else ""
        return f"{what[self.fit]} {self.resize_px} px {self.interpolation}{crop}"

    def shares(self, sizes: ArrayLike) -> NDArray[np.float64]:
        """Tell how much of the frame a system sees: all are cut from its middle.

        Parameters
        ----------
        sizes : array_like
            ``(..., 2)``: width and height of pictures.

        Returns
        -------
        ndarray
            ``(..., 2)`` in (0, 1]: of the frame's width and height. Patch column j of n spans from
            ``0.5 + share * (j / n - 0.5)`` of the width, rows likewise.
        """
        pictures = np.asarray(sizes, np.float64)
        crop = min(1.0, self.crop_px / self.resize_px)
        if self.fit in ("frame", "pad"):
            return np.full_like(pictures, crop)
        # The frame is the picture on a square as long as its longer side.
        longest = pictures.max(-1, keepdims=True)
        if self.fit == "shorter":
            pictures = np.broadcast_to(pictures.min(-1, keepdims=True), pictures.shape)
        return crop * pictures / longest


FRAME = Geometry("frame", 224, 224, "area")
