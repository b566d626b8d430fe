"""CheXpert's tables to lists: 5x200 by GLoRIA's criterion, the published 8x200 by its hash."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.image_files import spelled_alike
from egma_train.evaluate.datasets.image_lists import ImageList, labelled
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.datasets.user_files import inner_file, number, read_table
from egma_train.storage.ordinary import MOST_TABLE_BYTES, read_ordinary

_POSITIVE, _ABSENT, _UNCERTAIN = 1.0, 0.0, -1.0
_SIDES = ("frontal", "lateral")


def read_5x200(path: Path, seed: int) -> ImageList:
    """Take frontal images with one of five findings; it alone, and nothing else even uncertain.

    As GLoRIA's ``preprocess_datasets.py``: the other four and eight more findings are 0 or blank,
    "No Finding" does not count. Where a class has more than 200, 200 are drawn: give ``train.csv``
    to build a list, or a list of 1,000 to use as it is.
    """
    declared = shipped_toml("chexpert")["lists"]["5x200"]
    classes, others = declared["classes"], declared["absent"]
    found: dict[str, str] = {}
    unchecked: set[str] = set()
    notes: list[str] = []
    for image, values in _frontal(path, classes, others, notes):
        positive = [name for name in classes if values[name] == _POSITIVE]
        rest = [value for name, value in values.items() if name not in positive]
        unchecked |= set(others) - values.keys()
        if len(positive) == 1 and not any(rest):
            found[image] = positive[0]
    if unchecked:
        notes.append(
            f"the table lacks {', '.join(sorted(unchecked))}: that they are absent, as GLoRIA wants"
            " it, is not known"
        )
    most, rng = declared["per_class"], np.random.default_rng(seed)
    chosen: dict[str, str] = {}
    for name in classes:
        ids = sorted(one for one, own in found.items() if own == name)
        if len(ids) > most:
            notes.append(f"{most} of {len(ids)} images of {name} drawn by seed {seed}")
            ids = sorted(rng.choice(ids, most, replace=False).tolist())
        chosen |= dict.fromkeys(ids, name)
    return labelled(f"CheXpert 5x200 from {path.name}", classes, chosen, notes)


def read_8x200(path: Path, seed: int) -> ImageList:
    """Take images with exactly one of eight classes, all of them."""
    declared = shipped_toml("chexpert")["lists"]["8x200"]
    found: dict[str, str] = {}
    notes: list[str] = []
    for image, values in _frontal(path, declared["classes"], (), notes):
        positive = [name for name, value in values.items() if value == _POSITIVE]
        if len(positive) == 1:
            found[image] = positive[0]
    digest = hashlib.sha256(read_ordinary(inner_file(path), MOST_TABLE_BYTES)).hexdigest()
    published = digest == declared["sha256"]
    note = "the published list" if published else f"not the published list: sha256 {digest[:12]}..."
    return labelled(f"CheXpert 8x200 from {path.name}", declared["classes"], found, [note, *notes])


def _frontal(
    path: Path, wanted: list[str], maybe: list[str] | tuple[()], notes: list[str]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield each frontal image with its findings; blank counts as absent.

    What a reader of the figures should know is added to `notes`.
    """
    columns = shipped_toml("chexpert")["columns"]
    seen: dict[str, tuple[str, dict[str, float]]] = {}
    unknown: set[str] = set()
    for row_number, row in read_table(
        path, columns["path"], *wanted, maybe=(*maybe, columns["side"])
    ):
        image, own = row[columns["path"]], spelled_alike(row[columns["path"]])
        if not image:
            raise BadUsageError(f"{path}, row {row_number}: no {columns['path']}")
        side = row.get(columns["side"], "").casefold() or _side_by_name(image)
        unknown |= set() if side else {own}
        if side not in ("", *_SIDES):
            raise BadUsageError(
                f"{path}, row {row_number}: the view {side!r}, not Frontal or Lateral"
            )
        if side == "lateral":
            continue
        values = {name: _finding(path, row_number, name, row[name])
                  for name in (*wanted, *maybe) if name in row}  # fmt: skip
        if seen.setdefault(own, (image, values))[1] != values:
            raise BadUsageError(
                f"{path}, row {row_number}: {image} stands twice, labelled otherwise"
            )
    if unknown:
        notes.append(
            f"{len(unknown)} images whose view neither table nor name tells, taken as frontal"
        )
    yield from seen.values()


def _side_by_name(image: str) -> str:
    """Read the view as CheXpert names files, ``view1_frontal.jpg``, whatever was added.

    Such as ``view1_lateral_224.jpg.png``; blank if it is not told.
    """
    path = PurePosixPath(image.replace("\\", "/").casefold())
    words = set(re.split("[^a-z]+", path.name))
    told = [side for side in _SIDES if side in words]
    told = told if len(told) == 1 else [side for side in _SIDES if path.stem.endswith(side)]
    return next(iter(told), "")


def _finding(path: Path, row_number: int, name: str, text: str) -> float:
    value = number(text) if text else _ABSENT
    if value not in (_POSITIVE, _ABSENT, _UNCERTAIN):
        raise BadUsageError(f"{path}, row {row_number}: {name} is {text!r}, not 1, 0, -1 or blank")
    return value
