"""Gazepoint's CSV: fixations, or all gaze, in seconds and shares of the screen."""

from itertools import pairwise

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.reading import RowsOfFile
from egma_prep.sources.trackers import GazeFile, TrackedGaze, names_in_header, readable

FORMATS = ("gazepoint",)
EXPECTED = "columns FPOGX, FPOGY, FPOGS, FPOGD, FPOGID and FPOGV"

_NEEDED = ("FPOGX", "FPOGY", "FPOGS", "FPOGD", "FPOGID", "FPOGV")
_SAMPLED = ("BPOGX", "BPOGY", "BPOGV")
_MEDIA = "MEDIA_ID"


def looks_like(data: bytes) -> bool:
    """Look for the columns of fixations."""
    names = names_in_header(data, ",;")
    return names.issuperset(_NEEDED) or names.issuperset(_SAMPLED)


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read each valid fixation once: an export of all gaze has it row by row while it grows."""
    table = parse_csv(readable(data), path, _NEEDED, (*_NEEDED, _MEDIA))
    valid = np.flatnonzero(table.numbers("FPOGV") != 0).tolist()
    media = [cell.strip() for cell in table.columns.get(_MEDIA, [""] * len(table))]
    number = table.numbers("FPOGID")
    # Numbers begin again with another stimulus or recording.
    last = [(media[a], number[a]) != (media[b], number[b]) for a, b in pairwise(valid)]
    rows = [row for row, is_last in zip(valid, [*last, True], strict=False) if is_last]
    x, y, begin_s, lasted_s = (table.numbers(name, rows) for name in _NEEDED[:4])
    notes = {
        "rows_that_are_no_fixations": len(table) - len(valid),
        "rows_of_growing_fixations": len(valid) - len(rows),
        "several_trials": max(len({media[row] for row in rows}) - 1, 0),
    }
    where = RowsOfFile.of(table, rows)
    return TrackedGaze(begin_s, begin_s + lasted_s, x, y, "screen_share", rows=where, notes=notes)


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read the best point of gaze of both eyes, sample by sample; FPOG is of fixations."""
    table = parse_csv(readable(data), path, _SAMPLED)
    # The column has the date in its name: TIME(2023/07/18 14:56:48.120).
    times = [one for one in table.columns if one.upper().startswith("TIME") and "TICK" not in one]
    if not times:
        raise BadInputError("missing_column", path, f"{path} has no column TIME")
    time_s = table.numbers(times[0])
    lost = table.numbers("BPOGV") == 0
    x, y = (np.where(lost, np.nan, table.numbers(name)) for name in _SAMPLED[:2])
    return TrackedGaze(time_s, time_s, x, y, "screen_share", rows=RowsOfFile.of(table))
