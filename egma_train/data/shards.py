"""Shards as they are read for training: the columns that are needed, and nothing half-written.

Who made a shard is not known: what it unpacks to is bounded before it is unpacked, and a reading
is checked before it is handed on.
"""

import hashlib
import json
import math
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, pairwise
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egma_train.data.parquet_pages import pages_of
from egma_train.errors import BadUsageError, first_line
from egma_train.storage.safe_text import is_plain_name

Frames = NDArray[np.uint8]

SCHEMA_VERSIONS = ("1", "2")
FRAME_PX = 224
GRID_CELLS = 7

_PART = re.compile(r"part-[0-9]+")
_FACTS = ("dataset", "reading_id", "subject_id", "dicom_id", "split")
_SENTENCE = ("text", "begin", "grid", "mentions")
_MENTION = ("name", "kind", "side", "negated", "uncertain")
_REGION = ("name", "kind", "x0", "y0", "x1", "y1")
_SIZE = ("width", "height")
_FRAME_BYTES = FRAME_PX * FRAME_PX

# No honest shard comes near these. Parts have some 32 readings of some ten sentences; nobody
# dictates a million letters or 4,096 sentences (words, with --level word) about an image.
_MOST_LETTERS = 2**20
_MOST_SENTENCES = 2**12
_LISTS = ("sentences.", "regions.", "labels.")
_MOST_MENTIONS = 2**6
"""Of a sentence."""
_MOST_OF_A_COLUMN = 2**30
_MOST_OF_A_FILE = 2**31
_LEVELS_AND_LENGTH = 16
"""Bytes that Parquet adds to a value: its length, and where nulls and lists begin."""
_PAGE_BYTES = 2**20  # about, in all programs
_PAGE_HEADERS = 2**16


class ShardReading(NamedTuple):
    """What training takes of a shard row.

    Attributes
    ----------
    image : bytes
        224 x 224 uint8.
    heatmap : bytes or None
        Of the whole reading.
    width, height : int
        Of the picture before it was padded to a square.
    texts : list of str
        Sentences in spoken order.
    grids : list
        49 numbers in [0, 1] for each sentence; None without gaze.
    maps : list
        The sentences' heatmaps, bytes or None; empty unless asked for.
    regions : list of dict
        name, kind, x0, y0, x1, y1; read with the maps.
    mentions : list
        For each sentence what it mentions, dicts of name, kind, side, negated, uncertain; None
        where the shard does not tell (schema 1, single words).
    labels : mapping
        Values by name, such as ``chexpert:Edema``.
    normalisation : str
        ``peak``, or ``sum``: grids are shares.
    """

    dataset: str
    reading_id: str
    subject_id: str
    dicom_id: str
    split: str | None
    image: bytes
    heatmap: bytes | None
    width: int
    height: int
    texts: list[str]
    grids: list[Any]
    maps: list[bytes | None]
    regions: list[dict[str, Any]]
    mentions: Sequence[list[dict[str, Any]] | None] = ()
    labels: Mapping[str, float] = MappingProxyType({})
    normalisation: str = "peak"

    def affirms(self) -> list[bool | None]:
        """Tell which sentences name a finding that they do not deny; None where it is not told."""
        return [None if one is None else any(map(is_affirmed, one)) for one in self.mentions]

    def check(self, begins: Sequence[float | None]) -> "ShardReading":
        """Refuse a reading that no run wrote; `begins` are its sentences', in seconds.

        Raises
        ------
        ValueError
            Saying which and why.
        """
        grids = [grid for grid in self.grids if grid is not None]
        seconds = [one for one in begins if one is not None and one == one]
        frames = [self.image, *(one for one in (self.heatmap, *self.maps) if one is not None)]
        names = (self.dataset, self.reading_id, self.dicom_id)
        maybe = (name for name in (self.subject_id, self.split) if name)
        mentions = chain.from_iterable(one or () for one in self.mentions)
        corners = [region[name] for region in self.regions for name in _REGION[2:]]
        wrong = {
            "an id that is no plain name": not all(map(is_plain_name, (*names, *maybe))),
            "a picture without a size": not all(map(_is_size, (self.width, self.height))),
            "an image or heatmap that is not 224 x 224": any(
                not isinstance(one, bytes) or len(one) != _FRAME_BYTES for one in frames
            ),
            "a sentence without text, or too many": len(self.texts) > _MOST_SENTENCES
            or not all(isinstance(one, str) for one in self.texts)
            or sum(map(len, self.texts)) > _MOST_LETTERS,
            "a grid that is not 49 numbers from 0 to 1": not _are_grids(grids),
            "a heatmap without its grid": bool(self.maps)
            and [one is None for one in self.maps] != [one is None for one in self.grids],
            "sentences in another order than spoken": any(a > b for a, b in pairwise(seconds)),
            "a region without a place": not all(map(math.isfinite, corners)),
            "a label without a value": not all(
                isinstance(name, str) and math.isfinite(value)
                for name, value in self.labels.items()
            ),
            "a mention that is none": not all(map(_is_mention, mentions)),
        }
        if found := [what for what, is_so in wrong.items() if is_so]:
            raise ValueError(f"reading {self.reading_id!r:.60} has {found[0]}")
        return self


def is_affirmed(mention: dict[str, Any]) -> bool:
    """Tell whether a sentence names a finding and does not deny it; it may doubt it."""
    return mention["kind"] == "finding" and not mention["negated"]


def _is_mention(mention: Any) -> bool:
    named = all(isinstance(mention[name], str) for name in ("name", "kind"))
    return named and all(isinstance(mention[name], bool) for name in ("negated", "uncertain"))


def _is_size(pixels: Any) -> bool:
    return isinstance(pixels, int) and 0 < pixels < 2**31


def _are_grids(grids: list[Any]) -> bool:
    if any(len(one) != GRID_CELLS * GRID_CELLS for one in grids):
        return False
    values = np.array(grids, np.float32)
    return bool(((values >= 0) & (values <= 1)).all())  # NaN is neither


def find_shards(folder: Path) -> list[Path]:
    """List the shards of an ``out/`` folder, or of a folder of its own, and nothing else there.

    A copy, ``part-00000 (1).parquet``, is no shard: its readings would count twice.

    Raises
    ------
    BadUsageError
        If there are none, or a run into the folder is not finished.
    """
    inside = folder / "shards" if (folder / "shards").is_dir() else folder
    if inside.name == "shards":
        _refuse_unfinished(inside.parent / "run.json")
    listed = (one for one in inside.glob("part-*") if one.suffix in _READERS)
    files = sorted(one for one in listed if _PART.fullmatch(one.stem))
    if not files:
        raise BadUsageError(f"{folder} holds no shards; make them with: egma-prep run DATA")
    if strange := [one for one in files if not one.is_file()]:  # a pipe would wait for its writer
        raise BadUsageError(f"{strange[0]} is no ordinary file; put the shard there")
    partial = [one.name for one in inside.glob(".*.tmp")]
    if partial:
        raise BadUsageError(f"{inside} is being written ({partial[0]}); wait, or repeat: egma-prep")
    kinds = {one.suffix for one in files}
    if len(kinds) > 1:
        raise BadUsageError(f"{inside} holds {' and '.join(sorted(kinds))} shards; keep one kind")
    return files


def fingerprint(files: list[Path]) -> str:
    """Hash the shards' names and content."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            digest.update(
                f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode()
            )
    return digest.hexdigest()


def read_shard(path: Path, *, maps: bool = False) -> Iterator[ShardReading]:
    """Read one shard's readings, a few at a time in memory.

    Raises
    ------
    BadUsageError
        If it is damaged or of another schema version.
    """
    with _damage_told(path):
        yield from _READERS[path.suffix](path, maps)


def read_images(path: Path) -> Frames:
    """Read the images of a shard's readings that have a sentence ``(k, 224, 224)``, nothing else.

    Raises
    ------
    BadUsageError
        As `read_shard`.
    """
    with _damage_told(path):
        return (_images_of_parquet if path.suffix == ".parquet" else _images_of_npz)(path)


@contextmanager
def _damage_told(path: Path) -> Iterator[None]:
    try:
        yield
    except BadUsageError:
        raise
    except Exception as error:  # each library has its own for damage
        raise BadUsageError(
            f"{path} is damaged ({first_line(error)}); delete it and repeat: egma-prep run DATA"
        ) from None


def _refuse_unfinished(run_file: Path) -> None:
    if (run_file.parent / "state" / "swap.json").exists():
        raise BadUsageError(
            f"the shards in {run_file.parent} are being replaced; wait, or repeat: egma-prep"
            " render-heatmaps"
        )
    try:
        status = json.loads(run_file.read_text())["status"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError):
        raise BadUsageError(f"{run_file} is damaged; repeat: egma-prep run DATA") from None
    if status != "complete":
        raise BadUsageError(
            f"the run in {run_file.parent} is not finished; wait, or repeat: egma-prep run DATA"
        )


def declared_beside(folder: Path) -> dict[str, dict[str, str]]:
    """Read the licence, terms and citation that recordings of somebody's own came with.

    They stand in the ``run.json`` beside the shards; none where there is none.
    """
    inside = folder / "shards" if (folder / "shards").is_dir() else folder
    try:
        told = json.loads((inside.parent / "run.json").read_text()).get("declared", {})
        return {str(name): {str(k): str(v) for k, v in one.items()} for name, one in told.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    found = metadata.get("egma.schema_version")
    if found is None:
        raise BadUsageError(
            f"{path} lacks egma-prep's metadata (egma.schema_version): another program saved it"
            " anew; save it with the metadata that it had, or make it again: egma-prep run DATA"
        )
    if found not in SCHEMA_VERSIONS:
        raise BadUsageError(
            f"{path} has schema {found}, this version knows {' and '.join(SCHEMA_VERSIONS)};"
            " repeat egma-prep run with the version that belongs to this egma-train"
        )


@contextmanager
def _parquet(
    path: Path, wanted: Callable[[str], bool]
) -> Iterator[tuple[Iterator[Any], dict[str, str]]]:
    """Open a shard; yield batches of rows of the `wanted` columns by their leaves, and metadata."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        # Polars saves metadata beside the Arrow schema, where schema_arrow does not look.
        raw = {**(file.schema_arrow.metadata or {}), **(file.metadata.metadata or {})}
        texts = {name.decode(errors="replace"): raw[name].decode(errors="replace") for name in raw}
        _check_version(path, texts)
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        columns = {leaf: i for i, leaf in enumerate(leaves) if wanted(leaf)}
        with path.open("rb") as raw_file, mmap(raw_file.fileno(), 0, access=ACCESS_READ) as data:
            _refuse_parquet_bomb(file.metadata, columns, data)
        yield file.iter_batches(batch_size=64, columns=list(columns)), texts


def _images_of_parquet(path: Path) -> Frames:
    def wanted(leaf: str) -> bool:
        return leaf == "image" or (leaf.startswith("sentences.") and leaf.endswith(".text"))

    parts = []
    with _parquet(path, wanted) as (batches, _):
        for batch in batches:
            said = pc.fill_null(pc.list_value_length(batch["sentences"]), 0).to_numpy() > 0
            images = batch["image"]
            lengths = pc.fill_null(pc.binary_length(images), 0).to_numpy()
            if (lengths[said] != _FRAME_BYTES).any():
                raise ValueError("an image that is not 224 x 224")
            parts += [one.as_buffer() for one in images.filter(pa.array(said))]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(-1, FRAME_PX, FRAME_PX)


def _images_of_npz(path: Path) -> Frames:
    with zipfile.ZipFile(path) as archive:
        shard = Npz(archive)
        n = len(shard.array("dataset", "U"))
        images = shard.array("image", "u1", n, FRAME_PX, FRAME_PX)
        counts = np.diff(shard.array("sentence_offsets", "i8", n + 1))
        return images[counts > 0]


def _from_parquet(path: Path, maps: bool) -> Iterator[ShardReading]:
    in_sentence = (*_SENTENCE, "heatmap") if maps else _SENTENCE

    def wanted(leaf: str) -> bool:
        return (
            leaf in (*_FACTS, *_SIZE, "image", "heatmap")
            or leaf.startswith("labels.")
            or (leaf.startswith("sentences.") and leaf.split(".")[3] in in_sentence)
            or (leaf.startswith("regions.") and leaf.split(".")[3] in _REGION and maps)
        )

    with _parquet(path, wanted) as (batches, told):
        for batch in batches:
            for row in batch.to_pylist():
                sentences = row["sentences"]
                facts = {name: row[name] for name in (*_FACTS, *_SIZE, "image", "heatmap")}
                reading = ShardReading(
                    **facts,
                    texts=[one["text"] for one in sentences],
                    grids=[one["grid"] for one in sentences],
                    maps=[one["heatmap"] for one in sentences] if maps else [],
                    regions=row.get("regions", []),
                    mentions=[one.get("mentions") for one in sentences],
                    labels=dict(row["labels"]),
                    normalisation=told.get("egma.normalisation", "peak"),
                )
                yield reading.check([one.get("begin") for one in sentences])


def _refuse_parquet_bomb(metadata: Any, columns: dict[str, int], data: mmap) -> None:
    """Stop before unpacking what is too large for its readings, by its footer and its pages.

    A dictionary's values may each stand for many: where there is one (ours has none), as many
    copies of all of it as there are values must fit.
    """
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        for name, i in columns.items():
            chunk, rows = group.column(i), group.num_rows
            begin = chunk.data_page_offset
            if chunk.has_dictionary_page:
                begin = min(begin, chunk.dictionary_page_offset)
            values, unpacked = pages_of(data, begin, begin + chunk.total_compressed_size)
            values = max(values, chunk.num_values)
            unpacked = max(unpacked, chunk.total_uncompressed_size)
            of_a_reading = _MOST_SENTENCES if name.startswith(_LISTS) else 1
            of_a_reading *= GRID_CELLS**2 if ".grid." in name else 1
            of_a_reading *= _MOST_MENTIONS if ".mentions." in name else 1
            most = min(values * (_bytes_of_a_value(name) + _LEVELS_AND_LENGTH), _MOST_OF_A_COLUMN)
            if name.endswith(".text"):
                most = min(rows * 4 * _MOST_LETTERS, _MOST_OF_A_COLUMN)
            # Polars 1.34 keeps each page's least and largest value whole in its header.
            most += 2 * _bytes_of_a_value(name) * (most // _PAGE_BYTES + 1)
            if chunk.has_dictionary_page:
                most, unpacked = _MOST_OF_A_COLUMN, unpacked * values
            if values > rows * of_a_reading or unpacked > most + _PAGE_HEADERS:
                raise ValueError(
                    f"{name} of {rows} readings unpacks to {values:,} values, {unpacked:,} bytes"
                )


def _bytes_of_a_value(name: str) -> int:
    """Tell the most that one value of a column has; texts count by readings."""
    if name.endswith(("image", "heatmap")):
        return _FRAME_BYTES
    return 8 if ".grid." in name or name[-2:] in ("x0", "y0", "x1", "y1") else 512


def _from_npz(path: Path, maps: bool) -> Iterator[ShardReading]:
    with zipfile.ZipFile(path) as archive:
        shard = Npz(archive)
        names, values = (shard.array(f"metadata_{one}", "U").tolist() for one in ("name", "value"))
        told = dict(zip(names, values, strict=True))
        _check_version(path, told)
        facts = [shard.array("dataset", "U").tolist()]
        n, frame = len(facts[0]), (FRAME_PX, FRAME_PX)
        facts += [shard.array(name, "U", n).tolist() for name in _FACTS[1:]]
        sizes = [shard.array(name, "i", n).tolist() for name in _SIZE]
        images = shard.array("image", "u1", n, *frame)
        heatmaps, has_heatmap = (
            shard.array("heatmap", "u1", n, *frame), shard.array("has_heatmap", "b1", n),
        )  # fmt: skip
        texts = shard.array("sentence_text", "U").tolist()
        m = len(texts)
        has = shard.array("sentence_has_heatmap", "b1", m)
        begins = shard.array("sentence_begin", "f8", m).tolist()
        grids = shard.array("sentence_grid", "f4", m, GRID_CELLS, GRID_CELLS).reshape(m, -1)
        sentence_maps = shard.array("sentence_heatmap", "u1", m, *frame) if maps else None
        columns: list[Any] = []
        if maps:
            columns = [shard.array(f"region_{one}", "U").tolist() for one in _REGION[:2]]
            k = len(columns[0])
            columns += [shard.array(f"region_{one}", "f4", k).tolist() for one in _REGION[2:]]
        regions = [dict(zip(_REGION, own, strict=True)) for own in zip(*columns, strict=True)]
        mentions = (
            _mentions_of(shard, m) if "sentence_has_mentions.npy" in shard.names else [None] * m
        )
        own_sentences = shard.bounds("sentence", n, m)
        own_regions = shard.bounds("region", n, len(regions)) if maps else [(0, 0)] * n
        labels = [
            *zip(
                shard.array("label_name", "U").tolist(),
                shard.array("label_value", "f4").tolist(),
                strict=True,
            )
        ]
        own_labels = shard.bounds("label", n, len(labels))
        own_items = zip(own_sentences, own_regions, own_labels, strict=True)
        for i, ((first, end), own, shares) in enumerate(own_items):
            dataset, reading_id, subject_id, dicom_id, split = (fact[i] for fact in facts)
            reading = ShardReading(
                dataset,
                reading_id,
                subject_id,
                dicom_id,
                split or None,
                image=images[i].tobytes(),
                heatmap=heatmaps[i].tobytes() if has_heatmap[i] else None,
                width=sizes[0][i],
                height=sizes[1][i],
                texts=texts[first:end],
                grids=[grids[j] if has[j] else None for j in range(first, end)],
                maps=[]
                if sentence_maps is None
                else [sentence_maps[j].tobytes() if has[j] else None for j in range(first, end)],
                regions=regions[slice(*own)],
                mentions=mentions[first:end],
                labels=dict(labels[slice(*shares)]),
                normalisation=told.get("egma.normalisation", "peak"),
            )
            yield reading.check(begins[first:end])


def _mentions_of(shard: "Npz", m: int) -> list[list[dict[str, Any]] | None]:
    if "mention_offsets.npy" not in shard.names:  # schema 1
        return [None] * m
    columns = [shard.array(f"mention_{name}", "U").tolist() for name in _MENTION[:3]]
    j = len(columns[0])
    columns[2] = [side or None for side in columns[2]]
    columns += [shard.array(f"mention_{name}", "b1", j).tolist() for name in _MENTION[3:]]
    every = [dict(zip(_MENTION, one, strict=True)) for one in zip(*columns, strict=True)]
    known = shard.array("sentence_has_mentions", "b1", m)
    bounds = shard.bounds("mention", m, j)
    return [every[slice(*own)] if has else None for own, has in zip(bounds, known, strict=True)]


class Npz:
    """Arrays of an NPZ, each read if its header fits what it must be; never a pickled object."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self.names = {*archive.namelist()}
        self._left = _MOST_OF_A_FILE

    def array(self, name: str, kind: str, *shape: int) -> NDArray[Any]:
        """Read an array of a kind and shape; of any length where no shape is given."""
        entry = self._archive.getinfo(f"{name}.npy")
        with self._archive.open(entry) as file:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[np.lib.format.read_magic(file)]
            found, _, dtype = read(file)
        size = math.prod(found) * dtype.itemsize
        fits = found == shape if shape else len(found) == 1
        if not fits or not (dtype.kind == "U" if kind == "U" else dtype == np.dtype(kind)):
            raise ValueError(f"{name} is {dtype} of shape {found}")
        self._left -= max(size, entry.file_size)
        if size > entry.file_size or self._left < 0:
            raise ValueError(f"{name} unpacks to {max(size, entry.file_size):,} bytes")
        with self._archive.open(entry) as file:
            array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        return array

    def bounds(self, name: str, n: int, items: int) -> list[tuple[int, int]]:
        """Read where each reading's items begin and end; together they are all, in order."""
        offsets = self.array(f"{name}_offsets", "i8", n + 1).tolist()
        if offsets[0] != 0 or offsets[-1] != items or offsets != sorted(offsets):
            raise ValueError(f"{name}_offsets do not share out {items} items")
        return list(pairwise(offsets))


_READERS: dict[str, Callable[[Path, bool], Iterator[ShardReading]]] = {
    ".parquet": _from_parquet,
    ".npz": _from_npz,
}
