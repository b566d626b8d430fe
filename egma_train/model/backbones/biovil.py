"""BioViL (Boecking et al. 2022) and BioViL-T (Bannur et al. 2023): ResNet-50 and CXR-BERT."""

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
from egma_train.model.backbones.naming import bert as bert_rules
from egma_train.model.backbones.naming import torchvision_resnet
from egma_train.model.backbones.towers import bert, cells, linear, read_bert, resnet, shape

_HEAD_EPS = 1e-12
_IMAGE_RULES = (
    Rule(r"encoder\.encoder\.fc\..*", None, "ImageNet's classes"),
    Rule(r"encoder\.vit_pooler\..*", None, "compares with an earlier image, and there is none"),
    Rule(r"projector\.model\.0\.(\w+)", r"projector_first.\1", "squeeze"),
    Rule(r"projector\.model\.1\.(\w+)", r"projector_norm.\1"),
    Rule(r"projector\.model\.3\.(\w+)", r"projector_second.\1", "squeeze"),
    Rule(r"encoder\.backbone_to_vit\.(\w+)", r"to_vit.\1", "squeeze"),
    Rule(r"encoder\.missing_previous_emb", "missing_previous"),
)
_HEAD = r"cls_projection_head\."


class Biovil(Backbone):
    """BioViL: an image's feature is the mean of its projected cells."""

    family = "biovil"
    padding_counts = False
    signature = r"projector\.model\.0\.weight"
    image_px, licence = 480, "MIT"
    rules = (
        *torchvision_resnet(r"encoder\.encoder\.", "vision."),
        *_IMAGE_RULES,
        Rule(rf"{_HEAD}dense_to_hidden\.(\w+)", r"text_first.\1"),
        Rule(rf"{_HEAD}LayerNorm\.(\w+)", r"text_norm.\1"),
        Rule(rf"{_HEAD}dense_to_output\.(\w+)", r"text_second.\1"),
        *bert_rules(r"bert\.", "text."),
        Rule(r"cls\..*", None, "its own pre-training's"),
    )
    tokenizer = "microsoft/BiomedVLP-CXR-BERT-specialized"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = resnet(state, "vision."), bert(state, "text.")
        self.projector_first = linear(state, "projector_first", bias=False)
        self.projector_norm = nn.BatchNorm1d(self.projector_first.out_features)
        self.projector_second = linear(state, "projector_second")
        self.text_first = linear(state, "text_first")
        self.text_norm = nn.LayerNorm(self.text_first.out_features, eps=_HEAD_EPS)
        self.text_second = linear(state, "text_second")
        self.logit_scale = new_scale(state)
        self.facts = Facts(
            grid=self.image_px // 32,
            image_px=self.image_px,
            mean=(0.0,),
            std=(1.0,),
            geometry=Geometry("shorter", 512, self.image_px, "bilinear", stretch=True),
            max_tokens=512,
            pooling="mean of projected cells; text: class token, head of two layers",
            activation="gelu (text)",
            licence=self.licence,
        )

    def cells(self, pixels: Tensor) -> Tensor:
        """Take ``[k, 3, h, w]`` to the cells of the last stage: ``[k, n, w]``."""
        return cells(self.vision(pixels).last_hidden_state)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        first = self.projector_first(self.cells(pixels))
        # A convolution over one cell is a linear layer on it, BatchNorm2d a BatchNorm1d over cells.
        normed = self.projector_norm(first.flatten(0, 1)).unflatten(0, first.shape[:2])
        patches = self.projector_second(normed.relu())
        return patches, patches.mean(1)

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``."""
        token = read_bert(self.text, input_ids, attention_mask).last_hidden_state[:, 0]
        return self.text_second(self.text_norm(nn.functional.gelu(self.text_first(token))))


class BiovilT(Biovil):
    """BioViL-T on a single image: a learnt constant stands for the earlier one."""

    family = "biovil-t"
    signature = r"encoder\.missing_previous_emb"
    image_px = 448
    tokenizer = "microsoft/BiomedVLP-BioViL-T"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.to_vit = linear(state, "to_vit", bias=False)
        self.missing_previous = nn.Parameter(torch.zeros(shape(state, "missing_previous")))

    def cells(self, pixels: Tensor) -> Tensor:
        """Take ``[k, 3, h, w]`` to cells of the image beside those of no earlier one."""
        now = self.to_vit(super().cells(pixels))
        before = self.missing_previous.flatten(1)[:, None].expand(*now.shape[:2], -1)
        return torch.cat([now, before], -1)
