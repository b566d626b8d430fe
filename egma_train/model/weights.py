"""Weights to start from: published systems, MedCLIP's and EGMA's, Hugging Face folders, hub names.

Every key that is missing, unexpected or left out is reported; a tower of which more than 2 % is
missing or that has more than is read is refused.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from egma_train.errors import BadUsageError, first_line
from egma_train.geometry import FRAME
from egma_train.model.backbones.backbone import (
    CONFIG,
    MOST_JSON_BYTES,
    Backbone,
    Source,
    State,
)
from egma_train.model.backbones.pair import TEXT, VISION
from egma_train.model.backbones.registry import FAMILIES, NAMES, family_named, family_of
from egma_train.model.egma import (
    EgmaModel,
    TowerError,
    check_filled,
    is_own_model,
    new_configs,
    plain_config,
)
from egma_train.model.key_names import BUFFERS, as_in_model, as_on_disk
from egma_train.model.key_report import SCALE, KeyReport, share_of
from egma_train.model.published import (
    Opened,
    files_of,
    open_folders,
    open_published,
    open_saved,
    read_place,
    told_inert,
    told_of,
)
from egma_train.model.read_tokenizer import check_tokenizer, read_tokenizer
from egma_train.model.tensor_files import TensorFile, refuse_packed
from egma_train.options import ModelOptions
from egma_train.storage.ordinary import read_ordinary

SWIN_NAME = "microsoft/swin-tiny-patch4-window7-224"
BERT_NAME = "emilyalsentzer/Bio_ClinicalBERT"
RANDOM = "random"

_FILES = ("model.safetensors", "pytorch_model.bin")
_LEFT_OUT = re.compile(
    rf"{BUFFERS.pattern}"
    r"|^word_local_atten_layer\.|\.projection_head[12]\."  # of the published code, unused
    r"|\.pooler\.|^text_model\.model\.cls\.|num_batches_tracked$"
    r"|\bembeddings\.mask_token$"  # of Swin's own pre-training
)
_TOWERS_OF_EGMA = ("vision_model.", "text_model.")
_TOWER = re.compile(r"^(.*?)(?:vision|text)_model\.model\.")
_KINDS = {SwinConfig: {"swin"}, BertConfig: {"bert", "cxr-bert"}}
"""By `model_type`; CXR-BERT is a BERT with a head that is not used here."""
_BERT_LAYER = re.compile(r"^text_model\.model\.encoder\.layer\.(\d+)\.")
_BERT_BASE_LAYERS = 12
_SCALE_ROUNDING = 1e-3  # CLIP's trained scale is the bound itself, 100


@dataclass(frozen=True)
class Start:
    """What training starts from."""

    model: Backbone
    tokenizer: Any
    reports: list[KeyReport]
    source: Source | None = None


def load_start(sources: Iterable[str], options: ModelOptions) -> Start:
    """Build a model from ``--init`` values.

    Parameters
    ----------
    sources : iterable of str
        A folder or file of a published system or an own model, told apart by its keys, or
        ``FAMILY=PLACE``; ``vision=`` and ``text=`` with a Hugging Face folder or hub name for one
        tower. Towers override those of a MedCLIP's folder.
    options : ModelOptions
        Of the model.

    Raises
    ------
    BadUsageError
        If something is not found, or more than 2 % of a tower is missing.
    """
    whole, towers, named = _told_apart(sources)
    if whole and is_own_model(whole) and not towers:  # it brings its own sizes
        model, tokenizer = load_model(whole)
        return Start(model, tokenizer, [KeyReport("checkpoint", [], [], [])])
    read = read_place(whole) if whole else TensorFile({}, "", [])
    if whole:
        with told_of(whole):
            family = family_named(named, read.state) if named else _family_of(whole, read)
        if family and towers:
            raise BadUsageError(
                f"{whole} is a {family.family}; vision= and text= replace a MedCLIP's towers alone"
            )
        if family:
            return _start_of(whole, read, family, options)
    vision, text = towers.get("vision"), towers.get("text")
    if vision and text and not whole and _are_of_other_kinds(vision, text):
        return _start_of_folders(vision, text, options)
    return _start_of_egma(whole, read, towers, options)


def _start_of_egma(
    whole: Path | None, read: TensorFile, towers: Mapping[str, str], options: ModelOptions
) -> Start:
    """Start from a MedCLIP's or EGMA's weights, from towers of its kinds, or from both."""
    stored = _without_prefix(read.state, whole) if whole else {}
    if whole and not any(name.startswith(_TOWERS_OF_EGMA) for name in stored):
        such = ", ".join([*read.state][:3])
        raise BadUsageError(
            f"{whole}: no system that is known here has keys such as {such}; docs/models.md has the"
            " known ones"
        )
    vision, text = towers.get("vision"), towers.get("text")
    own_bert = _config(BertConfig, text) if text else None
    tokenizer = read_tokenizer(text, whole, BERT_NAME)
    if not whole and not (vision and text):
        raise BadUsageError("--init needs a folder, or both vision=... and text=...")
    swin, bert = _configs(stored, len(tokenizer), options)
    swin, bert = _config(SwinConfig, vision) if vision else swin, own_bert or bert
    check_tokenizer(tokenizer, bert.vocab_size)
    layers = bert.num_hidden_layers
    if options.text_layers > layers:
        raise BadUsageError(
            f"model.text_layers is {options.text_layers}, but the text tower in"
            f" {text or whole} has {layers} layers"
        )
    bert.num_hidden_layers = options.text_layers or layers
    for name, sizes in ((vision, {"swin": swin}), (text, {"bert": bert})):
        if name and (files := _weights_in(Path(name))):
            with told_of(name):
                check_filled(sum(one.stat().st_size for one in files), **sizes)
    try:
        model = EgmaModel(swin, bert, options)
    except TowerError as error:
        raise BadUsageError(f"{towers.get(error.part) or whole}: {error}") from None
    reports = []
    if whole:
        reports = [replace(_fill(model, stored, str(whole)), unread=told_inert(read.inert))]
    if whole and not text and not options.text_layers and layers < _BERT_BASE_LAYERS:
        # No file beside bare weights says how many there were.
        note = f"the text tower has {layers} layers, BERT {_BERT_BASE_LAYERS}; was it cut?"
        reports = [replace(reports[0], note=note)]
    for part, name, kind in (("vision", vision, SwinModel), ("text", text, BertModel)):
        if name:
            reports.append(_fill_tower(model, part, name, kind, layers))
    for report in reports:
        report.check()
    model.clamp_scale()
    check_finite(model, whole or f"{vision}, {text}")
    return Start(model, tokenizer, reports)


def _start_of(
    place: Path, read: TensorFile, family: type[Backbone], options: ModelOptions
) -> Start:
    """Start from a published system."""
    opened = open_published(place, read, family, options)
    return _ready(opened, place, read_tokenizer(None, place, family.tokenizer), options)


def _start_of_folders(vision: str, text: str, options: ModelOptions) -> Start:
    """Start from two towers of other kinds, with new projections."""
    folders = _local(vision, "vision"), _local(text, "text")
    tokenizer = read_tokenizer(str(folders[1]), None, BERT_NAME)
    return _ready(open_folders(*folders, options), f"{vision}, {text}", tokenizer, options)


def _ready(opened: Opened, place: object, tokenizer: Any, options: ModelOptions) -> Start:
    """Check a foreign system and its tokenizer, and set what it is fed."""
    model = opened.model
    if options.geometry == "frame":
        model.facts = replace(model.facts, geometry=FRAME)
    check_finite(model, place)
    stored = float(model.logit_scale.exp())
    model.clamp_scale()
    notes = [opened.report.note, *_without_effect(model, options)]
    if abs(float(model.logit_scale.exp()) / stored - 1) > _SCALE_ROUNDING:
        notes.append(f"its scale of {stored:.4g} is kept at {float(model.logit_scale.exp()):.4g}")
    report = replace(opened.report, note="; ".join(filter(None, notes)))
    check_tokenizer(tokenizer, model.vocabulary, model.tokenizer_kind)
    return Start(model, model.reader(tokenizer), [report], opened.source)


def _without_effect(model: Backbone, options: ModelOptions) -> list[str]:
    """Name options that were changed and mean nothing to a system."""
    usual, read = vars(ModelOptions()), {"geometry", *model.options_read}
    changed = [name for name, one in vars(options).items() if one != usual[name]]
    lost = [f"model.{name}" for name in changed if name not in read]
    return [f"{', '.join(lost)} mean nothing to a {model.family}"] if lost else []


def check_finite(model: Backbone, place: object) -> None:
    """Refuse weights and running statistics that no figure or step can come of.

    Raises
    ------
    BadUsageError
        Naming the first.
    """
    for name, values in model.state_dict().items():
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise BadUsageError(f"{place}: {as_on_disk(name)} has NaN or infinite weights")


def _family_of(place: Path, read: TensorFile) -> type[Backbone] | None:
    """Tell a family by its config.json where transformers wrote one, else by its keys."""
    kind = Source(place, place, read.container, ModelOptions()).json("config.json")
    declared = {"vision-text-dual-encoder": "dual-encoder", "clip": "clip", "siglip": "siglip"}
    name = declared.get(str(kind.get("model_type")))
    return FAMILIES[name] if name else family_of(read.state)


def _are_of_other_kinds(vision: str, text: str) -> bool:
    """Tell whether two towers are others than MedCLIP's, a Swin and a BERT."""
    kinds = []
    for name in (vision, text):
        try:
            given, _ = BertConfig.get_config_dict(name, trust_remote_code=False)
            kinds.append(given.get("model_type"))
        except Exception:  # told by what reads it next
            return False
    own = (_KINDS[SwinConfig], _KINDS[BertConfig])
    known = kinds[0] in VISION and kinds[1] in TEXT
    return known and any(kind not in one for kind, one in zip(kinds, own, strict=True))


def _local(name: str, tower: str) -> Path:
    """Find a folder, or fetch it by its name on the hub."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    wanted = ["*.json", "*.txt", "model.safetensors", "pytorch_model.bin"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except Exception as error:
        raise BadUsageError(f"--init {tower}={name}: {first_line(error)}") from None


def _weights_in(folder: Path) -> list[Path]:
    """List a local folder's weights, in however many files; none for a name on the hub."""
    found = folder.glob("*") if folder.is_dir() else ()
    return [one for one in found if one.suffix in (".safetensors", ".bin")]


def hash_of_sources(sources: Iterable[str]) -> dict[str, str]:
    """Hash the local files that ``--init`` names, by what was typed; hub names have none."""
    made = {}
    for source in sources:
        _, equals, name = source.partition("=")
        place = Path(source if Path(source).exists() or not equals else name)
        digest = hashlib.sha256()
        files = files_of(place) if place.exists() else []
        if place.is_dir():  # what no weights tell, and the tokenizer
            files += sorted(one for one in place.iterdir() if one.suffix in (".json", ".txt"))
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        made[source] = digest.hexdigest() if place.exists() else ""
    return made


def cached_hub_weights() -> list[str] | None:
    """Name the towers of the paper as ``--init`` values if the local hub cache holds both."""
    from huggingface_hub import try_to_load_from_cache

    for name in (SWIN_NAME, BERT_NAME):
        found = (try_to_load_from_cache(name, file) for file in _FILES)
        if not any(isinstance(path, str) for path in found):
            return None
    return [f"vision={SWIN_NAME}", f"text={BERT_NAME}"]


def load_model(folder: str | Path) -> tuple[Backbone, Any]:
    """Load a trained model and its tokenizer from a run's ``model`` folder."""
    model = open_model(Path(folder))
    tokenizer = read_tokenizer(str(folder), None, BERT_NAME)  # no other
    check_tokenizer(tokenizer, model.vocabulary, model.tokenizer_kind)
    return model, model.reader(tokenizer)


def open_model(folder: Path) -> Backbone:
    """Open a model of ours, of whatever family.

    Raises
    ------
    BadUsageError
        If it is missing or damaged.
    """
    described: Any = None
    with suppress(OSError, ValueError):
        described = json.loads(read_ordinary(folder / CONFIG, MOST_JSON_BYTES))
    if isinstance(described, dict) and "family" in described:
        return open_saved(folder, described)
    return EgmaModel.from_pretrained(folder)


def folder_of_own(place: Path) -> Path:
    """Take the folder of a model of ours that is named by its weights."""
    inside = place.name == _FILES[0] and is_own_model(place.parent)
    return place.parent if inside else place


def _told_apart(
    sources: Iterable[str],
) -> tuple[Path | None, dict[str, str], str]:
    whole: list[Path] = []
    towers: dict[str, str] = {}
    named = ""
    for source in sources:
        part, equals, name = source.partition("=")
        if equals and part in ("vision", "text"):
            towers[part] = name
        elif equals and part in NAMES and not Path(source).exists():
            named = part
            if not name or not Path(name).exists():
                raise BadUsageError(f"--init {source}: no such folder or file")
            whole.append(folder_of_own(Path(name)))
        elif Path(source).exists():
            whole.append(folder_of_own(Path(source)))
        else:
            raise BadUsageError(
                f"--init {source}: no such folder or file; for one tower write vision=NAME or"
                f" text=NAME, for a system FAMILY=PLACE, of {', '.join(sorted(NAMES))}"
            )
    if len(whole) > 1:
        raise BadUsageError(f"--init names two folders, {whole[0]} and {whole[1]}; give one")
    return (whole[0] if whole else None), towers, named


def _without_prefix(state: State, place: Path) -> State:
    """Take a MedCLIP's or EGMA's keys out of what wraps them."""
    prefixes = {found[1] for found in map(_TOWER.match, state) if found}
    if len(prefixes) > 1:
        raise BadUsageError(
            f"{place} holds several models ({', '.join(sorted(prefixes))}); keep one's keys"
        )
    prefix = prefixes.pop() if prefixes else ""  # such as "module." or Lightning's "model."
    return {name.removeprefix(prefix): value for name, value in state.items()}


def _configs(
    stored: State, vocabulary: int, options: ModelOptions
) -> tuple[SwinConfig, BertConfig]:
    """Describe the towers of a bare checkpoint: the paper's, of as many layers and words."""
    swin, bert = new_configs(options, vocabulary)
    layers = {int(found[1]) for found in map(_BERT_LAYER.match, stored) if found}
    if layers:
        bert.num_hidden_layers = max(layers) + 1
        if len(layers) <= max(layers):
            lacking = next(i for i in range(len(layers) + 1) if i not in layers)
            raise BadUsageError(
                f"the checkpoint has {len(layers)} text layers, but none of number {lacking}"
            )
    embeddings = stored.get("text_model.model.embeddings.word_embeddings.weight")
    if embeddings is not None:
        bert.vocab_size = len(embeddings)
    return swin, bert


def _config(kind: Any, name: str) -> Any:
    """Read a tower's sizes; another kind of model would load in part, or work otherwise."""
    wanted = kind.model_type.capitalize()
    try:
        given, _ = kind.get_config_dict(name, trust_remote_code=False)
        if not given:
            raise OSError("no config.json")
        stated = given.pop("model_type", "") or _first_word(given.pop("architectures", None))
        if stated in ("", *_KINDS[kind]):
            config = plain_config(kind, given)
    except Exception as error:  # each version has its own for what is damaged
        raise BadUsageError(
            f"no {kind.__name__} in {name} ({first_line(error)}); give the folder as it was"
            " downloaded, with its config.json"
        ) from None
    if stated not in ("", *_KINDS[kind]):
        others = ", ".join(sorted(VISION if kind is SwinConfig else TEXT))
        raise BadUsageError(
            f"{name} is a {stated} by its config.json; this tower is a {wanted}, or both are of:"
            f" {others}"
        )
    if given.get("is_decoder") or given.get("position_embedding_type", "absolute") != "absolute":
        raise BadUsageError(f"{name} is a decoder, or has relative positions; plain BERT is needed")
    return config


def _first_word(architectures: Any) -> str:
    """Take Roberta of ["RobertaForMaskedLM"], as configurations before `model_type` say it."""
    found = re.match(r"[A-Z][a-z0-9]+", str((architectures or [""])[0]))
    return found[0].lower() if found else ""


def _fill(model: EgmaModel, stored: State, part: str) -> KeyReport:
    """Copy a whole checkpoint into the model, by MedCLIP's names, old or new."""
    own = model.state_dict()
    left_out = [name for name in stored if _LEFT_OUT.search(name) or _cut_off(name, model)]
    known = {as_in_model(name, own): name for name in stored if name not in left_out}
    kept = {name: stored[old] for name, old in known.items() if name in own}
    if SCALE in kept and kept[SCALE].numel() == 1:  # [1] in some
        kept[SCALE] = kept[SCALE].reshape(())
    for name, value in kept.items():
        if value.shape != own[name].shape:
            raise BadUsageError(
                f"{part}: {name} has shape {tuple(value.shape)}, the model {tuple(own[name].shape)}"
            )
    model.load_state_dict(kept, strict=False)
    missing = [name for name in own if name not in kept and not BUFFERS.search(name)]
    shares = [share_of(missing, own, prefix) for prefix in ("vision_model.", "text_model.")]
    unexpected = [old for name, old in known.items() if name not in own]
    return KeyReport(part, missing, unexpected, left_out, *max(shares))


def _cut_off(name: str, model: EgmaModel) -> bool:
    found = _BERT_LAYER.match(name)
    return bool(found) and int(found[1]) >= model.text_model.model.config.num_hidden_layers  # type: ignore[index]


def _fill_tower(model: EgmaModel, part: str, name: str, kind: Any, layers: int) -> KeyReport:
    """Load one tower through transformers, which knows its own old names; BERT's has `layers`."""
    target = (model.vision_model if part == "vision" else model.text_model).model
    log = getLogger("transformers")  # our own report names the keys
    before, log.disabled = log.disabled, True
    try:
        for path in _weights_in(Path(name)):
            refuse_packed(path)
        loaded, found = kind.from_pretrained(
            name, config=target.config, add_pooling_layer=False, output_loading_info=True,
            trust_remote_code=False,
        )  # fmt: skip
    except ImportError:
        raise
    except AttributeError as error:  # transformers before 4.46 asks what there is not for a format
        if "'get'" not in str(error):
            raise
        raise BadUsageError(
            f"--init {part}={name}: its safetensors file says no format, which this transformers"
            " wants; save it with metadata={'format': 'pt'}, or install a newer transformers"
        ) from None
    except Exception as error:  # safetensors has its own
        told = first_line(error)
        if "mismatch" in str(error):  # transformers points to a report in many lines
            told = (
                "its weights have other sizes than its config.json says; take both from one tower"
            )
        raise BadUsageError(f"--init {part}={name}: {told}") from None
    finally:
        log.disabled = before
    own = loaded.state_dict()
    target.load_state_dict(own)
    missing, unexpected = sorted(found["missing_keys"]), sorted(found["unexpected_keys"])
    cut_off = range(model.text_model.model.config.num_hidden_layers, layers)
    cut = tuple(f"encoder.layer.{i}." for i in cut_off) if part == "text" else ()
    left_out = [
        key for key in unexpected if _LEFT_OUT.search(key) or any(one in key for one in cut)
    ]
    strange = [key for key in unexpected if key not in left_out]
    missing = [key for key in missing if key in own and not BUFFERS.search(key)]
    return KeyReport(f"{part}={name}", missing, strange, left_out, *share_of(missing, own, ""))
