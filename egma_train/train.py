"""The training loop, read top to bottom."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from egma_train.augment import draw
from egma_train.cache import ReadingCache
from egma_train.loading import Batch, BatchLoader, iterate, pixels
from egma_train.losses import EgmaLoss, clip_loss, egma_loss
from egma_train.model import EgmaModel, Features
from egma_train.options import Options
from egma_train.processes import Processes, any_process, gathered
from egma_train.run_folder import Metrics, RunFolder
from egma_train.sampling import Numbers, chosen_readings, epoch_batches, readings_with_used_gaze

Say = Callable[[str], Any]


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""


def train(
    model: EgmaModel,
    tokenizer: Any,
    cache: ReadingCache,
    options: Options,
    run: RunFolder,
    processes: Processes,
    device: torch.device,
    say: Say,
) -> bool:
    """Train until the last epoch, from the run's last checkpoint if there is one.

    Returns
    -------
    bool
        False if Ctrl-C or SIGTERM stopped it, after a checkpoint.
    """
    readings = chosen_readings(cache, options.data)
    loader = _loader(cache, tokenizer, readings, options, processes)
    optimizer = make_optimizer(model, options)
    kind = precision_of(options.execution.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=kind == torch.float16)
    at = _restore(run, model, optimizer, scaler, device)
    if options.execution.gradient_checkpointing:
        model.checkpoint_gradients()
    parallel: nn.Module = DistributedDataParallel(model) if processes.world > 1 else model
    parallel.train()
    metrics = Metrics(run, at.step) if processes.first else None

    def save() -> None:
        if processes.first:
            training = {
                "optimizer": optimizer.state_dict(),
                "scaler": scaler.state_dict(),
                "progress": vars(at),
            }
            run.save_checkpoint(at.step, model, tokenizer, training)

    with _asked_to_stop() as stop:
        while at.epoch < options.train.epochs:
            began = time.monotonic()
            batches = _batches(cache, readings, options, at.epoch)
            draws = draw(options.data, len(cache), options.train.seed, at.epoch)
            losses = []
            left = iterate(loader, batches[at.batch :], options.execution.loader_workers)
            for batch in left:
                started = time.monotonic()
                rate = learning_rate(at.step, len(batches), options)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                # Dropout repeats itself after a resume, and differs between processes.
                torch.manual_seed(_step_seed(options.train.seed, at.step, processes.rank))
                own = batch.readings.tensor_split(processes.world)[processes.rank].numpy()
                images = pixels(
                    batch.images.to(device),
                    options.model.image_px,
                    options.model.image_mean,
                    options.model.image_std,
                    draws.of(own),
                )
                batch = batch.to(device)
                with torch.autocast(device.type, kind, enabled=kind != torch.float32):
                    features = parallel(images, batch.input_ids, batch.attention_mask)
                loss = batch_loss(features, batch, options)
                norm = _update(parallel, model, optimizer, scaler, loss.total, options)
                at.step, at.batch = at.step + 1, at.batch + 1
                losses.append(float(loss.total.detach()))
                if metrics is not None:
                    metrics.add(_row(at, rate, features, loss, norm, time.monotonic() - started))
                stopped = any_process(bool(stop), processes, device)
                if at.batch == len(batches):
                    at.epoch, at.batch = at.epoch + 1, 0
                if stopped or at.batch == 0 or at.step % options.execution.checkpoint_steps == 0:
                    save()
                if stopped:
                    return False
            mean = sum(losses) / len(losses)
            say(
                f"epoch {at.epoch}/{options.train.epochs}: loss {mean:.4f},"
                f" {len(losses)} steps in {time.monotonic() - began:.1f} s"
            )
    return True


def batch_loss(features: Features, batch: Batch, options: Options) -> EgmaLoss:
    """Compute the objective on the global batch, from every process's features."""
    patches = gathered(features.patches, batch.images_by_rank)
    rows = gathered(features.sentences, batch.sentences_by_rank)
    mask = batch.sentence_mask
    sentences = rows.new_zeros(*mask.shape, rows.shape[-1])
    sentences[mask] = rows  # (b, m, d)
    if options.loss.objective == "clip":
        images = gathered(features.images, batch.images_by_rank)
        texts = sentences.sum(1) / mask.sum(1, keepdim=True)
        total = clip_loss(images, texts, features.scale)
        total = total + 0 * patches.sum()  # every weight takes part
        zero = torch.zeros_like(total)
        return EgmaLoss(zero, total, zero, total)
    loss = egma_loss(
        patches,
        sentences,
        mask,
        batch.grid,
        batch.grid_mask,
        features.scale,
        **options.loss.keywords(),
    )
    # The pooled feature has no part in these objectives, its projection has.
    return loss._replace(total=loss.total + 0 * (features.scale + features.images.sum()))


def make_optimizer(model: EgmaModel, options: Options) -> torch.optim.AdamW:
    """AdamW; the logit scale does not decay unless asked."""
    scale = [model.logit_scale]
    others = [one for name, one in model.named_parameters() if name != "logit_scale"]
    decay = options.train.weight_decay
    return torch.optim.AdamW(
        [
            {"params": others, "weight_decay": decay},
            {"params": scale, "weight_decay": decay if options.train.decay_scale else 0.0},
        ],
        lr=options.train.learning_rate,
    )


def learning_rate(step: int, steps_per_epoch: int, options: Options) -> float:
    """Warm up linearly, then follow a cosine to 0 at the end of the last epoch."""
    warm = options.train.warmup_epochs * steps_per_epoch
    total = options.train.epochs * steps_per_epoch
    if step < warm:
        return options.train.learning_rate * (step + 1) / (warm + 1)
    done = (step - warm) / max(total - warm, 1)
    return options.train.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """Choose what the towers compute in; the loss is always in float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[
            name
        ]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


def _loader(
    cache: ReadingCache, tokenizer: Any, readings: Numbers, options: Options, processes: Processes
) -> BatchLoader:
    return BatchLoader(
        cache,
        tokenizer,
        readings_with_used_gaze(cache, readings, options.data, options.train.seed),
        options.model.max_tokens,
        options.data.empty_sentence == "reading",
        processes.rank,
        processes.world,
    )


def _batches(cache: ReadingCache, readings: Numbers, options: Options, epoch: int) -> list[Numbers]:
    seed, size = options.train.seed, options.train.batch_size
    return epoch_batches(readings, cache.image_number, size, seed, epoch)


def _update(
    parallel: nn.Module,
    model: EgmaModel,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    total: Tensor,
    options: Options,
) -> Tensor:
    """Take one step of the optimiser; return the gradient's norm before clipping."""
    optimizer.zero_grad(set_to_none=True)
    scaler.scale(total).backward()  # type: ignore[no-untyped-call]
    scaler.unscale_(optimizer)
    norm = nn.utils.clip_grad_norm_(parallel.parameters(), options.train.clip_norm)
    scaler.step(optimizer)
    scaler.update()
    model.clamp_scale()
    return norm


def _row(
    at: Progress, rate: float, features: Features, loss: EgmaLoss, norm: Tensor, seconds: float
) -> dict[str, Any]:
    terms = {
        "loss": loss.total, "mlce": loss.mlce, "contrastive": loss.contrastive,
        "mapping": loss.mapping, "scale": features.scale, "gradient_norm": norm,
    }  # fmt: skip
    facts = {
        "step": at.step,
        "epoch": at.epoch,
        "learning_rate": rate,
        "seconds": round(seconds, 4),
    }
    return facts | {name: float(value.detach()) for name, value in terms.items()}


def _restore(
    run: RunFolder, model: EgmaModel, optimizer: Any, scaler: Any, device: torch.device
) -> Progress:
    place = run.last_checkpoint()
    if place is None:
        return Progress()
    stored = torch.load(place / "training.pt", map_location=device, weights_only=True)
    weights = EgmaModel.from_pretrained(place).state_dict()
    model.load_state_dict(weights)
    optimizer.load_state_dict(stored["optimizer"])
    scaler.load_state_dict(stored["scaler"])
    return Progress(**stored["progress"])


def _step_seed(seed: int, step: int, rank: int) -> int:
    return (seed * 1_000_003 + step) * 4099 + rank


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Note Ctrl-C and SIGTERM instead of dying; a second one ends the process at once."""
    asked: list[int] = []

    def note(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
