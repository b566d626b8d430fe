"""Where the images of a list lie: below a folder, under the table's paths or like ones."""

import glob
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from os.path import isdir, isfile
from pathlib import Path, PurePosixPath

from egma_train.errors import BadUsageError

# Suffixes, and how else each format's files are named.
_SUFFIXES = {".jpg": ".jpg", ".jpeg": ".jpg", ".png": ".png", ".dcm": ".dcm", ".dicom": ".dcm"}
PATIENT_FOLDER = r"patient[ _-]?\d+|p\d{8}"
"""How CheXpert and MIMIC-CXR name a patient's folder."""
_EXACT, _LIKE, _SHIFTED = range(3)

Parts = tuple[str, ...]


def stem(one: str) -> str:
    """Name an image with slashes and without the suffix of a format."""
    path = PurePosixPath(one.strip().replace("\\", "/"))
    return str(path.with_suffix("") if path.suffix.lower() in _SUFFIXES else path)


def spelled_alike(one: str) -> str:
    """Bring an image's path to the spelling that all of one file share: slashes, no ``./``."""
    return "/".join(_parts(one)) or one


def locate(root: Path, ids: Sequence[str]) -> list[Path | None]:
    """Find images below a folder; None for those that are not there.

    Paths start from `root`. Where none leads to a file, all lose their first folders (a release's
    name, another computer's absolute path; patients' only where each file has its own name), or
    all start from the one folder below `root` where they lead to files. Names without a folder
    are found anywhere below. Of files that differ in suffix the one with the id's own is taken,
    masks in ``.png`` beside images in ``.jpg``; neither case nor suffix counts where one file
    only can be meant, and a file that several ids would get this way is nobody's, or the first's
    of those that spell one path in several ways. No path leads outside, unless by a link.

    Raises
    ------
    BadUsageError
        If there is no such folder.
    """
    if not root.is_dir():
        raise BadUsageError(f"--images {root}: no such folder")
    parts = [_parts(one) for one in ids]
    folders = _Folders()
    base, dropped = _shift(root, [own for own in parts if len(own) > 1], folders)
    shifted = (base, dropped) != (root, 0)
    named = _names_below(root) if any(len(own) == 1 for own in parts) else {}
    found: list[Path | None] = []
    ranks = []
    for own in parts:
        if len(own) > 1:
            path = folders.find(base, own[dropped:])
        else:
            path = _by_name(root, own[0], named, folders) if own else None
        exact = path is not None and path == root.joinpath(*own)
        ranks.append(_EXACT if exact else _SHIFTED if shifted and len(own) > 1 else _LIKE)
        found.append(path)
    return _unshared(found, ranks)


def told_absent(root: Path, ids: Sequence[str]) -> str:
    """Say that nothing was found, what was looked for, and what to try."""
    first = ids[0].replace("\\", "/").lstrip("/")
    if ".." in PurePosixPath(first).parts:
        looked_for = f"paths with '..', such as {ids[0]}, are not followed"
    elif "/" in first:
        looked_for = (
            f"there is no {root / first}, nor that without its first folders or a folder or two"
            " further down; give as --images the folder that the table's paths start from"
        )
    elif two := _names_below(root).get(stem(first).casefold(), [])[:2]:
        meant = " or ".join(str(path.relative_to(root)) for path in two)
        looked_for = (
            f"{first} may be {meant}; give as --images the folder that holds the images alone, or"
            " in the table their suffixes"
        )
    else:
        looked_for = f"nowhere below {root} is there an image named {first}"
    return f"none of {len(ids)} images can be read: {looked_for}"


def _parts(one: str) -> Parts:
    """Split a path of any system into folders and a name; into nothing if it leads upwards."""
    text = re.sub(r"^[A-Za-z]:(?=/)", "", one.strip().replace("\\", "/"))
    parts = tuple(part for part in PurePosixPath(text).parts if part.strip("/"))
    return () if ".." in parts else parts


class _Folders:
    """Files below a folder by paths in any case and with any image's suffix."""

    def __init__(self) -> None:
        self._seen: dict[Path, dict[str, list[Path]]] = {}

    def find(self, base: Path, parts: Parts) -> Path | None:
        place = base.joinpath(*parts)
        if isfile(place) or not parts:  # unlike Path's own, no name is too long to ask for
            return place if parts else None
        place = base
        for part in parts[:-1]:
            own = place / part
            same = [own] if isdir(own) else self._entries(place).get(part.casefold(), [])
            if len(same) != 1:
                return None
            place = same[0]
        name = parts[-1].casefold()
        entries = self._entries(place)
        like = _meant(name, entries.get(name) or entries.get(f"{stem(name)}.*", []))
        return like if like and like.is_file() else None

    def _entries(self, folder: Path) -> dict[str, list[Path]]:
        """List a folder once: by small letters, images also without their suffix."""
        if folder not in self._seen:
            entries = defaultdict(list)
            for path in sorted(folder.iterdir()) if isdir(folder) else ():
                entries[path.name.casefold()].append(path)
                if path.suffix.lower() in _SUFFIXES:
                    entries[f"{path.stem.casefold()}.*"].append(path)
            self._seen[folder] = dict(entries)
        return self._seen[folder]


def _shift(root: Path, paths: Sequence[Parts], folders: _Folders) -> tuple[Path, int]:
    """Find what all paths start from, and how many first folders they lose."""
    names = {own[-1].casefold() for own in paths}

    def count(base: Path, dropped: int) -> int:
        # Every patient of CheXpert has a study1/view1_frontal.jpg: one's folder is not another's.
        # A flat copy with names of their own, such as MIMIC-CXR's DICOM ids, may hold many.
        lost = {one.casefold() for own in paths for one in own[:dropped]}
        patients = [one for one in lost if re.fullmatch(PATIENT_FOLDER, one, re.IGNORECASE)]
        if len(names) < len(set(paths)) and len(patients) > 1:
            return 0
        return sum(folders.find(base, own[dropped:]) is not None for own in paths)

    if not paths or any(folders.find(root, own) for own in paths):
        return root, 0
    longest = max(map(len, paths))
    most, fewest_dropped = max((count(root, n), -n) for n in range(1, longest))
    if most:
        return root, -fewest_dropped
    below = [base for base in _bases(root, paths) if count(base, 0)]
    return (below[0], 0) if len(below) == 1 else (root, 0)


def _bases(root: Path, paths: Sequence[Parts]) -> Iterator[Path]:
    """Name the folders at most two below `root` that have the paths' commonest first folder."""
    ((first, _),) = Counter(own[0] for own in paths).most_common(1)
    for above in ("*", "*/*"):
        yield from (place.parent for place in sorted(root.glob(f"{above}/{glob.escape(first)}")))


def _names_below(root: Path) -> dict[str, list[Path]]:
    """Map small letters without suffix to all images below a folder that have that name."""
    found = defaultdict(list)
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() in _SUFFIXES:
            found[path.stem.casefold()].append(path)
    return dict(found)


def _by_name(
    root: Path, name: str, named: Mapping[str, Sequence[Path]], folders: _Folders
) -> Path | None:
    """Find a name without a folder: in `root` itself, else anywhere below, by its own suffix."""
    like = named.get(stem(name).casefold(), ())
    here = folders.find(root, (name,))
    if here and (not _unlike(name, here) or not any(_unlike(here.name, one) for one in like)):
        return here
    return _meant(name, like)


def _meant(name: str, like: Sequence[Path]) -> Path | None:
    """Choose the one file of a name, of the id's own suffix or format where several differ."""
    for same in (
        [path for path in like if path.name.casefold() == name.casefold()],
        [path for path in like if not _unlike(name, path)],
        like,
    ):
        if same:
            return same[0] if len(same) == 1 else None  # which is meant nobody can tell
    return None


def _unlike(name: str, path: Path) -> bool:
    """Tell whether a file's suffix is of another format than a name's."""
    return _SUFFIXES.get(path.suffix.lower()) != _SUFFIXES.get(PurePosixPath(name).suffix.lower())


def _unshared(found: Sequence[Path | None], ranks: Sequence[int]) -> list[Path | None]:
    """Leave a file to the id that names it best, to none where two do as well but inexactly."""
    claims = defaultdict(list)
    for i, (path, rank) in enumerate(zip(found, ranks, strict=True)):
        claims[path].append((rank, i))
    owners = {}
    for path, own in claims.items():
        best, first = min(own)
        if best == _EXACT or [rank for rank, _ in own].count(best) == 1:
            owners[path] = first
    return [path if owners.get(path) == i else None for i, path in enumerate(found)]
