"""How sure figures are: 95 % intervals that hold near the ceiling and with few images.

Each kind of figure has the method whose coverage was measured best (`benchmarks/intervals.py`):
what resampling alone gives is too short there, and is nothing at all where everything is right.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64] | Floats

RESAMPLES = 2000
FEW_GROUPS = 30
FEWEST_GROUPS = 6
"""Of fewer, the least p that flips of signs can give is above .05: 2 of 32 ways with five."""
_Z = float(stats.norm.ppf(0.975))
_BORROWED_IMAGES = 6.0  # of each class, as if they were recalled as all classes together are
_PRIOR_IMAGES = 8.0  # that the variance of a normal score of an AUROC counts for
_SHARED_BY_CLASSES = 2.0  # so many classes are one and the same AUROC
_LIKENESS = 0.5  # of a patient's images, supposed until answers tell: intraclass correlation
_SUPPOSED_ANSWERS = 0.75  # whose variance that likeness counts for
_WHOLE_ANSWERS = 0.125  # whose variance shares near the ceiling are lent, as if yes or no
_HALVINGS = 40
_REFUSED = 0.05
_ROUNDING = 1e-9
_EACH_WAY = 12  # groups; 2,048 ways to swap them, as many as are drawn of more
_FARTHEST_TILT = 30.0  # log odds; beyond it every share is 0 or 1


class Interval(NamedTuple):
    """A figure and its 95 % interval; NaN where nothing is known."""

    value: float
    low: float
    high: float


class Clustering(NamedTuple):
    """How many times the variance of a mean is that of lone images, and how well this is known."""

    effect: float
    df: float

    @property
    def quantile(self) -> float:
        """Student's, the normal one where each image is its own patient."""
        return float(stats.t.ppf(0.975, self.df)) if np.isfinite(self.df) else _Z


class Difference(NamedTuple):
    """A paired difference, its 95 % interval, and how likely one as large is by chance."""

    value: float
    low: float
    high: float
    p: float


def wilson(share: float | Floats, n: float | Floats, quantile: float = _Z) -> tuple[Floats, Floats]:
    """Invert the score test of a proportion (Wilson 1927): low and high.

    Parameters
    ----------
    share : float or ndarray
        Observed.
    n : float or ndarray
        Observations; what they are worth where they are no simple yes and no.
    """
    share, n = np.asarray(share, np.float64), np.asarray(n, np.float64)
    squared = quantile**2
    centre = (share + squared / (2 * n)) / (1 + squared / n)
    variance = np.maximum(share * (1 - share), 0) / n + squared / (4 * n**2)
    half = quantile * np.sqrt(variance) / (1 + squared / n)
    # Rounding leaves 1e-17 below a share of 0.
    low, high = np.where(share <= 0, 0, centre - half), np.where(share >= 1, 1, centre + half)
    return np.maximum(low, 0), np.minimum(high, 1)


def bounded_mean(values: Floats, groups: Labels | None = None, most: float = 1.0) -> Interval:
    """Average values in ``[0, most]`` with Wilson's interval, exactly his for yes and no.

    Values between are worth as many yes and no answers as give a mean of their variance, and those
    of patients with several images fewer by their `clustering`.

    Parameters
    ----------
    values : ndarray
        ``(N,)``; NaN is left out.
    groups : ndarray, optional
        ``(N,)`` numbers; by default each value is its own.
    """
    known, of = _known(values, groups)
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    shares, n_groups = known / most, int(of.max()) + 1
    n, mean = len(shares), float(shares.mean())
    worth, own = float(n), clustering(shares, of)
    varied = float(((shares - mean) ** 2).sum()) * n / max(n - 1, 1)
    if not np.isin(shares, (0, 1)).all() and varied > _ROUNDING and n_groups > 1:
        share = (varied + _WHOLE_ANSWERS) / (n * mean * (1 - mean) + _WHOLE_ANSWERS)
        worth /= share
        # Student's quantile stands for a variance that is measured, not implied by the mean.
        own = own._replace(df=min(own.df, n_groups - 1))
    low, high = wilson(mean, worth / own.effect, own.quantile)
    return Interval(most * mean, most * float(low), most * float(high))


def unbounded_mean(values: Floats, groups: Labels | None = None) -> Interval:
    """Average values with Student's interval, by groups; NaN is left out."""
    known, of = _known(values, groups)
    if not len(known):
        return Interval(np.nan, np.nan, np.nan)
    mean, n_groups = float(known.mean()), int(of.max()) + 1
    if n_groups < 2:
        return Interval(mean, np.nan, np.nan)
    half = stats.t.ppf(0.975, n_groups - 1) * np.sqrt(_variance_of_mean(known, of, corrected=True))
    return Interval(mean, float(mean - half), float(mean + half))


def _known(values: Floats, groups: Labels | None) -> tuple[Floats, Labels]:
    """Leave out NaN; number the groups that are left from 0."""
    kept = ~np.isnan(values)
    own = np.arange(len(values)) if groups is None else groups
    return values[kept], np.unique(own[kept], return_inverse=True)[1]


def _variance_of_mean(values: Floats, groups: Labels, *, corrected: bool) -> float:
    """Estimate a mean's variance from the sums of groups, not below that of lone values."""
    n_groups = int(groups.max()) + 1
    off = values - values.mean()
    summed = np.bincount(groups, off)
    largest = max(float((summed**2).sum()), float((off**2).sum())) / len(values) ** 2
    return largest * n_groups / max(n_groups - 1, 1) if corrected else largest


def clustering(shares: Floats, groups: Labels | None) -> Clustering:
    """Estimate the design effect (Kish 1965) of images that come several a patient.

    The patients' sums tell how alike their images are, but hardly where few answers are wrong, and
    nothing where none is. So the measured effect is averaged with that of a likeness of .5, which
    counts as three quarters of an answer's variance: nothing jumps between one error and none. The
    degrees of freedom are those of the variance's measured part (Satterthwaite 1946), of as many
    patients as make it up: few, where a few patients have most errors.

    Parameters
    ----------
    shares : ndarray
        ``(N,)`` in [0, 1].
    groups : ndarray, optional
        ``(N,)`` numbers of patients; by default each image is its own.
    """
    n = len(shares)
    if groups is None or not n:
        return Clustering(1.0, np.inf)
    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    n_groups, mean = len(sizes), float(shares.mean())
    if n_groups == n:
        return Clustering(1.0, np.inf)
    off = shares - mean
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], off)
    alone, together = float((off**2).sum()), float((sums**2).sum())
    known = alone > _ROUNDING
    measured = together / alone * n_groups / max(n_groups - 1, 1) if known else 1.0
    answers = n * mean * (1 - mean)
    lacking = max(1 - 1 / n - answers, 0.0)  # none wrong is as one wrong, which tells nothing more
    supposed = 1 + _LIKENESS * ((sizes**2).sum() / n - 1)
    effect = (answers * measured + lacking + _SUPPOSED_ANSWERS * supposed) / (
        answers + lacking + _SUPPOSED_ANSWERS
    )
    effect = max(float(effect), 1.0)
    made_up_by = 2 * together**2 / float((sums**4).sum()) if known and together else 2.0
    df = min(made_up_by, max(n_groups - 1, 1)) / max(1 - 1 / effect, 1e-9) ** 2
    return Clustering(effect, float(df))


def table_interval(
    counts: Counts,
    figure: Callable[[Counts], Floats],
    slopes: Callable[[Counts], Floats],
    quantile: float | Floats = _Z,
) -> tuple[Floats, Floats]:
    """Invert the score test of a figure of confusion matrices, as Wilson does of a proportion.

    The variance is that at the figure supposed, not that at the one observed, which is 0 where all
    is right. What is supposed is the observed table with the log odds of a right answer moved alike
    in every class (the tilted family of Efron 1981), each class lent six images of the common
    recall, so that a class of few is not taken for sure.

    Parameters
    ----------
    counts : ndarray
        ``(..., c, c)``, truth in rows.
    figure, slopes : callable
        A figure in [0, 1] of such tables ``(...)``, and its derivative by each cell
        ``(..., c, c)``.
    """
    observed = figure(counts)
    supposed = _supposed(counts)

    def tilted(tilt: Floats) -> tuple[Floats, Floats]:
        table = supposed(tilt)
        return figure(table), (table * slopes(table) ** 2).sum((-2, -1))

    ends = []
    for side in (-1, 1):
        low = np.full(np.shape(observed), -_FARTHEST_TILT)
        high = -low
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            value, variance = tilted(middle)
            above = value - observed > side * quantile * np.sqrt(variance)
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        ends.append(tilted((low + high) / 2)[0])
    # The farthest tilt is 1e-13 short of the ceiling.
    return np.minimum(ends[0], observed), np.maximum(ends[1], observed)


def _supposed(counts: Counts) -> Callable[[Floats], Floats]:
    """Make tables with as many images of each class, whose right answers are likelier by a tilt."""
    sizes = counts.sum(-1, keepdims=True)
    right = np.eye(counts.shape[-1], dtype=np.bool_)
    # A class without images that is never predicted stays out of what is supposed.
    there = (counts.sum(-2, keepdims=True) + np.swapaxes(sizes, -2, -1)) > 0
    total = sizes.sum((-2, -1), keepdims=True)
    recalled = ((counts * right).sum((-2, -1), keepdims=True) + 1) / (total + 2)
    wrong = ~right & there
    lent = np.where(
        right, recalled, (1 - recalled) * wrong / np.maximum(wrong.sum(-1), 1)[..., None]
    )
    shares = (counts + _BORROWED_IMAGES * lent) / (sizes + _BORROWED_IMAGES)

    def table(tilt: Floats) -> Floats:
        raised = shares * np.where(right, np.exp(tilt)[..., None, None], 1)
        return np.asarray(sizes * raised / raised.sum(-1, keepdims=True), np.float64)

    return table


def placements(positive: Flags, scores: Floats) -> Floats:
    """Give each image the share of the other side that it is in order with; ties count half.

    Their mean over positives, or over negatives, is the AUROC (DeLong et al. 1988).

    Parameters
    ----------
    positive, scores : ndarray
        ``(N,)``; both sides have one at least.
    """
    found = np.empty(len(scores))
    for side, sign in ((positive, 1), (~positive, -1)):
        own, others = sign * scores[side], np.sort(sign * scores[~side])
        below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        found[side] = below / (2 * len(others))
    return found


def auroc_interval(
    positives: NDArray[np.bool_], scores: Floats, groups: Labels | None = None
) -> Interval:
    """Average the classes' AUROC, with an interval from DeLong's variance.

    DeLong's variance (DeLong et al. 1988; placements after Sun and Xu 2014; sums over groups after
    Obuchowski 1997) is too small near 1 and with few positives, and 0 where all are in order. It
    is averaged with that of Hanley and McNeil (1982) in Newcombe's (2006) form, which knows the
    numbers of images alone and counts as eight images of the smallest class; the interval is
    Wilson's for as many answers as have this variance.

    Parameters
    ----------
    positives, scores : ndarray
        ``(N, c)``; a class that has no positives or no negatives is left out.
    groups : ndarray, optional
        ``(N,)`` numbers of patients.
    """
    sided = [i for i, own in enumerate(positives.T) if 0 < own.sum() < len(own)]
    if not sided:
        return Interval(np.nan, np.nan, np.nan)
    of = np.arange(len(scores)) if groups is None else np.unique(groups, return_inverse=True)[1]
    values, priors, worths, influences = [], [], [], np.zeros((len(sided), len(scores)))
    for i, influence in zip(sided, influences, strict=True):
        positive = positives[:, i]
        placed = placements(positive, scores[:, i])
        values.append(float(placed[positive].mean()))
        worth = []
        for side in (positive, ~positive):
            n, of_each = int(side.sum()), np.bincount(of[side])
            n_groups = int((of_each > 0).sum())
            # The variance of a side's mean is over n (n - 1); one alone has none that is known.
            corrected = n * np.sqrt((n_groups - 1) / n_groups) if n_groups > 1 else n
            influence[side] = (placed[side] - values[-1]) / corrected
            worth.append(n / (1 + _LIKENESS * (float((of_each**2).sum()) / n - 1)))
        priors.append(_variance_by_numbers(values[-1], *worth))
        worths.append(min(worth))
    value = float(np.mean(values))
    variance = float((np.bincount(of, influences.mean(0)) ** 2).sum())
    lone = np.mean([(np.bincount(of, own) ** 2).sum() for own in influences])
    # Classes share images: the mean of few AUROCs is surer than one, by as much as they differ.
    shared = max(variance / lone if lone > 0 else 0.0, _SHARED_BY_CLASSES / len(sided))
    prior = float(np.mean(priors)) * min(shared, 1.0)
    spread = value * (1 - value)
    told = min(worths) * max(len(sided) / _SHARED_BY_CLASSES, 1)
    measured = variance / spread if spread > 0 else prior
    inverse = (told * measured + _PRIOR_IMAGES * prior) / (told + _PRIOR_IMAGES)
    low, high = wilson(value, 1 / inverse)
    return Interval(value, float(low), float(high))


def _variance_by_numbers(auroc: float, m: float, n: float) -> float:
    """Give an AUROC's variance over A (1 - A), by the numbers of positives and negatives alone.

    Newcombe (2006), method 5: Hanley and McNeil's for exponential scores, with the mean of both
    numbers in place of each.
    """
    more = (m + n) / 2 - 1
    return (1 + more * (1 - auroc) / (2 - auroc) + more * auroc / (1 + auroc)) / (m * n)


def mcnemar(only_first: int, only_second: int) -> float:
    """Test if two classifiers are right equally often (McNemar 1947), exactly, by the mid-p value.

    Parameters
    ----------
    only_first, only_second : int
        Images that only one of them has right. The mid-p value (Lancaster 1961) counts half the
        probability of what was observed: the plain exact test is too cautious with few.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if only_first == only_second:
        return 1 - float(stats.binom.pmf(fewer, n, 0.5)) / 2 if n else 1.0
    return float(2 * stats.binom.cdf(fewer, n, 0.5) - stats.binom.pmf(fewer, n, 0.5))


def paired_answers(first: Flags, second: Flags) -> Difference:
    """Subtract the share of right answers of `first` from that of `second`, image by image.

    The interval is that of Bonett and Price (2012), which adds an image for each kind of change:
    without it two models that agree on few images would be called equal for sure. Where it and
    McNemar's p would contradict each other, its end by 0 is the test-based one.
    """
    gained, lost, n = int((second & ~first).sum()), int((first & ~second).sum()), len(first)
    more, less = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z * np.sqrt((more + less - (more - less) ** 2) / (n + 2))
    low, high = max(float(more - less - half), -1.0), min(float(more - less + half), 1.0)
    return _agreeing(Difference((gained - lost) / n, low, high, mcnemar(lost, gained)))


def _agreeing(found: Difference) -> Difference:
    """Let an interval hold 0 where p is .05 or more, and there alone.

    Where it does not, its end by 0 is moved across, to the test-based one (Miettinen 1976): as far
    from the value as makes 0 p's normal score away. Both are about .05 then, so it moves little.
    """
    value, low, high, p = found
    if not value or np.isnan(low) or (p < _REFUSED) != (low <= 0 <= high):
        return found
    end = value * (1 - _Z / max(float(stats.norm.isf(p / 2)), 1e-9))
    if value > 0:
        return found._replace(low=max(end, -1.0))
    return found._replace(high=min(end, 1.0))


def paired_means(
    first: Floats, second: Floats, seed: int, groups: Labels | None = None
) -> Difference:
    """Subtract the mean of `first` from that of `second` over what both have, by flips of signs.

    Were the models alike, each group's (patient's) difference could as well have the other sign
    (Fisher 1935): p is the share of such flips whose mean is as far from 0. The interval has the
    differences that this test does not refuse, so that both always agree; with fewer than six
    groups it refuses none, and there is no interval.
    """
    off = second - first
    known, of = _known(off, groups)
    if not len(known):
        return Difference(np.nan, np.nan, np.nan, np.nan)
    sums, sizes = np.bincount(of, known), np.bincount(of).astype(np.float64)
    total, n = float(sums.sum()), float(sizes.sum())
    signs = (np.where(swap, -1.0, 1.0) for swap in swaps(len(sums), seed))
    flipped, weighed = np.array([(sums @ sign, sizes @ sign) for sign in signs]).T
    p = float((abs(flipped) >= abs(total) - _ROUNDING * abs(sums).sum()).mean())
    # With a difference d supposed, a flip is as far as the observed sum where
    # |flipped - d weighed| >= |total - d n|: from the lesser of two crossings to the greater.
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.stack([(total - flipped) / (n - weighed), (total + flipped) / (n + weighed)])
    whole = abs(weighed) == n  # flips of all or none are as far, whatever d
    lows = np.sort(np.where(whole, -np.inf, crossings.min(0)))
    highs = np.sort(np.where(whole, np.inf, crossings.max(0)))[::-1]
    last = int(np.ceil(_REFUSED * len(lows))) - 1
    low, high = float(lows[last]), float(highs[last])
    if not np.isfinite([low, high]).all():
        low = high = np.nan
    return Difference(total / n, low, high, p)


def paired(
    value: float, drawn: Floats, swapped: Floats, n_groups: int, *, alone: bool, least: float = 0
) -> Difference:
    """Take a difference's interval and p value from resamples and from swaps of the models.

    p is the share of swaps that differ as much as observed; where each image is its own patient,
    those that differ equally count half, as McNemar's mid-p beside it has them. The interval has
    the resamples' percentiles, moved out as Student's quantiles are beyond the normal ones
    (Hesterberg 2015, "expanded percentiles"); where p is .05 or more it is no shorter than
    Student's by the variance of the swaps, and holds 0; where p is less it does not. Of fewer than
    six groups there is none.

    Parameters
    ----------
    drawn, swapped : ndarray
        The difference in each resample, and with the models swapped in some groups.
    least : float
        Added to the variance of the swaps, which is 0 where all answers are the same.
    """
    if np.isnan(value):
        return Difference(np.nan, np.nan, np.nan, np.nan)
    far = abs(swapped)
    p = float((far >= abs(value) - _ROUNDING).mean())
    if alone and value:
        p = (p + float((far > abs(value) + _ROUNDING).mean())) / 2
    known = drawn[~np.isnan(drawn)]
    if n_groups < FEWEST_GROUPS or not len(known):
        return Difference(value, np.nan, np.nan, p)
    student = float(stats.t.ppf(1 - _REFUSED / 2, n_groups - 1))
    tail = float(stats.norm.cdf(-student * np.sqrt(n_groups / (n_groups - 1))))
    low, high = (float(end) for end in np.quantile(known, (tail, 1 - tail)))
    if p >= _REFUSED:
        reach = max(student * float(np.sqrt((far**2).mean() + least)), abs(value))
        low, high = min(low, value - reach), max(high, value + reach)
    found = Difference(value, max(min(low, value), -1.0), min(max(high, value), 1.0), p)
    return _agreeing(found)


def swaps(n: int, seed: int) -> Iterator[Flags]:
    """Yield which of n groups have the models swapped ``(n,)``: each way once, or drawn if many.

    The first is what was observed, none, so that no p is 0. Swapped in all is as far as in none:
    where each way is had, the last group never is.
    """
    if n <= _EACH_WAY:
        for way in range(2 ** max(n - 1, 0)):
            yield (way >> np.arange(n) & 1).astype(np.bool_)
        return
    yield np.zeros(n, np.bool_)
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES):
        yield rng.random(n) < 0.5


def few_groups(n: int, named: str) -> list[str]:
    """Say so where a mean is of few images or patients: no method knows the tail of a few."""
    if n >= FEW_GROUPS:
        return []
    said = [f"{n} {named}: intervals from so few may be too short"]
    if n < FEWEST_GROUPS:
        said.append(
            f"{n} {named}: differences have no interval, and no p below"
            f" {2 / 2**n:.3g}; at least {FEWEST_GROUPS} are needed"
        )
    return said


def resamples(n: int, seed: int) -> Iterator[Floats]:
    """Yield how often each of n is drawn, with replacement."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES if n else 0):
        yield np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64)
