"""What a reading can do without: left out where it is absent or damaged, and counted."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import Table
from egma_prep.sources.manifests import manifest
from egma_prep.sources.values import BLANKS, MOST_PX, is_blank, known_numbers, pixels

_VIEW = re.compile(r"[A-Z][A-Z ]{0,15}")
Corners = tuple[float, float, float, float]


def known_split(text: str) -> str | None:
    """Take a split; None where it is blank or no split, so that nobody trains on it by mistake."""
    split = text.strip().lower()
    return split if split in manifest("mimic-cxr")["splits"] else None


def known_view(text: str) -> str | None:
    """Take a view position; None where it is blank, or no words: DICOM has 16 letters for it.

    DICOM's code strings are capitals, so that a table with others was changed (``ap``).
    """
    view = text.strip().upper()
    return view if _VIEW.fullmatch(view) and view.lower() not in BLANKS else None


def known_size(row: Mapping[str, str], names: Mapping[str, str]) -> tuple[int, int] | None:
    """Take an image's width and height of a row; None where one is not told, or damaged."""
    try:
        width, height = (pixels(row.get(names[side], ""), "", side) for side in ("width", "height"))
    except BadInputError:
        return None
    return width, height


def absent(split: str | None, view: str | None) -> Counter[str]:
    """Count which facts of an image no table told."""
    return Counter({"without_split": split is None, "without_view": view is None})


def labels(
    row: Mapping[str, str], names: Iterable[str], values: tuple[float, ...]
) -> tuple[dict[str, float], Counter[str]]:
    """Read the labels of a row by their columns, and count the damaged ones; blanks are neither."""
    told = {name: row[name] for name in names if not is_blank(row.get(name, ""))}
    numbers = known_numbers(told.values()).tolist()
    found = {name: value for name, value in zip(told, numbers, strict=True) if value in values}
    return found, Counter(labels_left_out=len(told) - len(found))


def corners(
    table: Table, names: Mapping[str, str], rows: Iterable[int], notes: Counter[str]
) -> list[tuple[int, Corners]]:
    """Read rows of boxes or ellipses: x0 <= x1, y0 <= y1, in pixels; damaged ones are left out."""
    chosen = list(rows)
    x0, y0, x1, y1 = (
        known_numbers(table.columns[names[side]][row] for row in chosen)
        for side in ("x0", "y0", "x1", "y1")
    )
    left, top = np.minimum(x0, x1), np.minimum(y0, y1)
    sides = np.column_stack([left, top, np.maximum(x0, x1), np.maximum(y0, y1)])  # (n, 4)
    # Off the image is legal, off every image is not; NaN stands for a damaged cell.
    sound = (np.abs(sides) <= MOST_PX).all(axis=1)
    notes["regions_left_out"] += int((~sound).sum())
    placed = zip(chosen, sides.tolist(), sound, strict=True)
    return [(row, (one[0], one[1], one[2], one[3])) for row, one, is_sound in placed if is_sound]
