"""CSV bytes to named columns, or a reject that says what is wrong (FORMATS, section 9)."""

import contextlib
import csv
import gzip
import io
import math
import re
import sys
import zlib
from collections import ChainMap
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.sources.manifests import manifest, required_columns
from egma_prep.sources.values import decoded, id_key, is_blank, number

MAX_TABLE_BYTES = 256 * 2**20
"""Six times the largest table that is read whole."""

_ROWS_AT_A_TIME = 4096
_ALIKE = 2  # names of a released table, so that a user's own with one of them keeps its spelling
_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_SEPARATORS = ",;\t"  # as released; Excel where a comma is the decimal sign; Excel's "Unicode text"
_ROW_NAME = re.compile(r"[0-9]{1,9}")
# How pandas and R, DuckDB and Polars rename a column's second copy; no released name ends so.
_COPY = re.compile(r"(\.\d+|:\d+|_right|_duplicated_\d+)$")
_TOLD_SEPARATOR = re.compile(r'"?sep=([,;\t])"?\s*')  # Excel's own first line


@dataclass(frozen=True)
class Table:
    """A parsed file: `columns` maps header names to cells, all as text.

    Attributes
    ----------
    path : str
        Relative to DATA, for messages.
    numbers_in_file : sequence of int, optional
        Which rows of the file these are, where they are an excerpt.
    repeated : frozenset of str
        Names that stand in the header more than once, as they are or as a copy is renamed
        (``x.1``), with other values: nobody can tell which is meant, so `columns` has none of them.
    copied : frozenset of str
        Those that stand there more than once with the same values; `columns` has the first.
    header : sequence of str
        All names of the file, for messages.
    is_cut : bool
        Whether the last row's line does not end, so that it, and rows after it, may be cut.
    """

    path: str
    columns: dict[str, list[str]]
    numbers_in_file: Sequence[int] | None = field(default=None, compare=False)
    repeated: frozenset[str] = frozenset()
    copied: frozenset[str] = frozenset()
    header: Sequence[str] = field(default=(), compare=False)
    is_cut: bool = field(default=False, compare=False)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def require(self, names: Iterable[str]) -> None:
        """Reject the file unless it has each of these columns once."""
        for name in names:
            if name in self.repeated:
                same = [one for one in self.header if _COPY.sub("", one).lower() == name.lower()]
                copies = ", ".join(sorted({*same} - {name}))
                named = f" (also as {copies})" if copies else ""
                what = f"{self.path} has the column {name!r} more than once{named}"
                raise BadInputError("repeated_column", self.path, what)
            if name not in self.columns:
                there = (
                    ", ".join(one[:40] for one in list(self.header or self.columns)[:8])
                    or "no named column"
                )
                raise BadInputError(
                    "missing_column", self.path, f"{self.path} has no column {name!r}, but {there}"
                )

    def row(self, index: int) -> dict[str, str]:
        """Return one row's cells by column name."""
        return {name: cells[index] for name, cells in self.columns.items()}

    def rows_where(self, name: str, value: str) -> list[int]:
        """Find the rows of an id, however it is written there."""
        key = id_key(value)
        return [index for index, cell in enumerate(self.columns[name]) if id_key(cell) == key]

    def excerpts(self, name: str, wanted: Collection[str]) -> dict[str, "Table"]:
        """Group the rows by a column of ids; wanted ones without rows get none."""
        rows: dict[str, list[int]] = {id_key(value): [] for value in wanted}
        for row, cell in enumerate(self.columns[name]):
            if (key := id_key(cell)) in rows:
                rows[key].append(row)
        return {
            value: Table(
                self.path,
                {column: [cells[row] for row in chosen] for column, cells in self.columns.items()},
                [self.row_in_file(row) - 1 for row in chosen],
                self.repeated,
                self.copied,
                self.header,
                self.is_cut and len(self) - 1 in chosen[-1:],
            )
            for value, chosen in ((value, rows[id_key(value)]) for value in wanted)
        }

    def distinct(self, rows: Iterable[int], names: Iterable[str]) -> list[int]:
        """Leave out rows that say again what an earlier one did, however its numbers are written.

        Parameters
        ----------
        names : iterable of str
            The columns to compare; those that are not there count for nothing.
        """
        cells = [self.columns[name] for name in names if name in self.columns]
        seen: dict[tuple[object, ...], int] = {}
        for row in rows:
            seen.setdefault(tuple(_value(column[row]) for column in cells), row)
        return list(seen.values())

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

    def numbers_or_nan(self, name: str) -> NDArray[np.float64]:
        """Parse a column of finite numbers ``(n,)``, of which blank ones are NaN."""
        cells = self.columns[name]
        known = [row for row, cell in enumerate(cells) if not is_blank(cell)]
        found = np.full(len(cells), np.nan)
        found[known] = self.numbers(name, known)
        return found

    def place(self, row: int, name: str) -> str:
        """Name a cell as a user would look for it (row 1 follows the header)."""
        return f"{self.place_of_row(row)}, {name}"

    def place_of_row(self, row: int) -> str:
        """Name a row by its number in the file, in an excerpt too."""
        return f"{self.path}, row {self.row_in_file(row)}"

    def row_in_file(self, row: int) -> int:
        """Count a row from 1 as in the file."""
        return 1 + (row if self.numbers_in_file is None else self.numbers_in_file[row])


def _value(cell: str) -> object:
    plain = "" if is_blank(cell) else cell.strip().lower()
    with contextlib.suppress(ValueError):
        if "_" not in plain and math.isfinite(value := float(plain)):
            return value
    return plain


def parse_csv(
    data: bytes, path: str, required: Iterable[str], keep: Collection[str] | None = None
) -> Table:
    """Read a header and its rows, as released or as a spreadsheet, pandas or R saved them again.

    Unnamed index columns are dropped, header names stripped, a column's second copy is left out or
    reason to leave out both (`Table.repeated`), rows of nothing but blanks are left out, and so is
    the header where it stands again, as in a table that was appended to itself.
    The bytes tell what the file is, not its name: gzip or not, UTF-8 or UTF-16 by its byte order
    mark, commas, semicolons or tabs by the header. Any line end is fine, and quoted newlines. Rows
    of another length than the header are not, but where all rows have one cell that is surely R's
    row name, or a last comma.

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
    text = decoded(_unpacked(data, path), path)
    records = _records(text, path)
    first_row = [name.strip() for name in next(records, [])]
    # Patients' tables are kept while a run is planned; the names of their columns are the same.
    header = [sys.intern(name) for name in _as_released(first_row)]
    header, records = _fitted(header, records, path)
    named = [at for at, name in enumerate(header) if name and not name.startswith("Unnamed")]
    places = _places({at: header[at] for at in named}, keep)
    values: dict[int, list[str]] = {at: [] for same in places.values() for at in same}
    blank_rows: list[int] = []
    first = 0
    while rows := list(islice(records, _ROWS_AT_A_TIME)):
        full = []
        for row_in_file, row in enumerate(rows, first):
            if _is_blank_row(row, named) or _is_header_again(row, first_row):
                blank_rows.append(row_in_file)
            elif len(row) != len(header):
                what = (
                    f"{path}, row {row_in_file + 1} has {len(row)} cells for {len(header)} columns"
                )
                raise BadInputError("bad_csv", path, what)
            else:
                full.append(row)
        cells = list(zip(*full, strict=True))
        for at, column in values.items():
            column += cells[at] if full else ()
        first += len(rows)
    numbers = sorted(set(range(first)) - set(blank_rows)) if blank_rows else None
    twice = {name for name, same in places.items() if len(same) > 1}
    repeated = frozenset(
        name for name in twice if any(values[at] != values[places[name][0]] for at in places[name])
    )
    columns = {name: values[same[0]] for name, same in places.items() if name not in repeated}
    is_cut = first > len(blank_rows) and text[-1] not in "\r\n"
    names = [header[at] for at in named]
    table = Table(path, columns, numbers, repeated, frozenset(twice - repeated), names, is_cut)
    table.require(required)
    return table


def _places(named: dict[int, str], keep: Collection[str] | None) -> dict[str, list[int]]:
    """Tell where each column stands, with its copies that were renamed."""
    spelled = {name.lower(): name for name in reversed(named.values())}
    places: dict[str, list[int]] = {}
    for at, name in named.items():
        original = _COPY.sub("", name)
        if name.endswith("_right") and original not in _released_names():
            original = name  # a table of one's own may hold the right eye's
        first = name if original == name else spelled.get(original.lower(), name)
        if keep is None or first in keep:
            places.setdefault(first, []).append(at)
    return places


def _as_released(header: list[str]) -> list[str]:
    """Spell the names of a released table as they were, where capitals or R's dots were changed.

    The same name may have other capitals in another table: of those that have all they need in the
    header, that with most of it decides.
    """
    folded = [_folded(name) for name in header]
    there = {*folded}
    alike = [
        names
        for needed, names in _released_tables()
        if needed <= there and len(names.keys() & there) >= _ALIKE
    ]
    alike.sort(key=lambda names: -len(names.keys() & there))
    spelled = ChainMap(*alike)  # the first that has a name
    return [
        spelled.get(fold) or _changed_by_r().get(name, name)
        for fold, name in zip(folded, header, strict=True)
    ]


def _folded(name: str) -> str:
    """Fold capitals, and what R's ``check.names`` changes."""
    return re.sub(r"[^a-z0-9._]", ".", name.lower())


@cache
def _released_tables() -> list[tuple[set[str], dict[str, str]]]:
    """List each table's folded names: those that it must have, and all with their spellings."""
    found = []
    for dataset in ("reflacx", "eye-gaze", "mimic-cxr"):
        labels = list(_texts(manifest(dataset)["labels"]))
        for table, declared in manifest(dataset)["tables"].items():
            names = [*_texts(declared["columns"]), *_texts(declared.get("unused", {})), *labels]
            needed = set(map(_folded, required_columns(dataset, table)))
            found.append((needed, {_folded(name): name for name in names}))
    return found


@cache
def _released_names() -> set[str]:
    return {name for _, table in _released_tables() for name in table.values()}


@cache
def _changed_by_r() -> dict[str, str]:
    """Map what R makes of a name to it, in any table."""
    names = _released_names()
    changed = {re.sub(r"[^A-Za-z0-9._]", ".", name): name for name in names}
    return {name: told for name, told in changed.items() if name not in names}


def _texts(declared: object) -> Iterator[str]:
    if isinstance(declared, dict):
        declared = list(declared.values())
    if isinstance(declared, list):
        for one in declared:
            yield from _texts(one)
    elif isinstance(declared, str):
        yield declared


def _is_blank_row(row: list[str], named: list[int]) -> bool:
    """Tell a row in which nothing is written, but perhaps an index.

    A spreadsheet leaves empty cells, pandas and R one spelling of "nothing" in all of them. That a
    word is "none" and its times are empty is no such row, but damage.
    """
    if named and named[0] < len(row) and not is_blank(row[named[0]]):
        return False  # as nearly every row
    cells = {row[at].strip() for at in named if at < len(row)}
    return len(cells) <= 1 and all(map(is_blank, cells))


def _is_header_again(row: list[str], first_row: list[str]) -> bool:
    if not 2 <= len(row) == len(first_row) or row[-1].strip() != first_row[-1]:
        return False  # as nearly every row
    return [cell.strip("\ufeff ") for cell in row] == first_row


def _fitted(
    header: list[str], records: Iterator[list[str]], path: str
) -> tuple[list[str], Iterator[list[str]]]:
    """Give a header the name, or take from it the blank one, by which all rows differ from it.

    R's ``write.table`` names no column for the row names that stand first. Who ends lines with a
    comma may do so in the header alone, or in the rows alone.
    """
    first = next(records, None)
    if first is None:
        return header, records
    records = chain([first], records)
    more = len(first) - len(header)
    if more == -1 and header[-1:] == [""] and "" not in header[:-1]:
        return header[:-1], records
    if more != 1 or "" in header:
        return header, records
    rows = list(records)
    if any(len(row) != len(first) for row in rows):
        return header, iter(rows)
    numbers = [int(row[0]) if _ROW_NAME.fullmatch(row[0]) else 0 for row in rows]
    counted = numbers[0] >= 1 and all(a < b for a, b in pairwise(numbers))
    row_names = counted and (len(rows) > 1 or numbers == [1])
    last_comma = not any(row[-1].strip() for row in rows)
    if row_names == last_comma:
        what = f"the header of {path} has {len(header)} names, each row {len(first)} cells"
        raise BadInputError("short_header", path, what)
    return (["", *header] if row_names else [*header, ""]), iter(rows)


def _records(text: str, path: str) -> Iterator[list[str]]:
    lines = io.StringIO(text.lstrip("\r\n"), newline="")
    first_line = lines.readline()
    if told := _TOLD_SEPARATOR.fullmatch(first_line):
        separator = told[1]
    else:
        separator = max(_SEPARATORS, key=first_line.count)
        lines.seek(0)
    try:
        yield from filter(None, csv.reader(lines, strict=True, delimiter=separator))
    except csv.Error as error:
        raise BadInputError("bad_csv", path, f"{path} is not CSV ({error})") from None


def _unpacked(data: bytes, path: str) -> bytes:
    """Undo gzip where the bytes say so; browsers unpack and rename what they download."""
    if data.startswith(_ZIP):
        what = f"{path} is a ZIP archive or an Excel workbook, not CSV"
        raise BadInputError("bad_csv", path, what)
    if not data.startswith(_GZIP):
        return data
    try:
        with gzip.open(io.BytesIO(data)) as file:
            unpacked = file.read(MAX_TABLE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError("bad_csv", path, f"{path} is not a whole gzip file ({error})") from None
    if len(unpacked) > MAX_TABLE_BYTES:
        raise BadInputError("oversized", path, f"{path} holds more than {MAX_TABLE_BYTES:,} bytes")
    return unpacked
