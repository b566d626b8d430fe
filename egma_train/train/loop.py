"""The training loop, read top to bottom."""

import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from egma_train.data.augment import draw
from egma_train.data.cache import ReadingCache
from egma_train.data.grids import Grid
from egma_train.data.loading import Batch, BatchLoader, iterate, on_device
from egma_train.data.sampling import (
    Numbers,
    batches_of,
    chosen_readings,
    readings_with_used_gaze,
)
from egma_train.data.shards import GRID_CELLS
from egma_train.errors import BadUsageError
from egma_train.geometry import FRAME
from egma_train.model.backbones.backbone import Backbone
from egma_train.options import Options
from egma_train.processes import Processes, any_process, in_first
from egma_train.run_folder import Metrics, RunFolder
from egma_train.train.checkpoints import CheckpointWriter
from egma_train.train.numerics import compiler, repeatable
from egma_train.train.schedule import learning_rate
from egma_train.train.step import TOLD, Progress, Trainer, make_trainer
from egma_train.train.telling import Telling
from egma_train.train.validation import Validation

_STEPS_BETWEEN_LOOKS = 20
"""Of a card's figures: to read them the host waits for all that it was given to do."""

Row = dict[str, Any]
Say = Callable[[str], Any]


@contextmanager
def own_random_numbers() -> Iterator[None]:
    """Leave the random numbers of who called as they were."""
    # Before that there is nothing to keep, and asking would take memory.
    begun = torch.cuda.is_initialized()
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
    execution, seed = options.execution, options.train.seed
    readings = chosen_readings(cache, options.data)
    batches = batches_of(cache, readings, options)
    steps = len(batches) * options.train.epochs
    loader = _loader(model, tokenizer, cache, readings, options, processes, device)
    validation = Validation.of_split(loader, readings, options)
    with ExitStack() as stack:
        stack.enter_context(repeatable(execution.deterministic, device))
        stack.enter_context(_no_warnings_of_the_compiler())
        compiled = compiler(execution, device, steps, say)
        trainer = make_trainer(model, options, processes, device, compiled)
        at = trainer.restore(run)
        trainer.parallel.train()
        if run.metrics_file.exists():  # there was an attempt before
            say(f"continuing after step {at.step}" if at.step else "no checkpoint: from step 0")
        stop = stack.enter_context(_asked_to_stop())
        files = in_first(processes, partial(_open_files, run, tokenizer, options, at.step))
        if files is not None:
            stack.enter_context(files[0])
            stack.enter_context(files[1])
        telling = stack.enter_context(Telling(steps, at.step, device, say))
        while at.epoch < options.train.epochs:
            of_epoch = replace(loader, draws=draw(options.data, len(cache), seed, at.epoch))
            left, workers = batches.of(at.epoch)[at.batch :], execution.loader_workers
            loaded = iterate(of_epoch, left, workers, pin=loader.few_shapes)
            moved = telling.waiting(on_device(loaded, device))
            telling.begin_epoch()
            for rows in _steps(trainer, moved, at, len(batches), stop):
                telling.add(rows)
                stopped = any_process(bool(stop), processes)
                ended, last = at.batch == 0, at.epoch == options.train.epochs
                if ended:
                    telling.end_epoch(at.epoch, options.train.epochs)
                looks = last or at.epoch % execution.validation_epochs == 0
                if ended and validation and looks:
                    in_first(processes, partial(_validate, files, validation, trainer, at, telling))
                save = stopped or last
                in_first(processes, partial(_write, files, rows, trainer, at, save))
                if stopped:
                    return False
    return True


@contextmanager
def _no_warnings_of_the_compiler() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"torch\._inductor")
        yield


def _loader(
    model: Backbone,
    tokenizer: Any,
    cache: ReadingCache,
    readings: Numbers,
    options: Options,
    processes: Processes,
    device: torch.device,
) -> BatchLoader:
    return BatchLoader(
        cache,
        tokenizer,
        readings_with_used_gaze(cache, readings, options.data, options.train.seed),
        model.facts.max_tokens,
        options.data.empty_sentence == "reading",
        processes.rank,
        processes.world,
        own_grid(model, options),
        readings_at_once=options.execution.readings_at_once,
        few_shapes=device.type != "cpu",
        padding_counts=model.padding_counts,
    )


def _steps(
    trainer: Trainer,
    batches: Iterable[Batch],
    at: Progress,
    in_epoch: int,
    stop: Collection[int],
) -> Iterator[list[Row]]:
    """Take the steps of some batches; yield their rows of metrics when the host looks at them.

    On a CPU that is after each. For a card's it has to wait: it looks now and then, and alone at
    once when it is asked to stop. Several processes look at the same steps.
    """
    of_card = trainer.device.type != "cpu"
    each = (_STEPS_BETWEEN_LOOKS, trainer.options.execution.checkpoint_steps)
    rows: list[Row] = []
    told: list[Tensor] = []
    begin = time.monotonic()
    for batch in batches:
        rate = learning_rate(at.step, in_epoch, trainer.options)
        told.append(trainer.step(batch, at, rate))
        at.step, at.batch = at.step + 1, at.batch + 1
        own = {"step": at.step, "epoch": at.epoch, "learning_rate": rate}
        rows.append(own | {"samples": len(batch.readings)})
        if at.batch == in_epoch:
            at.epoch, at.batch = at.epoch + 1, 0
        due = not at.batch or any(steps and not at.step % steps for steps in each)
        if of_card and not due and not (stop and trainer.processes.world == 1):
            continue
        figures = torch.stack(told).tolist()
        seconds = (time.monotonic() - begin) / len(rows)
        for row, values in zip(rows, figures, strict=True):
            row |= dict(zip(TOLD, values, strict=True)) | {"seconds": round(seconds, 4)}
            if not math.isfinite(row["loss"]):
                raise BadUsageError(
                    f"the loss is {row['loss']} at step {row['step']}; start anew by --name"
                    " with a smaller train.learning_rate"
                )
        yield rows
        rows, told, begin = [], [], time.monotonic()


def _open_files(
    run: RunFolder, tokenizer: Any, options: Options, after_step: int
) -> tuple[Metrics, CheckpointWriter]:
    execution, held = options.execution, bool(options.data.validation_split)
    metrics = Metrics(run, after_step, held, execution.wandb)
    return metrics, CheckpointWriter(run, tokenizer, execution)


def _write(
    files: tuple[Metrics, CheckpointWriter] | None,
    rows: list[Row],
    trainer: Trainer,
    at: Progress,
    save: bool,
) -> None:
    """Write rows of metrics and, if one is due, a checkpoint, after which no step is lost."""
    if files is None:  # of the first process alone
        return
    metrics, checkpoints = files
    for row in rows:
        metrics.add(row)
    if save or checkpoints.is_due(at.step):
        checkpoints.begin(trainer, at)
    if save:
        checkpoints.finish()


def _validate(
    files: tuple[Metrics, CheckpointWriter] | None,
    validation: Validation,
    trainer: Trainer,
    at: Progress,
    telling: Telling,
) -> None:
    found = validation.of(trainer)
    telling.say(
        f"held out: loss {found['loss']:.4f}, pointing {found['pointing']:.1%} of"
        f" {found['sentences']} sentences (always the same patch: {found['prior_pointing']:.1%})"
    )
    if files is not None:
        files[0].add_validation({"step": at.step, "epoch": at.epoch} | found)


def own_grid(model: Backbone, options: Options) -> Grid | None:
    """Describe a system's grid of patches; None for the stored one, 7 x 7 on the frame."""
    cells, geometry = model.facts.grid, model.facts.geometry
    if (cells, geometry) == (GRID_CELLS, FRAME):
        return None
    return Grid(cells, geometry, options.data.grid == "antialias")


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
