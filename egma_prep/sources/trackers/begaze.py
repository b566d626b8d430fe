"""SMI BeGaze's text exports: events, or samples that say of which event they are; microseconds."""

import csv
import math
import re
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

FORMATS = ("begaze",)
EXPECTED = "lines of [BeGaze], then 'Fixation L' of events or 'Time' and 'Type' of samples"

_US = 1e-6
_EVENTS = "Table Header for Fixations:"
_PLACES = ("Trial", "Start", "End", "Location X", "Location Y")
_SCREEN = re.compile(r"(?:## )?(?:Calibration Area|Stimulus Dimension \[px\]):\s+(\d+)\s+(\d+)")
_STIMULUS = re.compile(r"(?:## )?Stimulus:\s+(.+)")
_MESSAGE = "# Message:"
_MOST_PX = 100_000


def looks_like(data: bytes) -> bool:
    """Look for BeGaze's preamble, or its header of fixations."""
    head = head_of(data)
    return any(line.strip() in ("[BeGaze]", "## [BeGaze]", _EVENTS) for line in head)


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read the fixations of one eye."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    header = next((at for at, line in enumerate(lines) if _EVENTS in line), None)
    if header is not None:
        found, trials = _of_events(lines, header + 1, path)
    else:
        found, trials = _of_samples(lines, path)
    seen = [one for one in found if not math.isnan(one.x + one.y)]
    kept, notes = of_one_eye(seen, gaze_file.eye, path)
    if not kept:
        raise BadInputError("no_fixations", path, f"{path} has no fixation")
    notes["rows_that_are_no_fixations"] = len(found) - len(seen)
    notes["several_trials"] = max(len(trials) - 1, 0)
    return _of_screen(kept, lines, path)._replace(notes=notes)


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read one eye's samples: the wanted one's, or that which is seen more often."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    names, rows = _sample_rows(lines, path)
    eyes = {eye: (f"{eye} POR X [px]", f"{eye} POR Y [px]") for eye in "LR"}
    eyes = {eye: place for eye, place in eyes.items() if all(name in names for name in place)}
    wanted = gaze_file.eye[:1].upper()
    if not eyes or (wanted and wanted not in eyes):
        eye = wanted or "L"
        raise BadInputError("missing_column", path, f"{path} has no column '{eye} POR X [px]'")
    found: dict[str, list[EyeFixation]] = {eye: [] for eye in eyes}
    for at, cells in rows:
        time = number(cells[0], path, f"{path}, line {at}")
        for eye, place in eyes.items():
            x, y = (number(cells[names.index(n)], path, f"{path}, line {at}") for n in place)
            x, y = (x, y) if x or y else (math.nan, math.nan)  # so BeGaze writes a lost eye
            found[eye].append(EyeFixation(eye, time, time, x, y, at))
    seen = {eye: sum(one.x == one.x for one in of_eye) for eye, of_eye in found.items()}
    chosen = wanted or max(sorted(seen), key=seen.__getitem__)
    if not found[chosen]:
        raise BadInputError("no_fixations", path, f"{path} has no sample")
    return _of_screen(found[chosen], lines, path)


def _of_screen(kept: list[EyeFixation], lines: list[str], path: str) -> TrackedGaze:
    begin_us, end_us, x, y = np.array([one[1:5] for one in kept]).T
    return TrackedGaze(
        begin_us * _US,
        end_us * _US,
        x,
        y,
        "screen_px",
        screen_px=_screen(lines),
        zero_s=_zero_s(lines),
        rows=lines_of_file(path, kept, lines),
    )


def _of_events(lines: list[str], header: int, path: str) -> tuple[list[EyeFixation], set[str]]:
    """Read rows ``Fixation L``, whose columns stand in the header of fixations."""
    names, separator = _header(lines, header, path)
    missing = [name for name in _PLACES if name not in names]
    if missing:
        raise BadInputError("missing_column", path, f"{path} has no column {missing[0]!r}")
    places = [names.index(name) for name in _PLACES]
    found: list[EyeFixation] = []
    trials = set[str]()
    for at, cells in _cells(lines, header + 1, separator, path):
        kind, _, eye = cells[0].strip().partition(" ")
        if kind != "Fixation":
            continue
        if len(cells) < len(names) or eye not in ("L", "R"):
            what = f"{path}, line {at} is {lines[at - 1][:60].strip()!r}, no whole fixation"
            raise BadInputError("bad_csv", path, what)
        trial, *told = (cells[place].strip() for place in places)
        begin, end, x, y = (number(cell, path, f"{path}, line {at}") for cell in told)
        found.append(EyeFixation(eye, begin, end, x, y, at))
        trials.add(trial)
    return found, trials


def _of_samples(lines: list[str], path: str) -> tuple[list[EyeFixation], set[str]]:
    """Join the samples of which the file says that they are one fixation, eye by eye."""
    names, rows = _sample_rows(lines, path)
    eyes = {}
    for eye in "LR":
        label = next((one for one in (f"{eye} Event Info", "Info") if one in names), None)
        columns = (label, f"{eye} POR X [px]", f"{eye} POR Y [px]")
        if all(column in names for column in columns):
            eyes[eye] = [names.index(str(column)) for column in columns]
    if not eyes:
        what = f"{path} says of no eye's samples of which event they are (Event Info, POR X [px])"
        raise BadInputError("missing_column", path, what)
    found: list[EyeFixation] = []
    trials, trial_at = set[str](), names.index("Trial") if "Trial" in names else None
    runs: dict[str, list[EyeFixation]] = {eye: [] for eye in eyes}
    for at, cells in rows:
        time = number(cells[0], path, f"{path}, line {at}")
        for eye, (label_at, *place) in eyes.items():
            if cells[label_at].strip() == "Fixation":
                x, y = (number(cells[one], path, f"{path}, line {at}") for one in place)
                runs[eye].append(EyeFixation(eye, time, time, x, y, at))
            elif runs[eye]:
                found.append(_joined(runs[eye]))
                runs[eye] = []
        if trial_at is not None:
            trials.add(cells[trial_at].strip())
    found += [_joined(run) for run in runs.values() if run]
    return sorted(found, key=lambda one: one.line), trials


def _sample_rows(lines: list[str], path: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of samples' columns, and the numbers and cells of their lines."""
    header = next((at for at, line in enumerate(lines) if line.startswith("Time\tType\t")), None)
    if header is None:
        raise BadInputError("missing_column", path, f"{path} has no header of fixations or samples")
    names, separator = _header(lines, header, path)
    rows = [row for row in _cells(lines, header + 1, separator, path) if row[1][1:2] == ["SMP"]]
    for at, cells in rows:
        if len(cells) != len(names):
            what = f"{path}, line {at} has {len(cells)} cells for {len(names)} columns"
            raise BadInputError("bad_csv", path, what)
    return names, rows


def _joined(run: list[EyeFixation]) -> EyeFixation:
    x, y = (float(np.mean([getattr(one, axis) for one in run])) for axis in "xy")
    return run[0]._replace(end=run[-1].end, x=x, y=y)


def _header(lines: list[str], at: int, path: str) -> tuple[list[str], str]:
    if at >= len(lines):
        raise BadInputError("missing_column", path, f"{path} ends before its header")
    separator = "\t" if "\t" in lines[at] else ","
    return [name.strip() for name in lines[at].rstrip().split(separator)], separator


def _cells(
    lines: list[str], first: int, separator: str, path: str
) -> Iterator[tuple[int, list[str]]]:
    """Yield the numbers of lines, from 1, and their cells."""
    for at in range(first, len(lines)):
        try:
            rows = list(csv.reader([lines[at].rstrip("\r\n")], delimiter=separator))
        except csv.Error as error:
            what = f"{path}, line {at + 1} is no CSV ({error})"
            raise BadInputError("bad_csv", path, what) from None
        if rows and rows[0]:
            yield at + 1, rows[0]


def _screen(lines: list[str]) -> tuple[float, float] | None:
    for told in filter(None, map(_SCREEN.match, lines)):
        width, height = float(told[1]), float(told[2])
        if 0 < width < _MOST_PX and 0 < height < _MOST_PX:
            return width, height
    return None


def _zero_s(lines: list[str]) -> float | None:
    """Tell when the stimulus that the preamble names was shown: a message has its name then."""
    named = next((told[1].strip().lower() for told in map(_STIMULUS.match, lines) if told), None)
    for line in lines if named else ():
        before, found, message = line.partition(_MESSAGE)
        cells = before.replace("\t", ",").split(",")
        if (
            found
            and message.strip().lower() == named
            and cells[0] == "UserEvent"
            and len(cells) > 3
        ):
            return float(cells[3]) * _US if cells[3].strip().isdecimal() else None
    return None
