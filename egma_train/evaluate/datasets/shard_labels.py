"""The labels that came with held-out readings, as a table of findings by image."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from egma_train.data.shards import ShardReading
from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.datasets.label_tables import LabelTable, most_say
from egma_train.evaluate.readings import readings_of

_LEAST_CERTAINTY = 3.0  # of REFLACX's 0 to 5: "possibly" and more
_FLAGS = ("Support devices", "Quality issue")  # of REFLACX: 1 or 0


class LabelledImages(NamedTuple):
    """One reading of each image, in the order of the table's rows."""

    table: LabelTable
    readings: list[ShardReading]


def labels_of_shards(files: Sequence[Path], splits: Sequence[str], dataset: str) -> LabelledImages:
    """Read the labels of one dataset; several readers of an image are counted by what most say.

    CheXpert's that a report does not mention are 0, as a blank of its table, -1 is not known; what
    REFLACX's phase did not ask is not known, certainties of 3 and more are present.

    Raises
    ------
    BadUsageError
        If no reading has such labels, or none that some image has and another has not.
    """
    prefix = f"{dataset}:"
    votes: dict[str, list[dict[str, float]]] = defaultdict(list)
    first: dict[str, ShardReading] = {}
    found: set[str] = set()
    for reading in readings_of(files, splits):
        found |= {name.partition(":")[0] for name in reading.labels}
        own = {
            name.removeprefix(prefix): _truth(dataset, name.removeprefix(prefix), value)
            for name, value in reading.labels.items()
            if name.startswith(prefix)
        }
        if own:
            votes[reading.dicom_id].append(own)
            first.setdefault(reading.dicom_id, reading)
    if not votes:
        if found - {dataset}:
            raise unknown_name("dataset of labels", dataset, found)
        raise BadUsageError("no reading of these splits has labels; see the shards' column labels")
    names = sorted({name for own in votes.values() for one in own for name in one})
    absent = 0.0 if dataset == "chexpert" else np.nan
    truth = np.array(
        [
            most_say(np.array([[one.get(name, absent) for name in names] for one in own]))
            for own in votes.values()
        ]
    )
    sided = [i for i in range(len(names)) if {0.0, 1.0} <= {*truth[:, i].tolist()}]
    if not sided:
        raise BadUsageError(f"no label of {dataset} is on some image and not on another")
    notes = [f"{dataset}'s labels in the shards: {len(votes)} images"]
    if unknown := int(np.isnan(truth[:, sided]).sum()):
        notes.append(f"{unknown} labels are not known and left out, finding by finding")
    if lone := [name for i, name in enumerate(names) if i not in sided]:
        notes.append(f"{', '.join(lone)}: the same for all images, left out")
    findings = tuple(names[i] for i in sided)
    return LabelledImages(
        LabelTable(findings, tuple(votes), truth[:, sided], tuple(notes)), [*first.values()]
    )


def _truth(dataset: str, name: str, value: float) -> float:
    if dataset == "reflacx" and name not in _FLAGS:
        return float(value >= _LEAST_CERTAINTY)
    return value if value in (0.0, 1.0) else float("nan")
