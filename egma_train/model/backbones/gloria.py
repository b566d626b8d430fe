"""GLoRIA (Huang et al. 2021): ResNet-50 and Bio_ClinicalBERT, local features of its third stage."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
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
    word_begins,
    word_sums,
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
    padding_counts = False
    signature = rf"{_AT}img_encoder\.global_embedder\.weight"
    rules = (
        *torchvision_resnet(rf"{_AT}img_encoder\.model\.", "vision."),
        Rule(rf"{_AT}img_encoder\.model\.fc\..*", None, "ImageNet's classes"),
        Rule(rf"{_AT}img_encoder\.global_embedder\.(\w+)", r"global_head.\1"),
        Rule(rf"{_AT}img_encoder\.local_embedder\.(\w+)", r"local_head.\1", "squeeze"),
        *bert(rf"{_AT}text_encoder\.model\.", "text."),
    )
    begins_word: Tensor
    tokenizer = "emilyalsentzer/Bio_ClinicalBERT"

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision, self.text = resnet(state, "vision."), bert_tower(state, "text.")
        self.global_head = linear(state, "global_head")
        self.local_head = linear(state, "local_head", bias=False)
        self.logit_scale = new_scale(state)
        rows = torch.ones(self.text.config.vocab_size, dtype=torch.bool)
        self.register_buffer("begins_word", rows, persistent=False)
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
        """Clean texts first, and learn which tokens go on with a word."""
        self.begins_word = word_begins(tokenizer, self.vocabulary)
        return RuledTokenizer(tokenizer, clean)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, 224, 224]`` to patches ``[k, 361, d]`` and pooled ``[k, d]`` features."""
        # The published code enlarges inside the model, whatever it is fed: 16 px cells of 299 are
        # 12 px of the picture.
        seen = self.vision(upsampled(pixels, _IN_MODEL_PX), output_hidden_states=True)
        third, fourth = seen.hidden_states[3], seen.last_hidden_state
        return self.local_head(cells(third)), self.global_head(fourth.mean((2, 3)))

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``; words are sums of pieces, so tokens do as well."""
        # Divided by the padded length in the published code, which cancels in a cosine.
        return masked_mean(self._read(input_ids, attention_mask), attention_mask)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        read: Tensor = sum(read_bert(self.text, ids, mask).hidden_states[-4:])
        return read

    def local_similarities(
        self, patches: Tensor, input_ids: Tensor, attention_mask: Tensor
    ) -> Tensor:
        """Score images by patches ``[k, n, d]`` against texts ``[t, l]``: ``[k, t]``.

        A word attends to the patches (softmax over words, times 4, softmax over patches); five
        times the largest cosine of a word and what it attends to. Words are counted, where the
        published code counts letters and lets padding take part.
        """
        inner = attention_mask.clone()
        inner.scatter_(1, attention_mask.sum(1, keepdim=True) - 1, 0)  # the separator is no word
        inner[:, 0] = 0
        states = self._read(input_ids, attention_mask)
        sums, counted = word_sums(states, inner, self.begins_word[input_ids])
        scores = []
        for own, real in zip(sums, counted, strict=True):
            words = own[real] if bool(real.any()) else own[:1]  # of an empty text: nothing
            # A patch chooses among words first, then a word among patches.
            shares = (patches @ words.T).softmax(-1)  # (k, n, words)
            seen = (4 * shares.mT).softmax(-1) @ patches  # (k, words, d)
            cosines = nn.functional.cosine_similarity(words[None], seen, dim=-1)
            scores.append(5 * cosines.amax(-1))
        return torch.stack(scores, 1)
