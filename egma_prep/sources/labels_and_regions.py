"""Labels in columns ``label:NAME`` and regions in a table: extras of one's own recordings."""

from collections import Counter
from collections.abc import Mapping

from egma_prep.errors import BadInputError
from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.reading import Region
from egma_prep.sources.values import is_blank, number

LABEL = "label:"


def labels_of(
    row: Mapping[str, str], dataset: str, path: str
) -> tuple[dict[str, float], Counter[str]]:
    """Read a row's columns ``label:NAME``; damaged ones are left out and counted.

    A name with another colon, ``label:chexpert:Edema``, says itself whose label it is.
    """
    notes: Counter[str] = Counter()
    found = {}
    for column in (one for one in row if one.startswith(LABEL) and not is_blank(row[one])):
        name = column.removeprefix(LABEL)
        with extras.noting(notes, "labels_left_out"):
            value = number(row[column], path, column)
            found[name if ":" in name else f"{dataset}:{name}"] = value
    return found, notes


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
        with extras.noting(notes, "regions_left_out"):
            name, kind = row[names["name"]].strip(), row[names["kind"]].strip().lower()
            if not name or kind not in ("box", "ellipse"):
                what = f"{table.place_of_row(at)} is a {kind[:20]!r} of {name[:20]!r}"
                raise BadInputError("bad_number", table.path, what)
            sure = row.get(names["certainty"], "")
            certainty = None if is_blank(sure) else number(sure, table.path, "certainty")
            found.append(Region(name, kind, *corners, certainty))
    return found, notes
