"""Tobii Pro Lab's and Studio's TSV: a row a fixation or a row a sample, in pixels of the screen."""

import re
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.reading import FloatArray, RowsOfFile
from egma_prep.sources.trackers import SECONDS, GazeFile, TrackedGaze, head_of, readable
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
_PROSE = 200  # lines before the header; Studio writes some 20


def looks_like(data: bytes) -> bool:
    """Look for a header of fixations."""
    return _header_at(head_of(data)) is not None


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read each fixation once, where the software mapped it to the screen."""
    lines = decoded(readable(data), path).splitlines()
    header = _header_at(lines[:_PROSE])
    if header is None:
        raise BadInputError("missing_column", path, f"{path} has no header of Tobii's fixations")
    table = _without_decimal_commas(parse_csv("\n".join([*lines[header:], ""]).encode(), path, ()))
    begin, lasted, x, y = (_name(table, names) for names in (_BEGIN, _DURATION, _X, _Y))
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
        gaze_file.frame or _FRAMES.get(_folded_unit(x), "screen_px"),
        screen_px=_screen(lines[:header]),
        rows=RowsOfFile.of(table, place),
        notes=notes,
    )


def _rows_of_fixations(table: Table) -> list[list[int]]:
    """Group the rows, in file order, of which the software says that they are one fixation.

    Rows of other sensors and events lie between them. Without numbers, what is said of a fixation
    is its own.
    """
    kinds, numbers = _named(table, _TYPE), _named(table, _INDEX)
    same = numbers[:1] or [_name(table, names) for names in (_DURATION, _X, _Y)]
    found: dict[object, list[int]] = {}
    run = 0
    for row in range(len(table)):
        kind = table.columns[kinds[0]][row].strip().lower() if kinds else "fixation"
        key = tuple(table.columns[name][row].strip() for name in same)
        if kind != "fixation" or is_blank("".join(key)):
            run += kind not in ("", "fixation")
            continue
        found.setdefault(key if numbers else (run, *key), []).append(row)
    return list(found.values())


def _time_unit(column: str, begins: FloatArray, lasted_ms: FloatArray) -> str:
    """Tell the clock's unit, by the header or by durations, which are milliseconds in all."""
    if told := _UNITS.get(_folded_unit(column)):
        return told
    step, known = np.abs(np.diff(begins)), lasted_ms[:-1] > 0
    if not known.any():
        return "ms"
    return "us" if np.median(step[known] / lasted_ms[:-1][known]) > _THOUSANDFOLD else "ms"


def _header_at(lines: Iterable[str]) -> int | None:
    for at, line in enumerate(lines):
        names = {_folded(cell) for cell in re.split(r"[\t;,]", line)}
        if all(names.intersection(some) for some in (_BEGIN, _DURATION, _X, _Y)):
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
