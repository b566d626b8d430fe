"""A REFLACX reading's files (FORMATS, section 1)."""

import re
from collections.abc import Callable, Mapping

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.manifests import manifest
from egma_prep.parse.csv_file import Table
from egma_prep.parse.values import (
    check_intervals,
    dicom_id,
    flag,
    optional_number,
    pixels,
    require_words,
    safe_id,
)
from egma_prep.readings import Fixations, ImageFacts, PlannedReading, RawReading, Region, Words

DATASET = "reflacx"
METADATA, ID = "metadata", "reading_id"

_STUDY = re.compile(r"/s(\d+)/")


def columns(table: str) -> dict[str, str]:
    """Map our names to the released column names of one table."""
    return manifest("reflacx")["tables"][table]["columns"]


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one metadata row, of one phase's table or of several.

    Raises
    ------
    BadInputError
        If its ids cannot be used, or its authors discarded it.
    """
    names = columns("metadata")
    reading_id = safe_id(row[names["reading_id"]], path, "the reading id")
    if flag(row[names["discarded"]], path, names["discarded"]):
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
) -> RawReading:
    """Read one reading's four tables.

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
    """
    names, row, metadata = columns("metadata"), planned.row, planned.metadata_path
    image, study = image_and_study(row, metadata)

    def table(kind: str) -> Table:
        file = manifest("reflacx")["tables"][kind]["file"]
        return read_table(file, list(columns(kind).values()))

    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=study,
        dicom_id=image,
        split=row[names["split"]].strip() or cxr.split,
        view=cxr.view,
        image_path=image_path,
        width=pixels(row[names["width"]], metadata, names["width"]),
        height=pixels(row[names["height"]], metadata, names["height"]),
        fixations=fixations(table("fixations")),
        words=words(table("words")),
        labels=dict(cxr.labels) | labels(row, metadata),
        regions=regions(table("ellipses"), table("chest_box")),
    )


def study_id(image: str, path: str) -> str:
    """Take the study from a DICOM path; the metadata have no column for it."""
    found = _STUDY.search(image.replace("\\", "/"))
    if found is None:
        raise BadInputError("bad_id", path, f"the image path {image!r} names no study")
    return safe_id(found[1], path, "the study id")


def labels(row: Mapping[str, str], path: str) -> dict[str, float]:
    """Read the certainties and flags that the reading's phase asked for."""
    declared = manifest("reflacx")["labels"]
    found: dict[str, float | None] = {}
    for name in declared["certainty"]:
        found[name] = optional_number(row.get(name, ""), path, name)
    for name in declared["flags"]:
        value = flag(row.get(name, ""), path, name)
        found[name] = None if value is None else float(value)
    return {f"reflacx:{name}": value for name, value in found.items() if value is not None}


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


def regions(ellipses: Table, chest_box: Table) -> list[Region]:
    """Read the ellipses, one region for each label of each, and the chest box."""
    found = []
    declared = manifest("reflacx")["labels"]
    names = [name for name in declared["certainty"] if name in ellipses.columns]
    for row, corners in enumerate(_corners(ellipses, "ellipses")):
        cells = ellipses.row(row)
        certainty = ellipses.numbers(columns("ellipses")["certainty"], [row])[0]
        for name in names:
            if flag(cells[name], ellipses.path, ellipses.place(row, name)):
                found.append(Region(name, "ellipse", *corners, float(certainty)))
    boxes = _corners(chest_box, "chest_box")
    return found + [Region("chest", "box", *corners) for corners in boxes]


def _corners(table: Table, kind: str) -> list[tuple[float, float, float, float]]:
    names = columns(kind)
    x = np.sort([table.numbers(names[name]) for name in ("x0", "x1")], axis=0)
    y = np.sort([table.numbers(names[name]) for name in ("y0", "y1")], axis=0)
    return list(zip(*(side.tolist() for side in (x[0], y[0], x[1], y[1])), strict=True))
