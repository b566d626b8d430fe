"""Sums over all readings, from one pass: mean images and maps, and the sentences' numbers."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egma_prep.gaze.mentions import BOTH, FINDING, Mention
from egma_prep.shards.reader import Map, Reading, Sentence
from egma_prep.sources.manifests import vocabulary

_SIDE_PX = 56  # a quarter of the frame: mean maps are smooth
_MOST_TOPICS = 32
SAID = ("affirmed", "doubted", "denied")


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
    """What is summed while readings pass by.

    Attributes
    ----------
    datasets : set of str
        Whose readings passed by.
    """

    def __init__(self) -> None:
        self._means: dict[str, MeanMap] = defaultdict(MeanMap)
        self.datasets: set[str] = set()
        self._said: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self._passages: list[tuple[Any, ...]] = []

    def add(self, reading: Reading) -> None:
        """Take one reading: its whole map under its dataset, its sentences' under their topics."""
        image = _small(reading.image)
        self.datasets.add(reading.dataset)
        if reading.heatmap is not None:
            self._means[reading.dataset].add(reading.heatmap, image, reading.subject_id)
        for one in reading.sentences:
            self._passages.append((reading.subject_id, one.gaze_seconds))
            mentions = _mentions(one)
            for name, how in {(m.name, _how(m)) for m in mentions if m.kind == FINDING}:
                self._said[name, how][reading.subject_id] += 1
            if one.heatmap is not None:
                for topic in topics(mentions):
                    self._means[topic].add(one.heatmap, image, reading.subject_id)

    def passages(self) -> pd.DataFrame:
        """Return a row a sentence, or word if the shards hold words."""
        return pd.DataFrame(self._passages, columns=["subject_id", "gaze_seconds"])

    def shown(self, least_patients: int) -> dict[str, MeanMap]:
        """Return the means over enough patients: datasets first, then the most frequent topics."""
        told = {
            name: mean
            for name, mean in sorted(self._means.items())
            if len(mean.patients) >= least_patients
        }
        about = sorted(told.keys() - self.datasets, key=lambda name: (-told[name].maps, name))
        return {
            name: told[name]
            for name in (*sorted(told.keys() & self.datasets), *about[:_MOST_TOPICS])
        }

    def said(self) -> dict[str, dict[str, Counter[str]]]:
        """Count by patient how many sentences affirm, doubt and deny each finding."""
        names = sorted({name for name, _ in self._said})
        return {name: {how: self._said[name, how] for how in SAID} for name in names}


def topics(mentions: Iterable[Mention]) -> set[str]:
    """Name what maps are averaged by: "left lower lung", "pneumothorax", "no pneumothorax"."""
    found = set()
    for one in mentions:
        if one.kind != FINDING:
            found.add(f"{one.side} {one.name}" if one.side not in (None, BOTH) else one.name)
        elif not one.uncertain:
            found.add(f"no {one.name}" if one.negated else one.name)
    return found


def _mentions(sentence: Sentence) -> list[Mention]:
    """Take what a shard tells; single words and shards of schema 1 tell nothing."""
    if sentence.mentions is None:
        return vocabulary().mentions(sentence.text)
    return [Mention(**one) for one in sentence.mentions]


def _how(mention: Mention) -> str:
    return "doubted" if mention.uncertain else "denied" if mention.negated else "affirmed"


def _small(values: Map) -> NDArray[Any]:
    return cv2.resize(values, (_SIDE_PX, _SIDE_PX), interpolation=cv2.INTER_AREA).astype(float)
