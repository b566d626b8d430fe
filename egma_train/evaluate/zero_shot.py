"""Classify images by the most similar prompts (EGMA paper, IV-B and appendix D)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it

from egma_train.errors import unknown_name
from egma_train.evaluate.compare import compare
from egma_train.evaluate.datasets.image_lists import ImageList, patients
from egma_train.evaluate.datasets.prompts import Prompts
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.intervals import Floats, few_groups
from egma_train.evaluate.metrics import (
    accuracy,
    balanced_accuracy,
    cautions,
    classification,
    confusion_matrix,
    macro_f1,
    recalls,
)

PROTOCOLS = {
    "paper": "every prompt; the class of the most similar one",
    "mean": "every prompt; the class whose mean embedding is the most similar",
    "mean-of-cosines": "every prompt; the class with the largest mean cosine (CXR-CLIP, MedCLIP)",
    "gloria-z": "every prompt; the class whose largest cosine is the most above its mean over all"
    " images of the test, in deviations: what an image gets depends on the others (GLoRIA)",
    "biovil": "every prompt; the class whose mean embedding, taken before any has length 1, is the"
    " most similar (BioViL)",
    "pos-neg": "the class whose name is the most similar above its denial (CheXzero)",
    "official-code": "at most 50 prompts of each class, drawn; the class of the most similar one",
}


def zero_shot(
    images: ImageList,
    paths: Sequence[Path | None],
    prompts: Prompts,
    encoder: Encoder,
    *,
    protocol: str = "paper",
    score: str = "pooled",
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Classify and measure.

    Parameters
    ----------
    paths : sequence of Path or None
        Of the images, in order; None where there is no file.
    prompts : Prompts
        With at least the images' classes, in any order.
    protocol : str
        One of `PROTOCOLS`.
    score : {"pooled", "best-patch"}
        What of an image is compared.
    seed : int
        Of the prompts that ``official-code`` draws.

    Returns
    -------
    dict
        The report; ``rows`` has one an image.

    Raises
    ------
    BadUsageError
        If no image can be read or a class has no prompts.
    """
    if protocol not in PROTOCOLS:
        raise unknown_name("protocol", protocol, PROTOCOLS)
    used = prompts.of(images.classes)
    if protocol == "official-code":
        used = used.sampled(seed)
    if protocol == "pos-neg":
        used = Prompts("each class and its denial", {one: and_denied(one) for one in used.queries})
    encode = encoder.sentences if score == "best-patch" else encoder.texts
    if protocol == "biovil":
        encode = partial(encoder.texts, unit=False)
    vectors = [encode(texts) for texts in used.queries.values()]
    if protocol in ("mean", "biovil"):
        vectors = [F.normalize(own.mean(0, keepdim=True), dim=-1) for own in vectors]
    said = [text for own in used.queries.values() for text in own]
    seen = compare(images, paths, torch.cat(vectors), encoder, score, batch_size, said)
    scores = class_scores(seen.values, [*map(len, vectors)], protocol)
    scale = 1.0 if protocol == "gloria-z" else encoder.scale  # deviations are no cosines
    figures = classification_figures(seen.images, scores, scale)
    return {
        "task": "zero-shot",
        "protocol": {"name": protocol, "is": PROTOCOLS[protocol], "score": score, "seed": seed},
        "prompts": used.told(),
        **seen.report,
        **figures,
        "cautions": seen.report["cautions"] + figures["cautions"],
    }


def class_scores(cosines: Floats, counts: Sequence[int], protocol: str) -> Floats:
    """Make one score a class ``(N, classes)`` of cosines with all prompts ``(N, t)``.

    Parameters
    ----------
    counts : sequence of int
        How many prompts each class has, in the order of the columns.
    """
    starts = np.cumsum([0, *counts[:-1]])
    if protocol == "pos-neg":
        return cosines[:, 0::2] - cosines[:, 1::2]
    if protocol == "mean-of-cosines":
        return np.add.reduceat(cosines, starts, axis=1) / np.array(counts)
    best = np.maximum.reduceat(cosines, starts, axis=1)
    if protocol == "gloria-z" and len(best) > 1:  # GLoRIA leaves a single image as it is
        spread = best.std(0)
        return (best - best.mean(0)) / np.where(spread > 0, spread, 1)
    return best


def and_denied(name: str) -> tuple[str, str]:
    """Write CheXzero's two prompts of a finding; of a class that denies, the other way round."""
    plain = name.lower()
    return (plain, plain[3:]) if plain.startswith("no ") else (plain, f"no {plain}")


def log_shares(logits: Floats) -> Floats:
    """Take the logarithm of the softmax of ``(N, classes)``, exact where a share is all but 1."""
    below = logits - logits.max(1, keepdims=True)
    best = np.zeros_like(below)
    np.put_along_axis(best, below.argmax(1)[:, None], 1, axis=1)
    return below - np.log1p((np.exp(below) * (1 - best)).sum(1, keepdims=True))


def classification_figures(images: ImageList, scores: Floats, scale: float) -> dict[str, Any]:
    """Make what a report says of scores ``(N, classes)``; shares are the softmax of scaled ones."""
    by_name = np.argsort(images.classes)  # so that no order of the prompts breaks a tie
    predicted = by_name[scores[:, by_name].argmax(1)]
    counts = confusion_matrix(images.labels, predicted, len(images.classes))
    rows = zip(images.ids, images.labels, predicted, scores.tolist(), strict=True)
    of = patients(images.ids)
    grouped = len(np.unique(of)) < len(images)
    return {
        "logit_scale": scale,
        "metrics": classification(images.labels, log_shares(scale * scores), predicted, of),
        "cautions": [
            *cautions(counts, images.classes),
            *(few_groups(len(np.unique(of)), "patients") if grouped else []),
        ],
        "recall": dict(zip(images.classes, recalls(counts).tolist(), strict=True)),
        "confusion": {"classes": list(images.classes), "rows_are_truth": counts.tolist()},
        "chance": 1 / len(images.classes),
        "majority": majority(images.told()["counts"]),
        "rows": [
            {"path": one, "label": images.classes[truth], "predicted": images.classes[guess]}
            | {f"score {name}": value for name, value in zip(images.classes, own, strict=True)}
            for one, truth, guess, own in rows
        ],
    }


def majority(counts: Mapping[str, int]) -> dict[str, Any]:
    """Say what always answering the most frequent class would get."""
    sizes = np.array([*counts.values()])
    answers = np.zeros((len(sizes), len(sizes)), np.int64)
    answers[:, sizes.argmax()] = sizes
    return {
        "class": [*counts][sizes.argmax()],
        "accuracy": accuracy(answers),
        "macro_f1": float(macro_f1(answers)),
        "balanced_accuracy": float(balanced_accuracy(answers)),
    }
