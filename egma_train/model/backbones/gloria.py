"""GLoRIA (Huang et al. 2021): ResNet-50 and Bio_ClinicalBERT, local features of its third stage."""

import re
from typing import Any

from torch import Tensor

from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Geometry,
    Rule,
    RuledTokenizer,
    State,
    new_scale,
)
from egma_train.model.backbones.naming import bert, torchvision_resnet
from egma_train.model.backbones.towers import (
    bert as bert_tower,
)
from egma_train.model.backbones.towers import (
    cells,
    linear,
    masked_mean,
    read_bert,
    resnet,
    upsampled,
)

_IN_MODEL_PX = 299
_GRID = 19
"""Cells of the third stage of 299 px, 16 px each."""
_AT = r"(?:gloria\.)?"


def clean(text: str) -> str:
    """Clean a text as GLoRIA cleans reports: sentences of two words and more, in small letters.

    A prompt of one word would vanish whole; it is kept as it is.
    """
    sentences = (re.findall(r"\w+", one) for one in re.split(r"\d+\.|\.", text.lower()))
    kept = (word for words in sentences if len(words) > 1 for word in words)
    plain = (word.encode("ascii", "ignore").decode() for word in kept)
    return " ".join(filter(None, plain)) or text


class Gloria(Backbone):
    """GLoRIA's two towers and their heads."""

    family = "gloria"
    signature = rf"{_AT}img_encoder\.global_embedder\.weight"
    rules = (
        *torchvision_resnet(rf"{_AT}img_encoder\.model\.", "vision."),
        Rule(rf"{_AT}img_encoder\.model\.fc\..*", None, "ImageNet's classes"),
        Rule(rf"{_AT}img_encoder\.global_embedder\.(\w+)", r"global_head.\1"),
        Rule(rf"{_AT}img_encoder\.local_embedder\.(\w+)", r"local_head.\1", "squeeze"),
        *bert(rf"{_AT}text_encoder\.model\.", "text."),
    )
    tokenizer = "emilyalsentzer/Bio_ClinicalBERT"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = resnet(state, "vision."), bert_tower(state, "text.")
        self.global_head = linear(state, "global_head")
        self.local_head = linear(state, "local_head", bias=False)
        self.logit_scale = new_scale(state)
        self.facts = Facts(
            grid=_GRID,
            image_px=224,
            mean=(0.5,),
            std=(0.5,),
            geometry=Geometry("pad", 256, 224, "area"),
            max_tokens=97,
            pooling="mean of stage 4, linear; patches: stage 3 of 299 px, linear; text: mean over"
            " tokens of the sum of the last four states",
            activation="gelu (text)",
            licence="code Apache-2.0; the weights' terms are not stated",
        )

    def reader(self, tokenizer: Any) -> Any:
        """Clean texts first."""
        return RuledTokenizer(tokenizer, clean)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 361, d]`` and pooled ``[k, d]`` features."""
        seen = self.vision(upsampled(pixels, _IN_MODEL_PX), output_hidden_states=True)
        third, fourth = seen.hidden_states[3], seen.last_hidden_state
        return self.local_head(cells(third)), self.global_head(fourth.mean((2, 3)))

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``; words are sums of pieces, so tokens do as well."""
        states = read_bert(self.text, input_ids, attention_mask).hidden_states[-4:]
        return masked_mean(sum(states), attention_mask)
