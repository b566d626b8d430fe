"""REFLACX: a reading's files, and the tree as PhysioNet ships it (FORMATS, section 1)."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.options import SourceOptions
from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tree import cxr_tree, image_size
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import columns_of, manifest, required_columns
from egma_prep.sources.planning import MetadataTable, by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import (
    Fixations,
    FloatArray,
    ImageFacts,
    PlannedReading,
    RawReading,
    Region,
    RowsOfFile,
    Size,
    Words,
)
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.samples import detected
from egma_prep.sources.values import (
    MOST_PX,
    check_intervals,
    dicom_id,
    flag,
    flags,
    is_blank,
    known_numbers,
    numbered_id,
    require_words,
    safe_id,
)

DATASET = "reflacx"
_LAYOUT = manifest("reflacx")["layout"]

# An unzoomed screen shows 2,500 x 3,000 pixels at about 100 a degree, and small images at 15;
# zooming by up to 70 makes it less. No screen is so narrow that an image has ten times as many.
_MOST_PX_PER_DEG = 1000.0
_ENLARGED = 1.01
_DEFAULTS = SourceOptions()
_STUDY = re.compile(r"/s(\d+)/[^/]*$")


_TABLES, _LABELS = manifest("reflacx")["tables"], manifest("reflacx")["labels"]
_CERTAINTIES = tuple(_LABELS["certainties"])
COLUMNS = {table: columns_of("reflacx", table) for table in _TABLES}
REQUIRED = {table: required_columns("reflacx", table) for table in _TABLES}


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one metadata row, of one phase's table or of several.

    Raises
    ------
    BadInputError
        If its ids cannot be used, or its authors discarded it.
    """
    names = COLUMNS["metadata"]
    reading_id = safe_id(row[names["reading_id"]], path, "the reading id")
    if flag(row.get(names["discarded"], ""), path, names["discarded"]):
        raise BadInputError("discarded", path, f"{reading_id} is marked as discarded")
    subject = numbered_id(row[names["subject_id"]], path, "the subject id")
    image = dicom_id(row[names["dicom_id"]], path)
    study = study_id(row[names["image"]], path)
    return PlannedReading(DATASET, reading_id, subject, study, image, path, row)


METADATA = MetadataTable(DATASET, COLUMNS["metadata"]["reading_id"], REQUIRED["metadata"], plan_row)


def raw_reading(
    planned: PlannedReading,
    read_table: Callable[[str, list[str]], Table],
    cxr: ImageFacts,
    image_path: str,
    measured: Callable[[], Size],
    read_samples: Callable[[list[str]], Table] | None = None,
    options: SourceOptions = _DEFAULTS,
) -> RawReading:
    """Read one reading's four tables; those of ellipses and of the chest box are extras.

    Parameters
    ----------
    planned : PlannedReading
        Made by `plan_row`.
    read_table : callable
        Takes a file's name in the reading's folder, and the columns it must have.
    cxr : ImageFacts
        What MIMIC-CXR-JPG's tables know of the image.
    image_path : str
        For the reading; not opened here.
    measured : callable
        Reads the image's own size, where no table tells it.
    read_samples : callable, optional
        Takes the columns that ``gaze.csv`` must have, where fixations are to be found in it.
    """
    row, names = planned.row, COLUMNS["metadata"]
    found, notes = labels(row)
    split = extras.known_split(row.get(names["split"], "")) or cxr.split
    notes.update(cxr.notes)
    notes.update(extras.absent(split, cxr.view))
    told = [extras.known_size(row, names), cxr.size]

    def table(kind: str) -> Table:
        return read_table(_TABLES[kind]["file"], REQUIRED[kind])

    gaze, spoken = table("fixations"), table("words")
    looks, rows = fixations(gaze), RowsOfFile.of(gaze)
    if read_samples is not None:
        sampled = read_samples(REQUIRED["samples"])
        looks, rows, outside = detected(samples(sampled), RowsOfFile.of(sampled), options)
        notes.update(outside)
    size = _size(told, shown(gaze), image_path, measured, notes)
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=planned.study_id,
        dicom_id=planned.dicom_id,
        split=split,
        view=cxr.view,
        image_path=image_path,
        width=size[0],
        height=size[1],
        fixations=looks,
        words=words(spoken),
        labels=dict(cxr.labels) | found,
        regions=regions(table, notes),
        notes=notes,
        fixation_rows=rows,
        word_rows=RowsOfFile.of(spoken),
    )


def study_id(image: str, path: str) -> str:
    """Take the study from a DICOM path; the metadata have no column for it."""
    found = _STUDY.search(image.replace("\\", "/"))  # other folders may be named s1, too
    if found is None:
        raise BadInputError("bad_id", path, f"the image path {image!r} names no study")
    return numbered_id(found[1], path, "the study id")


class Shown(NamedTuple):
    """What a reader was shown of an image, in its pixels; `is_whole` if surely all of it."""

    width: float
    height: float
    is_whole: bool


def shown(table: Table) -> Shown | None:
    """Take how far the parts of the image reach that were on the screen; None if not told.

    The first is the whole image and none lies outside it (FORMATS 1.2), so that none that reaches
    the farthest both ways from the corner at the origin is a part.
    """
    names = COLUMNS["fixations"]
    sides = [names[f"shown_{side}"] for side in ("x0", "y0", "x1", "y1")]
    try:
        table.require(sides)
        x0, y0, x1, y1 = (table.numbers(side) for side in sides)
    except BadInputError:
        return None
    width, height = float(x1.max(initial=0)), float(y1.max(initial=0))
    if not (1 <= width <= MOST_PX and 1 <= height <= MOST_PX):
        return None
    whole = (x0 == 0) & (y0 == 0) & (x1 == width) & (y1 == height)
    return Shown(width, height, bool(whole.any()))


def _size(
    told: Sequence[Size | None],
    seen: Shown | None,
    image_path: str,
    measured: Callable[[], Size],
    notes: Counter[str],
) -> Size:
    """Choose the size that positions refer to: the tables', what was shown, the image's own.

    A size smaller than what was shown is that of a copy, in whose pixels no position is; so is one
    that is larger by one factor both ways than a whole image that was shown.
    """

    def holds(size: Size) -> bool:
        if seen is None:
            return True
        (wide, high), (across, down) = size, seen[:2]
        if across > wide + 1 or down > high + 1:
            return False
        enlarged = abs(wide * down - high * across) <= wide + high + across + down
        return not (seen.is_whole and enlarged and wide > _ENLARGED * across)

    known = [size for size in told if size is not None]
    fitting = [size for size in known if holds(size)]
    notes["size_told_contradicted"] = len(fitting) < len(known)
    if fitting:
        return fitting[0]
    if seen is not None and seen.is_whole:
        notes["size_by_shown"] = 1
        return round(seen.width), round(seen.height)
    size, notes["size_by_image"] = measured(), 1
    if seen is not None and not holds(size):
        what = (
            f"{image_path} has {size[0]} x {size[1]} pixels, its reader was shown"
            f" {seen.width:g} x {seen.height:g}: it was made smaller"
        )
        raise BadInputError("no_metadata_row", image_path, what)
    return size


def labels(row: Mapping[str, str]) -> tuple[dict[str, float], Counter[str]]:
    """Read the certainties and flags that the reading's phase asked for; count damaged ones."""
    found, notes = extras.labels(row, _LABELS["certainty"], _CERTAINTIES)
    told = {name: row[name] for name in _LABELS["flags"] if not is_blank(row.get(name, ""))}
    known = dict(zip(told, flags(told.values()), strict=True))
    found |= {name: float(value) for name, value in known.items() if value is not None}
    notes["labels_left_out"] += sum(value is None for value in known.values())
    notes["without_labels"] = not row.keys() & {*_LABELS["certainty"], *_LABELS["flags"]}
    return {f"reflacx:{name}": value for name, value in found.items()}, notes


def fixations(table: Table) -> Fixations:
    """Read ``fixations.csv``; off-image positions are legal."""
    names = COLUMNS["fixations"]
    if not len(table):
        raise BadInputError("no_fixations", table.path, f"{table.path} has no rows")
    found = Fixations(
        begin_s=table.numbers(names["begin"]),
        end_s=table.numbers(names["end"]),
        x_px=table.numbers(names["x"]),
        y_px=table.numbers(names["y"]),
        px_per_deg_x=table.numbers(names["px_per_deg_x"]),
        px_per_deg_y=table.numbers(names["px_per_deg_y"]),
        shown_px=_shown_px(table, names),
    )
    check_intervals(found.begin_s, found.end_s, table.path, table.place_of_row)
    _check_degrees(found, table, names)
    return found


def samples(table: Table) -> Fixations:
    """Read ``gaze.csv``: positions and degrees are blank where the eye was lost."""
    names = COLUMNS["samples"]
    time_s = table.numbers(names["time"])
    check_intervals(time_s, time_s, table.path, table.place_of_row)
    seen = ("x", "y", "px_per_deg_x", "px_per_deg_y")
    positions = (table.numbers_or_nan(names[name]) for name in seen)
    found = Fixations(time_s, time_s, *positions)._replace(shown_px=_shown_px(table, names))
    _check_degrees(found, table, names)
    return found


def _shown_px(table: Table, names: Mapping[str, str]) -> FloatArray:
    """Read the parts of the image that were on the screen, ``(n, 4)``; NaN where it is not told."""
    unknown = [""] * len(table)
    told = (table.columns.get(names[f"shown_{side}"], unknown) for side in ("x0", "y0", "x1", "y1"))
    found = np.stack([known_numbers(cells) for cells in told], axis=1)
    found[~((found[:, 0] < found[:, 2]) & (found[:, 1] < found[:, 3]))] = np.nan
    return found


def _check_degrees(found: Fixations, table: Table, names: Mapping[str, str]) -> None:
    for name in ("px_per_deg_x", "px_per_deg_y"):
        px = getattr(found, name)
        wrong = np.flatnonzero((px <= 0) | (px > _MOST_PX_PER_DEG))
        if wrong.size:
            at = int(wrong[0])
            what = f"{table.place(at, names[name])} is {px[at]:g}, no image pixels per degree"
            raise BadInputError("bad_number", table.path, what)


def words(table: Table) -> Words:
    """Read ``timestamps_transcription.csv``; zero-length words are corrections and legal."""
    names = COLUMNS["words"]
    text = [word.strip() for word in table.columns[names["text"]]]
    require_words(text, table.path)
    if "" in text:
        where = table.place(text.index(""), names["text"])
        raise BadInputError("bad_csv", table.path, f"{where} is blank")
    begin_s, end_s = table.numbers(names["begin"]), table.numbers(names["end"])
    check_intervals(begin_s, end_s, table.path, table.place_of_row)
    return Words(text, begin_s, end_s)


def regions(table: Callable[[str], Table], notes: Counter[str]) -> list[Region]:
    """Read the ellipses, one region for each label of each, and the chest box.

    Parameters
    ----------
    table : callable
        Reads ``ellipses`` or ``chest_box``.
    notes : Counter
        What is missing or damaged is left out and counted here.
    """
    found: list[Region] = []
    try:
        found += _ellipses(table("ellipses"), notes)
    except BadInputError:
        notes["region_tables_left_out"] += 1
    try:
        box = table("chest_box")
    except BadInputError:
        notes["region_tables_left_out"] += 1
        return found
    placed = extras.corners(box, COLUMNS["chest_box"], _rows_once(box, notes), notes)
    found += [Region("chest", "box", *corners) for _, corners in placed]
    notes["region_tables_left_out"] += not len(box)  # each reading has one, FORMATS 1.7
    return found


def _ellipses(table: Table, notes: Counter[str]) -> list[Region]:
    names = COLUMNS["ellipses"]
    placed = extras.corners(table, names, _rows_once(table, notes), notes)
    flagged = {
        name: flags(cells) for name, cells in table.columns.items() if name not in names.values()
    }
    # Each has a label that is true (FORMATS 1.6); of one without, whose column was renamed or left
    # out, nobody can tell what it shows.
    known = {*_LABELS["certainty"], *_LABELS["flags"], _LABELS["free_text"]} & flagged.keys()
    shows = [any(flagged[name][row] is not False for name in known) for row, _ in placed]
    notes["regions_left_out"] += shows.count(False)
    told = table.columns.get(names["certainty"], [""] * len(table))
    certainties = [
        None if is_blank(cell) else value
        for cell, value in zip(told, known_numbers(told).tolist(), strict=True)
    ]
    found = []
    there = [name for name in _LABELS["certainty"] if name in flagged]
    for (row, corners), name in product(placed, there):
        is_true, certainty = flagged[name][row], certainties[row]
        is_known = certainty is None or certainty in _CERTAINTIES
        if is_true and is_known:
            found.append(Region(name, "ellipse", *corners, certainty))
        notes["regions_left_out"] += is_true is None or (is_true and not is_known)
    return found


def _rows_once(table: Table, notes: Counter[str]) -> list[int]:
    rows = table.distinct(range(len(table)), table.columns)
    notes["regions_twice"] += len(table) - len(rows)
    notes["tables_perhaps_cut"] += table.is_cut
    return rows


# -- the tree -------------------------------------------------------------------------------------


def samples_of(
    planned: PlannedReading, files: InputFiles, home: str, options: SourceOptions
) -> Callable[[list[str]], Table] | None:
    """Return what reads a reading's samples below a folder, if they are to be read."""
    if options.gaze_from != "samples":
        return None
    file = manifest("reflacx")["tables"]["samples"]["file"]
    path = f"{home}{_LAYOUT['samples']}/{planned.reading_id}/{file}"
    return lambda names: files.columns(path, names)


class Reflacx:
    """The native REFLACX tree."""

    name = "reflacx"
    looks_like = _LAYOUT["metadata"]
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for a phase's metadata."""
        return bool(files.tables_matching("", _LAYOUT["metadata"]))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read the phases' metadata."""
        tables = cxr_tree(files).tables(files)
        paths = files.tables_matching("", _LAYOUT["metadata"])
        plans = plan_tables(files, paths, METADATA, files.folders(_LAYOUT["readings"]))
        return by_subject(with_image_facts(plans, tables))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's folder."""
        folder = f"{_LAYOUT['readings']}/{planned.reading_id}"
        return raw_reading(
            planned,
            lambda file, names: files.table(f"{folder}/{file}", names),
            planned.facts,
            path := cxr_tree(files).image(files, planned),
            lambda: image_size(files, path),
            samples_of(planned, files, "", options),
            options,
        )


SOURCE = Reflacx()
