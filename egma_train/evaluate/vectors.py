"""Features of a system that nobody wrote a backbone for, read from tables instead of computed."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor

from egma_train.errors import BadUsageError, first_line
from egma_train.evaluate.encoder import Encoder, Seen
from egma_train.evaluate.reports import short_hash

IMAGES, TEXTS = "images.parquet", "texts.parquet"
_SCALE = "egma.logit_scale"
_CLIP_SCALE = 1 / 0.07


class VectorEncoder(Encoder):
    """Stands where a model does: images by the ids of a list, texts word for word.

    Parameters
    ----------
    folder : Path
        ``images.parquet`` with the columns ``id`` (as in the dataset's list) and ``vector``,
        ``texts.parquet`` with ``text`` and ``vector``; numbers of one length. What cosines are
        multiplied with may stand in the metadata of either, ``egma.logit_scale``, as it is.

    Raises
    ------
    BadUsageError
        If one is missing, or its vectors differ in length or have none.
    """

    def __init__(self, folder: Path) -> None:
        images, scale = _read(folder / IMAGES, "id")
        texts, other_scale = _read(folder / TEXTS, "text")
        lengths = {len(one) for part in (images, texts) for one in part.values()}
        if len(lengths) != 1:
            raise BadUsageError(f"vectors in {folder} differ in length: {sorted(lengths)[:3]}")
        caution = "" if scale or other_scale else f"no {_SCALE} in the tables; 1/0.07 is taken"
        super().__init__(
            folder.resolve().name, hash_of(folder), None, None, torch.device("cpu"),  # type: ignore[arg-type]
            cautions=(caution,) if caution else (),
        )  # fmt: skip
        self.__dict__ |= {"_images": images, "_texts": texts}
        self.__dict__["_scale"] = scale or other_scale or _CLIP_SCALE

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax."""
        return float(self.__dict__["_scale"])

    def told(self) -> dict[str, Any]:
        """Describe for a report."""
        system = {"family": "vectors", "container": "Parquet", "scale": self.scale}
        cautions = {"cautions": list(self.cautions)} if self.cautions else {}
        return {"name": self.name, "sha256": self.sha256, "system": system, **cautions}

    def texts(self, texts: Sequence[str], *, unit: bool = True) -> Tensor:
        """Look texts up: ``[t, d]``."""
        known: dict[str, NDArray[np.float32]] = self.__dict__["_texts"]
        if lacking := [text for text in texts if text not in known]:
            raise BadUsageError(
                f"{self.name}: {TEXTS} has no vector of {lacking[0]!r:.80}"
                f" ({len(lacking)} of {len(texts)} texts); egma-eval prompts prints them all"
            )
        found = torch.from_numpy(np.stack([known[text] for text in texts]))
        return self._unit(found) if unit else found

    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Refuse what asks for patches.

        Raises
        ------
        BadUsageError
            Always.
        """
        raise BadUsageError(f"{self.name}: vectors have no patches; take --score pooled")

    @property
    def grid(self) -> int:
        """Refuse what asks for patches."""
        raise BadUsageError(f"{self.name}: vectors have no patches, so they point nowhere")

    def each(
        self,
        ids: Sequence[str],
        paths: Sequence[Path | None],
        batch_size: int,
        unreadable: dict[int, str],
    ) -> Iterator[Seen]:
        """Look images up by their ids; no file is read."""
        known: dict[str, NDArray[np.float32]] = self.__dict__["_images"]
        unreadable |= {i: f"no vector in {IMAGES}" for i, one in enumerate(ids) if one not in known}
        numbers = [i for i in range(len(ids)) if i not in unreadable]
        for first in range(0, len(numbers), batch_size):
            own = numbers[first : first + batch_size]
            pooled = self._unit(torch.from_numpy(np.stack([known[ids[i]] for i in own])))
            # No picture was seen, so none can be told to be blank.
            none = np.zeros((len(own), 0, 0), np.uint8)
            yield Seen(own, [], pooled, pooled[:, None], none)


def hash_of(folder: Path) -> str:
    """Hash both tables."""
    parts = []
    for name in (IMAGES, TEXTS):
        try:
            with (folder / name).open("rb") as file:
                parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise BadUsageError(f"{folder / name}: {error.strerror}") from None
    return hashlib.sha256(short_hash(*parts).encode()).hexdigest()


def _read(path: Path, key: str) -> tuple[dict[str, NDArray[np.float32]], float]:
    """Read a table's vectors by its key, and the scale in its metadata, 0 where there is none."""
    try:
        table = pq.read_table(path, columns=[key, "vector"])
        names = [str(one) for one in table[key].to_pylist()]
        vectors = [np.asarray(one, np.float32) for one in table["vector"].to_pylist()]
        stored = (table.schema.metadata or {}).get(_SCALE.encode())
        scale = float(stored) if stored is not None else 0.0
        if stored is not None and not 0 < scale < math.inf:
            raise ValueError(f"{_SCALE} is {scale}, and has to be above 0")
        if table[key].null_count:
            raise ValueError(f"a blank {key}")
    except Exception as error:  # pyarrow has its own for what is damaged or no column
        raise BadUsageError(
            f"{path} holds no vectors ({first_line(error)}); it needs the columns {key} and vector"
        ) from None
    if not names or any(one.ndim != 1 or not np.isfinite(one).all() for one in vectors):
        raise BadUsageError(f"{path}: every row needs a vector of finite numbers")
    if len(set(names)) < len(names):
        twice = next(one for one in names if names.count(one) > 1)
        raise BadUsageError(f"{path} has two rows of {twice!r:.80}; keep one")
    return dict(zip(names, vectors, strict=True)), scale
