"""Heatmaps as published code makes them, at full resolution: FORMATS, sections 6.1 and 6.2.

Written from the formulas, pixel by pixel or with scipy's filter; nothing of ours is used. Lengths
are pixels of the original image, times seconds.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float64]


class Look(NamedTuple):
    """One fixation, with the rectangle x0, y0, x1, y1 that was on the screen."""

    begin: float
    end: float
    x: float
    y: float
    px_per_deg: tuple[float, float]
    shown: tuple[int, int, int, int]


def reflacx_map(looks: list[Look], seconds: list[float], width: int, height: int) -> Floats:
    """Sum normal densities of one degree inside what was shown, as REFLACX's example code does."""
    total = np.zeros((height, width))
    for look, weight in zip(looks, seconds, strict=True):
        if weight <= 0:
            continue
        x0, y0, x1, y1 = look.shown
        sx, sy = look.px_per_deg
        across = np.exp(-((np.arange(x0, x1) - look.x) ** 2) / (2 * sx**2))
        down = np.exp(-((np.arange(y0, y1) - look.y) ** 2) / (2 * sy**2))
        total[y0:y1, x0:x1] += weight / (2 * np.pi * sx * sy) * np.outer(down, across)
    return total


def eye_gaze_map(looks: list[Look], counts: list[float], width: int, height: int) -> Floats:
    """Count fixations pixel by pixel and blur by 150 pixels, as EYE GAZE's authors do."""
    total = np.zeros((height, width))
    for look, count in zip(looks, counts, strict=True):
        total[int(look.y), int(look.x)] += count
    return ndimage.gaussian_filter(total, sigma=150)


def egma_map(
    looks: list[Look], seconds: list[float], width: int, height: int, sigma: float
) -> Floats:
    """Sum Gaussians of height 1 up to three sigma, on the square that the image is padded to."""
    side = max(width, height)
    left, top = (side - width) // 2, (side - height) // 2
    total = np.zeros((side, side))
    u, v = np.meshgrid(np.arange(side) - left, np.arange(side) - top)
    for look, weight in zip(looks, seconds, strict=True):
        inside = (np.abs(u - look.x) <= 3 * sigma) & (np.abs(v - look.y) <= 3 * sigma)
        bell = np.exp(-((u - look.x) ** 2 + (v - look.y) ** 2) / (2 * sigma**2))
        total += weight * inside * bell
    return total


def overlaps(looks: list[Look], begin: float, end: float) -> list[float]:
    """Measure how long each fixation lies in a window."""
    return [max(0.0, min(look.end, end) - max(look.begin, begin)) for look in looks]


def look_back_windows(sentences: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Begin each window 1.5 s before its sentence, never before the previous one's begin."""
    windows, previous = [], 0.0
    for begin, end in sentences:
        windows.append((max(begin - 1.5, previous), end))
        previous = begin
    return windows


def reduced(full: Floats, width: int, height: int) -> Floats:
    """Pad to a centred square, if it is none yet, and average blocks to 224 x 224."""
    side = max(width, height)
    if full.shape != (side, side):
        padded = np.zeros((side, side))
        left, top = (side - width) // 2, (side - height) // 2
        padded[top : top + height, left : left + width] = full
        full = padded
    block = side // 224
    assert block * 224 == side
    return full.reshape(224, block, 224, block).mean(axis=(1, 3))
