"""Sums over all readings, from one pass: mean images and maps, and the sentences' numbers."""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egma_prep.shards.reader import Map, Reading

KEYWORDS = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "heart": r"\b(heart|cardiac|cardiomegaly)\b",
        "mediastinum": r"\bmediastin\w+\b",
        "hila": r"\bhil(um|a|ar)\b",
        "left upper lobe": r"\bleft (upper|ap(ex|ical))\b",
        "right upper lobe": r"\bright (upper|ap(ex|ical))\b",
        "left lower lobe": r"\bleft (lower|bas(e|al|ilar)|lung base)\b",
        "right lower lobe": r"\bright (lower|bas(e|al|ilar)|lung base)\b",
        "costophrenic angle": r"\bcostophrenic\b",
        "pleural effusion": r"\beffusions?\b",
        "pneumothorax": r"\bpneumothora(x|ces)\b",
    }.items()
}
_SIDE_PX = 56  # a quarter of the frame: mean maps are smooth


@dataclass
class MeanMap:
    """Sums behind a mean: of ``(56, 56)`` maps and of the images that they lie on."""

    maps: int = 0
    patients: set[str] = field(default_factory=set)
    map_sum: NDArray[Any] = field(default_factory=lambda: np.zeros((_SIDE_PX, _SIDE_PX)))
    image_sum: NDArray[Any] = field(default_factory=lambda: np.zeros((_SIDE_PX, _SIDE_PX)))

    def add(self, heatmap: Map, image: NDArray[Any], patient: str) -> None:
        """Count one map over its image, already small."""
        self.maps += 1
        self.patients.add(patient)
        self.map_sum += _small(heatmap)
        self.image_sum += image


class Means:
    """What is summed while readings pass by."""

    def __init__(self) -> None:
        self._means: dict[str, MeanMap] = defaultdict(MeanMap)
        self._passages: list[tuple[Any, ...]] = []

    def add(self, reading: Reading) -> None:
        """Take one reading: its whole map under its dataset, its sentences' under keywords."""
        image = _small(reading.image)
        if reading.heatmap is not None:
            self._means[reading.dataset].add(reading.heatmap, image, reading.subject_id)
        for one in reading.sentences:
            self._passages.append((reading.subject_id, one.gaze_seconds))
            if one.heatmap is None:
                continue
            for name, pattern in KEYWORDS.items():
                if pattern.search(one.text):
                    self._means[name].add(one.heatmap, image, reading.subject_id)

    def passages(self) -> pd.DataFrame:
        """Return a row a sentence, or word if the shards hold words."""
        return pd.DataFrame(self._passages, columns=["subject_id", "gaze_seconds"])

    def shown(self, least_patients: int) -> dict[str, MeanMap]:
        """Return the means over enough patients: datasets first, then keywords."""
        names = [*sorted(self._means.keys() - KEYWORDS.keys()), *KEYWORDS]
        return {
            name: self._means[name]
            for name in names
            if name in self._means and len(self._means[name].patients) >= least_patients
        }


def _small(values: Map) -> NDArray[Any]:
    return cv2.resize(values, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).astype(float)
