"""A Gaussian of height 1 at its centre: DESIGN's, for the paper gives no other."""

import numpy as np

from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.kernels import FloatArray, Separable

_FARTHEST_SIGMA = 8.0
"""So many sigma away a Gaussian is still a number on both axes; beyond 38 it is 0 in float64."""


def footprints(
    x_px: FloatArray,
    y_px: FloatArray,
    sigma_x_px: FloatArray,
    sigma_y_px: FloatArray,
    truncate: float = 3.0,
) -> Separable:
    """Sample Gaussians at the frame's pixel centres; zero beyond `truncate` sigma, edge inside."""
    return Separable(_sampled(y_px, sigma_y_px, truncate), _sampled(x_px, sigma_x_px, truncate))


def _sampled(centre_px: FloatArray, sigma_px: FloatArray, truncate: float) -> FloatArray:
    """Sample one axis, ``(k, FRAME_PX)``.

    A sigma too narrow to reach a pixel centre is widened until it does, so that no gaze vanishes
    between pixels (REFLACX zooms up to 70 times).
    """
    nearest = np.clip(np.round(centre_px), 0, FRAME_PX - 1)
    reach = min(truncate, _FARTHEST_SIGMA)
    least_px = np.abs(centre_px - nearest) / reach * (1 + 1e-9) + 1e-9
    sigma_px = np.maximum(sigma_px, least_px)
    distance = (np.arange(FRAME_PX) - centre_px[:, None]) / sigma_px[:, None]
    return np.where(np.abs(distance) <= truncate, np.exp(-0.5 * distance**2), 0.0)
