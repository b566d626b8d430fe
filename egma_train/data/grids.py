"""Gaze on any grid of patches, from the stored maps of 224 pixels."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma_train.data.shards import FRAME_PX
from egma_train.geometry import Geometry

Weights = NDArray[np.float64]


class Grid(NamedTuple):
    """A system's patches: how many in a row, and what of the frame they cover."""

    cells: int
    geometry: Geometry
    antialias: bool = False

    def of(self, maps: NDArray[np.uint8], sizes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Shrink maps ``(t, 224, 224)`` of pictures of some sizes ``(t, 2)``: ``(t, n)``."""
        weigh = antialias_weights if self.antialias else area_weights
        across, down = (weigh(self.cells, share) for share in self.geometry.shares(sizes).T)
        return on_grid(maps, down, across)


def area_weights(cells: int, share: ArrayLike = 1.0) -> Weights:
    """Weigh the 224 pixels of a row for each of some cells: shares of a pixel count as shares.

    Parameters
    ----------
    share : array_like
        Of the row that the cells cover, in its middle.

    Returns
    -------
    ndarray
        ``(..., cells, 224)``, rows of sum 1; exact where a whole row's cells divide 224.
    """
    side, begins = _cells(cells, share)
    pixels = np.arange(FRAME_PX)
    overlap = np.minimum(begins + side, pixels + 1) - np.maximum(begins, pixels)
    return np.maximum(overlap, 0) / side


def antialias_weights(cells: int, share: ArrayLike = 1.0) -> Weights:
    """Weigh the 224 pixels of a row for each of some cells by a triangle as wide as two cells.

    What torchvision's ``Resize((7, 7), antialias=True)`` of the published code does in each axis.
    """
    side, begins = _cells(cells, share)
    distances = np.abs(np.arange(FRAME_PX) + 0.5 - (begins + side / 2)) / side
    weights = np.maximum(0, 1 - distances)
    return weights / weights.sum(-1, keepdims=True)


def _cells(cells: int, share: ArrayLike) -> tuple[Weights, Weights]:
    """Give the cells' side ``(..., 1, 1)`` and where each begins ``(..., cells, 1)``, in pixels."""
    covered = FRAME_PX * np.asarray(share, np.float64)[..., None, None]
    side = covered / cells
    return side, (FRAME_PX - covered) / 2 + side * np.arange(cells)[:, None]


def on_grid(
    maps: NDArray[np.uint8], rows: Weights, columns: Weights | None = None
) -> NDArray[np.float32]:
    """Shrink maps ``(..., 224, 224)`` to ``(..., cells * cells)``, row-major, 255 as 1."""
    columns = rows if columns is None else columns
    grids = rows @ maps @ np.swapaxes(columns, -1, -2) / 255
    return grids.astype(np.float32).reshape(*maps.shape[:-2], -1)
