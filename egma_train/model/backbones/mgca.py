"""MGCA (Wang et al. 2022): ViT-B/16 or ResNet-50, and a BERT of six layers without word order."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Rule,
    State,
    new_scale,
)
from egma_train.model.backbones.naming import bert, timm_vit, torchvision_resnet
from egma_train.model.backbones.towers import (
    bert as bert_tower,
)
from egma_train.model.backbones.towers import (
    cells,
    linear,
    masked_mean,
    read_bert,
    resnet,
    shape,
    upsampled,
    vit,
    word_begins,
    word_sums,
)

_IN_MODEL_PX, _RESNET_GRID = 299, 19
_HEADS = {"img_encoder_q": "image", "text_encoder_q": "text"}


class Head(nn.Module):
    """Linear, BatchNorm, ReLU, linear, BatchNorm without weights; for rows ``[..., w]``."""

    def __init__(self, state: State, at: str) -> None:
        super().__init__()
        self.first = linear(state, f"{at}.first")
        self.first_norm = nn.BatchNorm1d(shape(state, f"{at}.first_norm.weight")[0])
        self.second = linear(state, f"{at}.second")
        self.second_norm = nn.BatchNorm1d(self.second.out_features, affine=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Take ``[..., w]`` to ``[..., d]``."""
        # BatchNorm1d takes features along the second axis: patches are rows like images.
        flat = self.first_norm(self.first(rows.flatten(0, -2))).relu()
        return self.second_norm(self.second(flat)).unflatten(0, rows.shape[:-1])


def _head_rules() -> list[Rule]:
    layers = {"0": "first", "1": "first_norm", "3": "second", "4": "second_norm"}
    return [
        # A local head's linear layers are convolutions over one cell: (out, in, 1).
        Rule(
            rf"{tower}\.{which}_embed\.head\.{number}\.(\w+)",
            rf"{ours}_{which}.{name}.\1",
            "squeeze",
        )
        for tower, ours in _HEADS.items()
        for which in ("global", "local")
        for number, name in layers.items()
    ]


class _Mgca(Backbone):
    """What both have in common: heads and the text tower."""

    padding_counts = False
    tokenizer = "emilyalsentzer/Bio_ClinicalBERT"
    text_layers = 6
    text: Any
    begins_word: Tensor
    made_here = ("text.embeddings.token_type_embeddings.weight",)
    common: Sequence[Rule] = (
        *_head_rules(),
        Rule(r"(patch|word)_local_atten_layer\..*|prototype_layer\..*", None, "of its losses"),
        Rule(r"text_encoder_q\.model\..*crossattention\..*", None, "not used for a text alone"),
        *bert(r"text_encoder_q\.model\.", "text."),
    )

    def __init__(self, state: State, details: dict[str, Any], grid: int) -> None:
        super().__init__(state, details)
        self.text = bert_tower(state, "text.")
        types = self.text.embeddings.token_type_embeddings.weight
        types.data.zero_()  # MGCA's BERT has none: nothing is added for them
        types.requires_grad_(False)
        rows = torch.ones(self.text.config.vocab_size, dtype=torch.bool)
        self.register_buffer("begins_word", rows, persistent=False)
        self.image_global, self.image_local = (
            Head(state, "image_global"),
            Head(state, "image_local"),
        )
        self.text_global, self.text_local = Head(state, "text_global"), Head(state, "text_local")
        self.logit_scale = new_scale(state)
        self.facts = Facts(
            grid=grid,
            image_px=224,
            mean=(0.5,),
            std=(0.5,),
            geometry=Geometry("pad", 256, 224, "area"),
            max_tokens=112,
            pooling="global heads of the image and of the text's class token; patches and words"
            " (averaged) by local heads",
            activation="gelu",
            licence="not stated",
        )

    def reader(self, tokenizer: Any) -> Any:
        """Learn which tokens go on with a word."""
        self.begins_word = word_begins(tokenizer, self.vocabulary)
        return tokenizer

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Read texts as MGCA does: its third positional argument made every position 0."""
        # The weights were trained so: with ordinary positions the features are others, and nothing
        # else tells.
        return read_bert(self.text, ids, mask, position_ids=torch.zeros_like(ids)).last_hidden_state

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]`` by the class token's global head."""
        return self.text_global(self._read(input_ids, attention_mask)[:, 0])

    def sentences(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``: the mean of what the local head says of words.

        A word is the sum of its pieces; the class token is none, the separator is one.
        """
        states, mask = self._read(input_ids, attention_mask)[:, 1:], attention_mask[:, 1:]
        sums, counted = word_sums(states, mask, self.begins_word[input_ids[:, 1:]])
        return masked_mean(self.text_local(sums), counted)


class MgcaVit(_Mgca):
    """MGCA with a ViT."""

    family = "mgca-vit"
    signature = r"img_encoder_q\.model\.cls_token"
    rules = (*timm_vit(r"img_encoder_q\.model\.", "vision."), *_Mgca.common)

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        tower = vit(state, "vision.", eps=1e-6)
        super().__init__(state, details, tower.config.image_size // tower.config.patch_size)
        self.vision = tower

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 196, d]`` and pooled ``[k, d]`` features."""
        tokens = self.vision(pixels).last_hidden_state
        return self.image_local(tokens[:, 1:]), self.image_global(tokens[:, 0])


class MgcaResnet(_Mgca):
    """MGCA with a ResNet-50."""

    family = "mgca-resnet"
    signature = r"img_encoder_q\.model\.conv1\.weight"
    rules = (*torchvision_resnet(r"img_encoder_q\.model\.", "vision."), *_Mgca.common)

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details, _RESNET_GRID)
        self.vision = resnet(state, "vision.")

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 361, d]`` and pooled ``[k, d]`` features."""
        seen = self.vision(upsampled(pixels, _IN_MODEL_PX), output_hidden_states=True)
        third, fourth = seen.hidden_states[3], seen.last_hidden_state
        return self.image_local(cells(third)), self.image_global(fourth.mean((2, 3)))
