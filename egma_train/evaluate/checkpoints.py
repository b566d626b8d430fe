"""From what a user names to an encoder: a run, a model, weights of any family, or vectors."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from egma_train.errors import BadUsageError
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.reports import short_hash
from egma_train.evaluate.vectors import VectorEncoder, hash_of
from egma_train.launch import usable_device
from egma_train.model.backbones.registry import NAMES
from egma_train.model.egma import EgmaModel, is_own_model
from egma_train.model.published import files_of
from egma_train.model.weights import check_finite, folder_of_own, load_model, load_start
from egma_train.options import (
    MEDCLIP_TEXT,
    ExecutionOptions,
    ModelOptions,
    Options,
    with_changes,
)
from egma_train.train.numerics import precision_of

_MEDCLIP, _VECTORS = "medclip", "vectors"
_TOKENIZER_AND_SIZES = {".json", ".txt"}


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
        check_finite(model, named)
        if medclip and not isinstance(model, EgmaModel):
            raise BadUsageError(f"{named} is a {model.family}, no MedCLIP with a Swin")
        if isinstance(model, EgmaModel) and medclip:
            model = _with_options(model, replace(model.options, **medclip))
    else:
        # Published weights are fed as their authors did, a run of ours as it was trained.
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
    used, precision = _device_and_precision(options.execution)
    model.eval().to(used)
    digest = model_hash(checkpoint, changes)
    name, facts = checkpoint_name(checkpoint), _facts(checkpoint)
    own = (facts, tuple(cautions), container, tuple(keys), precision)
    return Encoder(name, digest, model, tokenizer, used, *own)


def model_hash(checkpoint: Path, changes: Mapping[str, Any]) -> str:
    """Hash all that shapes a model's features: weights, sizes, tokenizer, options, precision.

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
        return hash_of(named)
    place = _model_folder(named)
    if not place.exists():
        raise BadUsageError(f"{named}: no such folder or file; name a run, a model or weights")
    weights = files_of(place)
    options = {} if is_own_model(place) else dict(changes.get("model", {}))
    options |= MEDCLIP_TEXT if given == _MEDCLIP else {"family": given} if given else {}
    _, precision = _device_and_precision(with_changes(Options(), changes).execution)
    options |= {} if precision == torch.float32 else {"precision": str(precision)}
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


def _device_and_precision(execution: ExecutionOptions) -> tuple[torch.device, torch.dtype]:
    used = usable_device(execution.device)
    return used, precision_of(execution.precision, used)


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
            "held_out": options["data"].get("validation_split", ""),
            "shards": record["shards_fingerprint"],
        }
    except (OSError, ValueError, KeyError):
        return {}
