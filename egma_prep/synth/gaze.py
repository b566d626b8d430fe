"""Where the invented radiologists look: fixations that lead the voice by about a second."""

from typing import NamedTuple

import numpy as np

from .anatomy import Box, Chest, Pixels, Rng
from .dictation import Quirks, Sentence


class Fixation(NamedTuple):
    """One rest of the eye: s from the start of the recording, full-resolution image px."""

    begin: float
    end: float
    x: float
    y: float
    valid: bool = True
    zoom: float = 1.0


def scan_path(
    sentences: list[Sentence], chest: Chest, px_per_deg: float, rng: Rng
) -> list[Fixation]:
    """Draw fixations, most of them on what is about to be said; image px a degree are given."""
    end = sentences[-1].end + rng.uniform(1.0, 2.5)
    looks = [s.begin - rng.uniform(0.5, 1.2) for s in sentences]  # s
    # The calibration is off by about 0.4 degrees.
    offset = rng.choice([-0.3, 0.3], 2) * rng.uniform(0.6, 1.3) * px_per_deg
    fixations = []
    clock = rng.uniform(0.05, 0.3)
    while clock < end:
        stop = clock + float(np.clip(0.25 * np.exp(0.55 * rng.standard_normal()), 0.05, 2.0))
        sentence = sentences[max(0, int(np.searchsorted(looks, clock)) - 1)]
        box = sentence.target_box if looks[0] < clock < sentence.end else None
        point = _point(box, chest, rng) + offset + rng.normal(0, 0.15 * px_per_deg, 2)
        x, y = (int(v) for v in np.floor(point))
        fixations.append(Fixation(round(clock, 3), round(stop, 3), x, y))
        clock = stop + rng.uniform(0.02, 0.09)  # saccade
        clock += rng.uniform(0.12, 0.4) if rng.random() < 0.07 else 0.0  # blink
    return fixations


def finish_reflacx(
    fixations: list[Fixation], sentences: list[Sentence], chest: Chest, quirks: Quirks, rng: Rng
) -> list[Fixation]:
    """Lose the eyes, look off the image or zoom if asked; end on the Next button, left of it."""
    lost, third = sentences[len(sentences) // 2], len(fixations) // 3
    if "zoomed" in quirks:
        fixations[third:-third] = [f._replace(zoom=2.0) for f in fixations[third:-third]]
    if "lost_eyes" in quirks:
        fixations = [f for f in fixations if f.end < lost.begin or f.begin > lost.end]
    if "off_image" in quirks:
        fixations = [f._replace(x=-1 - f.x % (chest.width // 9)) for f in fixations]
    scale, left, top = reflacx_screen(chest.width, chest.height)
    x, y = int((rng.uniform(200, 450) - left) / scale) - 1, int((1030 - top) / scale)
    return [*fixations[:-1], fixations[-1]._replace(x=x, y=y)]


def finish_eye_gaze(
    fixations: list[Fixation], sentences: list[Sentence], chest: Chest, quirks: Quirks, rng: Rng
) -> list[Fixation]:
    """Lose some fixations; put some on the column that odd widths are padded with."""
    finished = []
    columns, rows = chest.width + chest.width % 2, chest.height + chest.height % 2
    for number, (begin, end, x, y, *_) in enumerate(fixations):
        at_edge = "edge_column" in quirks and number % 9 == 5 and x < chest.width
        x = chest.width if at_edge else x
        if not (0 <= x < columns and 0 <= y < rows):
            x, y = -2, -2  # what the published mapping makes of most
        valid = at_edge or rng.random() > 0.05
        end = begin + round(end - begin, 5)  # as a reader adds start and duration up
        finished.append(Fixation(begin, end, x, y, valid))
    return finished


def reflacx_screen(width: int, height: int) -> tuple[float, float, float]:
    """Return screen px per image px of the unzoomed image, and its left and top screen px."""
    scale = min(2520 / width, 2160 / height)
    return scale, (3840 - width * scale) / 2, (2160 - height * scale) / 2


def eye_gaze_pads(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the black screen px above, below, left and right of an image in EYE GAZE."""
    width, height = width + width % 2, height + height % 2
    ratio = 1024 / max(width, height)
    across, down = 1920 - int(width * ratio), 1024 - int(height * ratio)
    return down // 2, down - down // 2, across // 2, across - across // 2


def screen_fraction(width: int, height: int, x: float, y: float) -> tuple[float, float]:
    """Return the FPOGX, FPOGY that the published mapping takes to image px (x, y)."""
    top, bottom, left, right = eye_gaze_pads(width, height)
    if x < 0 or y < 0:  # somewhere on the black border to the left
        return 0.7 * left / 1920, 0.5
    across, down = 1920 - left - right, 1080 - top - bottom
    screen_x = left + (x + 0.5) / (width + width % 2) * across
    screen_y = top + (y + 0.5) / (height + height % 2) * down
    return screen_x / 1920, screen_y / 1080


def _point(box: Box | None, chest: Chest, rng: Rng) -> Pixels:
    wander = rng.random()
    if wander < 0.02:  # beyond the image
        return np.multiply((chest.width, chest.height), rng.uniform((1.03, 0), (1.1, 1)))
    if box is None or wander < 0.14:
        box = chest.box("right lung" if rng.random() < 0.5 else "left lung")
        return rng.uniform(box[:2], box[2:])
    centre, size = np.add(box[:2], box[2:]) / 2, np.subtract(box[2:], box[:2])
    return centre + np.clip(0.2 * rng.standard_normal(2), -0.45, 0.45) * size
