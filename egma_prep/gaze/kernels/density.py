"""A normal density, of volume 1: maps of full size by REFLACX's and EYE GAZE's code average to it.

Where a reader zoomed in, a degree is fewer pixels of the image and the density so much higher.
"""

import numpy as np
from scipy.special import ndtr

from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.kernels import FloatArray, Separable


def footprints(
    x_px: FloatArray,
    y_px: FloatArray,
    sigma_x_px: FloatArray,
    sigma_y_px: FloatArray,
    truncate: float = 8.0,
) -> Separable:
    """Integrate densities over the frame's pixels, up to `truncate` sigma from the centre."""
    return Separable(
        _integrated(y_px, sigma_y_px, truncate), _integrated(x_px, sigma_x_px, truncate)
    )


def _integrated(centre_px: FloatArray, sigma_px: FloatArray, truncate: float) -> FloatArray:
    edges_px = np.arange(FRAME_PX + 1) - 0.5
    distance = (edges_px - centre_px[:, None]) / sigma_px[:, None]
    return np.diff(ndtr(np.clip(distance, -truncate, truncate)), axis=1)
