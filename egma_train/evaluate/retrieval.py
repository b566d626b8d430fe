"""Rank texts by image and images by text (EGMA paper, IV-B; CheXpert 8x200)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egma_train.evaluate.compare import compare
from egma_train.evaluate.datasets.image_lists import ImageList, patients
from egma_train.evaluate.datasets.prompts import Prompts
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.intervals import Floats, Labels, bounded_mean, few_groups

RANKS = (1, 5, 10)


def precision_at(similar: Floats, relevant: NDArray[np.bool_], k: int) -> Floats:
    """Share of each query's k most similar candidates that are relevant.

    Parameters
    ----------
    similar, relevant : ndarray
        ``(queries, candidates)``; of equal candidates the earlier one comes first.

    Returns
    -------
    ndarray
        ``(queries,)``.
    """
    best = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(relevant, best, axis=1).sum(1) / k


def retrieval(
    images: ImageList,
    paths: Sequence[Path | None],
    prompts: Prompts,
    encoder: Encoder,
    *,
    score: str = "pooled",
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measure P@1, P@5 and P@10 both ways; a candidate of the query's class is relevant.

    Parameters
    ----------
    paths, prompts, score, seed, batch_size
        As `egma_train.evaluate.zero_shot.zero_shot` takes them.

    Returns
    -------
    dict
        The report; beside each figure its chance and its ceiling, in ``rows`` one a query.
    """
    used = prompts.of(images.classes)
    texts = [text for own in used.queries.values() for text in own]
    said = np.repeat(np.arange(len(used.queries)), [len(own) for own in used.queries.values()])
    encode = encoder.sentences if score == "best-patch" else encoder.texts
    seen = compare(images, paths, encode(texts), encoder, score, batch_size, texts)
    relevant = seen.images.labels[:, None] == said  # (N, t)
    ways = {
        "image-to-text": (seen.images.ids, seen.values, relevant),
        "text-to-image": (texts, seen.values.T, relevant.T),
    }
    found = {
        way: {f"P@{k}": precision_at(similar, right, k) for k in RANKS}
        for way, (_, similar, right) in ways.items()
    }
    of = patients(seen.images.ids)
    groups = {"image-to-text": of, "text-to-image": None}
    n_patients = len(np.unique(of))
    return {
        "task": "retrieval",
        "protocol": {"score": score, "seed": seed},
        "prompts": used.told(),
        **seen.report,
        "cautions": seen.report["cautions"]
        + few_groups(n_patients, "patients" if n_patients < len(seen.images) else "images"),
        "metrics": {
            f"{way} P@{k}": _figure(found[way][f"P@{k}"], right, k, groups[way])
            for way, (_, _, right) in ways.items()
            for k in RANKS
        },
        "rows": [
            {"way": way, "query": query} | {name: own[i] for name, own in found[way].items()}
            for way, (queries, _, _) in ways.items()
            for i, query in enumerate(queries)
        ],
    }


def _figure(
    precision: Floats, relevant: NDArray[np.bool_], k: int, groups: Labels | None
) -> dict[str, float]:
    """Say a precision at k, what a random order is expected to reach, and what none exceeds."""
    chance = float(relevant.mean() * min(k, relevant.shape[1]) / k)
    # No query does better than its candidates allow, so that is where "all right" lies.
    ceiling = float(np.minimum(relevant.sum(1), k).mean() / k)
    known = bounded_mean(precision, groups, ceiling)._asdict()
    return {**known, "chance": chance, "ceiling": ceiling}
