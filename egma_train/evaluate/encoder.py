"""A trained model as a function from frames and texts to unit vectors."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from numpy.typing import NDArray
from torch import Tensor

from egma_train.data.loading import pixels, tokenized
from egma_train.errors import BadUsageError
from egma_train.evaluate.images.ahead import read_ahead
from egma_train.evaluate.images.frames import Frame, is_nearly_one_grey
from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import Backbone

_BATCHES_AHEAD = 2
_TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer.

    Attributes
    ----------
    name, sha256 : str
        Of the checkpoint, for reports; the hash as `model_hash` makes it.
    facts : dict
        Objective, gaze fraction, seed, a hash of all else that the run began with, and what it was
        trained on, where there is a run's record.
    cautions : tuple of str
        What to know of the weights before believing figures.
    container : str
        What the weights were read from.
    keys : tuple of str
        What became of a foreign checkpoint's keys, in words.
    precision : dtype
        Of the towers; features are float32.
    """

    name: str
    sha256: str
    model: Backbone
    tokenizer: Any
    device: torch.device
    facts: dict[str, Any] = field(default_factory=dict)
    cautions: tuple[str, ...] = ()
    container: str = "safetensors"
    keys: tuple[str, ...] = ()
    precision: torch.dtype = torch.float32

    def said(self) -> list[str]:
        """Tell how many keys were taken, what lacks or is unknown, and what to be wary of."""
        odd = [one for one in self.keys[1:] if one.startswith(("  missing", "  unexpected"))]
        return [*self.keys[:1], *odd, *self.cautions]

    @property
    def preparation(self) -> tuple[Geometry, int]:
        """How image files are brought to the model's input, and its side in pixels."""
        return self.model.facts.geometry, self.model.facts.image_px

    @property
    def grid(self) -> int:
        """How many patches are in a row."""
        return self.model.facts.grid

    @property
    def scale(self) -> float:
        """What cosines are multiplied by before a softmax."""
        return self.model.logit_scale.exp().item()

    def each(
        self,
        ids: Sequence[str],
        paths: Sequence[Path | None],
        batch_size: int,
        unreadable: dict[int, str],
    ) -> Iterator["Seen"]:
        """Encode the images of some ids; tell in `unreadable` which could not be."""
        return encoded(self, paths, batch_size, unreadable)

    def told(self) -> dict[str, Any]:
        """Describe for a report."""
        cautions = {"cautions": list(self.cautions)} if self.cautions else {}
        system = {
            "family": self.model.family,
            "container": self.container,
            "scale": self.scale,
            "precision": str(self.precision).removeprefix("torch."),
            **self.model.facts.told(),
        }
        own = {"name": self.name, "sha256": self.sha256, "system": system}
        own |= {"keys": list(self.keys)} if self.keys else {}
        return {**own, **self.facts, **cautions}

    @torch.inference_mode()
    def texts(self, texts: Sequence[str], *, unit: bool = True) -> Tensor:
        """Encode texts, to be compared with pooled images: ``[t, d]``, of length 1 by default.

        All are padded to the longest of them, as MedCLIP pads the prompts of a class: where
        padding is averaged too, a text's feature depends on those that it comes with.
        """
        made = self._read(texts, self.model.texts)
        return self._unit(made) if unit else made

    @torch.inference_mode()
    def sentences(self, texts: Sequence[str]) -> Tensor:
        """Encode texts, to be compared with patches: ``[t, d]`` of length 1."""
        if getattr(type(self.model), "sentences", None) in (None, Backbone.sentences):
            return self.texts(texts)
        return self._unit(self._read(texts, self.model.sentences))

    @torch.inference_mode()
    def local_similarities(self, frames: NDArray[np.uint8], texts: Sequence[str]) -> Tensor:
        """Score ``(b, h, h)`` frames and texts as the system itself does locally: ``[b, t]``.

        Raises
        ------
        BadUsageError
            If it does no such thing.
        """
        own = getattr(self.model, "local_similarities", None)
        if own is None:
            raise BadUsageError(f"{self.name} is no GLoRIA; --score local is GLoRIA's")
        patches, _ = self._seen(frames)
        return self._read(texts, lambda ids, mask: own(patches, ids, mask).T).T.float()

    def _read(self, texts: Sequence[str], encode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        tokens = tokenized(self.tokenizer, texts, self.model.facts.max_tokens).to(self.device)
        ids, mask = (tokens[one].split(_TEXTS_AT_ONCE) for one in ("input_ids", "attention_mask"))
        with self._low():
            return torch.cat([encode(*own) for own in zip(ids, mask, strict=True)])

    def of_shards(
        self, frames: NDArray[np.uint8], sizes: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor, NDArray[np.float64]]:
        """Encode the shards' frames ``(b, 224, 224)`` of pictures of some sizes ``(b, 2)``.

        Returns
        -------
        tuple
            Pooled ``[b, d]`` and patches ``[b, n, d]`` of length 1, and the share of each frame's
            width and height that they cover, ``(b, 2)``.
        """
        geometry, _ = self.preparation
        shares = geometry.shares(sizes)
        if geometry.fit == "frame":
            return *self.images(frames), shares
        with torch.inference_mode():
            covered = torch.from_numpy(shares).float().to(self.device)
            patches, pooled = self._seen(frames, covered)
            return self._unit(pooled), self._unit(patches), shares

    @torch.inference_mode()
    def images(self, frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Encode ``(b, h, h)`` frames: pooled ``[b, d]``, patches ``[b, n, d]``, unit."""
        patches, pooled = self._seen(frames)
        return self._unit(pooled), self._unit(patches)

    def _seen(
        self, frames: NDArray[np.uint8], shares: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        with self._low():
            return self.model.images(self._pixels(frames, shares))

    def _low(self) -> torch.autocast:
        low = self.precision != torch.float32
        return torch.autocast(self.device.type, self.precision, enabled=low)

    def _pixels(self, frames: NDArray[np.uint8], shares: Tensor | None = None) -> Tensor:
        seen = self.model.facts
        stored = torch.from_numpy(frames).to(self.device)
        return pixels(stored, seen.image_px, seen.mean, seen.std, None, shares)

    def _unit(self, features: Tensor) -> Tensor:
        """Bring features to length 1; what has no length would be ranked like any other."""
        lengths = torch.linalg.vector_norm(features.float(), dim=-1)
        if not bool(((lengths > 0) & lengths.isfinite()).all()):
            raise BadUsageError(
                f"{self.name}: its features are zero or not finite; the weights are damaged"
            )
        return F.normalize(features.float(), dim=-1)


class Seen(NamedTuple):
    """Some encoded images.

    Attributes
    ----------
    numbers : list of int
        Which of the paths these are.
    blank : list of int
        Which of these have hardly any grey levels.
    pooled, patches : Tensor
        ``[b, d]`` and ``[b, n, d]``, of length 1.
    frames : ndarray
        ``(b, h, h)``, what was encoded.
    """

    numbers: list[int]
    blank: list[int]
    pooled: Tensor
    patches: Tensor
    frames: NDArray[np.uint8]


def encoded(
    encoder: Encoder, paths: Sequence[Path | None], batch_size: int, unreadable: dict[int, str]
) -> Iterator[Seen]:
    """Encode images while the next ones are read; tell in `unreadable` which could not be."""
    numbers: list[int] = []
    frames: list[Frame] = []

    def seen() -> Seen:
        blank = [i for i, one in zip(numbers, frames, strict=True) if is_nearly_one_grey(one)]
        whole = np.stack(frames)
        return Seen(numbers, blank, *encoder.images(whole), whole)

    ahead = _BATCHES_AHEAD * batch_size
    for number, frame in enumerate(read_ahead(paths, ahead, *encoder.preparation)):
        if isinstance(frame, str):
            unreadable[number] = frame
        else:
            numbers.append(number)
            frames.append(frame)
        if len(frames) == batch_size:
            yield seen()
            numbers, frames = [], []
    if frames:
        yield seen()
