"""CSV bytes to named columns, or a reject that says what is wrong (FORMATS, section 9)."""

import contextlib
import csv
import gzip
import io
import sys
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.parse.values import decoded, number

MAX_TABLE_BYTES = 256 * 2**20
"""Six times the largest table that is read whole."""

_ROWS_AT_A_TIME = 4096


@dataclass(frozen=True)
class Table:
    """A parsed file: `columns` maps header names to cells, all as text.

    Attributes
    ----------
    path : str
        Relative to DATA, for messages.
    numbers_in_file : sequence of int, optional
        Which rows of the file these are, where they are an excerpt.
    """

    path: str
    columns: dict[str, list[str]]
    numbers_in_file: Sequence[int] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def require(self, names: Iterable[str]) -> None:
        """Reject the file unless it has these columns."""
        for name in names:
            if name not in self.columns:
                there = ", ".join(list(self.columns)[:8])
                raise BadInputError(
                    "missing_column", self.path, f"{self.path} has no column {name!r}, but {there}"
                )

    def row(self, index: int) -> dict[str, str]:
        """Return one row's cells by column name."""
        return {name: cells[index] for name, cells in self.columns.items()}

    def rows_where(self, name: str, value: str) -> list[int]:
        """Find the rows whose cell, stripped, equals `value`."""
        return [index for index, cell in enumerate(self.columns[name]) if cell.strip() == value]

    def excerpts(self, name: str, wanted: Collection[str]) -> dict[str, "Table"]:
        """Group the rows by a column's stripped cells; wanted values without rows get none."""
        rows: dict[str, list[int]] = {value: [] for value in wanted}
        for row, cell in enumerate(self.columns[name]):
            if (value := cell.strip()) in rows:
                rows[value].append(row)
        return {
            value: Table(
                self.path,
                {column: [cells[row] for row in chosen] for column, cells in self.columns.items()},
                [self._in_file(row) for row in chosen],
            )
            for value, chosen in rows.items()
        }

    def numbers(self, name: str, rows: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Parse a column, or some of its rows, as finite numbers ``(n,)``."""
        cells = self.columns[name]
        chosen = range(len(cells)) if rows is None else rows
        with contextlib.suppress(ValueError):  # cell by cell only to tell which one is wrong
            plain = [cells[row] for row in chosen]
            found = np.array(list(map(float, plain)), dtype=np.float64)
            if np.isfinite(found).all() and not any("_" in cell for cell in plain):
                return found
        values = [number(cells[row], self.path, self.place(row, name)) for row in chosen]
        return np.array(values, dtype=np.float64)

    def place(self, row: int, name: str) -> str:
        """Name a cell as a user would look for it (row 1 follows the header)."""
        return f"{self.place_of_row(row)}, {name}"

    def place_of_row(self, row: int) -> str:
        """Name a row by its number in the file, in an excerpt too."""
        return f"{self.path}, row {1 + self._in_file(row)}"

    def _in_file(self, row: int) -> int:
        return row if self.numbers_in_file is None else self.numbers_in_file[row]


def parse_csv(
    data: bytes, path: str, required: Iterable[str], keep: Collection[str] | None = None
) -> Table:
    """Read a header and its rows, tolerating what the releases contain.

    Unnamed index columns are dropped, header names stripped; CRLF, quoted newlines and a byte
    order mark are fine. Rows of another length than the header are not.

    Parameters
    ----------
    data : bytes
        The file.
    path : str
        Relative to DATA, for messages.
    required : iterable of str
        Columns that must be there.
    keep : collection of str, optional
        Columns to keep; all if None.

    Raises
    ------
    BadInputError
        Naming the file and, where it can be told, the row.
    """
    records = _records(decoded(_unpacked(data, path), path), path)
    # Patients' tables are kept while a run is planned; the names of their columns are the same.
    header = [sys.intern(name.strip()) for name in next(records, [])]
    kept = {
        name: at
        for at, name in enumerate(header)
        if name and not name.startswith("Unnamed") and (keep is None or name in keep)
    }
    columns: dict[str, list[str]] = {name: [] for name in kept}
    first = 1
    while rows := list(islice(records, _ROWS_AT_A_TIME)):
        for number_in_file, row in enumerate(rows, first):
            if len(row) != len(header):
                what = (
                    f"{path}, row {number_in_file} has {len(row)} cells for {len(header)} columns"
                )
                raise BadInputError("bad_csv", path, what)
        cells = list(zip(*rows, strict=True))
        for name, at in kept.items():
            columns[name] += cells[at]
        first += len(rows)
    table = Table(path, columns)
    table.require(required)
    return table


def _records(text: str, path: str) -> Iterator[list[str]]:
    try:
        yield from filter(None, csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise BadInputError("bad_csv", path, f"{path} is not CSV ({error})") from None


def _unpacked(data: bytes, path: str) -> bytes:
    if not path.endswith(".gz"):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError("bad_csv", path, f"{path} is not a whole gzip file ({error})") from None
    if len(unpacked) > MAX_TABLE_BYTES:
        raise BadInputError("oversized", path, f"{path} holds more than {MAX_TABLE_BYTES:,} bytes")
    return unpacked
