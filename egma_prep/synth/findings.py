"""What can be planted in a phantom X-ray: how it looks, where it lies, what is said of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .anatomy import REGIONS, Box, Chest, Pixels, Rng, cloud, develop, draw_chest


class _Spot(NamedTuple):
    """Where a look is drawn: (a, b) are 0 in the middle of its ellipse, r is 1 on the rim."""

    a: Pixels
    b: Pixels
    r: Pixels
    side: int
    rng: Rng

    def cloud(self, cells: int) -> Pixels:
        return cloud(self.r.shape, cells, self.rng)


class Kind(NamedTuple):
    """One kind of finding; lengths in chest-frame units."""

    name: str
    look: Callable[[_Spot], tuple[Pixels, Any]]  # opacity, and the grey level to go to
    places: tuple[str, ...]
    radii: tuple[tuple[float, float], tuple[float, float]]  # least and most (u, v)
    labels: tuple[str, str, str]  # of REFLACX's phase 1, of its later phases, of CheXpert
    phrases: tuple[str, ...]
    shift: tuple[float, float] = (0.0, 0.0)  # outwards and down from the place
    drawn_as_ellipse: bool = True


@dataclass(frozen=True)
class Finding:
    """A planted finding; `ellipse` is its bounding box in image px."""

    kind: Kind
    place: str
    ellipse: Box
    side: int  # -1 image left, 1 right
    seed: int

    def label(self, phase: int) -> str:
        """Return the REFLACX label of that phase (EYE GAZE: 0)."""
        return self.kind.labels[phase != 1]


def draw_findings(chest: Chest, rng: Rng, number: int) -> tuple[Finding, ...]:
    """Draw up to `number` findings of different kinds that do not overlap, one with an ellipse."""
    names = [str(name) for name in rng.permutation(list(KINDS))]
    if not KINDS[names[0]].drawn_as_ellipse:
        names.reverse()
    chosen: list[Finding] = []
    for finding in (draw_finding(chest, rng, name) for name in names):
        x0, y0, x1, y1 = finding.ellipse
        others = (f.ellipse for f in chosen)
        apart = all(x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0 for a0, b0, a1, b1 in others)
        if len(chosen) < number and apart:
            chosen.append(finding)
    return tuple(chosen)


def draw_finding(chest: Chest, rng: Rng, name: str) -> Finding:
    """Draw place and size of one finding of a kind."""
    kind = KINDS[name]
    place = str(rng.choice(kind.places))
    side = -1 if place.startswith("right") else 1
    radius = rng.uniform(*kind.radii)
    region = np.reshape(REGIONS[place], (2, 2)) / 100
    middle = region.mean(axis=0) + np.multiply(kind.shift, (side, 1))
    room = np.maximum(region[1] - middle - radius, 0.02)
    centre = middle + room * rng.uniform(-1, 1, 2)
    low, high = chest.to_px([centre - radius, centre + radius])
    x0, y0 = (max(0, int(v)) for v in np.floor(low))
    x1, y1 = (int(v) for v in np.minimum(np.ceil(high), (chest.width - 1, chest.height - 1)))
    return Finding(kind, place, (x0, y0, x1, y1), side, int(rng.integers(2**31)))


def draw_xray(chest: Chest, findings: tuple[Finding, ...]) -> Pixels:
    """Draw the X-ray of a chest with these findings: uint8, [height, width]."""
    canvas = draw_chest(chest)
    scale = np.divide(canvas.shape[::-1], (chest.width, chest.height))
    for finding in findings:
        _paint(canvas, scale, finding)
    return develop(canvas, chest)


def _paint(canvas: Pixels, scale: Pixels, finding: Finding) -> None:
    """Change the canvas, which has `scale` columns and rows for each image px."""
    low, high = np.reshape(finding.ellipse, (2, 2))
    centre, radius = ((low + high) / 2 + 0.5) * scale - 0.5, (high - low) / 2 * scale
    x0, y0 = np.maximum(centre - radius, 0).astype(int)
    x1, y1 = np.minimum(centre + radius + 2, canvas.shape[::-1]).astype(int)
    b, a = np.mgrid[y0:y1, x0:x1]
    a, b = (a - centre[0]) / radius[0], (b - centre[1]) / radius[1]
    r, rng = np.hypot(a, b), np.random.default_rng(finding.seed)
    opacity, level = finding.kind.look(_Spot(a, b, r, finding.side, rng))
    # Nothing may reach the ellipse's rim, enlarging by four would carry it across.
    rim = np.clip((1 - 1.5 / radius.min() - r) / 0.06, 0, 1)
    change = level - canvas[y0:y1, x0:x1]
    change *= (change > 0) | (np.asarray(level) < 60)  # bone shines through a bright finding
    canvas[y0:y1, x0:x1] += (np.clip(opacity, 0, 1) * rim * change).astype(np.float32)


def _step(x: Pixels, width: float) -> Pixels:
    return 1 / (1 + np.exp(-np.clip(x / width, -30, 30)))


def _ridge(x: Pixels, width: float) -> Pixels:
    return np.exp(-((x / width) ** 2))


def _free_air(at: _Spot) -> tuple[Pixels, Any]:
    line = _ridge(at.r - 0.80, 0.05) * np.clip(0.5 - at.side * at.a + 0.8 * at.b, 0, 1)
    return np.maximum(0.75 * _step(0.80 - at.r, 0.03), line), np.where(line > 0.35, 225, 18)


_ZONES = tuple(name for name in REGIONS if name.endswith("zone"))
_KINDS = (
    Kind("consolidation", lambda at: (np.clip(1.3 * (1 - at.r) + 0.17 * at.cloud(9), 0, 0.85), 205),
         _ZONES, ((0.13, 0.13), (0.20, 0.20)), ("Consolidation",) * 3,
         ("there is a dense consolidation in the {place}", "patchy opacity in the {place}")),
    Kind("effusion",  # whose meniscus climbs the chest wall
         lambda at: (0.95 * _step(at.b - 0.15 + 0.19 * (at.side * at.a + 1) ** 2, 0.04), 190),
         ("right costophrenic angle", "left costophrenic angle"), ((0.24, 0.26), (0.30, 0.34)),
         ("Pleural effusion", "Pleural abnormality", "Pleural Effusion"),
         ("there is a {side} pleural effusion", "layering fluid is present at the {side} base"),
         shift=(-0.12, -0.16)),
    Kind("pneumothorax", _free_air, _ZONES[:2], ((0.16, 0.20), (0.21, 0.26)), ("Pneumothorax",) * 3,
         ("{side} apical pneumothorax is present", "there is a pneumothorax at the {side} apex")),
    Kind("nodule", lambda at: (0.9 * _step(0.80 - at.r, 0.03), 215), _ZONES,
         ((0.050, 0.050), (0.085, 0.085)), ("Nodule", "Lung nodule or mass", "Lung Lesion"),
         ("there is a round nodule in the {place}", "rounded nodular opacity in the {place}")),
    Kind("atelectasis",
         lambda at: (np.max([_ridge(at.b + at.a / 5 - h, 0.1) for h in (-0.5, 0, 0.5)], 0), 205),
         _ZONES[-2:], ((0.15, 0.12), (0.19, 0.16)), ("Atelectasis",) * 3,
         ("linear atelectasis in the {place}", "bands of atelectasis at the {side} base")),
    Kind("cardiomegaly", lambda at: (_step(0.88 - at.r, 0.025), 168 + 6 * at.cloud(4)),
         ("cardiac silhouette",), ((0.46, 0.40), (0.54, 0.45)),
         ("Enlarged cardiac silhouette", "Enlarged cardiac silhouette", "Cardiomegaly"),
         ("the heart is enlarged", "there is moderate cardiomegaly")),
    Kind("device", lambda at: (_ridge(at.a - 0.55 * np.sin(2.4 * at.b + 0.3 * at.side), 0.13), 250),
         ("upper mediastinum",), ((0.10, 0.36), (0.12, 0.44)),
         ("Support devices", "Support devices", "Support Devices"),
         ("a central venous catheter ends in the superior vena cava",
          "central line in expected position"), drawn_as_ellipse=False),
)  # fmt: skip
KINDS = {kind.name: kind for kind in _KINDS}
