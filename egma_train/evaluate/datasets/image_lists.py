"""Labelled images: what a list is, its hashes, the generic CSV, subsets."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.image_files import PATIENT_FOLDER, spelled_alike, stem
from egma_train.evaluate.datasets.user_files import read_rows, read_table

# A patient as CheXpert's paths and MIMIC-CXR's name folders, and flattened copies their files;
# where a path names no patient, a study of MIMIC-CXR is of one. NIH's files begin with the
# patient, 00000001_000.png, as do MIMIC-CXR's without their p; days (20240131) are none. Other
# lists name none.
_PATIENT, _STUDY, _NUMBERED = (
    re.compile(rf"(?<![a-z0-9])({name})(?![a-z0-9])")
    for name in (
        PATIENT_FOLDER,
        r"s\d{8}",
        r"(?<![^/])(?!20\d\d(?:0[1-9]|1[0-2])(?:[0-2]\d|3[01]))\d{8}(?=[_/-])",
    )
)


@dataclass(frozen=True)
class ImageList:
    """Images with one class each.

    Attributes
    ----------
    name : str
        What was read, in words.
    classes : tuple of str
        Their order is that of the labels and of nothing else.
    ids : tuple of str
        As in the table: a relative path, or a name without its suffix.
    labels : ndarray
        ``(N,)`` numbers of classes.
    notes : tuple of str
        What a reader of the figures should know.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: NDArray[np.int64]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def sha256(self) -> str:
        """Hash of ids and class names, whatever their order."""
        named = (self.classes[label] for label in self.labels)
        lines = sorted(f"{one}\t{name}\n" for one, name in zip(self.ids, named, strict=True))
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def ids_sha256(self) -> str:
        """Hash of the ids alone, sorted and without suffixes, whatever they are labelled by."""
        return hashlib.sha256(
            "".join(f"{stem(one)}\n" for one in sorted(self.ids)).encode()
        ).hexdigest()

    def only(self, kept: Sequence[int] | NDArray[Any]) -> "ImageList":
        """Keep images by number or mask."""
        numbers = np.arange(len(self))[np.asarray(kept)]
        ids = tuple(self.ids[i] for i in numbers)
        return replace(self, ids=ids, labels=self.labels[numbers])

    def among(self, classes: Sequence[str]) -> "ImageList":
        """Let images be told apart from classes that none of them has.

        Raises
        ------
        BadUsageError
            If a class of theirs is not among these.
        """
        if lacking := set(self.classes) - set(classes):
            there = ", ".join(classes)
            raise BadUsageError(
                f"{self.name}: no prompts for {sorted(lacking)}; there are: {there}"
            )
        numbers = np.array([list(classes).index(name) for name in self.classes])
        return replace(self, classes=tuple(classes), labels=numbers[self.labels])

    def told(self) -> dict[str, Any]:
        """Describe for a report."""
        counts = np.bincount(self.labels, minlength=len(self.classes)).tolist()
        return {
            "images": len(self),
            "sha256": self.sha256,
            "ids_sha256": self.ids_sha256,
            "counts": dict(zip(self.classes, counts, strict=True)),
        }


def patients(ids: Sequence[str]) -> NDArray[np.int64]:
    """Give images numbers of patients ``(N,)`` by what their ids name, else each its own."""

    def named_in(one: str, kind: re.Pattern[str]) -> str | None:
        found = kind.search(one.casefold())
        return found[1] if found else None

    places = [one.replace("\\", "/").rpartition("/") for one in ids]
    folders = [_NUMBERED.findall(folder + slash) for folder, slash, _ in places]
    no_patient = set.intersection(*map(set, folders)) if len(ids) > 1 else set()  # all lie there
    numbers = [
        next(
            (
                f"p{one}"
                for one in (*own, *_NUMBERED.findall(name))
                if one not in no_patient or name.startswith(one)
            ),
            None,
        )
        for own, (_, _, name) in zip(folders, places, strict=True)
    ]
    named = [
        named_in(one, _PATIENT) or number or named_in(one, _STUDY) or one
        for one, number in zip(ids, numbers, strict=True)
    ]
    return np.unique(named, return_inverse=True)[1]


def labelled(
    name: str, classes: Sequence[str], by_id: dict[str, str], notes: Iterable[str] = ()
) -> ImageList:
    """Make a list of images by id.

    Raises
    ------
    BadUsageError
        If it is empty.
    """
    if not by_id:
        raise BadUsageError(f"{name}: no image has a label that counts")
    numbers = {one: i for i, one in enumerate(classes)}
    labels = np.array([numbers[one] for one in by_id.values()], dtype=np.int64)
    return ImageList(name, tuple(classes), tuple(by_id), labels, tuple(notes))


def read_csv(path: Path) -> ImageList:
    """Read a list of your own: columns ``path`` and ``label`` (a class's name).

    However a path is spelled (``./x.png``, backslashes) it is one image.
    """
    by_path: dict[str, tuple[str, str]] = {}
    for number, row in read_table(path, "path", "label"):
        if not row["path"] or not row["label"]:
            raise BadUsageError(
                f"{path}, row {number}: a blank path or label (NA, NaN and None are blanks); fill"
                " it or drop the row"
            )
        own = spelled_alike(row["path"])
        first, label = by_path.setdefault(own, (row["path"], row["label"]))
        if label != row["label"]:
            also = "" if first == row["path"] else f" (above it is {first})"
            raise BadUsageError(f"{path}, row {number}: {row['path']} has two labels{also}")
    by_id = dict(by_path.values())
    return labelled(path.name, sorted(set(by_id.values())), by_id)


def subset(images: ImageList, path: Path) -> ImageList:
    """Keep the images that a file names: an id a line, or the column of a table with most ids.

    A single line is a list of ids itself. Suffixes do not count, nor do folders where the images'
    ids have none. How many of its ids name no image is noted, and how many images are named in
    other columns alone.

    Raises
    ------
    BadUsageError
        If none is left.
    """
    known = [stem(spelled_alike(one)) for one in images.ids]
    rows = [row for row in read_rows(path) if any(row)] or [[]]
    if len(rows) == 1:
        rows = [[cell] for cell in rows[0] if cell] or [[]]
    # an index of pandas or R has no name, and its numbers may be someone's ids
    named = [i for i, name in enumerate(rows[0]) if name.partition(":")[0] not in ("", "Unnamed")]
    columns = [
        [stem(spelled_alike(row[i])) for row in rows if len(row) > i and row[i]] for i in named
    ]
    if not any("/" in one for one in known):
        columns = [[one.rpartition("/")[2] for one in own] for own in columns]
    best = max(columns, key=lambda own: len(set(own) & set(known)), default=[])
    # The name of a column is no id: those of all known test lists have digits.
    titled = best[:1] and best[0] not in known and not any(one.isdigit() for one in best[0])
    ids = set(best[1:] if titled else best)
    kept = [i for i, one in enumerate(known) if one in ids]
    if not kept:
        raise BadUsageError(f"{path.name} names no image of {images.name}, such as {images.ids[0]}")
    unknown = sorted(ids - set(known))
    told = (
        f"{len(unknown)} of {len(ids)} ids in {path.name} name no image, such as"
        f" {(unknown or [''])[0]}"
    )
    others = sorted({one for own in columns for one in own} & set(known) - ids)
    beside = (
        f"{len(others)} images named in other columns of {path.name} are not taken, such as"
        f" {(others or [''])[0]}"
    )
    notes = (*images.notes, *([told] if unknown else []), *([beside] if others else []))
    return replace(images.only(kept), name=f"{images.name}, those in {path.name}", notes=notes)


def all_classes(images: ImageList) -> ImageList:
    """Let a test through in which every class has an image.

    Raises
    ------
    BadUsageError
        If one has none: its recall, the macro F1 and the AUROC would be those of another task.
    """
    if empty := [name for name, count in images.told()["counts"].items() if not count]:
        raise BadUsageError(
            f"{images.name}: no image of {', '.join(empty)} among {len(images)}; is the table"
            " whole, its labels spelled as published? (lists of fewer classes go by --task csv)"
        )
    return images
