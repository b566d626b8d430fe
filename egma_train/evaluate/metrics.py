"""Figures of a classification, and how sure they are, as pure functions over arrays."""

from collections.abc import Iterator, Sequence

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
    """Mean of the F1 of the classes that have images or are predicted; 0 for one never found."""
    found = np.diag(counts)
    either = counts.sum(0) + counts.sum(1)
    return float(np.mean(2 * found[either > 0] / either[either > 0]))


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
    truth: Labels, scores: Floats, predicted: Labels, seed: int
) -> dict[str, dict[str, float]]:
    """Compute every figure with its bootstrap interval over images.

    Parameters
    ----------
    truth, predicted : ndarray
        ``(N,)`` numbers of classes.
    scores : ndarray
        ``(N, classes)``, in the order of the probabilities; AUROC is the mean over classes of one
        against the rest.

    Returns
    -------
    dict
        By name: value, low, high (95 %).
    """
    n = scores.shape[1]
    by_class = [levels(column) for column in scores.T]

    def figures(weights: Floats) -> dict[str, float]:
        cells = np.bincount(truth * n + predicted, weights, n * n)
        counts = cells.reshape(n, n).astype(np.int64)
        return {
            "accuracy": accuracy(counts),
            "macro_f1": macro_f1(counts),
            "balanced_accuracy": balanced_accuracy(counts),
            "auroc": _mean([auroc(truth == c, own, weights) for c, own in enumerate(by_class)]),
        }

    drawn = [figures(weights) for weights in _resamples(len(truth), seed)]
    return {
        name: _with_interval(value, np.array([one[name] for one in drawn]))
        for name, value in figures(np.ones(len(truth))).items()
    }


def mean_with_interval(values: Floats, seed: int, groups: Labels | None = None) -> dict[str, float]:
    """Average ``(N,)`` values, NaN left out, with a bootstrap interval.

    Values of one group (``(N,)`` numbers) are drawn together; by default each is its own.
    """
    known = ~np.isnan(values)
    own, of = np.unique(np.arange(len(values)) if groups is None else groups, return_inverse=True)
    drawn = [weights[of] * known for weights in _resamples(len(own), seed)]
    filled = np.where(known, values, 0)
    means = [weights @ filled / weights.sum() for weights in drawn if weights.any()]
    return _with_interval(_mean(values), np.array(means))


def _mean(values: Sequence[float] | Floats) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _resamples(n: int, seed: int) -> Iterator[Floats]:
    """Yield how often each of n is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES if n else 0):
        yield np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)


def _with_interval(value: float, drawn: Floats) -> dict[str, float]:
    known = drawn[~np.isnan(drawn)]
    low, high = np.percentile(known, (2.5, 97.5)) if len(known) else (np.nan, np.nan)
    return {"value": value, "low": float(low), "high": float(high)}
