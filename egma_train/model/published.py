"""From a published system's file or folder to a model, with a report on every key."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import PreTrainedModel, ResNetConfig

from egma_train.errors import BadUsageError, first_line
from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import MOST_JSON_BYTES, WEIGHTS, Backbone, Source
from egma_train.model.backbones.naming import Renamed, canonical, renamed
from egma_train.model.backbones.pair import Folders
from egma_train.model.backbones.registry import FAMILIES, prefix_of
from egma_train.model.key_names import BUFFERS
from egma_train.model.key_report import KeyReport, share_of
from egma_train.model.tensor_files import TensorFile, read_tensors
from egma_train.options import ModelOptions
from egma_train.storage.ordinary import read_ordinary

_NAMES = (
    "model.safetensors", "pytorch_model.bin",
    "open_clip_model.safetensors", "open_clip_pytorch_model.bin",
)  # fmt: skip
_BESIDE = ("biovil_t_image*.pt", "biovil_image*.pt")
"""BioViL's image tower lies in a file of its own beside CXR-BERT's."""
_RESNET_50 = [3, 4, 6, 3]
_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tar"}


class Opened(NamedTuple):
    """A published system: the model, what it was read from, and the report on its keys."""

    model: Backbone
    source: Source
    report: KeyReport


def files_of(place: Path, *, image_apart: bool = True) -> list[Path]:
    """List the files that hold a system's weights.

    Parameters
    ----------
    image_apart : bool
        Take an image tower that lies in a file of its own too, as BioViL's.

    Raises
    ------
    BadUsageError
        If a folder holds none, or several of which none has a usual name.
    """
    if place.is_file():
        return [place]
    named = [place / name for name in _NAMES if (place / name).is_file()][:1]
    named = named or _in_pieces(place)
    beside = [path for pattern in _BESIDE for path in sorted(place.glob(pattern))]
    if len(beside) > 1:
        raise BadUsageError(f"{place} holds {beside[0].name} and {beside[1].name}; keep one")
    if named:
        return [*(beside if image_apart else ()), *named]
    others = sorted(one for one in place.glob("*") if one.suffix in _SUFFIXES and one.is_file())
    if len(others) != 1:
        found = ", ".join(one.name for one in others) or "none"
        raise BadUsageError(f"{place} should hold one file of weights; there is: {found}")
    return others


def _in_pieces(folder: Path) -> list[Path]:
    """List the files that an index of transformers names."""
    for name in _NAMES[:2]:
        path = folder / f"{name}.index.json"
        if path.is_file():
            try:
                told = json.loads(read_ordinary(path, MOST_JSON_BYTES))["weight_map"]
                pieces = [folder / Path(str(one)).name for one in sorted(set(told.values()))]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise BadUsageError(f"{path} is damaged ({first_line(error)})") from None
            if lacking := [one for one in pieces if not one.is_file()]:
                raise BadUsageError(f"{path} names {lacking[0].name}, which is not there")
            return pieces
    return []


def read_place(place: Path, *, image_apart: bool = True) -> TensorFile:
    """Read a system's weights, of one file or several."""
    parts = [read_tensors(path) for path in files_of(place, image_apart=image_apart)]
    state = {name: one for part in parts for name, one in part.state.items()}
    inert = sorted({name for part in parts for name in part.inert})
    return TensorFile(state, " and ".join(dict.fromkeys(part.container for part in parts)), inert)


def open_published(
    place: Path, read: TensorFile, family: type[Backbone], options: ModelOptions
) -> Opened:
    """Build a system of the sizes of its weights and fill it.

    Parameters
    ----------
    place : Path
        A file or folder; its JSON files tell what weights do not.
    read : TensorFile
        What is in it.

    Raises
    ------
    BadUsageError
        If more than 2 % of a tower is missing, a shape does not fit, or it is another system.
    """
    prefix = prefix_of(family, read.state)
    bare = {name.removeprefix(prefix or ""): one.float() for name, one in read.state.items()}
    source = Source(place, files_of(place)[-1], read.container, options)
    with told_of(place):
        named = renamed(bare, family.rules)
        details = family.details_of(source, named.tensors)
        model, report = _filled(family, named, details, str(place))
    return Opened(model, source, replace(report, unread=told_inert(read.inert)))


def open_folders(vision: Path, text: Path, options: ModelOptions) -> Opened:
    """Build a system of any two towers of Hugging Face, with projections that are new.

    Raises
    ------
    BadUsageError
        If a tower's kind is not known here, or more than 2 % of it is missing.
    """
    sources, inert = [], set[str]()
    state: dict[str, Any] = {}
    for tower, place in (("vision", vision), ("text", text)):
        read = read_place(place, image_apart=False)
        sources.append(Source(place, place, read.container, options))
        state |= {f"{tower}.{name}": one.float() for name, one in read.state.items()}
        inert |= set(read.inert)
    both = f"vision={vision}, text={text}"
    with told_of(both):
        details = Folders.details_of_towers(sources[0], sources[1], options)
        model, report = _filled(Folders, renamed(state, Folders.rules), details, both)
    return Opened(model, sources[0], replace(report, unread=told_inert(sorted(inert))))


def told_inert(inert: list[str]) -> str:
    """Name the objects beside the weights, none of which was made or run."""
    return f"not read: objects of {', '.join(inert[:8])}" if inert else ""


def _filled(
    family: type[Backbone], named: Renamed, details: dict[str, Any], part: str
) -> tuple[Backbone, KeyReport]:
    """Build a model, first of shapes alone: what lacks too much would take memory for nothing."""
    try:
        with torch.device("meta"):
            sketch = family(named.tensors, details)
    except RuntimeError as error:
        if "meta tensors" not in str(error):  # transformers before 5 reads numbers in Swin's
            raise
        sketch = family(named.tensors, details)
    own = sketch.state_dict()
    ours = {canonical(name): name for name in own}
    kept = {ours[name]: one for name, one in named.tensors.items() if name in ours}
    for name, value in kept.items():
        if value.shape == (1,) and own[name].shape == ():  # a scale, in some
            kept[name] = value.reshape(())
        elif value.shape != own[name].shape:
            published = named.published[canonical(name)]
            raise BadUsageError(
                f"{published} has shape {tuple(value.shape)}, the model {tuple(own[name].shape)}"
            )
    not_here = {ours[name] for name in family.made_here if name in ours}
    missing = [
        name
        for name in own
        if name not in kept
        and name not in not_here
        and not BUFFERS.search(name)
        and not name.endswith("num_batches_tracked")
    ]
    shares = [share_of(missing, own, prefix) for prefix in _towers(sketch)]
    strange = [named.published[name] for name in named.tensors if name not in ours]
    report = KeyReport(
        part,
        missing,
        [*named.unexpected, *strange],
        [*named.left_out],
        *max(shares),
        note="; ".join(filter(None, (*sketch.cautions, _cut(sketch)))),
        loaded=len(kept),
        reshaped=named.reshaped,
        reasons=named.left_out,
        of=family.family,
    )
    report.check()
    model = family(named.tensors, details)
    model.load_state_dict(kept, strict=False)
    return model, report


def _towers(model: Backbone) -> Iterator[str]:
    for name, module in model.named_children():
        if isinstance(module, PreTrainedModel):
            inside = [one for one, _ in module.named_children() if one.endswith("_model")]
            yield from [f"{name}.{one}." for one in inside] or [f"{name}."]


def _cut(model: Backbone) -> str:
    """Say where towers are shallower than their authors': no shape tells that layers were lost."""
    if not model.text_layers:  # a config.json told
        return ""
    sizes = [getattr(getattr(model, one, None), "config", None) for one in ("text", "vision")]
    layers = getattr(sizes[0], "num_hidden_layers", model.text_layers)
    depths = getattr(sizes[1], "depths", None) if isinstance(sizes[1], ResNetConfig) else None
    said = []
    if layers != model.text_layers:
        said.append(f"the text tower has {layers} layers, {model.family}'s {model.text_layers}")
    if depths not in (None, _RESNET_50):
        told = [", ".join(map(str, one)) for one in (depths, _RESNET_50)]
        said.append(f"the image tower has {told[0]} blocks, a ResNet-50 {told[1]}")
    return f"{'; '.join(said)}; was it cut?" if said else ""


def open_saved(folder: Path, described: Mapping[str, Any]) -> Backbone:
    """Read what `Backbone.save_pretrained` wrote.

    Raises
    ------
    BadUsageError
        If it is damaged.
    """
    try:
        family = FAMILIES[described["family"]]
        tensors = {
            canonical(name): one for name, one in read_tensors(folder / WEIGHTS).state.items()
        }
        named = Renamed(tensors, {name: name for name in tensors}, {}, [], Counter())
        model, report = _filled(family, named, dict(described["details"]), str(folder))
        if report.missing:
            raise ValueError(f"{report.missing[0]} is missing")
        geometry = Geometry(*described["geometry"])
    except ImportError:
        raise
    except Exception as error:
        raise BadUsageError(f"the model in {folder} is damaged ({first_line(error)})") from None
    model.facts = replace(model.facts, geometry=geometry)
    return model


@contextmanager
def told_of(place: object) -> Iterator[None]:
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
