"""PHANTOM readings with a truth: dictations, and eyes that run ahead of the voice.

Written from what is published of radiologists' gaze, not from what judges it: the eye comes to a
finding some time before the voice names it (a lognormal lag), stays there, wanders off for a share
of the fixations, blinks; the tracker is off by 0.4 degrees; some readers zoom in. Nothing of
`egma_prep` is used.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDTH, HEIGHT = 2544, 3056
PX_PER_DEG = 100.0  # of an unzoomed image, as in REFLACX
_LUNGS = ((400, 500, 1150, 2300), (1400, 500, 2150, 2300))  # x0, y0, x1, y1 in pixels
_WHOLE = (0.0, 0.0, float(WIDTH), float(HEIGHT))


@dataclass(frozen=True)
class Eyes:
    """How a group of readers looks."""

    lag_s: float
    """Median time from coming to a finding until the voice begins to name it."""
    lag_spread: float = 0.4
    """Of the lag's logarithm."""
    stray_share: float = 0.2
    """Fixations anywhere in the lungs."""
    error_deg: float = 0.4
    """Root mean square of the tracker's offset, one a reading."""
    scatter_deg: float = 0.4
    """Standard deviation of a fixation around what is looked at."""
    zoom_share: float = 0.2
    """Readings in which findings are looked at zoomed in, by 1.5 to 3."""
    blink_share: float = 0.07


class Sentence(NamedTuple):
    """Seconds, and the ellipse x0, y0, x1, y1 that it names, in pixels; None of a denial."""

    begin: float
    end: float
    ellipse: tuple[float, float, float, float] | None


class Reading(NamedTuple):
    """Fixations as columns, ``(k,)`` each and `shown` ``(k, 4)``; pixels of the image, seconds."""

    patient: int
    sentences: list[Sentence]
    begin: Floats
    end: Floats
    x: Floats
    y: Floats
    px_per_deg: Floats
    shown: Floats


def make_readings(number: int, eyes: Eyes, seed: int) -> list[Reading]:
    """Make readings, each of a patient of its own."""
    return [_reading(i, eyes, np.random.default_rng([seed, i])) for i in range(number)]


def _reading(patient: int, eyes: Eyes, rng: np.random.Generator) -> Reading:
    sentences, clock = [], rng.uniform(1.0, 3.0)
    for _ in range(int(rng.integers(3, 8))):
        end = clock + float(np.clip(rng.lognormal(0.9, 0.4), 1.0, 6.0))
        sentences.append(Sentence(clock, end, _ellipse(rng) if rng.random() < 0.6 else None))
        clock = end + float(np.clip(rng.lognormal(-0.3, 0.7), 0.1, 3.0))
    lags = eyes.lag_s * rng.lognormal(0, eyes.lag_spread, len(sentences))
    # The eye goes from one to the next in order; it cannot come to the next before it came to this.
    arrivals = np.maximum.accumulate([one.begin for one in sentences] - lags)
    zoom = rng.uniform(1.5, 3.0) if rng.random() < eyes.zoom_share else 1.0
    offset = rng.normal(0, eyes.error_deg / np.sqrt(2), 2) * PX_PER_DEG
    rows, now = [], rng.uniform(0.05, 0.4)
    while now < sentences[-1].end + 1.0:
        until = now + float(np.clip(0.25 * rng.lognormal(0, 0.55), 0.08, 1.5))
        at = int(np.searchsorted(arrivals, now, "right")) - 1
        target = sentences[at].ellipse if at >= 0 else None
        if target is not None and rng.random() >= eyes.stray_share:
            scale, shown = zoom, _shown(target, zoom, rng)
            middle = (np.array(target[:2]) + target[2:]) / 2
            spread = (np.array(target[2:]) - target[:2]) / 6  # within the ellipse
            place = middle + rng.normal(0, 1, 2) * spread
        else:
            scale, shown = 1.0, _WHOLE
            x0, y0, x1, y1 = _LUNGS[int(rng.integers(2))]
            place = rng.uniform((x0, y0), (x1, y1))
        degree = PX_PER_DEG / scale  # where zoomed in, a degree is fewer pixels of the image
        seen = place + offset / scale + rng.normal(0, eyes.scatter_deg / np.sqrt(2), 2) * degree
        rows.append((now, until, *seen, degree, *shown))
        now = until + rng.uniform(0.02, 0.08) + (rng.random() < eyes.blink_share) * 0.25
    columns = np.array(rows).T
    return Reading(patient, sentences, *columns[:5], columns[5:].T)


def _ellipse(rng: np.random.Generator) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _LUNGS[int(rng.integers(2))]
    radius = rng.uniform((90, 90), (330, 380))
    x, y = rng.uniform((x0, y0), (x1, y1))
    return x - radius[0], y - radius[1], x + radius[0], y + radius[1]


def _shown(
    ellipse: tuple[float, float, float, float], zoom: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Show a part of the image around what is looked at, never beyond the image."""
    if zoom == 1.0:
        return _WHOLE
    size = np.array([WIDTH, HEIGHT]) / zoom
    middle = (np.array(ellipse[:2]) + ellipse[2:]) / 2 + rng.normal(0, 100, 2)
    corner = np.clip(np.round(middle - size / 2), 0, np.array([WIDTH, HEIGHT]) - np.ceil(size))
    x1, y1 = corner + np.ceil(size)
    return float(corner[0]), float(corner[1]), float(x1), float(y1)
