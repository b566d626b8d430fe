"""The training loop, read top to bottom."""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from egma_train.data.augment import Draws, draw
from egma_train.data.cache import ReadingCache
from egma_train.data.grids import Grid
from egma_train.data.loading import Batch, BatchLoader, iterate, pixels
from egma_train.data.sampling import (
    Numbers,
    chosen_readings,
    epoch_batches,
    readings_with_used_gaze,
)
from egma_train.data.shards import GRID_CELLS
from egma_train.errors import BadUsageError, first_line
from egma_train.geometry import FRAME
from egma_train.losses import TERMS, EgmaLoss, clip_loss, egma_loss
from egma_train.model.backbones.backbone import Backbone, Features
from egma_train.model.weights import open_model
from egma_train.options import Options
from egma_train.processes import Processes, any_process, gathered, in_first
from egma_train.run_folder import Metrics, RunFolder

Say = Callable[[str], Any]


@dataclass
class Progress:
    """Where a run stands; saved with each checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""


@dataclass(frozen=True)
class Trainer:
    """What takes a step: model, optimiser and where they run.

    Attributes
    ----------
    parallel : Module
        The model, or the model as all processes share it.
    precision : dtype
        Of the towers; the loss is in float32.
    """

    model: Backbone
    parallel: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    options: Options
    processes: Processes
    device: torch.device
    precision: torch.dtype

    def step(self, batch: Batch, draws: Draws, at: Progress, rate: float) -> dict[str, float]:
        """Move the weights once; return what the metrics tell of it."""
        begin = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout repeats itself after a resume, and differs between processes.
        of_step = self.options.train.seed * 1_000_003 + at.step
        torch.manual_seed(of_step * 4099 + self.processes.rank)
        features, loss = self._loss(batch.to(self.device), draws)
        norm = self._update(loss.total)
        terms = loss._asdict() | {"scale": features.scale, "gradient_norm": norm}
        told = {name: float(value.detach()) for name, value in terms.items()}
        told["loss"] = told.pop("total")
        return told | {"learning_rate": rate, "seconds": round(time.monotonic() - begin, 4)}

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs beside the weights and where the run stands."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def restore(self, run: RunFolder) -> Progress:
        """Go on from the run's last checkpoint, or begin."""
        place = run.last_checkpoint()
        if place is None:
            return Progress()
        self.model.load_state_dict(open_model(place).state_dict())
        try:
            stored = torch.load(place / "training.pt", self.device, weights_only=True)
            self.optimizer.load_state_dict(stored["optimizer"])
            self.scaler.load_state_dict(stored["scaler"])
            progress = Progress(**stored["progress"])
        except Exception as error:
            raise BadUsageError(
                f"{place} is damaged ({first_line(error)}); delete it to begin anew with --resume"
            ) from None
        if stored.get("run") not in (None, run.identity()):  # earlier versions did not say
            raise BadUsageError(f"{place} is of another run; delete it to begin anew with --resume")
        return progress

    def _loss(self, batch: Batch, draws: Draws) -> tuple[Features, EgmaLoss]:
        seen, own = self.model.facts, batch.readings.tensor_split(self.processes.world)
        drawn = draws.of(own[self.processes.rank].cpu().numpy())
        images = pixels(batch.images, seen.image_px, seen.mean, seen.std, drawn, batch.shares)
        low = self.precision != torch.float32
        with torch.autocast(self.device.type, self.precision, enabled=low):
            features = self.parallel(images, batch.input_ids, batch.attention_mask)
        return features, batch_loss(features, batch, self.options)

    def _update(self, total: Tensor) -> Tensor:
        """Take one step of the optimiser; return the gradient's norm before clipping."""
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        longest = self.options.train.clip_norm or math.inf
        norm = nn.utils.clip_grad_norm_(self.parallel.parameters(), longest)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.model.clamp_scale()
        return norm


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Leave the random numbers of who called as they were."""
    # Before that there is nothing to keep, and asking would take memory.
    begun = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    with torch.random.fork_rng(range(torch.cuda.device_count()) if begun else ()):
        yield


def train(
    model: Backbone,
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
        False if Ctrl-C, SIGTERM or a lost terminal (SIGHUP) stopped it, after a checkpoint.
    """
    readings = chosen_readings(cache, options.data)
    loader = BatchLoader(
        cache,
        tokenizer,
        readings_with_used_gaze(cache, readings, options.data, options.train.seed),
        model.facts.max_tokens,
        options.data.empty_sentence == "reading",
        processes.rank,
        processes.world,
        own_grid(model, options),
    )
    trainer = make_trainer(model, options, processes, device)
    at = trainer.restore(run)
    trainer.parallel.train()
    if run.metrics_file.exists():  # there was an attempt before
        say(f"continuing after step {at.step}" if at.step else "no checkpoint: from step 0")
    with ExitStack() as stack:
        stop = stack.enter_context(_asked_to_stop())
        metrics = in_first(processes, lambda: Metrics(run, at.step))
        if metrics is not None:
            stack.enter_context(metrics)
        while at.epoch < options.train.epochs:
            begin, losses = time.monotonic(), []
            for told in _epoch(trainer, cache, loader, readings, at):
                losses.append(told["loss"])
                stopped = any_process(bool(stop), processes, device)
                due = at.batch == 0 or at.step % options.execution.checkpoint_steps == 0
                own = (run, metrics, tokenizer, trainer, told, at, stopped or due)
                in_first(processes, partial(_write, *own))
                if stopped:
                    return False
            mean, taken = sum(losses) / len(losses), time.monotonic() - begin
            say(
                f"epoch {at.epoch}/{options.train.epochs}: loss {mean:.4f},"
                f" {len(losses)} steps in {taken:.1f} s"
            )
    return True


def own_grid(model: Backbone, options: Options) -> Grid | None:
    """Describe a system's grid of patches; None for the stored one, 7 x 7 on the frame."""
    cells, geometry = model.facts.grid, model.facts.geometry
    if (cells, geometry) == (GRID_CELLS, FRAME):
        return None
    return Grid(cells, geometry, options.data.grid == "antialias")


def _write(
    run: RunFolder,
    metrics: Metrics | None,
    tokenizer: Any,
    trainer: Trainer,
    told: dict[str, float],
    at: Progress,
    save: bool,
) -> None:
    """Write a step's row and, if it is due, a checkpoint, after which no step is lost."""
    if metrics is not None:
        metrics.add(told)
    if save:
        state = trainer.state() | {"progress": vars(at), "run": run.identity()}
        run.save_checkpoint(at.step, trainer.model, tokenizer, state)


def _epoch(
    trainer: Trainer, cache: ReadingCache, loader: BatchLoader, readings: Numbers, at: Progress
) -> Iterator[dict[str, float]]:
    """Take the steps that are left of an epoch; yield what each tells once `at` has moved on."""
    options = trainer.options
    batches = epoch_batches(
        readings, cache.image_number, options.train.batch_size, options.train.seed, at.epoch
    )
    draws = draw(options.data, len(cache), options.train.seed, at.epoch)
    for batch in iterate(loader, batches[at.batch :], options.execution.loader_workers):
        told = trainer.step(batch, draws, at, learning_rate(at.step, len(batches), options))
        if not math.isfinite(told["loss"]):
            raise BadUsageError(
                f"the loss is {told['loss']} at step {at.step + 1}; start anew by --name"
                " with a smaller train.learning_rate"
            )
        at.step, at.batch = at.step + 1, at.batch + 1
        told = {"step": at.step, "epoch": at.epoch} | told
        if at.batch == len(batches):
            at.epoch, at.batch = at.epoch + 1, 0
        yield told


def make_trainer(
    model: Backbone, options: Options, processes: Processes, device: torch.device
) -> Trainer:
    """Put a model's optimiser and helpers together."""
    precision = precision_of(options.execution.precision, device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    optimizer = make_optimizer(model, options)
    if options.execution.gradient_checkpointing:
        model.checkpoint_gradients()
    parallel: nn.Module = DistributedDataParallel(model) if processes.world > 1 else model
    return Trainer(model, parallel, optimizer, scaler, options, processes, device, precision)


def batch_loss(features: Features, batch: Batch, options: Options) -> EgmaLoss:
    """Compute the objective on the global batch, from every process's features."""
    patches = gathered(features.patches, batch.images_by_rank)
    clip = options.loss.objective == "clip"
    compared = features.whole_texts if clip else features.sentences
    rows = gathered(compared, batch.sentences_by_rank)
    mask = batch.sentence_mask
    sentences = rows.new_zeros(*mask.shape, rows.shape[-1])
    sentences[mask] = rows  # (b, m, d)
    if clip:
        images = gathered(features.images, batch.images_by_rank)
        texts = sentences.sum(1) / mask.sum(1, keepdim=True)
        total = clip_loss(images, texts, features.scale)
        total = total + 0 * (patches.sum() + features.sentences.sum())  # every weight takes part
        zero = torch.zeros_like(total)
        return EgmaLoss(**dict.fromkeys(TERMS, zero) | {"contrastive": total}, total=total)
    loss = egma_loss(
        patches,
        sentences,
        mask,
        batch.grid,
        batch.grid_mask,
        features.scale,
        **options.loss.keywords(),
    )
    # The pooled features have no part in these objectives, their projections have.
    apart = features.images.sum() + features.whole_texts.sum()
    return loss._replace(total=loss.total + 0 * (features.scale + apart))


def make_optimizer(model: Backbone, options: Options) -> torch.optim.AdamW:
    """AdamW; the logit scale does not decay unless asked."""
    others = [one for name, one in model.named_parameters() if name != "logit_scale"]
    decay = options.train.weight_decay
    return torch.optim.AdamW(
        [
            {"params": others, "weight_decay": decay},
            {
                "params": [model.logit_scale],
                "weight_decay": decay if options.train.decay_scale else 0.0,
            },
        ],
        lr=options.train.learning_rate,
    )


def learning_rate(step: int, steps_per_epoch: int, options: Options) -> float:
    """Warm up linearly, then follow a cosine to 0 at the end of the last epoch."""
    warm, rate = warmup_steps(steps_per_epoch, options), options.train.learning_rate
    if step < warm:
        return rate * (step / warm if options.train.first_rate_zero else (step + 1) / (warm + 1))
    done = (step - warm) / max(options.train.epochs * steps_per_epoch - warm, 1)
    return rate * 0.5 * (1 + math.cos(math.pi * min(done, 1)))


def warmup_steps(steps_per_epoch: int, options: Options) -> float:
    """Count the steps of the warm-up: of its epochs, or a share of all, rounded up."""
    if not options.train.warmup_share:
        return options.train.warmup_epochs * steps_per_epoch
    return math.ceil(options.train.epochs * steps_per_epoch * options.train.warmup_share)


def short_run(steps_per_epoch: int, options: Options) -> str | None:
    """Say if a run ends before its warm-up does: it never reaches its learning rate."""
    steps, warm = options.train.epochs * steps_per_epoch, warmup_steps(steps_per_epoch, options)
    if steps > warm or not options.train.learning_rate:
        return None
    highest = learning_rate(steps - 1, steps_per_epoch, options) / options.train.learning_rate
    name = "warmup_share" if options.train.warmup_share else "warmup_epochs"
    return (
        f"{steps} steps end inside the warm-up of {warm:g}: the learning rate reaches"
        f" {highest:.0%} of train.learning_rate; lower train.{name} or train longer"
    )


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """Choose what the towers compute in; the loss is always in float32."""
    if name == "cuda-float16":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "auto":
        return getattr(torch, name)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Note Ctrl-C, SIGTERM and SIGHUP instead of dying; a second Ctrl-C ends the process at once.

    A shell that hangs up sends SIGHUP after the terminal did, systemd SIGTERM and SIGHUP: only who
    types again is in a hurry. A hang-up that the caller ignores (nohup) stays ignored.
    """
    asked: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals never come here
        yield asked
        return

    def note(number: int, _: Any) -> None:
        if asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        asked.append(number)

    heard = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        heard.append(signal.SIGHUP)
    before = {one: signal.signal(one, note) for one in heard}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
