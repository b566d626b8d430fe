"""Which readings are trained on, whose gaze counts, and in which order they come."""

import numpy as np
from numpy.typing import NDArray

from egma_train.data.cache import ReadingCache
from egma_train.errors import BadUsageError, unknown_name
from egma_train.options import DataOptions

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


def number_of_batches(readings: Numbers, image_number: Numbers, batch_size: int) -> int:
    """Count an epoch's batches: small enough, and one for each reading of an image."""
    most_of_an_image = int(np.unique(image_number[readings], return_counts=True)[1].max())
    return max(-(-len(readings) // batch_size), most_of_an_image)


def epoch_batches(
    readings: Numbers, image_number: Numbers, batch_size: int, seed: int, epoch: int
) -> list[Numbers]:
    """Deal an epoch's readings into batches: each once, no two of one image in a batch.

    Parameters
    ----------
    readings : ndarray
        Numbers of the readings.
    image_number : ndarray
        Of every reading in the cache.

    Returns
    -------
    list of ndarray
        Batches of at most `batch_size` whose sizes differ by at most one, so that no small last
        batch makes an easier task.
    """
    rng = np.random.default_rng((seed, _ORDER, epoch))
    order = rng.permutation(readings)
    images, first = np.unique(image_number[order], return_index=True)
    together = np.argsort(first[np.searchsorted(images, image_number[order])], kind="stable")
    order = order[together]  # readings of an image side by side, images in random order
    n_batches = number_of_batches(readings, image_number, batch_size)
    dealt = [order[i::n_batches] for i in range(n_batches)]
    return [rng.permutation(dealt[i]) for i in rng.permutation(n_batches)]
