"""Does a sentence resemble the patches that it is about? Held-out gaze or regions tell which."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.metrics import Floats, auroc, levels, mean_with_interval
from egma_train.shards import FRAME_PX, GRID_CELLS, find_shards, fingerprint, read_shard

AGAINST = ("gaze", "regions")
MEASURES = ("pointing", "iou", "cnr", "auroc")
_KEY = ("dataset", "reading_id", "dicom_id", "sentence")
TOLERANCE_PX = 15
"""A point this near counts as a hit, as in the pointing game of Zhang et al. (2016)."""
_SHARE_OF_PEAK = 0.25
_CELL_PX = FRAME_PX // GRID_CELLS
_CENTRES_PX = _CELL_PX // 2 + _CELL_PX * np.arange(GRID_CELLS)
_DENIALS = {"no", "not", "without", "negative", "resolved"}
_GENERIC = {"zone", "structures"}
_WHOLE_CHEST = "chest"

Mask = NDArray[np.bool_]


class Case(NamedTuple):
    """A reading's image ``(224, 224)``, sentences about it, and where each points, as masks."""

    dataset: str
    reading_id: str
    dicom_id: str
    image: NDArray[np.uint8]
    sentences: list[int]
    texts: list[str]
    masks: list[Mask]


def grounding(
    shards: Path,
    encoder: Encoder,
    *,
    against: str = "gaze",
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
    splits : sequence of str
        Which readings; by default all.

    Returns
    -------
    dict
        The report; intervals resample images, ``rows`` has one a sentence.

    Raises
    ------
    BadUsageError
        If no sentence points anywhere, or a split has no readings.
    """
    if against not in AGAINST:
        raise unknown_name("target", against, AGAINST)
    files = find_shards(shards)
    seen_splits = Counter[str]()
    cases = _cases(files, against, splits, seen_splits)
    found = list(_of_each_sentence(cases, encoder, batch_size))
    if lacking := [name for name in splits if name not in seen_splits]:
        raise unknown_name("split", lacking[0], seen_splits)
    if not found:
        raise BadUsageError(f"no sentence in {shards} points to {against}; try the other --against")
    digest = fingerprint(files)
    return {
        "task": "grounding",
        "protocol": {"against": against, "splits": list(splits) or "all", "seed": seed},
        "shards": digest,
        "sentences": len(found),
        "images": len({one["dicom_id"] for one in found}),
        "trained_on": _trained_on(encoder, digest, splits),
        "metrics": _summary(found, seed),
        "rows": [{name: one[name] for name in (*_KEY, *MEASURES)} for one in found],
    }


def _of_each_sentence(
    cases: Iterator[Case], encoder: Encoder, batch_size: int
) -> Iterator[dict[str, Any]]:
    while batch := list(islice(cases, batch_size)):
        _, patches = encoder.images(np.stack([case.image for case in batch]))
        for case, own in zip(batch, patches, strict=True):
            cosines = (encoder.texts(case.texts) @ own.T).double().cpu().numpy()  # (t, 49)
            for number, row, mask in zip(case.sentences, cosines, case.masks, strict=True):
                key = (case.dataset, case.reading_id, case.dicom_id, number)
                yield dict(zip(_KEY, key, strict=True)) | measured(row, mask)


def measured(cosines: Floats, mask: Mask) -> dict[str, float]:
    """Compare a sentence's similarity to patches with where it points.

    Parameters
    ----------
    cosines : ndarray
        ``(49,)``, row-major.
    mask : ndarray
        ``(224, 224)``.

    Returns
    -------
    dict
        ``pointing`` (the best patch's centre is in the mask or near it), ``iou`` (of as many most
        similar pixels as the mask has), ``cnr`` (difference of the means inside and outside over
        the root of the summed variances, signed), ``auroc`` over pixels, and ``chance`` of the
        first two; NaN where the mask is everything or nothing.
    """
    grid = cosines.reshape(GRID_CELLS, GRID_CELLS)
    spread = cv2.resize(grid, (FRAME_PX, FRAME_PX), interpolation=cv2.INTER_LINEAR)
    flat, inside = np.asarray(spread, np.float64).ravel(), mask.ravel()
    near = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) <= TOLERANCE_PX
    row, column = (np.array(divmod(int(cosines.argmax()), GRID_CELLS)) + 0.5) * _CELL_PX
    size, share = int(inside.sum()), float(inside.mean())
    if not 0 < share < 1:
        return dict.fromkeys(MEASURES, np.nan)
    best = np.zeros_like(inside)
    best[np.argsort(-flat, kind="stable")[:size]] = True
    noise = np.sqrt(flat[inside].var() + flat[~inside].var())
    return {
        "pointing": float(near[int(row), int(column)]),
        "iou": float((best & inside).sum() / (best | inside).sum()),
        "cnr": float((flat[inside].mean() - flat[~inside].mean()) / max(noise, 1e-12)),
        "auroc": auroc(inside, levels(flat), np.ones(len(flat))),
        "chance of pointing": float(near[_CENTRES_PX[:, None], _CENTRES_PX].mean()),
        "chance of iou": share / (2 - share),
    }


def region_mask(region: Mapping[str, Any]) -> Mask:
    """Draw a box or ellipse of a shard: ``(224, 224)``, by pixel centres."""
    centre_x, centre_y = (region["x0"] + region["x1"]) / 2, (region["y0"] + region["y1"]) / 2
    at = np.arange(FRAME_PX)
    x = (at - centre_x) / max((region["x1"] - region["x0"]) / 2, 1e-6)
    y = (at[:, None] - centre_y) / max((region["y1"] - region["y0"]) / 2, 1e-6)
    ellipse = region["kind"] == "ellipse"
    return x**2 + y**2 <= 1 if ellipse else np.maximum(abs(x), abs(y)) <= 1


def names(text: str, region: Mapping[str, Any]) -> bool:
    """Tell whether a sentence has all words of a region's name, or of one of its alternatives.

    A finding (an ellipse) is not named by a sentence that denies something.
    """
    words = set(re.findall(r"[a-z]+", text.lower()))
    if (region["kind"] == "ellipse" and words & _DENIALS) or region["name"] == _WHOLE_CHEST:
        return False
    alternatives = re.split(r" / | or ", region["name"].lower())
    return any(set(one.split()) - _GENERIC <= words for one in alternatives)


def _cases(
    files: Iterable[Path], against: str, splits: Sequence[str], seen_splits: Counter[str]
) -> Iterator[Case]:
    for reading in (one for path in files for one in read_shard(path, maps=True)):
        seen_splits.update([reading.split or "unknown"])
        if splits and reading.split not in splits:
            continue
        masks: list[Mask | None] = []
        for text, heatmap in zip(reading.texts, reading.maps, strict=True):
            named = [region_mask(one) for one in reading.regions if names(text, one)]
            seen = None if heatmap is None else np.frombuffer(heatmap, np.uint8)
            gazed = None if seen is None else seen.reshape(FRAME_PX, -1) > 255 * _SHARE_OF_PEAK
            masks.append(gazed if against == "gaze" else np.any(named, axis=0) if named else None)
        pointing = [
            (number, text, mask)
            for number, (text, mask) in enumerate(zip(reading.texts, masks, strict=True))
            if mask is not None
        ]
        if pointing:
            image = np.frombuffer(reading.image, np.uint8).reshape(FRAME_PX, FRAME_PX)
            columns = map(list, zip(*pointing, strict=True))
            yield Case(reading.dataset, reading.reading_id, reading.dicom_id, image, *columns)


def _summary(found: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    image_of = np.unique([one["dicom_id"] for one in found], return_inverse=True)[1]

    def column(name: str) -> Floats:
        return np.array([one.get(name, np.nan) for one in found])

    chances = {"cnr": 0.0, "auroc": 0.5} | {
        name: float(np.nanmean(column(f"chance of {name}"))) for name in ("pointing", "iou")
    }
    return {
        name: mean_with_interval(column(name), seed, image_of) | {"chance": chances[name]}
        for name in MEASURES
    }


def _trained_on(encoder: Encoder, shards: str, splits: Sequence[str]) -> bool | None:
    """Tell whether the model has seen these readings; None where nothing is known of it."""
    facts = encoder.facts
    if facts.get("objective") == "untrained":
        return False
    if facts.get("shards") != shards:
        return None
    return not facts["splits"] or not splits or bool(set(facts["splits"]) & set(splits))
