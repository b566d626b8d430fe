"""Tables of a run to the numbers of its report, small cells left out where asked."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from egma_prep.options import Options
from egma_prep.sentences import is_word

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Told:
    """How numbers are told.

    Attributes
    ----------
    least : int
        Smaller cells are not told; above 1, counts are rounded to its multiples, so that none can
        be had by subtraction.
    """

    least: int

    def count(self, number: int) -> str:
        """Write a count."""
        if 0 < number < self.least:
            return f"<{self.least}"
        return f"{int(number) // self.least * self.least:,}"

    def share(self, number: int, of: int) -> str:
        """Write a share of a count, unless either, or the rest, is a small cell."""
        if of == 0 or any(0 < one < self.least for one in (number, of, of - number)):
            return "–"
        return f"{number / of:.1%}" if self.least == 1 else f"{number / of:.0%}"

    def quantiles(self, values: "pd.Series[float]") -> str:
        """Write the median and quartiles."""
        if len(values) < max(self.least, 1):
            return "–"
        low, middle, high = values.quantile([0.25, 0.5, 0.75])
        return f"{middle:.3g} ({low:.3g} to {high:.3g})"


class CountTable(NamedTuple):
    """Rows of text under a heading."""

    title: str
    columns: tuple[str, ...]
    rows: Rows


class Distribution(NamedTuple):
    """Values of one quantity over all that have it."""

    title: str
    unit: str
    values: "pd.Series[float]"


def facts(record: dict[str, Any], told: Told) -> Rows:
    """Summarise a run's record that has no paths, ids or rows (`egma_prep.card.shareable`)."""
    numbers, inputs = record["counts"], record["inputs"]
    names = ("planned", "written", "rejected", "images", "sentences")
    return [
        *((name, told.count(numbers[name])) for name in names),
        ("input", f"{inputs['files']:,} files, {inputs['bytes'] / 1e6:,.0f} MB"),
        ("input fingerprint", inputs["sha256"]),
        ("layout", record["source"]),
        ("schema", record["schema_version"]),
        ("software", ", ".join(f"{name} {one}" for name, one in record["software"].items())),
    ]  # fmt: skip


def counts(
    run: dict[str, Any], readings: pd.DataFrame, rejects: pd.DataFrame, told: Told
) -> list[CountTable]:
    """Count readings by dataset, split and reason of rejection."""
    columns = ("dataset", "readings", "patients", "images", "sentences", "words", "gaze, h")
    splits = readings.assign(split=readings.split.fillna("none")).groupby(["dataset", "split"])
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
                (*pair, told.count(len(some)), told.count(some.subject_id.nunique()))
                for pair, some in _by_pair(splits)
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
    numbers = [len(some), some.subject_id.nunique(), some.dicom_id.nunique()]
    numbers += [int(some[column].sum()) for column in ("sentences", "words")]
    hours = f"{some.gaze_seconds.sum() / 3600:.1f}" if len(some) >= told.least else "–"
    return (name, *map(told.count, numbers), hours)


def distributions(
    readings: pd.DataFrame, words: pd.DataFrame, passages: pd.DataFrame, level: str
) -> list[Distribution]:
    """Take what is shown as a histogram; `level` says what the passages are."""
    key = ["dataset", "reading_id"]
    timed = words.dropna(subset=["begin", "end"]).groupby(key)
    length_s = timed["end"].max() - timed["begin"].min()
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
    rows = [(options.render.level, passages.gaze_seconds)]
    spoken = words[words.text.map(is_word)]
    if not options.output.privacy:
        by_sentence = spoken.groupby(["dataset", "reading_id", "sentence_index"]).gaze_seconds
        rows = [("sentence, its words alone", by_sentence.sum()), ("word", spoken.gaze_seconds)]
        if options.render.level == "sentence":
            rows.insert(0, ("sentence, its whole window", passages.gaze_seconds))
    return [(name, *_without_gaze(gaze, told)) for name, gaze in rows]


def _without_gaze(gaze_s: "pd.Series[float]", told: Told) -> Iterable[str]:
    none = int((gaze_s <= 0).sum())
    share = told.share(none, len(gaze_s))
    return told.count(len(gaze_s)), told.count(none), share, told.quantiles(gaze_s)


def bins(values: "pd.Series[float]", told: Told) -> tuple[Any, Any]:
    """Count values in 24 bins; where small cells are hidden, extremes fall into the outer bins."""
    known = np.asarray(values.dropna(), dtype=float)
    if told.least > 1 and len(known):
        known = np.clip(known, *np.quantile(known, [0.02, 0.98]))
    number, edges = np.histogram(known, bins=24)
    return np.where(number < told.least, 0, number // told.least * told.least), edges
