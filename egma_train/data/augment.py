"""Changes of contrast, drawn first for a whole epoch, then applied; positions never change."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from numpy.typing import NDArray
from torch import Tensor

from egma_train.options import DataOptions

_STREAM = 3
_SHARPNESS = 2.0
_SMOOTHING = ((1, 1, 1), (1, 5, 1), (1, 1, 1))  # over 13, as PIL's


class Draws(NamedTuple):
    """What happens to each image, arrays of one length.

    Attributes
    ----------
    brightness, contrast : ndarray
        Factors.
    sharpen, autocontrast : ndarray
        Bool.
    contrast_first : ndarray
        Bool: contrast before brightness; differs only where a grey value is clipped.
    """

    brightness: NDArray[np.float64]
    contrast: NDArray[np.float64]
    sharpen: NDArray[np.bool_]
    autocontrast: NDArray[np.bool_]
    contrast_first: NDArray[np.bool_]

    def of(self, readings: NDArray[np.int64]) -> "Draws":
        """Take those of some readings."""
        return Draws._make(values[readings] for values in self)


def draw(options: DataOptions, number: int, seed: int, epoch: int) -> Draws:
    """Draw for every reading of the cache, whatever ranks and batches it will meet."""
    rng = np.random.default_rng((seed, _STREAM, epoch))
    low, high = 1 - options.jitter, 1 + options.jitter
    return Draws(
        rng.uniform(low, high, number),
        rng.uniform(low, high, number),
        rng.random(number) < options.sharpness_share,
        rng.random(number) < options.autocontrast_share,
        # Last, so that the other draws are the same with and without it.
        rng.random(number) < (0.5 if options.jitter_order == "drawn" else 0),
    )


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Change images ``[b, h, w]`` in [0, 1]: brightness, contrast, sharpness, autocontrast."""
    brightness, contrast, sharpen, autocontrast, contrast_first = (
        torch.from_numpy(values).to(images.device)[:, None, None] for values in draws
    )
    jittered = _contrasted(_brightened(images, brightness), contrast)
    if contrast_first.any():
        other = _brightened(_contrasted(images, contrast), brightness)
        jittered = torch.where(contrast_first, other, jittered)
    images = jittered
    if sharpen.any():
        images = torch.where(sharpen, _sharpened(images), images)
    return torch.where(autocontrast, _stretched(images), images) if autocontrast.any() else images


def _brightened(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor.to(images.dtype)).clamp(0, 1)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    mean = images.mean((1, 2), keepdim=True)
    return (mean + (images - mean) * factor.to(images.dtype)).clamp(0, 1)


def _stretched(images: Tensor) -> Tensor:
    low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _sharpened(images: Tensor) -> Tensor:
    kernel = torch.tensor(_SMOOTHING, dtype=images.dtype, device=images.device) / 13
    smooth = images.clone()  # the border stays, as PIL's
    smooth[:, 1:-1, 1:-1] = F.conv2d(images[:, None], kernel[None, None])[:, 0]
    return (smooth + (images - smooth) * _SHARPNESS).clamp(0, 1)
