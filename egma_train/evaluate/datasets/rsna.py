"""RSNA's stage 2 tables to a list: Pneumonia or No Finding, of the patients of a split."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.image_files import stem
from egma_train.evaluate.datasets.image_lists import ImageList, labelled
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.datasets.user_files import number, plain, read_table

SPLITS = {
    "gloria": "the test patients of GLoRIA's code",
    "drawn": "as many, drawn by --seed",
    "all": "all patients",
}

_CLASSES = ("No Finding", "Pneumonia")
_NEITHER = ""
_BY_TARGET: dict[float | None, str] = {0.0: "No Finding", 1.0: "Pneumonia"}
_GLORIA_SEED = 0


def read_rsna(path: Path, seed: int, split: str) -> ImageList:
    """Read the labels by box (several rows a patient) or by class, of a split's patients.

    By ``Target`` the negatives are all patients without pneumonia, as GLoRIA; by ``class`` they are
    the normal ones, and those that are neither are left out. A split is one of all patients of the
    table, so that both tables give the same ones.
    """
    labels = _labels(path)
    patients, whole = sorted(labels), shipped_toml("rsna")["counts"]["patients"]
    chosen, notes = patients, []
    if split == "gloria":
        chosen = gloria_test(patients)
        notes = [f"GLoRIA's {len(chosen)} test patients of {len(patients)}"]
        if len(patients) != whole:
            notes = [
                f"{len(chosen)} of {len(patients)} patients by GLoRIA's rule; its own are those of"
                f" the whole table, {whole} patients (are these the test already? --split all)"
            ]
    elif split == "drawn":
        chosen = drawn_share(patients, seed)
        notes = [f"{_share():.0%} of {len(patients)} patients drawn by seed {seed}"]
    by_id = {one: labels[one] for one in chosen if labels[one] != _NEITHER}
    if len(by_id) < len(chosen):
        left_out = len(chosen) - len(by_id)
        notes.append(f"{left_out} patients neither normal nor with pneumonia left out")
    return labelled(f"RSNA stage 2 by {path.name}", _CLASSES, by_id, notes)


def gloria_test(patients: Sequence[str]) -> list[str]:
    """Take what GLoRIA's ``preprocess_datasets.py`` tests on, of sorted patients.

    It calls scikit-learn's ``train_test_split`` twice with ``random_state=0``: two test shares are
    held out, then halved; the first half, which the call names "train", is the test. That function
    shuffles by `numpy.random.RandomState`, whose numbers never change, and holds out the first
    ones, rounded up.
    """

    def split(ids: Sequence[str], share: float) -> tuple[list[str], list[str]]:
        order = np.random.RandomState(_GLORIA_SEED).permutation(len(ids))
        held_out = math.ceil(share * len(ids))
        return [ids[i] for i in order[held_out:]], [ids[i] for i in order[:held_out]]

    _, test_and_valid = split(patients, 2 * _share())
    test, _ = split(test_and_valid, 0.5)
    return sorted(test)


def drawn_share(patients: Sequence[str], seed: int) -> list[str]:
    """Draw the test patients by a seed of ours, of sorted patients."""
    order = np.random.default_rng(seed).permutation(len(patients))
    return sorted(patients[i] for i in order[: round(len(patients) * _share())])


def _share() -> float:
    return float(shipped_toml("rsna")["test"]["share"])


def _labels(path: Path) -> dict[str, str]:
    """Map each patient to a class; pneumonia if any row says so, "" if it is neither."""
    declared = shipped_toml("rsna")
    patient, target, by_class = (declared["columns"][name] for name in ("id", "target", "class"))
    rows = read_table(path, patient, maybe=(target, by_class))
    if not rows:
        raise BadUsageError(f"{path} has no rows")
    column = next((one for one in (target, by_class) if one in rows[0].cells), None)
    if column is None:
        raise BadUsageError(f"{path} has neither {target} nor {by_class}")
    classes = {plain(name): own for name, own in declared["classes"].items()}
    known = ["0", "1"] if column == target else declared["classes"]
    certain = (_NEITHER, *_CLASSES)
    found: dict[str, str] = {}
    for row_number, row in rows:
        one, label = stem(row[patient]), row[column]
        own = _BY_TARGET.get(number(label)) if column == target else classes.get(plain(label))
        if not row[patient] or own is None:
            raise BadUsageError(
                f"{path}, row {row_number}: {row[patient] or 'no patient'} has the label {label!r},"
                f" not {', '.join(known)}"
            )
        found[one] = max(found.get(one, _NEITHER), own, key=certain.index)
    return found
