"""The shards once more as flat, memory-mapped arrays: built once, read without decoding."""

import os
import shutil
import zipfile
from codecs import getincrementaldecoder
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_train.data.cache_folder import (
    INDEX,
    folder_for_shards,
    is_ours,
    mark,
    note_of,
    read_note,
    removed,
    tidy,
    write_note,
)
from egma_train.data.grids import Weights, antialias_weights, area_weights, on_grid
from egma_train.data.shards import (
    FRAME_PX,
    GRID_CELLS,
    Npz,
    ShardReading,
    find_shards,
    fingerprint,
    read_shard,
)
from egma_train.data.store import copy_shards, is_url, local_copy, shards_of, stamp_of_shards
from egma_train.data.streaming import ShardImages
from egma_train.errors import BadUsageError, CannotWriteError
from egma_train.own_process import tell
from egma_train.storage.atomic import make_folder, whole_folder
from egma_train.storage.lock import in_use, locked
from egma_train.storage.safe_text import is_plain_name

_CELLS = GRID_CELLS * GRID_CELLS
_BLANK_MAP = bytes(FRAME_PX * FRAME_PX)
_CACHE_VERSION = 4

Say = Callable[[str], Any]
_INDEX_ARRAYS: dict[str, tuple[Any, ...]] = {
    "dataset": ("U",),
    "reading_id": ("U",),
    "split": ("U",),
    "image_number": ("i8",),
    "shard_of": ("i8",),
    "sizes": ("i8", 2),
    "reading_grids": ("f4", _CELLS),
    "offsets": ("i8",),
    "text_offsets": ("i8",),
    "has_grid": ("b1",),
    "affirms": ("i1",),
}
"""Each array's kind, and its shape beside its length."""
_COUNTED = (("dataset", "U"), ("has_grid", "b1"))
_BLOCK_BYTES = 2**22


class Kind(NamedTuple):
    """What a cache holds beside the index; `antialias`: grids by `antialias_weights`."""

    maps: bool
    antialias: bool
    images: bool

    def place(self, root: Path, key: str) -> Path:
        """Name its folder."""
        parts = {"-maps": self.maps, "-antialias": self.antialias, "-index": not self.images}
        kind = "".join(part for part, is_so in parts.items() if is_so)
        return root / f"{key[:16]}{kind}-v{_CACHE_VERSION}"


class _Held:
    """Keeps a cache from being cleaned away while it is mapped."""

    def __init__(self, path: Path) -> None:
        self._descriptor = in_use(path)

    def __del__(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)


@dataclass(frozen=True)
class ReadingCache:
    """Readings as arrays; those of reading i have sentences ``offsets[i]`` to ``offsets[i + 1]``.

    Attributes
    ----------
    fingerprint : str
        Of the shards that it was made from.
    images : ndarray or ShardImages
        ``(N, 224, 224)`` uint8, memory-mapped, or as they are read from the shards.
    grids : ndarray
        ``(M, 49)`` float32, memory-mapped; zeros without gaze.
    has_grid : ndarray
        ``(M,)`` bool.
    affirms : ndarray
        ``(M,)`` int8: 1 where a sentence names a finding and does not deny it, 0 where it does not,
        -1 where the shard does not tell.
    reading_grids : ndarray
        ``(N, 49)`` float32 of the whole readings; NaN without gaze.
    offsets : ndarray
        ``(N + 1,)``.
    dataset, reading_id, split : ndarray
        ``(N,)`` text; a blank split is unknown.
    image_number : ndarray
        ``(N,)``; readings of one image share it.
    shard_of : ndarray
        ``(N,)``: which of the shards holds each, in their order.
    sizes : ndarray
        ``(N, 2)``: width and height of the pictures in pixels.
    maps : ndarray or None
        ``(M, 224, 224)`` uint8, memory-mapped, if asked for; zeros without gaze.
    """

    fingerprint: str
    images: NDArray[np.uint8] | ShardImages
    grids: NDArray[np.float32]
    has_grid: NDArray[np.bool_]
    affirms: NDArray[np.int8]
    reading_grids: NDArray[np.float32]
    offsets: NDArray[np.int64]
    dataset: NDArray[np.str_]
    reading_id: NDArray[np.str_]
    split: NDArray[np.str_]
    image_number: NDArray[np.int64]
    shard_of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    maps: NDArray[np.uint8] | None
    _text: NDArray[np.uint8]
    _text_offsets: NDArray[np.int64]
    _held: "_Held"

    def __len__(self) -> int:
        return len(self.images)

    def sentences_of(self, readings: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return the numbers of some readings' sentences, in order, and the count of each."""
        begins = self.offsets[readings]
        counts = self.offsets[readings + 1] - begins
        starts = np.repeat(begins - np.cumsum(counts) + counts, counts)
        return starts + np.arange(counts.sum()), counts

    def texts(self, sentences: NDArray[np.int64] | Sequence[int]) -> list[str]:
        """Read sentences by their numbers."""
        numbers = np.asarray(sentences, np.int64)
        begins, ends = (self._text_offsets[numbers + i].tolist() for i in (0, 1))
        text = self._text.data  # ten times as fast to slice as an array
        return [str(text[begin:end], "utf-8") for begin, end in zip(begins, ends, strict=True)]

    def of_affirmed(self) -> "ReadingCache":
        """Leave out the gaze of sentences that name no finding, or deny it.

        Raises
        ------
        BadUsageError
            If the shards do not tell.
        """
        if (self.affirms < 0).any():
            raise BadUsageError(
                "data.mentions=affirmed, but the shards do not tell what sentences mention (single"
                " words, or schema 1); first: egma-prep render-heatmaps --level sentence"
            )
        return replace(self, has_grid=self.has_grid & (self.affirms == 1))

    def readings_with_gaze(self) -> NDArray[np.bool_]:
        """Tell which readings have gaze for a sentence: ``(N,)``."""
        gazed = np.concatenate([[0], np.cumsum(self.has_grid)])
        return np.diff(gazed[self.offsets]) > 0


def open_cache(
    shards: Path | str,
    folder: Path | None = None,
    *,
    maps: bool = False,
    antialias: bool = False,
    images: bool = True,
    say: Say = tell,
) -> ReadingCache:
    """Map the cache of some shards into memory; make it where it is missing.

    Parameters
    ----------
    shards : Path or str
        ``out/``, or a folder of shards, or the URL of either in an object store.
    folder : Path, optional
        Where caches lie; by default ``cache`` beside local shards, else here.
    maps : bool
        With the sentences' heatmaps.
    antialias : bool
        Grids by `antialias_weights` of the heatmaps, not means over areas.
    images : bool
        With a copy of the images; without, they are read from the shards.

    Raises
    ------
    BadUsageError
        If the shards or the folder cannot be used.
    """
    source, kind = str(shards), Kind(maps, antialias, images)
    if is_url(source):
        folder = folder or Path("cache")
        with _alone(folder, say) as held:
            if images:
                cache = _open_from_store(source, folder, kind, say)
            else:
                key = stamp_of_shards(source)
                cache = _made_of(shards_of(source), source, folder, kind, say, key)
            tidy(folder, held, source, cache.fingerprint, say)
        return cache
    files = find_shards(Path(shards))
    beside = files[0].parent.parent if files[0].parent.name == "shards" else Path(shards)
    root = folder or beside / "cache"
    with _alone(root, say) as held:
        cache = _made_of(files, source, root, kind, say, fingerprint(files))
        tidy(root, held, str(files[0].parent.resolve()), cache.fingerprint, say)
    return cache


def _made_of(
    files: list[Path], source: str, root: Path, kind: Kind, say: Say, key: str
) -> ReadingCache:
    """Open the cache of some files; make it where it is missing or damaged."""
    place = kind.place(root, key)
    if (place / INDEX).exists():
        try:
            return _open(place, key, source)
        except Exception:
            say(f"{place} is damaged: copying the shards again")
    else:
        doing = "copying" if kind.images else "listing what is in"
        say(f"{doing} {len(files)} shards to {place}, once")
    if place.exists():
        if not is_ours(place):
            raise _no_place(root, f"{place} holds files that are not a cache's", "move them away")
        removed(place)
    _build(files, place, kind)
    return _open(place, key, source)


@contextmanager
def _alone(root: Path, say: Say) -> Iterator[bool]:
    """Let one process at a time build, open and clean up; the next takes what it made.

    Yields
    ------
    bool
        Whether there is a lock: without one, others may be at work there.
    """
    try:
        make_folder(root)
    except OSError as error:
        raise _no_place(root, f"cannot write it ({error.strerror})", "mend that") from None
    taken = f"the shards are being copied to {root} by"
    with locked(root / ".lock", taken, say) as held:
        try:
            yield held
        except CannotWriteError as error:
            raise _no_place(root, str(error), error.mend) from error


def _no_place(root: Path, why: str, mend: str) -> BadUsageError:
    return BadUsageError(
        f"no cache can be made in {root}: {why}; {mend}, or choose another folder:"
        " --set execution.cache=DIR"
    )


def _open_from_store(url: str, root: Path, kind: Kind, say: Say) -> ReadingCache:
    """Note which content the store's stamps stood for, so that nothing is copied twice."""
    stamp = stamp_of_shards(url)
    noted = read_note(note_of(root, url))
    if noted.get("stamp") == stamp:
        with suppress(Exception):
            return _open(kind.place(root, noted["key"]), noted["key"], url)
    copy = folder_for_shards(root)
    try:
        say(f"copying the shards of {url} to {root}, once")
        copy_shards(url, copy)
        if stamp_of_shards(url) != stamp:
            raise BadUsageError(f"the shards in {url} changed meanwhile; repeat the same command")
        files = find_shards(copy)
        cache = _made_of(files, url, root, kind, lambda _: None, fingerprint(files))
    except BadUsageError as error:
        raise BadUsageError(str(error).replace(str(copy), url)) from None
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    write_note(root, url, cache.fingerprint, stamp)
    return cache


def shrunk(heatmap: bytes, weights: Weights) -> NDArray[np.float32]:
    """Shrink a stored map to the cells of some weights: ``(49,)`` for 7 in a row."""
    frame = np.frombuffer(heatmap, np.uint8).reshape(FRAME_PX, FRAME_PX)
    return on_grid(frame, weights)


def _build(files: list[Path], place: Path, kind: Kind) -> None:
    """Write the arrays: a cache is there whole or not at all."""
    with whole_folder(place) as aside:
        mark(aside)
        index: dict[str, list[Any]] = {name: [] for name in _ROW_FIELDS}
        index["text_bytes"], index["has_grid"], index["affirms"] = [], [], []
        with ExitStack() as stack:
            asked = {"images": kind.images, "maps": kind.maps}
            names = ("grids", "text", *(name for name, is_so in asked.items() if is_so))
            streams = {name: stack.enter_context((aside / name).open("wb")) for name in names}
            copies = Path(stack.enter_context(TemporaryDirectory()))
            for number, path in enumerate(files):
                local = local_copy(path, copies)
                for reading in read_shard(local, maps=kind.maps or kind.antialias):
                    if kind.maps and reading.normalisation == "sum":
                        raise BadUsageError(
                            f"{path} has maps of sum 1, which have grids of 7 x 7 alone; first:"
                            " egma-prep render-heatmaps --normalise peak"
                        )
                    if reading.texts:  # a reading without a sentence teaches nothing
                        _append(reading, number, streams, index, kind.antialias)
                if local != path:
                    local.unlink()
        if not index["dataset"]:
            raise BadUsageError(f"no reading in {files[0].parent} has a sentence")
        # Not allow_pickle=False: numpy before 2.2 writes that as an array. None holds objects.
        np.savez(aside / INDEX, **_as_arrays(index))  # type: ignore[arg-type]


_ROW_FIELDS = (
    "dataset", "reading_id", "split", "dicom_id", "shard_of", "sizes", "sentences",
    "reading_grids",
)  # fmt: skip


def _append(
    reading: ShardReading,
    shard: int,
    streams: dict[str, Any],
    index: dict[str, list[Any]],
    antialias: bool,
) -> None:
    if "images" in streams:
        streams["images"].write(reading.image)
    weights = (antialias_weights if antialias else area_weights)(GRID_CELLS)

    def small(heatmap: bytes) -> NDArray[np.float32]:
        grid = shrunk(heatmap, weights)
        return grid / grid.sum() if reading.normalisation == "sum" else grid

    grids = [one and small(one) for one in reading.maps] if antialias else reading.grids
    index["affirms"] += [-1 if one is None else int(one) for one in reading.affirms()]
    for text, grid in zip(reading.texts, grids, strict=True):
        encoded = text.encode()
        streams["text"].write(encoded)
        index["text_bytes"].append(len(encoded))
        streams["grids"].write(
            np.asarray([0.0] * _CELLS if grid is None else grid, "<f4").tobytes()
        )
        index["has_grid"].append(grid is not None)
    for heatmap in reading.maps if "maps" in streams else ():
        streams["maps"].write(heatmap or _BLANK_MAP)
    nothing = np.full(_CELLS, np.nan, np.float32)
    own = (
        reading.dataset,
        reading.reading_id,
        reading.split or "",
        reading.dicom_id,
        shard,
        (reading.width, reading.height),
        len(reading.texts),
        nothing if reading.heatmap is None else small(reading.heatmap),
    )
    for name, value in zip(_ROW_FIELDS, own, strict=True):
        index[name].append(value)


def _as_arrays(index: dict[str, list[Any]]) -> dict[str, NDArray[Any]]:
    _, image_number = np.unique(np.array(index.pop("dicom_id")), return_inverse=True)
    counts, text_bytes = index.pop("sentences"), index.pop("text_bytes")
    return {name: np.array(values) for name, values in index.items()} | {
        "affirms": np.array(index["affirms"], np.int8),
        "image_number": image_number.astype(np.int64),
        "offsets": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        "text_offsets": np.concatenate([[0], np.cumsum(text_bytes)]).astype(np.int64),
    }


def _open(place: Path, key: str, source: str) -> ReadingCache:
    """Map a cache that keeps the rules of shards: who wrote it is not known either.

    Raises
    ------
    Exception
        Of any kind where it is damaged or crafted; each library has its own.
    """
    held = _Held(place / INDEX)
    with zipfile.ZipFile(place / INDEX) as archive:
        if set(archive.namelist()) != {f"{name}.npy" for name in _INDEX_ARRAYS}:
            raise ValueError("other arrays")  # numpy before 2.2 had added one
        index, stored = {}, Npz(archive)
        n, m = (len(stored.array(name, kind)) for name, kind in _COUNTED)
        lengths = {"offsets": n + 1, "text_offsets": m + 1, "has_grid": m, "affirms": m}
        for name, (kind, *cells) in _INDEX_ARRAYS.items():
            index[name] = stored.array(name, kind, lengths.get(name, n), *cells)
    text_offsets = index.pop("text_offsets")

    def mapped(name: str, kind: Any, *shape: int) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        if (place / name).stat().st_size != size:
            raise ValueError(f"{name} is cut")
        if not size:  # an empty file cannot be mapped
            return np.zeros(shape, kind)
        # As a plain array: slicing a memmap object costs ten times as much.
        return np.memmap(place / name, kind, "r", shape=shape).view(np.ndarray)

    frame = (FRAME_PX, FRAME_PX)
    return _checked(
        ReadingCache(
            fingerprint=key,
            images=mapped("images", np.uint8, n, *frame)
            if (place / "images").exists()
            else ShardImages(source, index["shard_of"]),
            grids=mapped("grids", np.dtype("<f4"), m, _CELLS),
            maps=mapped("maps", np.uint8, m, *frame) if (place / "maps").exists() else None,
            _text=mapped("text", np.uint8, int(text_offsets[-1])),
            _text_offsets=text_offsets,
            _held=held,
            **index,
        )
    )


def _checked(cache: ReadingCache) -> ReadingCache:
    """Refuse what `_build` cannot have written; images and maps of any bytes are pixels."""
    n, m = len(cache), len(cache.has_grid)
    known = ~np.isnan(cache.reading_grids).all(1)
    text, begins = cache._text, cache._text_offsets[:-1]
    names = np.unique(np.concatenate([cache.dataset, cache.reading_id, cache.split])).tolist()
    right = {
        "readings": n > 0 and all(is_plain_name(one) for one in names if one),
        "sizes": cache.sizes.min() > 0,
        "images": cache.image_number.min() >= 0 and cache.image_number.max() < n,
        "shards": cache.shard_of[0] >= 0 and bool((np.diff(cache.shard_of) >= 0).all()),
        "sentences": _share_out(cache.offsets, m, 1),
        "texts": _share_out(cache._text_offsets, len(text), 0),
        # Sentences of UTF-8 that do not begin inside a letter are UTF-8 each.
        "letters": not (text[begins[begins < len(text)]] & 0xC0 == 0x80).any() and _is_utf8(text),
        "gaze": cache.has_grid.view(np.uint8).max() <= 1,
        "mentions": bool((np.abs(cache.affirms) <= 1).all()),
        "grids": _from_0_to_1(cache.grids) and _from_0_to_1(cache.reading_grids[known]),
    }
    if wrong := [what for what, is_so in right.items() if not is_so]:
        raise ValueError(f"{wrong[0]} that no shard has")
    return cache


def _share_out(offsets: NDArray[np.int64], items: int, least: int) -> bool:
    ends = offsets[0] == 0 and offsets[-1] == items
    return bool(ends and (np.diff(offsets) >= least).all())


def _from_0_to_1(grids: NDArray[np.float32]) -> bool:
    return not len(grids) or bool(grids.min() >= 0 and grids.max() <= 1)  # NaN is neither


def _is_utf8(text: NDArray[np.uint8]) -> bool:
    """Decode some megabytes at a time."""
    decoder = getincrementaldecoder("utf-8")()
    for begin in range(0, len(text), _BLOCK_BYTES):
        decoder.decode(text[begin : begin + _BLOCK_BYTES].tobytes())
    decoder.decode(b"", final=True)
    return True
