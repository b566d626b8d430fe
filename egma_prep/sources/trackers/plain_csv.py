"""A plain table of fixations: ``begin, end, x, y``, or columns that ``dataset.toml`` names."""

from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.reading import RowsOfFile
from egma_prep.sources.trackers import SECONDS, GazeFile, TrackedGaze

FORMATS = ("csv",)


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
