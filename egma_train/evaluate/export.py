"""A trained model for other programs: ONNX, or a folder of Hugging Face."""

import json
import warnings
from collections.abc import Callable
from inspect import getsource
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from safetensors.torch import save_file
from torch import Tensor, nn

from egma_train.data.loading import pixels, tokenized
from egma_train.data.shards import FRAME_PX
from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.encoder import Encoder
from egma_train.model.backbones.clip import Clip
from egma_train.model.backbones.gloria import Gloria, clean
from egma_train.model.backbones.pair import DualEncoder, Folders
from egma_train.model.backbones.preprocessor import described
from egma_train.model.backbones.siglip import Siglip
from egma_train.storage.atomic import whole_folder, write_whole

_OPSET, _TORCH = 17, (2, 6)
_TERMS = "## Terms of use"
_CLASSES = {Clip: "CLIPModel", Siglip: "SiglipModel", DualEncoder: "VisionTextDualEncoderModel"}


class _Images(nn.Module):
    """Grey frames ``[b, h, h]`` to unit features: pooled ``[b, d]``, patches ``[b, n, d]``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.model.facts
        patches, pooled = self.model.images(
            pixels(frames, seen.image_px, seen.mean, seen.std, None)
        )
        return F.normalize(pooled, dim=-1), F.normalize(patches, dim=-1)


class _Texts(nn.Module):
    """Tokens ``[t, l]`` to unit features ``[t, d]`` for pooled images, and those for patches."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.model = encoder.model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        # A sum of nothing keeps the mask an input of models that read padding too.
        whole = self.model.texts(input_ids, attention_mask) + 0 * attention_mask.sum()
        own = self.model.sentences(input_ids, attention_mask)
        return F.normalize(whole, dim=-1), F.normalize(own, dim=-1)


def export_model(encoder: Encoder, kind: str, place: Path, card: Path | None = None) -> Path:
    """Write a model in another format, whole or not at all.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    place : Path
        A folder that is not there yet.
    card : Path, optional
        Of the run: its terms of use hold for what is exported.

    Raises
    ------
    BadUsageError
        If the folder is there, a package lacks, or no class of transformers computes the model.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if encoder.model is None:
        raise BadUsageError(f"{encoder.name} is vectors; there is no model to export")
    if place.exists():
        raise BadUsageError(f"{place} is there already; name a new folder")
    with whole_folder(place) as folder:
        example = KINDS[kind](encoder, folder)
        encoder.tokenizer.save_pretrained(folder)
        write_whole(folder / "README.md", _card(encoder, example, card))
    return place


def _to_onnx(encoder: Encoder, folder: Path) -> str:
    """Write ``images.onnx`` and ``texts.onnx``; batches and lengths of texts are free."""
    try:
        import onnx  # noqa: F401
    except ImportError:
        raise BadUsageError("onnx is not installed; install it: pip install onnx") from None
    if torch.__version__ < _TORCH:  # type: ignore[operator]  # cannot write its own attention
        raise BadUsageError(f"--to onnx needs torch 2.6 or newer; this is {torch.__version__}")
    px = encoder.preparation[1] if encoder.preparation[0].fit != "frame" else FRAME_PX
    own_px = encoder.preparation[1]
    if own_px < px and px % own_px:
        raise BadUsageError(
            f"ONNX cannot shrink the frame of {px} px to {own_px} px; take --to hugging-face"
        )
    encoder.model.to("cpu")
    for tower in encoder.model.modules():
        plain: Any = getattr(tower, "set_attn_implementation", None)
        if plain:  # transformers before 5 has none, and the exporter knows its attention
            plain("eager")
    tokens = tokenized(encoder.tokenizer, ["no", "one two"], encoder.model.facts.max_tokens)
    texts = (tokens["input_ids"], tokens["attention_mask"])
    frames = torch.arange(2 * px * px).reshape(2, px, px).to(torch.uint8)
    free = {"frames": {0: "b"}, "pooled": {0: "b"}, "patches": {0: "b"}, "texts": {0: "t"}}
    free["sentences"] = {0: "t"}
    free |= {name: {0: "t", 1: "l"} for name in ("input_ids", "attention_mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module, given, names, made in (
            (_Images(encoder), (frames,), ["frames"], ["pooled", "patches"]),
            (
                _Texts(encoder),
                texts,
                ["input_ids", "attention_mask"],
                ["texts", "sentences"],
            ),
        ):
            path = folder / f"{'images' if made[0] == 'pooled' else 'texts'}.onnx"
            torch.onnx.export(
                module.eval(), given, str(path), input_names=names, output_names=made,
                dynamic_axes={name: free[name] for name in (*names, *made)},
                opset_version=_OPSET, dynamo=False,
            )  # fmt: skip
    cleaning = f"import re\n\n{getsource(clean)}\n" if isinstance(encoder.model, Gloria) else ""
    query = 'clean("no pneumonia")' if cleaning else '"no pneumonia"'
    return f"""\
{cleaning}import numpy as np, onnxruntime
from transformers import AutoTokenizer

frames = np.zeros((1, {px}, {px}), np.uint8)  # grey; {encoder.preparation[0].told()}
images = onnxruntime.InferenceSession("images.onnx").run(None, {{"frames": frames}})
pooled, patches = images  # (1, d), (1, {encoder.grid}**2, d), of length 1
tokens = AutoTokenizer.from_pretrained(".")(
    [{query}], {_padding(encoder)}, return_tensors="np")
given = {{name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}}
texts, sentences = onnxruntime.InferenceSession("texts.onnx").run(None, given)
print({encoder.scale:.4f} * pooled @ texts.T)  # images and texts
print(patches @ sentences.T)  # where each is said of"""


def _padding(encoder: Encoder) -> str:
    most = encoder.model.facts.max_tokens
    whole = isinstance(encoder.model, Siglip)
    how = f'"max_length", max_length={most}' if whole else f"True, max_length={most}"
    return f"padding={how}, truncation=True"


def _to_hugging_face(encoder: Encoder, folder: Path) -> str:
    """Write what transformers' own class of the system reads."""
    model: Any = encoder.model
    name = ""
    if not isinstance(model, Folders):
        name = next((told for kind, told in _CLASSES.items() if isinstance(model, kind)), "")
    if not name:
        raise BadUsageError(
            f"no class of transformers computes the features of a {model.family}"
            f" ({model.facts.pooling}); take --to onnx"
        )
    # transformers converts the names of its own towers when it reads a file.
    state = dict(model.state_dict())
    if isinstance(model, Clip | Siglip):
        inner = model.clip if isinstance(model, Clip) else model.siglip
        config = inner.config.to_dict() | {"architectures": [name]}
        state = {key.partition(".")[2] if "." in key else key: one for key, one in state.items()}
    else:
        towers = {"vision_config": model.vision.config, "text_config": model.text.config}
        config = {one: sizes.to_dict() for one, sizes in towers.items()}
        config |= {"model_type": "vision-text-dual-encoder", "architectures": [name]}
        config |= {"projection_dim": model.image_head.out_features}
        heads = {"image_head": "visual_projection", "text_head": "text_projection"}
        heads |= {"vision": "vision_model", "text": "text_model"}
        split = [(key.partition("."), one) for key, one in state.items()]
        state = {f"{heads.get(at, at)}{dot}{rest}": one for (at, dot, rest), one in split}
    if isinstance(model, Siglip):  # transformers keeps these two as vectors of one
        state |= {one: state[one].reshape(1) for one in ("logit_scale", "logit_bias")}
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    whole = {key: one.detach().cpu().contiguous().clone() for key, one in state.items()}
    save_file(whole, folder / "model.safetensors", metadata={"format": "pt"})
    geometry, side = encoder.preparation
    kinds = {"CLIPModel": "CLIPImageProcessor", "SiglipModel": "SiglipImageProcessor"}
    kind = kinds.get(name, "CLIPImageProcessor")
    told = described(geometry, side, model.facts.mean, model.facts.std, kind)
    (folder / "preprocessor_config.json").write_text(json.dumps(told, indent=1) + "\n")
    return f"""\
import torch
from transformers import AutoTokenizer, {name}

model = {name}.from_pretrained(".").eval()
pixels = torch.zeros(1, 3, {side}, {side})  # {geometry.told()}
tokens = AutoTokenizer.from_pretrained(".")(
    ["no pneumonia"], {_padding(encoder)}, return_tensors="pt")
made = model(input_ids=tokens["input_ids"], pixel_values=pixels,
             attention_mask={"None" if isinstance(model, Siglip) else 'tokens["attention_mask"]'})
print(made.logits_per_image)  # (images, texts)"""


KINDS: dict[str, Callable[[Encoder, Path], str]] = {
    "onnx": _to_onnx,
    "hugging-face": _to_hugging_face,
}


def _card(encoder: Encoder, example: str, card: Path | None) -> str:
    facts: Any = encoder.told()
    own = card.read_text().partition(_TERMS)[2].partition("\n## ")[0] if card else ""
    terms = own.strip() or f"Licence of the weights: {facts['system']['licence']}."
    rows = [f"| {name} | {value} |" for name, value in facts["system"].items()]
    return "\n".join(
        [
            f"# {facts['name']}",
            "",
            f"Weights sha256 {facts['sha256']}.",
            "",
            _TERMS,
            "",
            terms,
            "",
            "## Use",
            "",
            "| | |",
            "|---|---|",
            *rows,
            "",
            "```python",
            example,
            "```",
            "",
        ]
    )
