"""CXR-CLIP (You et al. 2023): ResNet-50 or Swin-T and Bio_ClinicalBERT."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

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
from egma_train.model.backbones.towers import (
    at_last_token,
    bert,
    cells,
    linear,
    read_bert,
    resnet,
    swin,
)


class CxrClip(Backbone):
    """CXR-CLIP with a ResNet-50."""

    family = "cxr-clip"
    padding_counts = False
    signature = r"image_encoder\.resnet\.conv1\.weight"
    common = (
        Rule(r"logit_scale", "logit_scale"),
        Rule(r"image_projection\.projection\.(\w+)", r"image_head.\1"),
        Rule(r"text_projection\.projection\.(\w+)", r"text_head.\1"),
        *bert_rules(r"text_encoder\.text_encoder\.", "text."),
    )
    rules: Sequence[Rule] = (
        *torchvision_resnet(r"image_encoder\.resnet\.", "vision."),
        Rule(r"image_encoder\.resnet\.fc\..*", None, "ImageNet's classes"),
        *common,
    )
    tokenizer = "emilyalsentzer/Bio_ClinicalBERT"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Of ImageNet."""
    pooled = "mean of stage 4"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = self.tower(state), bert(state, "text.")
        self.image_head, self.text_head = linear(state, "image_head"), linear(state, "text_head")
        self.logit_scale = new_scale(state)
        self.facts = Facts(
            grid=7,
            image_px=224,
            mean=self.mean,
            std=self.std,
            geometry=Geometry("shorter", 224, 224, "bilinear"),
            max_tokens=256,
            pooling=f"{self.pooled}, linear; text: last real token, linear",
            activation="gelu (text)",
            licence="CC BY-NC-SA 4.0",
        )

    def tower(self, state: State) -> Any:
        """Build the image tower."""
        return resnet(state, "vision.")

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 49, d]`` and pooled ``[k, d]`` features."""
        patches = self.image_head(cells(self.vision(pixels).last_hidden_state))
        return patches, patches.mean(1)

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``."""
        states = read_bert(self.text, input_ids, attention_mask).last_hidden_state
        # [SEP], also of a text that was cut: tokenizers keep it at the end.
        return self.text_head(at_last_token(states, attention_mask))


class CxrClipSwin(CxrClip):
    """CXR-CLIP with a Swin-T, whose image feature is that of the first patch."""

    family = "cxr-clip-swin"
    signature = r"image_encoder\.image_encoder\.embeddings\.patch_embeddings\.projection\.weight"
    rules = (
        Rule(r"image_encoder\.image_encoder\.pooler\..*", None, "the pooler is not used"),
        Rule(r".*relative_position_index", None, "made anew with each model"),
        Rule(r"image_encoder\.image_encoder\.(.*)", r"vision.\1"),
        *CxrClip.common,
    )
    mean, std = (0.5,), (0.5,)
    pooled = "the first patch, top left, as its code has it"

    def tower(self, state: State) -> Any:
        """Build the image tower."""
        return swin(state, "vision.", image_px=224)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 49, d]`` and pooled ``[k, d]`` features."""
        patches = self.image_head(self.vision(pixels).last_hidden_state)
        return patches, patches[:, 0]
