"""What a reading can do without: left out where it is absent or damaged, and counted."""

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import Table
from egma_prep.sources.manifests import manifest
from egma_prep.sources.values import MOST_PX, is_blank, label, number, optional_text

_VIEW = re.compile(r"[A-Z][A-Z ]{0,15}", re.IGNORECASE)
Corners = tuple[float, float, float, float]


@contextlib.contextmanager
def noting(notes: Counter[str], name: str) -> Iterator[None]:
    """Pass over a fault of the input, and count it under one of `errors.NOTES`."""
    try:
        yield
    except BadInputError:
        notes[name] += 1


def known_split(text: str) -> str | None:
    """Take a split; None where it is blank or no split, so that nobody trains on it by mistake."""
    split = text.strip().lower()
    return split if split in manifest("mimic-cxr")["splits"] else None


def known_view(text: str) -> str | None:
    """Take a view position; None where it is blank, or no words: DICOM has 16 letters for it.

    DICOM's code strings are capitals, so that a table with others was changed (``ap``).
    """
    view = (optional_text(text) or "").upper()
    return view if view and _VIEW.fullmatch(view) else None


def absent(split: str | None, view: str | None) -> Counter[str]:
    """Count which facts of an image no table told."""
    return Counter({"without_split": split is None, "without_view": view is None})


def labels(
    row: Mapping[str, str], names: Iterable[str], values: tuple[float, ...], where: str
) -> tuple[dict[str, float], Counter[str]]:
    """Read the labels of a row by their columns, and count the damaged ones; blanks are neither."""
    notes: Counter[str] = Counter()
    found = {}
    for name in names:
        cell = row.get(name, "")
        if is_blank(cell):
            continue
        try:  # without a context: MIMIC-CXR's images have five million labels
            found[name] = label(cell, values, where, name)
        except BadInputError:
            notes["labels_left_out"] += 1
    return found, notes


def corners(
    table: Table, names: Mapping[str, str], rows: Iterable[int], notes: Counter[str]
) -> Iterator[tuple[int, Corners]]:
    """Read rows of boxes or ellipses: x0 <= x1, y0 <= y1, in pixels; damaged ones are left out."""
    for row in rows:
        with noting(notes, "regions_left_out"):
            cells = ((side, table.columns[names[side]][row]) for side in ("x0", "y0", "x1", "y1"))
            x0, y0, x1, y1 = (_coordinate(table, row, names[side], cell) for side, cell in cells)
            yield row, (min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1))


def _coordinate(table: Table, row: int, name: str, cell: str) -> float:
    value = number(cell, table.path, table.place(row, name))
    if abs(value) > MOST_PX:  # off the image is legal, off every image is not
        raise BadInputError("bad_number", table.path, f"{table.place(row, name)} is {cell}")
    return value
