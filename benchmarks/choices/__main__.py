"""Measure the choices, and write their tables into docs/gaze.md and their picture beside it.

``python -m benchmarks.choices [--readings 300]``: about ten minutes on two cores.
"""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.choices.measure import Row, rows_of
from benchmarks.choices.phantoms import Eyes, Reading, make_readings
from benchmarks.choices.picture import draw
from egma_prep.gaze.lag import estimated_lag_s, spread_by_shift
from egma_prep.options import RECIPES, RenderOptions
from egma_train.evaluate.intervals import bounded_mean

PAGE = Path(__file__).parents[2] / "docs" / "gaze.md"
PICTURE = PAGE.parent / "img" / "choices.png"
BEGIN, END = "<!-- choices: begin -->", "<!-- choices: end -->"
LAGS_S = (0.0, 0.5, 1.0, 1.5, 2.0)
USUAL_LAG_S = 1.0
SEED = 20261127
PAPER = "the paper: spoken, sigma 16, seconds"
CHOICES: dict[str, dict[str, Any]] = {
    PAPER: {},
    "window pause": {"window": "pause"},
    "lead 0.5 s": {"lead": 0.5},
    "lead 1 s": {"lead": 1.0},
    "lead 1.5 s": {"lead": 1.5},
    "lead 2 s": {"lead": 2.0},
    "lead 3 s": {"lead": 3.0},
    "sigma 4": {"sigma": 4.0},
    "sigma 8": {"sigma": 8.0},
    "sigma 24": {"sigma": 24.0},
    "sigma 32": {"sigma": 32.0},
    "sigma 0.5deg": {"sigma": "0.5deg"},
    "sigma 1deg": {"sigma": "1deg"},
    "sigma 2deg": {"sigma": "2deg"},
    "sigma 1deg, kernel density": {"sigma": "1deg", "kernel": "density"},
    "sigma 1deg, density, border shown": {"sigma": "1deg", "kernel": "density", "border": "shown"},
    "weights count": {"weights": "count"},
    "recipe reflacx": RECIPES["reflacx"],
    "recipe eye-gaze": RECIPES["eye-gaze"],
    "recipe look-back-1.5s": RECIPES["look-back-1.5s"],
    "lead 1 s, sigma 1deg": {"lead": 1.0, "sigma": "1deg"},
    "lead 1 s, sigma 8": {"lead": 1.0, "sigma": 8.0},
}
WINDOWS = (PAPER, "window pause", *(f"lead {seconds:g} s" for seconds in (0.5, 1, 1.5, 2, 3)))
SIGMAS = ("sigma 4", "sigma 8", PAPER, "sigma 24", "sigma 32", "sigma 1deg", "lead 1 s, sigma 8")
FIGURES = ("pointing", "AUROC", "IoU")


@click.command()
@click.option("--readings", default=300, show_default=True, help="Patients for each lag.")
@click.option("--workers", default=2, show_default=True)
@click.option("--page", type=click.Path(path_type=Path), default=PAGE, show_default=True)
@click.option("--picture", type=click.Path(path_type=Path), default=PICTURE, show_default=True)
def main(readings: int, workers: int, page: Path, picture: Path) -> None:
    """Measure, print, write."""
    groups = {lag_s: make_readings(readings, Eyes(lag_s), SEED) for lag_s in LAGS_S}
    asked = [
        (lag_s, name) for lag_s in LAGS_S for name in (CHOICES if lag_s == USUAL_LAG_S else WINDOWS)
    ]
    with ProcessPoolExecutor(workers) as pool:
        jobs = {
            (lag_s, name): pool.submit(rows_of, groups[lag_s], RenderOptions(**CHOICES[name]))
            for lag_s, name in asked
        }
        found = {key: job.result() for key, job in jobs.items()}
    text = "\n".join(tables(found, groups, readings))
    print(text)
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
    draw(groups[USUAL_LAG_S], {name: RenderOptions(**CHOICES[name]) for name in CHOICES}, picture)


def tables(
    found: dict[tuple[float, str], list[Row]], groups: dict[float, list[Reading]], readings: int
) -> list[str]:
    """Write the tables in Markdown."""
    usual = {name: rows for (lag_s, name), rows in found.items() if lag_s == USUAL_LAG_S}
    sentences = len(next(iter(usual.values())))
    lines = [
        f"{readings} phantom readings for each lag, {sentences} sentences that name a finding where"
        f" the median lag is {USUAL_LAG_S:g} s; 95 % intervals by patients, in per cent."
        " `python -m benchmarks.choices` made the tables.",
        "",
        f"| lag {USUAL_LAG_S:g} s | peak in the finding | AUROC of pixels |"
        " IoU above a quarter of the peak |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {' | '.join(_share(rows, figure) for figure in FIGURES)} |"
        for name, rows in usual.items()
    ]
    lines += [
        "",
        "The peak lies in the finding, by how far the eye is ahead (median):",
        "",
        f"| window | {' | '.join(f'{lag_s:g} s' for lag_s in LAGS_S)} |",
        "|---|" + "---|" * len(LAGS_S),
    ]
    lines += [
        f"| {name} | {' | '.join(_share(found[lag_s, name], 'pointing') for lag_s in LAGS_S)} |"
        for name in WINDOWS
    ]
    lines += [
        "",
        "Labels of patches (Eq. 5): of the 49 cells, the finding's are covered by it to a quarter.",
        "",
        "| sigma | `nonzero`: cells | precision | recall"
        " | `quarter-max`: cells | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in SIGMAS:
        cells = []
        for rule in ("nonzero", "quarter-max"):
            cells.append(f"{_mean(usual[name], f'cells, {rule}'):.1f}")
            cells += [_share(usual[name], f"{what}, {rule}") for what in ("precision", "recall")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "The lag, estimated without the truth as `egma-prep report` does:",
        "",
        f"| truth (median) | {' | '.join(f'{lag_s:g} s' for lag_s in LAGS_S)} |",
        "|---|" + "---|" * len(LAGS_S),
        "| estimate | " + " | ".join(f"{_lag_s(groups[lag_s]):.2f} s" for lag_s in LAGS_S) + " |",
    ]
    return lines


def _lag_s(readings: list[Reading]) -> float:
    spreads = [
        spread_by_shift(
            one.begin, one.end, one.x, one.y, np.array([said.begin for said in one.sentences])
        )
        for one in readings
    ]
    return estimated_lag_s(np.array(spreads))


def _column(rows: list[Row], figure: str) -> tuple[Any, Any]:
    patients = np.unique([one.patient for one in rows], return_inverse=True)[1]
    return np.array([one.figures[figure] for one in rows]), patients


def _mean(rows: list[Row], figure: str) -> float:
    return float(np.nanmean(_column(rows, figure)[0]))


def _share(rows: list[Row], figure: str) -> str:
    mean = bounded_mean(*_column(rows, figure))
    return f"{100 * mean.value:.1f} ({100 * mean.low:.1f} to {100 * mean.high:.1f})"


if __name__ == "__main__":
    main()
