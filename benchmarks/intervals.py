"""Count how often `egma-eval`'s 95 % intervals hold the truth: a table in Markdown.

    python benchmarks/intervals.py [--samples 2000] [--only patients] > benchmarks/intervals.md

Every sample is drawn anew from what is written in its row, measured with the package's own
function, and counted where low <= truth <= high. What plain methods reach stands beside.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from egma_train.evaluate import intervals, metrics

Floats = NDArray[np.float64]
Row = tuple[str, int, float, Floats, Floats, float]  # what, n, truth, lows, highs, plain coverage
Z = 1.96
CLASSES = {
    "2 classes": ([0.5, 0.5], 0),
    "2 classes, 1 in 5": ([0.8, 0.2], 0),
    "5 classes": ([0.2] * 5, 0),
    "5 classes of unlike recall": ([0.2] * 5, 0.6),
    "5 classes, 1 in 10": ([0.4, 0.25, 0.15, 0.1, 0.1], 0),
}


def held(lows: Floats, highs: Floats, truth: float) -> float:
    """Share of intervals that hold the truth."""
    return float(((lows <= truth) & (truth <= highs)).mean())


def ends(found: list[intervals.Interval]) -> tuple[Floats, Floats]:
    """Low and high ends of many intervals."""
    return np.array([one.low for one in found]), np.array([one.high for one in found])


def accuracies(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Right answers one by one: Wilson beside Wald."""
    for truth in (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.99):
        share = rng.binomial(n, truth, samples) / n
        low, high = intervals.wilson(share, n)
        half = Z * np.sqrt(share * (1 - share) / n)
        yield "accuracy", n, truth, low, high, held(share - half, share + half, truth)


def tables(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Confusion matrices: the tilted score interval beside the delta method."""
    figures: list[tuple[str, metrics.Figure, metrics.Figure]] = [
        ("balanced accuracy", metrics.balanced_accuracy, metrics.balanced_accuracy_slopes),
        ("macro-F1", metrics.macro_f1, metrics.macro_f1_slopes),
    ]
    for said, (sizes, unlike) in CLASSES.items():
        k = len(sizes)
        for recall in (0.5, 0.8, 0.9, 0.97):
            recalls = recall + unlike * (1 - recall) * np.linspace(1, -1, k)
            shares = np.repeat((1 - recalls)[:, None] / (k - 1), k, axis=1)
            np.fill_diagonal(shares, recalls)
            shares *= np.array(sizes)[:, None]
            drawn = rng.multinomial(n, shares.ravel(), samples).reshape(-1, k, k)
            for name, figure, slopes in figures:
                truth = float(figure(shares))
                value, half = figure(drawn), Z * np.sqrt((drawn * slopes(drawn) ** 2).sum((1, 2)))
                low, high = intervals.table_interval(drawn, figure, slopes)
                yield (
                    f"{name}, {said}",
                    n,
                    truth,
                    low,
                    high,
                    held(value - half, value + half, truth),
                )


def areas(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Draw normal scores, at last of unlike widths: beside DeLong's logit interval."""
    samples = min(samples, 1000)
    for positives, width in ((n // 2, 1.0), (n // 5, 1.0), (max(n // 50, 5), 1.0), (n // 5, 1.5)):
        for truth in (0.6, 0.75, 0.9, 0.95, 0.98):
            positive = np.arange(n) < positives
            scores = rng.normal(size=(samples, n))
            scores[:, positive] *= width
            scores[:, positive] += stats.norm.ppf(truth) * np.sqrt(1 + width**2)
            found = [intervals.auroc_interval(positive[:, None], own[:, None]) for own in scores]
            plain = np.mean([logit_holds(positive, own, truth) for own in scores])
            wide = "" if width == 1 else f", {width} times as wide"
            yield f"AUROC, {positives} positives{wide}", n, truth, *ends(found), float(plain)


def logit_holds(positive: NDArray[np.bool_], scores: Floats, truth: float) -> bool:
    """Tell whether DeLong's interval of the log odds holds; one value alone does where it is 1."""
    placed = intervals.placements(positive, scores)
    sides = placed[positive], placed[~positive]
    value = float(sides[0].mean())
    if value in (0, 1):
        return value == truth
    half = Z * np.sqrt(sum(own.var(ddof=1) / len(own) for own in sides)) / (value * (1 - value))
    return bool(abs(np.log(value / (1 - value)) - np.log(truth / (1 - truth))) <= half)


def macro_areas(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Five classes, one against the rest."""
    samples = min(samples, 500)
    for apart in (0.5, 1.5, 2.5):

        def drawn(n: int, apart: float = apart) -> tuple[NDArray[np.bool_], Floats]:
            truth = np.arange(n)[:, None] % 5 == np.arange(5)
            logits = rng.normal(size=(n, 5)) + apart * truth
            return truth, logits - np.log(np.exp(logits).sum(1, keepdims=True))

        truth = intervals.auroc_interval(*drawn(200_000)).value
        found = [intervals.auroc_interval(*drawn(n)) for _ in range(samples)]
        yield "AUROC, mean of 5 classes", n, truth, *ends(found), np.nan


def means(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Values between bounds, alone and six a patient: beside a normal interval of lone values."""
    samples = min(samples, 1000)
    kinds: dict[str, Callable[[float, int], Floats]] = {
        "hits in ten": lambda mean, n: rng.binomial(10, rng.beta(4 * mean, 4 - 4 * mean, n)) / 10,
        "shares": lambda mean, n: rng.beta(5 * mean, 5 - 5 * mean, n),
        "hits, 6 a patient": lambda mean, n: rng.binomial(
            1, np.repeat(rng.beta(2 * mean, 2 - 2 * mean, n), 6)
        ).astype(np.float64),
    }
    for said, draw in kinds.items():
        for truth in (0.2, 0.5, 0.8, 0.95):
            of = np.repeat(np.arange(n), 6) if "patient" in said else np.arange(n)
            values = [draw(truth, n) for _ in range(samples)]
            found = [intervals.bounded_mean(own, of) for own in values]
            plain = [abs(own.mean() - truth) <= Z * own.std() / np.sqrt(len(own)) for own in values]
            yield f"mean of {said}", n, truth, *ends(found), float(np.mean(plain))


def patients(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """So many patients of several images, by likeness (ICC): beside the same without patients."""
    samples = min(samples, 1000 if n < 1000 else 200)
    for each, likeness in ((3, 0.3), (10, 0.2), (6, 0.6)):
        of = np.repeat(np.arange(n), each)
        label = np.arange(n * each) % 2
        for truth in (0.8, 0.9, 0.95, 0.98):
            a_and_b = (1 - likeness) / likeness
            shares = rng.beta(a_and_b * truth, a_and_b * (1 - truth), (samples, n))
            right = rng.binomial(1, np.repeat(shares, each, axis=1)).astype(np.float64)
            said = f"{each} images a patient, ICC {likeness}"
            found = [intervals.bounded_mean(own, of) for own in right]
            plain = [intervals.bounded_mean(own) for own in right]
            yield f"accuracy, {said}", n, truth, *ends(found), held(*ends(plain), truth)
            own = [intervals.clustering(one, of) for one in right]
            tables = np.array(
                [np.bincount(np.where(one > 0, 3 * label, 1 + label), minlength=4) for one in right]
            ).reshape(-1, 2, 2)
            worth = tables / np.array([one.effect for one in own])[:, None, None]
            figure = metrics.balanced_accuracy, metrics.balanced_accuracy_slopes
            low, high = intervals.table_interval(
                worth, *figure, np.array([one.quantile for one in own])
            )
            alone = held(*intervals.table_interval(tables, *figure), truth)
            yield f"balanced accuracy, {said}", n, truth, low, high, alone
        for truth in (0.75, 0.9, 0.98):
            for positive, by in ((label[:, None] > 0, "image"), (of[:, None] % 4 == 0, "patient")):
                shared = rng.normal(size=(samples, n))[:, of]
                scores = np.sqrt(1 - likeness) * rng.normal(size=shared.shape)
                scores += np.sqrt(likeness) * shared
                scores += np.sqrt(2) * stats.norm.ppf(truth) * positive[:, 0]
                found = [intervals.auroc_interval(positive, one[:, None], of) for one in scores]
                plain = [intervals.auroc_interval(positive, one[:, None]) for one in scores]
                what = f"AUROC, labels by {by}, {each} images a patient, ICC {likeness}"
                yield what, n, truth, *ends(found), held(*ends(plain), truth)


def gains(rng: np.random.Generator, samples: int, n: int) -> Iterator[Row]:
    """Two models on the same images: accuracy, and means."""
    samples = min(samples, 200 if n < 1000 else 60)
    for gained, lost in ((0.05, 0.05), (0.1, 0.02), (0.3, 0.15)):
        kinds = rng.choice(3, (10 * samples, n), p=[gained, lost, 1 - gained - lost])
        pairs = [intervals.paired_answers(kind == 1, kind == 0) for kind in kinds]
        off = np.where(kinds == 2, 0, 1 - 2 * kinds)
        half = Z * off.std(1) / np.sqrt(n)
        plain = held(off.mean(1) - half, off.mean(1) + half, gained - lost)
        ends_of = np.array([one.low for one in pairs]), np.array([one.high for one in pairs])
        said = f"difference of accuracy, {gained:.0%} gained, {lost:.0%} lost"
        yield said, n, gained - lost, *ends_of, plain
    pairs = []
    for seed in range(samples):
        first = rng.beta(2, 2, n)
        second = np.clip(first + rng.normal(0.1, 0.2, n), -1, 2)
        pairs.append(intervals.paired_means(first, second, seed))
    ends_of = np.array([one.low for one in pairs]), np.array([one.high for one in pairs])
    yield "difference of means, flips of signs", n, 0.1, *ends_of, np.nan


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    kinds = (accuracies, tables, areas, macro_areas, means, patients, gains)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--only", choices=[kind.__name__ for kind in kinds])
    asked = parser.parse_args()
    print("# Intervals by simulation, as printed by `benchmarks/intervals.py`\n")
    print("| figure | n | truth | held, % | mean width | plain method held, % |")
    print("|---|---|---|---|---|---|")
    for kind in kinds:
        if asked.only not in (None, kind.__name__):
            continue
        for n in (40, 100, 1000):
            rng = np.random.default_rng(n)
            for said, _, truth, low, high, plain in kind(rng, asked.samples, n):
                cells = f"{100 * held(low, high, truth):.1f} | {(high - low).mean():.3f}"
                beside = "" if np.isnan(plain) else f"{100 * plain:.1f}"
                print(f"| {said} | {n} | {truth:.3f} | {cells} | {beside} |", flush=True)


if __name__ == "__main__":
    main()
