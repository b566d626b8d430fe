"""Figures of a classification, and how sure they are, as pure functions over arrays."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from egma_train.evaluate.intervals import (
    Counts,
    Floats,
    Interval,
    Labels,
    auroc_interval,
    bounded_mean,
    design_effect,
    paired,
    paired_answers,
    paired_means,
    placements,
    resamples,
    swaps,
    table_interval,
)

Figure = Callable[[Counts], Floats]

FEW = 10
"""Below so many errors, or images of a class, coverage was measured below 92 % here and there."""


def confusion_matrix(truth: Labels, predicted: Labels, n_classes: int) -> Labels:
    """Count images by truth (rows) and prediction (columns)."""
    cells = truth * n_classes + predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(counts: Counts) -> float:
    """Share of images whose class is found."""
    return float(np.trace(counts) / counts.sum())


def recalls(counts: Counts) -> Floats:
    """Share of each class's images that are found ``(..., c)``; NaN for a class without images."""
    sizes = counts.sum(-1)
    found = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.where(sizes > 0, found / np.where(sizes > 0, sizes, 1), np.nan)


def balanced_accuracy(counts: Counts) -> Floats:
    """Mean of the recalls of the classes that have images; ``(..., c, c)`` to ``(...)``."""
    return np.asarray(np.nanmean(recalls(counts), axis=-1))


def balanced_accuracy_slopes(counts: Counts) -> Floats:
    """Differentiate `balanced_accuracy` by each cell ``(..., c, c)``."""
    sizes = counts.sum(-1)
    some = sizes > 0
    share = some / np.where(some, sizes, 1) / some.sum(-1, keepdims=True)
    own = np.nan_to_num(recalls(counts))
    return share[..., None] * (np.eye(counts.shape[-1]) - own[..., None])


def macro_f1(counts: Counts) -> Floats:
    """Mean of the F1 of the classes that have images or are predicted; 0 for one never found."""
    f1, either = _f1(counts)
    return np.asarray(f1.sum(-1) / (either > 0).sum(-1))


def macro_f1_slopes(counts: Counts) -> Floats:
    """Differentiate `macro_f1` by each cell ``(..., c, c)``."""
    f1, either = _f1(counts)
    known = np.where(either > 0, either, np.inf)
    lost = (f1 / known)[..., :, None] + (f1 / known)[..., None, :]
    gained = 2 * np.eye(counts.shape[-1]) / known[..., None]
    return (gained - lost) / (either > 0).sum(-1)[..., None, None]


def _f1(counts: Counts) -> tuple[Floats, Floats]:
    """Give each class's F1, 0 where there is none, and its images by truth and by prediction."""
    either = counts.sum(-2) + counts.sum(-1)
    found = np.diagonal(counts, axis1=-2, axis2=-1)
    return np.where(either > 0, 2 * found / np.where(either > 0, either, 1), 0), either


def auroc(positive: NDArray[np.bool_], level: Labels, weights: Floats) -> float:
    """Share of pairs of a positive and a negative that are in order; ties count half.

    Parameters
    ----------
    positive : ndarray
        ``(N,)``.
    level : ndarray
        ``(N,)`` ranks of the scores from 0, equal ones sharing a rank.
    weights : ndarray
        ``(N,)``, how often each counts.

    Returns
    -------
    float
        NaN where one side is empty.
    """
    above, below = np.bincount(level, weights * positive), np.bincount(level, weights * ~positive)
    pairs = above.sum() * below.sum()
    lower = np.cumsum(below) - below
    return float((above * (lower + below / 2)).sum() / pairs) if pairs else float("nan")


def levels(scores: Floats) -> Labels:
    """Rank ``(N,)`` scores from 0, equal ones sharing a rank."""
    return np.unique(scores, return_inverse=True)[1]


def classification(
    truth: Labels, scores: Floats, predicted: Labels, groups: Labels | None = None
) -> dict[str, dict[str, float]]:
    """Compute every figure with its interval.

    Parameters
    ----------
    truth, predicted : ndarray
        ``(N,)`` numbers of classes.
    scores : ndarray
        ``(N, classes)``, in the order of the probabilities; AUROC is the mean over classes of one
        against the rest.
    groups : ndarray, optional
        ``(N,)`` numbers of patients; by default each image is its own.

    Returns
    -------
    dict
        By name: value, low, high (95 %).
    """
    n = scores.shape[1]
    right = (truth == predicted).astype(np.float64)
    counts = confusion_matrix(truth, predicted, n)
    # Images of one patient tell less than as many of several.
    worth = counts / design_effect(right, groups)

    def of_table(figure: Figure, slopes: Figure) -> Interval:
        low, high = table_interval(worth, figure, slopes)
        return Interval(float(figure(counts)), float(low), float(high))

    found = {
        "accuracy": bounded_mean(right, groups),
        "macro_f1": of_table(macro_f1, macro_f1_slopes),
        "balanced_accuracy": of_table(balanced_accuracy, balanced_accuracy_slopes),
        "auroc": auroc_interval(truth[:, None] == np.arange(n), scores, groups),
    }
    return {name: interval._asdict() for name, interval in found.items()}


def paired_classification(
    truth: Labels,
    first: tuple[Floats, Labels],
    second: tuple[Floats, Labels],
    seed: int,
    groups: Labels | None = None,
) -> dict[str, dict[str, float]]:
    """Subtract the figures of one classifier from those of another on the same images.

    Parameters
    ----------
    first, second : tuple of ndarray
        Scores and predictions, as `classification` takes them.

    Returns
    -------
    dict
        By name: value, low, high, p; accuracy by McNemar's test where each image is its own
        patient, the others by resampling images or patients for both classifiers alike, and by
        swapping the classifiers in some of them.
    """
    n = first[0].shape[1]
    own, of = np.unique(np.arange(len(truth)) if groups is None else groups, return_inverse=True)
    ranked = [[levels(column) for column in scores.T] for scores, _ in (first, second)]
    predicted = np.stack([first[1], second[1]])

    def of_tables(weights: Floats, answers: Labels) -> Floats:
        """Subtract macro-F1 and balanced accuracy of two rows of answers ``(2,)``."""
        cells = (np.bincount(truth * n + row, weights, n * n) for row in answers)
        counts = np.stack([one.reshape(n, n) for one in cells])
        return np.stack([np.diff(macro_f1(counts)), np.diff(balanced_accuracy(counts))])[:, 0]

    def of_areas(weights: Floats) -> float:
        areas = [
            _mean([auroc(truth == c, level, weights) for c, level in enumerate(by_class)])
            for by_class in ranked
        ]
        return areas[1] - areas[0]

    once = np.ones(len(truth))
    value = [*of_tables(once, predicted), of_areas(once)]
    drawn = np.array(
        [
            [*of_tables(weights[of], predicted), of_areas(weights[of])]
            for weights in resamples(len(own), seed)
        ]
    )
    parts = np.bincount(of, _parts_of_areas(truth, first[0], second[0]))
    swapped = np.array(
        [
            [
                *of_tables(once, np.where(swap[of], predicted[::-1], predicted)),
                parts @ np.where(swap, -1.0, 1.0),
            ]
            for swap in swaps(len(own), seed)
        ]
    )
    before, after = predicted == truth
    alone = len(own) == len(truth)
    if alone:
        found = {"accuracy": paired_answers(before, after)}
    else:
        answers = before.astype(np.float64), after.astype(np.float64)
        found = {"accuracy": paired_means(*answers, seed, of)}
    # One image more that each has right alone, as in Bonett and Price's interval of accuracy.
    lent = {"macro_f1": 2.0, "balanced_accuracy": 2.0, "auroc": 0.0}
    for i, (name, images) in enumerate(lent.items()):
        found[name] = paired(
            float(value[i]),
            drawn[:, i],
            swapped[:, i],
            len(own),
            alone=alone,
            least=images / (len(own) + 2) ** 2,
        )
    return {name: one._asdict() for name, one in found.items()}


def _parts_of_areas(truth: Labels, first: Floats, second: Floats) -> Floats:
    """Split the difference of two classifiers' mean AUROC into the images' parts ``(N,)``.

    Swapping two models' scores would need them to be spread alike. Their placements are shares: an
    image's part is how much better it is placed. The mean of either side is the whole difference,
    so each side gives half of it, with its own deviations from that whole, as in DeLong's variance.
    """
    sided = [c for c in range(first.shape[1]) if 0 < (truth == c).sum() < len(truth)]
    parts = np.zeros(len(truth))
    for c in sided:
        positive = truth == c
        better = placements(positive, second[:, c]) - placements(positive, first[:, c])
        whole = better[positive].mean()
        sizes = np.where(positive, positive.sum(), (~positive).sum())
        parts += (better - whole / 2) / sizes / len(sided)
    return parts


def cautions(counts: Labels, classes: Sequence[str]) -> list[str]:
    """Say in words where so few decide that an interval leans on its method."""
    errors, images = int(counts.sum() - np.trace(counts)), int(counts.sum())
    sizes = counts.sum(1)
    rare = [f"{name} {n}" for name, n in zip(classes, sizes, strict=True) if 0 < n < FEW]
    absent = [name for name, n in zip(classes, sizes, strict=True) if n == 0]
    said = []
    if errors < FEW:
        said.append(f"{errors} errors in {images} images: so few tell little of two good models")
    if images - errors < FEW:
        said.append(f"{images - errors} right answers in {images} images: so few tell little")
    if rare:
        said.append(
            f"few images of a class ({', '.join(rare)}): AUROC, macro-F1 and balanced"
            " accuracy hang on them, and their intervals may be too short"
        )
    if absent:
        said.append(f"no images of {', '.join(absent)}: left out of balanced accuracy and AUROC")
    return said


def _mean(values: Sequence[float] | Floats) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
