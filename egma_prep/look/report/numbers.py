"""Tables of a run to the numbers of its report, small cells left out where asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from egma_prep.etl.card import inputs_of, known_split
from egma_prep.etl.small_cells import coarse
from egma_prep.gaze.sentences import is_word
from egma_prep.options import Options

Rows = list[tuple[str, ...]]

_BINS = 24


@dataclass(frozen=True)
class Told:
    """How numbers are told; series of values are indexed by patient.

    Attributes
    ----------
    least : int
        Figures about fewer patients are not told; above 1, counts are rounded to its multiples, so
        that none can be had by subtraction.
    """

    least: int

    def may(self, values: "pd.Series[Any]") -> bool:
        """Tell whether values are of enough patients for a figure about them."""
        return values.index.nunique() >= self.least

    def count(self, number: int, patients: int | None = None) -> str:
        """Write a count of what so many patients have; without them, a count of patients."""
        told = coarse(number, patients, self.least)
        return "–" if told is None else f"{told:,}" if isinstance(told, int) else told

    def share(self, which: "pd.Series[bool]") -> str:
        """Write how large a share is true, unless either side is of too few patients."""
        sides = [side for side in (which[which], which[~which]) if len(side)]
        if not sides or not all(map(self.may, sides)):
            return "–"
        return f"{which.mean():.1%}" if self.least == 1 else f"{which.mean():.0%}"

    def quantiles(self, values: "pd.Series[float]") -> str:
        """Write the median and quartiles."""
        if not self.may(values):
            return "–"
        low, middle, high = values.quantile([0.25, 0.5, 0.75])
        return f"{middle:.3g} ({low:.3g} to {high:.3g})"


class CountTable(NamedTuple):
    """Rows of text under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: Rows


class Distribution(NamedTuple):
    """Values of one quantity over all that have it, indexed by patient."""

    title: str
    unit: str
    values: "pd.Series[float]"


def facts(run: dict[str, Any], told: Told) -> Rows:
    """Summarise a run's record without paths, ids or rows."""
    numbers, inputs = run["counts"], inputs_of(run)
    names = ("planned", "written", "rejected", "images", "sentences")
    return [
        *((name, told.count(numbers[name])) for name in names),
        ("input", f"{inputs['files']:,} files, {inputs['bytes'] / 1e6:,.0f} MB"),
        ("input fingerprint", inputs["sha256"]),
        ("layout", run["source"]),
        ("schema", run["schema_version"]),
        ("software", ", ".join(f"{name} {one}" for name, one in run["software"].items())),
    ]  # fmt: skip


def counts(
    run: dict[str, Any], readings: pd.DataFrame, rejects: pd.DataFrame, told: Told
) -> list[CountTable]:
    """Count readings by dataset, split and reason of rejection."""
    columns = ("dataset", "readings", "patients", "images", "sentences", "words", "gaze, h")
    named = readings.split.fillna("none")
    named = named.map(known_split) if told.least > 1 else named
    splits = readings.assign(split=named).groupby(["dataset", "split"])
    reasons = rejects.groupby(["stage", "reason"])
    rejected, planned = run["counts"]["rejected"], run["counts"]["planned"]
    return [
        CountTable(
            "By dataset",
            columns,
            [_of_dataset(str(name), some, told) for name, some in readings.groupby("dataset")],
        ),
        CountTable(
            "By split",
            ("dataset", "split", "readings", "patients"),
            [
                (*pair, told.count(len(some), patients), told.count(patients))
                for pair, some in _by_pair(splits)
                for patients in [some.subject_id.nunique()]
            ],
        ),
        CountTable(
            f"Rejected: {told.count(rejected)} of {told.count(planned)} planned",
            ("stage", "reason", "readings and files"),
            [(*pair, told.count(len(some))) for pair, some in _by_pair(reasons)],
        ),
    ]


def _by_pair(groups: Any) -> Iterable[tuple[tuple[str, str], pd.DataFrame]]:
    return (((str(one), str(other)), some) for (one, other), some in groups)


def _of_dataset(name: str, some: pd.DataFrame, told: Told) -> tuple[str, ...]:
    patients = some.subject_id.nunique()
    numbers = [len(some), patients, some.dicom_id.nunique()]
    numbers += [int(some[column].sum()) for column in ("sentences", "words")]
    hours = f"{some.gaze_seconds.sum() / 3600:.1f}" if patients >= told.least else "–"
    return (name, *(told.count(number, patients) for number in numbers), hours)


def distributions(
    readings: pd.DataFrame, words: pd.DataFrame, passages: pd.DataFrame, level: str
) -> list[Distribution]:
    """Take what is shown as a histogram; `level` says what the passages are."""
    timed = words.dropna(subset=["begin", "end"]).groupby(["subject_id", "dataset", "reading_id"])
    length_s = (timed["end"].max() - timed["begin"].min()).droplevel([1, 2])
    readings, passages = readings.set_index("subject_id"), passages.set_index("subject_id")
    seen = readings[readings.fixations > 0]
    off_image = 1 - seen.fixations_on_image / seen.fixations
    return [
        Distribution("Length of the dictation", "s", length_s),
        Distribution("Fixations in a reading", "", readings.fixations),
        Distribution("Words in a reading", "", readings.words),
        Distribution("Sentences in a reading", "", readings.sentences),
        Distribution(f"Gaze in a {level}'s window", "s", passages.gaze_seconds),
        Distribution("Fixations off the image, share of a reading's", "", off_image),
    ]


def gaze_of_words(
    words: pd.DataFrame, passages: pd.DataFrame, options: Options, told: Told
) -> Rows:
    """Compare how many sentences, and how many words, have no gaze (the paper's Fig. 3)."""
    passages = passages.set_index("subject_id")
    rows = [(options.render.level, passages.gaze_seconds)]
    spoken = words[words.text.map(is_word)].set_index("subject_id")
    if not options.output.privacy:
        key = ["subject_id", "dataset", "reading_id", "sentence_index"]
        by_sentence = spoken.groupby(key).gaze_seconds.sum().droplevel([1, 2, 3])
        rows = [("sentence, its words alone", by_sentence), ("word", spoken.gaze_seconds)]
        if options.render.level == "sentence":
            rows.insert(0, ("sentence, its whole window", passages.gaze_seconds))
    return [(name, *_without_gaze(gaze, told)) for name, gaze in rows]


def _without_gaze(gaze_s: "pd.Series[float]", told: Told) -> Iterable[str]:
    none = gaze_s <= 0
    numbers = [told.count(len(one), one.index.nunique()) for one in (gaze_s, gaze_s[none])]
    return *numbers, told.share(none), told.quantiles(gaze_s)


def bins(values: "pd.Series[float]", told: Told) -> tuple[Any, Any]:
    """Count values in 24 bins, those of enough patients; extremes then fall into the outer bins."""
    known = values.dropna().astype(float)
    if told.least > 1 and len(known):
        # The longest reading of all is one person's: its length may tell whose.
        known = known.clip(*np.quantile(known, [0.02, 0.98]))
    edges = np.histogram_bin_edges(known, bins=_BINS)
    at = np.searchsorted(edges[1:-1], known, side="right")
    number = np.bincount(at, minlength=_BINS)
    patients = known.index.to_series().groupby(at).nunique().reindex(range(_BINS), fill_value=0)
    return np.where(patients < told.least, 0, number // told.least * told.least), edges
