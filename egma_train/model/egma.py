"""EGMA's two towers: Swin for patches, BERT for sentences, both projected to one space."""

import json
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from egma_train.errors import BadUsageError, first_line
from egma_train.geometry import FRAME
from egma_train.model.backbones.backbone import (
    CONFIG,
    LOGIT_SCALE,
    WEIGHTS,
    Backbone,
    Facts,
    State,
)
from egma_train.model.backbones.towers import mean_of_states
from egma_train.model.key_names import BUFFERS, as_in_model, as_on_disk
from egma_train.options import ModelOptions, Options, with_changes

# Of BERT-like and Swin-like towers known: 96 layers of 4,096 at most, windows of 24.
_LARGEST_BERT = {
    "vocab_size": 10**6,
    "hidden_size": 4096,
    "num_hidden_layers": 96,
    "num_attention_heads": 4096,
    "intermediate_size": 4 * 4096,
    "max_position_embeddings": 2**16,
    "type_vocab_size": 2**10,
}
_LARGEST_SWIN = {
    "image_size": 4096,
    "patch_size": 4096,
    "num_channels": 16,
    "embed_dim": 4096,
    "window_size": 32,
    "mlp_ratio": 16,
}
_LAST_GRID = 7
_MOST_STAGES, _MOST_BLOCKS = 6, 96
_KNOWN = {
    BertConfig: {*_LARGEST_BERT, "hidden_act", "hidden_dropout_prob", "layer_norm_eps"}
    | {"attention_probs_dropout_prob", "initializer_range", "pad_token_id"},
    SwinConfig: {*_LARGEST_SWIN, "depths", "num_heads", "qkv_bias", "hidden_act", "layer_norm_eps"}
    | {"hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"}
    | {"use_absolute_embeddings", "initializer_range", "encoder_stride"},
}
_CHANNELS = 3
"""A grey frame goes in three times, as ImageNet's Swins were trained."""
_SPARE_NUMBERS = 10**7


class TowerError(BadUsageError):
    """A tower cannot be built, or not used; `part` is ``vision`` or ``text``."""

    def __init__(self, part: str, told: str) -> None:
        super().__init__(told)
        self.part = part


class ImageTower(nn.Module):
    """A Swin transformer and a projection, under MedCLIP's names."""

    def __init__(self, config: SwinConfig, options: ModelOptions) -> None:
        super().__init__()
        self.model = SwinModel(config, add_pooling_layer=False)
        self.projection_head = nn.Linear(config.hidden_size, options.projection, bias=False)
        self._norm_patches = options.norm_patches
        self._earlier: list[Tensor] = []
        self._takes_earlier = options.patch_grid != _LAST_GRID
        if self._takes_earlier:
            stage = len(config.depths) - (options.patch_grid // _LAST_GRID).bit_length()
            self.earlier_head = nn.Linear(
                config.embed_dim * 2**stage, options.projection, bias=False
            )
            # What a stage hands on is half as large already: its last block is asked.
            stages: Any = self.model.encoder.layers
            stages[stage].blocks[-1].register_forward_hook(self._keep)

    def _keep(self, _: nn.Module, __: Any, made: Any) -> None:
        self._earlier.append(made[0] if isinstance(made, tuple) else made)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        self._earlier.clear()
        seen = self.model(images, output_hidden_states=not self._norm_patches)
        normed = seen.last_hidden_state
        if self._takes_earlier:
            patches = self.earlier_head(self._earlier.pop())
            return patches, self.projection_head(normed.mean(1))
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
        how = (self._states, self._average_padding)
        return self.projection_head(mean_of_states(self.model, input_ids, attention_mask, *how))


class EgmaModel(Backbone):
    """The model of the paper, MedCLIP's shape; weights from `load_start`, a run, or random.

    Parameters
    ----------
    swin, bert
        Configurations of the towers.
    options : ModelOptions
        What is taken from them.
    """

    family = "medclip-vit"

    def __init__(self, swin: SwinConfig, bert: BertConfig, options: ModelOptions) -> None:
        nn.Module.__init__(self)
        with _blamed("vision"):
            _check_image_tower(swin, options)
        with _blamed("text"):
            _check_text_tower(bert, options)
        self.options = options
        self.padding_counts = options.average_padding
        with _blamed("vision"):
            self.vision_model = ImageTower(swin, options)
        with _blamed("text"):
            self.text_model = TextTower(bert, options)
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))
        states = ", ".join(map(str, options.text_states))
        self.facts = Facts(
            grid=options.patch_grid,
            image_px=options.image_px,
            mean=(options.image_mean,),
            std=(options.image_std,),
            geometry=FRAME,
            max_tokens=options.max_tokens,
            pooling=f"mean of patches, linear; text: mean of states {states}",
            activation=f"{swin.hidden_act} (image), {bert.hidden_act} (text)",
            licence="of what it was trained on; MedCLIP's is not stated",
        )

    @property
    def vocabulary(self) -> int:
        """Count the words that the text tower has a row for."""
        return int(self.text_model.model.config.vocab_size)

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, 49, d]`` and pooled ``[k, d]`` features."""
        seen: tuple[Tensor, Tensor] = self.vision_model(pixels)
        return seen

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to ``[t, d]``: means over tokens and hidden states."""
        read: Tensor = self.text_model(input_ids, attention_mask)
        return read

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass instead of keeping them."""
        for tower in (self.vision_model.model, self.text_model.model):
            turn_on = getattr(tower, "activation_checkpointing_enable", None)
            (turn_on or tower.gradient_checkpointing_enable)()

    def save_pretrained(self, folder: Path, weights: State | None = None) -> None:
        """Write configuration and weights; names as MedCLIP's and the published EGMA's."""
        folder.mkdir(parents=True, exist_ok=True)
        towers = {"swin": self.vision_model.model.config, "bert": self.text_model.model.config}
        described = {name: config.to_diff_dict() for name, config in towers.items()}
        described["options"] = vars(self.options)
        (folder / CONFIG).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
        named = {
            as_on_disk(name): tensor.contiguous()
            for name, tensor in (weights or self.state_dict()).items()
            if not BUFFERS.search(name)
        }
        save_file(named, folder / WEIGHTS)

    @classmethod
    def from_pretrained(cls, folder: Path) -> "EgmaModel":
        """Read what `save_pretrained` wrote.

        Raises
        ------
        BadUsageError
            If it is missing or damaged.
        """
        try:
            for name in (CONFIG, WEIGHTS):  # a named pipe would wait for its writer
                if not stat.S_ISREG((folder / name).stat().st_mode):
                    raise ValueError(f"{name} is no ordinary file")
            described = json.loads((folder / CONFIG).read_text())
            swin = plain_config(SwinConfig, described["swin"])
            bert = plain_config(BertConfig, described["bert"])
            check_sizes(swin, bert)
            check_filled((folder / WEIGHTS).stat().st_size, swin, bert)
            options = with_changes(Options(), {"model": described["options"]}).model
            stored = load_file(folder / WEIGHTS)
        except FileNotFoundError as error:
            raise BadUsageError(f"{folder} is no EGMA model: {error.filename} is missing") from None
        except Exception as error:
            raise BadUsageError(f"the model in {folder} is damaged ({first_line(error)})") from None
        try:
            model = cls(swin, bert, options)
            own = model.state_dict()
            buffers = {name: one for name, one in own.items() if BUFFERS.search(name)}
            named = {as_in_model(name, own): one for name, one in stored.items()}
            weights = {name: one for name, one in named.items() if not BUFFERS.search(name)}
            model.load_state_dict(weights | buffers)
        except ImportError:
            raise
        except BadUsageError as error:
            raise BadUsageError(f"{folder}: {error}") from None
        except Exception:  # of torch and transformers, in many lines
            raise BadUsageError(
                f"the model in {folder} is damaged ({WEIGHTS} is not of {CONFIG}'s sizes)"
            ) from None
        return model


def is_own_model(folder: Path) -> bool:
    """Tell whether a folder holds what `EgmaModel.save_pretrained` wrote."""
    return (folder / CONFIG).is_file()


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


def plain_config(kind: Any, described: Mapping[str, Any]) -> Any:
    """Take a tower's sizes from what others wrote, and nothing that could name code to fetch.

    transformers gets attention kernels and quantizers by names in a configuration.
    """
    return kind(**{name: one for name, one in described.items() if name in _KNOWN[kind]})


def check_sizes(swin: Any = None, bert: Any = None) -> None:
    """Refuse sizes that no tower has before anything is built of them.

    Raises
    ------
    BadUsageError
        Naming the size.
    """
    sizes: list[tuple[str, Any, int]] = []
    if swin is not None:
        stages = [*zip(swin.depths, swin.num_heads, strict=False)]
        sizes += [("depths", len(swin.depths), _MOST_STAGES)]
        sizes += [("depths", depth, _MOST_BLOCKS) for depth, _ in stages]
        sizes += [("num_heads", heads, 4096) for _, heads in stages]
    for tower, largest in ((bert, _LARGEST_BERT), (swin, _LARGEST_SWIN)):
        if tower is not None:
            sizes += [(name, getattr(tower, name), most) for name, most in largest.items()]
    for name, size, most in sizes:
        if not isinstance(size, int | float) or not 0 < size <= most:
            raise BadUsageError(f"{name} is {size!r:.40}; no tower has it outside 1 to {most}")
    if swin is not None and len(swin.num_heads) != len(swin.depths):
        raise BadUsageError("num_heads and depths differ in length")


def check_filled(bytes_of_weights: int, swin: Any = None, bert: Any = None) -> None:
    """Refuse towers of more numbers than their weights have bytes: memory would be for nothing.

    Raises
    ------
    BadUsageError
        If so.
    """
    numbers = 0.0
    if bert is not None:
        rows = bert.vocab_size + bert.max_position_embeddings + bert.type_vocab_size
        a_layer = 4 * bert.hidden_size + 2 * bert.intermediate_size
        numbers += bert.hidden_size * (rows + bert.num_hidden_layers * a_layer)
    if swin is not None:
        for stage, (depth, heads) in enumerate(zip(swin.depths, swin.num_heads, strict=True)):
            width = swin.embed_dim * 2**stage
            numbers += depth * ((4 + 2 * swin.mlp_ratio) * width**2)
            numbers += depth * heads * (2 * swin.window_size - 1) ** 2
    if numbers > bytes_of_weights + _SPARE_NUMBERS:
        raise BadUsageError(
            f"the sizes ask for {numbers:,.0f} numbers, the weights have {bytes_of_weights:,} bytes"
        )


@contextmanager
def _blamed(part: str) -> Iterator[None]:
    """Tell whose fault it is that a tower cannot be built, in one line."""
    try:
        yield
    except ImportError:
        raise
    except BadUsageError as error:
        raise TowerError(part, str(error)) from None
    except Exception as error:  # of transformers, for activations it does not know and the like
        told = f"{type(error).__name__}: {first_line(error)}"
        raise TowerError(part, f"describes no tower that can be built ({told})") from None


def _check_image_tower(swin: Any, options: ModelOptions) -> None:
    """Refuse an image tower whose patches or channels are not those of the frames."""
    check_sizes(swin=swin)
    reduction = swin.patch_size * 2 ** (len(swin.depths) - 1)
    if swin.image_size != options.image_px or swin.image_size != 7 * reduction:
        patches = f"{swin.image_size / reduction:.4g}"
        raise BadUsageError(
            f"the image tower makes {patches} x {patches} patches of {swin.image_size} px;"
            f" the shards' grids need 7 x 7 of model.image_px={options.image_px}"
        )
    if swin.num_channels != _CHANNELS:
        raise BadUsageError(
            f"the image tower sees images of num_channels={swin.num_channels}, and a frame has"
            f" {_CHANNELS}; take a Swin of {_CHANNELS}"
        )


def _check_text_tower(bert: Any, options: ModelOptions) -> None:
    """Refuse a text tower that is shorter or shallower than what is asked of it."""
    check_sizes(bert=bert)
    if options.max_tokens > bert.max_position_embeddings:
        # Cut without a word, its long sentences would have other features than the options say.
        most = bert.max_position_embeddings
        raise BadUsageError(
            f"the text tower reads {most} tokens (max_position_embeddings), model.max_tokens is"
            f" {options.max_tokens}; set model.max_tokens={most}, which cuts longer sentences there"
        )
    if max(-min(options.text_states), max(options.text_states) + 1) > bert.num_hidden_layers + 1:
        raise BadUsageError(
            f"model.text_states {options.text_states} ask for more than the text tower's"
            f" {bert.num_hidden_layers} layers"
        )
