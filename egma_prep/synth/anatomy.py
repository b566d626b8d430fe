"""Frontal chests without disease: where the organs lie, and how they look in an X-ray."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]  # x0, y0, x1, y1 in image px
Pixels = NDArray[Any]
Rng = np.random.Generator
_Pen = Callable[..., Pixels]  # takes curves, blur and width, as `_stroke` does

# Chest frame: u to the right, v down, the rib cage about from -1 to 1; here in hundredths. The
# patient's right side is on the left of the image. Names are those of EYE GAZE's boxes, but the
# last three: what is said of both sides at once.
REGIONS = {
    "right upper lung zone": (-60, -74, -16, -32), "left upper lung zone": (18, -74, 60, -32),
    "right mid lung zone": (-72, -32, -18, 8), "left mid lung zone": (24, -32, 72, 8),
    "right lower lung zone": (-78, 8, -20, 48), "left lower lung zone": (42, 8, 78, 52),
    "right lung": (-84, -82, -12, 70), "left lung": (12, -82, 84, 72),
    "right costophrenic angle": (-86, 46, -58, 72), "left costophrenic angle": (58, 48, 86, 74),
    "right hilar structures": (-36, -24, -10, 8), "left hilar structures": (10, -28, 36, 4),
    "right clavicle": (-66, -90, -5, -62), "left clavicle": (5, -90, 66, -62),
    "cardiac silhouette": (-20, -8, 46, 56), "upper mediastinum": (-18, -72, 20, -24),
    "spine": (-9, -92, 9, 92), "trachea": (-7, -98, 7, -36),
    "lungs": (-84, -82, 84, 72), "costophrenic angles": (-86, 46, 86, 74),
    "chest": (-92, -90, 92, 80),
}  # fmt: skip
_LUNG = [  # the right one; the left one mirrors it, behind the heart
    (-30, -80), (-47, -70), (-61, -45), (-72, -5), (-79, 38), (-81, 66), (-68, 54), (-45, 43),
    (-22, 46), (-13, 40), (-15, 5), (-12, -40), (-16, -70),
]  # fmt: skip
_BODY = [  # its half on the image's left
    (-24, -170), (-24, -105), (-55, -93), (-98, -80), (-120, -50), (-112, 10), (-106, 80),
    (-108, 170), (0, 170), (0, -170),
]  # fmt: skip


@dataclass(frozen=True)
class Chest:
    """One patient's chest in one image; its centre and half its size as (x, y) in image px."""

    width: int
    height: int
    centre: tuple[float, float]
    half_size: tuple[float, float]
    seed: int

    def box(self, region: str) -> Box:
        """Return the px box of a named region, cut at the image's edges."""
        corners = self.to_px(np.reshape(REGIONS[region], (2, 2)) / 100)
        x0, y0, x1, y1 = np.clip(corners, 0, (self.width - 1, self.height - 1)).ravel()
        return round(x0), round(y0), round(x1), round(y1)

    def to_px(self, points: Any) -> Pixels:
        """Take chest-frame points (u, v), shape [n, 2], to image px (x, y)."""
        return np.multiply(points, self.half_size) + self.centre


def draw_chest_place(width: int, height: int, rng: Rng) -> Chest:
    """Draw the size and position of a chest in an image of `width` by `height` px."""
    half = 0.5 * min(width, height)
    right, down, wider, longer = rng.uniform(-1, 1, 4)
    centre = (width / 2 + 0.03 * half * right, height / 2 + 0.03 * half * down)
    half_size = (half * (1.0 + 0.07 * wider), half * (1.03 + 0.06 * longer))
    return Chest(width, height, centre, half_size, int(rng.integers(2**31)))


def draw_chest(chest: Chest) -> Pixels:
    """Draw the chest without noise, at most 764 px long: float32 grey levels, [rows, columns]."""
    # All but grain is smooth enough to be enlarged four times later, sixteen times cheaper.
    shrink = min(1.0, 764 / max(chest.width, chest.height))
    shape = (round(chest.height * shrink), round(chest.width * shrink))
    pen = partial(_stroke, chest, shape)
    rng = np.random.default_rng(chest.seed)
    half, lung = np.divide(_BODY, 100), _smooth(np.divide(_LUNG, 100))
    canvas = 10 + 150 * pen([half, half * (-1, 1)], 0.02)
    v = (np.arange(shape[0]) * chest.height / shape[0] - chest.centre[1]) / chest.half_size[1]
    belly = 28 / (1 + np.exp(-(v[:, None] - 0.45) / 0.12))  # brighter downwards
    canvas += belly.astype(np.float32) * (canvas > 60)
    heart = _heart(pen)
    lungs = pen([lung, lung * (-1, 1) + (0, 0.03)], 0.012) * (1 - 0.9 * heart)
    canvas -= 108 * lungs * (1 + 0.18 * cloud(shape, 4, rng))
    canvas += 10 * heart + _bones(pen, 0.25 + 0.75 * lungs) + _vessels(pen, rng) * lungs
    canvas += 7 * cloud(shape, 5, rng) + 4 * cloud(shape, 24, rng)
    return canvas.astype(np.float32)


def develop(canvas: Pixels, chest: Chest) -> Pixels:
    """Enlarge a drawn chest to the image's size, add grain and the word PHANTOM: uint8."""
    size = (chest.width, chest.height)
    image = cv2.resize(np.clip(canvas, 6, 245).astype(np.float32), size)
    white = np.random.default_rng([chest.seed, 1]).standard_normal((1024, 1024), np.float32)
    grain = 0.9 * white + 4.1 * cv2.GaussianBlur(white, (0, 0), 1.2)  # JPEGs as heavy as real ones
    grain = np.tile(grain, (chest.height // 1024 + 1, chest.width // 1024 + 1))
    pixels = cv2.convertScaleAbs(np.clip(image + grain[: size[1], : size[0]], 0, 255))
    em = min(size) / 1000
    at, bold = (round(20 * em), round(45 * em)), max(1, round(2 * em))
    cv2.putText(pixels, "PHANTOM", at, 0, em, 235, bold, cv2.LINE_AA)
    return pixels


def cloud(shape: tuple[int, ...], cells: int, rng: Rng) -> Pixels:
    """Draw smooth noise of about unit amplitude with `cells` cells along each side."""
    coarse = rng.standard_normal((cells, cells)).astype(np.float32)
    return cv2.resize(coarse, shape[1::-1], interpolation=cv2.INTER_CUBIC)


def _smooth(points: Pixels) -> Pixels:
    """Run a closed Catmull-Rom curve through points: [12 * points, 2]."""
    here = points[None]  # (1, n, 2)
    before, after, beyond = (np.roll(here, shift, axis=1) for shift in (1, -1, -2))
    t = np.linspace(0, 1, 12, endpoint=False)[:, None, None]
    straight = 2 * before - 5 * here + 4 * after - beyond
    bend = 3 * (here - after) + beyond - before
    curve = here + 0.5 * t * (after - before + t * (straight + t * bend))
    return curve.transpose(1, 0, 2).reshape(-1, 2)


def _stroke(
    chest: Chest, shape: tuple[int, int], curves: list[Any], blur: float, width: float = 0.0
) -> Pixels:
    """Draw chest-frame curves, areas where they have no width, as a soft mask from 0 to 1."""
    scale = shape[0] / chest.height
    unit = chest.half_size[0] * scale  # canvas px per chest unit
    at = [(chest.to_px(curve) + 0.5) * scale - 0.5 for curve in curves]
    fixed = [np.round(16 * points).astype(np.int32) for points in at]  # four fractional bits
    mask = np.zeros(shape, np.uint8)
    if width:
        cv2.polylines(mask, fixed, False, 255, max(1, round(width * unit)), cv2.LINE_AA, 4)
    else:
        cv2.fillPoly(mask, fixed, 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), max(0.6, blur * unit))


def _bones(pen: _Pen, strength: Pixels) -> Pixels:
    spine = pen([[(0, -1.6), (0, 1.6)]], 0.02, 0.15)
    discs = [[(-0.07, v), (0.07, v)] for v in np.arange(-1.5, 1.5, 0.125)]
    bones = 20 * spine - 14 * pen(discs, 0.008, 0.02) * spine
    bones -= 26 * pen([[(0, -1.3), (0, -0.75), (0.02, -0.42)]], 0.012, 0.075)  # trachea
    t = np.linspace(0, 1, 24)
    ribs = []
    for number in range(10):
        reach = 0.37 + 0.40 * np.sqrt(min(1.0, (number + 0.6) / 7))
        v = -0.80 + 0.155 * number - 0.05 * np.sin(2.6 * t) + 0.30 * t**3
        rib = np.c_[0.07 + reach * np.sin(t * np.pi / 2), v]
        ribs += [rib, rib * (-1, 1)]
    bones += 15 * pen(ribs, 0.008, 0.062) * strength
    bones += 11 * pen([np.add(rib, (0, 0.028)) for rib in ribs], 0.003, 0.008) * strength  # edges
    clavicle = np.array([(u, -0.66 - 0.20 * u + 0.05 * np.sin(u * 9)) for u in 0.06 + t * 0.66])
    return bones + 24 * pen([clavicle, clavicle * (-1, 1)], 0.008, 0.055)


def _heart(pen: _Pen) -> Pixels:
    angle = np.linspace(0, 2 * np.pi, 60)
    circle = np.c_[np.cos(angle), np.sin(angle)]
    turn = np.array([[0.95, 0.31], [-0.31, 0.95]])  # its axis points down to the patient's left
    heart = circle * (0.36, 0.29) @ turn + (0.13, 0.24)
    knob = circle * 0.10 + (0.13, -0.36)  # of the aorta
    return np.maximum(pen([heart], 0.014), 0.8 * pen([knob], 0.012))


def _vessels(pen: _Pen, rng: Rng) -> Pixels:
    vessels = 38 * pen([[(-0.2, -0.16), (-0.2, 0)], [(0.24, -0.2), (0.24, -0.04)]], 0.04, 0.09)
    t = np.linspace(0, 1, 10)[:, None]
    for number, grey, blur, width in ((52, 26, 0.003, 0.006), (14, 22, 0.008, 0.02)):
        angle, bend = rng.uniform(-2.0, 2.0, number), rng.uniform(-0.4, 0.4, number)
        length = rng.uniform(0.18, 0.5, number)
        u = (0.2 + length * t * np.cos(angle + bend * t)) * np.resize((-1, 1), number)
        v = -0.08 + 1.2 * length * t * np.sin(angle + bend * t)
        vessels += grey * pen(list(np.stack([u, v], axis=-1).swapaxes(0, 1)), blur, width)
    return vessels
