"""CLIP: OpenAI's, LAION's of open_clip, Hugging Face's CLIPModel, PubMedCLIP, CheXzero.

All have the same keys and shapes; which activation they were trained with only the source tells.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor
from transformers import CLIPModel

from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Rule,
    Source,
    State,
    new_scale,
)
from egma_train.model.backbones.clip_sizes import beside_clip, clip_config
from egma_train.model.backbones.preprocessor import prepared

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_CHEXZERO_MEAN, _CHEXZERO_STD = 101.48761 / 255, 83.43944 / 255

_BLOCK, _TOWERS = r"transformer\.resblocks\.(\d+)\.", {"visual\\.": "vision", "": "text"}


def _block_rules(at: str, tower: str) -> list[Rule]:
    block, ours = at + _BLOCK, rf"clip.{tower}_model.encoder.layers.\1."
    return [
        Rule(rf"{block}attn\.in_proj_(\w+)", rf"{ours}self_attn.{{}}_proj.\2", "split"),
        Rule(rf"{block}attn\.out_proj\.(\w+)", rf"{ours}self_attn.out_proj.\2"),
        Rule(rf"{block}ln_(\d)\.(\w+)", rf"{ours}layer_norm\2.\3"),
        Rule(rf"{block}mlp\.c_fc\.(\w+)", rf"{ours}mlp.fc1.\2"),
        Rule(rf"{block}mlp\.c_proj\.(\w+)", rf"{ours}mlp.fc2.\2"),
    ]


class Clip(Backbone):
    """A CLIP with a vision transformer."""

    family = "clip"
    padding_counts = False
    signature = r"visual\.class_embedding|vision_model\.embeddings\.class_embedding"
    rules = (
        Rule(r"(.*\.)?position_ids|attn_mask", None, "made anew with each model"),
        Rule(r"input_resolution|context_length|vocab_size", None, "a constant of the archive"),
        Rule(r"logit_scale", "logit_scale"),
        # Hugging Face's own names.
        Rule(r"((?:text|vision)_model\..*|(?:text|visual)_projection\.weight)", r"clip.\1"),
        Rule(r"visual\.conv1\.weight", "clip.vision_model.embeddings.patch_embedding.weight"),
        Rule(r"visual\.class_embedding", "clip.vision_model.embeddings.class_embedding"),
        Rule(
            r"visual\.positional_embedding",
            "clip.vision_model.embeddings.position_embedding.weight",
        ),
        Rule(r"visual\.ln_pre\.(\w+)", r"clip.vision_model.pre_layrnorm.\1"),
        Rule(r"visual\.ln_post\.(\w+)", r"clip.vision_model.post_layernorm.\1"),
        Rule(r"visual\.proj", "clip.visual_projection.weight", "transpose"),
        Rule(r"token_embedding\.weight", "clip.text_model.embeddings.token_embedding.weight"),
        Rule(r"positional_embedding", "clip.text_model.embeddings.position_embedding.weight"),
        Rule(r"ln_final\.(\w+)", r"clip.text_model.final_layer_norm.\1"),
        Rule(r"text_projection", "clip.text_projection.weight", "transpose"),
        *(rule for at, tower in _TOWERS.items() for rule in _block_rules(at, tower)),
    )
    tokenizer = "openai/clip-vit-base-patch32"
    options_read = ("norm_patches",)
    tokenizer_kind = "BPE"
    licence = "MIT (OpenAI, LAION, CheXzero, PubMedCLIP)"

    clip: Any

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.clip = CLIPModel(clip_config(state, details))
        self.logit_scale = new_scale(state)
        del self.clip.logit_scale  # ours is the one
        self._width = self.clip.config.text_config.hidden_size
        vision = self.clip.config.vision_config
        px = vision.image_size
        self.cautions = (details["caution"],) if details.get("caution") else ()
        self.facts = Facts(
            grid=px // vision.patch_size,
            image_px=px,
            **prepared(details, mean=MEAN, std=STD, geometry=("shorter", px, px, "bicubic", False)),
            max_tokens=self.clip.config.text_config.max_position_embeddings,
            pooling="class token, norm, projection; patches likewise; text at its end token",
            activation=" and ".join(
                dict.fromkeys(
                    details.get(f"{one}_activation", details["activation"])
                    for one in ("vision", "text")
                )
            ),
            licence=self.licence,
        )

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Tell by what stands beside the weights what no shape tells: heads, eps, activation."""
        return beside_clip(source, state, is_openais=cls is not Clip)

    @property
    def vocabulary(self) -> int:
        """Count the words that the text tower has a row for."""
        return int(self.clip.config.text_config.vocab_size)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features.

        A patch passes the norm and the projection of the class token. The published EGMA leaves
        the norm out for patches (``model.norm_patches=false``).
        """
        tokens = self.clip.vision_model(pixel_values=pixels).last_hidden_state
        normed = self.clip.vision_model.post_layernorm(tokens)
        patches = normed if self._details["norm_patches"] else tokens
        project = self.clip.visual_projection
        return project(patches[:, 1:]), project(normed[:, 0])

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``: the state at the end token, the largest id."""
        read = self.clip.text_model(input_ids=input_ids, attention_mask=attention_mask)
        eos = self._details.get("eos")
        own = input_ids if eos is None else (input_ids == eos).long()
        ends = own.argmax(-1)  # the first of equals; some pad with the end token
        at_end = read.last_hidden_state.gather(1, ends[:, None, None].expand(-1, 1, self._width))
        return self.clip.text_projection(at_end[:, 0])


class CheXzero(Clip):
    """OpenAI's CLIP trained on MIMIC-CXR (Tiu et al. 2022), with its own picture of an X-ray."""

    family = "chexzero"
    licence = "MIT"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        own = Geometry("pad", 320, 320, "lanczos")
        self.facts = replace(self.facts, geometry=own, mean=(_CHEXZERO_MEAN,), std=(_CHEXZERO_STD,))
