"""Heatmaps of one sentence, ours and as others make them: time, error, the way to full resolution.

Run by ``make bench``; prints Markdown. All at 224 x 224 with sigma 16, quantised to bytes; the
error is against a float64 sum over every pixel and fixation. The straight script is that sum as
the REFLACX authors write it (scipy's bivariate normal density, a fixation at a time) and, as the
EYE GAZE authors do, impulses blurred with sigma 150, both on the whole 2544 x 3056 image.
"""

import os

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as in the ETL's workers

import argparse
import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal

from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import rendered_maps
from egma_prep.gaze.kernels import gaussian

_SIGMA_PX, _TRUNCATE = 16.0, 3.0
_WIDTH, _HEIGHT = 2544, 3056
_FULL_SIGMA_PX = 150.0
Sentence = tuple[np.ndarray, np.ndarray, np.ndarray]  # x, y in the frame, seconds


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=40)
    arguments = parser.parse_args()
    rng = np.random.default_rng(1)
    drawn = [draw(rng, int(rng.integers(5, 41))) for _ in range(arguments.sentences)]
    exact = [plain_sum(*one) for one in drawn]
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    errors = dict.fromkeys(WAYS, 0)
    for one, truth in zip(drawn, exact, strict=True):
        for name, way in WAYS.items():  # in turns
            spent, made = timed(way, *one)
            seconds[name].append(spent)
            off = np.abs(made.astype(int) - quantised(truth))
            errors[name] = max(errors[name], int(off.max()))
    ours = statistics.median(seconds["ours"])
    print(f"{len(drawn)} sentences of 5 to 40 fixations:\n")
    print("| way | us a map, median | times ours | largest error, of 255 |")
    print("|---|---|---|---|")
    for name, spent in seconds.items():
        middle = statistics.median(spent)
        print(f"| {name} | {1e6 * middle:,.0f} | {middle / ours:,.1f} | {errors[name]} |")
    print("\nOne sentence of 12 fixations on the whole image:\n\n| way | s | times ours |")
    print("|---|---|---|")
    x, y, weight_s = draw(rng, 12)
    scale = _HEIGHT / FRAME_PX
    for name, way in FULL.items():
        spent, _ = timed(way, x * scale * _WIDTH / _HEIGHT, y * scale, weight_s)
        print(f"| {name} | {spent:.2f} | {spent / ours:,.0f} |")


def draw(rng: np.random.Generator, fixations: int) -> Sentence:
    """Draw a sentence's fixations on the image."""
    x, y = np.clip(rng.normal(112, 45, (2, fixations)), 0, FRAME_PX - 1)
    return x, y, rng.uniform(0.05, 0.6, fixations)


def timed(way: Callable[..., np.ndarray], *sentence: np.ndarray) -> tuple[float, np.ndarray]:
    """Run one way; the faster of two."""
    spent = []
    for _ in range(2):
        begin = time.perf_counter()
        made = way(*sentence)
        spent.append(time.perf_counter() - begin)
    return min(spent), made


def quantised(total: np.ndarray) -> np.ndarray:
    """Normalise by the peak and round to bytes."""
    return np.floor(total * (255 / total.max()) + (0.5 + 1e-9)).astype(np.uint8)


def plain_sum(x: np.ndarray, y: np.ndarray, weight_s: np.ndarray) -> np.ndarray:
    """Sum every fixation's cut Gaussian at every pixel in float64."""
    v, u = np.mgrid[:FRAME_PX, :FRAME_PX]
    total = np.zeros((FRAME_PX, FRAME_PX))
    for x_f, y_f, weight in zip(x, y, weight_s, strict=True):
        inside = np.maximum(abs(u - x_f), abs(v - y_f)) <= _TRUNCATE * _SIGMA_PX
        squared = ((u - x_f) ** 2 + (v - y_f) ** 2) / (2 * _SIGMA_PX**2)
        total += weight * np.exp(-squared) * inside
    return total


def _ours(x: np.ndarray, y: np.ndarray, weight_s: np.ndarray) -> np.ndarray:
    sigma_px = np.full(len(x), _SIGMA_PX)
    (made,) = rendered_maps(
        gaussian.footprints(x, y, sigma_px, sigma_px, _TRUNCATE), weight_s[None]
    )
    assert made is not None
    return made.values


def _windows(x: np.ndarray, y: np.ndarray, weight_s: np.ndarray) -> np.ndarray:
    reach = int(np.ceil(_TRUNCATE * _SIGMA_PX))
    total = np.zeros((FRAME_PX, FRAME_PX))
    for x_f, y_f, weight in zip(x, y, weight_s, strict=True):
        rows, columns = (
            np.arange(max(0, round(at) - reach), min(FRAME_PX, round(at) + reach + 1))
            for at in (float(y_f), float(x_f))
        )
        squared = (rows[:, None] - y_f) ** 2 + (columns - x_f) ** 2
        patch = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        total[patch] += weight * np.exp(-squared / (2 * _SIGMA_PX**2))
    return quantised(total)


def _impulses(
    x: np.ndarray, y: np.ndarray, weight_s: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    total = np.zeros(shape)
    at = tuple(
        np.minimum(np.round(px).astype(int), n - 1) for px, n in ((y, shape[0]), (x, shape[1]))
    )
    np.add.at(total, at, weight_s)
    return total


def _cv2(*sentence: np.ndarray) -> np.ndarray:
    total = _impulses(*sentence, (FRAME_PX, FRAME_PX))
    return quantised(cv2.GaussianBlur(total, (97, 97), _SIGMA_PX, borderType=cv2.BORDER_CONSTANT))


def _scipy(*sentence: np.ndarray) -> np.ndarray:
    total = _impulses(*sentence, (FRAME_PX, FRAME_PX))
    return quantised(gaussian_filter(total, _SIGMA_PX, mode="constant", truncate=_TRUNCATE))


def _densities(
    x: np.ndarray, y: np.ndarray, weight_s: np.ndarray, shape: tuple[int, int], sigma_px: float
) -> np.ndarray:
    grid = np.stack(np.mgrid[: shape[0], : shape[1]], axis=-1)
    total = np.zeros(shape)
    for centre, weight in zip(np.stack([y, x], axis=1), weight_s, strict=True):
        total += weight * multivariate_normal(centre, np.eye(2) * sigma_px**2).pdf(grid)
    return quantised(total)


WAYS: dict[str, Callable[..., np.ndarray]] = {
    "ours": _ours,
    "a window a fixation, as imgviz's heatmap": _windows,
    "impulses, cv2 blur": _cv2,
    "impulses, scipy blur": _scipy,
    "REFLACX's formula": lambda *one: _densities(*one, (FRAME_PX, FRAME_PX), _SIGMA_PX),
}
FULL: dict[str, Callable[..., np.ndarray]] = {
    "REFLACX's formula": lambda *one: _densities(*one, (_HEIGHT, _WIDTH), _FULL_SIGMA_PX),
    "EYE GAZE's blur": lambda *one: quantised(
        gaussian_filter(_impulses(*one, (_HEIGHT, _WIDTH)), _FULL_SIGMA_PX)
    ),
}

if __name__ == "__main__":
    main()
