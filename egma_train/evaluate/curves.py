"""What lies behind a classification's figures, drawn: ROC, precision and recall, answers, trust."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_train.evaluate.figures import save_figure
from egma_train.evaluate.intervals import Floats, Labels
from egma_train.evaluate.zero_shot import log_shares

_BINS = 10


class Answers(NamedTuple):
    """What a model said of each image.

    Attributes
    ----------
    classes : list of str
        In the order of the columns.
    truth : ndarray
        ``(N,)``.
    shares : ndarray
        ``(N, classes)``: the softmax of the scaled scores.
    """

    classes: list[str]
    truth: Labels
    shares: Floats


def answers_of(report: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Answers:
    """Take the answers of a zero-shot report from its rows."""
    classes: list[str] = report["confusion"]["classes"]
    truth = np.array([classes.index(str(row["label"])) for row in rows])
    scores = np.array([[float(row[f"score {name}"]) for name in classes] for row in rows])
    return Answers(classes, truth, np.exp(log_shares(report["logit_scale"] * scores)))


def draw_beside(report: Mapping[str, Any], place: Path) -> None:
    """Draw the curves of a report beside it, if it is a classification's."""
    if "confusion" in report:
        title = f"{report['checkpoint']['name']}: {place.parent.name}"
        draw_curves(answers_of(report, report["rows"]), title, place.with_suffix(".svg"))


def calibration(answers: Answers, bins: int = _BINS) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Compare how sure the answers are with how often they are right.

    Returns
    -------
    tuple of ndarray
        ``(bins,)``: the mean of the largest share in each tenth, the share of right answers there,
        and how many there are; NaN where there are none.
    """
    sure = answers.shares.max(1)
    right = answers.shares.argmax(1) == answers.truth
    of = np.minimum((sure * bins).astype(np.int64), bins - 1)
    counts = np.bincount(of, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    how_sure = np.bincount(of, sure, bins) / some
    how_right = np.bincount(of, right.astype(np.float64), bins) / some
    return how_sure, how_right, counts


def expected_calibration_error(answers: Answers, bins: int = _BINS) -> float:
    """Average the distance between sure and right over the answers (Naeini et al. 2015)."""
    sure, right, counts = calibration(answers, bins)
    return float(np.nansum(np.abs(sure - right) * counts) / counts.sum())


def draw_curves(answers: Answers, title: str, target: Path) -> None:
    """Draw ROC and precision-recall by class, the answers by class, and their calibration."""
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays
    from sklearn.metrics import (
        auc,
        average_precision_score,
        confusion_matrix,
        precision_recall_curve,
        roc_curve,
    )

    figure = Figure(figsize=(11, 9.5), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10, parse_math=False)
    (roc, recall), (table, trust) = figure.subplots(2, 2)
    for number, name in enumerate(answers.classes):
        positive, share = answers.truth == number, answers.shares[:, number]
        if not 0 < positive.sum() < len(positive):
            continue
        false, true, _ = roc_curve(positive, share)
        roc.plot(false, true, label=f"{name}: {auc(false, true):.3f}")
        precision, found, _ = precision_recall_curve(positive, share)
        average = average_precision_score(positive, share)
        recall.plot(found, precision, label=f"{name}: {average:.3f}")
    roc.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    roc.set(title="ROC, each class against the rest (AUROC)", xlabel="false", ylabel="true")
    recall.set(
        title="Precision and recall (average precision)", xlabel="recall", ylabel="precision"
    )
    predicted = answers.shares.argmax(1)
    counts = confusion_matrix(answers.truth, predicted, labels=range(len(answers.classes)))
    table.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if count > counts.max() / 2 else "black"
        table.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)
    ticks = range(len(answers.classes))
    table.set_xticks(ticks, answers.classes, rotation=30, ha="right", fontsize=7)
    table.set_yticks(ticks, answers.classes, fontsize=7)
    table.set(title="Answers", xlabel="predicted", ylabel="truth")
    sure, right, numbers = calibration(answers)
    trust.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    trust.plot(sure, right, marker="o")
    for at, share, number in zip(sure, right, numbers, strict=True):
        if number:
            trust.annotate(str(number), (at, share), fontsize=7, xytext=(3, 3),
                           textcoords="offset points")  # fmt: skip
    error = expected_calibration_error(answers)
    trust.set(title=f"Calibration, error {error:.3f}", xlabel="how sure (softmax)", ylabel="right")
    for axis in (roc, recall):
        for text in axis.legend(fontsize=7).get_texts():
            text.set_parse_math(False)  # a class may have a dollar sign in its name
    for label in (*table.get_xticklabels(), *table.get_yticklabels()):
        label.set_parse_math(False)
    save_figure(figure, target, format="svg", metadata={"Date": None})
