"""What a source hands on: one reading's gaze, words, labels and regions, in original pixels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_prep.parse.csv_file import Table

FloatArray = NDArray[np.float64]
Size = tuple[int, int]


class ImageFacts(NamedTuple):
    """What MIMIC-CXR-JPG's tables know of an image; None where one or its row is missing.

    `notes` counts what was left out of them, by `errors.NOTES`.
    """

    size: tuple[int, int] | None = None
    view: str | None = None
    split: str | None = None
    labels: Mapping[str, float] = MappingProxyType({})
    notes: Mapping[str, int] = MappingProxyType({})


_NOTHING_KNOWN = ImageFacts()


@dataclass(frozen=True)
class PlannedReading:
    """A reading that the metadata promise.

    Attributes
    ----------
    dataset, reading_id : str
        The key.
    subject_id : str
        Digits; decides the part.
    metadata_path : str
        The table that lists it, relative to DATA.
    row : mapping
        What the table says of it, as text.
    facts : ImageFacts
        Where the source has tables of all images.
    tables : mapping
        Its rows of tables that hold all readings'.
    """

    dataset: str
    reading_id: str
    subject_id: str
    metadata_path: str
    row: Mapping[str, str] = field(default_factory=dict)
    facts: ImageFacts = _NOTHING_KNOWN
    tables: Mapping[str, Table] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and reading id."""
        return self.dataset, self.reading_id

    @property
    def content(self) -> list[Any]:
        """All that is planned of it, as JSON can hold it."""
        rows = {name: [table.path, table.columns] for name, table in self.tables.items()}
        known = self.facts
        facts = [known.size, known.view, known.split, dict(known.labels), dict(known.notes)]
        return [*self.key, self.subject_id, self.metadata_path, dict(self.row), facts, rows]


class Fixations(NamedTuple):
    """Fixations in file order, each field ``(n,)``; none in a reading without gaze."""

    begin_s: FloatArray
    end_s: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    px_per_deg_x: FloatArray
    px_per_deg_y: FloatArray


class Words(NamedTuple):
    """Dictated tokens in spoken order, punctuation included; times are NaN in a written report."""

    text: list[str]
    begin_s: FloatArray
    end_s: FloatArray


class Region(NamedTuple):
    """A named box or ellipse; certainty is None where the dataset gives none."""

    name: str
    kind: str
    x0: float
    y0: float
    x1: float
    y1: float
    certainty: float | None = None


class RowsOfFile(NamedTuple):
    """Where arrays were read: the file, relative to DATA, and what to call their rows there."""

    path: str = ""
    place: Callable[[int], str] = lambda row: f"row {row + 1}"

    @classmethod
    def of(cls, table: Table, rows: Sequence[int] | None = None) -> "RowsOfFile":
        """Name a table's rows, or some of them, as they are counted in its file."""

        def place(row: int) -> str:
            return f"row {table.row_in_file(row if rows is None else rows[row])}"

        return cls(table.path, place)


_NO_FILE = RowsOfFile()


@dataclass(frozen=True)
class RawReading:
    """One reading as its source understood it.

    Attributes
    ----------
    image_path : str
        Relative to DATA.
    width, height : int
        Size in pixels of the image that the coordinates refer to, by the metadata.
    notes : mapping
        Counts of things that a user should know were mended or left out.
    paragraphs : tuple of int
        Words that begin a paragraph of a written report; no sentence runs across.
    fixation_rows, word_rows : RowsOfFile
        For messages.
    shown_px : tuple, optional
        Width and height on the reader's screen, where no metadata tell the image's size.
    """

    dataset: str
    reading_id: str
    subject_id: str
    study_id: str
    dicom_id: str
    split: str | None
    view: str | None
    image_path: str
    width: int
    height: int
    fixations: Fixations
    words: Words
    labels: dict[str, float]
    regions: list[Region]
    notes: Mapping[str, int] = field(default_factory=dict)
    paragraphs: tuple[int, ...] = ()
    fixation_rows: RowsOfFile = _NO_FILE
    word_rows: RowsOfFile = _NO_FILE
    shown_px: tuple[float, float] | None = None
