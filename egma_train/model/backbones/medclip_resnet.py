"""MedCLIP (Wang et al. 2022) with a ResNet-50; its Swin is `egma_train.model.egma`'s."""

from typing import Any

from torch import Tensor

from egma_train.geometry import FRAME
from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Rule,
    Source,
    State,
    new_scale,
)
from egma_train.model.backbones.naming import bert, torchvision_resnet
from egma_train.model.backbones.towers import bert as bert_tower
from egma_train.model.backbones.towers import cells, linear, mean_of_states, resnet
from egma_train.options import ModelOptions


class MedclipResnet(Backbone):
    """MedCLIP's other image tower, whose classifier is the projection."""

    family = "medclip-resnet"
    signature = r"vision_model\.model\.conv1\.weight"
    rules = (
        Rule(r"logit_scale", "logit_scale"),
        *torchvision_resnet(r"vision_model\.model\.", "vision."),
        Rule(r"vision_model\.model\.fc\.(\w+)", r"image_head.\1"),
        *bert(r"text_model\.model\.", "text."),
        Rule(r"text_model\.projection_head\.(\w+)", r"text_head.\1"),
    )
    options_read = ("text_states", "average_padding")
    tokenizer = "emilyalsentzer/Bio_ClinicalBERT"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = resnet(state, "vision."), bert_tower(state, "text.")
        self.image_head = linear(state, "image_head", bias=False)
        self.text_head = linear(state, "text_head", bias=False)
        self.logit_scale = new_scale(state)
        own = ModelOptions()
        self.facts = Facts(
            grid=7,
            image_px=224,
            mean=(own.image_mean,),
            std=(own.image_std,),
            geometry=FRAME,
            max_tokens=77,
            pooling=f"mean of stage 4, linear; text: mean of states {details['text_states']}",
            activation="gelu (text)",
            licence="not stated (setup.py says BSD)",
        )

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Take which hidden states are averaged from the options."""
        return text_rule(source)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 49, d]`` and pooled ``[k, d]`` features."""
        # fc is linear: the mean of what it says of cells is what it says of their mean.
        patches = self.image_head(cells(self.vision(pixels).last_hidden_state))
        return patches, patches.mean(1)

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``: means over tokens and hidden states."""
        return self.text_head(mean_of_states(self.text, input_ids, attention_mask, **self._details))


def text_rule(source: Source) -> dict[str, Any]:
    """Take from the options how a text's hidden states are averaged."""
    wanted = source.options
    return {"text_states": list(wanted.text_states), "average_padding": wanted.average_padding}
