"""EYE GAZE (egd-cxr): a reading's rows, and the tree as PhysioNet ships it (FORMATS, 2, 5.2)."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError, Reject
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
)
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.samples import detected
from egma_prep.sources.transcripts import phrases_of, words
from egma_prep.sources.values import (
    check_intervals,
    dicom_id,
    known_numbers,
    number,
    numbered_id,
)

DATASET = "eye_gaze"
_TABLES, _TRANSCRIPTS = manifest("eye-gaze")["tables"], manifest("eye-gaze")["transcripts"]
_SHEET = _TABLES["master_sheet"]["file"]
_TIME_TOLERANCE_S = 0.05
# A two-hundredth of an image is a pixel of the frame; a size from that few looks would be a guess.
_SIZE_ERROR, _ENOUGH_LOOKS = 0.005, 3


class Pads(NamedTuple):
    """Black border around the image on the 1920 x 1024 canvas, canvas pixels."""

    top: float
    bottom: float
    left: float
    right: float


COLUMNS = {table: columns_of("eye-gaze", table) for table in _TABLES}
REQUIRED = {table: required_columns("eye-gaze", table) for table in _TABLES}


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one master sheet row.

    Raises
    ------
    BadInputError
        If its ids cannot be used.
    """
    names = COLUMNS["master_sheet"]
    image = dicom_id(row[names["dicom_id"]], path)
    subject, study = (
        numbered_id(row[names[f"{whose}_id"]], path, f"the {whose} id")
        for whose in ("subject", "study")
    )
    return PlannedReading(DATASET, image, subject, study, image, path, row)


MASTER_SHEET = MetadataTable(
    DATASET, COLUMNS["master_sheet"]["dicom_id"], REQUIRED["master_sheet"], plan_row
)


def raw_reading(
    planned: PlannedReading,
    tables: Mapping[str, Table],
    transcript: tuple[bytes, str],
    cxr: ImageFacts,
    image_path: str,
    measured: Callable[[], tuple[int, int]],
    options: SourceOptions,
    sampled: Table | None = None,
) -> RawReading:
    """Read one reading's rows and transcript.

    Parameters
    ----------
    planned : PlannedReading
        Made by `plan_row`.
    tables : mapping
        ``fixations`` and, an extra, ``boxes``; they may hold other images' rows too.
    transcript : tuple
        The content of ``transcript.json`` and its path.
    cxr : ImageFacts
        What MIMIC-CXR-JPG's tables know of the image.
    image_path : str
        For the reading; not opened here.
    measured : callable
        Reads the image's own size, where no table tells it.
    sampled : Table, optional
        Its rows of ``eye_gaze.csv``, where fixations are to be found in them.
    """
    row, sheet = planned.row, planned.metadata_path
    image = planned.dicom_id
    found, notes = labels(row)
    notes.update(cxr.notes)
    notes.update(extras.absent(cxr.split, cxr.view))
    table, border = tables["fixations"], pads(row, sheet)
    size = _size(cxr.size, seen_size(table, image, border), image_path, measured, notes)
    gaze, mended = fixations(table, image, *size, border, options.eye_gaze_vertical)
    rows = RowsOfFile.of(table, valid_rows(table, image))
    if sampled is not None:
        looks = samples(sampled, image, *size, border, options.eye_gaze_vertical)
        gaze, rows, mended = detected(looks, RowsOfFile.of(sampled), options)
    notes.update(mended)
    if size != cxr.size:
        _check_reach(table, valid_rows(table, image), size, image_path)
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=planned.study_id,
        dicom_id=image,
        split=cxr.split,
        view=cxr.view,
        image_path=image_path,
        width=size[0],
        height=size[1],
        fixations=gaze,
        words=words(*transcript, options.eye_gaze_audio_offset_s),
        labels=dict(cxr.labels) | found,
        regions=boxes(tables.get("boxes"), image, notes),
        notes=notes,
        fixation_rows=rows,
        word_rows=phrases_of(*transcript),
        shown_px=None if size == cxr.size else shown_px(border),
    )


class SeenSize(NamedTuple):
    """An image's size by where the screen showed its gaze, and how far each side may be off."""

    width: float
    height: float
    height_by_pads: float
    error_px: tuple[float, float]

    def is_of(self, size: Size) -> bool:
        """Tell whether positions can be in the pixels of an image of this size.

        Of its height one witness is enough: which lines the release's mapping down counts is known
        from code alone (FORMATS 5.2).
        """
        heights = (self.height, self.height_by_pads)
        return abs(size[0] - self.width) <= self.error_px[0] and any(
            abs(size[1] - height) <= self.error_px[1] for height in heights
        )

    @property
    def is_sure(self) -> bool:
        """Tell whether gaze and pads give one height."""
        return abs(self.height - self.height_by_pads) <= 2 * self.error_px[1]


def seen_size(table: Table, image: str, border: Pads) -> SeenSize | None:
    """Undo the release's mapping from the screen: X_ORIGINAL is W times the share of the image.

    None where too few fixations are on the image, or they contradict each other.
    """
    names, screen = COLUMNS["fixations"], manifest("eye-gaze")["screen"]
    rows = valid_rows(table, image)
    x, y, across, down = (
        _optional(table, rows, names[name]) for name in ("x", "y", "screen_x", "screen_y")
    )
    width, height = shown_px(border)
    lines = screen["height"] - border.top - border.bottom
    across = (across * screen["width"] - border.left) / width
    down = (down * screen["height"] - border.top) / lines
    on = (x >= 0) & (y >= 0) & (across > 0) & (across < 1) & (down > 0) & (down < 1)
    if on.sum() < _ENOUGH_LOOKS:
        return None
    found = []
    for px, share in ((x[on], across[on]), (y[on], down[on])):
        side = float(np.median((px + 0.5) / share))  # the release cuts fractions off
        error = 1.5 + _SIZE_ERROR * side  # sizes are rounded up to even
        if not np.median(np.abs(side * share - px - 0.5)) <= error:
            return None
        found.append((side, error + 0.5 * float(np.median(1 / share))))
    (wide, error_x), (high, error_y) = found
    return SeenSize(wide, high, wide * height / width, (error_x, error_y))


def _size(
    told: Size | None,
    seen: SeenSize | None,
    image_path: str,
    measured: Callable[[], Size],
    notes: Counter[str],
) -> Size:
    """Choose the size that positions refer to: the table's, the image's own, or as gaze tells it.

    Images and tables of copies that were made smaller or larger have another.
    """
    if told is not None and (seen is None or seen.is_of(told)):
        return told
    if told is not None and seen is not None and not seen.is_sure:
        notes["size_doubted"] = 1
        return told
    notes["size_told_contradicted"] = told is not None
    own = measured()
    if seen is None or seen.is_of(own):
        notes["size_by_image"] = 1
        return own
    if not seen.is_sure:
        what = (
            f"{image_path} has {own[0]} x {own[1]} pixels, its gaze was in an image of"
            f" {seen.width:.0f} x {seen.height:.0f} or {seen.height_by_pads:.0f}"
        )
        raise BadInputError("no_metadata_row", image_path, what)
    notes["size_by_shown"] = 1
    return round(seen.width), round(seen.height)


def _check_reach(table: Table, rows: list[int], size: Size, image_path: str) -> None:
    """Reject gaze beyond an image: the release writes what lies beyond the original as negative."""
    for name, side, sense in zip("xy", size, ("wide", "high"), strict=True):
        reach = table.numbers(COLUMNS["fixations"][name], rows).max()
        if reach > side * (1 + _SIZE_ERROR) + 1:
            what = f"{image_path} is {side} pixels {sense}, gaze reaches {reach:g}"
            raise BadInputError("no_metadata_row", image_path, f"{what}: it was made smaller")


def labels(row: Mapping[str, str]) -> tuple[dict[str, float], Counter[str]]:
    """Read the master sheet's 0/1 and CheXpert columns; blanks are left out, damage is counted."""
    declared = manifest("eye-gaze")["labels"]
    found, notes = extras.labels(row, declared["columns"], tuple(declared["values"]))
    missing = [name for name in declared["columns"] if name not in row]
    if len(missing) == len(declared["columns"]):
        notes["without_labels"] = 1
    else:
        notes["labels_left_out"] += len(missing)
    return {f"eye_gaze:{name}": value for name, value in found.items()}, notes


def pads(row: Mapping[str, str], path: str) -> Pads:
    """Read the image's border from its master sheet row."""
    names = COLUMNS["master_sheet"]
    border = Pads(*(number(row.get(names[side], ""), path, names[side]) for side in Pads._fields))
    if min(shown_px(border)) <= 0 or min(border) < 0:
        raise BadInputError("bad_number", path, f"{path}: pads {tuple(border)} leave no image")
    return border


def fixations(
    table: Table, image: str, width: int, height: int, border: Pads, vertical: str
) -> tuple[Fixations, dict[str, int]]:
    """Read one image's fixations; rows with FPOGV = 0 are none.

    Parameters
    ----------
    table : Table
        ``fixations.csv``, of any number of images.
    width, height : int
        Of the original image.
    vertical : {"released", "stretched", "letterboxed"}
        How Y_ORIGINAL is understood, see `remap_vertical`.

    Returns
    -------
    Fixations, dict
        And the counts of rows mended or doubted.
    """
    names = COLUMNS["fixations"]
    shown = table.rows_where(names["dicom_id"], image)
    valid = valid_rows(table, image)
    blinks = sorted({*shown} - {*valid})
    _check_one_session(table, valid, image)
    begin_s = table.numbers(names["begin"], valid)
    end_s = begin_s + table.numbers(names["duration"], valid)
    check_intervals(begin_s, end_s, table.path, lambda at: table.place_of_row(valid[at]))
    x_px, y_px = table.numbers(names["x"], valid), table.numbers(names["y"], valid)
    late = np.abs(_optional(table, valid, names["time"]) - end_s) >= _TIME_TOLERANCE_S
    once = np.isin(valid, table.distinct(valid, names.values()))
    rounded_up = (x_px == width) | (y_px == height)
    x_px, y_px = np.where(x_px == width, x_px - 1, x_px), np.where(y_px == height, y_px - 1, y_px)
    scale_x, scale_y = px_per_screen_px(width, height, border)
    degree = np.full(len(valid), manifest("eye-gaze")["screen"]["px_per_degree"])
    mended = {
        "rows_that_are_no_fixations": len(table.distinct(blinks, names.values())),
        "rounded_to_edge": int(rounded_up[once].sum()),
        "time_is_not_fixation_end": int(late[once].sum()),
    }
    y_px = remap_vertical(y_px, height, border, vertical)
    return Fixations(begin_s, end_s, x_px, y_px, degree * scale_x, degree * scale_y), mended


def samples(
    table: Table, image: str, width: int, height: int, border: Pads, vertical: str
) -> Fixations:
    """Map one image's samples from the screen to it, as the release maps fixations (FORMATS 2.1).

    The release has such positions of fixations alone; its whole numbers are pixels' own.
    """
    names, screen = COLUMNS["samples"], manifest("eye-gaze")["screen"]
    _check_sessions(table, range(len(table)), image)
    time_s = table.numbers(names["time"])
    check_intervals(time_s, time_s, table.path, table.place_of_row)
    lost = table.numbers(names["valid"]) == 0
    x, y = (np.where(lost, np.nan, table.numbers_or_nan(names[name])) for name in "xy")
    across, down = (
        screen["width"] - border.left - border.right,
        screen["height"] - border.top - border.bottom,
    )
    even_width, even_height = width + width % 2, height + height % 2
    x_px = (x * screen["width"] - border.left) * even_width / across - 0.5
    y_px = (y * screen["height"] - border.top) * even_height / down - 0.5
    y_px = remap_vertical(y_px, height, border, vertical)
    degree = np.full(len(table), screen["px_per_degree"])
    scale_x, scale_y = px_per_screen_px(width, height, border)
    return Fixations(time_s, time_s, x_px, y_px, degree * scale_x, degree * scale_y)


def samples_of(
    planned: PlannedReading, files: InputFiles, home: str, options: SourceOptions
) -> Table | None:
    """Read a reading's rows of the table of samples in a folder, if they are to be read."""
    if options.gaze_from != "samples":
        return None
    names, path = COLUMNS["samples"], f"{home}{_TABLES['samples']['file']}"
    return files.excerpt(path, names["dicom_id"], planned.dicom_id, [*names.values()])


def valid_rows(table: Table, image: str) -> list[int]:
    """Find one image's fixations among the table's rows: blinks and saccades have FPOGV = 0."""
    names = COLUMNS["fixations"]
    shown = table.rows_where(names["dicom_id"], image)
    is_valid = table.numbers(names["valid"], shown) != 0
    return [row for row, keep in zip(shown, is_valid, strict=True) if keep]


def _optional(table: Table, rows: Sequence[int], name: str) -> FloatArray:
    """Read numbers that a heatmap does not need; NaN where they are absent or damaged."""
    cells = table.columns.get(name)
    return known_numbers(cells[row] if cells else "" for row in rows)


def shown_px(border: Pads) -> tuple[float, float]:
    """Take an image's width and height on the screen from what its border leaves of the canvas."""
    screen = manifest("eye-gaze")["screen"]
    return (
        screen["width"] - border.left - border.right,
        screen["canvas_height"] - border.top - border.bottom,
    )


def px_per_screen_px(width: int, height: int, border: Pads) -> tuple[float, float]:
    """Compare the image with its place on the canvas: original pixels per screen pixel."""
    shown_width, shown_height = shown_px(border)
    return width / shown_width, height / shown_height


def remap_vertical(y_px: FloatArray, height: int, border: Pads, vertical: str) -> FloatArray:
    """Undo the released vertical mapping and map again for another display of the canvas.

    The release divides by 1080 lines although the canvas has 1024. If the screen stretched the
    canvas, or showed it between black bands, points lie elsewhere (FORMATS 5.2, unresolved).
    Negative values, the off-image sentinel, stay.
    """
    if vertical == "released":
        return y_px
    screen = manifest("eye-gaze")["screen"]
    lines, canvas = screen["height"], screen["canvas_height"]
    even_height = height + height % 2  # the release rounds odd sizes up
    shown = lines - border.top - border.bottom
    screen_y = y_px * shown / even_height + border.top
    if vertical == "stretched":
        canvas_y = screen_y * canvas / lines
    else:
        canvas_y = screen_y - (lines - canvas) / 2
    mapped = (canvas_y - border.top) * even_height / (canvas - border.top - border.bottom)
    return np.where(y_px < 0, y_px, mapped)


def boxes(table: Table | None, image: str, notes: Counter[str]) -> list[Region]:
    """Read one image's anatomical boxes; what is missing or damaged is left out and counted."""
    names = COLUMNS["boxes"]
    told = table.rows_where(names["dicom_id"], image) if table else []
    rows = table.distinct(told, names.values()) if table else []
    notes["regions_twice"] += len(told) - len(rows)
    notes["tables_perhaps_cut"] += table is not None and RowsOfFile.of(table, told).is_cut
    if table is None or not rows:  # about 17 an image, FORMATS 2.3
        notes["region_tables_left_out"] += 1
        return []
    said = [table.columns[names["name"]][row].strip() for row in rows]
    named = [row for row, name in zip(rows, said, strict=True) if any(map(str.isalpha, name))]
    notes["regions_left_out"] += len(rows) - len(named)
    return [
        Region(table.columns[names["name"]][row].strip(), "box", *corners)
        for row, corners in extras.corners(table, names, named, notes)
    ]


def _check_one_session(table: Table, rows: list[int], image: str) -> None:
    if not table.rows_where(COLUMNS["fixations"]["dicom_id"], image):
        raise BadInputError("no_gaze_rows", table.path, f"{table.path} has no row of {image}")
    if not rows:
        what = f"{table.path} has no valid fixation of {image}"
        raise BadInputError("no_fixations", table.path, what)
    _check_sessions(table, rows, image)


def _check_sessions(table: Table, rows: Sequence[int], image: str) -> None:
    said = table.columns[COLUMNS["fixations"]["session"]]
    sessions = sorted({said[row].strip().removesuffix(".0") for row in rows})
    if len(sessions) > 1:
        what = f"{table.path} has {image} in sessions {', '.join(sessions)}"
        raise BadInputError("several_sessions", table.path, what)


# -- the tree -------------------------------------------------------------------------------------


class EyeGaze:
    """The native EYE GAZE (egd-cxr) tree."""

    name = "eye_gaze"
    looks_like = f"{_SHEET} and {_TRANSCRIPTS['folder']}"
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for the master sheet."""
        return bool(files.tables_matching("", _SHEET))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read the master sheet, and hand each reading its rows of the tables of all readings."""
        tables = cxr_tree(files).tables(files)
        plans = plan_tables(files, [_SHEET], MASTER_SHEET, files.folders(_TRANSCRIPTS["folder"]))
        return by_subject(_with_rows(with_image_facts(plans, tables), files))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's transcript."""
        path = cxr_tree(files).image(files, planned)
        transcript = f"{_TRANSCRIPTS['folder']}/{planned.dicom_id}/{_TRANSCRIPTS['file']}"
        return raw_reading(
            planned,
            planned.tables,
            (files.read(transcript), transcript),
            planned.facts,
            path,
            lambda: image_size(files, path),
            options,
            samples_of(planned, files, "", options),
        )


SOURCE = EyeGaze()


def _with_rows(
    plans: Iterable[PlannedReading | Reject], files: InputFiles
) -> Iterator[PlannedReading | Reject]:
    """Hand each reading its rows; without gaze all are rejected, without boxes none has them."""
    listed = list(plans)
    images = {plan.reading_id for plan in listed if isinstance(plan, PlannedReading)}

    def excerpts(kind: str) -> dict[str, Table]:
        table = files.columns(_TABLES[kind]["file"], list(COLUMNS[kind].values()), REQUIRED[kind])
        return table.excerpts(COLUMNS[kind]["dicom_id"], images)

    try:
        gaze = excerpts("fixations")
    except BadInputError as error:
        for plan in listed:
            yield plan if isinstance(plan, Reject) else Reject.of(error, *plan.key, "plan")
        return
    boxes: dict[str, Table] = {}
    try:
        boxes = excerpts("boxes")
    except BadInputError as error:
        files.remark(
            _TABLES["boxes"]["file"], f"passed over, so that no reading has boxes ({error})"
        )
    for plan in listed:
        if isinstance(plan, PlannedReading):
            rows = {"fixations": gaze[plan.reading_id]}
            rows |= {"boxes": boxes[plan.reading_id]} if boxes else {}
            plan = replace(plan, tables=rows)
        yield plan
