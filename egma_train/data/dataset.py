"""Readings for models of one's own: a PyTorch dataset over the shards, and how to batch it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.sampling import chosen_readings
from egma_train.options import DataOptions

Item = dict[str, Any]


class ReadingDataset(Dataset[Item]):
    """One reading an item, from memory-mapped arrays that are made of the shards once.

    An item has

    - ``image``: ``(224, 224)`` uint8;
    - ``texts``: its sentences, in order, at least one;
    - ``grid``: ``(m, 49)`` float32, the gaze on 7 x 7 patches while each was said; zeros without;
    - ``has_gaze``: ``(m,)`` bool;
    - ``maps``: ``(m, 224, 224)`` uint8 heatmaps, if asked for; zeros without gaze;
    - ``dataset``, ``reading_id``, ``split`` (blank where no table tells it).

    `DataLoader` takes it with `collate_readings`, in several processes too.

    Parameters
    ----------
    shards : str or Path
        ``out/``, a folder of shards, or the URL of either.
    split : str, optional
        Readings of that split alone, ``unknown`` for those of none; all by default.
    maps : bool
        With the sentences' heatmaps.
    cache : str or Path, optional
        Where the arrays are kept; by default ``cache`` beside the shards.

    Raises
    ------
    BadUsageError
        If the shards cannot be used, or no reading has the split.
    """

    def __init__(
        self,
        shards: str | Path = "out",
        split: str | None = None,
        maps: bool = False,
        cache: str | Path | None = None,
    ) -> None:
        self._asked = (str(shards), split, maps, cache)
        self._cache: ReadingCache = open_cache(
            str(shards), None if cache is None else Path(cache), maps=maps
        )
        wanted = DataOptions(splits=(split,) if split else (), one_reading_per_image=False)
        self._readings = chosen_readings(self._cache, wanted)

    def __len__(self) -> int:
        return len(self._readings)

    def __getitem__(self, index: int) -> Item:
        if not -len(self) <= index < len(self):
            raise IndexError(f"reading {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Item]:
        """Take several at once, as `DataLoader` does where it can."""
        cache, readings = self._cache, self._readings[np.asarray(indices, np.int64)]
        sentences, counts = cache.sentences_of(readings)
        ends = np.cumsum(counts)
        images = torch.from_numpy(cache.images.take(readings, axis=0))
        grid = torch.from_numpy(cache.grids.take(sentences, axis=0))
        gazed = torch.from_numpy(cache.has_grid.take(sentences))
        maps = None if cache.maps is None else torch.from_numpy(cache.maps.take(sentences, axis=0))
        texts = cache.texts(sentences)
        items = []
        for at, (reading, end, count) in enumerate(zip(readings, ends, counts, strict=True)):
            own = slice(int(end - count), int(end))
            item = {
                "image": images[at],
                "texts": texts[own],
                "grid": grid[own],
                "has_gaze": gazed[own],
                "dataset": str(cache.dataset[reading]),
                "reading_id": str(cache.reading_id[reading]),
                "split": str(cache.split[reading]),
            }
            items.append(item if maps is None else item | {"maps": maps[own]})
        return items

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._asked  # a process that is handed this maps the arrays itself


def collate_readings(items: Sequence[Item]) -> Item:
    """Batch b items, sentences padded to the most of one reading; names as `egma_loss` takes them.

    Returns
    -------
    dict
        ``images`` ``(b, 224, 224)`` uint8; ``texts``, a list for each reading; ``sentence_mask``
        and ``grid_mask`` ``(b, m)`` bool; ``grid`` ``(b, m, 49)``; ``maps`` ``(b, m, 224, 224)``
        where items have them; ``dataset``, ``reading_id``, ``split``, lists.
    """
    # By NumPy, whose copies need no threads: torch's wait for each other on a machine at work.
    counts = np.array([len(item["texts"]) for item in items])
    mask = np.arange(counts.max()) < counts[:, None]

    def padded(name: str) -> torch.Tensor:
        parts = np.concatenate([item[name].numpy() for item in items])
        whole = np.zeros((*mask.shape, *parts.shape[1:]), parts.dtype)
        whole[mask] = parts
        return torch.from_numpy(whole)

    batch = {
        "images": torch.from_numpy(np.stack([item["image"].numpy() for item in items])),
        "texts": [item["texts"] for item in items],
        "sentence_mask": torch.from_numpy(mask),
        "grid": padded("grid"),
        "grid_mask": padded("has_gaze"),
        **{name: [item[name] for item in items] for name in ("dataset", "reading_id", "split")},
    }
    if "maps" in items[0]:
        batch["maps"] = padded("maps")
    return batch
