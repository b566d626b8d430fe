"""From the names of published weights to ours, and between the names of transformers' versions."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from torch import Tensor

from egma_train.model.backbones.backbone import Rule, State

_SAME = [
    # transformers 4 and 5 call one weight of BERT, ViT, Swin and DINOv2 by different names.
    (re.compile(r"\b(?:encoder\.)?layers?\.(\d+)"), r"layer.\1"),
    (re.compile(r"attention\.(?:self|attention|relative_position_bias)\."), "attention."),
    (re.compile(r"attention\.query\b"), "attention.q_proj"),
    (re.compile(r"attention\.key\b"), "attention.k_proj"),
    (re.compile(r"attention\.value\b"), "attention.v_proj"),
    (re.compile(r"attention\.output\.dense"), "attention.o_proj"),
    (re.compile(r"intermediate\.dense"), "mlp.fc1"),
    (re.compile(r"(?<!attention\.)\boutput\.dense"), "mlp.fc2"),
]


def canonical(name: str) -> str:
    """Name a weight so that every version of transformers means the same."""
    for pattern, same in _SAME:
        name = pattern.sub(same, name)
    return name


class Renamed(NamedTuple):
    """A file's weights under our canonical names, and what has none.

    Attributes
    ----------
    tensors : dict
    published : dict
        Our name to the file's.
    left_out : dict
        The file's name to the reason.
    unexpected : list of str
    reshaped : Counter
        How often weights were changed in shape, by how.
    """

    tensors: dict[str, Tensor]
    published: dict[str, str]
    left_out: dict[str, str]
    unexpected: list[str]
    reshaped: Counter[str]


def renamed(state: State, rules: Sequence[Rule]) -> Renamed:
    """Bring a published state to our names."""
    made = Renamed({}, {}, {}, [], Counter())
    known = [(re.compile(rule.pattern), rule) for rule in rules]
    for name, tensor in state.items():
        # The first rule that fits: what is left out stands before what would take it.
        fit = ((found, rule) for one, rule in known if (found := one.fullmatch(name)))
        found, rule = next(fit, (None, None))
        if found is None or rule is None:
            made.unexpected.append(name)
        elif rule.ours is None:
            made.left_out[name] = rule.how
        else:
            parts = list(_parts(found.expand(rule.ours), tensor, rule.how))
            if len(parts) > 1 or parts[0][1].shape != tensor.shape:
                made.reshaped[rule.how] += 1
            for own, part in parts:
                made.tensors[canonical(own)] = part
                made.published[canonical(own)] = name
    return made


def _parts(ours: str, tensor: Tensor, how: str) -> Iterable[tuple[str, Tensor]]:
    if how == "split":
        parts = zip("qkv", tensor.chunk(3), strict=True)
        return [(ours.format(letter), part) for letter, part in parts]
    if how == "transpose":
        return [(ours, tensor.T)]
    if how == "squeeze":
        return [(ours, tensor.reshape(tensor.shape[:2]))]  # a bias has one axis and stays
    return [(ours, tensor)]


def torchvision_resnet(at: str, ours: str) -> list[Rule]:
    """Rule a ResNet of torchvision: `at` is a pattern, such as ``img_encoder\\.model\\.``."""
    stem = f"{ours}embedder.embedder."
    rules = [
        Rule(rf"{at}conv1\.(\w+)", rf"{stem}convolution.\1"),
        Rule(rf"{at}bn1\.(\w+)", rf"{stem}normalization.\1"),
    ]
    for layer in range(1, 5):  # a template cannot subtract 1
        block = rf"{at}layer{layer}\.(\d+)\."
        inside = rf"{ours}encoder.stages.{layer - 1}.layers.\1."
        kinds = (("conv", "convolution"), ("bn", "normalization"))
        rules += [
            Rule(rf"{block}{old}{k}\.(\w+)", rf"{inside}layer.{k - 1}.{new}.\2")
            for k in (1, 2, 3)
            for old, new in kinds
        ]
        rules += [
            Rule(rf"{block}downsample\.{k}\.(\w+)", rf"{inside}shortcut.{new}.\2")
            for k, (_, new) in enumerate(kinds)
        ]
    return rules


def timm_vit(at: str, ours: str) -> list[Rule]:
    """Rule a vision transformer of timm, as MGCA and open_clip keep it."""
    block, inside = rf"{at}blocks\.(\d+)\.", rf"{ours}layer.\1."
    return [
        Rule(rf"{at}cls_token", f"{ours}embeddings.cls_token"),
        Rule(rf"{at}pos_embed", f"{ours}embeddings.position_embeddings"),
        Rule(rf"{at}patch_embed\.proj\.(\w+)", rf"{ours}embeddings.patch_embeddings.projection.\1"),
        Rule(rf"{block}norm1\.(\w+)", rf"{inside}layernorm_before.\2"),
        Rule(rf"{block}norm2\.(\w+)", rf"{inside}layernorm_after.\2"),
        Rule(rf"{block}attn\.qkv\.(\w+)", rf"{inside}attention.{{}}_proj.\2", "split"),
        Rule(rf"{block}attn\.proj\.(\w+)", rf"{inside}attention.o_proj.\2"),
        Rule(rf"{block}mlp\.(fc\d)\.(\w+)", rf"{inside}mlp.\2.\3"),
        Rule(rf"{at}norm\.(\w+)", rf"{ours}layernorm.\1"),
        Rule(rf"{at}head\..*", None, "ImageNet's classes"),
    ]


def bert(at: str, ours: str) -> list[Rule]:
    """Rule a BERT of transformers without its pooler."""
    return [
        Rule(rf"{at}embeddings\.position_ids", None, "made anew with each model"),
        Rule(rf"{at}pooler\..*", None, "the pooler is not used"),
        Rule(rf"{at}cls\..*", None, "its own pre-training's"),
        Rule(rf"{at}((?:embeddings|encoder)\..*)", rf"{ours}\1"),
    ]
