"""RSNA's stage 2 tables to a list: Pneumonia or No Finding, of a seeded share of the patients."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.image_lists import ImageList, labelled, read_table
from egma_train.evaluate.shipped import shipped_toml

_CLASSES = ("No Finding", "Pneumonia")


def read_rsna(path: Path, seed: int) -> ImageList:
    """Read all patients of the labels by box (several rows a patient) or by class.

    By ``Target`` the negatives are all patients without pneumonia, as GLoRIA; by ``class`` they are
    the normal ones, and those that are neither are left out.
    """
    declared = shipped_toml("rsna")
    columns = declared["columns"]
    rows = read_table(path, columns["id"])
    if not rows or not {columns["target"], columns["class"]} & rows[0].keys():
        raise BadUsageError(f"{path} has neither {columns['target']} nor {columns['class']}")
    by_target = columns["target"] in rows[0]
    by_id: dict[str, str] = {}
    left_out = set()
    for row in rows:
        one, label = row[columns["id"]], row[columns["target" if by_target else "class"]]
        known = {"0": "No Finding", "1": "Pneumonia"} if by_target else declared["classes"]
        if label not in known:
            raise BadUsageError(f"{path}: {one} has the label {label!r}, not {', '.join(known)}")
        if not known[label]:
            left_out.add(one)
        elif by_id.get(one) != "Pneumonia":
            by_id[one] = known[label]
    notes = [f"{len(left_out)} patients neither normal nor with pneumonia left out"] * bool(
        left_out
    )
    return labelled(f"RSNA stage 2 by {path.name}", _CLASSES, by_id, notes)


def drawn_share(images: ImageList, seed: int) -> ImageList:
    """Draw the test patients, whatever the table's order."""
    share = shipped_toml("rsna")["test"]["share"]
    order = np.argsort(np.array(images.ids))
    drawn = np.random.default_rng(seed).permutation(order)[: round(len(images) * share)]
    chosen = images.only(np.sort(drawn))
    note = f"{share:.0%} of {len(images)} patients drawn by seed {seed}"
    return replace(chosen, notes=(*images.notes, note))
