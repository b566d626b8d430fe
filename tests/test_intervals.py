"""Intervals: how often they hold the truth, other people's formulas, and where all is right."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from egma_train.evaluate.intervals import (
    Interval,
    auroc_interval,
    bounded_mean,
    clustering,
    few_groups,
    mcnemar,
    paired,
    paired_answers,
    paired_means,
    placements,
    resamples,
    table_interval,
    unbounded_mean,
    wilson,
)
from egma_train.evaluate.metrics import (
    balanced_accuracy,
    balanced_accuracy_slopes,
    macro_f1,
    macro_f1_slopes,
)

SIZES = (40, 100, 1000)
FIGURES = {
    "balanced accuracy": (balanced_accuracy, balanced_accuracy_slopes),
    "macro-F1": (macro_f1, macro_f1_slopes),
}


def holds(found: Interval, truth: float) -> bool:
    return found.low <= truth <= found.high


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("truth", [0.5, 0.8, 0.9, 0.95, 0.97])
def test_accuracy_is_held_by_92_to_97_percent_of_intervals(n: int, truth: float) -> None:
    """Exactly: the binomial probability of the numbers of right answers whose interval holds it."""
    right = np.arange(n + 1)
    intervals = [bounded_mean((np.arange(n) < k).astype(float)) for k in right]
    inside = np.array([holds(one, truth) for one in intervals])
    assert 0.92 <= stats.binom.pmf(right, n, truth)[inside].sum() <= 0.97


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(
    ("classes", "truth"), [(2, 0.5), (2, 0.9), (2, 0.97), (5, 0.6), (5, 0.9), (5, 0.97)]
)
def test_figures_of_tables_are_held_by_92_to_97_percent_of_intervals(
    name: str, n: int, classes: int, truth: float
) -> None:
    """Equal classes, errors spread evenly: balanced accuracy and macro-F1 are both the recall."""
    shares = np.full((classes, classes), (1 - truth) / (classes - 1))
    np.fill_diagonal(shares, truth)
    rng = np.random.default_rng(n)
    drawn = rng.multinomial(n, (shares / classes).ravel(), 1000).reshape(-1, classes, classes)
    low, high = table_interval(drawn, *FIGURES[name])
    assert 0.92 <= ((low <= truth) & (truth <= high)).mean() <= 0.98  # of 1,000, 0.7 % is noise


@pytest.mark.parametrize(
    ("n", "positives", "truth"),
    [
        (40, 20, 0.6), (40, 20, 0.9), (40, 8, 0.75), (40, 8, 0.95), (40, 8, 0.98),
        (100, 10, 0.6), (100, 10, 0.9), (100, 10, 0.98), (1000, 20, 0.75), (1000, 20, 0.95),
    ],
)  # fmt: skip
def test_auroc_is_held_by_92_to_97_percent_of_intervals(
    n: int, positives: int, truth: float
) -> None:
    """Normal scores; at 40, 8 and 0.98 DeLong's logit intervals hold it in 74 % of samples."""
    rng = np.random.default_rng(n)
    positive = np.arange(n) < positives
    apart = stats.norm.ppf(truth) * np.sqrt(2)
    scores = rng.normal(size=(500, n)) + apart * positive
    found = [auroc_interval(positive[:, None], own[:, None]) for own in scores]
    assert 0.92 <= np.mean([holds(one, truth) for one in found]) <= 0.985  # noise is 1 %


def tenths(rng: np.random.Generator, mean: float, n: int) -> NDArray[np.float64]:
    return rng.binomial(10, rng.beta(4 * mean, 4 * (1 - mean), n)) / 10


def shares(rng: np.random.Generator, mean: float, n: int) -> NDArray[np.float64]:
    return rng.beta(5 * mean, 5 * (1 - mean), n)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("draw", "truth"), [(tenths, 0.5), (tenths, 0.9), (shares, 0.2)])
def test_means_between_bounds_are_held_by_92_to_97_percent_of_intervals(
    draw: Callable[..., NDArray[np.float64]], truth: float, n: int
) -> None:
    rng = np.random.default_rng(n)
    found = [bounded_mean(draw(rng, truth, n)) for _ in range(800)]
    assert 0.92 <= np.mean([holds(one, truth) for one in found]) <= 0.97


@pytest.mark.parametrize("mean", [bounded_mean, unbounded_mean])
def test_values_of_one_patient_are_counted_together(mean: Callable[..., Interval]) -> None:
    """Six alike sentences a patient: as if each were alone, 3 in 5 intervals hold the truth."""
    rng = np.random.default_rng(0)
    of = np.repeat(np.arange(60), 6)
    kept: dict[bool, list[bool]] = {True: [], False: []}
    for _ in range(400):
        values = rng.binomial(1, np.repeat(rng.beta(0.7, 0.7, 60), 6)).astype(float)
        for grouped, own in kept.items():
            own.append(holds(mean(values, of if grouped else None), 0.5))
    assert 0.92 <= np.mean(kept[True]) <= 0.97 and np.mean(kept[False]) < 0.8


@pytest.mark.parametrize("answers", [1.0, 0.0])
def test_all_right_or_all_wrong_is_never_sure(answers: float) -> None:
    n = 40
    found = bounded_mean(np.full(n, answers))
    assert found.value == answers and found.high - found.low == pytest.approx(0.0876, abs=1e-4)
    # The same for a share that cannot exceed a half; wider for twenty patients of two images each.
    half = bounded_mean(np.full(n, answers / 2), most=0.5)
    assert half.high - half.low == pytest.approx(0.0438, abs=1e-4)
    fewer = bounded_mean(np.full(n, answers), np.arange(n) // 2)
    assert 0.1 < fewer.high - fewer.low < 0.1611  # Wilson's for forty, and for twenty
    table = np.diag([20, 20]) if answers else np.array([[0, 20], [20, 0]])
    for figure in FIGURES.values():
        low, high = table_interval(table, *figure)
        assert 0.05 < high - low < 0.15 and (high if answers else low) == pytest.approx(answers)
    truth = np.arange(n) % 2 == 0
    area = auroc_interval(truth[:, None], (truth == bool(answers))[:, None].astype(float))
    assert area.value == answers and 0.05 < area.high - area.low < 0.15


def test_one_value_and_none_end_in_no_error() -> None:
    assert bounded_mean(np.array([1.0])).low == pytest.approx(0.2065, abs=1e-4)
    assert np.isnan(unbounded_mean(np.array([3.0])).low)
    nothing = np.array([np.nan])
    assert np.isnan(bounded_mean(nothing)).all() and np.isnan(unbounded_mean(nothing)).all()
    assert np.isnan(auroc_interval(np.ones((3, 1), np.bool_), np.zeros((3, 1)))).all()
    assert np.isnan(paired_means(nothing, nothing, 0)).all()


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611), (1, 29, 0.0061, 0.1718),
    ],
)  # fmt: skip
def test_proportions_are_newcombes_printed_examples(
    right: int, n: int, low: float, high: float
) -> None:
    """Newcombe (1998), table I, method 3; and scipy's."""
    found = bounded_mean((np.arange(n) < right).astype(float))
    assert [found.low, found.high] == pytest.approx([low, high], abs=5e-5)
    scipys = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert [*wilson(right / n, n)] == pytest.approx([scipys.low, scipys.high])


def test_a_table_of_one_common_error_rate_is_nearly_wilsons() -> None:
    """With classes of one size and one recall, the tilt is that of one proportion."""
    for right in (30, 40, 48, 50):
        table = np.array([[right, 50 - right], [50 - right, right]])
        low, high = table_interval(table, *FIGURES["balanced accuracy"])
        expected = wilson(right / 50, 100)
        assert [float(low), float(high)] == pytest.approx([*map(float, expected)], abs=1e-6)


def delong_by_hand(positive: Any, scores: Any) -> tuple[float, float]:
    """The AUROC and its variance, pair by pair, as the paper has them."""
    x, y = scores[positive], scores[~positive]
    order = np.array([[1.0 if a > b else 0.5 if a == b else 0.0 for b in y] for a in x])
    s10 = np.var(order.mean(1), ddof=1) / len(x)
    return float(order.mean()), float(s10 + np.var(order.mean(0), ddof=1) / len(y))


def test_placements_and_the_variance_of_many_images_are_delongs() -> None:
    rng = np.random.default_rng(3)
    positive = np.arange(400) < 150
    scores = np.round(rng.normal(size=400) + positive, 1)  # with ties
    value, variance = delong_by_hand(positive, scores)
    placed = placements(positive, scores)
    assert placed[positive].mean() == pytest.approx(value) == placed[~positive].mean()
    found = auroc_interval(positive[:, None], scores[:, None])
    assert found.value == pytest.approx(value)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.03)
    # Two classes that are each other's rest are one and the same figure.
    both = np.stack([positive, ~positive], 1), np.stack([scores, -scores], 1)
    assert [*auroc_interval(*both)] == pytest.approx([*found])
    doubled = [np.repeat(one, 2)[:, None] for one in (positive, scores)]
    grouped = auroc_interval(*doubled, np.repeat(np.arange(400), 2))
    assert grouped.high - grouped.low == pytest.approx(found.high - found.low, rel=0.03)


@pytest.mark.parametrize(("one", "two"), [(0, 0), (1, 0), (3, 9), (8, 8), (0, 12)])
def test_mcnemar_counts_every_way_that_coins_could_fall(one: int, two: int) -> None:
    n = one + two
    chances = stats.binom.pmf(np.arange(n + 1), n, 0.5)
    observed = abs(one - two)
    off = np.abs(2 * np.arange(n + 1) - n)
    expected = chances[off > observed].sum() + chances[off == observed].sum() / 2
    assert mcnemar(one, two) == pytest.approx(expected if n else 1)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("gained", "lost"), [(0.1, 0.02), (0.05, 0.05), (0.3, 0.15)])
def test_differences_of_accuracy_are_held_by_92_to_97_percent_of_intervals(
    n: int, gained: float, lost: float
) -> None:
    rng = np.random.default_rng(n)
    kept = []
    for _ in range(800):
        kind = rng.choice(3, n, p=[gained, lost, 1 - gained - lost])
        found = paired_answers(kind == 1, kind == 0)
        kept.append(found.low <= gained - lost <= found.high)
        assert (found.p < 0.05) != (found.low <= 0 <= found.high)
    assert 0.92 <= np.mean(kept) <= 0.99  # Bonett and Price's own table: cautious with few changes


@pytest.mark.parametrize("n", [40, 100])
def test_an_interval_of_accuracys_difference_holds_0_where_p_is_05_or_more_and_there_alone(
    n: int,
) -> None:
    """All numbers of gained and lost answers: 15 and 6 of 40, 5 and 0 of 100 disagreed."""
    moved = 0.0
    for gained, lost in ((g, k) for g in range(n + 1) for k in range(n + 1 - g)):
        if abs(gained - lost) > 40 or ((gained + lost) % 3 and lost > 6):
            continue  # so far from .05 that a third of them will do
        kind = np.repeat([0, 1, 2], [gained, lost, n - gained - lost])
        found = paired_answers(kind == 1, kind == 0)
        assert (found.p < 0.05) != (found.low <= 0 <= found.high), (gained, lost)
        assert found.low <= found.value <= found.high
        more, less = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
        half = 1.959964 * np.sqrt((more + less - (more - less) ** 2) / (n + 2))
        off = [found.low - max(more - less - half, -1), found.high - min(more - less + half, 1)]
        moved = max(moved, float(np.abs(off).max()))
    assert 0 < moved < 0.02


def test_other_differences_agree_with_their_p_too() -> None:
    rng = np.random.default_rng(0)
    for value in (0.1, -0.1):
        for reach in (0.02, 0.05, 0.2):
            drawn, swapped = value + reach * rng.normal(size=2000), 0.05 * rng.normal(size=2000)
            found = paired(value, drawn, swapped, 40, alone=False)
            assert (found.p < 0.05) != (found.low <= 0 <= found.high)
            assert found.low <= found.value <= found.high


def test_differences_of_means_are_students_where_he_is_right() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=50)
    second = first + rng.normal(0.3, 1, 50)
    found = paired_means(first, second, 0)
    test = stats.ttest_rel(second, first)
    low, high = test.confidence_interval()
    assert [found.low, found.high] == pytest.approx([low, high], abs=0.05)
    assert found.p == pytest.approx(test.pvalue, abs=0.02)
    assert found == paired_means(first, second, 0) != paired_means(first, second, 1)
    # Values of one patient stand or fall together.
    of = np.arange(50) // 5
    by_patient = paired_means(np.repeat(first[:10], 5), np.repeat(second[:10], 5), 0, of)
    alone = paired_means(first[:10], second[:10], 0)
    assert [*by_patient] == pytest.approx([*alone])


def test_identical_models_differ_by_nothing_and_p_is_one() -> None:
    values = np.arange(10.0)
    assert paired_means(values, values, 0) == (0, 0, 0, 1)
    assert paired_answers(values > 4, values > 4).p == 1
    nothing = np.array([np.nan])
    assert np.isnan(paired(0.1, nothing, np.array([0.1]), 10, alone=True).low)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 9])
def test_p_of_few_patients_counts_every_way_their_signs_could_fall(n: int) -> None:
    rng = np.random.default_rng(n)
    of = np.repeat(np.arange(n), rng.integers(1, 4, n))
    off = rng.normal(1, 1, len(of))

    def p_if(true: float) -> float:
        sums = np.array([(off - true)[of == i].sum() for i in range(n)])
        ways = np.array(list(product((-1, 1), repeat=n))) @ sums
        return float((abs(ways) >= abs(sums.sum()) - 1e-9).mean())

    found = paired_means(np.zeros(len(of)), off, 0, of)
    assert found.value == pytest.approx(off.mean()) and found.p == pytest.approx(p_if(0))
    assert found.p >= 2 / 2**n
    if n < 6:  # no difference can be refused
        assert np.isnan([found.low, found.high]).all() and len(few_groups(n, "patients")) == 2
    else:
        for end, outwards in ((found.low, -1e-6), (found.high, 1e-6)):
            assert p_if(end + outwards) < 0.05 <= p_if(end - outwards)


def test_differences_of_few_patients_hold_the_truth() -> None:
    rng = np.random.default_rng(0)
    for n in (6, 8):
        made = [paired_means(np.zeros(n), rng.normal(size=n), 0) for _ in range(300)]
        assert 0.93 <= np.mean([one.low <= 0 <= one.high for one in made]) <= 0.99
        assert all((one.p < 0.05) != (one.low <= 0 <= one.high) for one in made)


def test_resampling_draws_as_many_as_there_are() -> None:
    drawn = np.array(list(resamples(7, 0)))
    assert (drawn.sum(1) == 7).all() and drawn.mean(0) == pytest.approx(np.ones(7), abs=0.1)


def test_groups_that_stand_alone_or_together_are_worth_their_number() -> None:
    values = np.repeat(np.arange(400) % 2, 3).astype(float)
    assert clustering(values, np.repeat(np.arange(400), 3)).effect == pytest.approx(3, abs=0.02)
    assert clustering(values, np.arange(1200)) == (1, np.inf) == clustering(values, None)
    mixed = np.random.default_rng(0).permutation(values)
    assert clustering(mixed, np.repeat(np.arange(400), 3)).effect == pytest.approx(1, abs=0.15)


def answers(
    rng: np.random.Generator, patients: int, each: int, truth: float, likeness: float
) -> NDArray[np.float64]:
    """Beta-binomial: right answers of patients whose own shares differ; likeness is the ICC."""
    a_and_b = (1 - likeness) / likeness
    shares = rng.beta(a_and_b * truth, a_and_b * (1 - truth), patients)
    return rng.binomial(1, np.repeat(shares, each)).astype(float)


@pytest.mark.parametrize(
    ("patients", "each", "truth", "likeness"),
    [
        (6, 50, 0.95, 0.1), (10, 30, 0.95, 0.1), (30, 10, 0.98, 0.2), (40, 10, 0.98, 0.2),
        (100, 10, 0.98, 0.2), (40, 10, 0.9, 0.3), (40, 6, 0.95, 0.67), (40, 3, 0.5, 0.3),
        (100, 2, 0.95, 0.3), (1000, 2, 0.95, 0.3),
    ],
)  # fmt: skip
def test_figures_of_patients_with_several_images_are_held_by_92_percent_and_more(
    patients: int, each: int, truth: float, likeness: float
) -> None:
    """With two classes of one recall, accuracy, balanced accuracy and macro-F1 are it."""
    rng = np.random.default_rng(patients * each)
    of, label = np.repeat(np.arange(patients), each), np.arange(patients * each) % 2
    drawn = [answers(rng, patients, each, truth, likeness) for _ in range(400)]
    kept = {"accuracy": [holds(bounded_mean(right, of), truth) for right in drawn]}
    found = [clustering(right, of) for right in drawn]
    cells = [np.where(right > 0, 3 * label, 1 + label) for right in drawn]
    tables = np.array([np.bincount(one, minlength=4).reshape(2, 2) for one in cells])
    worth = tables / np.array([own.effect for own in found])[:, None, None]
    quantiles = np.array([own.quantile for own in found])
    for name, figure in FIGURES.items():
        low, high = table_interval(worth, *figure, quantiles)
        kept[name] = [*((low <= truth) & (truth <= high))]
    most = 0.99 if patients >= 40 else 1.0  # with fewer patients they are wider than need be
    for name, own_kept in kept.items():  # of 400, 1.1 % is noise
        assert 0.915 <= np.mean(own_kept) <= most, name


@pytest.mark.parametrize("by", ["image", "patient"])
@pytest.mark.parametrize(("patients", "each", "truth"), [(40, 3, 0.9), (100, 6, 0.75)])
def test_auroc_of_patients_with_several_images_is_held_by_92_percent_and_more(
    patients: int, each: int, truth: float, by: str
) -> None:
    """Normal scores that a patient's images share in part, labels of an image or a patient."""
    rng = np.random.default_rng(patients)
    of, n = np.repeat(np.arange(patients), each), patients * each
    positive = (np.arange(n) if by == "image" else of) % 4 == 0
    kept = []
    for _ in range(300):
        scores = np.sqrt(0.6) * rng.normal(size=n) + np.sqrt(0.4) * rng.normal(size=patients)[of]
        scores += np.sqrt(2) * stats.norm.ppf(truth) * positive
        kept.append(holds(auroc_interval(positive[:, None], scores[:, None], of), truth))
    assert 0.915 <= np.mean(kept) <= 0.99


@pytest.mark.parametrize("patients", [3, 40, 200])
def test_from_one_error_to_none_no_interval_of_patients_jumps(patients: int) -> None:
    """600 images: 599 right were held to be surer than 600."""
    of = np.repeat(np.arange(patients), 600 // patients)
    lows = []
    for wrong in (0.0, 0.01, 0.5, 1.0):  # in part wrong as the precision at k may be
        values = np.ones(600)
        values[7] -= wrong
        found = bounded_mean(values, of)
        lows.append(found.low)
        assert found.low < found.value <= found.high
    below = 1 - np.array(lows)
    assert below.max() < 2 * below.min() and below[3] == pytest.approx(below[0], rel=0.35)
