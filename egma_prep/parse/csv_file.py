"""CSV bytes to named columns, or a reject that says what is wrong (FORMATS, section 9)."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.parse.values import decoded, number


@dataclass(frozen=True)
class Table:
    """A parsed file: `columns` maps header names to cells, all as text.

    Attributes
    ----------
    path : str
        Relative to DATA, for messages.
    """

    path: str
    columns: dict[str, list[str]]

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

    def numbers(self, name: str, rows: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Parse a column, or some of its rows, as finite numbers ``(n,)``."""
        cells = self.columns[name]
        chosen = range(len(cells)) if rows is None else rows
        values = [number(cells[row], self.path, self.place(row, name)) for row in chosen]
        return np.array(values, dtype=np.float64)

    def place(self, row: int, name: str) -> str:
        """Name a cell as a user would look for it (row 1 follows the header)."""
        return f"{self.path}, row {row + 1}, {name}"


def parse_csv(data: bytes, path: str, required: Iterable[str]) -> Table:
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

    Raises
    ------
    BadInputError
        Naming the file and, where it can be told, the row.
    """
    header, *rows = _records(decoded(data, path), path)
    for index, row in enumerate(rows):
        if len(row) != len(header):
            what = f"{path}, row {index + 1} has {len(row)} cells for {len(header)} columns"
            raise BadInputError("bad_csv", path, what)
    names = [name.strip() for name in header]
    cells = list(zip(*rows, strict=True)) if rows else [() for _ in names]
    table = Table(
        path,
        {
            name: list(column)
            for name, column in zip(names, cells, strict=True)
            if name and not name.startswith("Unnamed")
        },
    )
    table.require(required)
    return table


def _records(text: str, path: str) -> list[list[str]]:
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except csv.Error as error:
        raise BadInputError("bad_csv", path, f"{path} is not CSV ({error})") from None
