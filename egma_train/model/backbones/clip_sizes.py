"""What no shape of a CLIP's weights tells: activation, heads, epsilon, preparation."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import CLIPConfig

from egma_train.errors import BadUsageError
from egma_train.model.backbones.backbone import Source, State
from egma_train.model.backbones.preprocessor import of_open_clip, preparation
from egma_train.model.backbones.towers import count, heads_of, shape

_OLD_EOS = 2  # of configurations before transformers 4.30, which all mean the largest id
_WIDE = {1280, 1408, 1664}
"""Of open_clip's ViT-H, ViT-g and ViT-G, whose heads are of 80, 88 and 104."""


def beside_clip(source: Source, state: State, *, is_openais: bool) -> dict[str, Any]:
    """Read the JSON files of transformers or open_clip that may lie beside the weights.

    Parameters
    ----------
    is_openais : bool
        The family has no other activation than OpenAI's.
    """
    told = source.json("config.json")
    open_clip = source.json("open_clip_config.json").get("model_cfg", {})
    made: dict[str, Any] = {"norm_patches": source.options.norm_patches}
    made["activation"], made["caution"] = _activation(source, told, open_clip, is_openais)
    vision_cfg, text_cfg = (open_clip.get(f"{one}_cfg") or {} for one in ("vision", "text"))
    other = vision_cfg.get("pool_type", "tok") != "tok" or vision_cfg.get("attentional_pool")
    if other or text_cfg.get("no_causal_mask") or text_cfg.get("pool_type", "argmax") != "argmax":
        raise BadUsageError("open_clip_config.json pools otherwise than CLIP does")
    if eos := (told.get("text_config") or {}).get("eos_token_id"):
        made["eos"] = int(eos) if eos != _OLD_EOS else None
    for tower in ("vision", "text"):
        own = told.get(f"{tower}_config") or {}
        described = open_clip.get(f"{tower}_cfg") or {}
        heads = int(own.get("num_attention_heads") or 0)
        made[f"{tower}_heads"] = heads or heads_of_clip(tower, _width(state, tower), described)
        made[f"{tower}_activation"] = _known(own.get("hidden_act") or made["activation"])
        made[f"{tower}_eps"] = float(own.get("layer_norm_eps") or 1e-5)
    patch_px = shape(state, "clip.vision_model.embeddings.patch_embedding.weight")[-1]
    positions = shape(state, "clip.vision_model.embeddings.position_embedding.weight")[0]
    px = (told.get("vision_config") or {}).get("image_size") or patch_px * math.isqrt(positions - 1)
    if (int(px) // patch_px) ** 2 + 1 != positions:
        raise BadUsageError(f"config.json says {px} px, which {positions - 1} patches do not cover")
    made["image_px"] = int(px)
    if preprocessor := source.json("preprocessor_config.json"):
        made["prepared"] = preparation(preprocessor, {"image_size": made["image_px"]})
    elif prepared := source.json("open_clip_config.json").get("preprocess_cfg"):
        made["prepared"] = of_open_clip(prepared, made["image_px"])
    return made


def _activation(
    source: Source, told: Mapping[str, Any], open_clip: Mapping[str, Any], is_openais: bool
) -> tuple[str, str]:
    """OpenAI's and what was trained from it have QuickGELU, LAION's of open_clip GELU."""
    if text := told.get("text_config"):  # of transformers
        return _known(text.get("hidden_act", "quick_gelu")), ""
    if open_clip:
        return "quick_gelu" if open_clip.get("quick_gelu") else "gelu", ""
    if source.file.name.startswith("open_clip"):
        return "gelu", ""
    if is_openais or source.container == "TorchScript":
        return "quick_gelu", ""
    return "quick_gelu", (
        "no file says which activation it was trained with: QuickGELU is taken, as OpenAI's;"
        " LAION's have GELU, which a name that begins with open_clip tells"
    )


def _known(activation: object) -> str:
    if activation not in ("quick_gelu", "gelu"):
        raise BadUsageError(f"hidden_act is {activation!r:.40}; a CLIP has quick_gelu or gelu")
    return str(activation)


def _width(state: State, tower: str) -> int:
    name = "class_embedding" if tower == "vision" else "position_embedding.weight"
    return shape(state, f"clip.{tower}_model.embeddings.{name}")[-1]


def heads_of_clip(tower: str, width: int, open_clip: Mapping[str, Any]) -> int:
    """Count heads: as open_clip's file says, of 64, or 16 as in its ViT-H, ViT-g and ViT-G."""
    if open_clip.get("heads"):
        return int(open_clip["heads"])
    if open_clip.get("head_width"):
        return width // int(open_clip["head_width"])
    if tower == "vision" and width in _WIDE:
        return 16
    if width % 64:
        raise BadUsageError(f"a {tower} tower of width {width} has heads that no file here tells")
    return heads_of(width)


def clip_config(state: State, details: Mapping[str, Any]) -> CLIPConfig:
    """Read the sizes of both towers."""
    at = "clip.vision_model.embeddings"
    width, _, patch_px, _ = shape(state, f"{at}.patch_embedding.weight")
    positions = shape(state, f"{at}.position_embedding.weight")[0]
    rows, text_width = shape(state, "clip.text_model.embeddings.token_embedding.weight")

    def common(tower: str) -> dict[str, Any]:
        return {
            "hidden_act": details.get(f"{tower}_activation", details["activation"]),
            "layer_norm_eps": details[f"{tower}_eps"],
            "num_attention_heads": details[f"{tower}_heads"],
        }

    return CLIPConfig(
        projection_dim=shape(state, "clip.visual_projection.weight")[0],
        vision_config=common("vision")
        | {
            "hidden_size": width,
            "num_hidden_layers": count(state, r"clip\.vision_model\.layer\.(\d+)"),
            "intermediate_size": shape(state, "clip.vision_model.layer.0.mlp.fc1.weight")[0],
            "image_size": details.get("image_px", patch_px * math.isqrt(positions - 1)),
            "patch_size": patch_px,
        },
        text_config=common("text")
        | {
            "vocab_size": rows,
            "bos_token_id": rows - 2,
            "eos_token_id": rows - 1,
            "hidden_size": text_width,
            "num_hidden_layers": count(state, r"clip\.text_model\.layer\.(\d+)"),
            "intermediate_size": shape(state, "clip.text_model.layer.0.mlp.fc1.weight")[0],
            "max_position_embeddings": shape(
                state, "clip.text_model.embeddings.position_embedding.weight"
            )[0],
        },
    )
