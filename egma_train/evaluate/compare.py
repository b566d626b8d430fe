"""Every image of a list with every text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.encoder import Encoder, encoded
from egma_train.evaluate.image_lists import ImageList
from egma_train.evaluate.metrics import Floats

SCORES = ("pooled", "best-patch")


class Compared(NamedTuple):
    """Images that could be read, their cosines ``(N, t)``, and what a report says of them."""

    images: ImageList
    cosines: Floats
    report: dict[str, Any]


def compare(
    images: ImageList,
    paths: Sequence[Path | None],
    texts: Tensor,
    encoder: Encoder,
    score: str,
    batch_size: int,
) -> Compared:
    """Compare images with texts ``[t, d]``, by the pooled feature or the most similar patch.

    Raises
    ------
    BadUsageError
        If no image can be read.
    """
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    unreadable: dict[int, str] = {}
    seen: list[int] = []
    parts = []
    for numbers, pooled, patches in encoded(encoder, paths, batch_size, unreadable):
        parts.append(pooled @ texts.T if score == "pooled" else (patches @ texts.T).amax(1))
        seen.extend(numbers)
    if not seen:
        raise BadUsageError(f"none of {len(images)} images can be read; {unreadable[0]}")
    kept = images.only(seen)
    report = {
        "list": {"name": images.name, "notes": list(images.notes), "given": images.told()},
        "evaluated": kept.told(),
        "unreadable": [{"id": images.ids[i], "reason": why} for i, why in unreadable.items()],
    }
    return Compared(kept, torch.cat(parts).double().cpu().numpy(), report)
