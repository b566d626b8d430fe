"""From numbers of readings to the tensors of a batch."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
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
from egma_train.data.streaming import ImagesInOrder, ShardImages
from egma_train.geometry import FRAME

Numbers = NDArray[np.int64]

_AHEAD_PER_WORKER = 2
# Where shapes are few, kernels are compiled and recorded once: a batch of 100 readings has some 590
# sentences of 13 tokens, of which a few have 40.
_LENGTHS = (16, 32, 64)
_ROWS, _SENTENCES = 64, 4


@dataclass(frozen=True)
class Texts:
    """Some sentences of a part, padded to one length.

    Attributes
    ----------
    input_ids, attention_mask : Tensor
        ``[t, l]``.
    places : Tensor
        ``[t]``: the row of each among the part's padded sentences ``[b' m]``; one behind the last
        for rows that only fill up.
    """

    input_ids: Tensor
    attention_mask: Tensor
    places: Tensor


@dataclass(frozen=True)
class Part:
    """Readings that the towers see at once.

    Attributes
    ----------
    images : Tensor
        ``[b', 224, 224]`` uint8.
    texts : tuple of Texts
        Their sentences, each once.
    draws : Draws or None
        How the images are augmented.
    shares : Tensor or None
        ``[b', 2]``: of the frames' width and height that the system sees; None: all.
    """

    images: Tensor
    texts: tuple[Texts, ...]
    draws: Draws | None
    shares: Tensor | None


@dataclass(frozen=True)
class Batch:
    """A global batch of b readings; the parts are this process's share of it.

    Attributes
    ----------
    parts : tuple of Part
        In order.
    sentence_mask, grid_mask : Tensor
        ``[b, m]`` bool, of the global batch.
    grid : Tensor
        ``[b, m, n]``, of the global batch; n is 49 for 7 x 7 patches.
    readings : ndarray
        ``(b,)`` numbers in the cache.
    images_by_rank : tuple of int
        How the global batch is shared out.
    in_parts : bool
        Whether any process has several parts.
    """

    parts: tuple[Part, ...]
    sentence_mask: Tensor
    grid: Tensor
    grid_mask: Tensor
    readings: Numbers
    images_by_rank: tuple[int, ...]
    in_parts: bool = False

    def to(self, device: torch.device) -> "Batch":
        """Move the tensors to a device; pinned ones without making the host wait."""
        moved: Batch = _each_tensor(self, lambda own: own.to(device, non_blocking=True))
        return moved

    def pinned(self) -> "Batch":
        """Lay the tensors where a card copies them from by itself."""
        laid: Batch = _each_tensor(self, Tensor.pin_memory)
        return laid


def _each_tensor(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change every tensor of a batch, however deep."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, Draws):
        return Draws(*(_each_tensor(one, change) for one in value))
    if isinstance(value, tuple):
        return tuple(_each_tensor(one, change) for one in value)
    if isinstance(value, Batch | Part | Texts):
        changed = {name: _each_tensor(own, change) for name, own in vars(value).items()}
        return replace(value, **changed)
    return value


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
    images : ImagesInOrder, optional
        In place of the cache's.
    draws : Draws, optional
        An epoch's augmentation of every reading of the cache.
    readings_at_once : int
        Of a part; 0: all of a process's share.
    few_shapes : bool
        Fill up the sentences and their tokens to a few sizes, as compiled kernels want them.
    padding_counts : bool
        Whether a text's features depend on its padding, which then stays what the tokenizer makes.
    """

    cache: ReadingCache
    tokenizer: Any
    used_gaze: NDArray[np.bool_]
    max_tokens: int = 77
    whole_reading_fills_in: bool = False
    rank: int = 0
    world: int = 1
    grid: Grid | None = None
    images: ImagesInOrder | None = None
    draws: Draws | None = None
    readings_at_once: int = 0
    few_shapes: bool = False
    padding_counts: bool = True

    def share(self, readings: Numbers) -> Numbers:
        """Take this process's share of a global batch."""
        return np.array_split(readings, self.world)[self.rank]

    def load(self, readings: Numbers) -> Batch:
        """Load a global batch; images and tokens of this rank only."""
        sentences, counts = self.cache.sentences_of(readings)
        longest = int(counts.max())
        longest = _up_to(longest, _SENTENCES) if self.few_shapes else longest
        mask: NDArray[np.bool_] = np.arange(longest) < counts[:, None]
        shares = np.array_split(np.arange(len(readings)), self.world)
        own = shares[self.rank]
        at_once = self.readings_at_once or len(shares[0])
        several = -(-len(own) // at_once)
        ends = np.cumsum(counts)
        those = slice(ends[own[0]] - counts[own[0]], ends[own[-1]])
        # All at once, since what they are padded to may count.
        tokens = tokenized(self.tokenizer, self.cache.texts(sentences[those]), self.max_tokens)
        parts, done = [], 0
        for rows in np.array_split(own, several):
            of_part = slice(done, done + int(counts[rows].sum()))
            done = of_part.stop
            own_tokens = (tokens[name][of_part] for name in ("input_ids", "attention_mask"))
            parts.append(self._part(readings[rows], mask[rows], *own_tokens))
        return Batch(
            tuple(parts),
            torch.from_numpy(mask),
            *self._gaze(readings, sentences, mask),
            readings,
            tuple(map(len, shares)),
            len(shares[0]) > at_once,  # the first is the largest
        )

    def _part(
        self, readings: Numbers, mask: NDArray[np.bool_], ids: Tensor, attended: Tensor
    ) -> Part:
        texts = Texts(ids, attended, torch.from_numpy(np.flatnonzero(mask)))
        return Part(
            torch.from_numpy((self.images or self.cache.images).take(readings, axis=0)),
            self._in_few_shapes(texts, mask.size) if self.few_shapes else (texts,),
            self.draws.of(readings) if self.draws else None,
            self._shares(readings),
        )

    def _in_few_shapes(self, texts: Texts, places: int) -> tuple[Texts, ...]:
        """Sort sentences by length into groups of a few lengths and numbers of rows."""
        ids, attended = texts.input_ids, texts.attention_mask
        lengths, width = attended.sum(1), ids.shape[1]
        edges = [*(one for one in _LENGTHS if one < self.max_tokens), self.max_tokens]
        # Padding before the words cannot be cut off behind them.
        if self.padding_counts or not attended[:, 0].all():
            lengths, edges = torch.full_like(lengths, width), [width]
        groups = []
        for shorter, edge in pairwise([0, *edges]):
            rows = torch.nonzero((lengths > shorter) & (lengths <= edge))[:, 0]
            if not len(rows):
                continue
            # A whole sentence fills up: one of no tokens would average nothing.
            lacking = -len(rows) % _ROWS
            rows = torch.cat([rows, rows[-1:].expand(lacking)])
            own_places = texts.places[rows]
            own_places[len(rows) - lacking :] = places
            longer = (0, max(0, edge - width))
            own_ids, own_mask = (F.pad(one[rows, :edge], longer) for one in (ids, attended))
            groups.append(Texts(own_ids, own_mask, own_places))
        return tuple(groups)

    def _shares(self, readings: Numbers) -> Tensor | None:
        if self.grid is None or self.grid.geometry == FRAME:
            return None
        return torch.from_numpy(self.grid.geometry.shares(self.cache.sizes[readings])).float()

    def gaze(self, readings: Numbers) -> tuple[Tensor, Tensor]:
        """Give the gaze alone: grid ``[b, m, n]``, and where there is any ``[b, m]``."""
        sentences, counts = self.cache.sentences_of(readings)
        return self._gaze(readings, sentences, np.arange(counts.max()) < counts[:, None])

    def _gaze(
        self, readings: Numbers, sentences: Numbers, mask: NDArray[np.bool_]
    ) -> tuple[Tensor, Tensor]:
        """Pad the sentences' grids to their mask: grid ``[b, m, n]``, gaze ``[b, m]``."""
        grids = self.cache.grids[sentences]
        if self.grid is not None and self.cache.maps is not None:
            sizes = np.repeat(self.cache.sizes[readings], mask.sum(1), axis=0)
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
        return torch.from_numpy(grid), torch.from_numpy(gazed)


def _up_to(number: int, multiple: int) -> int:
    return number + -number % multiple


def iterate(
    loader: BatchLoader, batches: Sequence[Numbers], workers: int = 0, *, pin: bool = False
) -> Iterator[Batch]:
    """Yield batches in order, loaded ahead by threads if asked, and `pin` them for a card.

    Copying and cutting up text release the interpreter, so threads are enough, and they start at
    once and hand batches over without a copy, which processes do not.
    """
    with ExitStack() as stack:
        if isinstance(loader.cache.images, ShardImages):
            own = [loader.share(one) for one in batches]
            images = stack.enter_context(loader.cache.images.in_order(own))
            loader = replace(loader, images=images)

        def load(readings: Numbers) -> Batch:
            batch = loader.load(readings)
            return batch.pinned() if pin else batch

        if not workers:
            yield from map(load, batches)
            return
        # A tokenizer's first call sets its padding, which must not happen in two threads at once.
        tokenized(loader.tokenizer, ["."], loader.max_tokens)
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        yield from in_order(load, batches, pool, _AHEAD_PER_WORKER * workers)


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Move batches to a device; to a card the next one while the one before is worked on."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copying, working = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    ahead: deque[tuple[Batch, torch.cuda.Event]] = deque()

    def next_one() -> Batch:
        batch, copied = ahead.popleft()
        working.wait_event(copied)
        return batch

    for batch in batches:
        # A copy may get the memory of a batch whose step is still at work: it waits for that step,
        # and goes on beside the one after it.
        copying.wait_stream(working)
        with torch.cuda.stream(copying):
            ahead.append((batch.to(device), copying.record_event()))
        if len(ahead) > 1:
            yield next_one()
    while ahead:
        yield next_one()


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
    # Numbers, not tensors: to bring one to a card would make the host wait.
    channels = [(grey - middle) / spread for middle, spread in zip(mean, std, strict=True)]
    return torch.stack(channels, 1).expand(-1, 3, -1, -1)
