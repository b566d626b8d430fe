"""Pupil Labs Core's ``fixations.csv``, of the scene or on a surface: shares, origin bottom left."""

import numpy as np

from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.reading import RowsOfFile
from egma_prep.sources.trackers import GazeFile, TrackedGaze, names_in_header, readable
from egma_prep.sources.values import flag

FORMATS = ("pupil",)
EXPECTED = "columns start_timestamp, duration, norm_pos_x and norm_pos_y"

_NEEDED = ("start_timestamp", "duration", "norm_pos_x", "norm_pos_y")
_IDS = ("id", "fixation_id")
_ON_SURFACE = "on_surf"
_MS = 1e-3
_SAMPLED = (("gaze_timestamp", "norm_pos_x", "norm_pos_y"), ("gaze_timestamp", "x_norm", "y_norm"))
_CONFIDENCE, _SURE = "confidence", 0.6  # below it Pupil Labs calls its data useless


def looks_like(data: bytes) -> bool:
    """Look for the columns of fixations."""
    names = names_in_header(data, ",;")
    return any(names.issuperset(some) for some in (_NEEDED, *_SAMPLED))


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read each fixation once: on a surface it has a row a frame of the scene's video.

    Its place is the mean of those rows that are on the surface.
    """
    table = parse_csv(readable(data), path, _NEEDED, (*_NEEDED, *_IDS, _ON_SURFACE))
    on = list(range(len(table)))
    is_mapped = _ON_SURFACE in table.columns
    if is_mapped:
        cells = table.columns[_ON_SURFACE]
        on = [row for row in on if flag(cells[row], path, table.place(row, _ON_SURFACE))]
    begin_s, lasted_ms, x, y = (table.numbers(name, on) for name in _NEEDED)
    ids = next((table.columns[name] for name in _IDS if name in table.columns), None)
    of_fixation: dict[tuple[str, float], list[int]] = {}
    for at, row in enumerate(on):  # numbers begin again with another recording
        of_fixation.setdefault((ids[row].strip() if ids else "", begin_s[at]), []).append(at)
    first = np.array([ats[0] for ats in of_fixation.values()], dtype=np.intp)
    x_share = np.array([x[ats].mean() for ats in of_fixation.values()])
    y_share = np.array([1 - y[ats].mean() for ats in of_fixation.values()])
    begin_s = begin_s[first]
    notes = {
        "rows_that_are_no_fixations": len(table) - len(on),
        "fixation_rows_twice": len(on) - len(first),
        "gaze_of_the_scene": int(not is_mapped and not gaze_file.frame),
    }
    rows = RowsOfFile.of(table, [on[at] for at in first])
    return TrackedGaze(
        begin_s,
        begin_s + lasted_ms[first] * _MS,
        x_share,
        y_share,
        "screen_share",
        rows=rows,
        notes=notes,
    )


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read ``gaze_positions.csv``, of the scene or on a surface; doubtful samples are lost."""
    table = parse_csv(readable(data), path, ())
    is_mapped = _ON_SURFACE in table.columns
    names = _SAMPLED[is_mapped]
    table.require((*names, _CONFIDENCE))
    time_s, x, y = (table.numbers(name) for name in names)
    lost = table.numbers(_CONFIDENCE) < _SURE
    if is_mapped:
        cells = table.columns[_ON_SURFACE]
        on = [flag(cell, path, table.place(row, _ON_SURFACE)) for row, cell in enumerate(cells)]
        lost |= ~np.array(on, dtype=bool)
    return TrackedGaze(
        time_s,
        time_s,
        np.where(lost, np.nan, x),
        np.where(lost, np.nan, 1 - y),
        "screen_share",
        rows=RowsOfFile.of(table),
        notes={"gaze_of_the_scene": int(not is_mapped and not gaze_file.frame)},
    )
