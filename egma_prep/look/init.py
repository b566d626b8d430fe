"""A first `dataset.toml` and `readings.csv` for recordings of one's own, from what lies there."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.images import image_size
from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.dataset_toml import DATASET_TOML
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import columns_of
from egma_prep.sources.reading import Size
from egma_prep.sources.recognisers import recognised
from egma_prep.sources.recordings import NAME, READINGS
from egma_prep.sources.trackers import GazeFile, trackers
from egma_prep.storage.atomic import write_atomically

_TEXT = r"word|text|token|utterance"
_BEGIN, _END, _DURATION = r"begin|start|onset|timestamp|^t$|^time", r"end|stop|offset", r"dur"
_X, _Y = (rf"(^|[^a-z]){axis}($|[^a-z])" for axis in "xy")
_UNITS = {"s": (0.02, 5.0), "ms": (20.0, 5e3), "us": (2e4, 5e6)}
"""Between which the median fixation or word lasts; a unit's range touches no other's."""
_IMAGES = "images"
_MOST_OF = 0.8  # of an image that was looked at, gaze reaches so far
_STEPS = {"s": 0.2, "ms": 200.0, "us": float("inf")}
"""Below which samples follow each other, at 5 to 4,000 a second."""


class Guess(NamedTuple):
    """What a file of the readings' folders seems to be.

    Attributes
    ----------
    entries : mapping
        Of its table in dataset.toml, each with the reason of the guess.
    screen_px : tuple, optional
        Of the screen, where the file tells it.
    """

    entries: Mapping[str, tuple[object, str]]
    screen_px: tuple[float, float] | None = None


def begin_dataset(lab: Path) -> Iterator[str]:
    """Write a commented dataset.toml and an empty readings.csv; say each guess in a line.

    Raises
    ------
    BadUsageError
        If one of them is there, or nothing is that they could be about.
    """
    if not lab.is_dir():
        raise BadUsageError(f"{lab} is no folder; give the one that holds your readings' folders")
    files = InputFiles(lab)
    for name in (DATASET_TOML, READINGS):
        if files.has(name):
            raise BadUsageError(f"{lab / name} is there already; change it, or move it away first")
    folders = [one for one in files.folders("") if one.lower() != _IMAGES]
    names = Counter(path.rpartition("/")[2] for one in folders for path in _files_in(files, one))
    gaze, words = _guesses(files, folders, names)
    if not gaze and not words:
        raise BadUsageError(
            f"{lab} has no folder with gaze or words that could be recognised; give each reading a"
            " folder with its tracker's and its recogniser's export, named alike in all of them"
        )
    screen_px = gaze.screen_px if gaze else None
    text = "\n".join(
        [
            "# Facts of these recordings. Each guess says why; correct what is wrong.",
            f"name = {json.dumps(lab.resolve().name)}",
            'version = "1"',
            'licence = ""    # under which others may use them',
            'terms = ""      # what whoever uses them must be told; data cards repeat it',
            'citation = ""',
            "",
            *_toml("gaze", gaze),
            "[screen]           # needed for frames of the screen, and for --sigma 1deg",
            *_screen(screen_px),
            "",
            *_toml("words", words),
            "# readings.csv takes more columns where you know them: "
            + ", ".join(columns_of(NAME, "readings").values()),
            "# and label:NAME. A screen's frame needs image_x0_px to image_y1_px.",
            "",
        ]
    )
    write_atomically(lab / DATASET_TOML, text.encode())
    write_atomically(lab / READINGS, b"reading_id,image\n")
    for table, guess in (("gaze", gaze), ("words", words)):
        yield from _said(table, guess)
    yield (
        f"wrote {lab / DATASET_TOML} and {lab / READINGS}: correct the first; in the second, give"
        f" each reading a row: its folder's name ({', '.join(folders[:3])}, ...) and its image's"
        f" path below {lab}. Then: egma-prep scan {lab}"
    )


def _files_in(files: InputFiles, folder: str) -> list[str]:
    return files.matching(f"{folder}/", "*.*")


def _guesses(
    files: InputFiles, folders: list[str], names: Counter[str]
) -> tuple[Guess | None, Guess | None]:
    """Look at the files that most folders have; the first likely one of each kind counts."""
    gaze = words = None
    image_px = _some_image(files, [_IMAGES, *folders])
    for name, number in sorted(names.items(), key=lambda one: (-one[1], one[0])):
        folder = next(one for one in folders if files.has(f"{one}/{name}"))
        try:
            data = files.read(f"{folder}/{name}")
        except BadInputError:
            continue
        where = f"in {number} of {len(folders)} folders"
        gaze = gaze or _gaze(data, name, where, image_px)
        words = words or _words(data, name, where)
    return gaze, words


def _some_image(files: InputFiles, folders: list[str]) -> Size | None:
    for folder in folders:
        for path in _files_in(files, folder):
            try:
                return image_size(files.read(path), path)
            except BadInputError:
                continue
    return None


def _gaze(data: bytes, name: str, where: str, image_px: Size | None) -> Guess | None:
    file = {"file": (name, where)}
    for known, tracker in trackers().items():
        if known != "csv" and tracker.looks_like(data):
            entries = file | {"format": (known, "by its content")}
            try:
                found_gaze = tracker.fixations(data, name, GazeFile(format=known))
            except BadInputError:
                return Guess(entries | {"from": ("samples", "no fixations could be read")})
            return Guess(entries, found_gaze.screen_px)
    table = _table(data)
    found = table and _columns(
        table, {"x": _X, "y": _Y, "begin": _BEGIN, "end": _END, "duration": _DURATION}
    )
    if not table or not found or not {"x", "y", "begin"} <= found.keys():
        return None
    if "end" in found:
        found.pop("duration", None)
    elif "duration" not in found:
        found["t"] = found.pop("begin")
        file["from"] = ("samples", "no column tells an end or a duration")
    try:
        length, unit_why = _lengths(table, found)
        x, y = (table.numbers_or_nan(found[axis]) for axis in ("x", "y"))
    except BadInputError:
        return None
    if np.isnan(x).all() or np.isnan(y).all():
        return None
    far_x, far_y = (float(np.nanpercentile(axis, 95)) for axis in (x, y))
    frame, why = _frame(far_x, far_y, image_px)
    return Guess(
        file
        | {
            "format": ("csv", "a table with such columns"),
            "columns": (found, "by their names"),
            "time_unit": (length, unit_why),
            "frame": (frame, why),
        }
    )


def _words(data: bytes, name: str, where: str) -> Guess | None:
    file = {"file": (name, where)}
    known = recognised(data)
    if known not in (None, "csv"):
        return Guess(file | {"format": (known, "by its content")})
    table = _table(data)
    found = table and _columns(table, {"text": _TEXT, "begin": _BEGIN, "end": _END})
    if not table or not found or not {"text", "begin", "end"} <= found.keys():
        return None
    try:
        unit, why = _lengths(table, found)
    except BadInputError:
        return None
    return Guess(
        file
        | {
            "format": ("csv", "a table with such columns"),
            "columns": (found, "by their names"),
            "time_unit": (unit, why),
        }
    )


def _table(data: bytes) -> Table | None:
    try:
        table = parse_csv(data, "", ())
    except BadInputError:
        return None
    return table if len(table) else None


def _columns(table: Table, patterns: Mapping[str, str]) -> dict[str, str]:
    """Find the first column for each name, none for two names."""
    found: dict[str, str] = {}
    for name, pattern in patterns.items():
        for column in table.columns:
            if column not in found.values() and re.search(pattern, column.lower()):
                found[name] = column
                break
    return found


def _lengths(table: Table, found: Mapping[str, str]) -> tuple[str, str]:
    """Guess the unit of times by the median length, of samples by the median step."""
    if "t" in found:
        step = float(np.median(np.diff(table.numbers(found["t"]))))
        unit = next(one for one, most in _STEPS.items() if step < most)
        return unit, f"half of them follow the one before by {step:g} and more"
    if "duration" in found:
        lengths = table.numbers(found["duration"])
    else:
        lengths = table.numbers(found["end"]) - table.numbers(found["begin"])
    median = float(np.median(lengths))
    for unit, (least, most) in _UNITS.items():
        if least <= median < most:
            return unit, f"half of them last {median:g} and more"
    return "s", f"unsure: half of them last {median:g} and more"


def _frame(x: float, y: float, image_px: Size | None) -> tuple[str, str]:
    if x <= 1.5 and y <= 1.5:
        return "image_share", f"nearly all positions are below {max(x, y):g}; or screen_share"
    if image_px and (x > image_px[0] or y > image_px[1]):
        return "screen_px", f"positions go beyond an image's {image_px[0]} x {image_px[1]} pixels"
    if image_px and (x > _MOST_OF * image_px[0] or y > _MOST_OF * image_px[1]):
        return "image_px", f"positions go to {x:.0f}, {y:.0f}, as an image does; or screen_px"
    # Of the two, the one that asks for the screen's size before it moves anything.
    return "screen_px", f"unsure, or image_px: positions go to {x:.0f}, {y:.0f}"


def _toml(name: str, guess: Guess | None) -> Iterator[str]:
    yield f"[{name}]"
    if guess is None:
        yield f'# nothing like {name} was recognised: file = "...", format = "..."'
    for key, (value, why) in guess.entries.items() if guess else ():
        shown = json.dumps(value)
        if isinstance(value, dict):
            shown = "{ " + ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) + " }"
        yield f"{key} = {shown}    # {why}"
    yield ""


def _screen(screen_px: tuple[float, float] | None) -> Iterator[str]:
    told = "" if screen_px else "# "
    width, height = screen_px or (1920, 1080)
    yield f"{told}width_px = {width:g}"
    yield f"{told}height_px = {height:g}"
    yield "# width_mm = 531       # of the visible screen"
    yield "# distance_mm = 650    # from the eyes"


def _said(name: str, guess: Guess | None) -> Iterator[str]:
    if guess is None:
        yield f"{name}: nothing was recognised; see the formats in docs/own_data.md"
    for key, (value, why) in guess.entries.items() if guess else ():
        shown = (
            ", ".join(f"{k} = {v}" for k, v in value.items()) if isinstance(value, dict) else value
        )
        yield f"guessed {name}.{key}: {shown} ({why})"
