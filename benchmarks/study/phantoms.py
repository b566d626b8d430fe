"""PHANTOM readings: images with findings and a shortcut, their dictation, the gaze, the truth.

An image of 56 px shows one to three of four findings below its top row of patches. Each finding has
a marker, a bright glyph in the top row, where nobody looks, or beside a finding, where eyes go
anyway. In a share of the images the markers are those of the findings; in the others they are drawn
as findings are, without regard to the image.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from egma_prep.gaze.heatmaps import rendered_maps
from egma_prep.gaze.kernels import gaussian

IMAGE_PX, CELLS, CELL_PX = 56, 7, 8
FINDING_PX, MARKER_PX = 16, 6
FRAME_PX_PER_PX = 224 // IMAGE_PX
SIGMA_FRAME_PX = 16.0  # as the preprocessing's default
LEAST_COVER = 0.25  # of a patch that belongs to a finding

FINDINGS = {
    "ring": ("ring", "annular opacity"),
    "cross": ("cross", "crossing lines"),
    "stripes": ("stripes", "linear pattern"),
    "checker": ("checker", "reticular pattern"),
}
OPENINGS = ("there is", "i see", "evidence of")
ENDINGS = ("", "today", "as before")
FILLERS = (
    "the heart is normal in size",
    "no acute bone abnormality",
    "lines and tubes are unchanged",
    "comparison is made to the prior study",
)
CLASSES = tuple(FINDINGS)
SENTENCES = [
    " ".join(f"{opening} {name} {ending}".split())
    for names in FINDINGS.values()
    for name in names
    for opening in OPENINGS
    for ending in ENDINGS
] + list(FILLERS)
NAMED = np.full(len(SENTENCES), -1)  # the class that each sentence names; fillers none
NAMED[: -len(FILLERS)] = np.arange(len(CLASSES)).repeat((len(SENTENCES) - len(FILLERS)) // 4)
MOST_SENTENCES = 3 + 2  # findings, a filler before and one after

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Gaze:
    """How eyes wander while a sentence is said."""

    fixations: tuple[int, int] = (3, 8)
    """Least and most for a sentence."""
    noise_px: float = 2.0
    """Standard deviation of a fixation around the finding's centre."""
    offset_px: float = 1.5
    """Of the tracker's error, one an image."""
    stray_share: float = 0.15
    """Fixations anywhere."""
    lag_share: float = 0.2
    """Fixations that are still, or already, on a neighbouring sentence's finding."""
    lost_share: float = 0.1
    """Sentences without gaze."""


@dataclass(frozen=True)
class Look:
    """How hard the phantoms are; learnable without gaze where there is no shortcut."""

    contrast: float = 0.8
    """Of a finding; the shadows behind it have a standard deviation of 0.5."""
    noise: float = 0.5
    """Standard deviation of the grain."""
    gaze: Gaze = Gaze()


@dataclass(frozen=True)
class Readings:
    """k readings; sentences are padded to `MOST_SENTENCES`.

    Attributes
    ----------
    images : ndarray
        ``[k, 56, 56]`` float32.
    findings, markers : ndarray
        ``[k, 4]`` bool by class.
    sentences : ndarray
        ``[k, m]``, numbers in `SENTENCES`, -1 for padding.
    truth : ndarray
        ``[k, m, 49]`` bool: patches of the finding that the sentence names; none for fillers.
    grid, grid_mask : ndarray
        ``[k, m, 49]`` float32 in [0, 1] and ``[k, m]`` bool, as the shards' grid.
    """

    images: Floats
    findings: Bools
    markers: Bools
    sentences: NDArray[np.int64]
    truth: Bools
    grid: Floats
    grid_mask: Bools

    def __len__(self) -> int:
        return len(self.images)


def make_readings(
    number: int, seed: tuple[int, ...], shortcut_share: float, look: Look, beside: bool = False
) -> Readings:
    """Make readings; with another share of the shortcut the same ones differ in markers alone.

    With `beside` a marker lies beside its finding; one whose finding is not there beside another.
    """
    rng, marker_rng = (np.random.default_rng((*seed, stream)) for stream in (0, 1))
    findings = _some_findings(rng, number)
    tied = marker_rng.random(number) < shortcut_share
    markers = np.where(tied[:, None], findings, _some_findings(marker_rng, number))
    images = _backgrounds(rng, number, look.noise)
    sentences = np.full((number, MOST_SENTENCES), -1)
    truth = np.zeros((number, MOST_SENTENCES, CELLS**2), bool)
    grid = np.zeros(truth.shape, np.float32)
    grid_mask = np.zeros(sentences.shape, bool)
    for i in range(number):
        places = _draw_findings(rng, images[i], findings[i], look.contrast)
        said = _dictation(rng, findings[i])
        named = NAMED[said]
        centres = [places[int(c)] + FINDING_PX / 2 if c >= 0 else None for c in named]
        for j, sentence in enumerate(said):
            sentences[i, j] = sentence
            if named[j] >= 0:
                truth[i, j] = cells_of(*places[int(named[j])])
        for j, each in enumerate(_gaze_grids(rng, centres, look.gaze)):
            grid_mask[i, j] = each is not None
            grid[i, j] = 0 if each is None else each
        if beside:
            _draw_markers_beside(marker_rng, images[i], markers[i], places)
        else:
            _draw_markers(marker_rng, images[i], markers[i])
    return Readings(images, findings, markers, sentences, truth, grid, grid_mask)


def with_gaze_of_others(readings: Readings, seed: tuple[int, ...]) -> Readings:
    """Give each reading the gaze of another one, sentence by sentence in its order."""
    order = np.random.default_rng((*seed, 2)).permutation(len(readings))
    donor = np.empty_like(order)
    donor[order] = np.roll(order, 1)  # one circle: nobody keeps their own
    lengths = (readings.sentences >= 0).sum(1)
    j = np.arange(MOST_SENTENCES) % lengths[donor][:, None]  # short donors begin again
    spoken = readings.sentences >= 0
    return replace(
        readings,
        grid=readings.grid[donor[:, None], j],
        grid_mask=readings.grid_mask[donor[:, None], j] & spoken,
    )


def with_gaze_of_some(readings: Readings, share: float, seed: tuple[int, ...]) -> Readings:
    """Keep the gaze of a seeded share of the readings; smaller shares lie in larger ones."""
    order = np.random.default_rng((*seed, 3)).permutation(len(readings))
    kept = np.isin(np.arange(len(readings)), order[: round(share * len(readings))])
    return replace(readings, grid_mask=readings.grid_mask & kept[:, None])


def cells_of(y_px: float, x_px: float) -> Bools:
    """Tell which patches a finding with this upper left corner covers well: ``(49,)``."""

    def cover(begin: float) -> NDArray[np.float64]:
        low = np.arange(CELLS) * CELL_PX
        inside = np.minimum(low + CELL_PX, begin + FINDING_PX) - np.maximum(low, begin)
        return np.asarray(np.clip(inside, 0, None) / CELL_PX)

    return (np.outer(cover(y_px), cover(x_px)) >= LEAST_COVER).ravel()


def _some_findings(rng: np.random.Generator, number: int) -> Bools:
    """Draw one to three classes for each image."""
    rank = rng.random((number, len(CLASSES))).argsort(1).argsort(1)
    return rank < rng.integers(1, 4, number)[:, None]


def _backgrounds(rng: np.random.Generator, number: int, noise: float) -> Floats:
    """Soft shadows and grain."""
    shadows = gaussian_filter(rng.normal(size=(number, IMAGE_PX, IMAGE_PX)), (0, 8, 8))
    shadows /= shadows.std()
    grain = rng.normal(size=shadows.shape)
    return (0.5 * shadows + noise * grain).astype(np.float32)


def _patterns() -> dict[str, NDArray[np.float64]]:
    y, x = np.mgrid[:FINDING_PX, :FINDING_PX] - (FINDING_PX - 1) / 2
    radius = np.hypot(x, y)
    drawn = {
        "ring": np.exp(-(((radius - 5) / 1.2) ** 2)) * 2,
        "cross": np.maximum(np.abs(x) < 1.5, np.abs(y) < 1.5) * 2.0,
        "stripes": np.sign(np.sin((x + y) * np.pi / 4)),
        "checker": np.sign(np.sin((x + 0.5) * np.pi / 3) * np.sin((y + 0.5) * np.pi / 3)),
    }
    return {name: pattern * (radius < FINDING_PX / 2) for name, pattern in drawn.items()}


PATTERNS = _patterns()
GLYPHS = np.array(
    [
        np.ones((MARKER_PX, MARKER_PX)),
        np.pad(np.zeros((MARKER_PX - 2, MARKER_PX - 2)), 1, constant_values=1),
        np.tri(MARKER_PX),
        np.tile(np.arange(MARKER_PX) % 2, (MARKER_PX, 1)),
    ]
)
GLYPH_CONTRAST = 3.0


def _draw_findings(
    rng: np.random.Generator, image: Floats, findings: Bools, contrast: float
) -> dict[int, NDArray[np.int64]]:
    """Add the patterns where they do not overlap; return each class's upper left (y, x) px."""
    places: dict[int, NDArray[np.int64]] = {}
    high = IMAGE_PX - FINDING_PX + 1
    while len(places) < findings.sum():  # three may not fit around the first two: begin anew
        places = {}
        for c in np.flatnonzero(findings):
            for place in rng.integers((CELL_PX, 0), (high, high), (20, 2)):
                if all(np.abs(place - other).max() >= FINDING_PX for other in places.values()):
                    places[int(c)] = place
                    break
    for number, (y, x) in places.items():
        image[y : y + FINDING_PX, x : x + FINDING_PX] += contrast * PATTERNS[CLASSES[number]]
    return places


def _draw_markers(rng: np.random.Generator, image: Floats, markers: Bools) -> None:
    columns = rng.permutation(CELLS)[: len(CLASSES)]
    for c in np.flatnonzero(markers):
        x = columns[c] * CELL_PX + 1
        image[1 : 1 + MARKER_PX, x : x + MARKER_PX] = GLYPH_CONTRAST * GLYPHS[c]


def _draw_markers_beside(
    rng: np.random.Generator, image: Floats, markers: Bools, places: dict[int, NDArray[np.int64]]
) -> None:
    """Draw each marker on a side of a finding, within two patches of its middle."""
    for c in np.flatnonzero(markers):
        at = places[int(c)] if int(c) in places else places[int(rng.choice([*places]))]
        sides = FINDING_PX / 2 + np.array([[-11, -3], [5, -3], [-3, -11], [-3, 5]])  # (y, x) px
        y, x = np.clip(at + rng.permutation(sides)[0], 0, IMAGE_PX - MARKER_PX).astype(int)
        image[y : y + MARKER_PX, x : x + MARKER_PX] = GLYPH_CONTRAST * GLYPHS[c]


def _dictation(rng: np.random.Generator, findings: Bools) -> list[int]:
    """Name the findings in any order, half of the times with a filler before or after."""
    fillers = np.flatnonzero(NAMED < 0)
    said = [
        int(rng.choice(np.flatnonzero(c == NAMED)))
        for c in rng.permutation(np.flatnonzero(findings))
    ]
    before, after = rng.random(2) < 0.5
    first, last = (int(filler) for filler in rng.choice(fillers, 2, replace=False))
    return [first] * int(before) + said + [last] * int(after)


def _gaze_grids(
    rng: np.random.Generator, centres: list[NDArray[Any] | None], gaze: Gaze
) -> list[Floats | None]:
    """Look at what each sentence says, at (y, x) px or nowhere in particular: ``(49,)`` each."""
    offset = rng.normal(0, gaze.offset_px, 2)
    grids: list[Floats | None] = []
    for j in range(len(centres)):
        count = int(rng.integers(gaze.fixations[0], gaze.fixations[1] + 1))
        neighbour = centres[min(max(j + (1 if rng.random() < 0.5 else -1), 0), len(centres) - 1)]
        drawn = rng.random(count)
        points = rng.uniform(0, IMAGE_PX, (count, 2))
        jitter = rng.normal(0, gaze.noise_px, (count, 2)) + offset
        seconds = rng.gamma(4, 0.08, count)
        for f, chance in enumerate(drawn):
            late = gaze.stray_share <= chance < gaze.stray_share + gaze.lag_share
            target = neighbour if late else centres[j]
            if chance >= gaze.stray_share and target is not None:
                points[f] = target + jitter[f]
        lost = rng.random() < gaze.lost_share
        grids.append(None if lost else _grid(points, seconds))
    return grids


def _grid(points_px: NDArray[np.float64], seconds: NDArray[np.float64]) -> Floats | None:
    """Render as the preprocessing does; gaze off the image has no weight."""
    inside = ((points_px >= 0) & (points_px < IMAGE_PX)).all(1)
    y, x = (points_px[inside] * FRAME_PX_PER_PX).T
    sigma = np.full(len(x), SIGMA_FRAME_PX)
    (made,) = rendered_maps(gaussian.footprints(x, y, sigma, sigma), seconds[inside][None])
    return None if made is None else np.asarray(made.grid, np.float32).ravel()
