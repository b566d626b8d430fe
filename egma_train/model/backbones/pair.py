"""Two towers of Hugging Face in one space: VisionTextDualEncoderModel, or any two folders."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    ResNetConfig,
    ResNetModel,
    RobertaConfig,
    RobertaModel,
    SwinConfig,
    SwinModel,
    ViTConfig,
    ViTModel,
)

from egma_train.errors import BadUsageError
from egma_train.geometry import Geometry
from egma_train.model.backbones.backbone import (
    Backbone,
    Facts,
    Rule,
    Source,
    State,
    new_scale,
)
from egma_train.model.backbones.medclip_resnet import text_rule
from egma_train.model.backbones.preprocessor import preparation
from egma_train.model.backbones.towers import cells, mean_of_states, read_bert, shape
from egma_train.options import ModelOptions

VISION: dict[str, tuple[Any, Any]] = {
    "vit": (ViTConfig, ViTModel),
    "dinov2": (Dinov2Config, Dinov2Model),
    "swin": (SwinConfig, SwinModel),
    "resnet": (ResNetConfig, ResNetModel),
}
TEXT: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertModel),
    "cxr-bert": (BertConfig, BertModel),
    "roberta": (RobertaConfig, RobertaModel),
}
_BASE = r"(?:vit\.|dinov2\.|swin\.|resnet\.|bert\.|roberta\.)?"
"""What stands before a tower's names in the files of models with a head of their own."""
_SIZES = {
    "depths", "downsample_in_bottleneck", "downsample_in_first_stage", "embed_dim",
    "embedding_size", "hidden_act", "hidden_size", "hidden_sizes", "image_size",
    "intermediate_size", "layer_norm_eps", "layer_type", "max_position_embeddings", "mlp_ratio",
    "num_attention_heads", "num_heads", "num_hidden_layers", "pad_token_id", "patch_size",
    "qkv_bias", "type_vocab_size", "use_swiglu_ffn", "vocab_size", "window_size",
}  # fmt: skip
"""Of a config.json nothing else is taken: transformers gets kernels and code by other names."""


def plain_sizes(
    described: Mapping[str, Any], kinds: Mapping[str, Any], tower: str
) -> dict[str, Any]:
    """Take a tower's kind and sizes from what others wrote.

    Raises
    ------
    BadUsageError
        For a kind that is not known here.
    """
    kind = described.get("model_type")
    if kind not in kinds:
        raise BadUsageError(
            f"the {tower} tower is a {kind!s:.40}; there are: {', '.join(sorted(kinds))}"
        )
    return {"model_type": kind} | {
        name: value for name, value in described.items() if name in _SIZES
    }


def _prepared(source: Source, vision: Mapping[str, Any]) -> dict[str, Any]:
    any_size = vision.get("model_type") in ("dinov2", "resnet")
    return preparation(source.json("preprocessor_config.json"), vision, any_size=any_size)


def _built(sizes: Mapping[str, Any], kinds: Mapping[str, Any], pooler: bool) -> Any:
    config, model = kinds[sizes["model_type"]]
    own = config(**{name: one for name, one in sizes.items() if name != "model_type"})
    takes = sizes["model_type"] not in ("dinov2", "resnet")
    return model(own, add_pooling_layer=pooler) if takes else model(own)


class DualEncoder(Backbone):
    """VisionTextDualEncoderModel: what the towers' own poolers say, projected."""

    family = "dual-encoder"
    padding_counts = False
    signature = r"visual_projection\.weight"
    rules: Sequence[Rule] = (
        Rule(r"logit_scale", "logit_scale"),
        Rule(r"(.*\.)?position_ids|.*relative_position_index", None, "made anew with each model"),
        Rule(r".*embeddings\.mask_token", None, "of its own pre-training"),
        Rule(r"vision_model\.(.*)", r"vision.\1"),
        Rule(r"text_model\.(.*)", r"text.\1"),
        Rule(r"visual_projection\.weight", "image_head.weight"),
        Rule(r"text_projection\.weight", "text_head.weight"),
    )
    made_here: tuple[str, ...] = ("vision.embeddings.mask_token",)
    tokenizer = "the folder's own"
    text_layers = 0
    options_read: tuple[str, ...] = ("max_tokens",)
    vision: Any
    image_head: Any
    tokenizer_kind = ""
    with_poolers = True

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__(state, details)
        self.vision = _built(details["vision"], VISION, self.with_poolers)
        self.text = _built(details["text"], TEXT, self.with_poolers)
        width, kind = details["projection"], details["vision"]["model_type"]
        sizes = self.vision.config
        seen = sizes.hidden_sizes[-1] if kind == "resnet" else sizes.hidden_size
        self.image_head = nn.Linear(seen, width, bias=False)
        self.text_head = nn.Linear(self.text.config.hidden_size, width, bias=False)
        self.logit_scale = new_scale(state)
        self._has_class_token = kind in ("vit", "dinov2")
        px, reduction = details["image_px"], 32
        if kind in ("vit", "dinov2"):
            reduction = sizes.patch_size
        elif kind == "swin":
            reduction = sizes.patch_size * 2 ** (len(sizes.depths) - 1)
        positions = self.text.config.max_position_embeddings
        # A table of 514 serves 512 tokens.
        positions -= 2 if details["text"]["model_type"] == "roberta" else 0  # begin behind padding
        self.facts = Facts(
            grid=px // reduction,
            image_px=px,
            mean=tuple(details["mean"]),
            std=tuple(details["std"]),
            geometry=Geometry(*details["geometry"]),
            max_tokens=min(positions, details["max_tokens"]),
            pooling=self.pooling_in_words,
            activation=f"{sizes.hidden_act} (image), {self.text.config.hidden_act} (text)",
            licence="of the folders",
        )

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Read both towers' kinds and sizes from config.json."""
        told = source.json("config.json")
        vision, text = (told.get(f"{one}_config", {}) for one in ("vision", "text"))
        return {
            "vision": plain_sizes(vision, VISION, "image"),
            "text": plain_sizes(text, TEXT, "text"),
            "projection": shape(state, "image_head.weight")[0],
            "max_tokens": source.options.max_tokens,
            **_prepared(source, vision),
        }

    pooling_in_words = "the towers' own poolers, linear; patches: last states, linear"

    def _tokens(self, pixels: Tensor) -> tuple[Tensor, Any]:
        """Run the image tower: states ``[k, n, w]`` with a class token if it has one, and all."""
        seen = self.vision(pixels)
        states = seen.last_hidden_state
        return (cells(states) if states.dim() == 4 else states), seen

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        tokens, seen = self._tokens(pixels)
        patches = tokens[:, 1:] if self._has_class_token else tokens
        return self.image_head(patches), self.image_head(seen.pooler_output.flatten(1))

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``."""
        return self.text_head(read_bert(self.text, input_ids, attention_mask).pooler_output)


class Folders(DualEncoder):
    """Any two towers and new projections: class token or mean of patches, mean of text states."""

    family = "folders"
    signature = r"(?!)"  # named by vision= and text=, never found in a file
    rules = (
        Rule(r"(.*\.)?position_ids|.*relative_position_index", None, "made anew with each model"),
        Rule(r".*embeddings\.mask_token", None, "of its own pre-training"),
        Rule(rf"(?:vision|text)\.{_BASE}(?:pooler|cls|lm_head|classifier)\..*", None, "not used"),
        Rule(rf"(vision|text)\.{_BASE}(.*)", r"\1.\2"),
    )
    with_poolers = False
    options_read = ("max_tokens", "projection", "text_states", "average_padding")
    pooling_in_words = "class token or mean of patches; text: mean of states; new projections"

    @classmethod
    def details_of_towers(
        cls, vision: Source, text: Source, options: ModelOptions
    ) -> dict[str, Any]:
        """Read both towers' kinds and sizes from their folders."""
        seen, read = (one.json("config.json") for one in (vision, text))
        return {
            "vision": plain_sizes(seen, VISION, "image"),
            "text": plain_sizes(read, TEXT, "text"),
            "projection": options.projection,
            "max_tokens": options.max_tokens,
            **text_rule(text),
            **_prepared(vision, seen),
        }

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        tokens, _ = self._tokens(pixels)
        if self._has_class_token:
            return self.image_head(tokens[:, 1:]), self.image_head(tokens[:, 0])
        return self.image_head(tokens), self.image_head(tokens.mean(1))

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``: means over tokens and hidden states."""
        how = {name: self._details[name] for name in ("text_states", "average_padding")}
        return self.text_head(mean_of_states(self.text, input_ids, attention_mask, **how))
