"""Gaussian heatmaps of weighted fixations in the 224 frame (DESIGN, "Heatmap")."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma_prep.errors import BadUsageError
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.kernels import Separable, gaussian

FloatArray = NDArray[np.float64]

GRID_CELLS = 7
_ROUNDING_SLACK = 1e-9  # ties must not hang on the last bit of a sum
_LEAST_PEAK = 1e-200
"""Less is no gaze that a map could show: it lies far outside what was on the screen."""
NORMALISATIONS = ("peak", "sum")


@dataclass(frozen=True)
class Heatmap:
    """A stored map.

    Attributes
    ----------
    values : ndarray
        ``(FRAME_PX, FRAME_PX)`` uint8, row-major (row = y), peak 255.
    peak_seconds : float
        What 255 stood for before normalisation: seconds of gaze at that pixel by the kernel (with
        ``density`` seconds a pixel), or counts where fixations are counted.
    grid : ndarray
        Of 7 x 7 cells, row-major, ``(49,)`` float32: area means of values/255, or shares of their
        sum.
    """

    values: NDArray[np.uint8]
    peak_seconds: float
    grid: NDArray[np.float32]


def within(
    made: Separable | NDArray[Any], x_edges_px: FloatArray, y_edges_px: FloatArray
) -> Separable | NDArray[Any]:
    """Cut footprints at rectangles; a pixel at an edge keeps the share of it that is inside.

    Parameters
    ----------
    made : Separable or ndarray
        Of k fixations, as a `Kernel` gives them.
    x_edges_px, y_edges_px : ndarray
        ``(k, 2)`` in frame pixels, their centres at integers; what a rectangle covers.
    """
    rows, columns = _covered(y_edges_px), _covered(x_edges_px)
    if isinstance(made, Separable):
        return Separable(made.rows * rows, made.columns * columns)
    return made * (rows[:, :, None] * columns[:, None, :])


def _covered(edges_px: FloatArray) -> FloatArray:
    pixels = np.arange(FRAME_PX)
    first = np.maximum(edges_px[:, :1], pixels - 0.5)
    last = np.minimum(edges_px[:, 1:], pixels + 0.5)
    return np.maximum(last - first, 0.0)  # (k, FRAME_PX)


def mirrored(
    x_px: FloatArray, y_px: FloatArray, x_edges_px: FloatArray, y_edges_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Add the images of k fixations in mirrors at two pairs of edges: ``(9 k,)``, themselves first.

    Cut at the edges, their sum is a map that keeps what would lie beyond, as
    `scipy.ndimage.gaussian_filter` does unless it is told otherwise.
    """
    across = [x_px, *(2 * edge - x_px for edge in x_edges_px)]
    down = [y_px, *(2 * edge - y_px for edge in y_edges_px)]
    return np.concatenate(across * 3), np.concatenate([one for one in down for _ in range(3)])


def rendered_maps(
    made: Separable | NDArray[Any], weights: FloatArray, normalise: str = "peak"
) -> list[Heatmap | None]:
    """Sum the weighted footprints, normalise, store as bytes.

    Parameters
    ----------
    made : Separable or ndarray
        Footprints of k fixations, as a `Kernel` gives them.
    weights : ndarray
        ``(m, k)`` seconds, or counts.
    normalise : {"peak", "sum"}
        Grids are means of a map whose peak is 1, or shares of a map whose sum is 1; the stored map
        has its peak at 255 either way.

    Returns
    -------
    list
        m maps; None where no fixation carries weight, or none reaches the frame.
    """
    maps: list[Heatmap | None] = []
    cell = FRAME_PX // GRID_CELLS
    for weight in weights:
        used = weight > 0
        if isinstance(made, Separable):
            total = (made.rows[used] * weight[used, None]).T @ made.columns[used]  # (v, u)
        else:
            total = np.einsum("k,kvu->vu", weight[used], made[used], dtype=np.float64)
        peak = float(total.max())
        if not peak > _LEAST_PEAK:
            maps.append(None)
            continue
        total *= 255 / peak
        total += 0.5 + _ROUNDING_SLACK
        values = total.astype(np.uint8)
        rows = values.reshape(GRID_CELLS, cell, FRAME_PX).sum(axis=1, dtype=np.uint32)
        cells = rows.reshape(GRID_CELLS, GRID_CELLS, cell).sum(axis=2)  # exact, as sums of integers
        grid = cells / cells.sum() if normalise == "sum" else cells / cell**2 / 255
        maps.append(Heatmap(values, peak, grid.astype(np.float32).ravel()))
    return maps


def heatmap(
    x_px: ArrayLike, y_px: ArrayLike, weight_s: ArrayLike, sigma_px: float = 16.0
) -> NDArray[np.uint8] | None:
    """Render fixations of one's own as the shards' maps are.

    Parameters
    ----------
    x_px, y_px : array_like
        ``(k,)`` pixels of the 224 frame, centres at integers.
    weight_s : array_like
        ``(k,)`` seconds; a fixation of 0 seconds leaves no trace.
    sigma_px : float
        Width of a fixation, cut off beyond three of it.

    Returns
    -------
    ndarray or None
        ``(FRAME_PX, FRAME_PX)`` uint8, row-major (row = y), peak 255; None where no fixation has
        weight.

    Raises
    ------
    BadUsageError
        If the lengths differ, a value is not finite, a weight is negative or sigma not above 0.
    """
    x, y, weight = (np.asarray(one, dtype=np.float64).ravel() for one in (x_px, y_px, weight_s))
    if not x.size == y.size == weight.size:
        raise BadUsageError(
            f"{x.size} x, {y.size} y, {weight.size} weights; give each fixation one"
        )
    if not np.isfinite([x, y, weight]).all() or (weight < 0).any():
        raise BadUsageError("positions and weights must be finite, weights 0 or more seconds")
    if not 0 < sigma_px < np.inf:
        raise BadUsageError(f"sigma_px is {sigma_px}; give frame pixels above 0")
    sigma = np.full(x.size, float(sigma_px))
    (made,) = rendered_maps(gaussian.footprints(x, y, sigma, sigma), weight[None])
    return None if made is None else made.values
