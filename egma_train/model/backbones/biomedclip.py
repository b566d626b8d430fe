"""BiomedCLIP (Zhang et al. 2023), as open_clip keeps it: ViT-B/16 of timm and PubMedBERT."""

import math
from typing import Any

from torch import Tensor, nn

from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Rule,
    Source,
    State,
    new_scale,
)
from egma_train.model.backbones.clip import MEAN, STD
from egma_train.model.backbones.naming import bert as bert_rules
from egma_train.model.backbones.naming import timm_vit
from egma_train.model.backbones.preprocessor import of_open_clip, prepared
from egma_train.model.backbones.towers import bert, linear, read_bert, shape, vit


class BiomedClip(Backbone):
    """BiomedCLIP's towers and heads."""

    family = "biomedclip"
    padding_counts = False
    signature = r"visual\.trunk\.cls_token"
    rules = (
        Rule(r"logit_scale", "logit_scale"),
        Rule(r"visual\.head\.proj\.(\w+)", r"image_head.\1"),
        *timm_vit(r"visual\.trunk\.", "vision."),
        Rule(r"text\.proj\.0\.(\w+)", r"text_first.\1"),
        Rule(r"text\.proj\.2\.(\w+)", r"text_second.\1"),
        *bert_rules(r"text\.transformer\.", "text."),
    )
    tokenizer = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = vit(state, "vision.", eps=1e-6), bert(state, "text.")
        self.image_head = linear(state, "image_head", bias=False)
        self.text_first = linear(state, "text_first", bias=False)
        self.text_second = linear(state, "text_second", bias=False)
        self.logit_scale = new_scale(state)
        px = self.vision.config.image_size
        self.facts = Facts(
            grid=px // self.vision.config.patch_size,
            image_px=px,
            **prepared(details, mean=MEAN, std=STD, geometry=("shorter", px, px, "bicubic", False)),
            max_tokens=256,
            pooling="class tokens, linear; patches likewise; text: head of two layers",
            activation="gelu",
            licence="MIT, for research by its card",
        )

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Read how pictures are prepared from open_clip_config.json, if it is there."""
        told = source.json("open_clip_config.json").get("preprocess_cfg")
        positions = shape(state, "vision.embeddings.position_embeddings")[1]
        patch_px = shape(state, "vision.embeddings.patch_embeddings.projection.weight")[-1]
        px = patch_px * math.isqrt(positions - 1)
        return {"prepared": of_open_clip(told, px)} if told else {}

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        tokens = self.image_head(self.vision(pixels).last_hidden_state)
        return tokens[:, 1:], tokens[:, 0]

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``."""
        # open_clip's "cls_last_hidden_state_pooler": the state itself, not BERT's own pooler.
        token = read_bert(self.text, input_ids, attention_mask).last_hidden_state[:, 0]
        return self.text_second(nn.functional.gelu(self.text_first(token)))
