"""Tables with a column for each finding, such as CheXpert's and VinDr-CXR's, to truth by image."""

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.user_files import number, plain, read_rows

_IDS = ("path", "image", "image id", "image path", "dicom id", "imageid", "filename", "id")
_YES, _NO, _UNCERTAIN = 1.0, 0.0, -1.0


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
        If no column names images, or none is a finding that some image has and another has not.
    """
    header, *rows = read_rows(path)
    names = [plain(one) for one in header]
    place = next((names.index(one) for one in _IDS if one in names), None)
    if place is None:
        raise BadUsageError(f"{path} has no column that names images, such as path or image_id")
    columns = {}
    for i, name in enumerate(header):
        cells = [row[i] if i < len(row) else "" for row in rows]
        values = [number(cell) if cell else _NO for cell in cells]
        if i != place and _YES in values and {*values} <= {_YES, _NO, _UNCERTAIN}:
            columns[name] = [one or _NO for one in values]
    votes: dict[str, list[list[float]]] = defaultdict(list)
    for at, row in enumerate(rows):
        if place < len(row) and row[place]:
            votes[row[place]].append([own[at] for own in columns.values()])
    said = [_most(np.array(own)) for own in votes.values()]
    truth = np.array(said, np.float64).reshape(len(votes), len(columns))
    sided = [i for i in range(len(columns)) if {_YES, _NO} <= set(truth[:, i].tolist())]
    if not sided:
        raise BadUsageError(f"{path}: no column of 1 and 0 is a finding that tells images apart")
    notes = []
    if len(votes) < len(rows):
        notes.append(f"{len(rows)} rows of {len(votes)} images: what most of them say counts")
    if unknown := int(np.isnan(truth[:, sided]).sum()):
        notes.append(f"{unknown} labels are uncertain and left out, finding by finding")
    findings = tuple(name for i, name in enumerate(columns) if i in sided)
    return LabelTable(findings, tuple(votes), truth[:, sided], tuple(notes))


def _most(votes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Take what most readers say of each finding ``(readers, findings)``; NaN where it is even."""
    yes, no = (votes == _YES).sum(0), (votes == _NO).sum(0)
    return np.where(yes == no, np.nan, (yes > no).astype(np.float64))
