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


class Draws(NamedTuple):
    """What happens to each image, tensors of one length; None where it happens to none.

    Attributes
    ----------
    brightness, contrast : Tensor
        Factors.
    sharpen, autocontrast : Tensor or None
        Bool.
    contrast_first : Tensor or None
        Bool: contrast before brightness; differs only where a grey value is clipped.
    """

    brightness: Tensor
    contrast: Tensor
    sharpen: Tensor | None
    autocontrast: Tensor | None
    contrast_first: Tensor | None

    def of(self, readings: NDArray[np.int64]) -> "Draws":
        """Take those of some readings."""
        rows = torch.from_numpy(readings)
        return Draws._make(None if values is None else values[rows] for values in self)


def draw(options: DataOptions, number: int, seed: int, epoch: int) -> Draws:
    """Draw for every reading of the cache, whatever ranks and batches it will meet."""
    rng = np.random.default_rng((seed, _STREAM, epoch))
    low, high = 1 - options.jitter, 1 + options.jitter
    brightness, contrast = (torch.from_numpy(rng.uniform(low, high, number)) for _ in range(2))
    # The order is drawn last, so that the other draws are the same with and without it.
    swapped = 0.5 if options.jitter_order == "drawn" else 0.0
    shares = (options.sharpness_share, options.autocontrast_share, swapped)
    drawn = [torch.from_numpy(rng.random(number) < share) for share in shares]
    # What no image meets is left out here: to ask the card's tensors would make the host wait.
    kept = [one if share else None for one, share in zip(drawn, shares, strict=True)]
    return Draws(brightness, contrast, *kept)


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Change images ``[b, h, w]`` in [0, 1]: brightness, contrast, sharpness, autocontrast."""
    brightness, contrast = (one[:, None, None] for one in draws[:2])
    jittered = _contrasted(_brightened(images, brightness), contrast)
    if draws.contrast_first is not None:
        other = _brightened(_contrasted(images, contrast), brightness)
        jittered = torch.where(draws.contrast_first[:, None, None], other, jittered)
    images = jittered
    if draws.sharpen is not None:
        images = torch.where(draws.sharpen[:, None, None], _sharpened(images), images)
    if draws.autocontrast is not None:
        images = torch.where(draws.autocontrast[:, None, None], _stretched(images), images)
    return images


def _brightened(images: Tensor, factor: Tensor) -> Tensor:
    return (images * factor.to(images.dtype)).clamp(0, 1)


def _contrasted(images: Tensor, factor: Tensor) -> Tensor:
    mean = images.mean((1, 2), keepdim=True)
    return (mean + (images - mean) * factor.to(images.dtype)).clamp(0, 1)


def _stretched(images: Tensor) -> Tensor:
    low, high = images.amin((1, 2), keepdim=True), images.amax((1, 2), keepdim=True)
    return torch.where(high > low, (images - low) / (high - low).clamp(min=1e-6), images)


def _sharpened(images: Tensor) -> Tensor:
    smooth = images.clone()  # the border stays, as PIL's
    around = F.avg_pool2d(images[:, None], 3, stride=1)[:, 0]
    # PIL's kernel: 5/13 of the pixel, 1/13 of each of its eight neighbours.
    smooth[:, 1:-1, 1:-1] = (9 * around + 4 * images[:, 1:-1, 1:-1]) / 13
    return (smooth + (images - smooth) * _SHARPNESS).clamp(0, 1)
