"""Gaze on any grid of patches, from the stored maps of 224 pixels."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from egma_train.data.shards import FRAME_PX

Weights = NDArray[np.float64]


@cache
def area_weights(cells: int) -> Weights:
    """Weigh the 224 pixels of a row for each of some cells: shares of a pixel count as shares.

    Returns
    -------
    ndarray
        ``(cells, 224)``, rows of sum 1; exact where cells divide 224, such as 7, 14, 16 and 32.
    """
    side = FRAME_PX / cells
    begins = side * np.arange(cells)[:, None]
    pixels = np.arange(FRAME_PX)
    overlap = np.minimum(begins + side, pixels + 1) - np.maximum(begins, pixels)
    return np.maximum(overlap, 0) / side


@cache
def antialias_weights(cells: int) -> Weights:
    """Weigh the 224 pixels of a row for each of some cells by a triangle as wide as two cells.

    What torchvision's ``Resize((7, 7), antialias=True)`` of the published code does in each axis.
    """
    side = FRAME_PX / cells
    centres = side * (np.arange(cells) + 0.5)[:, None]
    weights = np.maximum(0, 1 - np.abs(np.arange(FRAME_PX) + 0.5 - centres) / side)
    return weights / weights.sum(1, keepdims=True)


def on_grid(maps: NDArray[np.uint8], weights: Weights) -> NDArray[np.float32]:
    """Shrink maps ``(..., 224, 224)`` to ``(..., cells * cells)``, row-major, 255 as 1."""
    grids = weights @ maps @ weights.T / 255
    return grids.astype(np.float32).reshape(*maps.shape[:-2], -1)
