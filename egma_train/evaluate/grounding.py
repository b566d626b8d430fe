"""Does a sentence resemble the patches that it is about? Held-out gaze or regions tell which.

A model may seem to point well by knowing where readers look in any chest: so each figure stands
beside what one fixed map reaches, the mean of other patients' targets, and what the model reaches
with a sentence from another patient's reading.
"""

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from egma_train.data.grids import area_weights, on_grid
from egma_train.data.shards import (
    FRAME_PX,
    ShardReading,
    find_shards,
    fingerprint,
    is_affirmed,
)
from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.intervals import (
    Floats,
    Labels,
    bounded_mean,
    few_groups,
    paired_means,
    unbounded_mean,
)
from egma_train.evaluate.readings import patient_of, readings_of

AGAINST = ("gaze", "regions")
MENTIONS = ("affirmed", "any")
KEY = ("dataset", "reading_id", "dicom_id", "sentence")
CONTROLS = ("prior", "swapped")
TOLERANCE_PX = 15
"""A point this near counts as a hit, as in the pointing game of Zhang et al. (2016)."""
SHARE_OF_PEAK = 0.25
_BIOVIL_SIGMA_PATCHES = 1.5
_BIOVIL_THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5)
_GENERIC = {"zone", "structures"}
_WHOLE_CHEST = "chest"
_DRAWS = 32

Mask = NDArray[np.bool_]


class Case(NamedTuple):
    """A reading's image ``(224, 224)``, sentences about it, and where each points, as masks."""

    reading: ShardReading
    image: NDArray[np.uint8]
    sentences: list[int]
    texts: list[str]
    masks: list[Mask]


class Others(NamedTuple):
    """What is known of all patients, to judge one by the others.

    Attributes
    ----------
    sums, counts : dict
        By patient: the targets added up ``(n,)``, and their number.
    sentences : list of tuple
        Patient, reading, number and text of each that points, in this order.
    """

    sums: dict[str, Floats]
    counts: dict[str, int]
    sentences: list[tuple[str, str, int, str]]

    def prior(self, patient: str) -> Floats:
        """Average the targets of all other patients ``(n,)``, peak 1; NaN where there is none."""
        n = sum(self.counts.values()) - self.counts[patient]
        total = np.sum(list(self.sums.values()), axis=0) - self.sums[patient]
        mean = np.maximum(total / max(n, 1), 0)  # rounding leaves -1e-17
        # Only thresholds see the scale: a mean of heatmaps is below any of BioViL's.
        peak = mean.max() if n else 0.0
        return np.asarray(mean / peak if peak else np.full_like(mean, np.nan), np.float64)

    def sentence(self, patient: str, text: str, key: Sequence[Any], seed: int) -> str | None:
        """Draw evenly of other patients' sentences of other words; the same by key in any order."""
        rng = np.random.default_rng([seed, zlib.crc32(repr(key).encode())])
        said = _letters(text)

        def fits(other: str, words: str) -> bool:
            return other != patient and _letters(words) != said

        # Most sentences fit: to draw until one does is as even as to draw of a list of these, which
        # would be made anew for each sentence.
        for i in rng.integers(len(self.sentences), size=_DRAWS):
            if fits(self.sentences[i][0], self.sentences[i][3]):
                return self.sentences[i][3]
        fitting = [words for other, _, _, words in self.sentences if fits(other, words)]
        return fitting[int(rng.integers(len(fitting)))] if fitting else None


def _letters(text: str) -> str:
    """Leave what makes two sentences different: letters and digits, in one case."""
    return re.sub(r"[\W_]+", "", text).casefold()


def grounding(
    shards: Path,
    encoder: Encoder,
    *,
    against: str = "gaze",
    mentions: str = "",
    definition: str = "own",
    splits: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measure on every sentence of some shards that points somewhere.

    Parameters
    ----------
    against : {"gaze", "regions"}
        What a sentence points to: its own heatmap above a quarter of the peak, or the regions that
        its words name.
    mentions : {"affirmed", "any"}
        Take sentences that name a finding and do not deny it, or all; by default ``affirmed`` of
        regions, where it decides for each finding, and ``any`` of gaze.
    definition : str
        One of `DEFINITIONS`: whose measures.
    splits : sequence of str
        Which readings; by default all. The controls are drawn from all.

    Returns
    -------
    dict
        The report; intervals are by patients, ``rows`` has one a sentence.

    Raises
    ------
    BadUsageError
        If no sentence points anywhere, or a split has no readings.
    """
    if against not in AGAINST:
        raise unknown_name("target", against, AGAINST)
    if definition not in DEFINITIONS:
        raise unknown_name("definition", definition, DEFINITIONS)
    mentions = mentions or ("affirmed" if against == "regions" else "any")
    if mentions not in MENTIONS:
        raise unknown_name("kind of mentions", mentions, MENTIONS)
    files = find_shards(shards)
    others = _others(files, against, mentions, encoder.grid)
    cases = _cases(files, against, mentions, splits)
    found = list(figures_of_each(cases, encoder, batch_size, others, definition, seed))
    if not found:
        raise BadUsageError(f"no sentence in {shards} points to {against}; try the other --against")
    digest = fingerprint(files)
    patients = len({one["subject_id"] for one in found})
    own: dict[str, Any] = {"against": against, "mentions": mentions, "definition": definition}
    own |= {"splits": list(splits) or "all"}
    return {
        "task": "grounding",
        "protocol": {**own, "seed": seed, "geometry": encoder.preparation[0].told()},
        "shards": digest,
        "sentences": len(found),
        "images": len({one["dicom_id"] for one in found}),
        "patients": patients,
        "trained_on": trained_on(encoder, digest, splits),
        "cautions": _cautions(patients, len(others.counts)),
        "metrics": summary(found, definition, seed),
        "rows": [
            {name: value for name, value in one.items() if not name.startswith("chance")}
            for one in found
        ],
    }


def _cautions(patients: int, known: int) -> list[str]:
    said = few_groups(patients, "patients")
    if known < 2:
        said.append("one patient only: no other's sentences to make a prior and a swap of")
    return said


def figures_of_each(
    cases: Iterator[Case],
    encoder: Encoder,
    batch_size: int,
    others: Others,
    definition: str,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Measure every sentence of some cases, and both controls."""
    measure = DEFINITIONS[definition]
    while batch := list(islice(cases, batch_size)):
        sizes = np.array([(case.reading.width, case.reading.height) for case in batch])
        _, seen, shares = encoder.of_shards(np.stack([case.image for case in batch]), sizes)
        for case, own, share in zip(batch, seen, shares, strict=True):
            reading = case.reading
            keys = [
                (reading.dataset, reading.reading_id, reading.dicom_id, number)
                for number in case.sentences
            ]
            patient = patient_of(reading)
            swaps = [
                others.sentence(patient, text, key, seed)
                for text, key in zip(case.texts, keys, strict=True)
            ]
            said = [*case.texts, *(swap or "" for swap in swaps)]
            cosines = (encoder.sentences(said) @ own.T).double().cpu().numpy()  # (2 t, n)
            prior = others.prior(patient)
            for i, (key, mask) in enumerate(zip(keys, case.masks, strict=True)):
                swapped = cosines[len(keys) + i] if swaps[i] else np.full_like(prior, np.nan)
                controls = {"prior": measure(prior, mask), "swapped": measure(swapped, mask, share)}
                yield {
                    **dict(zip(KEY, key, strict=True)),
                    "subject_id": patient,
                    **measure(cosines[i], mask, share),
                    **{
                        f"{control} {name}": value
                        for control, figures in controls.items()
                        for name, value in figures.items()
                        if not name.startswith("chance")
                    },
                }


def measured(cosines: Floats, mask: Mask, seen: Sequence[float] = (1, 1)) -> dict[str, float]:
    """Compare a sentence's similarity to patches with where it points.

    Parameters
    ----------
    cosines : ndarray
        ``(n,)``, row-major, of a square grid over the frame's middle.
    mask : ndarray
        ``(224, 224)``.
    seen : sequence of float
        Of the frame's width and height that the grid covers; what a system does not see has the
        least similarity.

    Returns
    -------
    dict
        ``pointing`` (the best patch's centre is in the mask or near it), ``iou`` (of as many most
        similar pixels as the mask has), ``cnr`` (difference of the means inside and outside over
        the root of the summed variances, signed), ``auroc`` over pixels, and ``chance`` of each;
        NaN where the mask is everything or nothing, or nothing is known of the patches.
    """
    size, share = int(mask.sum()), float(mask.mean())
    if not 0 < share < 1 or np.isnan(cosines).any():
        return dict.fromkeys(("pointing", "iou", "cnr", "auroc"), np.nan)
    cells = math.isqrt(len(cosines))
    flat, inside = spread(cosines, seen).ravel(), mask.ravel()
    near = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= TOLERANCE_PX
    x, y = (FRAME_PX * (0.5 + one * ((np.arange(cells) + 0.5) / cells - 0.5)) for one in seen)
    columns, rows = x.astype(np.int64), y.astype(np.int64)
    row, column = divmod(int(cosines.argmax()), cells)
    least = np.partition(flat, -size)[-size]
    best = flat > least
    best[np.flatnonzero(flat == least)[: size - int(best.sum())]] = True  # of equals the first
    within, without = np.sort(flat[inside]), np.sort(flat[~inside])
    below = np.searchsorted(without, within, "left") + np.searchsorted(without, within, "right")
    return {
        "pointing": float(near[rows[row], columns[column]]),
        "iou": float((best & inside).sum() / (best | inside).sum()),
        "cnr": _contrast(flat, inside),
        "auroc": float(below.mean()) / (2 * len(without)),
        "chance of pointing": float(near[rows[:, None], columns].mean()),
        "chance of iou": share / (2 - share),
        "chance of cnr": 0.0,
        "chance of auroc": 0.5,
    }


def measured_as_biovil(
    cosines: Floats, mask: Mask, seen: Sequence[float] = (1, 1)
) -> dict[str, float]:
    """Measure as BioViL does (Boecking et al. 2022; the authors' hi-ml-multimodal).

    The cosines are smoothed over the grid (Gaussian, 1.5 patches, mirrored edges), spread to pixels
    by the nearest patch and not scaled.

    Returns
    -------
    dict
        ``cnr``, absolute, so that the opposite map has the same; ``miou``, the mean over the
        thresholds .1 to .5 of the IoU of what is above. NaN as `measured` has it.
    """
    if not mask.any() or mask.all() or np.isnan(cosines).any():
        return dict.fromkeys(("cnr", "miou"), np.nan)
    grid = gaussian_filter(_squared(cosines), _BIOVIL_SIGMA_PATCHES)
    across, down = (np.floor(_places(len(grid), one)).astype(np.int64) for one in seen)
    inside = ((across >= 0) & (across < len(grid)), (down >= 0) & (down < len(grid)))
    across, down = (one.clip(0, len(grid) - 1) for one in (across, down))
    spread = np.where(inside[1][:, None] & inside[0], grid[down[:, None], across], grid.min())
    spread = spread.astype(np.float64)
    ious = [
        (above & mask).sum() / (above | mask).sum()
        for above in (spread > threshold for threshold in _BIOVIL_THRESHOLDS)
    ]
    return {"cnr": abs(_contrast(spread.ravel(), mask.ravel())), "miou": float(np.mean(ious))}


def _places(cells: int, share: float) -> Floats:
    """Tell on which cell the 224 pixels of a row lie, in cells from the first one's edge."""
    along = (np.arange(FRAME_PX) + 0.5) / FRAME_PX
    return np.asarray(((along - 0.5) / share + 0.5) * cells, np.float64)


def spread(cosines: Floats, share: Sequence[float] = (1, 1)) -> Floats:
    """Interpolate a square grid ``(n,)`` over the frame's middle to its pixels ``(224, 224)``.

    What a system does not see, outside its `share`, has the grid's least.
    """
    grid = _squared(cosines)
    if tuple(share) == (1, 1):
        whole = (FRAME_PX, FRAME_PX)
        return np.asarray(cv2.resize(grid, whole, interpolation=cv2.INTER_LINEAR), np.float64)
    cells = len(grid)
    places = [_places(cells, one) for one in share]
    lines = []
    for at in places:  # linear between the cells' centres, constant beyond the outermost
        near = (at - 0.5).clip(0, cells - 1)
        lines.append(np.maximum(0, 1 - np.abs(near[:, None] - np.arange(cells))))
    across, down = lines
    seen = [(at >= 0) & (at <= cells) for at in places]
    wide = down @ grid @ across.T
    return np.where(seen[1][:, None] & seen[0], wide, grid.min())


def _squared(cosines: Floats) -> Floats:
    cells = math.isqrt(len(cosines))
    return cosines.reshape(cells, cells)


def _contrast(values: Floats, inside: Mask) -> float:
    """Give the contrast-to-noise ratio, positive where it is brighter inside."""
    within, without = values[inside], values[~inside]
    noise = np.sqrt(within.var() + without.var())
    return float((within.mean() - without.mean()) / max(noise, 1e-12))


DEFINITIONS: dict[str, Callable[..., dict[str, float]]] = {
    "own": measured,
    "biovil": measured_as_biovil,
}
MEASURES = {"own": ("pointing", "iou", "cnr", "auroc"), "biovil": ("cnr", "miou")}


def region_mask(region: Mapping[str, Any]) -> Mask:
    """Draw a box or ellipse of a shard: ``(224, 224)``, by pixel centres."""
    centre_x, centre_y = (region["x0"] + region["x1"]) / 2, (region["y0"] + region["y1"]) / 2
    at = np.arange(FRAME_PX)
    x = (at - centre_x) / max((region["x1"] - region["x0"]) / 2, 1e-6)
    y = (at[:, None] - centre_y) / max((region["y1"] - region["y0"]) / 2, 1e-6)
    ellipse = region["kind"] == "ellipse"
    return x**2 + y**2 <= 1 if ellipse else np.maximum(abs(x), abs(y)) <= 1


def names(text: str, region: Mapping[str, Any]) -> bool:
    """Tell whether a sentence has all words of a region's name, or of one of its alternatives."""
    words = set(re.findall(r"[a-z]+", text.lower()))
    if region["name"] == _WHOLE_CHEST:
        return False
    alternatives = re.split(r" / | or ", region["name"].lower())
    return any(set(one.split()) - _GENERIC <= words for one in alternatives)


def affirms(mentions: Iterable[dict[str, Any]], label: str) -> bool:
    """Tell whether a sentence names, and does not deny, the finding that a dataset labels so."""
    known = _labels()
    return any(is_affirmed(one) and label in known.get(one["name"], ()) for one in mentions)


@cache
def _labels() -> dict[str, tuple[str, ...]]:
    declared = shipped_toml("mentions")["findings"]
    return {name: tuple(one["labels"]) for name, one in declared.items()}


def as_frame(stored: bytes) -> NDArray[np.uint8]:
    """Take a stored image or map as ``(224, 224)``."""
    return np.frombuffer(stored, np.uint8).reshape(FRAME_PX, FRAME_PX)


def _pointing(
    reading: ShardReading, against: str, mentions: str
) -> Iterator[tuple[int, str, Mask]]:
    """Give number, text and target of each sentence that points somewhere."""
    told = reading.mentions
    if mentions == "affirmed" and None in told:
        raise BadUsageError(
            f"{reading.reading_id} does not tell what sentences mention (single words, schema 1);"
            " first: egma-prep render-heatmaps --level sentence, or add --mentions any"
        )
    affirmed = reading.affirms()
    for number, (text, heatmap) in enumerate(zip(reading.texts, reading.maps, strict=True)):
        if against == "gaze":
            if heatmap is not None and (mentions == "any" or affirmed[number]):
                yield number, text, as_frame(heatmap) > 255 * SHARE_OF_PEAK
            continue

        def is_named(region: Mapping[str, Any], text: str = text, number: int = number) -> bool:
            if region["kind"] == "ellipse" and mentions == "affirmed":
                return affirms(told[number] or (), region["name"])
            return names(text, region)

        if named := [region_mask(one) for one in reading.regions if is_named(one)]:
            yield number, text, np.any(named, axis=0)


def _others(files: Iterable[Path], against: str, mentions: str, cells: int) -> Others:
    """Read all targets once: heatmaps where gaze is asked for, else the regions' masks."""
    sums: dict[str, Floats] = defaultdict(lambda: np.zeros(cells**2))
    weights = area_weights(cells)
    counts = Counter[str]()
    sentences = []
    for reading in readings_of(files, maps=True):
        patient = patient_of(reading)
        for number, text, mask in _pointing(reading, against, mentions):
            heatmap = reading.maps[number] if against == "gaze" else None
            target = mask.astype(np.uint8) * 255 if heatmap is None else as_frame(heatmap)
            grid = on_grid(target, weights)
            sums[patient] += np.asarray(grid, np.float64)
            counts[patient] += 1
            sentences.append((patient, reading.reading_id, number, text))
    return Others(sums, counts, sorted(sentences))


def _cases(
    files: Iterable[Path], against: str, mentions: str, splits: Sequence[str]
) -> Iterator[Case]:
    for reading in readings_of(files, splits, maps=True):
        if pointing := list(_pointing(reading, against, mentions)):
            image = as_frame(reading.image)
            columns = map(list, zip(*pointing, strict=True))
            yield Case(reading, image, *columns)


def summary(found: list[dict[str, Any]], definition: str, seed: int) -> dict[str, Any]:
    """Average each measure and its controls, and take the paired differences to these."""
    of = np.unique([one["subject_id"] for one in found], return_inverse=True)[1]

    def column(name: str) -> Floats:
        return np.array([one.get(name, np.nan) for one in found])

    metrics = {}
    for name in MEASURES[definition]:
        figure: dict[str, Any] = averaged(name, column(name), of)
        if not np.isnan(chances := column(f"chance of {name}")).all():
            figure["chance"] = float(np.nanmean(chances))
        for control in CONTROLS:
            values = column(f"{control} {name}")
            figure[control] = averaged(name, values, of)["value"]
            difference = paired_means(values, column(name), seed, of)
            figure[f"over {control}"] = difference._asdict()
        metrics[name] = figure
    return metrics


def averaged(name: str, values: Floats, of: Labels) -> dict[str, float]:
    """Average a measure by patients; only a contrast has no bounds."""
    mean = unbounded_mean if name == "cnr" else bounded_mean
    return mean(values, of)._asdict()


def trained_on(encoder: Encoder, shards: str, splits: Sequence[str]) -> bool | None:
    """Tell whether the model has seen these readings; None where nothing is known of it."""
    facts = encoder.facts
    if facts.get("objective") == "untrained":
        return False
    if facts.get("shards") != shards:
        return None
    if list(splits) == [facts.get("held_out")]:
        return False
    return not facts["splits"] or not splits or bool(set(facts["splits"]) & set(splits))
