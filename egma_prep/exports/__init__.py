"""Kinds of export: each module here with ``write_part`` and ``finish``; ``export`` runs one."""

import importlib
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from egma_prep.errors import BadUsageError, unknown_name
from egma_prep.shards.formats import formats
from egma_prep.shards.reader import Shards
from egma_prep.shards.tables import write_table

Rows = list[dict[str, Any]]


class Exporter(Protocol):
    """How readings lie in a folder of another kind.

    Attributes
    ----------
    CARD_HEAD : str
        What precedes the data card.
    """

    CARD_HEAD: str

    def write_part(self, shard: Shards, folder: Path, part: str) -> Rows:
        """Write a shard's readings; return a row for each that was written.

        Files of the same part that a cut export left are written again.
        """

    def finish(self, folder: Path, rows: Rows) -> Path:
        """Add what holds something of every part; return the folder that is the export."""


@dataclass(frozen=True)
class _AnotherFormat:
    """Shards again, in a format of `egma_prep.shards.formats`."""

    suffix: str
    CARD_HEAD = ""

    def write_part(self, shard: Shards, folder: Path, part: str) -> Rows:
        table = shard.to_arrow()
        write_table(folder / f"{part}.{self.suffix}", table)
        return table.select(["dataset", "reading_id"]).to_pylist()

    def finish(self, folder: Path, rows: Rows) -> Path:
        return folder


def kinds() -> list[str]:
    """List every kind, by the name that ``--to`` takes."""
    names = {one.name.replace("_", "-") for one in pkgutil.iter_modules(__path__)} - {"export"}
    return [*sorted(names), *formats()]


def exporter(kind: str) -> Exporter:
    """Load a kind of export.

    Raises
    ------
    BadUsageError
        If there is none of that name, or a package that it needs is missing.
    """
    if kind not in kinds():
        raise unknown_name("export", kind, kinds())
    if kind in formats():
        return _AnotherFormat(kind)
    try:
        return cast(Exporter, importlib.import_module(f"{__name__}.{kind.replace('-', '_')}"))
    except ModuleNotFoundError as error:
        raise BadUsageError(
            f"--to {kind} needs the package {error.name}; install it: pip install {error.name}"
        ) from None
