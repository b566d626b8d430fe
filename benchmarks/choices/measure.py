"""How well the maps of a choice recover what sentences name."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.choices.phantoms import HEIGHT, WIDTH, Reading
from egma_prep.gaze.frame import FRAME_PX, Frame, frame_of
from egma_prep.gaze.sentences import SentenceSpan
from egma_prep.options import RenderOptions
from egma_prep.shards.assemble import Gaze, rendered
from egma_prep.sources.reading import Words
from egma_train.evaluate.grounding import region_mask
from egma_train.evaluate.metrics import auroc

CELLS, COARSE = 7, 56
LEAST_COVER = 0.25
"""Of a patch that belongs to a finding."""
SHARE_OF_PEAK = 0.25
RULES = {"nonzero": 0.0, "quarter-max": 0.25}
FRAME = frame_of(WIDTH, HEIGHT)


class Row(NamedTuple):
    """One sentence that names a finding; figures are NaN without a map."""

    patient: int
    figures: dict[str, float]


def rows_of(readings: Iterable[Reading], options: RenderOptions) -> list[Row]:
    """Render every reading, and measure each sentence that names a finding."""
    rows = []
    for reading in readings:
        made = rendered(gaze_of(reading, FRAME), *said_of(reading), FRAME, options)["sentences"]
        for sentence, own in zip(reading.sentences, made, strict=True):
            if sentence.ellipse is not None:
                rows.append(Row(reading.patient, _figures(own, mask_of(sentence.ellipse))))
    return rows


def gaze_of(reading: Reading, frame: Frame) -> Gaze:
    """Place a phantom's fixations in the frame."""
    on_image = (reading.x >= 0) & (reading.x < WIDTH) & (reading.y >= 0) & (reading.y < HEIGHT)
    return Gaze(
        reading.begin,
        reading.end,
        reading.x,
        reading.y,
        frame.x(reading.x),
        frame.y(reading.y),
        on_image,
        reading.px_per_deg,
        reading.px_per_deg,
        *reading.shown.T,
    )


def said_of(reading: Reading) -> tuple[Words, list[SentenceSpan]]:
    """Take each sentence as one word: where words lie inside it decides nothing here."""
    begin, end = np.array([one[:2] for one in reading.sentences]).T
    words = Words(["said"] * len(begin), begin, end)
    return words, [SentenceSpan(at, at) for at in range(len(begin))]


def mask_of(ellipse: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Draw an ellipse of the image in the frame, ``(224, 224)``."""
    x0, x1 = FRAME.x(np.array([ellipse[0], ellipse[2]]))
    y0, y1 = FRAME.y(np.array([ellipse[1], ellipse[3]]))
    return region_mask({"kind": "ellipse", "x0": x0, "y0": y0, "x1": x1, "y1": y1})


def _figures(own: dict[str, Any], mask: NDArray[np.bool_]) -> dict[str, float]:
    names = ["pointing", "AUROC", "IoU"]
    names += [f"{what}, {rule}" for rule in RULES for what in ("precision", "recall", "cells")]
    if own["heatmap"] is None:
        return {"with a map": 0.0, **dict.fromkeys(names, np.nan)}
    heat = np.frombuffer(own["heatmap"], np.uint8).reshape(FRAME_PX, FRAME_PX).astype(float)
    is_above = heat > SHARE_OF_PEAK * heat.max()
    peaks = heat == heat.max()
    figures = {
        "with a map": 1.0,
        "pointing": float(mask[peaks].mean()),
        "AUROC": _auroc(_means(heat, COARSE), _means(mask, COARSE) >= 0.5),
        "IoU": float((is_above & mask).sum() / (is_above | mask).sum()),
    }
    covered = _means(mask, CELLS)
    truth = covered >= min(LEAST_COVER, covered.max())
    grid = np.reshape(own["grid"], (CELLS, CELLS))
    for rule, share in RULES.items():
        label = grid > share * grid.max()
        figures[f"precision, {rule}"] = float(truth[label].mean())
        figures[f"recall, {rule}"] = float(label[truth].mean())
        figures[f"cells, {rule}"] = float(label.sum())
    return figures


def _means(values: NDArray[Any], cells: int) -> NDArray[np.float64]:
    px = FRAME_PX // cells
    return values.reshape(cells, px, cells, px).mean(axis=(1, 3), dtype=np.float64)


def _auroc(values: NDArray[np.float64], truth: NDArray[np.bool_]) -> float:
    level = np.unique(values, return_inverse=True)[1].ravel()
    return float(auroc(truth.ravel(), level, np.ones(truth.size)))
