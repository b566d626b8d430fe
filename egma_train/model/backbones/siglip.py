"""SigLIP (Zhai et al. 2023) and MedSigLIP: folders of Hugging Face's SiglipModel."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import SiglipConfig, SiglipModel

from egma_train.errors import BadUsageError
from egma_train.model.backbones.backbone import (
    LOGIT_SCALE_BOUNDS,
    Backbone,
    Facts,
    Rule,
    RuledTokenizer,
    Source,
    State,
    new_scale,
)
from egma_train.model.backbones.preprocessor import preparation, prepared
from egma_train.model.backbones.towers import count, shape

_TOWERS = ("vision", "text")


class Siglip(Backbone):
    """SigLIP's two towers; its image feature attends over the patches."""

    family = "siglip"
    signature = r"vision_model\.head\.probe"
    rules = (
        Rule(r"(.*\.)?position_ids", None, "made anew with each model"),
        Rule(r"logit_(scale|bias)", r"logit_\1"),
        Rule(r"((?:vision|text)_model\..*)", r"siglip.\1"),
    )
    tokenizer = "google/siglip-base-patch16-224"
    tokenizer_kind = ""
    siglip: Any

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.siglip = SiglipModel(_config(state, details))
        del self.siglip.logit_scale, self.siglip.logit_bias
        self.logit_scale = new_scale(state)
        self.logit_bias = nn.Parameter(torch.zeros(()), requires_grad=False)
        vision = self.siglip.config.vision_config
        # SigLIP's trained scale, about 117, is above CLIP's bound.
        self._highest = max(LOGIT_SCALE_BOUNDS[1], float(state["logit_scale"].reshape(())))
        px = vision.image_size
        self.facts = Facts(
            grid=px // vision.patch_size,
            image_px=px,
            **prepared(
                details, mean=(0.5,), std=(0.5,), geometry=("squash", px, px, "bilinear", False)
            ),
            max_tokens=self.siglip.config.text_config.max_position_embeddings,
            pooling="attention over patches; a patch by the same head alone; text: last position,"
            " padded to the full length",
            activation=", ".join(f"{details[f'{one}_activation']} ({one})" for one in _TOWERS),
            licence="Apache-2.0 (SigLIP); HAI-DEF terms (MedSigLIP)",
        )

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Read heads and activation, which no shape tells, from config.json."""
        told = source.json("config.json")
        if not told:
            raise BadUsageError("no config.json; give SigLIP's folder as it was downloaded")
        if told.get("model_type", "siglip") != "siglip":
            raise BadUsageError(
                f"a {told['model_type']!s:.40} takes pictures another way than SigLIP"
            )
        made: dict[str, Any] = {
            "image_px": int(told.get("vision_config", {}).get("image_size", 224))
        }
        for tower in ("vision", "text"):
            own = told.get(f"{tower}_config", {})
            made[f"{tower}_activation"] = str(own.get("hidden_act", "gelu_pytorch_tanh"))
            made[f"{tower}_eps"] = float(own.get("layer_norm_eps", 1e-6))
            made[f"{tower}_heads"] = int(own.get("num_attention_heads", 12))
        if preprocessor := source.json("preprocessor_config.json"):
            made["prepared"] = preparation(preprocessor, {"image_size": made["image_px"]})
        return made

    def reader(self, tokenizer: Any) -> Any:
        """Pad to the full length, as it was trained; a shorter text has another feature."""
        return RuledTokenizer(tokenizer, full_length=self.facts.max_tokens)

    @property
    def vocabulary(self) -> int:
        """Count the words that the text tower has a row for."""
        return int(self.siglip.config.text_config.vocab_size)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features.

        Attention over one key is 1: a patch passes the head's value and output projections.
        """
        seen = self.siglip.vision_model(pixel_values=pixels)
        head, tokens = self.siglip.vision_model.head, seen.last_hidden_state
        attention = head.attention
        weight, bias = attention.in_proj_weight.chunk(3)[2], attention.in_proj_bias.chunk(3)[2]
        hidden = attention.out_proj(nn.functional.linear(tokens, weight, bias))
        return hidden + head.mlp(head.layernorm(hidden)), seen.pooler_output

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, 64]`` tokens to ``[t, d]``; padding is read as well."""
        # With a mask the last position, which the pooler takes, would see other tokens.
        return self.siglip.text_model(input_ids=input_ids).pooler_output

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale between 1 and 100, or what it was."""
        self.logit_scale.clamp_(LOGIT_SCALE_BOUNDS[0], self._highest)


def _config(state: State, details: dict[str, Any]) -> SiglipConfig:
    at = "siglip.vision_model.embeddings"
    width, _, patch_px, _ = shape(state, f"{at}.patch_embedding.weight")
    positions = shape(state, f"{at}.position_embedding.weight")[0]
    cells = details["image_px"] // patch_px  # pixels beyond the last whole patch are not seen
    if cells**2 != positions:
        raise BadUsageError(
            f"config.json says {details['image_px']} px, of which {cells**2} patches of {patch_px}"
            f" px are made; the weights have {positions}"
        )
    rows, text_width = shape(state, "siglip.text_model.embeddings.token_embedding.weight")
    longest = shape(state, "siglip.text_model.embeddings.position_embedding.weight")[0]

    def tower(name: str, size: int) -> dict[str, Any]:
        layer = f"siglip.{name}_model.layer."
        return {
            "hidden_act": details[f"{name}_activation"],
            "layer_norm_eps": details[f"{name}_eps"],
            "hidden_size": size,
            "num_hidden_layers": count(state, rf"siglip\.{name}_model\.layer\.(\d+)"),
            "num_attention_heads": details[f"{name}_heads"],
            "intermediate_size": shape(state, f"{layer}0.mlp.fc1.weight")[0],
        }

    vision = {"image_size": details["image_px"], "patch_size": patch_px}
    text = {
        "vocab_size": rows,
        "max_position_embeddings": longest,
        "bos_token_id": None,
        "eos_token_id": 1,
        "projection_size": shape(state, "siglip.text_model.head.weight")[0],
    }
    return SiglipConfig(
        vision_config=tower("vision", width) | vision,
        text_config=tower("text", text_width) | text,
    )
