"""Tobii Pro Lab's and Studio's TSV: a row a fixation or a row a sample, in pixels of the screen."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.reading import FloatArray, RowsOfFile
from egma_prep.sources.trackers import (
    EYES,
    SECONDS,
    GazeFile,
    TrackedGaze,
    head_of,
    readable,
)
from egma_prep.sources.values import decoded, is_blank

FORMATS = ("tobii",)
EXPECTED = (
    "columns Recording timestamp, Gaze event duration, Fixation point X and Y, or those of Studio"
)

# Names of Pro Lab and Studio, without blanks, capitals and units, the better first. Those of the
# media (MCS) are pixels of the picture that was shown.
_BEGIN = ("recordingtimestamp", "timestamp")
_DURATION = (
    "gazeeventduration", "eyemovementeventduration", "fixationduration",
)  # fmt: skip
_TYPE = ("eyemovementtype", "gazeeventtype")
_INDEX = ("eyemovementtypeindex", "fixationindex")
_X, _Y = ("fixationpointx", "mappedfixationpointx"), ("fixationpointy", "mappedfixationpointy")
_OF_FIXATIONS = (_BEGIN, _DURATION, _X, _Y)
_MEDIA = ("presentedstimulusname", "presentedmedianame", "medianame")
_UNIT = re.compile(r"\s*[\[(]([^\])]*)[\])]\s*$")
_UNITS = {"ms": "ms", "μs": "us", "µs": "us", "us": "us", "s": "s"}
_FRAMES = {"": "screen_px", "dacspx": "screen_px", "adcspx": "screen_px", "px": "screen_px",
           "mcspx": "image_px", "mcsnorm": "image_share"}  # fmt: skip
_RESOLUTION = re.compile(r"Screen resolution:\s*(\d+)\s*x\s*(\d+)")
_DECIMAL_COMMA = re.compile(r"-?\d*,\d+")
_MS = 1e-3
# A fixation's next one begins 1.1 to 3 durations later, in thousandths a thousand times that.
_THOUSANDFOLD = 50
# Thousandths between two samples: 33 at most, millionths 800 at least.
_LONG_STEP = 200
_PROSE = 200  # lines before the header; Studio writes some 20


def looks_like(data: bytes) -> bool:
    """Look for a header of fixations or of samples."""
    head = head_of(data)
    return _header_at(head, _OF_FIXATIONS) is not None or _sampled(head) is not None


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read each fixation once, where the software mapped it to the screen."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    header = _header_at(lines[:_PROSE], _OF_FIXATIONS)
    if header is None:
        what = f"{path} has no header of Tobii's fixations"
        if _sampled(lines[:_PROSE]):
            what = f'{path} has samples, and fixations of no kind: from = "samples" finds them'
            raise BadInputError("wrong_format", path, what)
        raise BadInputError("missing_column", path, what)
    table = _table(lines[header:], path)
    begin, lasted, x, y = (_name(table, names) for names in (_BEGIN, _DURATION, _X, _Y))
    if _folded_unit(x) != _folded_unit(y):
        raise BadInputError("missing_column", path, f"{path} has {x!r}, but no y of that frame")
    rows_of = _rows_of_fixations(table)
    placed = [
        [row for row in rows if not is_blank(table.columns[x][row] + table.columns[y][row])]
        for rows in rows_of
    ]
    seen = [(rows[0], at[0]) for rows, at in zip(rows_of, placed, strict=True) if at]
    first, place = [one for one, _ in seen], [one for _, one in seen]
    begins, lasted_ms = table.numbers(begin, first), table.numbers(lasted, first)
    begin_s = begins * SECONDS[_time_unit(begin, begins, lasted_ms)]
    media = next((table.columns[name] for name in _named(table, _MEDIA)), [""] * len(table))
    notes = {
        "rows_that_are_no_fixations": len(table) - sum(map(len, placed)),
        "fixation_rows_twice": sum(map(len, placed)) - len(seen),
        "several_trials": max(len({media[row].strip() for row in place} - {""}) - 1, 0),
    }
    return TrackedGaze(
        begin_s,
        begin_s + lasted_ms * _MS,
        table.numbers(x, place),
        table.numbers(y, place),
        _FRAMES.get(_folded_unit(x), "screen_px"),
        screen_px=_screen(lines[:header]),
        rows=RowsOfFile.of(table, place),
        notes=notes,
    )


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read both eyes' mean, or the one that is seen or wanted, sample by sample."""
    lines = decoded(readable(data), path).splitlines(keepends=True)
    found = _sampled(lines[:_PROSE])
    if found is None:
        raise BadInputError("missing_column", path, f"{path} has no header of Tobii's samples")
    header, kind = found
    table = _table(lines[header:], path)
    sensor = next((name for name in table.columns if _folded(name) == "sensor"), None)
    rows = [
        row
        for row in range(len(table))
        if sensor is None or _folded(table.columns[sensor][row]) == "eyetracker"
    ]
    clock = _name(table, kind.clock)
    times = table.numbers(clock, rows)
    unit = _UNITS.get(_folded_unit(clock)) or _unit_of_steps(times)
    eyes = [
        _eye(table, rows, *names)
        for side, names in kind.eyes.items()
        if not gaze_file.eye or side in ("", gaze_file.eye)
    ]
    place = np.stack(eyes)  # (eyes, 2, n)
    seen = np.isfinite(place).all(axis=1, keepdims=True)
    count = seen.sum(axis=0)
    with np.errstate(invalid="ignore"):
        x, y = np.where(seen, place, 0).sum(axis=0) / np.where(count, count, np.nan)
    time_s = times * SECONDS[unit]
    frame = kind.frame
    if not frame:
        frame = _FRAMES.get(_folded_unit(_name(table, kind.eyes[""][:1])), "screen_px")
    return TrackedGaze(
        time_s,
        time_s,
        x,
        y,
        frame,
        screen_px=_screen(lines[:header]),
        rows=RowsOfFile.of(table, rows),
    )


def _eye(table: Table, rows: list[int], x: str, y: str, valid: str = "") -> FloatArray:
    """Read an eye's positions ``(2, n)``; NaN where its validity says that it was lost."""
    across, down = (_named(table, (name,)) for name in (x, y))
    if not down:  # the SDK writes a pair into one cell
        pairs = [cell.strip("() ").split(",") for cell in table.columns[across[0]]]
        if any(len(pair) != 2 for pair in pairs):
            raise BadInputError("bad_csv", table.path, f"{table.path} has no pairs in {across[0]}")
        columns = {"x": [pair[0] for pair in pairs], "y": [pair[1] for pair in pairs]}
        pair = replace(table, columns=columns)
        place = np.stack([pair.numbers_or_nan("x"), pair.numbers_or_nan("y")])
    else:
        place = np.stack([table.numbers_or_nan(name) for name in (across[0], down[0])])
    for column in _named(table, (valid,)):
        is_lost = [cell.strip().lower() in _LOST[valid] for cell in table.columns[column]]
        place = np.where(is_lost, np.nan, place)
    return place[:, rows]


def _unit_of_steps(times: FloatArray) -> str:
    """Tell the unit of a clock that 30 to 1,200 samples a second follow."""
    steps = np.diff(times)
    return "us" if (steps > 0).any() and np.median(steps[steps > 0]) > _LONG_STEP else "ms"


class _Samples(NamedTuple):
    """Columns of samples: a clock's, and of each eye x, y (of a pair, x alone) and validity."""

    clock: tuple[str, ...]
    eyes: dict[str, tuple[str, ...]]
    frame: str = ""


_KINDS = (
    _Samples(_BEGIN, {"": ("gazepointx", "gazepointy")}),  # Pro Lab and Studio
    _Samples(
        ("time",),  # of the SDK for Matlab; validity 0 is sure, 4 is lost
        {
            "left": ("lgazepos2dx", "lgazepos2dy", "lvalidity"),
            "right": ("rgazepos2dx", "rgazepos2dy", "rvalidity"),
        },
        "screen_share",
    ),
    _Samples(
        ("device_time_stamp",),  # of the SDK for Python; validity 1 is seen
        {
            side: (
                f"{side}_gaze_point_on_display_area",
                "",
                f"{side}_gaze_point_validity",
            )
            for side in EYES
        },
        "screen_share",
    ),
)
_LOST = {
    "": (),
    "lvalidity": ("2", "3", "4"),
    "rvalidity": ("2", "3", "4"),
    "left_gaze_point_validity": ("0", "0.0", "false"),
    "right_gaze_point_validity": ("0", "0.0", "false"),
}


def _sampled(lines: list[str]) -> tuple[int, _Samples] | None:
    """Find the header of samples, and what kind they are."""
    for kind in _KINDS:
        needed = [kind.clock, *((name,) for eye in kind.eyes.values() for name in eye[:2] if name)]
        if (at := _header_at(lines, needed)) is not None:
            return at, kind
    return None


def _table(lines: list[str], path: str) -> Table:
    return _without_decimal_commas(parse_csv("".join(lines).encode(), path, ()))


def _rows_of_fixations(table: Table) -> list[list[int]]:
    """Group the rows, in file order, of which the software says that they are one fixation.

    Rows of other sensors and events lie between them. Numbers begin again with another recording;
    without them, a fixation goes on until another event comes, or one of other values.
    """
    kinds, numbers = _named(table, _TYPE), _named(table, _INDEX)
    same = numbers[:1] or [_name(table, names) for names in (_DURATION, _X, _Y)]
    found: list[list[int]] = []
    latest: tuple[str, ...] | None = None
    for row in range(len(table)):
        kind = table.columns[kinds[0]][row].strip().lower() if kinds else "fixation"
        key = tuple(table.columns[name][row].strip() for name in same)
        if kind != "fixation" or is_blank("".join(key)):
            if not numbers and kind not in ("", "fixation"):
                latest = None
        elif key == latest:
            found[-1].append(row)
        else:
            found.append([row])
            latest = key
    return found


def _time_unit(column: str, begins: FloatArray, lasted_ms: FloatArray) -> str:
    """Tell the clock's unit, by the header or by durations, which are milliseconds in all."""
    if told := _UNITS.get(_folded_unit(column)):
        return told
    step, known = np.abs(np.diff(begins)), lasted_ms[:-1] > 0
    if not known.any():
        return "ms"
    return "us" if np.median(step[known] / lasted_ms[:-1][known]) > _THOUSANDFOLD else "ms"


def _header_at(lines: Iterable[str], needed: Sequence[tuple[str, ...]]) -> int | None:
    """Find the line that has one of each group of names."""
    for at, line in enumerate(lines):
        names = {_folded(cell) for cell in re.split(r"[\t;,]", line)}
        if all(names.intersection(some) for some in needed):
            return at
    return None


def _folded(name: str) -> str:
    """Take blanks, capitals and a unit off a column's name."""
    return re.sub(r"\s", "", _UNIT.sub("", name.strip(' "\ufeff'))).lower()


def _folded_unit(name: str) -> str:
    told = _UNIT.search(name)
    return re.sub(r"\s", "", told[1]).lower() if told else ""


def _named(table: Table, names: tuple[str, ...]) -> list[str]:
    """List the columns of these names, the better first; of the screen before the media's."""
    found = [column for column in table.columns if _folded(column) in names]
    return sorted(
        found, key=lambda one: (_folded_unit(one).startswith("mcs"), names.index(_folded(one)))
    )


def _name(table: Table, names: tuple[str, ...]) -> str:
    found = _named(table, names)
    if not found:
        raise BadInputError("missing_column", table.path, f"{table.path} has no column {names[0]}")
    return found[0]


def _without_decimal_commas(table: Table) -> Table:
    """Write numbers with a point: Tobii's have no thousands' commas, and a header no other comma.

    Where commas part the columns, a cell with one was quoted and is a number with one all the same.
    """
    return replace(
        table,
        columns={
            name: [
                cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell.strip()) else cell
                for cell in cells
            ]
            for name, cells in table.columns.items()
        },
    )


def _screen(prose: list[str]) -> tuple[float, float] | None:
    found = next(filter(None, map(_RESOLUTION.match, prose)), None)
    size = (float(found[1]), float(found[2])) if found else (0.0, 0.0)
    return size if min(size) > 0 else None
