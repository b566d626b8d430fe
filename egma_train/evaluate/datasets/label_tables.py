"""Tables with a column for each finding, such as CheXpert's and VinDr-CXR's, to truth by image."""

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.user_files import number, plain, read_rows, read_table

_IDS = ("path", "image", "image id", "image path", "dicom id", "imageid", "filename", "id")
_YES, _NO, _UNCERTAIN = 1.0, 0.0, -1.0
_LABELS = (_YES, _NO, _UNCERTAIN)
_FEW_WRONG = 0.1


class LabelTable(NamedTuple):
    """Which findings are on which images.

    Attributes
    ----------
    findings, ids : tuple of str
        Columns and rows.
    truth : ndarray
        ``(N, findings)``: 1, 0, or NaN where it is not known.
    notes : tuple of str
        What a reader of the figures should know.
    """

    findings: tuple[str, ...]
    ids: tuple[str, ...]
    truth: NDArray[np.float64]
    notes: tuple[str, ...]


def read_label_table(path: Path) -> LabelTable:
    """Read every column of 1, 0, -1 and blanks as a finding; a blank is 0, -1 is not known.

    A blank of CheXpert's tables is a finding that the report does not mention. An image that
    several readers labelled, as in VinDr-CXR's training table, has what most of them say; where
    they are even it is not known.

    Raises
    ------
    BadUsageError
        If no column names images, none is a finding that some image has and another has not, or
        what nearly is one has another value.
    """
    header, *cells = read_rows(path)
    place = next((i for one in _IDS for i, name in enumerate(header) if plain(name) == one), None)
    if place is None:
        raise BadUsageError(
            f"{path} has no column that names images; call it one of {', '.join(_IDS)}"
        )
    found = [
        name for i, name in enumerate(header) if i != place and _is_finding(path, i, header, cells)
    ]
    votes: dict[str, list[list[float]]] = defaultdict(list)
    nameless = 0
    for row in read_table(path, header[place], *found) if found else []:  # it refuses what is amiss
        values = [number(row.cells[name]) if row.cells[name] else _NO for name in found]
        name = str(PurePosixPath(row.cells[header[place]].replace("\\", "/")))
        nameless += not row.cells[header[place]]
        if row.cells[header[place]]:
            votes[name].append([one or _NO for one in values])
    said = [most_say(np.array(own)) for own in votes.values()]
    truth = np.array(said, np.float64).reshape(len(votes), len(found))
    sided = [i for i in range(len(found)) if {_YES, _NO} <= set(truth[:, i].tolist())]
    if not sided:
        raise BadUsageError(
            f"{path}: no column of 1 and 0 is a finding that some image has and another has not"
        )
    notes = [f"{nameless} rows name no image and are left out"] if nameless else []
    rows = sum(map(len, votes.values()))
    if len(votes) < rows:
        notes.append(f"{rows} rows of {len(votes)} images: what most of them say counts")
    if unknown := int(np.isnan(truth[:, sided]).sum()):
        notes.append(f"{unknown} labels are uncertain and left out, finding by finding")
    if lone := [name for i, name in enumerate(found) if i not in sided]:
        notes.append(f"{', '.join(lone)}: the same for all images, left out")
    findings = tuple(name for i, name in enumerate(found) if i in sided)
    return LabelTable(findings, tuple(votes), truth[:, sided], tuple(notes))


def _is_finding(path: Path, place: int, header: list[str], rows: list[list[str]]) -> bool:
    """Tell whether a column is 1, 0, -1 and blanks; one that nearly is has a mistake in it."""
    cells = [row[place] if place < len(row) else "" for row in rows]
    wrong = [i for i, cell in enumerate(cells) if cell and number(cell) not in _LABELS]
    known = [number(cell) for cell in cells if cell]
    if _YES not in known:
        return False
    if wrong and len(wrong) <= _FEW_WRONG * len(known):
        raise BadUsageError(
            f"{path}, row {wrong[0] + 2}: {header[place]} is {cells[wrong[0]]!r:.40}; a finding"
            " is 1, 0, -1 or blank"
        )
    return not wrong


def most_say(votes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take what most readers say of each finding ``(readers, findings)``; NaN where it is even."""
    yes, no = (votes == _YES).sum(0), (votes == _NO).sum(0)
    return np.where(yes == no, np.nan, (yes > no).astype(np.float64))
