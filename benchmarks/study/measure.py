"""Measure a trained model on phantoms that it has not seen."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import normalize

from benchmarks.study.phantoms import CLASSES, NAMED, Readings
from benchmarks.study.training import Encoder

SCORES = ("pooled", "best_patch")
ESCAPED = 0.8
"""A seed escaped the shortcut if its better score names this share of findings with it broken."""


@torch.no_grad()
def measure(model: Encoder, readings: Readings) -> dict[str, float]:
    """Measure zero-shot on the images of one finding, grounding on every sentence of a finding."""
    model.eval()
    parts = torch.split(torch.from_numpy(readings.images), 256)
    raw = torch.cat([model.patches(part) for part in parts])
    patches, pooled = normalize(raw, dim=-1), normalize(raw.mean(1), dim=-1)
    sentences = normalize(model.sentences(), dim=-1)
    single = readings.findings.sum(1) == 1
    truth = readings.findings[single].argmax(1)
    scores = pooled @ sentences.T, (patches @ sentences.T).amax(1)
    result = {
        name: zero_shot(score.numpy()[single], truth)
        for name, score in zip(SCORES, scores, strict=True)
    }
    image, sentence = np.nonzero(readings.truth.any(-1))
    numbers = readings.sentences[image, sentence]
    truth = readings.truth[image, sentence]
    shown = patches[torch.from_numpy(image)]
    for control, said in {"": numbers, "swapped_": swapped(numbers)}.items():
        similarity = (shown @ sentences[torch.from_numpy(said)][..., None])[..., 0].numpy()
        result |= {f"{control}{name}": one for name, one in grounding(similarity, truth).items()}
    prior = (truth.sum(0) - truth) / (len(truth) - 1)  # of all other sentences, blind to the image
    return result | {f"prior_{name}": one for name, one in grounding(prior, truth).items()}


def swapped(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give each sentence the next one, in the order of the test, that names another finding."""
    classes = NAMED[numbers]
    found = numbers.copy()
    for at in range(len(numbers)):
        step = next(k for k in range(1, len(numbers)) if classes[at - k] != classes[at])
        found[at] = numbers[at - step]
    return found


def zero_shot(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> float:
    """Share of images whose class has the highest mean score over its prompts.

    Parameters
    ----------
    scores : ndarray
        ``[k, t]`` of images against all sentences.
    truth : ndarray
        ``[k]`` classes.
    """
    means = np.stack([scores[:, c == NAMED].mean(1) for c in range(len(CLASSES))], 1)
    return float((means.argmax(1) == truth).mean())


def grounding(similarity: NDArray[np.floating], truth: NDArray[np.bool_]) -> dict[str, float]:
    """Compare maps ``[s, 49]`` with true patches: hits of the highest, and mean area under ROC."""
    hits = truth[np.arange(len(truth)), similarity.argmax(1)]
    ahead = similarity[:, :, None] - similarity[:, None, :]  # (s, true patch, other patch)
    pairs = truth[:, :, None] & ~truth[:, None, :]
    wins = ((ahead > 0) + 0.5 * (ahead == 0)) * pairs
    return {
        "pointing": float(hits.mean()),
        "patch_auc": float((wins.sum((1, 2)) / pairs.sum((1, 2))).mean()),
    }


def escaped(broken: dict[str, float]) -> bool:
    """Tell whether a seed escaped the shortcut."""
    return max(broken[score] for score in SCORES) >= ESCAPED
