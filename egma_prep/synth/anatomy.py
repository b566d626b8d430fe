"""Frontal chests without disease: where the organs lie, and how they look in an X-ray."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in image px
Pixels = NDArray[Any]

# Chest frame: u to the right, v down, the rib cage about from -1 to 1.
# The patient's right side is on the left of the image. Names are those of EYE GAZE's boxes.
REGIONS: dict[str, tuple[float, float, float, float]] = {
    "right upper lung zone": (-0.60, -0.74, -0.16, -0.32),
    "right mid lung zone": (-0.72, -0.32, -0.18, 0.08),
    "right lower lung zone": (-0.78, 0.08, -0.20, 0.48),
    "left upper lung zone": (0.18, -0.74, 0.60, -0.32),
    "left mid lung zone": (0.24, -0.32, 0.72, 0.08),
    "left lower lung zone": (0.42, 0.08, 0.78, 0.52),
    "right lung": (-0.84, -0.82, -0.12, 0.70),
    "left lung": (0.12, -0.82, 0.84, 0.72),
    "cardiac silhouette": (-0.20, -0.08, 0.46, 0.56),
    "right costophrenic angle": (-0.86, 0.46, -0.58, 0.72),
    "left costophrenic angle": (0.58, 0.48, 0.86, 0.74),
    "right hilar structures": (-0.36, -0.24, -0.10, 0.08),
    "left hilar structures": (0.10, -0.28, 0.36, 0.04),
    "upper mediastinum": (-0.18, -0.72, 0.20, -0.24),
    "right clavicle": (-0.66, -0.90, -0.05, -0.62),
    "left clavicle": (0.05, -0.90, 0.66, -0.62),
    "spine": (-0.09, -0.92, 0.09, 0.92),
    "trachea": (-0.07, -0.98, 0.07, -0.36),
}
WIDE_REGIONS = {  # what is said of both sides at once
    "lungs": (-0.84, -0.82, 0.84, 0.72),
    "costophrenic angles": (-0.86, 0.46, 0.86, 0.74),
    "chest": (-0.92, -0.90, 0.92, 0.80),
}
_RIGHT_LUNG = [
    (-0.30, -0.80), (-0.47, -0.70), (-0.61, -0.45), (-0.72, -0.05), (-0.79, 0.38), (-0.81, 0.66),
    (-0.68, 0.54), (-0.45, 0.43), (-0.22, 0.46), (-0.13, 0.40), (-0.15, 0.05), (-0.12, -0.40),
    (-0.16, -0.70),
]  # fmt: skip
_LEFT_LUNG = [
    (0.30, -0.80), (0.47, -0.70), (0.61, -0.45), (0.72, -0.05), (0.79, 0.40), (0.81, 0.69),
    (0.70, 0.58), (0.52, 0.50), (0.43, 0.50), (0.36, 0.25), (0.20, -0.02), (0.17, -0.28),
    (0.16, -0.42), (0.14, -0.70),
]  # fmt: skip
_BODY = [
    (-0.24, -1.70), (-0.24, -1.05), (-0.55, -0.93), (-0.98, -0.80), (-1.20, -0.50), (-1.12, 0.10),
    (-1.06, 0.80), (-1.08, 1.70), (1.08, 1.70), (1.06, 0.80), (1.12, 0.10), (1.20, -0.50),
    (0.98, -0.80), (0.55, -0.93), (0.24, -1.05), (0.24, -1.70),
]  # fmt: skip


@dataclass(frozen=True)
class Chest:
    """One patient's chest in one image; lengths in image px."""

    width: int
    height: int
    centre_x: float
    centre_y: float
    half_width: float
    half_height: float
    seed: int

    def box(self, region: str) -> Box:
        """Return the px box of a named region, cut at the image's edges."""
        u0, v0, u1, v1 = (REGIONS | WIDE_REGIONS)[region]
        (x0, y0), (x1, y1) = self.to_px([(u0, v0), (u1, v1)])
        x0, x1 = np.clip([x0, x1], 0, self.width - 1)
        y0, y1 = np.clip([y0, y1], 0, self.height - 1)
        return round(x0), round(y0), round(x1), round(y1)

    def to_px(self, points: Any) -> Pixels:
        """Take chest-frame points (u, v), shape [n, 2], to image px (x, y)."""
        centre = (self.centre_x, self.centre_y)
        return np.asarray(points, np.float64) * (self.half_width, self.half_height) + centre

    def lung(self, side: str) -> Pixels:
        """Return the outline of the `right` or `left` lung in image px, shape [n, 2]."""
        return self.to_px(_smooth(_RIGHT_LUNG if side == "right" else _LEFT_LUNG))


def draw_chest_place(width: int, height: int, rng: np.random.Generator) -> Chest:
    """Draw the size and position of a chest in an image of `width` by `height` px."""
    half = 0.5 * min(width, height)
    jitter = rng.uniform(-1, 1, 4)
    return Chest(
        width,
        height,
        centre_x=width / 2 + 0.03 * half * jitter[0],
        centre_y=height / 2 + 0.03 * half * jitter[1],
        half_width=half * (1.0 + 0.07 * jitter[2]),
        half_height=half * (1.03 + 0.06 * jitter[3]),
        seed=int(rng.integers(2**31)),
    )


def draw_chest(chest: Chest) -> Pixels:
    """Draw the chest without noise, at most 764 px long: float32 grey levels, [rows, columns].

    Everything but grain is smooth enough to be enlarged four times later, which makes a
    full-size image sixteen times cheaper.
    """
    shrink = min(1.0, 764 / max(chest.width, chest.height))
    shape = (round(chest.height * shrink), round(chest.width * shrink))
    pen = _Pen(chest, shape)
    rng = np.random.default_rng(chest.seed)
    canvas = 10 + 150 * pen.area(_BODY, blur=0.02)
    canvas += pen.gradient() * (canvas > 60)
    heart = _heart(pen)
    lungs = np.maximum(pen.area(_smooth(_RIGHT_LUNG), 0.012), pen.area(_smooth(_LEFT_LUNG), 0.012))
    lungs *= 1 - 0.9 * heart
    canvas -= 108 * lungs * (1 + 0.18 * cloud(shape, 4, rng))
    canvas += 10 * heart + _bones(pen, lungs) + _vessels(pen, lungs, rng)
    canvas += 7 * cloud(shape, 5, rng) + 4 * cloud(shape, 24, rng)
    return canvas.astype(np.float32)


def develop(canvas: Pixels, chest: Chest) -> Pixels:
    """Enlarge a drawn chest to the image's size, add grain and the word PHANTOM: uint8."""
    size = (chest.width, chest.height)
    image = cv2.resize(np.clip(canvas, 6, 245).astype(np.float32), size)
    rng = np.random.default_rng([chest.seed, 1])
    dx, dy = rng.integers(0, 1024, 2)
    tile = np.roll(_grain(), (dy, dx), (0, 1))
    for y in range(0, chest.height, 1024):
        for x in range(0, chest.width, 1024):
            part = image[y : y + 1024, x : x + 1024]
            part += tile[: part.shape[0], : part.shape[1]]
    pixels = cv2.convertScaleAbs(np.clip(image, 0, 255, out=image))
    em = min(size) / 1000
    corner = (round(20 * em), round(45 * em))
    cv2.putText(pixels, "PHANTOM", corner, 0, 1.0 * em, 235, max(1, round(2 * em)), cv2.LINE_AA)
    return pixels


def cloud(shape: tuple[int, ...], cells: int, rng: np.random.Generator) -> Pixels:
    """Draw smooth noise of about unit amplitude with `cells` cells along each side."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC))


def lung_mask(chest: Chest, side: str) -> Pixels:
    """Return the lung's area at image size: uint8, 255 inside."""
    mask = np.zeros((chest.height, chest.width), np.uint8)
    cv2.fillPoly(mask, [np.round(chest.lung(side)).astype(np.int32)], 255)
    return mask


@lru_cache(maxsize=1)
def _grain() -> Pixels:
    """Return one tile of film grain; its strength gives JPEGs the bytes of real X-rays."""
    white = np.random.default_rng(1).standard_normal((1024, 1024)).astype(np.float32)
    soft = cv2.GaussianBlur(white, (0, 0), 1.2) * 3.5
    return np.asarray(2.0 * white + 2.6 * soft, np.float32)


def _smooth(points: list[tuple[float, float]]) -> Pixels:
    """Run a closed Catmull-Rom curve through the points: [12 * points, 2]."""
    here = np.array(points)[None]  # (1, n, 2)
    before, after, beyond = (np.roll(here, shift, axis=1) for shift in (1, -1, -2))
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    straight = 2 * before - 5 * here + 4 * after - beyond
    bend = 3 * (here - after) + beyond - before
    curve = here + 0.5 * t * (after - before + t * (straight + t * bend))
    return np.asarray(curve.transpose(1, 0, 2).reshape(-1, 2))


class _Pen:
    """Draws chest-frame shapes on a canvas as soft masks from 0 to 1."""

    def __init__(self, chest: Chest, shape: tuple[int, int]) -> None:
        self.chest, self.shape = chest, shape
        self.scale = shape[0] / chest.height
        self.unit = chest.half_width * self.scale  # canvas px per chest unit

    def area(self, points: Any, blur: float) -> Pixels:
        mask = np.zeros(self.shape, np.uint8)
        cv2.fillPoly(mask, [self._fixed(points)], 255, cv2.LINE_AA, 4)
        return self._soft(mask, blur)

    def lines(self, curves: list[Any], width: float, blur: float) -> Pixels:
        mask = np.zeros(self.shape, np.uint8)
        thick = max(1, round(width * self.unit))
        cv2.polylines(mask, [self._fixed(c) for c in curves], False, 255, thick, cv2.LINE_AA, 4)
        return self._soft(mask, blur)

    def gradient(self) -> Pixels:
        """Return brightness that grows towards the belly."""
        v = (np.arange(self.shape[0]) / self.scale - self.chest.centre_y) / self.chest.half_height
        return np.asarray(28 / (1 + np.exp(-(v - 0.45) / 0.12)), np.float32)[:, None]

    def _fixed(self, points: Any) -> Pixels:
        at = (self.chest.to_px(points) + 0.5) * self.scale - 0.5
        return np.round(at * 16).astype(np.int32)  # four fractional bits for cv2

    def _soft(self, mask: Pixels, blur: float) -> Pixels:
        soft = mask.astype(np.float32) / 255
        return np.asarray(cv2.GaussianBlur(soft, (0, 0), max(0.6, blur * self.unit)))


def _bones(pen: _Pen, lungs: Pixels) -> Pixels:
    spine = pen.lines([[(0, -1.6), (0, 1.6)]], 0.15, 0.02)
    discs = [[(-0.07, v), (0.07, v)] for v in np.arange(-1.5, 1.5, 0.125)]
    bones = 20 * spine - 14 * pen.lines(discs, 0.02, 0.008) * spine
    bones -= 26 * pen.lines([[(0, -1.3), (0, -0.75), (0.02, -0.42)]], 0.075, 0.012)  # trachea
    ribs, edges = _rib_curves()
    over_lung = 0.25 + 0.75 * lungs
    bones += 15 * pen.lines(ribs, 0.062, 0.008) * over_lung
    bones += 11 * pen.lines(edges, 0.008, 0.003) * over_lung
    u = np.linspace(0.06, 0.72, 20)
    clavicle = np.c_[u, -0.66 - 0.20 * u + 0.05 * np.sin(u * 9)]
    bones += 24 * pen.lines([clavicle, clavicle * (-1, 1)], 0.055, 0.008)
    return np.asarray(bones)


def _rib_curves() -> tuple[list[Pixels], list[Pixels]]:
    """Return the midlines of the posterior ribs, and their lower edges."""
    t = np.linspace(0, 1, 24)
    ribs = []
    for number, v in enumerate(np.arange(-0.80, 0.62, 0.155)):
        reach = 0.44 + 0.40 * np.sqrt(min(1.0, (number + 0.6) / 7))
        arc = np.c_[0.07 + (reach - 0.07) * np.sin(t * np.pi / 2), v - 0.05 * np.sin(2.6 * t)]
        arc[:, 1] += 0.30 * t**3
        ribs += [arc, arc * (-1, 1)]
    return ribs, [np.add(rib, (0, 0.028)) for rib in ribs]


def _heart(pen: _Pen) -> Pixels:
    angle = np.linspace(0, 2 * np.pi, 60)
    turn = 0.32  # the heart's axis points down to the patient's left
    along, across = 0.36 * np.cos(angle), 0.29 * np.sin(angle)
    u = 0.13 + along * np.cos(turn) - across * np.sin(turn)
    v = 0.24 + along * np.sin(turn) + across * np.cos(turn)
    knob = np.c_[0.13 + 0.10 * np.cos(angle), -0.36 + 0.10 * np.sin(angle)]  # of the aorta
    return np.maximum(pen.area(np.c_[u, v], 0.014), 0.8 * pen.area(knob, 0.012))


def _vessels(pen: _Pen, lungs: Pixels, rng: np.random.Generator) -> Pixels:
    thin = pen.lines(_vessel_curves(rng, 26), 0.006, 0.003)
    thick = pen.lines(_vessel_curves(rng, 7), 0.02, 0.008)
    hila = pen.lines([[(-0.2, -0.16), (-0.2, 0.0)], [(0.24, -0.2), (0.24, -0.04)]], 0.09, 0.04)
    return np.asarray((26 * thin + 22 * thick + 38 * hila) * lungs)


def _vessel_curves(rng: np.random.Generator, number: int) -> list[Pixels]:
    curves = []
    for side in (-1, 1):
        angle = rng.uniform(-2.0, 2.0, number)
        length = rng.uniform(0.18, 0.5, number)
        bend = rng.uniform(-0.4, 0.4, number)
        t = np.linspace(0, 1, 10)[:, None]
        u = 0.2 + length * t * np.cos(angle + bend * t)
        v = -0.08 + 1.2 * length * t * np.sin(angle + bend * t)
        curves += [np.c_[side * u[:, k], v[:, k]] for k in range(number)]
    return curves
