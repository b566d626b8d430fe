"""Figures of a classification, and how sure they are, as pure functions over arrays."""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egma_train.evaluate.intervals import (
    Counts,
    Floats,
    Interval,
    Labels,
    auroc_interval,
    bounded_mean,
    clustering,
    paired,
    paired_answers,
    paired_means,
    placements,
    resamples,
    swaps,
    table_interval,
)

Figure = Callable[[Counts], Floats]

_NUMBERS_AT_ONCE = 2**20

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


def auroc(positive: NDArray[np.bool_], level: Labels, weights: Floats) -> Floats:
    """Share of pairs of a positive and a negative that are in order; ties count half.

    Parameters
    ----------
    positive : ndarray
        ``(N,)``.
    level : ndarray
        ``(N,)`` ranks of the scores from 0, equal ones sharing a rank.
    weights : ndarray
        ``(..., N)``, how often each counts.

    Returns
    -------
    ndarray
        ``(...)``; NaN where one side is empty.
    """
    order = np.argsort(level, kind="stable")
    begins = np.flatnonzero(np.diff(level[order], prepend=-1))
    sided = weights[..., order] * np.stack([positive, ~positive])[:, order].reshape(
        2, *[1] * (weights.ndim - 1), -1
    )
    above, below = np.add.reduceat(sided, begins, axis=-1)
    pairs = above.sum(-1) * below.sum(-1)
    lower = np.cumsum(below, axis=-1) - below
    won = (above * (lower + below / 2)).sum(-1)
    return np.where(pairs > 0, won / np.where(pairs > 0, pairs, 1), np.nan)


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
    own = clustering(right, groups)

    def of_table(figure: Figure, slopes: Figure) -> Interval:
        low, high = table_interval(counts / own.effect, figure, slopes, own.quantile)
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
    own, of = np.unique(np.arange(len(truth)) if groups is None else groups, return_inverse=True)
    tables, areas = _by_table(truth, first, second), _by_ranks(truth, first[0], second[0])
    rows = max(1, _NUMBERS_AT_ONCE // len(truth))  # resamples at a time, which bounds the memory
    once = np.ones((1, len(truth)))
    value = np.column_stack([tables(once, 0 * once), areas(once)])[0]
    drawn = np.concatenate(
        [
            np.column_stack([tables(weights, 0 * weights), areas(weights)])
            for weights in (some[:, of] for some in _stacked(resamples(len(own), seed), rows))
        ]
    )
    parts = np.bincount(of, _parts_of_areas(truth, first[0], second[0]))
    swapped = np.concatenate(
        [
            np.column_stack(
                [tables(1.0 - some[:, of], 1.0 * some[:, of]), (1 - 2.0 * some) @ parts]
            )
            for some in _stacked(swaps(len(own), seed), rows)
        ]
    )
    predicted = np.stack([first[1], second[1]])
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


def _by_table(
    truth: Labels, first: tuple[Floats, Labels], second: tuple[Floats, Labels]
) -> Callable[[Floats, Floats], Floats]:
    """Subtract macro-F1 and balanced accuracy, given how often each image counts.

    The function takes ``(R, N)`` of the images whose answers are each classifier's own, and of
    those whose answers are exchanged; it gives ``(R, 2)``.
    """
    n = first[0].shape[1]
    one, two = (np.eye(n * n)[truth * n + answers] for _, answers in (first, second))

    def differences(own: Floats, exchanged: Floats) -> Floats:
        counts = np.stack([own @ one + exchanged @ two, own @ two + exchanged @ one])
        counts = counts.reshape(2, -1, n, n)
        before, after = np.stack([macro_f1(counts), balanced_accuracy(counts)], axis=-1)
        return after - before

    return differences


def _by_ranks(truth: Labels, first: Floats, second: Floats) -> Callable[[Floats], Floats]:
    """Subtract mean AUROC, given how often each image counts: ``(R, N)`` to ``(R,)``."""
    ranked = [[levels(column) for column in scores.T] for scores in (first, second)]

    def differences(weights: Floats) -> Floats:
        areas = np.array(
            [
                [auroc(truth == c, level, weights) for c, level in enumerate(by_class)]
                for by_class in ranked
            ]
        )
        known = ~np.isnan(areas)  # a class without images in a resample is left out of its mean
        before, after = np.where(known, areas, 0).sum(1)
        classes = known[0].sum(0)
        return np.where(classes > 0, (after - before) / np.where(classes > 0, classes, 1), np.nan)

    return differences


def _stacked(rows: Iterator[NDArray[Any]], most: int) -> Iterator[NDArray[Any]]:
    """Stack rows, at most so many at a time."""
    while some := list(islice(rows, most)):
        yield np.stack(some)


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
