"""Towers of transformers whose sizes are read off the shapes of their weights.

What shapes do not tell is given: activation, epsilon, and heads where they are not of 64.
"""

import math
import re
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    ResNetConfig,
    ResNetModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from egma_train.errors import BadUsageError
from egma_train.model.backbones.backbone import State

_TAKES_WHOLE_MASKS = int(version("transformers").partition(".")[0]) >= 5
_HEAD_WIDTH = 64
"""Of every BERT, ViT and CLIP that is published here."""


def shape(state: State, name: str) -> tuple[int, ...]:
    """Read a weight's shape.

    Raises
    ------
    BadUsageError
        If there is no such weight.
    """
    if name not in state:
        raise BadUsageError(f"{name} is missing")
    return tuple(state[name].shape)


def count(state: State, pattern: str) -> int:
    """Count numbered parts, such as layers: one more than the largest number, at least one."""
    numbers = {int(found[1]) for found in map(re.compile(pattern).match, state) if found}
    return max(numbers, default=0) + 1


def heads_of(width: int) -> int:
    """Count attention heads of 64."""
    return max(1, width // _HEAD_WIDTH)


def resnet(state: State, at: str) -> Any:
    """Build a ResNet of bottleneck blocks, such as torchvision's ResNet-50."""
    stages = [rf"{at}encoder.stages.{i}.layer." for i in range(4)]
    if f"{stages[0]}0.layer.2.convolution.weight" not in state:
        raise BadUsageError("the image tower is no ResNet of bottleneck blocks, such as ResNet-50")
    config = ResNetConfig(
        embedding_size=shape(state, f"{at}embedder.embedder.convolution.weight")[0],
        hidden_sizes=[shape(state, f"{one}0.layer.2.convolution.weight")[0] for one in stages],
        depths=[count(state, rf"{re.escape(one)}(\d+)") for one in stages],
    )
    return ResNetModel(config)


def vit(state: State, at: str, *, eps: float) -> Any:
    """Build a vision transformer; timm's have an epsilon of 1e-6, transformers' 1e-12."""
    width, _, patch_px, _ = shape(state, f"{at}embeddings.patch_embeddings.projection.weight")
    positions = shape(state, f"{at}embeddings.position_embeddings")[1]
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=count(state, rf"{re.escape(at)}layer\.(\d+)"),
        num_attention_heads=heads_of(width),
        intermediate_size=shape(state, f"{at}layer.0.mlp.fc1.weight")[0],
        image_size=patch_px * math.isqrt(positions - 1),
        patch_size=patch_px,
        layer_norm_eps=eps,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTModel(config, add_pooling_layer=False)


def swin(state: State, at: str, *, image_px: int) -> Any:
    """Build a Swin transformer."""
    width, _, patch_px, _ = shape(state, f"{at}embeddings.patch_embeddings.projection.weight")
    stages = count(state, rf"{re.escape(at)}layer\.(\d+)")
    tables = [
        shape(state, f"{at}layer.{i}.blocks.0.attention.relative_position_bias_table")
        for i in range(stages)
    ]
    config = SwinConfig(
        image_size=image_px,
        patch_size=patch_px,
        embed_dim=width,
        depths=[count(state, rf"{re.escape(at)}layer\.{i}\.blocks\.(\d+)") for i in range(stages)],
        num_heads=[heads for _, heads in tables],
        window_size=(math.isqrt(tables[0][0]) + 1) // 2,
    )
    return SwinModel(config, add_pooling_layer=False)


def bert_config(state: State, at: str) -> Any:
    """Read the sizes of a BERT."""
    rows, width = shape(state, f"{at}embeddings.word_embeddings.weight")
    layers = count(state, rf"{re.escape(at)}layer\.(\d+)")
    # A file with layers 0 to 3 and 5 would otherwise be read as one of six.
    lacking = [i for i in range(layers) if f"{at}layer.{i}.mlp.fc1.weight" not in state]
    if lacking:
        raise BadUsageError(f"the text tower has no layer {lacking[0]}, but a later one")
    return BertConfig(
        vocab_size=rows,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads_of(width),
        intermediate_size=shape(state, f"{at}layer.0.mlp.fc1.weight")[0],
        max_position_embeddings=shape(state, f"{at}embeddings.position_embeddings.weight")[0],
    )


def bert(state: State, at: str) -> Any:
    """Build a BERT without its pooler."""
    return BertModel(bert_config(state, at), add_pooling_layer=False)


def linear(state: State, at: str, *, bias: bool = True) -> nn.Linear:
    """Build a linear layer of the sizes of its weight."""
    wide, narrow = shape(state, f"{at}.weight")[:2]
    return nn.Linear(narrow, wide, bias=bias)


def upsampled(pixels: Tensor, side_px: int) -> Tensor:
    """Enlarge as GLoRIA and MGCA do inside their ResNets: bilinear, corners on corners."""
    return nn.functional.interpolate(
        pixels, size=(side_px, side_px), mode="bilinear", align_corners=True
    )


def cells(features: Tensor) -> Tensor:
    """Lay the cells of a feature map ``[k, c, h, w]`` in a row: ``[k, h w, c]``."""
    return features.flatten(2).transpose(1, 2)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Average ``[t, l, w]`` over the tokens of a mask ``[t, l]``."""
    weights = mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1)


def mean_of_states(
    tower: Any, ids: Tensor, mask: Tensor, text_states: Sequence[int], average_padding: bool
) -> Tensor:
    """Average some hidden states of a BERT over states and tokens: ``[t, w]``."""
    read = read_bert(tower, ids, mask).hidden_states
    states = torch.stack([read[i] for i in text_states]).mean(0)
    return masked_mean(states, torch.ones_like(mask) if average_padding else mask)


def at_last_token(states: Tensor, mask: Tensor) -> Tensor:
    """Take of ``[t, l, w]`` the state at each text's last real token."""
    ends = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, ends)[:, 0]


def word_sums(states: Tensor, mask: Tensor, begins_word: Tensor) -> tuple[Tensor, Tensor]:
    """Add up the pieces of each word, as GLoRIA and MGCA do.

    Parameters
    ----------
    states, mask : Tensor
        ``[t, l, w]`` and ``[t, l]``; what is not in the mask is no word.
    begins_word : Tensor
        ``[t, l]`` bool: tokens that do not go on with a word.

    Returns
    -------
    tuple of Tensor
        Sums ``[t, m, w]`` and which of them are words, ``[t, m]`` bool.
    """
    counted = mask.bool()
    words = (begins_word & counted).long().cumsum(1)  # 1 for the first
    empty = nn.functional.pad(torch.zeros_like(states), (0, 0, 0, 1))  # as many as tokens
    sums = empty.scatter_add(1, words[..., None].expand_as(states), states * counted[..., None])
    numbers = torch.ones_like(words).cumsum(1)
    return sums[:, 1:], numbers <= words.amax(1, keepdim=True)


def word_begins(tokenizer: Any, rows: int) -> Tensor:
    """Tell of each token of a WordPiece vocabulary whether a word begins with it: ``[rows]``."""
    begins = torch.ones(rows, dtype=torch.bool)
    begins[[number for word, number in tokenizer.get_vocab().items() if word[:2] == "##"]] = False
    return begins


def read_bert(tower: Any, ids: Tensor, mask: Tensor, **more: Any) -> Any:
    """Run a BERT, with every hidden state."""
    if ids.device.type != "cpu" and _TAKES_WHOLE_MASKS:
        # transformers asks a mask of tokens whether it hides any: the host would wait for the card.
        mask = mask.bool()[:, None, None, :]
    return tower(input_ids=ids, attention_mask=mask, output_hidden_states=True, **more)
