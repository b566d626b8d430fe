"""Images straight from the shards, a window of them in memory: for more data than that."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from egma_train.data.shards import FRAME_PX, Frames, find_shards, read_images
from egma_train.data.store import is_url, local_copy, shards_of, stamp_of_shard
from egma_train.errors import BadUsageError

Numbers = NDArray[np.int64]

_READERS = 2
"""Threads that read shards ahead; decompressing releases Python's lock."""


class ShardImages:
    """Stands where a cache has its images.

    Parameters
    ----------
    shards : str
        Folder or URL.
    shard_of : ndarray
        ``(N,)``: which of its shards holds each reading; they lie there in order.
    """

    def __init__(self, shards: str, shard_of: Numbers) -> None:
        self.shard_of = shard_of
        self._files = shards_of(shards) if is_url(shards) else find_shards(Path(shards))
        self._stamps = [stamp_of_shard(one) for one in self._files]
        self._first = np.searchsorted(shard_of, np.arange(len(self._files) + 1))

    def __len__(self) -> int:
        return len(self.shard_of)

    @contextmanager
    def in_order(self, batches: Sequence[Numbers]) -> Iterator["ImagesInOrder"]:
        """Read ahead what some batches take, each reading once."""
        with ThreadPoolExecutor(_READERS) as pool:
            made = ImagesInOrder(self, batches, pool)
            try:
                yield made
            finally:
                pool.shutdown(cancel_futures=True)

    def read(self, shard: int) -> Frames:
        """Read one shard's images ``(k, 224, 224)``.

        Raises
        ------
        BadUsageError
            If it cannot be read, or is not the shard that the readings were listed of.
        """
        file, stamp = self._files[shard], self._stamps[shard]
        if before := stamp_of_shard(file) == stamp:
            with TemporaryDirectory() as folder:
                path = local_copy(file, Path(folder))
                frames = read_images(path)
        if not before or stamp_of_shard(file) != stamp:
            raise BadUsageError(
                f"{file} was written anew since this run began: its readings may be others;"
                " start anew by --name"
            )
        return frames

    def take(self, readings: Numbers, axis: int = 0) -> Frames:
        """Take the images of some readings ``(k, 224, 224)``; many are taken `in_order`."""
        return self.taken(readings, self.read)

    def taken(self, readings: Numbers, frames_of: Callable[[int], Frames]) -> Frames:
        """Put together readings of several shards."""
        shards = self.shard_of[readings]
        made = np.empty((len(readings), FRAME_PX, FRAME_PX), np.uint8)
        for shard in np.unique(shards).tolist():
            rows = np.flatnonzero(shards == shard)
            made[rows] = frames_of(shard)[readings[rows] - self._first[shard]]
        return made


class ImagesInOrder:
    """Hands out images while the shards of the next batches are read; drops those that are done."""

    def __init__(
        self, images: ShardImages, batches: Sequence[Numbers], pool: ThreadPoolExecutor
    ) -> None:
        self._images, self._pool, self._lock = images, pool, threading.Lock()
        needed = [np.unique(images.shard_of[one], return_counts=True) for one in batches]
        self._left = Counter[int]()
        opened: dict[int, int] = {}
        closed: dict[int, int] = {}
        for at, (shards, counts) in enumerate(needed):
            for shard, count in zip(shards.tolist(), counts.tolist(), strict=True):
                self._left[shard] += count
                opened.setdefault(shard, at)
                closed[shard] = at
        self._order = list(opened)
        # A window's shards are all open at its first batches: those of the next are read meanwhile.
        begins, ends = Counter(opened.values()), Counter(closed.values())
        still_open = most = 0
        for at in range(len(needed)):
            still_open += begins[at]
            most = max(most, still_open)
            still_open -= ends[at]
        self._most = 2 * most
        self._read: dict[int, Future[Frames]] = {}
        self._next = 0
        with self._lock:
            self._read_ahead()

    def take(self, readings: Numbers, axis: int = 0) -> Frames:
        """Take the images of some readings ``(k, 224, 224)``."""
        made = self._images.taken(readings, self._wanted)
        with self._lock:
            self._left.subtract(self._images.shard_of[readings].tolist())
            for shard in set(self._images.shard_of[readings].tolist()):
                if self._left[shard] <= 0:
                    self._read.pop(shard, None)
            self._read_ahead()
        return made

    def _wanted(self, shard: int) -> Frames:
        with self._lock:
            if shard not in self._read:
                self._read[shard] = self._pool.submit(self._images.read, shard)
            reading = self._read[shard]
        return reading.result()

    def _read_ahead(self) -> None:
        while self._next < len(self._order) and len(self._read) < self._most:
            shard = self._order[self._next]
            self._next += 1
            if self._left[shard] > 0 and shard not in self._read:
                self._read[shard] = self._pool.submit(self._images.read, shard)
