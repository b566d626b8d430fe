"""Findings that an image may have several of, each against its denial."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it

from egma_train.data.shards import find_shards, fingerprint
from egma_train.errors import BadUsageError
from egma_train.evaluate.compare import of_each
from egma_train.evaluate.datasets.image_lists import ImageList, patients
from egma_train.evaluate.datasets.label_tables import LabelTable
from egma_train.evaluate.datasets.prompts import Prompts
from egma_train.evaluate.datasets.shard_labels import labels_of_shards
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import as_frame, trained_on
from egma_train.evaluate.intervals import (
    Floats,
    Interval,
    Labels,
    auroc_interval,
    few_groups,
)
from egma_train.evaluate.readings import patient_of
from egma_train.evaluate.zero_shot import and_denied


def prompts_of(findings: Sequence[str], given: Prompts | None) -> Prompts:
    """Take two queries of each finding, under its name and ``no NAME``: CheXzero's by default.

    Raises
    ------
    BadUsageError
        If given prompts lack one.
    """
    if given is not None:
        return given.of([name for one in findings for name in (one, f"no {one}")])
    pairs = {one: and_denied(one) for one in findings}
    queries: dict[str, tuple[str, ...]] = {
        name: (text,)
        for one, (plain, denied) in pairs.items()
        for name, text in ((one, plain), (f"no {one}", denied))
    }
    return Prompts("each finding and its denial", queries)


def multi_label(
    table: LabelTable,
    paths: Sequence[Path | None],
    prompts: Prompts,
    encoder: Encoder,
    *,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Score each finding by its cosine above its denial's, and measure AUROC.

    Parameters
    ----------
    paths : sequence of Path or None
        Of the table's images, in order.
    prompts : Prompts
        As `prompts_of` makes them; of several texts the mean embedding is compared.

    Returns
    -------
    dict
        The report: AUROC of each finding and their mean, with intervals by patients; in ``rows``
        one an image.

    Raises
    ------
    BadUsageError
        If no image can be read, or none of those that can has a finding or has not.
    """
    listed = ImageList("images with labels", ("image",), table.ids, np.zeros(len(table.ids), int))
    vectors = _vectors(prompts, encoder)
    seen = of_each(listed, paths, encoder, batch_size, lambda one: one.pooled @ vectors.T)
    place = {one: i for i, one in enumerate(table.ids)}
    kept = table._replace(
        ids=seen.images.ids, truth=table.truth[[place[one] for one in seen.images.ids]]
    )
    return _report(kept, seen.values, patients(seen.images.ids), prompts, seen.report, seed)


def multi_label_of_shards(
    shards: Path,
    prompts: Prompts | None,
    encoder: Encoder,
    *,
    dataset: str = "chexpert",
    splits: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measure on the labels that came with readings, one reading of an image.

    Parameters
    ----------
    prompts : Prompts, optional
        As `prompts_of` takes them.
    dataset : str
        Whose labels: ``chexpert``, ``reflacx``.
    splits : sequence of str
        Which readings; by default all.

    Returns
    -------
    dict
        As `multi_label`, intervals by patients.

    Raises
    ------
    BadUsageError
        As `labels_of_shards`.
    """
    files = find_shards(shards)
    table, readings = labels_of_shards(files, splits, dataset)
    queries = prompts_of(table.findings, prompts)
    vectors = _vectors(queries, encoder)
    sizes = np.array([(one.width, one.height) for one in readings])
    frames = np.stack([as_frame(one.image) for one in readings])
    parts = [
        encoder.of_shards(frames[i : i + batch_size], sizes[i : i + batch_size])[0] @ vectors.T
        for i in range(0, len(frames), batch_size)
    ]
    values = torch.cat(parts).double().cpu().numpy()
    digest = fingerprint(files)
    listed = ImageList("labels of shards", ("image",), table.ids, np.zeros(len(table.ids), int))
    of = np.unique([patient_of(one) for one in readings], return_inverse=True)[1]
    facts = {
        "list": {"name": f"{dataset} in shards", "notes": [], "given": listed.told()},
        "evaluated": listed.told(),
        "unreadable": [],
        "shards": digest,
        "splits": list(splits) or "all",
        "trained_on": trained_on(encoder, digest, splits),
        "cautions": [],
    }
    return _report(table, values, of, queries, facts, seed)


def _vectors(prompts: Prompts, encoder: Encoder) -> torch.Tensor:
    """Embed each finding and its denial, in turn: ``[2 f, d]``."""
    return torch.cat(
        [F.normalize(encoder.texts(own).mean(0, keepdim=True)) for own in prompts.queries.values()]
    )


def _report(
    table: LabelTable,
    values: Floats,
    of: Labels,
    prompts: Prompts,
    facts: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Measure cosines ``(N, 2 f)`` of the table's images, whose patients are `of`."""
    truth, scores = table.truth, values[:, 0::2] - values[:, 1::2]
    each = {}
    for i, name in enumerate(table.findings):
        known = ~np.isnan(truth[:, i])
        positive = truth[known, i, None] == 1
        each[name] = auroc_interval(positive, scores[known, i, None], of[known])
    measured = {name: one for name, one in each.items() if one.value == one.value}
    if not measured:
        raise BadUsageError("no finding tells apart the images that can be read")
    mean = Interval(float(np.mean([one.value for one in measured.values()])), np.nan, np.nan)
    if not np.isnan(truth).any() and len(measured) == len(each):
        mean = auroc_interval(truth == 1, scores, of)
    rows = zip(table.ids, truth.tolist(), scores.tolist(), strict=True)
    # What is true decides the figures as the images do.
    lines = sorted(zip(table.ids, truth.tolist(), strict=True), key=lambda one: one[0])
    labels = hashlib.sha256(repr((table.findings, lines)).encode()).hexdigest()
    evaluated = facts["evaluated"] | {"counts": {}, "labels_sha256": labels}
    return {
        "task": "multi-label",
        "protocol": {"name": "pos-neg", "is": "cosine above the denial's (CheXzero)", "seed": seed},
        "prompts": prompts.told(),
        **facts,
        "evaluated": evaluated,
        "findings": {
            name: {"positive": int((own == 1).sum()), "negative": int((own == 0).sum())}
            for name, own in zip(table.findings, truth.T, strict=True)
        },
        "cautions": [
            *facts["cautions"],
            *table.notes,
            *few_groups(len(np.unique(of)), "patients"),
        ],
        "metrics": {
            "mean auroc": mean._asdict() | {"chance": 0.5},
            **{f"auroc {name}": one._asdict() for name, one in measured.items()},
        },
        "rows": [
            {"path": one}
            | {f"truth {name}": own[i] for i, name in enumerate(table.findings)}
            | {f"score {name}": values[i] for i, name in enumerate(table.findings)}
            for one, own, values in rows
        ],
    }
