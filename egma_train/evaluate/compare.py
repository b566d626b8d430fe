"""Every image of a list, encoded or compared with every text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.encoder import Encoder, Seen
from egma_train.evaluate.intervals import Floats

SCORES = ("pooled", "best-patch", "local")


class Measured(NamedTuple):
    """Images that could be read, what was taken of each ``(N, ...)``, and what a report says."""

    images: ImageList
    values: Floats
    report: dict[str, Any]


def compare(
    images: ImageList,
    paths: Sequence[Path | None],
    texts: Tensor,
    encoder: Encoder,
    score: str,
    batch_size: int,
    said: Sequence[str] = (),
) -> Measured:
    """Take cosines ``(N, t)`` with texts ``[t, d]``, of the pooled feature or the best patch.

    GLoRIA's own score, ``local``, is the mean of the pooled cosine and of what words find among the
    patches; `said` are then the texts.
    """
    if score not in SCORES:
        raise unknown_name("score", score, SCORES)
    if score == "local" and len(said) != len(texts):
        raise BadUsageError("--score local compares single prompts; leave out --protocol mean")

    def cosines(seen: Seen) -> Tensor:
        if score == "best-patch":
            return (seen.patches @ texts.T).amax(1)
        pooled = seen.pooled @ texts.T
        if score == "local":
            return (pooled + encoder.local_similarities(seen.frames, said)) / 2
        return pooled

    return of_each(images, paths, encoder, batch_size, cosines)


def of_each(
    images: ImageList,
    paths: Sequence[Path | None],
    encoder: Encoder,
    batch_size: int,
    take: Callable[[Seen], Tensor],
) -> Measured:
    """Encode a list's images and keep what `take` makes of them.

    Raises
    ------
    BadUsageError
        If no image can be read.
    """
    unreadable: dict[int, str] = {}
    numbers: list[int] = []
    blank: list[int] = []
    parts = []
    for seen in encoder.each(images.ids, paths, batch_size, unreadable):
        numbers += seen.numbers
        blank += seen.blank
        parts.append(take(seen))
    if not parts:
        raise BadUsageError(f"none of {len(images)} images can be read; {unreadable[0]}")
    kept = images.only(numbers)
    report = {
        "list": {"name": images.name, "notes": list(images.notes), "given": images.told()},
        "evaluated": kept.told(),
        "unreadable": [{"id": images.ids[i], "reason": why} for i, why in unreadable.items()],
        "blank": [images.ids[i] for i in blank],
        "cautions": _blank(len(blank), len(numbers), *(images.ids[i] for i in blank[:1])),
    }
    return Measured(kept, torch.cat(parts).double().cpu().numpy(), report)


def _blank(n: int, of: int, *such: str) -> list[str]:
    """Say so where pictures of nothing count among the images."""
    what = "have hardly any grey levels (under 16, or nearly all within 32)"
    return [f"{n} of {of} images {what}, such as {such[0]}: look at them"] if n else []
