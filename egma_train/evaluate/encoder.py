"""A trained model as a function from frames and texts to unit vectors."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from numpy.typing import NDArray
from torch import Tensor

from egma_train.data.loading import pixels, tokenized
from egma_train.errors import BadUsageError
from egma_train.evaluate.images.frames import Frame, is_nearly_one_grey, read_ahead
from egma_train.evaluate.reports import short_hash
from egma_train.geometry import Geometry
from egma_train.launch import usable_device
from egma_train.model.backbones.backbone import Backbone
from egma_train.model.backbones.registry import NAMES
from egma_train.model.egma import EgmaModel, is_own_model
from egma_train.model.published import files_of
from egma_train.model.weights import check_finite, folder_of_own, load_model, load_start
from egma_train.options import MEDCLIP_TEXT, ModelOptions, Options, with_changes

_BATCHES_AHEAD = 2
_TEXTS_AT_ONCE = 64
_MEDCLIP, _VECTORS = "medclip", "vectors"
_TOKENIZER_AND_SIZES = {".json", ".txt"}


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
        patches, _ = self.model.images(self._pixels(frames))
        return self._read(texts, lambda ids, mask: own(patches, ids, mask).T).T

    def _read(self, texts: Sequence[str], encode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        tokens = tokenized(self.tokenizer, texts, self.model.facts.max_tokens).to(self.device)
        parts = [
            encode(ids, mask)
            for ids, mask in zip(
                tokens["input_ids"].split(_TEXTS_AT_ONCE),
                tokens["attention_mask"].split(_TEXTS_AT_ONCE),
                strict=True,
            )
        ]
        return torch.cat(parts)

    def of_shards(
        self, frames: NDArray[np.uint8], sizes: NDArray[np.int64]
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Encode the shards' frames ``(b, 224, 224)`` of pictures of some sizes ``(b, 2)``.

        Returns
        -------
        tuple
            Patches ``[b, n, d]`` of length 1, and the share of each frame's width and height that
            they cover, ``(b, 2)``.
        """
        geometry, _ = self.preparation
        shares = geometry.shares(sizes)
        if geometry.fit == "frame":
            return self.images(frames)[1], shares
        with torch.inference_mode():
            seen = self._pixels(frames, torch.from_numpy(shares).float().to(self.device))
            return self._unit(self.model.images(seen)[0]), shares

    @torch.inference_mode()
    def images(self, frames: NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
        """Encode ``(b, h, h)`` frames: pooled ``[b, d]``, patches ``[b, n, d]``, unit."""
        patches, pooled = self.model.images(self._pixels(frames))
        return self._unit(pooled), self._unit(patches)

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


def load_encoder(
    checkpoint: str | Path, changes: Mapping[str, Any] = MappingProxyType({})
) -> Encoder:
    """Load a run folder, its ``model`` or ``start``, or weights that ``--init`` takes.

    Parameters
    ----------
    checkpoint : str or Path
        ``medclip=PLACE`` reads texts of the weights there as MedCLIP itself does,
        ``FAMILY=PLACE`` takes them for a system of that family, ``vectors=FOLDER`` looks features
        up in tables.
    changes : mapping
        Options by stage: the device, and for foreign weights the model's.

    Raises
    ------
    BadUsageError
        If it is no such thing, a run that is not finished, or weights that are not all there or
        not finite.
    """
    checkpoint = Path(checkpoint)
    named, given = _told_apart(checkpoint)
    if given == _VECTORS:
        from egma_train.evaluate.vectors import VectorEncoder  # which is an encoder

        return VectorEncoder(named)
    place = _model_folder(named)
    if place != named and not place.is_file() and not is_own_model(place):
        raise BadUsageError(f"the run in {named} is not finished; egma-train --resume")
    if not place.exists():
        raise BadUsageError(f"{named}: no such folder or file; name a run, a model or weights")
    options = with_changes(Options(), changes)
    if useless := [stage for stage in changes if stage not in ("model", "execution")]:
        raise BadUsageError(f"--set {useless[0]}.* is for training; it changes no figure")
    if is_own_model(place) and "model" in changes:
        raise BadUsageError(f"{named} brings its own options; leave out --set model.*")
    medclip = MEDCLIP_TEXT if given == _MEDCLIP else {}
    cautions: list[str] = []
    keys: list[str] = []
    container = "safetensors"
    if is_own_model(place):
        model, tokenizer = load_model(place)
        if medclip and not isinstance(model, EgmaModel):
            raise BadUsageError(f"{named} is a {model.family}, no MedCLIP with a Swin")
        if isinstance(model, EgmaModel) and medclip:
            model = _with_options(model, replace(model.options, **medclip))
    else:
        wanted = replace(options.model, **medclip)
        if "geometry" not in changes.get("model", {}):
            wanted = replace(wanted, geometry="own")
        place_of_family = f"{given}={place}" if given in NAMES else str(place)
        start = load_start([place_of_family], wanted)
        model, tokenizer = start.model, start.tokenizer
        container = start.source.container if start.source else "torch or safetensors"
        for report in start.reports:
            replace(report, part=str(named)).check_complete()
            cautions += report.cautions()
            keys += report.lines()
    check_finite(model, named)
    used = usable_device(options.execution.device)
    model.eval().to(used)
    digest = model_hash(checkpoint, changes)
    name, facts = checkpoint_name(checkpoint), _facts(checkpoint)
    return Encoder(
        name, digest, model, tokenizer, used, facts, tuple(cautions), container, tuple(keys)
    )


def model_hash(checkpoint: Path, changes: Mapping[str, Any]) -> str:
    """Hash all that shapes a model's features: weights, sizes, tokenizer, options.

    Parameters
    ----------
    checkpoint : Path
        As `load_encoder` takes it.
    changes : mapping
        Options by stage; only foreign weights take the model's.
    """
    checkpoint = Path(checkpoint)
    named, given = _told_apart(checkpoint)
    if given == _VECTORS:
        from egma_train.evaluate.vectors import hash_of

        return hash_of(named)
    place = _model_folder(named)
    if not place.exists():
        raise BadUsageError(f"{named}: no such folder or file; name a run, a model or weights")
    weights = files_of(place)
    options = {} if is_own_model(place) else dict(changes.get("model", {}))
    options |= MEDCLIP_TEXT if given == _MEDCLIP else {"family": given} if given else {}
    digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
    beside = (
        one
        for one in weights[0].parent.iterdir()
        if one.suffix in _TOKENIZER_AND_SIZES and one.is_file()
    )
    for path in sorted({*weights, *beside}):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


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


def checkpoint_name(checkpoint: Path) -> str:
    """Name a run by its folder, what it started from by its end, other weights by their own.

    What was named as a family's is that family's in the tables.
    """
    checkpoint = Path(checkpoint)
    named, given = _told_apart(checkpoint)
    if given in NAMES:
        return given
    place = _model_folder(named)
    own = place.name in ("model", "start") and (place.parent / "run.json").is_file()
    name = place.parent.resolve().name if own else place.resolve().name
    ending = "-untrained" if own and place.name == "start" else ""
    return name + ending + ("-as-medclip" if given == _MEDCLIP else "")


def _told_apart(checkpoint: Path) -> tuple[Path, str]:
    """Take the family, or the recipe ``medclip``, that stands before a checkpoint's place."""
    name, equals, place = str(checkpoint).partition("=")
    if equals and name in (_MEDCLIP, _VECTORS, *NAMES) and not checkpoint.exists():
        return Path(place), name
    return checkpoint, ""


def _with_options(model: EgmaModel, options: ModelOptions) -> EgmaModel:
    """Take something else of the same towers."""
    configs = model.vision_model.model.config, model.text_model.model.config
    other = EgmaModel(*configs, options)
    other.load_state_dict(model.state_dict())
    return other


def _model_folder(checkpoint: Path) -> Path:
    inside = checkpoint / "model" if (checkpoint / "run.json").is_file() else checkpoint
    return folder_of_own(inside)


def _facts(checkpoint: Path) -> dict[str, Any]:
    """Take from a run's record what tables tell runs apart by; MedCLIP's own weights have none."""
    checkpoint = Path(checkpoint)
    named, given = _told_apart(checkpoint)
    if given == _MEDCLIP:
        return {"objective": "untrained", "text": "as MedCLIP", "file": named.name}
    if given:
        return {"file": named.name}
    place = _model_folder(named)
    try:
        record = json.loads((place.parent / "run.json").read_text())
        options = record["options"]
        return {
            "objective": "untrained" if place.name == "start" else options["loss"]["objective"],
            "gaze_fraction": options["data"]["gaze_fraction"],
            "seed": options["train"]["seed"],
            "recipe": short_hash(
                {name: own for name, own in options.items() if name != "execution"}
                | {"train": options["train"] | {"seed": None}},
                [record[part] for part in ("preset", "started_from", "shards_fingerprint")],
            ),
            "splits": options["data"]["splits"],
            "shards": record["shards_fingerprint"],
        }
    except (OSError, ValueError, KeyError):
        return {}
