"""NPZ: a shard's columns as flat numpy arrays with offsets, no pickled objects.

What belongs to a sentence, label or region lies in arrays of its own (``sentence_text``); those of
reading i are ``sentence_offsets[i]`` to ``sentence_offsets[i + 1]``. Blank strings and NaN are
nulls; ``has_heatmap`` and ``sentence_has_heatmap`` tell which maps, and grids, there are.
"""

import zipfile
from collections.abc import Iterable, Mapping
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.shards.bounds import check_unpacked, most_unpacked
from egma_prep.shards.schema import MENTION, REGION, SENTENCE, SHARD
from egma_prep.storage.paths import readable

Arrays = dict[str, NDArray[Any]]

_LABEL = pa.struct([("name", pa.string()), ("value", pa.float32())])
_NESTED = {"sentences": ("sentence_", SENTENCE), "labels": ("label_", _LABEL)} | {
    "regions": ("region_", REGION)
}
_MAP_SHAPE, _GRID_SHAPE = (FRAME_PX, FRAME_PX), (GRID_CELLS, GRID_CELLS)
_MAYBE_BLANK = ("split", "view", "side")
_FLAT = [field for field in SHARD if field.name not in _NESTED]
_MENTIONS = "mentions"  # of a sentence, so nested twice


def save(table: pa.Table, path: Path) -> None:
    """Write shard rows, deflated."""
    rows = table.to_pylist()
    for row in rows:
        row["labels"] = [{"name": name, "value": value} for name, value in row["labels"]]
    arrays = _arrays("", _FLAT, rows)
    for column, (prefix, kind) in _NESTED.items():
        lengths = [len(row[column]) for row in rows]
        arrays[f"{prefix}offsets"] = np.array([*accumulate(lengths, initial=0)], dtype=np.int64)
        arrays |= _arrays(prefix, kind, [item for row in rows for item in row[column]])
    told = [sentence[_MENTIONS] for row in rows for sentence in row["sentences"]]
    arrays["sentence_has_mentions"] = np.array([one is not None for one in told], dtype=np.bool_)
    ends = accumulate((len(one or ()) for one in told), initial=0)
    arrays["mention_offsets"] = np.array([*ends], dtype=np.int64)
    arrays |= _arrays("mention_", MENTION, [one for some in told for one in some or ()])
    metadata = sorted(table.schema.metadata.items())
    arrays["metadata_name"] = np.array([name.decode() for name, _ in metadata])
    arrays["metadata_value"] = np.array([value.decode() for _, value in metadata])
    with path.open("wb") as file:
        # Not allow_pickle=False: numpy before 2.2 writes that as an array. None holds objects.
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def load(path: Path) -> pa.Table:
    """Read shard rows."""
    source = readable(path)
    _refuse_bomb(source)
    with np.load(source, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    rows = _items(arrays, "", _FLAT)
    for column, (prefix, kind) in _NESTED.items():
        items = _items(arrays, prefix, kind)
        for row, (first, end) in zip(rows, pairwise(arrays[f"{prefix}offsets"]), strict=True):
            row[column] = items[first:end]
    if "mention_offsets" in arrays:  # schema 1 has none
        mentions = _items(arrays, "mention_", MENTION)
        sentences = (sentence for row in rows for sentence in row["sentences"])
        bounds = pairwise(arrays["mention_offsets"])
        known = arrays["sentence_has_mentions"]
        for sentence, (first, end), is_known in zip(sentences, bounds, known, strict=True):
            sentence[_MENTIONS] = mentions[first:end] if is_known else None
    for row in rows:
        row["labels"] = [(label["name"], label["value"]) for label in row["labels"]]
    named = zip(arrays["metadata_name"].tolist(), arrays["metadata_value"].tolist(), strict=True)
    return pa.Table.from_pylist(rows, schema=SHARD.with_metadata(dict(named)))


def count(path: Path) -> int:
    """Read the number of rows."""
    source = readable(path)
    _refuse_bomb(source)
    with np.load(source, allow_pickle=False) as stored:
        return len(stored["width"])


def _refuse_bomb(source: Path | IO[bytes]) -> None:
    with zipfile.ZipFile(source) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    check_unpacked(unpacked, most_unpacked(source))


def _arrays(prefix: str, fields: Iterable[pa.Field], rows: list[dict[str, Any]]) -> Arrays:
    arrays: Arrays = {}
    for field in fields:
        if field.name == _MENTIONS:
            continue
        values = [row[field.name] for row in rows]
        arrays[prefix + field.name] = _array(field.type, values)
        if field.name == "heatmap":
            has = [value is not None for value in values]
            arrays[f"{prefix}has_heatmap"] = np.array(has, dtype=np.bool_)
    return arrays


def _array(kind: pa.DataType, values: list[Any]) -> NDArray[Any]:
    if pa.types.is_string(kind):
        return np.array([value or "" for value in values], dtype=np.str_)
    if pa.types.is_binary(kind):
        blank = bytes(FRAME_PX * FRAME_PX)
        joined = b"".join(value or blank for value in values)
        return np.frombuffer(joined, np.uint8).reshape(-1, *_MAP_SHAPE)
    if pa.types.is_list(kind):
        blank_grid = [0.0] * (GRID_CELLS * GRID_CELLS)
        grids = np.array([value or blank_grid for value in values], dtype=np.float32)
        return grids.reshape(-1, *_GRID_SHAPE)
    if pa.types.is_floating(kind):
        known = [np.nan if value is None else value for value in values]
        return np.array(known, dtype=kind.to_pandas_dtype())
    return np.array(values, dtype=kind.to_pandas_dtype())


def _items(
    arrays: Mapping[str, NDArray[Any]], prefix: str, fields: Iterable[pa.Field]
) -> list[dict[str, Any]]:
    has_heatmap = arrays.get(f"{prefix}has_heatmap")
    columns = {
        field.name: _values(field, arrays[prefix + field.name], has_heatmap)
        for field in fields
        if field.name != _MENTIONS
    }
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(field: pa.Field, array: NDArray[Any], has_heatmap: NDArray[Any] | None) -> list[Any]:
    if pa.types.is_binary(field.type):
        stored = [one.tobytes() for one in array]
    elif pa.types.is_list(field.type):
        stored = [one.ravel() for one in array]
    elif pa.types.is_floating(field.type):
        return [None if np.isnan(one) else one for one in array]
    else:
        blank_is_null = field.name in _MAYBE_BLANK
        return [None if blank_is_null and one == "" else one for one in array.tolist()]
    if field.name == "image" or has_heatmap is None:
        return stored
    return [one if has else None for one, has in zip(stored, has_heatmap, strict=True)]
