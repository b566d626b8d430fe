"""REFLACX: a reading's files, and the tree as PhysioNet ships it (FORMATS, section 1)."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.options import SourceOptions
from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tree import cxr_tree, image_size
from egma_prep.sources.extras import noting
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import columns_of, manifest, required_columns
from egma_prep.sources.planning import MetadataTable, by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import (
    Fixations,
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
    is_blank,
    label,
    numbered_id,
    pixels,
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


columns, required = partial(columns_of, "reflacx"), partial(required_columns, "reflacx")


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one metadata row, of one phase's table or of several.

    Raises
    ------
    BadInputError
        If its ids cannot be used, or its authors discarded it.
    """
    names = columns("metadata")
    reading_id = safe_id(row[names["reading_id"]], path, "the reading id")
    if flag(row.get(names["discarded"], ""), path, names["discarded"]):
        raise BadInputError("discarded", path, f"{reading_id} is marked as discarded")
    subject = numbered_id(row[names["subject_id"]], path, "the subject id")
    image = dicom_id(row[names["dicom_id"]], path)
    study = study_id(row[names["image"]], path)
    return PlannedReading(DATASET, reading_id, subject, study, image, path, row)


METADATA = MetadataTable(DATASET, columns("metadata")["reading_id"], required("metadata"), plan_row)


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
    names, row, metadata = columns("metadata"), planned.row, planned.metadata_path
    split = extras.known_split(row.get(names["split"], "")) or cxr.split
    found, notes = labels(row, metadata)
    notes.update(cxr.notes)
    notes.update(extras.absent(split, cxr.view))

    def table(kind: str) -> Table:
        return read_table(manifest("reflacx")["tables"][kind]["file"], required(kind))

    gaze, spoken = table("fixations"), table("words")
    looks, rows = fixations(gaze), RowsOfFile.of(gaze)
    if read_samples is not None:
        sampled = read_samples(required("samples"))
        looks, rows, outside = detected(samples(sampled), RowsOfFile.of(sampled), options)
        notes.update(outside)
    size = _size([_size_told(row, metadata), cxr.size], shown(gaze), image_path, measured, notes)
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
    names = columns("fixations")
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


def _size_told(row: Mapping[str, str], path: str) -> Size | None:
    names = columns("metadata")
    try:
        width, height = (
            pixels(row.get(names[side], ""), path, names[side]) for side in ("width", "height")
        )
    except BadInputError:
        return None
    return width, height


def labels(row: Mapping[str, str], path: str) -> tuple[dict[str, float], Counter[str]]:
    """Read the certainties and flags that the reading's phase asked for; count damaged ones."""
    declared = manifest("reflacx")["labels"]
    values = tuple(declared["certainties"])
    found, notes = extras.labels(row, declared["certainty"], values, path)
    for name in declared["flags"]:
        with noting(notes, "labels_left_out"):
            value = flag(row.get(name, ""), path, name)
            found |= {} if value is None else {name: float(value)}
    notes["without_labels"] = not row.keys() & {*declared["certainty"], *declared["flags"]}
    return {f"reflacx:{name}": value for name, value in found.items()}, notes


def fixations(table: Table) -> Fixations:
    """Read ``fixations.csv``; off-image positions are legal."""
    names = columns("fixations")
    if not len(table):
        raise BadInputError("no_fixations", table.path, f"{table.path} has no rows")
    found = Fixations(
        begin_s=table.numbers(names["begin"]),
        end_s=table.numbers(names["end"]),
        x_px=table.numbers(names["x"]),
        y_px=table.numbers(names["y"]),
        px_per_deg_x=table.numbers(names["px_per_deg_x"]),
        px_per_deg_y=table.numbers(names["px_per_deg_y"]),
    )
    check_intervals(found.begin_s, found.end_s, table.path, table.place_of_row)
    _check_degrees(found, table, names)
    return found


def samples(table: Table) -> Fixations:
    """Read ``gaze.csv``: positions and degrees are blank where the eye was lost."""
    names = columns("samples")
    time_s = table.numbers(names["time"])
    check_intervals(time_s, time_s, table.path, table.place_of_row)
    seen = ("x", "y", "px_per_deg_x", "px_per_deg_y")
    found = Fixations(time_s, time_s, *(table.numbers_or_nan(names[name]) for name in seen))
    _check_degrees(found, table, names)
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
    names = columns("words")
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
    with noting(notes, "region_tables_left_out"):
        found += _ellipses(table("ellipses"), notes)
    with noting(notes, "region_tables_left_out"):
        box = table("chest_box")
        told = _rows_once(box, notes)
        rows = extras.corners(box, columns("chest_box"), told, notes)
        found += [Region("chest", "box", *corners) for _, corners in rows]
        notes["region_tables_left_out"] += not len(box)  # each reading has one, FORMATS 1.7
    return found


def _ellipses(table: Table, notes: Counter[str]) -> list[Region]:
    declared, names = manifest("reflacx")["labels"], columns("ellipses")
    values = tuple(declared["certainties"])
    found = []
    rows = extras.corners(table, names, _rows_once(table, notes), notes)
    there = [name for name in declared["certainty"] if name in table.columns]
    placed = list(rows)
    notes["regions_left_out"] += _without_label(table, [row for row, _ in placed], declared)
    for (row, corners), name in product(placed, there):
        cells = table.row(row)
        with noting(notes, "regions_left_out"):
            if flag(cells[name], table.path, table.place(row, name)):
                cell, where = cells.get(names["certainty"], ""), table.place(row, "certainty")
                certainty = None if is_blank(cell) else label(cell, values, table.path, where)
                found.append(Region(name, "ellipse", *corners, certainty))
    return found


def _rows_once(table: Table, notes: Counter[str]) -> list[int]:
    rows = table.distinct(range(len(table)), table.columns)
    notes["regions_twice"] += len(table) - len(rows)
    notes["tables_perhaps_cut"] += table.is_cut
    return rows


def _without_label(table: Table, rows: list[int], declared: Mapping[str, Any]) -> int:
    """Count the ellipses of which nobody can tell what they show.

    Each has a label that is true (FORMATS 1.6); its column was renamed or left out.
    """
    places = columns("ellipses").values()
    known = {*declared["certainty"], *declared["flags"], declared["free_text"]}
    flagged = [name for name in table.columns if name not in places]
    lost = 0
    for row in rows:
        said = {name for name in flagged if not _is_false(table.columns[name][row])}
        lost += not said & known
    return lost


def _is_false(cell: str) -> bool:
    try:
        return not flag(cell, "", "")
    except BadInputError:  # counted where it is read
        return False


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
