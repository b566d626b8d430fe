"""What a source hands on: one reading's gaze, words, labels and regions, in original pixels."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


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
    """

    dataset: str
    reading_id: str
    subject_id: str
    metadata_path: str
    row: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        """Dataset and reading id."""
        return self.dataset, self.reading_id


class Fixations(NamedTuple):
    """Fixations in file order, each field ``(n,)``."""

    begin_s: FloatArray
    end_s: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    px_per_deg_x: FloatArray
    px_per_deg_y: FloatArray


class Words(NamedTuple):
    """Dictated tokens in spoken order, punctuation included."""

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
