"""Train a small encoder with the product's loss until an arm's own plateau."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.study.phantoms import SENTENCES, Readings
from egma_train.losses import clip_loss, egma_loss
from egma_train.model.backbones.backbone import LOGIT_SCALE, LOGIT_SCALE_BOUNDS
from egma_train.options import LossOptions


@dataclass(frozen=True)
class Recipe:
    """How every arm is trained; the plateau is a matter of its own in-distribution loss."""

    batch_size: int = 32
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    warmup_steps: int = 50
    grain: float = 0.3
    """Standard deviation of the noise that is added anew at each sight of an image."""
    check_steps: int = 100
    """Steps between looks at the held-out loss."""
    least_gain: float = 0.01
    """Share by which the held-out loss must fall below its best to count."""
    patience: int = 4
    """Looks without gain that make a plateau."""
    most_steps: int = 2000
    """End of an arm without a plateau."""
    cooldown_steps: int = 200
    """After the plateau, while the learning rate falls to 0."""


class Encoder(nn.Module):
    """Patches of an image, and sentences as bags of words, in one space."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        sizes = ((1, 16, 2), (16, 32, 2), (32, width, 2), (width, width, 1))
        self.image = nn.Sequential(
            *(
                layer
                for before, after, stride in sizes
                for layer in (
                    nn.Conv2d(before, after, 3, stride, 1, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                )
            ),
            nn.Conv2d(width, width, 1, bias=False),
        )
        bags = torch.from_numpy(_bags_of_words())
        self.bags: Tensor
        self.register_buffer("bags", bags)
        self.text = nn.Sequential(
            nn.Linear(bags.shape[1], width), nn.ReLU(), nn.Linear(width, width, bias=False)
        )
        self.logit_scale = nn.Parameter(torch.tensor(LOGIT_SCALE))

    def patches(self, images: Tensor) -> Tensor:
        """Take ``[b, 56, 56]`` to ``[b, 49, d]``; their mean is the pooled feature."""
        seen: Tensor = self.image(images[:, None])
        return seen.flatten(2).mT

    def sentences(self) -> Tensor:
        """Return the feature of each of `SENTENCES`: ``[t, d]``."""
        read: Tensor = self.text(self.bags)
        return read


@dataclass(frozen=True)
class Batch:
    """Some readings as tensors; see `Readings`."""

    images: Tensor
    sentences: Tensor
    grid: Tensor
    grid_mask: Tensor

    @classmethod
    def of(cls, readings: Readings, chosen: slice | NDArray[Any]) -> "Batch":
        """Take some readings."""
        arrays = (readings.images, readings.sentences, readings.grid, readings.grid_mask)
        return cls(*(torch.from_numpy(each[chosen]) for each in arrays))


def loss_of(model: Encoder, batch: Batch, options: LossOptions) -> Tensor:
    """Compute an objective as `egma_train.train.batch_loss` does."""
    patches, mask = model.patches(batch.images), batch.sentences >= 0
    sentences = model.sentences()[batch.sentences.clamp(min=0)]  # (b, m, d)
    scale = model.logit_scale.exp()
    if options.objective == "clip":
        texts = (sentences * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return clip_loss(patches.mean(1), texts, scale)
    return egma_loss(
        patches, sentences, mask, batch.grid, batch.grid_mask, scale, **options.keywords()
    ).total


@torch.no_grad()
def held_out_loss(model: Encoder, readings: Readings, options: LossOptions, size: int) -> float:
    """Average the loss over whole batches."""
    model.eval()  # running statistics, no grain
    begins = range(0, len(readings) - size + 1, size)
    losses = [loss_of(model, Batch.of(readings, slice(i, i + size)), options) for i in begins]
    model.train()
    return float(torch.stack(losses).mean())


def train(
    train_set: Readings, held_out: Readings, options: LossOptions, recipe: Recipe, seed: int
) -> tuple[Encoder, dict[str, Any]]:
    """Train until the plateau; weights, order and grain come from the seed alone.

    Returns
    -------
    tuple
        The model; its steps, whether it hit the cap, its last held-out loss, and those on the way
        as a list by `check_steps`.
    """
    torch.manual_seed(seed)
    model = Encoder()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    batches = _batches(len(train_set), recipe.batch_size, seed)
    grain = torch.Generator().manual_seed(seed)
    best, since, step, end = float("inf"), 0, 0, recipe.most_steps
    curve: list[float] = []
    while step < end + recipe.cooldown_steps:
        left = end + recipe.cooldown_steps - step
        rate = min(1, (step + 1) / recipe.warmup_steps, left / max(recipe.cooldown_steps, 1))
        batch = Batch.of(train_set, next(batches))
        batch.images.add_(torch.randn(batch.images.shape, generator=grain), alpha=recipe.grain)
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * rate
        optimizer.zero_grad()
        loss_of(model, batch, options).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(*LOGIT_SCALE_BOUNDS)
        step += 1
        if step < end and step % recipe.check_steps == 0:
            loss = held_out_loss(model, held_out, options, recipe.batch_size)
            curve.append(round(loss, 4))
            gained = loss < best * (1 - recipe.least_gain)
            best, since = (loss, 0) if gained else (best, since + 1)
            if since == recipe.patience:
                end = step
    loss = held_out_loss(model, held_out, options, recipe.batch_size)
    course = {"steps": step, "capped": end == recipe.most_steps, "held_out_loss": loss}
    return model, course | {"curve": curve}


def _batches(number: int, size: int, seed: int) -> Iterator[NDArray[Any]]:
    """Deal each epoch's readings once."""
    rng = np.random.default_rng((seed, 4))
    while True:
        order = rng.permutation(number)
        yield from (order[i : i + size] for i in range(0, number - size + 1, size))


def _bags_of_words() -> NDArray[Any]:
    """Share of each word in each sentence: ``(t, words)`` float32."""
    words = sorted({word for text in SENTENCES for word in text.split()})
    counts = [[text.split().count(word) for word in words] for text in SENTENCES]
    bags = np.array(counts, np.float32)
    return np.asarray(bags / bags.sum(1, keepdims=True))
