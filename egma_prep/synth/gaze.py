"""Where the invented radiologists look: fixations that lead the voice by about a second."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .anatomy import Box, Chest

SCREEN_WIDTH, SCREEN_HEIGHT = 1920, 1080  # EYE GAZE's; px
SMALL_SIDE = 600  # px; below it an image stands for one six times as wide
Dwell = tuple[float, float, Box | None]  # from, to (s), and the px box looked at


@dataclass(frozen=True)
class Fixation:
    """One rest of the eye: s from the start of the recording, full-resolution image px."""

    begin: float
    end: float
    x: int
    y: int
    valid: bool = True
    zoom: float = 1.0


def scan_path(
    sentences: list[Dwell],
    end: float,
    chest: Chest,
    px_per_deg: float,
    rng: np.random.Generator,
) -> list[Fixation]:
    """Draw fixations from about 0 to `end` s; while a sentence is spoken they rest on its box.

    Parameters
    ----------
    sentences : list of (begin, end, box)
        Spoken windows in s, and what each is about: a px box, or None for nowhere.
    end : float
        Where the recording ends, in s.
    chest : Chest
        The chest looked at; fixations about nothing wander over its lungs.
    px_per_deg : float
        Image px per degree of visual angle: the calibration is off by about 0.4 degrees.
    rng : np.random.Generator
        Source of every random choice.
    """
    dwells = _dwells(sentences, rng)
    angle = rng.uniform(0, 2 * np.pi)
    offset = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.25, 0.55) * px_per_deg
    fixations = []
    clock = rng.uniform(0.05, 0.3)
    while clock < end:
        stop = clock + float(np.clip(0.25 * np.exp(0.55 * rng.standard_normal()), 0.05, 2.0))
        box = _looked_at(dwells, (clock + stop) / 2)
        point = _point(box, chest, rng) + offset + rng.normal(0, 0.15 * px_per_deg, 2)
        x, y = (int(v) for v in np.floor(point))
        fixations.append(Fixation(round(clock, 3), round(stop, 3), x, y))
        clock = stop + rng.uniform(0.02, 0.09)  # saccade
        clock += rng.uniform(0.12, 0.4) if rng.random() < 0.07 else 0.0  # blink
    return fixations


def lose_eyes(fixations: list[Fixation], begin: float, end: float) -> list[Fixation]:
    """Drop the fixations that touch [begin, end] s, as if the tracker lost the eyes."""
    return [f for f in fixations if f.end < begin or f.begin > end]


def move_off_image(fixations: list[Fixation], chest: Chest) -> list[Fixation]:
    """Move every fixation to the left of the image, where the screen shows buttons."""
    return [replace(f, x=-1 - f.x % (chest.width // 9)) for f in fixations]


def finish_reflacx(
    fixations: list[Fixation], chest: Chest, quirks: frozenset[str], rng: np.random.Generator
) -> list[Fixation]:
    """Zoom in for a while if asked; end on the Next button, left of the image on the screen."""
    finished = list(fixations)
    if "zoomed" in quirks:
        third = len(finished) // 3
        for k in range(third, 2 * third):
            finished[k] = replace(finished[k], zoom=2 ** (1 + k % 3 / 4))
    scale, left, top = reflacx_screen(chest.width, chest.height)
    for k in range(1, int(rng.integers(1, 4)) + 1):
        x = int(np.floor((rng.uniform(200, 450) - left) / scale))
        y = int((rng.uniform(950, 1100) - top) / scale)
        finished[-k] = replace(finished[-k], x=x, y=y, zoom=1.0)
    return finished


def finish_eye_gaze(
    fixations: list[Fixation], chest: Chest, quirks: frozenset[str], rng: np.random.Generator
) -> list[Fixation]:
    """Lose some fixations; put some on the column that odd widths are padded with.

    Points off the image become the negative pair that the published mapping gives, and `end`
    is what a reader gets who adds the published start and duration.
    """
    sentinel = _off_image_pair(chest.width, chest.height)
    finished = []
    for number, f in enumerate(fixations):
        at_edge = "edge_column" in quirks and number % 9 == 5 and f.x < chest.width
        x, y = (chest.width if at_edge else f.x), f.y
        if not (0 <= x < _even(chest.width) and 0 <= y < _even(chest.height)):
            x, y = sentinel
        end = f.begin + round(f.end - f.begin, 5)
        finished.append(Fixation(f.begin, end, x, y, valid=at_edge or rng.random() > 0.05))
    return finished


def reflacx_screen(width: int, height: int) -> tuple[float, float, float]:
    """Return screen px per image px of the unzoomed image, and its left and top screen px."""
    scale = min(2520 / width, 2160 / height)
    return scale, (3840 - width * scale) / 2, (2160 - height * scale) / 2


def eye_gaze_pads(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the black screen px above, below, left and right of an image in EYE GAZE."""
    ratio = 1024 / max(_even(width), _even(height))
    across = 1920 - int(_even(width) * ratio)
    down = 1024 - int(_even(height) * ratio)
    return down // 2, down - down // 2, across // 2, across - across // 2


def screen_fraction(width: int, height: int, x: int, y: int) -> tuple[float, float]:
    """Return the FPOGX, FPOGY that the published mapping takes to image px (x, y)."""
    top, _, left, _ = eye_gaze_pads(width, height)
    if x < 0 or y < 0:  # somewhere on the black border to the left
        return round(0.7 * left / SCREEN_WIDTH, 5), 0.5
    per_px_x, per_px_y = eye_gaze_scale(width, height)
    screen_x, screen_y = left + (x + 0.5) / per_px_x, top + (y + 0.5) / per_px_y
    return round(screen_x / SCREEN_WIDTH, 5), round(screen_y / SCREEN_HEIGHT, 5)


def eye_gaze_scale(width: int, height: int) -> tuple[float, float]:
    """Return image px per screen px, as the published mapping has them."""
    top, bottom, left, right = eye_gaze_pads(width, height)
    across, down = SCREEN_WIDTH - left - right, SCREEN_HEIGHT - top - bottom
    return _even(width) / across, _even(height) / down


def _off_image_pair(width: int, height: int) -> tuple[int, int]:
    # The mapping's int(-scale) would be 0 for small images: take those they stand for.
    times = 6 if max(width, height) < SMALL_SIDE else 1
    scale_x, scale_y = eye_gaze_scale(width, height)
    return int(-scale_x * times), int(-scale_y * times)


def _even(length: int) -> int:
    return length + length % 2


def _dwells(sentences: list[Dwell], rng: np.random.Generator) -> list[Dwell]:
    """Start each look 0.5 to 1.2 s before its sentence, at the earliest halfway to the last."""
    starts = [begin - rng.uniform(0.5, 1.2) for begin, _, _ in sentences]
    dwells = []
    for number, (_, end, box) in enumerate(sentences):
        following = starts[number + 1] if number + 1 < len(starts) else np.inf
        dwells.append((starts[number], min(end + 0.2, following), box))
    return dwells


def _looked_at(dwells: list[Dwell], moment: float) -> Box | None:
    return next((box for begin, end, box in dwells if begin <= moment <= end), None)


def _point(box: Box | None, chest: Chest, rng: np.random.Generator) -> np.ndarray:
    wander = rng.random()
    if wander < 0.02:  # beyond the image
        return np.array([chest.width * rng.uniform(1.03, 1.1), chest.height * rng.uniform(0, 1)])
    if box is None or wander < 0.14:
        box = chest.box("right lung" if rng.random() < 0.5 else "left lung")
        return rng.uniform(box[:2], box[2:])
    centre, size = np.add(box[:2], box[2:]) / 2, np.subtract(box[2:], box[:2])
    return centre + np.clip(0.2 * rng.standard_normal(2), -0.45, 0.45) * size
