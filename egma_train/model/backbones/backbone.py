"""What the losses, the trainer, evaluation and export know of any system."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from egma_train.errors import BadUsageError
from egma_train.geometry import Geometry
from egma_train.options import ModelOptions
from egma_train.storage.ordinary import read_ordinary

LOGIT_SCALE = math.log(1 / 0.07)
"""Where a system's files hold no scale: CLIP's first, and MGCA's constant."""
LOGIT_SCALE_BOUNDS = (0.0, math.log(100))
CONFIG, WEIGHTS = "egma.json", "model.safetensors"

State = Mapping[str, Tensor]
MOST_JSON_BYTES = 2**20


class Source(NamedTuple):
    """Where weights came from: what they do not tell by themselves may stand beside them.

    Attributes
    ----------
    place : Path
        The file or folder that was named.
    file : Path
        The file of the weights.
    container : str
        Of the weights, in words.
    options : ModelOptions
        What the user asked of the model.
    """

    place: Path
    file: Path
    container: str
    options: ModelOptions

    def json(self, name: str) -> dict[str, Any]:
        """Read a JSON file of the folder; empty where there is none."""
        if not self.place.is_dir():
            return {}
        try:
            told = json.loads(read_ordinary(self.place / name, MOST_JSON_BYTES))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise BadUsageError(f"{name} is damaged ({error})") from None
        return told if isinstance(told, dict) else {}


class Features(NamedTuple):
    """What the towers say of k images and t sentences.

    Attributes
    ----------
    patches : Tensor
        ``[k, n, d]``, row-major.
    images : Tensor
        ``[k, d]``, pooled.
    sentences : Tensor
        ``[t, d]``, to be compared with patches.
    scale : Tensor
        exp(logit_scale).
    whole_texts : Tensor
        ``[t, d]``, to be compared with pooled images; `sentences` again in most systems.
    """

    patches: Tensor
    images: Tensor
    sentences: Tensor
    scale: Tensor
    whole_texts: Tensor


@dataclass(frozen=True)
class Facts:
    """What is to be known of a system to feed it and to report on it.

    Attributes
    ----------
    grid : int
        Patches in a row of the image, and in a column.
    image_px : int
        Side of what `Backbone.images` takes.
    mean, std : tuple of float
        Of grey in [0, 1], one number or one a channel.
    geometry : Geometry
        From a file to `image_px`, as the system's authors do it.
    max_tokens : int
        Longer texts are cut.
    pooling, activation : str
        In words, for reports.
    licence : str
        Of the published weights.
    """

    grid: int
    image_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    geometry: Geometry
    max_tokens: int
    pooling: str
    activation: str
    licence: str

    def told(self) -> dict[str, Any]:
        """Describe for a report."""
        return {
            "grid": f"{self.grid} x {self.grid}",
            "geometry": self.geometry.told(),
            "pooling": self.pooling,
            "activation": self.activation,
            "max_tokens": self.max_tokens,
            "licence": self.licence,
        }


class Rule(NamedTuple):
    """What becomes of the weights whose whole name fits a pattern; the first rule that fits counts.

    Attributes
    ----------
    pattern : str
        A regular expression.
    ours : str or None
        Our name, with groups as ``\\1``; None: left out.
    how : str
        ``transpose``; ``squeeze`` away axes of length 1 behind the second; ``split`` into q, k and
        v along the first axis, ``{}`` in `ours` standing for the letter. Of what is left out: why.
    """

    pattern: str
    ours: str | None
    how: str = ""


class Backbone(nn.Module):
    """A system of two towers; a family is one subclass in one file.

    Attributes
    ----------
    family : str
        Its name on the command line.
    signature : str
        A regular expression that one of its published keys fits and no other family's.
    rules : sequence of Rule
        From published names to ours.
    tokenizer : str
        Where its tokenizer is on the Hugging Face hub, if none lies beside the weights.
    tokenizer_kind : str
        As the tokenizers library calls it; blank for any.
    padding_counts : bool
        Whether a text's features depend on the padding behind it.
    made_here : tuple of str
        Weights of ours that its files have no counterpart of.
    options_read : tuple of str
        Model options that it heeds beside the geometry.
    cautions : tuple of str
        What was taken for true of a file that does not say.
    text_layers : int
        Of the published text tower; 0 where a config.json tells.
    facts : Facts
        How it is fed and what a report says of it.
    logit_scale : Parameter
        Logarithm of what cosines are multiplied with.
    """

    family: str
    signature: str
    rules: Sequence[Rule]
    tokenizer: str
    tokenizer_kind: str = "WordPiece"
    padding_counts: bool = True  # where nobody has looked
    made_here: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    options_read: tuple[str, ...] = ()
    text_layers: int = 12
    facts: Facts
    logit_scale: nn.Parameter
    text: Any

    def __init__(self, state: State, details: dict[str, Any]) -> None:
        super().__init__()
        self._details = details
        self.padding_counts = details.get("average_padding", self.padding_counts)

    @classmethod
    def details_of(cls, source: Source, state: State) -> dict[str, Any]:
        """Find out what weights do not tell by their names and shapes."""
        return {}

    def images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[k, 3, h, w]`` to patches ``[k, n, d]`` and pooled ``[k, d]`` features."""
        raise NotImplementedError

    def texts(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to texts ``[t, d]`` that are compared with pooled images."""
        raise NotImplementedError

    def sentences(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Take ``[t, l]`` tokens to texts ``[t, d]`` that are compared with patches.

        The same in all systems but those with heads of their own for patches and words (MGCA).
        """
        return self.texts(input_ids, attention_mask)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Features:
        """Encode images ``[k, 3, h, w]`` and sentences ``[t, l]``."""
        patches, pooled = self.images(images)
        sentences, texts = self.read(input_ids, attention_mask)
        return Features(patches, pooled, sentences, self.logit_scale.exp(), texts)

    def read(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Take ``[t, l]`` tokens to what `sentences` and what `texts` make of them."""
        texts = self.texts(input_ids, attention_mask)
        # The text tower is run once where one vector serves both.
        own = type(self).sentences is not Backbone.sentences
        return (self.sentences(input_ids, attention_mask) if own else texts), texts

    @property
    def vocabulary(self) -> int:
        """Count the words that the text tower has a row for."""
        return int(self.text.config.vocab_size)

    def reader(self, tokenizer: Any) -> Any:
        """Let a tokenizer follow the system's own rules, if it has any."""
        return tokenizer

    def train(self, mode: bool = True) -> "Backbone":
        """Train, but keep BatchNorm's running statistics: a batch here is small or one sentence."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self

    @torch.no_grad()
    def clamp_scale(self) -> None:
        """Keep the scale in [1, 100]; after each step."""
        self.logit_scale.clamp_(*LOGIT_SCALE_BOUNDS)

    def checkpoint_gradients(self) -> None:
        """Recompute activations in the backward pass where a tower knows how to."""
        for tower in self.children():
            if not getattr(tower, "supports_gradient_checkpointing", False):
                continue  # a head, or a ResNet of transformers
            turn_on = getattr(tower, "activation_checkpointing_enable", None)
            # transformers before 5 calls it otherwise.
            (turn_on or tower.gradient_checkpointing_enable)()  # type: ignore[operator]

    def details(self) -> dict[str, Any]:
        """Name what weights do not tell by their shapes, to be built again."""
        return self._details

    def save_pretrained(self, folder: Path, weights: State | None = None) -> None:
        """Write family, details and weights; others than it has now if given."""
        folder.mkdir(parents=True, exist_ok=True)
        described = {
            "family": self.family,
            "details": self.details(),
            "geometry": list(self.facts.geometry),
        }
        (folder / CONFIG).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
        # Clones: safetensors refuses tensors that share memory.
        named = weights or self.state_dict()
        save_file({name: one.contiguous().clone() for name, one in named.items()}, folder / WEIGHTS)


def new_scale(state: State) -> nn.Parameter:
    """Take a system's scale from its weights, or the first one of CLIP."""
    stored = state.get("logit_scale")
    value = LOGIT_SCALE if stored is None else float(stored.reshape(()))
    return nn.Parameter(torch.tensor(value))


class RuledTokenizer:
    """A tokenizer under the rules of a system: texts cleaned first, or padded to a full length."""

    def __init__(
        self,
        tokenizer: Any,
        clean: Callable[[str], str] | None = None,
        full_length: int | None = None,
    ) -> None:
        self.tokenizer, self._clean, self._full_length = tokenizer, clean, full_length

    def __call__(self, texts: list[str], **how: Any) -> Any:
        """Encode texts as transformers' tokenizers do."""
        if self._full_length:
            how |= {"padding": "max_length", "max_length": self._full_length}
        return self.tokenizer([self._clean(one) for one in texts] if self._clean else texts, **how)

    def save_pretrained(self, folder: Path, weights: State | None = None) -> None:
        """Write the tokenizer; its rules are the system's."""
        self.tokenizer.save_pretrained(folder)
