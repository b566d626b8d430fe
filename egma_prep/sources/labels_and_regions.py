"""Labels in columns ``label:NAME`` and regions in a table: extras of one's own recordings."""

import math
from collections import Counter
from collections.abc import Mapping

from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.reading import Region
from egma_prep.sources.values import is_blank, known_numbers

LABEL = "label:"


def labels_of(row: Mapping[str, str], dataset: str) -> tuple[dict[str, float], Counter[str]]:
    """Read a row's columns ``label:NAME``; damaged ones are left out and counted.

    A name with another colon, ``label:chexpert:Edema``, says itself whose label it is.
    """
    cells = {one: row[one] for one in row if one.startswith(LABEL) and not is_blank(row[one])}
    found = {}
    for column, value in zip(cells, known_numbers(cells.values()).tolist(), strict=True):
        name = column.removeprefix(LABEL)
        if not math.isnan(value):
            found[name if ":" in name else f"{dataset}:{name}"] = value
    return found, Counter(labels_left_out=len(cells) - len(found))


def regions_of(table: Table, names: Mapping[str, str]) -> tuple[list[Region], Counter[str]]:
    """Read boxes and ellipses, a row each; damaged ones are left out and counted.

    Parameters
    ----------
    names : mapping
        Columns of ``name``, ``kind``, ``x0``, ``y0``, ``x1``, ``y1`` and ``certainty``.
    """
    notes: Counter[str] = Counter()
    found = []
    for at, corners in extras.corners(table, names, range(len(table)), notes):
        row = table.row(at)
        name, kind = row[names["name"]].strip(), row[names["kind"]].strip().lower()
        sure = row.get(names["certainty"], "")
        certainty = None if is_blank(sure) else known_numbers([sure]).item()
        if not name or kind not in ("box", "ellipse") or certainty != certainty:  # NaN: damaged
            notes["regions_left_out"] += 1
            continue
        found.append(Region(name, kind, *corners, certainty))
    return found, notes
