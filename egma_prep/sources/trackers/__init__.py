"""Gaze of an eye tracker's export: each module here is a tracker's, with what `Tracker` has."""

import importlib
import pkgutil
import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.reading import FloatArray, RowsOfFile

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Of a unit of time."""
FRAMES = ("image_px", "image_share", "screen_px", "screen_share")
"""What positions refer to: pixels or shares, of the image or of the screen it was shown on."""
EYES = ("left", "right")

_HEAD_BYTES = 2**16
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# Shares leave the screen by less than that; in so few pixels at its corner nobody reads.
_SHARES, _ENOUGH = 4.0, 3
_FARTHEST = 1e6  # pixels or shares: no screen, and no look beside one, reaches so far
# What a file of another kind fails by; other damage is told as it is.
_OF_ANOTHER_KIND = ("bad_csv", "missing_column", "no_fixations", "short_header")


class GazeFile(NamedTuple):
    """How the gaze of a dataset is stored: ``[gaze]`` of its ``dataset.toml``.

    Attributes
    ----------
    time_unit : str
        Of `SECONDS`, where a format leaves it open.
    frame : str
        Of `FRAMES`; empty where the format says it. An image may have filled the screen, a surface
        be the image: the frame then is another, its unit is not.
    eye : str
        Of `EYES`, where each has fixations of its own; empty: the one that has more of them.
    from_ : {"fixations", "samples"}
        ``from`` in ``dataset.toml``: which of them the file has, or which to take.
    columns : mapping
        Our names (``begin``, ``end`` or ``duration``, of samples ``t``; ``x``, ``y``) to a table's
        columns.
    """

    file: str = "fixations.csv"
    format: str = "csv"
    time_unit: str = "s"
    frame: str = ""
    eye: str = ""
    from_: str = "fixations"
    columns: Mapping[str, str] = {}


class TrackedGaze(NamedTuple):
    """Fixations as a tracker's software found them, or samples, in file order; ``(n,)`` arrays.

    Attributes
    ----------
    begin_s, end_s : ndarray
        Seconds of the tracker's own clock; a sample ends when it begins.
    x, y : ndarray
        In what `frame` says, origin top left; NaN where samples lost the eye.
    screen_px : tuple, optional
        Width and height of the screen, where the file tells them.
    zero_s : float, optional
        The clock where the file says that the stimulus or the sound began.
    rows : RowsOfFile
        For messages.
    notes : mapping
        Counts of what was left out, by `errors.NOTES`.
    """

    begin_s: FloatArray
    end_s: FloatArray
    x: FloatArray
    y: FloatArray
    frame: str
    screen_px: tuple[float, float] | None = None
    zero_s: float | None = None
    rows: RowsOfFile = RowsOfFile()
    notes: Mapping[str, int] = MappingProxyType({})


class Tracker(Protocol):
    """What a module of this folder has.

    Attributes
    ----------
    FORMATS : tuple of str
        Names in ``dataset.toml``.
    EXPECTED : str
        What is in such a file, in words, for who gave another.
    """

    FORMATS: tuple[str, ...]
    EXPECTED: str

    def fixations(self, data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
        """Read the fixations of an export."""

    def samples(self, data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
        """Read its samples, one a row."""

    def looks_like(self, data: bytes) -> bool:
        """Tell, by its beginning, a file that is surely one of these."""


@cache
def trackers() -> dict[str, Tracker]:
    """Find the module of every format, by the name that ``dataset.toml`` has for it."""
    modules: list[Any] = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {name: module for module in modules for name in module.FORMATS}


def tracked_gaze(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read the fixations or samples of a tracker's export.

    Raises
    ------
    BadInputError
        If it cannot be read; of a file of another kind, saying what kind it seems to be.
    """
    known = trackers()
    tracker = known[gaze_file.format]
    try:
        if gaze_file.from_ == "samples":
            gaze = tracker.samples(data, path, gaze_file)
        else:
            gaze = tracker.fixations(data, path, gaze_file)
    except BadInputError as error:
        others = [name for name, other in known.items() if other.looks_like(data)]
        is_named = gaze_file.format in others or (gaze_file.format == "csv" and not others)
        if error.reason not in _OF_ANOTHER_KIND or is_named:
            raise
        seems = f"looks like {' or '.join(map(repr, others))}" if others else "like no known format"
        what = f"{path} is no {gaze_file.format!r} file ({tracker.EXPECTED}), but {seems}"
        raise BadInputError("wrong_format", path, what) from None
    if gaze_file.frame:
        if gaze_file.frame.rpartition("_")[2] != gaze.frame.rpartition("_")[2]:
            what = f"{path} has {gaze.frame}, and dataset.toml says that it has {gaze_file.frame}"
            raise BadInputError("wrong_format", path, what)
        gaze = gaze._replace(frame=gaze_file.frame)
    if not gaze.begin_s.size:
        what = f"{path} has no {gaze_file.from_.removesuffix('s')}"
        raise BadInputError("no_fixations", path, what)
    far = np.flatnonzero(np.maximum(np.abs(gaze.x), np.abs(gaze.y)) > _FARTHEST)
    if far.size:
        at = int(far[0])
        what = f"{path}, {gaze.rows.place(at)} lies at {gaze.x[at]:g}, {gaze.y[at]:g}: on no screen"
        raise BadInputError("bad_number", path, what)
    _check_unit(gaze, path)
    return gaze


def _check_unit(gaze: TrackedGaze, path: str) -> None:
    """Refuse shares that are told to be pixels, and pixels told to be shares."""
    reach = np.maximum(np.abs(gaze.x), np.abs(gaze.y))
    reach = reach[np.isfinite(reach)]
    if len(reach) < _ENOUGH:
        return
    is_px = gaze.frame.endswith("px")
    if (is_px and reach.max() < _SHARES) or (not is_px and np.median(reach) > _SHARES):
        what = f"{path} is told to have {gaze.frame}, but half of it lies beyond {_SHARES:g}"
        if is_px:
            what = f"{path} is told to have {gaze.frame}, but all of it lies within {_SHARES:g}"
        raise BadInputError("wrong_format", path, what)


# -- what several of them need --------------------------------------------------------------------


class EyeFixation(NamedTuple):
    """A line of a file in which each eye has its own."""

    eye: str
    begin: float
    end: float
    x: float
    y: float
    line: int


def of_one_eye(
    found: Sequence[EyeFixation], wanted: str, path: str
) -> tuple[list[EyeFixation], dict[str, int]]:
    """Take one eye's fixations, of that with most time in them unless one is wanted.

    The other eye looks at the same place at the same time: it would double the gaze.
    """
    letters = {eye[0].upper(): eye for eye in EYES}
    time: dict[str, float] = {}
    for one in found:
        eye = letters[one.eye]
        time[eye] = time.get(eye, 0.0) + one.end - one.begin
    if wanted and found and wanted not in time:
        raise BadInputError("no_fixations", path, f"{path} has no fixation of the {wanted} eye")
    chosen = wanted or max(sorted(time), key=time.__getitem__, default="")
    kept = [one for one in found if letters[one.eye] == chosen]
    return kept, {"fixations_of_the_other_eye": len(found) - len(kept)}


def lines_of_file(path: str, found: Sequence[EyeFixation], lines: Sequence[str]) -> RowsOfFile:
    """Name fixations by their lines of a file, which may be cut if its last line does not end."""
    of_each = [one.line for one in found]
    return RowsOfFile(path, lambda at: f"line {of_each[at]}", lines[-1][-1] not in "\r\n")


def readable(data: bytes) -> bytes:
    """Replace what is no UTF-8: names of people and stimuli may be anything, numbers are ASCII."""
    is_wide, is_packed = data[:2] in _UTF_16, data[:2] in (b"\x1f\x8b", b"PK")
    return data if is_wide or is_packed else data.decode(errors="replace").encode()


def head_of(data: bytes) -> list[str]:
    """Decode the first lines of a file, whatever it is, to see what it may be."""
    head = data[:_HEAD_BYTES]
    text = head.decode("utf-16" if head[:2] in _UTF_16 else "utf-8-sig", errors="replace")
    return text.splitlines()


def names_in_header(data: bytes, separators: str) -> set[str]:
    """Read the names in a table's first line, whatever the file is."""
    return {name.strip(' "') for name in re.split(f"[{separators}]", "".join(head_of(data)[:1]))}
