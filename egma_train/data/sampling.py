"""Which readings are trained on, whose gaze counts, and in which order they come."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from egma_train.data.cache import ReadingCache
from egma_train.errors import BadUsageError, unknown_name
from egma_train.options import DataOptions, Options

Numbers = NDArray[np.int64]

_GAZE, _ORDER = 1, 2  # streams of random numbers of one seed


def chosen_readings(cache: ReadingCache, options: DataOptions) -> Numbers:
    """Pick readings to train on by split, one of each image if asked, in the shards' order.

    Raises
    ------
    BadUsageError
        If a named split has none, or nothing is left.
    """
    split = _splits(cache, options)
    chosen = np.flatnonzero(np.isin(split, options.splits or list(set(split.tolist()))))
    chosen = chosen[split[chosen] != options.validation_split]
    if not len(chosen):
        raise BadUsageError(
            f"data.validation_split={options.validation_split} leaves no reading to train on"
        )
    return _one_of_each_image(cache, chosen, options)


def held_readings(cache: ReadingCache, options: DataOptions) -> Numbers:
    """Pick the readings of the split that is held out; none without one."""
    held = np.flatnonzero(_splits(cache, options) == options.validation_split)
    return _one_of_each_image(cache, held, options)


def _splits(cache: ReadingCache, options: DataOptions) -> NDArray[np.str_]:
    split = np.where(cache.split == "", "unknown", cache.split)  # as egma-eval names it
    known = set(split.tolist())
    for name in options.splits:
        if name not in known:
            raise unknown_name("split (data.splits)", name, known)
    if options.validation_split not in ("", *known):
        raise unknown_name("split (data.validation_split)", options.validation_split, known)
    return split


def _one_of_each_image(cache: ReadingCache, chosen: Numbers, options: DataOptions) -> Numbers:
    if options.one_reading_per_image and len(chosen):
        by_key = np.lexsort(
            (cache.reading_id[chosen], cache.dataset[chosen], ~cache.readings_with_gaze()[chosen])
        )
        _, first = np.unique(cache.image_number[chosen[by_key]], return_index=True)
        chosen = np.sort(chosen[by_key[first]])
    return chosen


def readings_with_used_gaze(
    cache: ReadingCache, readings: Numbers, options: DataOptions, seed: int
) -> NDArray[np.bool_]:
    """Tell whose gaze counts: ``(N,)``, a nested, seeded share of the `readings` with gaze."""
    gazed = readings[cache.readings_with_gaze()[readings]]
    # By key, so that the shards' order does not matter.
    gazed = gazed[np.lexsort((cache.reading_id[gazed], cache.dataset[gazed]))]
    number = gaze_count(len(gazed), options)
    used = np.zeros(len(cache), dtype=np.bool_)
    used[np.random.default_rng((seed, _GAZE)).permutation(gazed)[:number]] = True
    return used


def gaze_count(readings: int, options: DataOptions) -> int:
    """Count the readings of a gaze fraction, of so many with gaze."""
    share = readings * options.gaze_fraction
    return round(share) if options.gaze_rounding == "round" else int(share)


@dataclass(frozen=True)
class Batches:
    """How some readings are dealt into the batches of each epoch.

    Attributes
    ----------
    readings : ndarray
        Their numbers.
    image_number : ndarray
        Of every reading in the cache; no two of one image come together.
    batch_size, seed : int
        At most so many; what is drawn from.
    shard_of : ndarray, optional
        Of every reading in the cache: an epoch goes through the shards, in random order, a `window`
        of whole shards after the other.
    window : int
        Readings of a window, about.
    """

    readings: Numbers
    image_number: Numbers
    batch_size: int
    seed: int
    shard_of: Numbers | None = None
    window: int = 0

    @cached_property
    def _number(self) -> int:
        most_of_an_image = np.unique(self.image_number[self.readings], return_counts=True)[1].max()
        return max(-(-len(self.readings) // self.batch_size), int(most_of_an_image))

    def __len__(self) -> int:
        return self._number

    def of(self, epoch: int) -> list[Numbers]:
        """Deal an epoch's readings: each once, no two of one image in a batch.

        Returns
        -------
        list of ndarray
            Batches of at most `batch_size` whose sizes differ by at most one, so that no small last
            batch makes an easier task.
        """
        rng = np.random.default_rng((self.seed, _ORDER, epoch))
        windows = 1 if self.shard_of is None else round(len(self.readings) / self.window)
        if windows <= 1:
            return _dealt(self.readings, self.image_number, self._number, rng)
        order = np.concatenate([rng.permutation(own) for own in self._cut(windows, rng)])
        return _apart(np.array_split(order, self._number), self.image_number, rng)

    def _cut(self, windows: int, rng: np.random.Generator) -> list[Numbers]:
        """Cut the readings into windows of whole shards, the shards in random order."""
        own = np.asarray(self.shard_of)[self.readings]
        shards = rng.permutation(np.unique(own))
        rank = np.empty(int(own.max()) + 1, np.int64)
        rank[shards] = np.arange(len(shards))
        order = np.argsort(rank[own], kind="stable")
        ends = np.cumsum(np.bincount(rank[own]))
        shares = len(own) * np.arange(1, windows) / windows
        return np.split(self.readings[order], ends[np.searchsorted(ends, shares)])


def _dealt(
    readings: Numbers, image_number: Numbers, n_batches: int, rng: np.random.Generator
) -> list[Numbers]:
    order = rng.permutation(readings)
    images, first = np.unique(image_number[order], return_index=True)
    together = np.argsort(first[np.searchsorted(images, image_number[order])], kind="stable")
    order = order[together]  # readings of an image side by side, images in random order
    dealt = [order[i::n_batches] for i in range(n_batches)]
    return [rng.permutation(dealt[i]) for i in rng.permutation(n_batches)]


def _apart(
    batches: list[Numbers], image_number: Numbers, rng: np.random.Generator
) -> list[Numbers]:
    """Exchange second readings of an image in a batch for the nearest batch's that fit."""
    images = [set(image_number[one].tolist()) for one in batches]
    for i, batch in enumerate(batches):
        if len(images[i]) == len(batch):
            continue
        _, first = np.unique(image_number[batch], return_index=True)
        for place in np.setdiff1d(np.arange(len(batch)), first).tolist():
            image = int(image_number[batch[place]])
            nearest = sorted(range(len(batches)), key=lambda k: (abs(k - i), k < i))
            found = next(
                (
                    (k, at)
                    for k in nearest
                    if image not in images[k]
                    for at, one in enumerate(image_number[batches[k]].tolist())
                    if one not in images[i]
                    and np.count_nonzero(image_number[batches[k]] == one) == 1
                ),
                None,
            )
            if found is None:  # a window or two of nearly one image
                return _dealt(np.concatenate(batches), image_number, len(batches), rng)
            there, other = found
            images[there] ^= {image, int(image_number[batches[there][other]])}
            images[i].add(int(image_number[batches[there][other]]))
            batch[place], batches[there][other] = batches[there][other], batch[place]
    return batches


def batches_of(cache: ReadingCache, readings: Numbers, options: Options) -> Batches:
    """Deal some readings of a cache as the options say."""
    streamed = cache.shard_of if options.data.stream else None
    size, seed = options.train.batch_size, options.train.seed
    return Batches(readings, cache.image_number, size, seed, streamed, options.data.shuffle_buffer)
