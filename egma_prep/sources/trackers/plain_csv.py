"""A plain table of fixations: ``begin, end, x, y``, or columns that ``dataset.toml`` names."""

from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.reading import RowsOfFile
from egma_prep.sources.trackers import SECONDS, GazeFile, TrackedGaze, names_in_header

FORMATS = ("csv",)
EXPECTED = "columns begin, end or duration, x and y, or as [gaze] columns names them"

# What cannot be another program's: ours, REFLACX's own, and EyeLink Data Viewer's reports.
_SURE = (
    {"t", "x", "y"},
    {"begin", "x", "y"},
    {"timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position"},
    {"CURRENT_FIX_X", "CURRENT_FIX_Y", "CURRENT_FIX_DURATION"},
)


def looks_like(data: bytes) -> bool:
    """Look for a header of known names."""
    names = names_in_header(data, ",;\t")
    return any(names >= sure for sure in _SURE)


def fixations(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read a row a fixation, which ends where its column says or after its duration."""
    named = dict(gaze_file.columns)
    last = "duration" if "duration" in named else "end"
    columns = {name: named.get(name, name) for name in ("begin", last, "x", "y")}
    table = parse_csv(data, path, columns.values())
    begin, end, x, y = (table.numbers(column) for column in columns.values())
    unit_s = SECONDS[gaze_file.time_unit]
    begin_s, end_s = begin * unit_s, end * unit_s
    if last == "duration":
        end_s = begin_s + end_s
    frame = gaze_file.frame or "image_px"
    return TrackedGaze(begin_s, end_s, x, y, frame, rows=RowsOfFile.of(table))


def samples(data: bytes, path: str, gaze_file: GazeFile) -> TrackedGaze:
    """Read a row a sample, ``t, x, y``; a blank position is a lost eye."""
    columns = [gaze_file.columns.get(name, name) for name in ("t", "x", "y")]
    table = parse_csv(data, path, columns)
    time_s = table.numbers(columns[0]) * SECONDS[gaze_file.time_unit]
    x, y = (table.numbers_or_nan(column) for column in columns[1:])
    frame = gaze_file.frame or "image_px"
    return TrackedGaze(time_s, time_s, x, y, frame, rows=RowsOfFile.of(table))
