"""Gaussian heatmaps of weighted fixations in the 224 frame (DESIGN, "Heatmap")."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from egma_prep.errors import BadUsageError
from egma_prep.gaze.frame import FRAME_PX

FloatArray = NDArray[np.float64]

GRID_CELLS = 7
_ROUNDING_SLACK = 1e-9  # ties must not hang on the last bit of a sum
_FARTHEST_SIGMA = 8.0
"""So many sigma away a Gaussian is still a number on both axes; beyond 38 it is 0 in float64."""


@dataclass(frozen=True)
class Heatmap:
    """A stored map.

    Attributes
    ----------
    values : ndarray
        ``(FRAME_PX, FRAME_PX)`` uint8, row-major (row = y), peak 255.
    peak_seconds : float
        What 255 stood for before normalisation.
    grid : ndarray
        Area means of values/255 on 7 x 7 cells, row-major, ``(49,)`` float32.
    """

    values: NDArray[np.uint8]
    peak_seconds: float
    grid: NDArray[np.float32]


def gaussian(centre_px: FloatArray, sigma_px: FloatArray, truncate: float) -> FloatArray:
    """Sample one axis of each fixation's kernel at the frame's pixel centres.

    A sigma too narrow to reach a pixel centre is widened until it does, so that no gaze vanishes
    between pixels (REFLACX zooms up to 70 times).

    Parameters
    ----------
    centre_px, sigma_px : ndarray
        ``(k,)`` in frame pixels.
    truncate : float
        Zero beyond this many sigma; the edge itself is inside.

    Returns
    -------
    ndarray
        ``(k, FRAME_PX)``, 1 at the centre.
    """
    nearest = np.clip(np.round(centre_px), 0, FRAME_PX - 1)
    reach = min(truncate, _FARTHEST_SIGMA)
    least_px = np.abs(centre_px - nearest) / reach * (1 + 1e-9) + 1e-9
    sigma_px = np.maximum(sigma_px, least_px)
    distance = (np.arange(FRAME_PX) - centre_px[:, None]) / sigma_px[:, None]  # (k, 224)
    return np.where(np.abs(distance) <= truncate, np.exp(-0.5 * distance**2), 0.0)


@dataclass(frozen=True)
class Kernels:
    """The two factors of every fixation's Gaussian: ``rows[k, v] * columns[k, u]``."""

    rows: FloatArray
    columns: FloatArray


def kernels(
    x_px: FloatArray,
    y_px: FloatArray,
    sigma_x_px: FloatArray,
    sigma_y_px: FloatArray,
    truncate: float = 3.0,
) -> Kernels:
    """Factor the Gaussians of k fixations; all arguments ``(k,)`` in frame pixels."""
    return Kernels(gaussian(y_px, sigma_y_px, truncate), gaussian(x_px, sigma_x_px, truncate))


def rendered_maps(kernel: Kernels, weights_s: FloatArray) -> list[Heatmap | None]:
    """Sum the weighted Gaussians, normalise by the peak, store as bytes.

    Parameters
    ----------
    kernel : Kernels
        Of k fixations.
    weights_s : ndarray
        ``(m, k)`` seconds.

    Returns
    -------
    list
        m maps; None where no fixation carries weight.
    """
    maps: list[Heatmap | None] = []
    cell = FRAME_PX // GRID_CELLS
    for weight_s in weights_s:
        used = weight_s > 0
        if not used.any():
            maps.append(None)
            continue
        total = (kernel.rows[used] * weight_s[used, None]).T @ kernel.columns[used]  # (v, u)
        peak = float(total.max())
        total *= 255 / peak
        total += 0.5 + _ROUNDING_SLACK
        values = total.astype(np.uint8)
        rows = values.reshape(GRID_CELLS, cell, FRAME_PX).sum(axis=1, dtype=np.uint32)
        cells = rows.reshape(GRID_CELLS, GRID_CELLS, cell).sum(axis=2)  # exact, as sums of integers
        maps.append(Heatmap(values, peak, (cells / cell**2 / 255).astype(np.float32).ravel()))
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
    (made,) = rendered_maps(kernels(x, y, sigma, sigma), weight[None])
    return None if made is None else made.values
