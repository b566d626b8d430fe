"""What a source hands on: one reading's gaze, words, labels and regions, in original pixels."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.sources.csv_table import Table
from egma_prep.sources.extras import known_split
from egma_prep.sources.files import IMAGES, Line
from egma_prep.sources.values import is_safe_id

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
    subject_id, study_id, dicom_id : str
        Of patient, study and image; the patient decides the part.
    metadata_path : str
        The table that lists it, relative to DATA.
    row : mapping
        What the table says of it, as text.
    facts : ImageFacts
        Where the source has tables of all images.
    tables : mapping
        Its rows of tables that hold all readings'.
    line : Line, optional
        Where its line stands in a file that is too large to keep; its place says nothing of it, so
        that `row` should hold the line's digest.
    """

    dataset: str
    reading_id: str
    subject_id: str
    study_id: str
    dicom_id: str
    metadata_path: str
    row: Mapping[str, str] = field(default_factory=dict)
    facts: ImageFacts = _NOTHING_KNOWN
    tables: Mapping[str, Table] = field(default_factory=dict)
    line: Line | None = field(default=None, compare=False)

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
    """Fixations in file order, each field ``(n,)``; none in a reading without gaze.

    Pixels a degree of visual angle are NaN where the reader's screen is not known.

    `shown_px` is ``(n, 4)``: x0, y0, x1, y1 of the part of the image that was on the screen, x1 and
    y1 not in it, NaN where not known; None where readers always see all of it.
    """

    begin_s: FloatArray
    end_s: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    px_per_deg_x: FloatArray
    px_per_deg_y: FloatArray
    shown_px: FloatArray | None = None

    @classmethod
    def none(cls) -> "Fixations":
        """Have none, in a reading without gaze."""
        return cls(*(np.empty(0) for _ in range(6)))

    def take(self, rows: Sequence[int]) -> "Fixations":
        """Keep some of them."""
        return Fixations(*(None if one is None else one[rows] for one in self))  # type: ignore[arg-type]


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
    """Where arrays were read: the file, relative to DATA, and what to call their rows there.

    `is_cut` tells that the file may be cut after them.
    """

    path: str = ""
    place: Callable[[int], str] = lambda row: f"row {row + 1}"
    is_cut: bool = False

    @classmethod
    def of(cls, table: Table, rows: Sequence[int] | None = None) -> "RowsOfFile":
        """Name a table's rows, or some of them, as they are counted in its file."""

        def place(row: int) -> str:
            return f"row {table.row_in_file(row if rows is None else rows[row])}"

        has_last = rows is None or len(table) - 1 in rows
        return cls(table.path, place, table.is_cut and has_last)


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


_LARGEST = float(np.finfo(np.float32).max)  # as labels and regions are stored


def typed_reading(raw: RawReading, planned: PlannedReading) -> RawReading:
    """Give a source's reading the types that `RawReading` promises.

    What a heatmap does not need is left out where its type is another, and counted in the notes.

    Raises
    ------
    BadInputError
        If what it needs is of another type, or cannot be what its source promised.
    """
    for name in ("dataset", "reading_id", "subject_id", "dicom_id", "image_path"):
        _demand(raw, name, _is_text(getattr(raw, name)))
    for name in ("dataset", "reading_id", "subject_id", "dicom_id"):
        if not is_safe_id(value := getattr(raw, name)):
            raise BadInputError("bad_id", "", f"its source gives the {name} {value[:60]!r}")
    is_planned = (*planned.key, planned.subject_id) == (
        raw.dataset,
        raw.reading_id,
        raw.subject_id,
    )
    _demand(raw, "dataset, reading_id and subject_id", is_planned, "other than it planned")
    path = PurePosixPath(raw.image_path.removeprefix(IMAGES))
    is_inside = not path.is_absolute() and ".." not in path.parts
    _demand(raw, "image_path", is_inside, f"not below DATA: {raw.image_path[:60]!r}")
    for name in ("width", "height"):
        size = getattr(raw, name)
        _demand(raw, name, isinstance(size, int | np.integer) and bool(size > 0))
    _demand(raw, "words.text", all(map(_is_text, raw.words.text)))
    stripped = all(word and word == word.strip() for word in raw.words.text)
    _demand(raw, "words.text", stripped, "with blanks around a word, or without a letter")
    shown_px = raw.fixations.shown_px
    fixations = Fixations(*_columns(raw, "fixations", raw.fixations[:6], finite=False))
    if shown_px is not None:
        is_shape = isinstance(shown_px, np.ndarray) and shown_px.shape == (len(fixations.x_px), 4)
        _demand(raw, "fixations.shown_px", is_shape and shown_px.dtype == np.float64)
        fixations = fixations._replace(shown_px=shown_px)
    _demand(raw, "fixations", bool(np.isfinite(np.array(fixations[:4])).all()))
    degrees = np.concatenate([fixations.px_per_deg_x, fixations.px_per_deg_y])
    known = degrees[~np.isnan(degrees)]
    sound = bool(((known > 0) & (known < np.inf)).all())
    _demand(raw, "fixations", sound, "with 0 or fewer pixels a degree, or endless ones")
    times_s = _columns(raw, "words", raw.words[1:], len(raw.words.text), finite=False)
    unknown = np.isnan(times_s)
    # A written report has no times at all, and nobody looked while it was written.
    as_promised = unknown.all() and not fixations.begin_s.size if unknown.any() else True
    _demand(raw, "words", bool(as_promised), "without times, though there is gaze or others have")
    labels = {
        name: float(value)
        for name, value in raw.labels.items()
        if _is_text(name) and name.partition(":")[1] and _is_number(value)
    }
    regions = [one for one in raw.regions if _is_region(one)]
    study_id = raw.study_id if _is_text(raw.study_id) else ""
    split = known_split(raw.split) if _is_text(raw.split) else None
    view = raw.view if _is_text(raw.view) else None
    left_out = len(raw.labels) - len(labels) + len(raw.regions) - len(regions)
    left_out += (study_id != raw.study_id) + (view != raw.view)
    left_out += split is None and raw.split is not None
    return replace(
        raw,
        study_id=study_id,
        split=split,
        view=view,
        fixations=fixations,
        words=Words(raw.words.text, *times_s),
        labels=labels,
        regions=regions,
        notes={**raw.notes, **({"extras_of_wrong_type": left_out} if left_out else {})},
    )


def _demand(raw: RawReading, name: str, is_so: bool, how: str = "in another type") -> None:
    if not is_so:
        what = f"its source gives {name} of reading {raw.reading_id!r} {how}"
        raise BadInputError("wrong_type", "", what)


def _columns(
    raw: RawReading, name: str, columns: Any, length: int | None = None, finite: bool = True
) -> list[FloatArray]:
    try:
        made = [np.asarray(column, dtype=np.float64) for column in columns]
    except (TypeError, ValueError):
        made = []
    shape = (len(columns[0]) if length is None else length,)
    sound = bool(made) and all(column.shape == shape for column in made)
    _demand(raw, name, sound and (not finite or all(np.isfinite(one).all() for one in made)))
    return made


def _is_text(value: object) -> TypeGuard[str]:
    """Tell what Arrow can store as text: half a character, which JSON can spell, it cannot."""
    return isinstance(value, str) and not any("\ud800" <= one <= "\udfff" for one in value)


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float | np.integer | np.floating):
        return False
    return math.isfinite(value) and abs(float(value)) <= _LARGEST


def _is_region(region: Region) -> bool:
    *names, certainty = (region.name, region.kind, region.certainty)
    numbers = (region.x0, region.y0, region.x1, region.y1, 0 if certainty is None else certainty)
    return all(map(_is_text, names)) and all(map(_is_number, numbers))
