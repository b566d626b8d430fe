"""EGMA's two towers: Swin for patches, BERT for sentences, both projected to one space."""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from egma_train.errors import BadUsageError, first_line
from egma_train.key_names import BUFFERS, as_in_model, as_on_disk
from egma_train.options import ModelOptions, Options, with_changes

LOGIT_SCALE = math.log(1 / 0.07)
LOGIT_SCALE_BOUNDS = (0.0, math.log(100))

_CONFIG, _WEIGHTS = "egma.json", "model.safetensors"


class Features(NamedTuple):
    """What the towers say of k images and t sentences.

    Attributes
    ----------
    patches : Tensor
        ``[k, 49, 512]``, row-major.
    images : Tensor
        ``[k, 512]``, pooled.
    sentences : Tensor
        ``[t, 512]``.
    scale : Tensor
        exp(logit_scale).
    """

    patches: Tensor
    images: Tensor
    sentences: Tensor
    scale: Tensor


class ImageTower(nn.Module):
    """A Swin transformer and a projection, under MedCLIP's names."""

    def __init__(self, config: SwinConfig, options: ModelOptions) -> None:
        super().__init__()
        self.model = SwinModel(config, add_pooling_layer=False)
        self.projection_head = nn.Linear(config.hidden_size, options.projection, bias=False)
        self._norm_patches = options.norm_patches

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        seen = self.model(images, output_hidden_states=not self._norm_patches)
        normed = seen.last_hidden_state
        patches = normed if self._norm_patches else seen.hidden_states[-1]
        return self.projection_head(patches), self.projection_head(normed.mean(1))


class TextTower(nn.Module):
    """A BERT and a projection, under MedCLIP's names."""

    def __init__(self, config: BertConfig, options: ModelOptions) -> None:
        super().__init__()
        self.model = BertModel(config, add_pooling_layer=False)
        self.projection_head = nn.Linear(config.hidden_size, options.projection, bias=False)
        self._states, self._average_padding = options.text_states, options.average_padding

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to sentences ``[t, d]``: means over tokens and hidden states."""
        read = self.model(
            input_ids=input_ids, attention_mask=attention_mask, output_hidden_states=True
        )
        states = torch.stack([read.hidden_states[i] for i in self._states]).mean(0)  # (t, l, w)
        counted = torch.ones_like(attention_mask) if self._average_padding else attention_mask
        weights = counted.to(states.dtype)[..., None]
        return self.projection_head((states * weights).sum(1) / weights.sum(1))


class EgmaModel(nn.Module):
    """The model of the paper; weights from `egma_train.weights`, a run, or random.

    Parameters
    ----------
    swin, bert
        Configurations of the towers.
    options : ModelOptions
        What is taken from them.
    """

    def __init__(self, swin: SwinConfig, bert: BertConfig, options: ModelOptions) -> None:
        super().__init__()
        _check(swin, bert, options)
        self.options = options
        self.vision_model = ImageTower(swin, options)
        self.text_model = TextTower(bert, options)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Features:
        """Encode images ``[k, 3, h, w]`` and sentences ``[t, l]``."""
        patches, pooled = self.vision_model(images)
        sentences = self.text_model(input_ids, attention_mask)
        return Features(patches, pooled, sentences, self.logit_scale.exp())

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale in [1, 100]; after each step."""
        self.logit_scale.clamp_(*LOGIT_SCALE_BOUNDS)

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        for tower in (self.vision_model.model, self.text_model.model):
            turn_on = getattr(tower, "activation_checkpointing_enable", None)
            (turn_on or tower.gradient_checkpointing_enable)()

    def save_pretrained(self, folder: Path) -> None:
        """Write configuration and weights; names as MedCLIP's and the published EGMA's."""
        folder.mkdir(parents=True, exist_ok=True)
        towers = {"swin": self.vision_model.model.config, "bert": self.text_model.model.config}
        described = {name: config.to_diff_dict() for name, config in towers.items()}
        described["options"] = vars(self.options)
        (folder / _CONFIG).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
        weights = {
            as_on_disk(name): tensor.contiguous()
            for name, tensor in self.state_dict().items()
            if not BUFFERS.search(name)
        }
        save_file(weights, folder / _WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "EgmaModel":
        """Read what `save_pretrained` wrote.

        Raises
        ------
        BadUsageError
            If it is missing or damaged.
        """
        try:
            described = json.loads((folder / _CONFIG).read_text())
            configs = SwinConfig(**described["swin"]), BertConfig(**described["bert"])
            chosen, stored = described["options"], load_file(folder / _WEIGHTS)
        except FileNotFoundError as error:
            raise BadUsageError(f"{folder} is no EGMA model: {error.filename} is missing") from None
        except Exception as error:
            raise BadUsageError(f"the model in {folder} is damaged ({first_line(error)})") from None
        options = with_changes(Options(), {"model": chosen}).model
        try:
            model = cls(*configs, options)
            own = model.state_dict()
            buffers = {name: one for name, one in own.items() if BUFFERS.search(name)}
            named = {as_in_model(name, own): one for name, one in stored.items()}
            weights = {name: one for name, one in named.items() if not BUFFERS.search(name)}
            model.load_state_dict(weights | buffers)
        except (RuntimeError, TypeError, ValueError):  # of torch and transformers, in many lines
            raise BadUsageError(
                f"the model in {folder} is damaged ({_WEIGHTS} is not of {_CONFIG}'s sizes)"
            ) from None
        return model


def is_own_model(folder: Path) -> bool:
    """Tell whether a folder holds what `EgmaModel.save_pretrained` wrote."""
    return (folder / _CONFIG).is_file()


def new_configs(options: ModelOptions, vocabulary: int) -> tuple[SwinConfig, BertConfig]:
    """Describe towers of the sizes in `options`, for random weights."""
    swin = SwinConfig(
        image_size=options.image_px,
        patch_size=options.patch_px,
        embed_dim=options.swin_width,
        depths=list(options.swin_depths),
        num_heads=list(options.swin_heads),
        drop_path_rate=options.swin_drop_path,
        window_size=7,
    )
    bert = BertConfig(
        vocab_size=vocabulary,
        hidden_size=options.text_width,
        num_hidden_layers=options.text_layers or 12,
        num_attention_heads=options.text_heads,
        intermediate_size=4 * options.text_width,
        hidden_dropout_prob=options.text_dropout,
        attention_probs_dropout_prob=options.text_dropout,
    )
    return swin, bert


def _check(swin: Any, bert: Any, options: ModelOptions) -> None:
    patches = swin.image_size // (swin.patch_size * 2 ** (len(swin.depths) - 1))
    if (swin.image_size, patches) != (options.image_px, 7):
        raise BadUsageError(
            f"the image tower makes {patches} x {patches} patches of {swin.image_size} px;"
            f" the shards' grids need 7 x 7 of model.image_px={options.image_px}"
        )
    if max(-min(options.text_states), max(options.text_states) + 1) > bert.num_hidden_layers + 1:
        raise BadUsageError(
            f"model.text_states {options.text_states} ask for more than the text tower's"
            f" {bert.num_hidden_layers} layers"
        )
