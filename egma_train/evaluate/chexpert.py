"""CheXpert's tables to lists: 5x200 by GLoRIA's criterion, the published 8x200 by its hash."""

import hashlib
from pathlib import Path

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.image_lists import ImageList, labelled, read_table
from egma_train.evaluate.shipped import shipped_toml

_POSITIVE, _NOT_POSITIVE = 1.0, 0.0


def read_5x200(path: Path, seed: int) -> ImageList:
    """Take frontal images with one of five findings and none of the others even uncertain.

    Where a class has more than 200, 200 are drawn: give ``train.csv`` to build a list, or a list
    of 1,000 to use as it is.
    """
    declared = shipped_toml("chexpert")["lists"]["5x200"]
    found = _single_findings(path, declared["classes"], others_absent=True)
    most, rng = declared["per_class"], np.random.default_rng(seed)
    chosen: dict[str, str] = {}
    notes = []
    for name in declared["classes"]:
        ids = sorted(one for one, own in found.items() if own == name)
        if len(ids) > most:
            notes.append(f"{most} of {len(ids)} images of {name} drawn by seed {seed}")
            ids = sorted(rng.choice(ids, most, replace=False).tolist())
        chosen |= dict.fromkeys(ids, name)
    return labelled(f"CheXpert 5x200 from {path.name}", declared["classes"], chosen, notes)


def read_8x200(path: Path, seed: int) -> ImageList:
    """Take images with exactly one of eight classes, all of them."""
    declared = shipped_toml("chexpert")["lists"]["8x200"]
    found = _single_findings(path, declared["classes"], others_absent=False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    published = digest == declared["sha256"]
    note = "the published list" if published else f"not the published list: sha256 {digest[:12]}..."
    return labelled(f"CheXpert 8x200 from {path.name}", declared["classes"], found, [note])


def _single_findings(path: Path, classes: list[str], *, others_absent: bool) -> dict[str, str]:
    """Map frontal images with one positive class to it; blank counts as absent."""
    columns = shipped_toml("chexpert")["columns"]
    found: dict[str, str] = {}
    for line, row in enumerate(read_table(path, columns["path"], *classes), 2):
        if row.get(columns["side"], columns["frontal"]) != columns["frontal"]:
            continue
        try:
            values = {name: float(row.get(name) or 0) for name in classes}
        except ValueError as error:
            raise BadUsageError(f"{path}, line {line}: {error}") from None
        positive = [name for name, value in values.items() if value == _POSITIVE]
        others = {value for name, value in values.items() if name not in positive}
        if len(positive) == 1 and (others <= {_NOT_POSITIVE} or not others_absent):
            found[row[columns["path"]]] = positive[0]
    return found
