"""Find each held-out image's own report among all, and the other way round."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from numpy.typing import NDArray
from torch import Tensor

from egma_train.data.shards import ShardReading, find_shards, fingerprint
from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import as_frame, trained_on
from egma_train.evaluate.intervals import Floats, bounded_mean, few_groups
from egma_train.evaluate.readings import patient_of, readings_of
from egma_train.losses import fine_grained_scores

RECALLS = (1, 5, 10)
WAYS = ("image-to-text", "text-to-image")
SCORES = {
    "pooled": "cosine of the pooled image and the mean of the report's sentences (CLIP)",
    "matches": "means of the best matches of patches and sentences (the EGMA paper's Eq. 6)",
}
_IMAGES_AT_ONCE = 64


def report_retrieval(
    shards: Path,
    encoder: Encoder,
    *,
    splits: Sequence[str] = (),
    score: str = "pooled",
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Rank all reports for each image and all images for each report; one reading of an image.

    Parameters
    ----------
    splits : sequence of str
        Which readings; by default all.
    score : str
        One of `SCORES`.

    Returns
    -------
    dict
        The report: Recall@1, @5, @10 with intervals by patients and their chance, the median rank;
        in ``rows`` one a reading.

    Raises
    ------
    BadUsageError
        If a split has no reading, or fewer than two are left.
    """
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    files = find_shards(shards)
    readings = _one_of_each_image(files, splits)
    if len(readings) < 2:
        raise BadUsageError(f"{len(readings)} images in {shards}: there is nothing to rank")
    image_to_text, text_to_image = _scores(readings, encoder, score, batch_size)
    reports = [" ".join(" ".join(one.texts).casefold().split()) for one in readings]
    said = np.unique(reports, return_inverse=True)[1]
    same = said[:, None] == said  # a report of the same words is as right
    ranks = {
        "image-to-text": ranks_of_right(image_to_text, same),
        "text-to-image": ranks_of_right(text_to_image, same),
    }
    of = np.unique([patient_of(one) for one in readings], return_inverse=True)[1]
    n_patients = len(np.unique(of))
    digest = fingerprint(files)
    protocol = {"score": score, "is": SCORES[score], "splits": list(splits) or "all", "seed": seed}
    return {
        "task": "report-retrieval",
        "protocol": protocol | {"geometry": encoder.preparation[0].told()},
        "shards": digest,
        "images": len(readings),
        "different_reports": len(np.unique(said)),
        "patients": n_patients,
        "trained_on": trained_on(encoder, digest, splits),
        "cautions": few_groups(n_patients, "patients"),
        "metrics": {
            f"{way} recall@{k}": {
                **bounded_mean((ranks[way] <= k).astype(np.float64), of)._asdict(),
                "chance": chance(same, k),
            }
            for way in WAYS
            for k in RECALLS
        },
        "median_rank": {way: float(np.median(ranks[way])) for way in WAYS},
        "rows": [
            {"dataset": one.dataset, "reading_id": one.reading_id, "subject_id": patient_of(one)}
            | {f"{way} rank": int(ranks[way][i]) for way in WAYS}
            for i, one in enumerate(readings)
        ],
    }


def ranks_of_right(scores: Floats, right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank each query's best right candidate among the wrong ones, from 1.

    Parameters
    ----------
    scores, right : ndarray
        ``(queries, candidates)``. A wrong candidate of the same score stands before it: what tells
        nothing apart finds nothing.
    """
    best = np.where(right, scores, -np.inf).max(1, keepdims=True)
    return 1 + (~right & (scores >= best)).sum(1)


def chance(right: NDArray[np.bool_], k: int) -> float:
    """Expect so much of a random order: a right candidate among the first k."""
    n, wrong = right.shape[1], (~right).sum(1).astype(np.float64)
    none = np.ones(len(right))
    for drawn in range(min(k, n)):
        none *= np.maximum(wrong - drawn, 0) / (n - drawn)
    return float(1 - none.mean())


def _one_of_each_image(files: Sequence[Path], splits: Sequence[str]) -> list[ShardReading]:
    """Take the first reading of each image, without its maps."""
    kept: dict[str, ShardReading] = {}
    for reading in readings_of(files, splits):
        if reading.texts:
            kept.setdefault(reading.dicom_id, reading)
    return list(kept.values())


def _scores(
    readings: Sequence[ShardReading], encoder: Encoder, score: str, batch_size: int
) -> tuple[Floats, Floats]:
    """Score images ``(N, N)`` against reports, and reports against images."""
    images, texts = zip(*_encoded(readings, encoder, score, batch_size), strict=True)
    if score == "pooled":
        cosines = (torch.cat(images) @ torch.stack(_flat(texts)).T).double().numpy()
        return cosines, cosines.T
    sentences = torch.nn.utils.rnn.pad_sequence(_flat(texts), batch_first=True)
    lengths = torch.tensor([len(one) for one in _flat(texts)])
    mask = torch.arange(sentences.shape[1]) < lengths[:, None]
    found = [
        fine_grained_scores(some, sentences, mask)
        for some in torch.cat(images).split(_IMAGES_AT_ONCE)
    ]
    image_to_text = torch.cat([forth for forth, _ in found])
    text_to_image = torch.cat([back for _, back in found], 1)
    return image_to_text.double().numpy(), text_to_image.double().numpy()


def _flat(batches: Sequence[list[Tensor]]) -> list[Tensor]:
    return [one for own in batches for one in own]


def _encoded(
    readings: Sequence[ShardReading], encoder: Encoder, score: str, batch_size: int
) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Give images, pooled or as patches, and each report's feature or its sentences'."""
    rest = iter(readings)
    while batch := list(islice(rest, batch_size)):
        frames = np.stack([as_frame(one.image) for one in batch])
        sizes = np.array([(one.width, one.height) for one in batch])
        pooled, patches, _ = encoder.of_shards(frames, sizes)
        every = [text for one in batch for text in one.texts]
        counts = [len(one.texts) for one in batch]
        if score == "pooled":
            parts = encoder.texts(every, unit=False).float().cpu().split(counts)
            yield pooled.cpu(), [F.normalize(own.mean(0), dim=0) for own in parts]
        else:
            yield patches.cpu(), list(encoder.sentences(every).cpu().split(counts))
