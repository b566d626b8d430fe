"""Labelled images: what a list is, its hash, the generic CSV, and where the files lie."""

import csv
import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError
from egma_train.evaluate.shipped import read_text

# The folder of a patient in CheXpert's paths and in MIMIC-CXR's; other lists name none.
_PATIENT = re.compile(r"(?:^|/)(patient\d+|p\d{8})/")
_SUFFIXES = {".jpg", ".jpeg", ".png", ".dcm"}


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
            "counts": dict(zip(self.classes, counts, strict=True)),
        }


def patients(ids: Sequence[str]) -> NDArray[np.int64]:
    """Give images numbers of patients ``(N,)`` by the folders in their ids, else each its own."""
    folders = [_PATIENT.search(one) for one in ids]
    named = [found[1] if found else one for found, one in zip(folders, ids, strict=True)]
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


def read_table(path: Path, *wanted: str) -> list[dict[str, str]]:
    """Read a CSV; blanks around names and values do not count.

    Raises
    ------
    BadUsageError
        If a wanted column is missing.
    """
    rows = csv.reader(read_text(path).splitlines())
    names = [name.strip() for name in next(rows, [])]
    lacking = [name for name in wanted if name not in names]
    if lacking:
        there = ", ".join(names) or "none"
        raise BadUsageError(f"{path} has no column {', '.join(lacking)}; there are: {there}")
    return [dict(zip(names, map(str.strip, row), strict=False)) for row in rows if row]


def read_csv(path: Path) -> ImageList:
    """Read a list of your own: columns ``path`` and ``label`` (a class's name)."""
    by_id: dict[str, str] = {}
    for line, row in enumerate(read_table(path, "path", "label"), 2):
        if not row["path"] or not row.get("label"):
            raise BadUsageError(
                f"{path}, row {line}: a blank path or label; fill it or drop the row"
            )
        if by_id.setdefault(row["path"], row["label"]) != row["label"]:
            raise BadUsageError(f"{path}: {row['path']} has two labels")
    return labelled(path.name, sorted(set(by_id.values())), by_id)


def read_ids(path: Path) -> set[str]:
    """Read a subset: an id a line, or a CSV's first column; suffixes do not count."""
    first = (line.split(",")[0].strip() for line in read_text(path).splitlines())
    return {_stem(one) for one in first if one}


def subset(images: ImageList, ids: Collection[str], name: str) -> ImageList:
    """Keep the images that a subset names; note how many of its ids name none.

    Raises
    ------
    BadUsageError
        If none is left.
    """
    kept = [i for i, one in enumerate(images.ids) if _stem(one) in ids]
    if not kept:
        raise BadUsageError(f"{name} names no image of {images.name}, such as {images.ids[0]}")
    unknown = sorted(set(ids) - {_stem(images.ids[i]) for i in kept})
    told = (
        f"{len(unknown)} of {len(ids)} ids in {name} name no image, such as {(unknown or [''])[0]}"
    )
    notes = (*images.notes, *([told] if unknown else []))
    return replace(images.only(kept), name=f"{images.name}, those in {name}", notes=notes)


def locate(root: Path, ids: Sequence[str]) -> list[Path | None]:
    """Find images below a folder; None for those that are not there.

    Parameters
    ----------
    root : Path
        What relative paths start from, or the first folder of all of them (CheXpert's begin with
        the release's name). Ids without a folder are found anywhere below it, if only once. No
        path leads outside, unless by a link.

    Raises
    ------
    BadUsageError
        If there is no such folder.
    """
    if not root.is_dir():
        raise BadUsageError(f"--images {root}: no such folder")
    bare = any("/" not in one for one in ids)
    below: dict[str, Path | None] = {}
    for path in sorted(root.rglob("*")) if bare else ():
        if path.suffix.lower() in _SUFFIXES:
            before = below.setdefault(path.stem, path)
            if before and before.name == path.name and before != path:
                below[path.stem] = None  # which of the two is meant nobody can tell
    release = len({one.split("/")[0] for one in ids if "/" in one}) == 1

    def place(one: str) -> Path | None:
        relative = Path(one)
        if relative.is_absolute() or ".." in relative.parts:
            return None
        tries = (root / relative, *([root.joinpath(*relative.parts[1:])] if release else []))
        found = next((path for path in tries if path.is_file()), None)
        return found or (None if "/" in one else below.get(_stem(one)))

    return [place(one) for one in ids]


def _stem(one: str) -> str:
    path = Path(one)
    return str(path.with_suffix("")) if path.suffix.lower() in _SUFFIXES else one
