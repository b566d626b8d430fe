"""From numbers of readings to the tensors of a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from numpy.typing import NDArray
from torch import Tensor

from egma_train.data.ahead import in_order
from egma_train.data.augment import Draws, apply
from egma_train.data.cache import ReadingCache
from egma_train.data.grids import Grid
from egma_train.geometry import FRAME

Numbers = NDArray[np.int64]

_AHEAD_PER_WORKER = 2


@dataclass(frozen=True)
class Batch:
    """A global batch of b readings; images and tokens are this process's share of it.

    Attributes
    ----------
    images : Tensor
        ``[b', 224, 224]`` uint8.
    input_ids, attention_mask : Tensor
        ``[t', l]``: tokens of the sentences of those images, in order.
    sentence_mask, grid_mask : Tensor
        ``[b, m]`` bool, of the global batch.
    grid : Tensor
        ``[b, m, n]``, of the global batch; n is 49 for 7 x 7 patches.
    readings : Tensor
        ``[b]`` numbers in the cache.
    shares : Tensor or None
        ``[b', 2]``: of the frames' width and height that the system sees; None: all.
    images_by_rank, sentences_by_rank : tuple of int
        How the global batch is shared out.
    """

    images: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    sentence_mask: Tensor
    grid: Tensor
    grid_mask: Tensor
    readings: Tensor
    shares: Tensor | None
    images_by_rank: tuple[int, ...]
    sentences_by_rank: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        """Move the tensors to a device."""
        moved: dict[str, Any] = {
            name: own.to(device) for name, own in vars(self).items() if isinstance(own, Tensor)
        }
        return replace(self, **moved)


def tokenized(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> Any:
    """Encode texts as padded ``input_ids`` and ``attention_mask``, ``[t, l]``."""
    return tokenizer(
        list(texts), padding=True, truncation=True, max_length=max_tokens, return_tensors="pt"
    )


@dataclass(frozen=True)
class BatchLoader:
    """Fetches whole batches at once.

    Attributes
    ----------
    tokenizer : callable
        As of transformers.
    used_gaze : ndarray
        ``(N,)`` bool: readings whose gaze counts.
    whole_reading_fills_in : bool
        Give sentences without gaze the whole reading's grid.
    grid : Grid, optional
        Another than the stored one of 7 x 7 on the frame; the cache must have its maps.
    """

    cache: ReadingCache
    tokenizer: Any
    used_gaze: NDArray[np.bool_]
    max_tokens: int = 77
    whole_reading_fills_in: bool = False
    rank: int = 0
    world: int = 1
    grid: Grid | None = None

    def load(self, readings: Numbers) -> Batch:
        """Load a global batch; images and tokens of this rank only."""
        sentences, counts = self.cache.sentences_of(readings)
        base, larger = divmod(len(readings), self.world)  # shares as `np.array_split` makes them
        edges = [rank * base + min(rank, larger) for rank in range(self.world + 1)]
        ends = [0, *np.cumsum(counts).tolist()]
        own = slice(edges[self.rank], edges[self.rank + 1])
        texts = self.cache.texts(sentences[ends[own.start] : ends[own.stop]])
        tokens = tokenized(self.tokenizer, texts, self.max_tokens)
        return Batch(
            torch.from_numpy(self.cache.images.take(readings[own], axis=0)),
            tokens["input_ids"],
            tokens["attention_mask"],
            *self._gaze(readings, sentences, counts),
            torch.from_numpy(readings),
            self._shares(readings[own]),
            tuple(b - a for a, b in pairwise(edges)),
            tuple(ends[b] - ends[a] for a, b in pairwise(edges)),
        )

    def _shares(self, readings: Numbers) -> Tensor | None:
        if self.grid is None or self.grid.geometry == FRAME:
            return None
        return torch.from_numpy(self.grid.geometry.shares(self.cache.sizes[readings])).float()

    def _gaze(
        self, readings: Numbers, sentences: Numbers, counts: Numbers
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Pad the sentences' grids: mask ``[b, m]``, grid ``[b, m, n]``, gaze ``[b, m]``."""
        mask = np.arange(counts.max()) < counts[:, None]
        grids = self.cache.grids[sentences]
        if self.grid is not None and self.cache.maps is not None:
            sizes = np.repeat(self.cache.sizes[readings], counts, axis=0)
            grids = self.grid.of(self.cache.maps[sentences], sizes)
        grid = np.zeros((*mask.shape, grids.shape[1]), np.float32)
        gazed = np.zeros(mask.shape, np.bool_)
        grid[mask], gazed[mask] = grids, self.cache.has_grid[sentences]
        if self.whole_reading_fills_in:
            whole = self.cache.reading_grids[readings]
            lacking = mask & ~gazed & ~np.isnan(whole[:, :1])
            grid[lacking] = np.broadcast_to(whole[:, None], grid.shape)[lacking]
            gazed |= lacking
        gazed &= self.used_gaze[readings][:, None]
        grid[~gazed] = 0
        return torch.from_numpy(mask), torch.from_numpy(grid), torch.from_numpy(gazed)


def iterate(loader: BatchLoader, batches: Sequence[Numbers], workers: int = 0) -> Iterator[Batch]:
    """Yield batches in order, loaded ahead by threads if asked.

    Copying and cutting up text release the interpreter, so threads are enough, and they start at
    once and hand batches over without a copy, which processes do not.
    """
    if not workers:
        return map(loader.load, batches)
    # A tokenizer's first call sets its padding, which must not happen in two threads at once.
    tokenized(loader.tokenizer, ["."], loader.max_tokens)
    return in_order(loader.load, batches, workers, _AHEAD_PER_WORKER * workers)


def pixels(
    images: Tensor,
    side_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    draws: Draws | None,
    shares: Tensor | None = None,
) -> Tensor:
    """Turn stored frames into what the image tower sees.

    Parameters
    ----------
    images : Tensor
        ``[b, h, h]`` uint8.
    side_px : int
        Areas are averaged down to a divisor of h; any other side is interpolated.
    mean, std : sequence of float
        Of grey in [0, 1], one for all channels or one each.
    draws : Draws, optional
        Augmentation.
    shares : Tensor, optional
        ``[b, 2]``: of the width and height that is seen, in the middle; interpolated.

    Returns
    -------
    Tensor
        ``[b, 3, side_px, side_px]`` float32, grey three times.
    """
    grey = images.float() / 255
    if shares is not None:
        # Cut from the middle, so that a scale of each axis says it all.
        scales = torch.diag_embed(F.pad(shares, (0, 1)))[:, :2]  # [b, 2, 3]
        places = F.affine_grid(scales, [len(grey), 1, side_px, side_px], align_corners=False)
        how_far: Any = {"padding_mode": "border", "align_corners": False}
        grey = F.grid_sample(grey[:, None], places.to(grey.dtype), **how_far)[:, 0]
    given = int(grey.shape[-1])
    times, rest = divmod(given, side_px)
    if not rest and times > 1:
        grey = F.avg_pool2d(grey[:, None], times)[:, 0]
    if draws is not None:
        grey = apply(grey, draws)
    if rest:
        side = (side_px, side_px)
        # Antialiasing matters only where pixels are lost, and ONNX has none.
        how: Any = {"mode": "bilinear", "antialias": side_px < given}
        grey = F.interpolate(grey[:, None], size=side, **how)[:, 0]
    middle, spread = (grey.new_tensor(values).reshape(1, -1, 1, 1) for values in (mean, std))
    return ((grey[:, None] - middle) / spread).expand(-1, 3, -1, -1)
