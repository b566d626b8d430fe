"""Classify images by the most similar prompts (EGMA paper, IV-B and appendix D)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from torch import Tensor

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.encoder import Encoder, encoded, similarities
from egma_train.evaluate.image_lists import ImageList
from egma_train.evaluate.metrics import Floats, classification, confusion_matrix, recalls
from egma_train.evaluate.prompts import Prompts

PROTOCOLS = {
    "paper": "every prompt; the class of the most similar one",
    "mean": "every prompt; the class whose mean embedding is the most similar",
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
        Of the intervals, and of the prompts that ``official-code`` draws.

    Returns
    -------
    dict
        The report; ``predictions`` has a row an image.

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
    vectors = [encoder.texts(texts) for texts in used.queries.values()]
    if protocol == "mean":
        vectors = [F.normalize(own.mean(0, keepdim=True), dim=-1) for own in vectors]
    unreadable: dict[int, str] = {}
    seen: list[int] = []
    parts = []
    for batch in encoded(encoder, paths, batch_size, unreadable):
        parts.append(_best_of_each(similarities(batch, torch.cat(vectors), score), vectors))
        seen.extend(batch.numbers)
    if not seen:
        raise BadUsageError(f"none of {len(images)} images can be read; {unreadable[0]}")
    scores = torch.cat(parts).double().cpu().numpy()  # (N, classes)
    rest = images.only(seen)
    return {
        "task": "zero-shot",
        "protocol": {"name": protocol, "is": PROTOCOLS[protocol], "score": score, "seed": seed},
        "prompts": used.told(),
        "list": {"name": images.name, "notes": list(images.notes), "given": images.told()},
        "evaluated": rest.told(),
        "unreadable": [{"id": images.ids[i], "reason": why} for i, why in unreadable.items()],
        **_figures(rest, scores, encoder.scale, seed),
    }


def _best_of_each(similar: Tensor, vectors: list[Tensor]) -> Tensor:
    """Take each class's most similar prompt: ``[b, prompts]`` to ``[b, classes]``."""
    by_class = torch.split(similar, [len(own) for own in vectors], dim=1)
    return torch.stack([own.amax(1) for own in by_class], dim=1)


def _figures(images: ImageList, scores: Floats, scale: float, seed: int) -> dict[str, Any]:
    logits = scale * (scores - scores.max(1, keepdims=True))
    shares = np.exp(logits)
    shares /= shares.sum(1, keepdims=True)
    predicted = scores.argmax(1)
    counts = confusion_matrix(images.labels, predicted, len(images.classes))
    rows = zip(images.ids, images.labels, predicted, scores.tolist(), strict=True)
    return {
        "metrics": classification(images.labels, shares, predicted, seed),
        "recall": dict(zip(images.classes, recalls(counts).tolist(), strict=True)),
        "confusion": {"classes": list(images.classes), "rows_are_truth": counts.tolist()},
        "chance": 1 / len(images.classes),
        "predictions": [
            {"path": one, "label": images.classes[truth], "predicted": images.classes[guess]}
            | {f"score {name}": value for name, value in zip(images.classes, own, strict=True)}
            for one, truth, guess, own in rows
        ],
    }
