"""Figures of a classification, and how sure they are, as pure functions over arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Floats = NDArray[np.float64]

RESAMPLES = 1000


def confusion_matrix(truth: Labels, predicted: Labels, n_classes: int) -> Labels:
    """Count images by truth (rows) and prediction (columns)."""
    cells = truth * n_classes + predicted
    return np.bincount(cells, minlength=n_classes**2).reshape(n_classes, n_classes)


def accuracy(counts: Labels) -> float:
    """Share of images whose class is found."""
    return float(np.trace(counts) / counts.sum())


def recalls(counts: Labels) -> Floats:
    """Share of each class's images that are found; NaN for a class without images."""
    sizes = counts.sum(1)
    return np.where(sizes > 0, np.diag(counts) / np.maximum(sizes, 1), np.nan)


def balanced_accuracy(counts: Labels) -> float:
    """Mean of the recalls of the classes that have images."""
    return float(np.nanmean(recalls(counts)))


def macro_f1(counts: Labels) -> float:
    """Mean of the classes' F1; 0 for a class that is never found."""
    found = np.diag(counts)
    either = counts.sum(0) + counts.sum(1)
    return float(np.mean(2 * found / np.maximum(either, 1)))


def auroc(positive: NDArray[np.bool_], scores: Floats, weights: Floats | None = None) -> float:
    """Share of pairs of a positive and a negative that are in order; ties count half.

    Parameters
    ----------
    positive : ndarray
        ``(N,)``.
    scores : ndarray
        ``(N,)``, higher for positives.
    weights : ndarray, optional
        ``(N,)``, how often each counts.

    Returns
    -------
    float
        NaN where one side is empty.
    """
    _, level = np.unique(scores, return_inverse=True)
    return _auroc_of_levels(positive, level, np.ones(len(scores)) if weights is None else weights)


def _auroc_of_levels(positive: NDArray[np.bool_], level: Labels, weights: Floats) -> float:
    n_levels = int(level.max()) + 1
    above = np.bincount(level, weights * positive, n_levels)
    below = np.bincount(level, weights * ~positive, n_levels)
    pairs = above.sum() * below.sum()
    if pairs == 0:
        return float("nan")
    lower = np.cumsum(below) - below
    return float((above * (lower + below / 2)).sum() / pairs)


def macro_auroc(truth: Labels, probabilities: Floats, weights: Floats | None = None) -> float:
    """Mean over classes of one against the rest; of two classes, of the one."""
    n_classes = probabilities.shape[1]
    each = [auroc(truth == c, probabilities[:, c], weights) for c in range(n_classes)]
    known = [value for value in each if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def classification(
    truth: Labels, probabilities: Floats, predicted: Labels, seed: int
) -> dict[str, dict[str, float]]:
    """Compute every figure with its bootstrap interval.

    Parameters
    ----------
    truth, predicted : ndarray
        ``(N,)`` numbers of classes.
    probabilities : ndarray
        ``(N, classes)``.

    Returns
    -------
    dict
        By name: value, low, high (95 %).
    """
    n_classes = probabilities.shape[1]
    figures: Mapping[str, Callable[[Labels], float]] = {
        "accuracy": accuracy,
        "macro_f1": macro_f1,
        "balanced_accuracy": balanced_accuracy,
    }
    levels = [np.unique(column, return_inverse=True)[1] for column in probabilities.T]
    drawn: dict[str, list[float]] = {name: [] for name in (*figures, "auroc")}
    for weights in _resamples(len(truth), seed):
        cells = np.bincount(truth * n_classes + predicted, weights, n_classes**2)
        counts = cells.astype(np.int64).reshape(n_classes, n_classes)
        for name, figure in figures.items():
            drawn[name].append(figure(counts))
        each = [_auroc_of_levels(truth == c, level, weights) for c, level in enumerate(levels)]
        drawn["auroc"].append(float(np.nanmean(each)) if not np.isnan(each).all() else np.nan)
    counts = confusion_matrix(truth, predicted, n_classes)
    values = {name: figure(counts) for name, figure in figures.items()}
    values["auroc"] = macro_auroc(truth, probabilities)
    return {name: _with_interval(value, np.array(drawn[name])) for name, value in values.items()}


def mean_with_interval(values: Floats, seed: int) -> dict[str, float]:
    """Average ``(N,)`` values, NaN left out, with a bootstrap interval over them."""
    known = values[~np.isnan(values)]
    if not len(known):
        return _with_interval(float("nan"), known)
    means = [weights @ known / len(known) for weights in _resamples(len(known), seed)]
    return _with_interval(float(known.mean()), np.array(means))


def _resamples(n: int, seed: int) -> Any:
    """Yield how often each of n is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


def _with_interval(value: float, drawn: Floats) -> dict[str, float]:
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}
