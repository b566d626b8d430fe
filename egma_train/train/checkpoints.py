"""Checkpoints by time, written beside the training."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from egma_train.errors import CannotWriteError
from egma_train.options import ExecutionOptions
from egma_train.run_folder import RunFolder
from egma_train.train.step import Progress, Trainer


class CheckpointWriter:
    """Copies what is to be kept to the host, and lets a thread write it.

    Parameters
    ----------
    run : RunFolder
        Of which this process has the lock.
    tokenizer
        Written with each.
    options : ExecutionOptions
        How often.
    """

    def __init__(self, run: RunFolder, tokenizer: Any, options: ExecutionOptions) -> None:
        self._run, self._tokenizer, self._options = run, tokenizer, options
        self._identity = run.identity()
        self._thread: threading.Thread | None = None
        self._failure: CannotWriteError | None = None
        self._begun = time.monotonic()

    def is_due(self, step: int) -> bool:
        """Tell whether it is time, or a step that ends with one."""
        by_steps = self._options.checkpoint_steps
        minutes = (time.monotonic() - self._begun) / 60
        return minutes >= self._options.checkpoint_minutes or bool(by_steps and not step % by_steps)

    def begin(self, trainer: Trainer, at: Progress) -> None:
        """Copy the weights and the optimiser's state, and write them while the training goes on.

        Raises
        ------
        CannotWriteError
            If the one before could not be written; it is waited for.
        """
        self.finish()
        self._begun, step = time.monotonic(), at.step
        training = trainer.state() | {"progress": dict(vars(at)), "run": self._identity}
        copied: Any = _on_host({"model": trainer.model.state_dict(), "training": training})
        ready = None
        if trainer.device.type == "cuda":
            ready = torch.cuda.Event()
            ready.record()

        def write() -> None:
            if ready is not None:
                ready.synchronize()
            own = (trainer.model, self._tokenizer, copied["training"], copied["model"])
            try:
                self._run.save_checkpoint(step, *own)
            except CannotWriteError as error:
                self._failure = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        # A second Ctrl-C ends the process at once: what is cut then, the next one clears away.
        if self._thread is not None and kind is not KeyboardInterrupt:
            self._thread.join()

    def finish(self) -> None:
        """Wait for what is being written.

        Raises
        ------
        CannotWriteError
            If it could not be.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._failure is not None:
            raise self._failure


def _on_host(value: Any) -> Any:
    """Copy tensors: from a card into pinned memory, in the order of its work."""
    if isinstance(value, Tensor):
        pin = value.is_cuda
        host = torch.empty_like(value, device="cpu", pin_memory=pin)
        return host.copy_(value.detach(), non_blocking=pin)
    if isinstance(value, Mapping):
        return {name: _on_host(own) for name, own in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_on_host(own) for own in value)
    return value
