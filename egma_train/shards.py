"""Shards as they are read for training: the columns that are needed, and nothing half-written."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egma_train.errors import BadUsageError, first_line

SCHEMA_VERSION = "1"
FRAME_PX = 224
GRID_CELLS = 7

_PART = re.compile(r"part-[0-9]+")
_FACTS = ("dataset", "reading_id", "subject_id", "dicom_id", "split")
_SENTENCE = ("text", "grid")
_REGION = ("name", "kind", "x0", "y0", "x1", "y1")


class ShardReading(NamedTuple):
    """What training takes of a shard row.

    Attributes
    ----------
    image : bytes
        224 x 224 uint8.
    heatmap : bytes or None
        Of the whole reading.
    texts : list of str
        Sentences in spoken order.
    grids : list
        49 numbers in [0, 1] for each sentence; None without gaze.
    maps : list
        The sentences' heatmaps, bytes or None; empty unless asked for.
    regions : list of dict
        name, kind, x0, y0, x1, y1; read with the maps.
    """

    dataset: str
    reading_id: str
    subject_id: str
    dicom_id: str
    split: str | None
    image: bytes
    heatmap: bytes | None
    texts: list[str]
    grids: list[Any]
    maps: list[bytes | None]
    regions: list[dict[str, Any]]


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
    try:
        yield from _READERS[path.suffix](path, maps)
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


def _check_version(path: Path, metadata: dict[str, str]) -> None:
    found = metadata.get("egma.schema_version", "none")
    if found != SCHEMA_VERSION:
        raise BadUsageError(
            f"{path} has schema {found}, this version knows {SCHEMA_VERSION};"
            " repeat egma-prep run with the version that belongs to this egma-train"
        )


def _from_parquet(path: Path, maps: bool) -> Iterator[ShardReading]:
    wanted = (*_SENTENCE, "heatmap") if maps else _SENTENCE
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        raw = file.schema_arrow.metadata or {}
        _check_version(path, {name.decode(): value.decode() for name, value in raw.items()})
        leaves = [file.schema.column(i).path for i in range(len(file.schema))]
        columns = [
            leaf
            for leaf in leaves
            if leaf in (*_FACTS, "image", "heatmap")
            or (leaf.startswith("sentences.") and leaf.split(".")[3] in wanted)
            or (leaf.startswith("regions.") and leaf.split(".")[3] in _REGION and maps)
        ]
        for batch in file.iter_batches(batch_size=64, columns=columns):
            for row in batch.to_pylist():
                sentences = row["sentences"]
                facts = {name: row[name] for name in (*_FACTS, "image", "heatmap")}
                yield ShardReading(
                    **facts,
                    texts=[one["text"] for one in sentences],
                    grids=[one["grid"] for one in sentences],
                    maps=[one["heatmap"] for one in sentences] if maps else [],
                    regions=row.get("regions", []),
                )


def _from_npz(path: Path, maps: bool) -> Iterator[ShardReading]:
    with np.load(path, allow_pickle=False) as stored:
        names, values = stored["metadata_name"].tolist(), stored["metadata_value"].tolist()
        _check_version(path, dict(zip(names, values, strict=True)))
        facts = [stored[name].tolist() for name in _FACTS]
        images, heatmaps, has_heatmap = (stored[n] for n in ("image", "heatmap", "has_heatmap"))
        texts, has = stored["sentence_text"].tolist(), stored["sentence_has_heatmap"]
        grids = stored["sentence_grid"].reshape(len(texts), -1)
        sentence_maps: NDArray[np.uint8] | None = stored["sentence_heatmap"] if maps else None
        columns = [stored[f"region_{name}"].tolist() for name in _REGION] if maps else []
        regions = [dict(zip(_REGION, own, strict=True)) for own in zip(*columns, strict=True)]
        bounds = [pairwise(stored[f"{of}_offsets"].tolist()) for of in ("sentence", "region")]
        for i, ((first, end), own) in enumerate(zip(*bounds, strict=True)):
            dataset, reading_id, subject_id, dicom_id, split = (fact[i] for fact in facts)
            yield ShardReading(
                dataset,
                reading_id,
                subject_id,
                dicom_id,
                split or None,
                image=images[i].tobytes(),
                heatmap=heatmaps[i].tobytes() if has_heatmap[i] else None,
                texts=texts[first:end],
                grids=[grids[j] if has[j] else None for j in range(first, end)],
                maps=[]
                if sentence_maps is None
                else [sentence_maps[j].tobytes() if has[j] else None for j in range(first, end)],
                regions=regions[slice(*own)],
            )


_READERS: dict[str, Callable[[Path, bool], Iterator[ShardReading]]] = {
    ".parquet": _from_parquet,
    ".npz": _from_npz,
}
