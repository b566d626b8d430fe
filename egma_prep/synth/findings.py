"""What can be planted in a phantom X-ray: how it looks, where it lies, what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .anatomy import REGIONS, Box, Chest, Pixels, cloud, develop, draw_chest

# A look gets coordinates (a, b) inside the finding's ellipse (it is where a^2 + b^2 < 1), the
# side (-1 image left, 1 right) and an rng; it returns the opacity and the grey level to go to.
Look = Callable[[Pixels, Pixels, int, np.random.Generator], tuple[Pixels, Any]]
ZONES = tuple(name for name in REGIONS if name.endswith("zone"))


@dataclass(frozen=True)
class Kind:
    """One kind of finding; radii in chest-frame units, (least, most) for each axis."""

    look: Look
    places: tuple[str, ...]
    radius_u: tuple[float, float]
    radius_v: tuple[float, float]
    label_phase_1: str
    label: str
    chexpert: tuple[str, ...]
    phrases: tuple[str, ...]
    drawn_as_ellipse: bool = True
    shift: tuple[float, float] = (0.0, 0.0)  # outwards and down from the place


@dataclass(frozen=True)
class Finding:
    """A planted finding; `ellipse` is its bounding box in image px."""

    kind: str
    place: str
    ellipse: Box
    seed: int

    def label(self, phase: int) -> str:
        """Return the REFLACX label of that phase (EYE GAZE: 3)."""
        kind = KINDS[self.kind]
        return kind.label_phase_1 if phase == 1 else kind.label


def draw_findings(chest: Chest, rng: np.random.Generator, number: int) -> tuple[Finding, ...]:
    """Draw up to `number` findings of different kinds that do not overlap, one with an ellipse."""
    names = [str(name) for name in rng.permutation(list(KINDS))]
    if not KINDS[names[0]].drawn_as_ellipse:
        names.reverse()
    chosen: list[Finding] = []
    for name in names[: 3 * number]:
        finding = draw_finding(chest, rng, name)
        if len(chosen) < number and not any(_overlap(finding.ellipse, f.ellipse) for f in chosen):
            chosen.append(finding)
    return tuple(chosen)


def draw_finding(chest: Chest, rng: np.random.Generator, kind: str) -> Finding:
    """Draw place and size of one finding of a kind."""
    place = str(rng.choice(KINDS[kind].places))
    return Finding(kind, place, _place_ellipse(chest, kind, place, rng), int(rng.integers(2**31)))


def draw_xray(chest: Chest, findings: tuple[Finding, ...]) -> Pixels:
    """Draw the X-ray of a chest with these findings: uint8, [height, width]."""
    canvas = draw_chest(chest)
    for finding in findings:
        _paint(canvas, chest, finding)
    return develop(canvas, chest)


def _place_ellipse(chest: Chest, name: str, place: str, rng: np.random.Generator) -> Box:
    kind = KINDS[name]
    radius = np.array([rng.uniform(*kind.radius_u), rng.uniform(*kind.radius_v)])
    region = np.array(REGIONS[place]).reshape(2, 2)
    middle = region.mean(axis=0) + np.multiply(kind.shift, (_side(place), 1))
    room = np.maximum(region[1] - middle - radius, 0.02)
    centre = middle + room * rng.uniform(-1, 1, 2)
    (x0, y0), (x1, y1) = chest.to_px([centre - radius, centre + radius])
    return (
        max(0, int(np.floor(x0))),
        max(0, int(np.floor(y0))),
        min(chest.width - 1, int(np.ceil(x1))),
        min(chest.height - 1, int(np.ceil(y1))),
    )


def _side(place: str) -> int:
    return -1 if place.startswith("right") else 1


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _paint(canvas: Pixels, chest: Chest, finding: Finding) -> None:
    scale = np.array([canvas.shape[1] / chest.width, canvas.shape[0] / chest.height])
    box = np.array(finding.ellipse, np.float64).reshape(2, 2)
    centre = (box.mean(axis=0) + 0.5) * scale - 0.5
    radius = (box[1] - box[0]) / 2 * scale
    low = np.maximum(np.floor(centre - radius).astype(int), 0)
    high = np.ceil(centre + radius).astype(int) + 1
    patch = canvas[low[1] : high[1], low[0] : high[0]]
    a = ((np.arange(patch.shape[1]) + low[0] - centre[0]) / radius[0])[None, :]
    b = ((np.arange(patch.shape[0]) + low[1] - centre[1]) / radius[1])[:, None]
    a, b = np.broadcast_arrays(a, b)
    opacity, level = KINDS[finding.kind].look(
        a, b, _side(finding.place), np.random.default_rng(finding.seed)
    )
    # Nothing may reach the ellipse's rim, enlarging by four would carry it across.
    rim = np.clip((1 - 1.5 / radius.min() - np.hypot(a, b)) / 0.06, 0, 1)
    change = level - patch
    change *= (change > 0) | (np.asarray(level) < 60)  # bone shines through a bright finding
    patch += (np.clip(opacity, 0, 1) * rim * change).astype(np.float32)


def _step(x: Pixels, width: float) -> Pixels:
    return np.asarray(1 / (1 + np.exp(-np.clip(x / width, -30, 30))))


def _fluffy(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    texture = 0.18 * cloud(a.shape, 5, rng) + 0.10 * cloud(a.shape, 14, rng)
    return 0.85 * np.clip(1.5 * (1 - np.hypot(a, b)) + texture, 0, 1), 205


def _fluid(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    outwards = (side * a + 1) / 2
    surface = 0.15 - 0.75 * outwards**2  # the meniscus climbs the chest wall
    return 0.95 * _step(b - surface, 0.04), 190


def _free_air(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    r = np.hypot(a, b)
    line = np.exp(-(((r - 0.80) / 0.05) ** 2)) * np.clip(0.5 - side * a + 0.8 * b, 0, 1)
    air = 0.75 * _step(0.80 - r, 0.03)
    return np.maximum(air, line), np.where(line > 0.35, 225, 18)


def _disc(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    return 0.9 * _step(0.80 - np.hypot(a, b), 0.03), 215


def _net(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    strands = [np.exp(-((cloud(a.shape, 9, rng) / 0.16) ** 2)) for _ in range(2)]
    return 0.85 * np.maximum(*strands) * np.clip(3 * (1 - np.hypot(a, b)), 0, 1), 205


def _bands(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    tilt = rng.uniform(-0.25, 0.25)
    heights = np.array([-0.5, 0.0, 0.5]) + rng.uniform(-0.08, 0.08, 3)
    bands = [np.exp(-(((b + tilt * a - h) / 0.10) ** 2)) for h in heights]
    return 0.9 * np.sum(bands, axis=0), 215


def _large_heart(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    return _step(0.88 - np.hypot(a, b), 0.025), 168 + 6 * cloud(a.shape, 4, rng)


def _catheter(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    path = 0.55 * np.sin(2.4 * b + rng.uniform(-0.6, 0.6))
    return np.exp(-(((a - path) / 0.13) ** 2)), 250


def _broken_rib(a: Pixels, b: Pixels, side: int, rng: np.random.Generator) -> tuple[Pixels, Any]:
    shift = np.where(a < 0, -0.22, 0.22)
    bone = np.exp(-(((b - shift) / 0.22) ** 2)) * (np.abs(a) > 0.12)
    gap = np.exp(-(((a - 0.25 * b) / 0.10) ** 2))
    return np.maximum(0.9 * bone, 0.8 * gap), np.where(bone > gap, 230, 12)


_BASES = ("right costophrenic angle", "left costophrenic angle")
_LOWER = ("right lower lung zone", "left lower lung zone")
KINDS: dict[str, Kind] = {
    "consolidation": Kind(
        _fluffy, ZONES, (0.13, 0.20), (0.13, 0.20), "Consolidation", "Consolidation",
        ("Consolidation", "Lung Opacity"),
        ("there is a dense consolidation in the {place}",
         "patchy airspace opacity in the {place} consistent with pneumonia",
         "confluent consolidation is seen in the {place}"),
    ),
    "effusion": Kind(
        _fluid, _BASES, (0.24, 0.30), (0.26, 0.34), "Pleural effusion", "Pleural abnormality",
        ("Pleural Effusion",),
        ("there is a moderate {side} pleural effusion",
         "{side} pleural effusion with blunting of the costophrenic angle",
         "layering fluid is present at the {side} base"),
        shift=(-0.12, -0.16),
    ),
    "pneumothorax": Kind(
        _free_air, ("right upper lung zone", "left upper lung zone"), (0.16, 0.21), (0.20, 0.26),
        "Pneumothorax", "Pneumothorax", ("Pneumothorax",),
        ("{side} apical pneumothorax is present",
         "there is a pneumothorax at the {side} apex with a visible pleural line"),
    ),
    "nodule": Kind(
        _disc, ZONES, (0.050, 0.085), (0.050, 0.085), "Nodule", "Lung nodule or mass",
        ("Lung Lesion",),
        ("there is a round nodule in the {place}",
         "a well circumscribed nodule projects over the {place}",
         "rounded nodular opacity in the {place}"),
    ),
    "fibrosis": Kind(
        _net, _LOWER, (0.16, 0.20), (0.18, 0.22), "Fibrosis", "Interstitial lung disease",
        ("Lung Opacity",),
        ("reticular interstitial markings in the {place}",
         "there is a reticular pattern of fibrosis in the {place}"),
    ),
    "atelectasis": Kind(
        _bands, _LOWER, (0.15, 0.19), (0.12, 0.16), "Atelectasis", "Atelectasis",
        ("Atelectasis",),
        ("linear atelectasis in the {place}",
         "bands of subsegmental atelectasis at the {side} base"),
    ),
    "cardiomegaly": Kind(
        _large_heart, ("cardiac silhouette",), (0.46, 0.54), (0.40, 0.45),
        "Enlarged cardiac silhouette", "Enlarged cardiac silhouette", ("Cardiomegaly",),
        ("the heart is enlarged", "there is moderate cardiomegaly",
         "enlargement of the cardiac silhouette"),
    ),
    "device": Kind(
        _catheter, ("upper mediastinum",), (0.10, 0.12), (0.36, 0.44),
        "Support devices", "Support devices", ("Support Devices",),
        ("a central venous catheter ends in the superior vena cava",
         "central line in expected position"),
        drawn_as_ellipse=False,
    ),
    "fracture": Kind(
        _broken_rib, ("right mid lung zone", "left mid lung zone"), (0.075, 0.10), (0.06, 0.08),
        "Fracture", "Acute fracture", ("Fracture",),
        ("displaced rib fracture in the {place}", "there is an acute {side} rib fracture"),
    ),
}  # fmt: skip
