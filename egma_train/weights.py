"""Pretrained weights for the towers: MedCLIP or EGMA checkpoints, Hugging Face folders, hub names.

Every key that is missing, unexpected or left out is reported; a tower of which more than 2 % is
missing is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer, BertConfig, BertModel, SwinConfig, SwinModel

from egma_train.errors import BadUsageError, first_line
from egma_train.key_names import as_in_model
from egma_train.model import EgmaModel, is_own_model, new_configs
from egma_train.options import ModelOptions

SWIN_NAME = "microsoft/swin-tiny-patch4-window7-224"
BERT_NAME = "emilyalsentzer/Bio_ClinicalBERT"
RANDOM = "random"

_FILES = ("model.safetensors", "pytorch_model.bin")
_MOST_MISSING = 0.02
_LEFT_OUT = re.compile(
    r"(\.position_ids|\.token_type_ids|relative_position_index)$"  # buffers, made anew
    r"|^word_local_atten_layer\.|\.projection_head[12]\."  # of the published code, unused
    r"|\.pooler\.|^text_model\.model\.cls\.|num_batches_tracked$"
)
_BERT_LAYER = re.compile(r"^text_model\.model\.encoder\.layer\.(\d+)\.")

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class KeyReport:
    """What became of a checkpoint's keys.

    Attributes
    ----------
    missing, unexpected, left_out : list of str
        Not in the checkpoint; not in the model; known to be needless.
    missing_share : float
        Of the part's numbers, or of its tensors if that is more.
    """

    part: str
    missing: list[str]
    unexpected: list[str]
    left_out: list[str]
    missing_share: float

    def lines(self) -> list[str]:
        """Tell in words, every key by name."""
        told = {"missing": self.missing, "unexpected": self.unexpected, "left out": self.left_out}
        head = ", ".join(f"{len(keys)} {kind}" for kind, keys in told.items())
        return [f"{self.part}: {head}"] + [
            f"  {kind}: {key}" for kind, keys in told.items() for key in keys
        ]

    def check(self) -> None:
        """Refuse a checkpoint that fills too little."""
        if self.missing_share > _MOST_MISSING:
            raise BadUsageError(
                f"{self.part}: {self.missing_share:.0%} of the tower is missing, such as"
                f" {self.missing[0]}; is this checkpoint of Swin-T and BERT?"
            )


@dataclass(frozen=True)
class Start:
    """What training starts from."""

    model: EgmaModel
    tokenizer: Any
    reports: list[KeyReport]


def load_start(sources: Iterable[str], options: ModelOptions) -> Start:
    """Build a model from ``--init`` values.

    Parameters
    ----------
    sources : iterable of str
        A folder of a MedCLIP, published-EGMA or own model; ``vision=`` and ``text=`` with a
        Hugging Face folder or hub name for one tower. Towers override the folder's.
    options : ModelOptions
        Of the model.

    Raises
    ------
    BadUsageError
        If something is not found, or more than 2 % of a tower is missing.
    """
    whole, towers = _told_apart(sources)
    if whole and is_own_model(whole) and not towers:  # it brings its own sizes
        model = EgmaModel.from_pretrained(whole)
        report = KeyReport("checkpoint", [], [], [], 0.0)
        return Start(model, _tokenizer(None, whole), [report])
    stored = _read_state(whole) if whole else {}
    vision, text = towers.get("vision"), towers.get("text")
    tokenizer = _tokenizer(text, whole)
    if not whole and not (vision and text):
        raise BadUsageError("--init needs a folder, or both vision=... and text=...")
    swin, bert = _configs(stored, vision, text, len(tokenizer), options)
    if options.text_layers:
        bert.num_hidden_layers = min(bert.num_hidden_layers, options.text_layers)
    model = EgmaModel(swin, bert, options)
    reports = [_fill(model, stored, "checkpoint")] if whole else []
    for part, name, kind in (("vision", vision, SwinModel), ("text", text, BertModel)):
        if name:
            reports.append(_fill_tower(model, part, name, kind))
    for report in reports:
        report.check()
    model.clamp_scale()
    return Start(model, tokenizer, reports)


def cached_hub_weights() -> list[str] | None:
    """Name the towers of the paper as ``--init`` values if the local hub cache holds both."""
    from huggingface_hub import try_to_load_from_cache

    for name in (SWIN_NAME, BERT_NAME):
        found = (try_to_load_from_cache(name, file) for file in _FILES)
        if not any(isinstance(path, str) for path in found):
            return None
    return [f"vision={SWIN_NAME}", f"text={BERT_NAME}"]


def weights_file(folder: Path) -> Path | None:
    """Find a folder's weights."""
    return next((folder / name for name in _FILES if (folder / name).is_file()), None)


def _told_apart(sources: Iterable[str]) -> tuple[Path | None, dict[str, str]]:
    whole: list[Path] = []
    towers: dict[str, str] = {}
    for source in sources:
        part, equals, name = source.partition("=")
        if equals and part in ("vision", "text"):
            towers[part] = name
        elif Path(source).is_dir():
            whole.append(Path(source))
        else:
            raise BadUsageError(
                f"--init {source}: no such folder; for one tower write vision=NAME or text=NAME"
            )
    if len(whole) > 1:
        raise BadUsageError(f"--init names two folders, {whole[0]} and {whole[1]}; give one")
    return (whole[0] if whole else None), towers


def _read_state(folder: Path) -> State:
    """Read a plain state dict; pickled objects are refused."""
    path = weights_file(folder)
    if path is None:
        raise BadUsageError(f"{folder} holds neither {' nor '.join(_FILES)}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadUsageError(
            f"{path} holds no plain weights ({type(error).__name__}); save model.state_dict() alone"
        ) from None
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else {}
    if not stored or not all(isinstance(value, Tensor) for value in stored.values()):
        raise BadUsageError(f"{path} is no state dict; save model.state_dict() alone")
    return stored


def _tokenizer(text: str | None, whole: Path | None) -> Any:
    """Read the tokenizer of the text tower, else of the folder, else of the paper's tower."""
    own = whole and any((whole / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    place = text or (str(whole) if own else BERT_NAME)
    try:
        return AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise BadUsageError(
            f"no tokenizer in {place} ({first_line(error)}); put the text tower's vocab.txt beside"
            " the weights, or add --init text=FOLDER"
        ) from None


def _configs(
    stored: State, vision: str | None, text: str | None, vocabulary: int, options: ModelOptions
) -> tuple[SwinConfig, BertConfig]:
    """Take the towers' sizes from their folders; a bare checkpoint is of the paper's."""
    swin, bert = new_configs(options, vocabulary)
    layers = {int(found[1]) for found in map(_BERT_LAYER.match, stored) if found}
    if layers:
        bert.num_hidden_layers = max(layers) + 1
    embeddings = stored.get("text_model.model.embeddings.word_embeddings.weight")
    if embeddings is not None:
        bert.vocab_size = len(embeddings)
    if vision:
        swin = _config(SwinConfig, vision)
    if text:
        bert = _config(BertConfig, text)
    return swin, bert


def _config(kind: Any, name: str) -> Any:
    try:
        return kind.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise BadUsageError(f"no {kind.__name__} in {name} ({first_line(error)})") from None


def _fill(model: EgmaModel, stored: State, part: str) -> KeyReport:
    """Copy a whole checkpoint into the model, by MedCLIP's names, old or new."""
    own = model.state_dict()
    known = {as_in_model(name, own): (name, value) for name, value in stored.items()}
    kept = {name: value for name, (_, value) in known.items() if name in own}
    strange = [old for name, (old, _) in known.items() if name not in own]
    beyond = [name for name in strange if _cut_off(name, model)]
    for name, value in kept.items():
        if value.shape != own[name].shape:
            raise BadUsageError(
                f"{part}: {name} has shape {tuple(value.shape)}, the model {tuple(own[name].shape)}"
            )
    model.load_state_dict(kept, strict=False)
    missing = [name for name in own if name not in kept]
    shares = [
        _share([name for name in missing if name.startswith(prefix)], own, prefix)
        for prefix in ("vision_model.", "text_model.")
    ]
    left_out = [name for name in strange if _LEFT_OUT.search(name) or name in beyond]
    unexpected = [name for name in strange if name not in left_out]
    return KeyReport(part, missing, unexpected, left_out, max(shares))


def _cut_off(name: str, model: EgmaModel) -> bool:
    found = _BERT_LAYER.match(name)
    return bool(found) and int(found[1]) >= model.text_model.model.config.num_hidden_layers  # type: ignore[index]


def _fill_tower(model: EgmaModel, part: str, name: str, kind: Any) -> KeyReport:
    """Load one tower through transformers, which knows its own old names."""
    target = (model.vision_model if part == "vision" else model.text_model).model
    log = getLogger("transformers")  # our own report names the keys
    before, log.disabled = log.disabled, True
    try:
        loaded, found = kind.from_pretrained(
            name, config=target.config, add_pooling_layer=False, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadUsageError(f"--init {part}={name}: {first_line(error)}") from None
    finally:
        log.disabled = before
    own = loaded.state_dict()
    target.load_state_dict(own)
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    left_out = [key for key in unexpected if _LEFT_OUT.search(key)]
    strange = [key for key in unexpected if key not in left_out]
    missing = [key for key in missing if key in own]
    return KeyReport(f"{part}={name}", missing, strange, left_out, _share(missing, own, ""))


def _share(missing: list[str], own: State, prefix: str) -> float:
    """Measure a part of a tower, projections apart: by numbers or by tensors, the larger."""
    of_tower = [key for key in own if key.startswith(prefix) and "projection_head" not in key]
    lost = [key for key in missing if key in of_tower]
    by_numbers = sum(own[key].numel() for key in lost) / sum(own[key].numel() for key in of_tower)
    return max(by_numbers, len(lost) / len(of_tower))
