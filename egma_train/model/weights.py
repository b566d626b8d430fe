"""Pretrained weights for the towers: MedCLIP or EGMA checkpoints, Hugging Face folders, hub names.

Every key that is missing, unexpected or left out is reported; a tower of which more than 2 % is
missing or that has more than is read is refused, and so is another kind than Swin and BERT.
"""

import re
import zipfile
from argparse import Namespace
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    SwinConfig,
    SwinModel,
)

from egma_train.errors import BadUsageError, first_line
from egma_train.model.egma import (
    EgmaModel,
    TowerError,
    check_filled,
    is_own_model,
    new_configs,
    plain_config,
)
from egma_train.model.key_names import BUFFERS, as_in_model, as_on_disk
from egma_train.options import ModelOptions

SWIN_NAME = "microsoft/swin-tiny-patch4-window7-224"
BERT_NAME = "emilyalsentzer/Bio_ClinicalBERT"
RANDOM = "random"

_FILES = ("model.safetensors", "pytorch_model.bin")
_CONTAINERS = ("state_dict", "model_state_dict", "model", "module")  # Lightning's, DeepSpeed's
_MOST_MISSING = 0.02
_MOST_SPARE_ROWS = 127
"""Embeddings are padded to multiples of up to 128; more rows are another vocabulary's."""
_LEFT_OUT = re.compile(
    rf"{BUFFERS.pattern}"
    r"|^word_local_atten_layer\.|\.projection_head[12]\."  # of the published code, unused
    r"|\.pooler\.|^text_model\.model\.cls\.|num_batches_tracked$"
    r"|\bembeddings\.mask_token$"  # of Swin's own pre-training
)
_OF_A_TOWER = re.compile(r"(^|\.)(embeddings|encoder|layernorm)\.")
"""Of its features; a classifier or another head is not."""
_TOWER = re.compile(r"^(.*?)(?:vision|text)_model\.model\.")
_KINDS = {SwinConfig: {"swin"}, BertConfig: {"bert", "cxr-bert"}}
"""By `model_type`; CXR-BERT is a BERT with a head that is not used here."""
_BERT_LAYER = re.compile(r"^text_model\.model\.encoder\.layer\.(\d+)\.")
_BERT_BASE_LAYERS = 12
_SCALE = "logit_scale"

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class KeyReport:
    """What became of a checkpoint's keys.

    Attributes
    ----------
    missing, unexpected, left_out : list of str
        Not in the checkpoint; not in the model; known to be needless.
    missing_share : float
        Of a tower's numbers, or of its tensors if that is more.
    example : str
        A key of that tower that is missing.
    note : str
        What else is to be known of it.
    """

    part: str
    missing: list[str]
    unexpected: list[str]
    left_out: list[str]
    missing_share: float = 0.0
    example: str = ""
    note: str = ""

    def lines(self) -> list[str]:
        """Tell in words, every key by name."""
        told = {"missing": self.missing, "unexpected": self.unexpected, "left out": self.left_out}
        head = ", ".join(f"{len(keys)} {kind}" for kind, keys in told.items())
        anew = {"missing": " (starts untrained)"}
        keys = [f"  {kind}: {key}{anew.get(kind, '')}" for kind in told for key in told[kind]]
        return [f"{self.part}: {head}", *keys, *([f"  {self.note}"] if self.note else [])]

    def check(self) -> None:
        """Refuse a checkpoint that fills too little, or of which a tower's part would be lost."""
        if self.missing_share > _MOST_MISSING:
            odd = f", and {self.unexpected[0]} is unknown" if self.unexpected else ""
            raise BadUsageError(
                f"{self.part}: {self.missing_share:.0%} of the tower is missing, such as"
                f" {self.example}{odd}; is this checkpoint of Swin-T and BERT?"
            )
        if lost := [key for key in self.unexpected if _OF_A_TOWER.search(key)]:
            raise BadUsageError(
                f"{self.part}: {len(lost)} weights have no place in the tower, such as {lost[0]};"
                " it has more layers or other parts than its sizes say"
            )

    def check_complete(self) -> None:
        """Refuse what starts untrained: its features would be others each time."""
        if lacking := [key for key in self.missing if key != _SCALE]:
            tower = lacking[0].partition(".")[0]
            others = sorted(self.unexpected, key=lambda key: not key.startswith(tower))
            odd = f" ({others[0]} is unknown)" if others else ""
            raise BadUsageError(
                f"{self.part}: {lacking[0]} is missing{odd}, and untrained weights give no figure;"
                " name weights that have it, or train first"
            )

    def cautions(self) -> list[str]:
        """Tell what changes figures of a checkpoint that is complete."""
        no_scale = f"{_SCALE} is missing; 1/0.07 is taken" if _SCALE in self.missing else ""
        return [told for told in (no_scale, self.note) if told]


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
        A folder or file of a MedCLIP, published-EGMA or own model; ``vision=`` and ``text=`` with
        a Hugging Face folder or hub name for one tower. Towers override the folder's.
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
        return Start(model, own_tokenizer(whole, model), [KeyReport("checkpoint", [], [], [])])
    stored = _read_state(whole) if whole else {}
    vision, text = towers.get("vision"), towers.get("text")
    own_bert = _config(BertConfig, text) if text else None
    tokenizer = _tokenizer(text, whole)
    if not whole and not (vision and text):
        raise BadUsageError("--init needs a folder, or both vision=... and text=...")
    swin, bert = _configs(stored, len(tokenizer), options)
    swin, bert = _config(SwinConfig, vision) if vision else swin, own_bert or bert
    _check_tokenizer(tokenizer, bert.vocab_size)
    layers = bert.num_hidden_layers
    if options.text_layers > layers:
        raise BadUsageError(
            f"model.text_layers is {options.text_layers}, but the text tower in"
            f" {text or whole} has {layers} layers"
        )
    bert.num_hidden_layers = options.text_layers or layers
    for name, sizes in ((vision, {"swin": swin}), (text, {"bert": bert})):
        if name and (files := _weights_in(Path(name))):
            with _told_of(name):
                check_filled(sum(one.stat().st_size for one in files), **sizes)
    try:
        model = EgmaModel(swin, bert, options)
    except TowerError as error:
        raise BadUsageError(f"{towers.get(error.part) or whole}: {error}") from None
    reports = [_fill(model, stored, str(whole))] if whole else []
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
    return Start(model, tokenizer, reports)


@contextmanager
def _told_of(place: str) -> Iterator[None]:
    """Name the folder or file of what cannot be built."""
    try:
        yield
    except ImportError:
        raise
    except BadUsageError as error:
        raise BadUsageError(f"{place}: {error}") from None
    except Exception as error:  # of transformers, for activations it does not know and the like
        told = f"{type(error).__name__}: {first_line(error)}"
        raise BadUsageError(f"{place} describes no tower that can be built ({told})") from None


def _weights_in(folder: Path) -> list[Path]:
    """List a local folder's weights, in however many files; none for a name on the hub."""
    found = folder.glob("*") if folder.is_dir() else ()
    return [one for one in found if one.suffix in (".safetensors", ".bin")]


def cached_hub_weights() -> list[str] | None:
    """Name the towers of the paper as ``--init`` values if the local hub cache holds both."""
    from huggingface_hub import try_to_load_from_cache

    for name in (SWIN_NAME, BERT_NAME):
        found = (try_to_load_from_cache(name, file) for file in _FILES)
        if not any(isinstance(path, str) for path in found):
            return None
    return [f"vision={SWIN_NAME}", f"text={BERT_NAME}"]


def load_model(folder: str | Path) -> tuple[EgmaModel, Any]:
    """Load a trained model and its tokenizer from a run's ``model`` folder."""
    model = EgmaModel.from_pretrained(Path(folder))
    return model, own_tokenizer(Path(folder), model)


def own_tokenizer(folder: Path, model: EgmaModel) -> Any:
    """Read the tokenizer beside a model of ours, no other."""
    tokenizer = _tokenizer(str(folder), None)
    _check_tokenizer(tokenizer, model.text_model.model.config.vocab_size)
    return tokenizer


def weights_file(place: Path) -> Path | None:
    """Find a folder's weights; a file is its own."""
    if place.is_file():
        return place
    return next((place / name for name in _FILES if (place / name).is_file()), None)


def folder_of_own(place: Path) -> Path:
    """Take the folder of a model of ours that is named by its weights."""
    inside = place.name == _FILES[0] and is_own_model(place.parent)
    return place.parent if inside else place


def _told_apart(sources: Iterable[str]) -> tuple[Path | None, dict[str, str]]:
    whole: list[Path] = []
    towers: dict[str, str] = {}
    for source in sources:
        part, equals, name = source.partition("=")
        if equals and part in ("vision", "text"):
            towers[part] = name
        elif Path(source).exists():
            whole.append(folder_of_own(Path(source)))
        else:
            raise BadUsageError(
                f"--init {source}: no such folder or file; for one tower write vision=NAME or"
                " text=NAME"
            )
    if len(whole) > 1:
        raise BadUsageError(f"--init names two folders, {whole[0]} and {whole[1]}; give one")
    return (whole[0] if whole else None), towers


def _read_state(place: Path) -> State:
    """Read a state dict, out of Lightning's and others' wrapping; pickled objects are refused."""
    path = weights_file(place)
    if path is None:
        raise BadUsageError(f"{place} holds neither {' nor '.join(_FILES)}")
    try:
        if path.suffix == ".safetensors":
            stored: Any = load_file(path)
        else:
            _refuse_packed(path)
            with _plain_values():
                stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BadUsageError(
            f"{path} holds no plain weights ({_what_else(path) or _why(error)}); save"
            " model.state_dict() alone"
        ) from None
    for name in _CONTAINERS:
        if isinstance(stored, dict) and isinstance(stored.get(name), dict):
            stored = stored[name]
            break
    tensors = isinstance(stored, dict) and all(isinstance(one, Tensor) for one in stored.values())
    if not stored or not tensors:
        raise BadUsageError(f"{path} is no state dict; save model.state_dict() alone")
    prefixes = {found[1] for found in map(_TOWER.match, stored) if found}
    if len(prefixes) > 1:
        raise BadUsageError(
            f"{path} holds several models ({', '.join(sorted(prefixes))}); keep one's keys"
        )
    prefix = prefixes.pop() if prefixes else ""  # such as "module." or Lightning's "model."
    return {name.removeprefix(prefix): value for name, value in stored.items()}


def _why(error: Exception) -> str:
    """Tell what safetensors says of a header, or we; torch's words advise to run the file."""
    ours = isinstance(error, ValueError) or "header" in str(error)
    return first_line(error) if ours else type(error).__name__


def _refuse_packed(path: Path) -> None:
    """Refuse tensors that would grow a thousandfold: torch writes them as they are."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        unpacked = sum(one.file_size for one in entries)
        ours = any(one.filename.endswith("/data.pkl") for one in entries)
        if ours and unpacked > path.stat().st_size:
            raise ValueError(f"it unpacks to {unpacked:,} bytes")


def _plain_values() -> AbstractContextManager[Any]:
    """Let what Lightning keeps beside weights be read: options and NumPy's numbers run no code."""
    if torch.__version__ < (2, 7):  # type: ignore[operator]  # takes no names of its own
        return nullcontext()
    scalar: Any = np.float64(0).__reduce__()[0]
    old_and_new = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    kinds = [type(np.dtype(code)) for code in "?bhilqBHILQefd"]
    return torch.serialization.safe_globals([Namespace, np.dtype, *kinds, *old_and_new])


def _what_else(path: Path) -> str:
    """Name what a file is, or what it asks for beside tensors, without running it."""
    with path.open("rb") as file:
        if file.read(23) == b"version https://git-lfs":
            return "a pointer of Git LFS; fetch the file by git lfs pull"
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name.rpartition("/")[2] for name in archive.namelist()]
        if "constants.pkl" in names:
            return "TorchScript"
        if "data.pkl" not in names:
            return "an archive; unpack it"  # as MedCLIP's are downloaded
    try:  # torch 2.5 does not know this
        return ", ".join(sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path)))[:200]
    except Exception:
        return ""


def _tokenizer(text: str | None, whole: Path | None) -> Any:
    """Read the tokenizer of the text tower, else of the folder, else of the paper's tower."""
    folder = whole.parent if whole and whole.is_file() else whole
    own = folder and any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt"))
    place = text or (str(folder) if own else BERT_NAME)
    try:
        return AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # each version has its own for what is not there; Rust panics
        if (Path(place) / "vocab.txt").is_file():  # CXR-BERT's has code of its own, and is BERT's
            with _told_of(place):
                return BertTokenizer.from_pretrained(place, trust_remote_code=False)
        raise BadUsageError(
            f"no tokenizer in {place} ({first_line(error)}); put the text tower's vocab.txt beside"
            " the weights, or add --init text=FOLDER"
        ) from None


def _check_tokenizer(tokenizer: Any, rows: int) -> None:
    """Refuse a tokenizer that numbers other words than the text tower knows."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    kind, place = type(getattr(backend, "model", None)).__name__, tokenizer.name_or_path
    if kind not in ("WordPiece", "NoneType"):
        raise BadUsageError(f"the tokenizer in {place} is {kind}, BERT's is WordPiece (vocab.txt)")
    if not getattr(tokenizer, "pad_token", None):
        raise BadUsageError(
            f"the tokenizer in {place} names no pad_token; put the text tower's own"
            " tokenizer_config.json or vocab.txt there"
        )
    # transformers 5 makes one of five tokens, all special, where a folder has none.
    if not {*tokenizer.get_vocab()} - {*tokenizer.all_special_tokens}:
        raise BadUsageError(
            f"the tokenizer in {place} knows no word; put the text tower's own vocab.txt there, or"
            " add --init text=FOLDER"
        )
    if not 0 <= rows - len(tokenizer) <= _MOST_SPARE_ROWS:
        raise BadUsageError(
            f"the tokenizer in {place} has {len(tokenizer)} tokens, the text tower {rows}; put the"
            " tower's own vocab.txt there, or add --init text=FOLDER"
        )
    # A number beyond the tower's rows would end the first step.
    try:
        numbers = [*tokenizer.get_vocab().values(), *tokenizer(".")["input_ids"]]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust panics
        raise BadUsageError(f"the tokenizer in {place} is damaged ({first_line(error)})") from None
    if numbers and not 0 <= min(numbers) <= max(numbers) < rows:
        raise BadUsageError(
            f"the tokenizer in {place} numbers its tokens up to {max(numbers)}, the text tower has"
            f" {rows}; put the tower's own vocab.txt there, or add --init text=FOLDER"
        )


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
        raise BadUsageError(f"{name} is a {stated} by its config.json; this tower is a {wanted}")
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
    if _SCALE in kept and kept[_SCALE].numel() == 1:  # [1] in some
        kept[_SCALE] = kept[_SCALE].reshape(())
    for name, value in kept.items():
        if value.shape != own[name].shape:
            raise BadUsageError(
                f"{part}: {name} has shape {tuple(value.shape)}, the model {tuple(own[name].shape)}"
            )
    model.load_state_dict(kept, strict=False)
    missing = [name for name in own if name not in kept and not BUFFERS.search(name)]
    shares = [_share(missing, own, prefix) for prefix in ("vision_model.", "text_model.")]
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
            _refuse_packed(path)
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
    return KeyReport(f"{part}={name}", missing, strange, left_out, *_share(missing, own, ""))


def _share(missing: list[str], own: State, prefix: str) -> tuple[float, str]:
    """Measure what a tower lacks, by numbers or tensors, projections apart; name one of it."""
    apart = re.compile(rf"projection_head|{BUFFERS.pattern}")
    of_tower = [key for key in own if key.startswith(prefix) and not apart.search(key)]
    lost = [key for key in of_tower if key in missing]
    by_numbers = sum(own[key].numel() for key in lost) / sum(own[key].numel() for key in of_tower)
    return max(by_numbers, len(lost) / len(of_tower)), as_on_disk(lost[0]) if lost else ""
