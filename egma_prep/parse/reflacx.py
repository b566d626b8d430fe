"""A REFLACX reading's files (FORMATS, section 1)."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import product

from egma_prep.errors import BadInputError
from egma_prep.manifests import manifest, required_columns
from egma_prep.parse import extras
from egma_prep.parse.csv_file import Table
from egma_prep.parse.extras import noting
from egma_prep.parse.values import (
    check_intervals,
    dicom_id,
    flag,
    is_blank,
    label,
    pixels,
    require_words,
    safe_id,
)
from egma_prep.readings import (
    Fixations,
    ImageFacts,
    PlannedReading,
    RawReading,
    Region,
    RowsOfFile,
    Words,
)

DATASET = "reflacx"
METADATA, ID = "metadata", "reading_id"

_STUDY = re.compile(r"/s(\d+)/[^/]*$")


def columns(table: str) -> dict[str, str]:
    """Map our names to the released column names of one table."""
    return manifest("reflacx")["tables"][table]["columns"]


def required(table: str) -> list[str]:
    """List the columns without which a table says nothing."""
    return required_columns("reflacx", table)


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
    subject = safe_id(row[names["subject_id"]], path, "the subject id")
    return PlannedReading(DATASET, reading_id, subject, path, row)


def image_and_study(row: Mapping[str, str], path: str) -> tuple[str, str]:
    """Take the DICOM id and the study id from a metadata row."""
    names = columns("metadata")
    return dicom_id(row[names["dicom_id"]], path), study_id(row[names["image"]], path)


def raw_reading(
    planned: PlannedReading,
    read_table: Callable[[str, list[str]], Table],
    cxr: ImageFacts,
    image_path: str,
    measured: Callable[[], tuple[int, int]],
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
    """
    names, row, metadata = columns("metadata"), planned.row, planned.metadata_path
    image, study = image_and_study(row, metadata)
    split = extras.known_split(row.get(names["split"], "")) or cxr.split
    found, notes = labels(row, metadata)
    notes.update(cxr.notes)
    notes.update(extras.absent(split, cxr.view))
    size = _size(row, metadata) or cxr.size
    if size is None:
        size, notes["size_by_image"] = measured(), 1

    def table(kind: str) -> Table:
        return read_table(manifest("reflacx")["tables"][kind]["file"], required(kind))

    gaze, spoken = table("fixations"), table("words")
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=study,
        dicom_id=image,
        split=split,
        view=cxr.view,
        image_path=image_path,
        width=size[0],
        height=size[1],
        fixations=fixations(gaze),
        words=words(spoken),
        labels=dict(cxr.labels) | found,
        regions=regions(table, notes),
        notes=notes,
        fixation_rows=RowsOfFile.of(gaze),
        word_rows=RowsOfFile.of(spoken),
    )


def study_id(image: str, path: str) -> str:
    """Take the study from a DICOM path; the metadata have no column for it."""
    found = _STUDY.search(image.replace("\\", "/"))  # other folders may be named s1, too
    if found is None:
        raise BadInputError("bad_id", path, f"the image path {image!r} names no study")
    return safe_id(found[1], path, "the study id")


def _size(row: Mapping[str, str], path: str) -> tuple[int, int] | None:
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
    return found


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
        rows = extras.corners(box, columns("chest_box"), range(len(box)), notes)
        found += [Region("chest", "box", *corners) for _, corners in rows]
        notes["region_tables_left_out"] += not len(box)  # each reading has one, FORMATS 1.7
    return found


def _ellipses(table: Table, notes: Counter[str]) -> list[Region]:
    declared, names = manifest("reflacx")["labels"], columns("ellipses")
    values = tuple(declared["certainties"])
    found = []
    rows = extras.corners(table, names, range(len(table)), notes)
    there = [name for name in declared["certainty"] if name in table.columns]
    for (row, corners), name in product(rows, there):
        cells = table.row(row)
        with noting(notes, "regions_left_out"):
            if flag(cells[name], table.path, table.place(row, name)):
                cell, where = cells.get(names["certainty"], ""), table.place(row, "certainty")
                certainty = None if is_blank(cell) else label(cell, values, table.path, where)
                found.append(Region(name, "ellipse", *corners, certainty))
    return found
