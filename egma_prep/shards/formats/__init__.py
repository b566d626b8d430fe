"""Shard formats: each module here with ``save`` and ``load`` is one; its name is the suffix."""

import importlib
import pkgutil
import re
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa
import pyarrow.compute as pc

from egma_prep.errors import BadUsageError, unreadable
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.shards.schema import READABLE, SCHEMA_VERSION, SHARD, sentences_up_to_date
from egma_prep.sources.values import is_safe_id
from egma_prep.storage.paths import is_remote

_PART = re.compile(r"part-[0-9]+")
_IN_PATHS = ("dataset", "reading_id")
"""Exports and figures are named by them."""
_IN_EVERY_ROW = [name for name in SHARD.names if name not in ("split", "view", "heatmap")]
_IN_EVERY_SENTENCE = ("text", "words", "fixations", "gaze_seconds")


class Format(Protocol):
    """How a table of shard rows lies in a file."""

    def save(self, table: pa.Table, path: Path) -> None:
        """Write a table, its file metadata included."""

    def load(self, path: Path) -> pa.Table:
        """Read a table as it was saved; any exception means damage."""

    def count(self, path: Path) -> int:
        """Read the number of rows alone."""


def formats() -> dict[str, Format]:
    """Find every format in this folder, by suffix without its dot."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: cast(Format, importlib.import_module(f"{__name__}.{name}")) for name in names}


def load_shard(path: Path) -> pa.Table:
    """Read a shard of any format.

    Raises
    ------
    BadUsageError
        If it is missing, damaged, of another schema version, or has an id that leads elsewhere.
    """
    kind = _format_of(path)
    try:
        table = kind.load(path)
    except PermissionError as error:
        raise unreadable(path, error) from None
    except Exception as error:  # each library has its own for damage
        reason = str(error).partition("\n")[0]
        raise BadUsageError(
            f"{path} is damaged ({reason}); delete it and repeat: egma-prep run DATA"
        ) from None
    if not set(SHARD.names) <= set(table.schema.names):
        raise BadUsageError(f"{path} is no shard: it has no readings with sentences")
    version = (table.schema.metadata or {}).get(b"egma.schema_version", b"none").decode()
    if version not in READABLE:
        raise BadUsageError(f"{path} has schema {version}, this version knows {SCHEMA_VERSION}")
    for name in _IN_PATHS:
        for value in table.column(name).to_pylist():
            if not is_safe_id(value):
                raise BadUsageError(
                    f"{path} has the {name} {str(value)[:60]!r}, and no shard of egma-prep has such"
                    " a one; get it from where it was made, or repeat: egma-prep run DATA"
                )
    try:
        table = sentences_up_to_date(table)
        _check_sizes(table)
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise BadUsageError(
            f"{path} is no shard of egma-prep ({str(error).partition(chr(10))[0]}); get it from"
            " where it was made, or repeat: egma-prep run DATA"
        ) from None
    return table


def _check_sizes(table: pa.Table) -> None:
    """Refuse images, maps and grids of another size than all readers take them for."""
    sentences = pc.list_flatten(table.column("sentences"))
    maps = {"image": table.column("image"), "heatmap": table.column("heatmap")}
    maps["sentences.heatmap"] = pc.struct_field(sentences, "heatmap")
    for name, column in maps.items():
        if {*pc.unique(pc.binary_length(column)).to_pylist()} - {None, FRAME_PX * FRAME_PX}:
            raise ValueError(f"{name} is not of {FRAME_PX} x {FRAME_PX} pixels everywhere")
    lengths = pc.unique(pc.list_value_length(pc.struct_field(sentences, "grid"))).to_pylist()
    if {*lengths} - {None, GRID_CELLS * GRID_CELLS}:
        raise ValueError(f"sentences.grid is not of {GRID_CELLS} x {GRID_CELLS} cells everywhere")
    whole = [(name, table.column(name)) for name in _IN_EVERY_ROW]
    whole += [(f"sentences.{n}", pc.struct_field(sentences, n)) for n in _IN_EVERY_SENTENCE]
    for name, column in whole:
        if column.null_count:
            raise ValueError(f"{name} is missing in a row")


def count_rows(path: Path) -> int:
    """Read how many readings a shard holds; errors as `load_shard`."""
    try:
        return _format_of(path).count(path)
    except Exception:
        return load_shard(path).num_rows


def shard_files(folder: Path) -> list[Path]:
    """List a folder's shards of any format, sorted; a copy, ``part-00000 (1)``, is none."""
    found = (path for name in formats() for path in folder.glob(f"part-*.{name}"))
    return sorted(path for path in found if _PART.fullmatch(path.stem))


def _format_of(path: Path) -> Format:
    known = formats()
    if path.suffix[1:] not in known:
        raise BadUsageError(f"{path} is no shard; they end in .{', .'.join(known)}")
    if not is_remote(path) and path.exists() and not path.is_file():
        # a named pipe would wait for its writer, a device never end
        raise BadUsageError(f"{path} is no ordinary file; put the shard there")
    return known[path.suffix[1:]]
