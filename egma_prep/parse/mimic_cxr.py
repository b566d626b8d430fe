"""What MIMIC-CXR-JPG's tables say of an image (FORMATS, section 4)."""

from collections.abc import Mapping

import numpy as np

from egma_prep.manifests import manifest
from egma_prep.parse.csv_file import Table
from egma_prep.parse.report import report_words
from egma_prep.parse.values import dicom_id, optional_number, pixels, safe_id
from egma_prep.readings import Fixations, ImageFacts, PlannedReading, RawReading

DATASET = "mimic_cxr"
METADATA, ID = "metadata", "dicom_id"


def columns(table: str) -> dict[str, str]:
    """Map our names to the released column names of one table."""
    return manifest("mimic-cxr")["tables"][table]["columns"]


def needed_columns(table: str) -> list[str]:
    """List the columns that are read of one table."""
    labels = manifest("mimic-cxr")["labels"].get(table, [])
    return [*columns(table).values(), *labels]


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one image.

    Raises
    ------
    BadInputError
        If its ids cannot be used.
    """
    image, _ = image_and_study(row, path)
    subject = safe_id(row[columns(METADATA)["subject_id"]], path, "the subject id")
    kept = {name: row[name] for name in columns(METADATA).values()}
    return PlannedReading(DATASET, image, subject, path, kept)


def image_and_study(row: Mapping[str, str], path: str) -> tuple[str, str]:
    """Take the DICOM id and the study id from a metadata row."""
    names = columns(METADATA)
    return dicom_id(row[names[ID]], path), safe_id(row[names["study_id"]], path, "the study id")


def raw_reading(
    planned: PlannedReading, report_file: tuple[bytes, str], image_path: str
) -> RawReading:
    """Read an image's report; it has no gaze, and its words no times.

    Parameters
    ----------
    planned : PlannedReading
        Made by `plan_row`, with what the tables know of the image.
    report_file : tuple
        The study's report and its path.
    image_path : str
        For the reading; not opened here.
    """
    image, study = image_and_study(planned.row, planned.metadata_path)
    names, facts = columns(METADATA), planned.facts
    report = report_words(*report_file)
    width, height = (
        pixels(planned.row[names[side]], planned.metadata_path, names[side])
        for side in ("width", "height")
    )
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=study,
        dicom_id=image,
        split=facts.split,
        view=facts.view,
        image_path=image_path,
        width=width,
        height=height,
        fixations=Fixations(*(np.empty(0) for _ in Fixations._fields)),
        words=report.words,
        labels=dict(facts.labels),
        regions=[],
        notes=report.notes,
        paragraphs=report.paragraphs,
    )


class ImageTables:
    """The metadata, split and CheXpert tables, indexed by image and study; any may be missing."""

    def __init__(self, tables: dict[str, Table]) -> None:
        self._tables = tables
        self._rows: dict[str, dict[str, int]] = {}

    def facts(self, dicom_id: str, study_id: str) -> ImageFacts:
        """Look up one image.

        Raises
        ------
        BadInputError
            If its size or a label is no number.
        """
        return ImageFacts(
            self._size(dicom_id),
            self._cell("metadata", "view", dicom_id),
            self._cell("split", "split", dicom_id),
            self._labels(study_id),
        )

    def _row(self, kind: str, key: str, value: str) -> tuple[Table, int] | None:
        table = self._tables.get(kind)
        if table is None:
            return None
        if kind not in self._rows:
            cells = table.columns[columns(kind)[key]]
            numbered = [(cell.strip().removesuffix(".0"), row) for row, cell in enumerate(cells)]
            self._rows[kind] = dict(reversed(numbered))  # the first row of an id counts
        row = self._rows[kind].get(value)
        return None if row is None else (table, row)

    def _size(self, dicom_id: str) -> tuple[int, int] | None:
        found = self._row("metadata", "dicom_id", dicom_id)
        if found is None:
            return None
        (table, row), names = found, columns("metadata")
        width, height = (
            pixels(table.columns[names[side]][row], table.path, table.place(row, names[side]))
            for side in ("width", "height")
        )
        return width, height

    def _cell(self, kind: str, name: str, dicom_id: str) -> str | None:
        found = self._row(kind, "dicom_id", dicom_id)
        if found is None:
            return None
        table, row = found
        return table.columns[columns(kind)[name]][row].strip() or None

    def _labels(self, study_id: str) -> dict[str, float]:
        found = self._row("chexpert", "study_id", study_id)
        if found is None:
            return {}
        table, row = found
        values = {
            f"chexpert:{name}": optional_number(
                table.columns[name][row], table.path, table.place(row, name)
            )
            for name in manifest("mimic-cxr")["labels"]["chexpert"]
        }
        return {name: value for name, value in values.items() if value is not None}
