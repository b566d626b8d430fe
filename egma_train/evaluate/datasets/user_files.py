"""Texts and label tables as users have them: re-saved, re-encoded, packed; values as they stand."""

import csv
import gzip
import io
import re
import zipfile
import zlib
from pathlib import Path
from typing import IO, NamedTuple

from egma_train.errors import BadUsageError
from egma_train.storage.ordinary import MOST_TABLE_BYTES, read_ordinary

BLANKS = frozenset({"", "nan", "-nan", "na", "n/a", "#n/a", "<na>", "null", "none"})
"""What pandas, R and spreadsheets write where there is nothing, in any case."""
_SEPARATORS = ",;\t"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_ZIP, _GZIP = b"PK\x03\x04", b"\x1f\x8b"
# How pandas, R, polars and DuckDB name a column's second copy, when read or joined.
_COPY = re.compile(r"(\.\d+|:\d+|_x|_y|_left|_right|_duplicated_\d+)$")
_MINUS = str.maketrans("−–‒", "---")


class Row(NamedTuple):
    """A row of a table: its number as a spreadsheet counts, and cells by the asked names."""

    number: int
    cells: dict[str, str]


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, UTF-16 with its mark, packed alone in a ZIP or by gzip.

    Kaggle's archives unpack to a folder ``X.csv`` that holds ``X.csv``.

    Raises
    ------
    BadUsageError
        If there is none, or it is no text.
    """
    try:
        path = inner_file(path)
        data = _unpacked(read_ordinary(path, MOST_TABLE_BYTES))
        text = data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except OSError as error:
        raise BadUsageError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise BadUsageError(f"{path} is no UTF-8 text; save it as CSV in UTF-8") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise BadUsageError(f"{path} cannot be unpacked ({error})") from None
    if "\0" in text:
        raise BadUsageError(f"{path} is no UTF-8 text; save it as CSV in UTF-8")
    return text


def inner_file(path: Path) -> Path:
    """Step into a folder that has the name of the file in it."""
    inside = path / path.name
    return inside if inside.is_file() else path


def _unpacked(data: bytes) -> bytes:
    if data.startswith(_GZIP):
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as unpacked:
            return _bounded(unpacked)
    if not data.startswith(_ZIP):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [one for one in archive.namelist() if not one.startswith("__MACOSX/")]
        if len(names) != 1:  # a workbook is a ZIP of many files
            raise ValueError(f"a ZIP of {len(names)} files; give one table, as CSV")
        with archive.open(names[0]) as unpacked:
            return _bounded(unpacked)


def _bounded(unpacked: gzip.GzipFile | IO[bytes]) -> bytes:
    """Read what a small file may make very large."""
    data = unpacked.read(MOST_TABLE_BYTES + 1)
    if len(data) > MOST_TABLE_BYTES:
        raise ValueError(f"to more than {MOST_TABLE_BYTES:,} bytes")
    return data


def read_table(path: Path, *wanted: str, maybe: tuple[str, ...] = ()) -> list[Row]:
    """Read the asked columns of a table; no other matters.

    Separators are commas, semicolons or tabs. Names count whatever their case, blanks and
    punctuation (R writes ``Pleural.Effusion``). Blank values of any spelling become ``""``, rows
    without any asked value are left out.

    Parameters
    ----------
    wanted, maybe : str
        Columns that must be, and that may be there; names that are not have no cell.

    Raises
    ------
    BadUsageError
        If a wanted column is missing, an asked one stands twice, or a row has more cells than
        columns.
    """
    header, rows, whole = _records(path, wanted)
    places = _places(path, header, wanted, maybe)
    found = []
    for number, row in enumerate(rows, 2):
        if any(cell.strip() for cell in row[len(header) :]):
            raise BadUsageError(
                f"{path}, row {number}: {len(row)} cells for {len(header)} columns, so which is"
                " which cannot be told; is a column without a name, or a comma not in quotes?"
            )
        if row and len(row) < len(header) and not whole and number == len(rows) + 1:
            raise BadUsageError(f"{path} ends within row {number}: it is cut off; get it again")
        # spreadsheets leave out separators at a row's end
        cells = {name: _value(row[i] if i < len(row) else "") for name, i in places.items()}
        if any(cells.values()):
            found.append(Row(number, cells))
    return found


def read_rows(path: Path) -> list[list[str]]:
    """Read all cells of a table or of lines with one value, the first of them too."""
    header, rows, _ = _records(path, ())
    return [[_value(cell) for cell in row] for row in (header, *rows)]


def _records(path: Path, wanted: tuple[str, ...]) -> tuple[list[str], list[list[str]], bool]:
    """Split into header and rows; tell if the last of them was ended."""
    lines = io.StringIO(read_text(path), newline=None).read()  # CR, LF or both
    named = re.match(r"sep=(.)\n", lines)  # how Excel is told of another separator
    lines = lines[named.end() :] if named else lines
    separator = named[1] if named else _separator(lines, wanted)
    try:
        # strict: an open quote would swallow the rest without a word
        rows = list(
            csv.reader(io.StringIO(lines), delimiter=separator, strict=True, skipinitialspace=True)
        )
    except csv.Error as error:
        raise BadUsageError(f"{path} is no CSV table: {error}") from None
    return (rows or [[]])[0], rows[1:], lines.endswith("\n")


def plain(name: str) -> str:
    """Bring a name to small letters and single blanks, without punctuation."""
    return re.sub(r"[\W_]+", " ", name).strip().casefold()


def number(text: str) -> float | None:
    """Read a number as it may be re-saved: ``1``, ``1.0``, ``1,0``, a Unicode minus."""
    try:
        return float(text.translate(_MINUS).replace(",", "."))
    except ValueError:
        return None


def _separator(lines: str, wanted: tuple[str, ...]) -> str:
    """Take the separator that splits the header into the wanted names."""
    first = lines.partition("\n")[0]
    names = {one: {plain(name) for name in first.split(one)} for one in _SEPARATORS}
    asked = {plain(name) for name in wanted}
    return max(_SEPARATORS, key=lambda one: (len(names[one] & asked), first.count(one)))


def _places(
    path: Path, header: list[str], wanted: tuple[str, ...], maybe: tuple[str, ...]
) -> dict[str, int]:
    """Find the asked columns by a like name; one that stands twice may hold other values."""
    names = [name.strip() for name in header]
    places: dict[str, int] = {}
    for asked in (*wanted, *maybe):
        same = [i for i, name in enumerate(names) if plain(name) == plain(asked)]
        copies = [name for name in names if plain(_COPY.sub("", name)) == plain(asked)]
        if len(same) > 1 or len(copies) > 1:
            raise BadUsageError(
                f"{path} has the column {asked} {len(copies)} times; keep one of"
                f" {', '.join(copies)}"
            )
        if same:
            places[asked] = same[0]
    if lacking := [name for name in wanted if name not in places]:
        there = ", ".join(filter(None, names)) or "none"
        raise BadUsageError(f"{path} has no column {', '.join(lacking)}; there are: {there}")
    return places


def _value(cell: str) -> str:
    cell = cell.strip()
    return "" if cell.casefold() in BLANKS else cell
