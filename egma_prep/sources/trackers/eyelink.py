"""EyeLink's ASC, as ``edf2asc`` writes it: fixations are EFIX lines, in milliseconds and pixels."""

import math
import re
from collections import Counter
from collections.abc import Iterator

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.trackers import (
    EyeFixation,
    GazeFile,
    TrackedGaze,
    head_of,
    lines_of_file,
    of_one_eye,
    readable,
)
from egma_prep.sources.values import decoded, number

FORMATS = ("eyelink",)
EXPECTED = "lines of EFIX and MSG in an .asc file, as edf2asc makes it of an .edf file"

_MISSING = "."  # edf2asc writes what the tracker lost so
_MS = 1e-3
_SCREEN = re.compile(r"MSG\s+\S+\s+(DISPLAY|GAZE)_COORDS\s*=?((?:\s+-?[\d.]+){4})\s*$")
# MSG <time> [<ms since the event>] SYNCTIME ..., but not SYNCTIME_READING of an experiment's own
_SYNCTIME = re.compile(r"MSG\s+(\d+(?:\.\d+)?)(?:\s+(-?\d+))?\s+SYNCTIME(?:\s|$)")
_TRIAL = re.compile(r"MSG\s+\S+\s+TRIALID\b")
_ASC = re.compile(r"\*\* (CONVERTED FROM|TYPE: EDF_FILE)|(SFIX|EFIX) [LR]\s|MSG\s+\d+\S* ")
_ENOUGH = 3


def looks_like(data: bytes) -> bool:
    """Look for edf2asc's preamble, messages and events."""
    return sum(_ASC.match(line) is not None for line in head_of(data)) >= _ENOUGH


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read the fixations of one eye; blinks lie between them."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    _check_frame(lines, path)
    found = list(_efix(lines, path))
    seen = [one for one in found if not math.isnan(one.x + one.y)]
    kept, notes = of_one_eye(seen, gaze_file.eye, path)
    if not kept:
        if looks_like(data) and any(line[:1].isdecimal() for line in lines):
            what = f'{path} has samples, and no line EFIX: from = "samples" finds fixations'
            raise BadInputError("wrong_format", path, what)
        raise BadInputError("no_fixations", path, f"{path} has no line EFIX of a fixation")
    notes["rows_that_are_no_fixations"] = len(found) - len(seen)
    notes["several_trials"] = max(sum(map(bool, map(_TRIAL.match, lines))) - 1, 0)
    return _of_screen(kept, lines, path)._replace(notes=notes)


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read one eye's samples: the wanted one's, or that which is seen more often."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    _check_frame(lines, path)
    found = list(_samples(lines, path))
    seen = Counter(one.eye for one in found if not math.isnan(one.x + one.y))
    eye = gaze_file.eye[:1].upper() or max(sorted(seen), key=seen.__getitem__, default="")
    kept = [one for one in found if one.eye == eye]
    if not kept:
        what = f"{path} has no sample" + f" of the {gaze_file.eye} eye" * bool(gaze_file.eye)
        raise BadInputError("no_fixations", path, what)
    return _of_screen(kept, lines, path)


def _of_screen(kept: list[EyeFixation], lines: list[str], path: str) -> TrackedGaze:
    begin_s, end_s, x, y = np.array([one[1:5] for one in kept]).T
    left, top, *screen_px = _screen(lines) or (0.0, 0.0)
    return TrackedGaze(
        begin_s * _MS,
        end_s * _MS,
        x - left,
        y - top,
        "screen_px",
        screen_px=(screen_px[0], screen_px[1]) if screen_px else None,
        zero_s=_zero_s(lines),
        rows=lines_of_file(path, kept, lines),
    )


def _samples(lines: list[str], path: str) -> Iterator[EyeFixation]:
    """Read ``time x y pupil`` of the eyes that the block's START names, the left one first."""
    eyes, before = ["L"], -math.inf
    for at, line in enumerate(lines, 1):
        cells = line.split()
        if cells[:1] in (["START"], ["SAMPLES"]):
            eyes = [eye for eye, name in (("L", "LEFT"), ("R", "RIGHT")) if name in cells] or eyes
        if not line[:1].isdecimal():
            continue
        if len(cells) < 1 + 3 * len(eyes):
            raise BadInputError("bad_csv", path, f"{path}, line {at} is no whole sample")
        told = [
            math.nan if cell == _MISSING else number(cell, path, f"{path}, line {at}")
            for cell in cells[: 3 * len(eyes)]
        ]
        if math.isnan(told[0]):
            raise BadInputError("bad_number", path, f"{path}, line {at} has no time")
        # Of 2,000 samples a second two each have one time, and the second is half a ms later.
        time = told[0] + 0.5 if told[0] == before else told[0]
        before = told[0]
        for number_of_eye, eye in enumerate(eyes):
            x, y = told[1 + 3 * number_of_eye : 3 + 3 * number_of_eye]
            yield EyeFixation(eye, time, time, x, y, at)


def _efix(lines: list[str], path: str) -> Iterator[EyeFixation]:
    """Read ``EFIX eye begin end duration x y pupil``; positions are NaN where the eye was lost."""
    for at, line in enumerate(lines, 1):
        if not line.startswith("EFIX"):
            continue
        cells = line.split()
        if len(cells) < 8 or cells[1] not in ("L", "R"):
            what = f"{path}, line {at} is {line[:60].strip()!r}, no whole fixation"
            raise BadInputError("bad_csv", path, what)
        begin, end, x, y = (
            math.nan if cell == _MISSING else number(cell, path, f"{path}, line {at}")
            for cell in (*cells[2:4], *cells[5:7])
        )
        if math.isnan(begin + end):
            raise BadInputError("bad_number", path, f"{path}, line {at} has no time")
        yield EyeFixation(cells[1], begin, end, x, y, at)


def _check_frame(lines: list[str], path: str) -> None:
    """Refuse positions that are angles of the head's frame, not pixels."""
    for line in lines:
        if line.startswith(("EVENTS", "SAMPLES")) and line.split()[1:2] in (["HREF"], ["RAW"]):
            what = f"{path} has {line.split()[1]} positions, not those of gaze on the screen"
            raise BadInputError("wrong_format", path, what)


def _screen(lines: list[str]) -> tuple[float, float, float, float] | None:
    """Tell left, top, width and height of the display, or else of what gaze counts in.

    The file has the last pixel's number, but of some experiments the size: screens are even.
    """
    found: dict[str, list[float]] = {}
    for line in lines:
        if line.startswith("MSG") and (told := _SCREEN.match(line)):
            try:
                found.setdefault(told[1], list(map(float, told[2].split())))
            except ValueError:  # 0.0.1
                continue
    for name in ("DISPLAY", "GAZE"):
        if name in found:
            x0, y0, x1, y1 = found[name]
            width, height = (
                2.0 * ((last - first + 1) // 2) for first, last in ((x0, x1), (y0, y1))
            )
            if width > 0 and height > 0:
                return x0, y0, width, height
    return None


def _zero_s(lines: list[str]) -> float | None:
    """Tell when the first stimulus was shown."""
    for line in lines:
        if line.startswith("MSG") and (told := _SYNCTIME.match(line)):
            return (float(told[1]) - float(told[2] or 0)) * _MS
    return None
