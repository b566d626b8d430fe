"""What the documents could not confirm, checked on real files: how often it held.

Every check adds to a `Tally`: a statement of FORMATS as a sentence, and for how many rows, files or
images it held or not. Nothing else of the data leaves this module: no row, no id, no path.
"""

import io
import json
import re
import wave
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from statistics import median
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from pyarrow import csv

from egma_prep.errors import BadInputError
from egma_prep.gaze.align import overlap_seconds, window_starts
from egma_prep.gaze.sentences import join_words, sentence_spans
from egma_prep.sources import eye_gaze
from egma_prep.sources.csv_table import Table
from egma_prep.sources.eye_gaze import Pads
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.reading import FloatArray, RawReading

_EYE_GAZE, _REFLACX = manifest("eye-gaze"), manifest("reflacx")
_GAZE = _EYE_GAZE["tables"]["fixations"]["columns"] | _EYE_GAZE["tables"]["fixations"]["unused"]
_NEAR_PX, _NEAR_S, _NEAR_SHARE = 1.5, 0.05, 0.01
_LONGEST_S = 300
_LOOKING_AHEAD_S = 1.5  # radiologists look before they speak
_SAME = {"hilum": "hilar", "lobe": "lung", "heart": "cardiac", "mediastinal": "mediastinum"}
_NOT_TELLING = {"zone", "structures", "silhouette", "angle"}
_SMALLEST_CELL = 5
Value = TypeVar("Value")


class Tally:
    """Counts by statement, and numbers of which only the median is told."""

    def __init__(self) -> None:
        self.held: Counter[str] = Counter()
        self.broken: Counter[str] = Counter()
        self.numbers: dict[str, list[float]] = {}
        self.looks: list[tuple[float, float, float, float]] = []

    def add(self, statement: str, outcomes: Iterable[object]) -> None:
        """Count how often a statement held."""
        for outcome in outcomes:
            (self.held if outcome else self.broken)[statement] += 1

    def measure(self, what: str, value: float) -> None:
        """Keep a number."""
        self.numbers.setdefault(what, []).append(value)

    def medians(self) -> dict[str, float]:
        """Return the medians of what was measured often enough to be nobody's own."""
        return {
            what: median(values)
            for what, values in self.numbers.items()
            if len(values) >= _SMALLEST_CELL
        }

    def vertical_scale(self) -> float | None:
        """Compare how far gaze follows named boxes down the image and across it.

        The mapping across is certain, so it is the control of the mapping down: released as it
        should be, the ratio is near 1; from a screen that letterboxed the canvas, near 1024/1080.
        """
        if len(self.looks) < _SMALLEST_CELL:
            return None
        box_x, box_y, gaze_x, gaze_y = np.array(self.looks).T
        across, down = (np.polyfit(*pair, 1)[0] for pair in ((box_x, gaze_x), (box_y, gaze_y)))
        return float(down / across) if across else None


def tally_reading(raw: RawReading, size: tuple[int, int] | None, tally: Tally) -> None:
    """Check what any source makes of a reading; `size` is its image's own, if it opens."""
    if size is not None:
        tally.add("an image has the size that the metadata give", [size == (raw.width, raw.height)])
    if not len(raw.fixations.begin_s):
        return
    begin_s, end_s = raw.fixations.begin_s, raw.fixations.end_s
    dataset = raw.dataset
    tally.add(f"{dataset}: fixations follow each other", begin_s[1:] >= end_s[:-1] - 1e-6)
    tally.add(f"{dataset}: the first fixation begins at 0 s or later", [begin_s.min() >= 0])
    tally.add(f"{dataset}: all lasts less than {_LONGEST_S} s", [end_s.max() < _LONGEST_S])
    tally.add(f"{dataset}: words follow each other", np.diff(raw.words.begin_s) >= 0)
    tally.measure(f"{dataset}: fixations a reading", len(begin_s))
    tally.measure(f"{dataset}: words and signs a reading", len(raw.words.text))
    tally.measure(f"{dataset}: seconds of gaze a reading", float(end_s.max()))
    if not np.isnan(degree_px := np.median(raw.fixations.px_per_deg_x)):
        tally.measure(f"{dataset}: pixels a degree", float(degree_px))
    if dataset == eye_gaze.DATASET:
        last = float(raw.words.end_s.max() - end_s.max())
        tally.measure("eye_gaze: seconds by which the last word outlasts the gaze", last)
        if raw.height > raw.width:
            tally.looks += list(_looks_at_named_boxes(raw))


def _looks_at_named_boxes(raw: RawReading) -> Iterator[tuple[float, float, float, float]]:
    """Pair the box that a sentence names with the gaze of its time: centres, share of the image."""
    gaze, words = raw.fixations, raw.words
    spans = sentence_spans(words.text, words.begin_s.tolist(), words.end_s.tolist())
    first, last = np.array(spans).T
    begin_s = window_starts(words.begin_s[first], words.end_s[last], "spoken", _LOOKING_AHEAD_S)
    weight_s = overlap_seconds(begin_s, words.end_s[last], gaze.begin_s, gaze.end_s)  # (m, n)
    weight_s = weight_s * ((gaze.x_px >= 0) & (gaze.y_px >= 0))
    for (begin, end), weight in zip(spans, weight_s, strict=True):
        said = {re.sub(r"\W", "", word.lower()) for word in words.text[begin : end + 1]}
        said |= {_SAME[word] for word in said & _SAME.keys()}
        named = [box for box in raw.regions if _telling(box.name) and _telling(box.name) <= said]
        if named and weight.any():
            box = max(named, key=lambda one: len(_telling(one.name)))
            yield (
                (box.x0 + box.x1) / 2 / raw.width,
                (box.y0 + box.y1) / 2 / raw.height,
                float(np.average(gaze.x_px, weights=weight)) / raw.width,
                float(np.average(gaze.y_px, weights=weight)) / raw.height,
            )


def _telling(box_name: str) -> set[str]:
    return set(box_name.lower().split()) - _NOT_TELLING


def check_reflacx_folder(files: InputFiles, folder: str, tally: Tally) -> None:
    """Check one REFLACX reading's files."""
    tables = _REFLACX["tables"]
    fixations = _attempt(lambda: files.read(f"{folder}/{tables['fixations']['file']}"))
    words = _attempt(lambda: files.table(f"{folder}/{tables['words']['file']}", ()))
    joined = _attempt(lambda: files.read(f"{folder}/{tables['words']['joined']}"))
    if fixations is not None:
        lines = fixations.splitlines()
        tally.add("reflacx: fixations.csv has no blank cell", (b",," not in line for line in lines))
        tally.add("reflacx: lines end in CRLF", [b"\r\n" in fixations])
    column = tables["words"]["columns"]["text"]
    if words is not None and joined is not None and column in words.columns:
        text = joined.decode(errors="replace").strip()
        tally.add(
            "reflacx: transcription.txt is the words joined",
            [join_words([word.strip() or " " for word in words.columns[column]]) == text],
        )


def check_eye_gaze_tables(
    files: InputFiles, root: str, sizes: dict[str, tuple[int, int]], tally: Tally
) -> None:
    """Check the fixation table and the master sheet of one folder, of one patient or of all.

    Parameters
    ----------
    sizes : dict
        Width and height of the images, by DICOM id.
    """
    tables = _EYE_GAZE["tables"]
    path = f"{root}{tables['fixations']['file']}"
    data = _attempt(lambda: files.read(path))
    gaze = _attempt(lambda: files.columns(path, list(_GAZE.values())))
    sheet = _attempt(lambda: files.table(f"{root}{tables['master_sheet']['file']}", ()))
    if data is None or gaze is None or sheet is None:
        return
    tally.add("eye_gaze: lines of fixations.csv end in LF", [b"\r\n" not in data])
    ids = [cell.strip() for cell in gaze.columns[_GAZE["dicom_id"]]]
    tally.add("eye_gaze: DICOM ids have at most 44 characters", (len(one) <= 44 for one in ids))
    short = [len(one) for one in ids if len(one) < 44]
    tally.add("eye_gaze: shorter ids have 39 (calibration)", (length == 39 for length in short))
    _check_cells(gaze, tally)
    names = tables["master_sheet"]["columns"]
    rows = gaze.excerpts(_GAZE["dicom_id"], set(ids))
    for row in map(sheet.row, range(len(sheet))):
        image = row.get(names["dicom_id"], "").strip()
        border = _attempt(lambda row=row: eye_gaze.pads(row, sheet.path))  # type: ignore[misc]
        if image in rows and image in sizes and border is not None:
            tally.add("eye_gaze: an image was read in one session", [_sessions(rows[image]) == 1])
            _check_image(rows[image], *sizes[image], border, tally)


def check_samples(files: InputFiles, path: str, tally: Tally) -> None:
    """Check the ids of ``eye_gaze.csv``, which may have 400 MB and is streamed."""
    name = _GAZE["dicom_id"]
    wanted = csv.ConvertOptions(include_columns=[name], column_types={name: pa.string()})
    try:
        with (
            files.place(path).open("rb") as file,
            csv.open_csv(file, convert_options=wanted) as batches,
        ):
            lengths = Counter(
                len(one.strip()) for batch in batches for one in batch[name].to_pylist()
            )
    except (OSError, pa.ArrowException):
        return
    for length, number in lengths.items():
        outcome = tally.held if length <= 44 else tally.broken
        outcome["eye_gaze: samples' DICOM ids have at most 44 characters"] += number


def check_mimic_eye(files: InputFiles, patients: Iterable[str], tally: Tally) -> None:
    """Check how the merged release spells what its documents spell in several ways."""
    layout = manifest("mimic-eye")["layout"]
    for patient in patients:
        for name in layout["hospital_spellings"]:
            tally.add(f"mimic_eye: a patient has a folder {name}", [files.has(f"{patient}/{name}")])
        home = f"{patient}/{layout['reflacx']}"
        if files.has(home):
            newer = files.has(f"{home}/{layout['reflacx_readings'][0]}")
            tally.add("mimic_eye: REFLACX's readings lie in main_data", [newer])
    pair = [_attempt(lambda path=path: files.read(path)) for path in layout["same_sheets"]]  # type: ignore[misc]
    if None not in pair:
        tally.add("mimic_eye: the sheet eye_gaze.csv is fixations.csv", [pair[0] == pair[1]])


def check_transcript(files: InputFiles, folder: str, size: tuple[int, int], tally: Tally) -> None:
    """Check one EYE GAZE reading's transcript, masks and audio."""
    declared = _EYE_GAZE["transcripts"]
    data = _attempt(lambda: files.read(f"{folder}/{declared['file']}"))
    content = _attempt(lambda: json.loads(data or b""))
    if isinstance(content, dict):
        _check_phrases(content, tally)
    for name in declared["masks"]:
        mask = _attempt(lambda name=name: files.read(f"{folder}/{name}"))  # type: ignore[misc]
        tally.add("eye_gaze: four masks, one spelt mediastanum", [mask is not None])
        if mask is not None:
            shown = int.from_bytes(mask[16:20]), int.from_bytes(mask[20:24])
            tally.add("eye_gaze: a mask has the image's size", [shown == size])
    audio = _attempt(lambda: files.read(f"{folder}/{declared['audio']}"))
    if audio is not None:
        tally.add("eye_gaze: audio.wav is a WAV file", [_seconds(audio) is not None])
        if (seconds := _seconds(audio)) is not None:
            tally.measure("eye_gaze: seconds of audio a reading", seconds)


def _check_phrases(content: dict[str, Any], tally: Tally) -> None:
    expected = {"full_text", "time_stamped_text"}
    tally.add("eye_gaze: transcript.json has the two known keys alone", [set(content) == expected])
    phrases = [str(one.get("phrase", "")) for one in content.get("time_stamped_text") or []]
    tally.add("eye_gaze: a transcript has phrases", [phrases])
    if not phrases:
        return
    tally.add("eye_gaze: a phrase is one word", (len(phrase.split()) == 1 for phrase in phrases))
    tally.add("eye_gaze: no period inside a phrase", ("." not in one[:-1] for one in phrases))
    tally.add("eye_gaze: the last phrase ends in a period", [phrases[-1].strip().endswith(".")])
    said, written = (
        re.findall(r"\w+", text.lower())
        for text in (" ".join(phrases), str(content.get("full_text", "")))
    )
    tally.add("eye_gaze: phrases and full_text say the same words", [said == written])


def _check_cells(gaze: Table, tally: Tally) -> None:
    def column(name: str) -> FloatArray:
        return _floats(gaze.columns[_GAZE[name]])

    end_s = column("begin") + column("duration")
    tally.add("eye_gaze: Time is FPOGS + FPOGD", np.abs(column("time") - end_s) < _NEAR_S)
    tally.add("eye_gaze: FPOGV is 1 in fixations.csv", column("valid") == 1)
    tally.add("eye_gaze: MEDIA_ID is 0", column("media") == 0)
    for name in ("number", "tick"):
        whole = column(name) % 1 == 0
        tally.add(f"eye_gaze: {_GAZE[name].partition('(')[0]} is a whole number", whole)


def _check_image(rows: Table, width: int, height: int, border: Pads, tally: Tally) -> None:
    screen = _EYE_GAZE["screen"]
    shown_x = screen["width"] - border.left - border.right
    shown_y = screen["canvas_height"] - border.top - border.bottom
    same = abs(shown_y / shown_x * width / height - 1) < _NEAR_SHARE
    tally.add("eye_gaze: pads leave the image's proportions on 1024 lines", [same])
    x_px, y_px = (_floats(rows.columns[_GAZE[axis]]) for axis in "xy")
    eye_x = _floats(rows.columns[_GAZE["screen_x"]]) * screen["width"] - border.left
    eye_y = _floats(rows.columns[_GAZE["screen_y"]]) * screen["height"] - border.top
    on = (x_px >= 0) & (y_px >= 0)
    per_line = _even(height) / (screen["height"] - border.top - border.bottom)
    x_as_said = np.abs(x_px - eye_x * _even(width) / shown_x) < _NEAR_PX
    y_as_said = np.abs(y_px - eye_y * per_line) < _NEAR_PX
    tally.add("eye_gaze: X_ORIGINAL follows from FPOGX and the pads", x_as_said[on])
    tally.add("eye_gaze: Y_ORIGINAL follows from FPOGY over 1080 lines", y_as_said[on])
    inside = (x_px <= _even(width)) & (y_px <= _even(height))
    tally.add("eye_gaze: no gaze beyond the even width and height", inside)


def _sessions(rows: Table) -> int:
    return len({cell.strip() for cell in rows.columns[_GAZE["session"]]})


def _even(px: int) -> int:
    return px + px % 2


def _floats(cells: list[str]) -> FloatArray:
    def value(cell: str) -> float:
        try:
            return float(cell)
        except ValueError:
            return float("nan")

    return np.array([value(cell) for cell in cells], dtype=np.float64)


def _seconds(audio: bytes) -> float | None:
    try:
        with wave.open(io.BytesIO(audio)) as sound:
            return sound.getnframes() / sound.getframerate()
    except (wave.Error, EOFError, ZeroDivisionError):
        return None


def _attempt(make: Callable[[], Value]) -> Value | None:
    """Return None for a file that is missing or damaged: the scan lists those elsewhere."""
    try:
        return make()
    except (BadInputError, ValueError):
        return None
