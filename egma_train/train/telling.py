"""What a run tells while it is at work: a bar on a terminal, lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from egma_train.losses import TERMS

_SECONDS_BETWEEN_LINES = 60.0

Item = TypeVar("Item")
Say = Callable[[str], Any]


class Telling:
    """Counts samples, loss and time.

    Parameters
    ----------
    steps, done : int
        Of the whole run, and of them those of earlier attempts.
    device : device
        Whose memory is told.
    say : callable
        Prints a line.
    """

    def __init__(self, steps: int, done: int, device: torch.device, say: Say) -> None:
        self._steps, self._at, self._device, self._say = steps, done, device, say
        self._bar = tqdm(
            total=steps, initial=done, disable=None, file=sys.stderr, leave=False,
            dynamic_ncols=True, bar_format="{percentage:3.0f}%|{bar}| {n}/{total}{postfix}",
        )  # fmt: skip
        self._first = done
        self._began = self._since = self._line = time.monotonic()
        self._rows: list[dict[str, float]] = []
        self._waited = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def waiting(self, items: Iterable[Item]) -> Iterator[Item]:
        """Hand on what is loaded, and count how long it took to come."""
        loaded = iter(items)
        while True:
            begin = time.monotonic()
            item = next(loaded, None)
            self._waited += time.monotonic() - begin
            if item is None:
                return
            yield item

    def add(self, rows: list[dict[str, float]]) -> None:
        """Count steps that are done."""
        self._rows += rows
        self._at += len(rows)
        terms = " + ".join(f"{one:.3g}" for one in _terms(rows).values())
        loss = f"loss {_mean(rows, 'loss'):.4g}{f' = {terms}' if ' ' in terms else ''}"
        self._bar.set_postfix_str(f"{self._rate()}, {self._left()}, {loss}", refresh=False)
        self._bar.update(len(rows))
        silent = self._bar.disable and time.monotonic() - self._line > _SECONDS_BETWEEN_LINES
        if silent:
            self._line = time.monotonic()
            told = f"{_means(rows)}, {self._rate()}, {self._left()}"
            self.say(f"step {self._at}/{self._steps}: {told}")

    def begin_epoch(self) -> None:
        """Count anew."""
        self._rows, self._waited = [], 0.0
        self._since = self._line = time.monotonic()

    def end_epoch(self, done: int, epochs: int) -> None:
        """Say what an epoch was."""
        taken = max(time.monotonic() - self._since, 1e-9)
        memory = ""
        if self._device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self._device) / 2**30
            memory = f", at most {peak:.1f} GiB"
        steps = f"{len(self._rows)} steps in {taken:.1f} s"
        self.say(
            f"epoch {done}/{epochs}: {_means(self._rows)}; {steps},"
            f" {self._rate()}, {self._waited / taken:.0%} of it"
            f" waiting for data{memory}{', ' + self._left() if done < epochs else ''}"
        )

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.clear()
        self._say(line)
        self._bar.refresh()

    def __enter__(self) -> "Telling":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def _rate(self) -> str:
        taken = max(time.monotonic() - self._since, 1e-9)
        rate = sum(row["samples"] for row in self._rows) / taken
        return f"{rate:.{1 if rate < 10 else 0}f} samples/s"

    def _left(self) -> str:
        done = self._at - self._first
        seconds = (time.monotonic() - self._began) / max(done, 1) * (self._steps - self._at)
        minutes = seconds / 60
        left = f"{seconds:.0f} s" if seconds < 90 else f"{minutes:.0f} min"
        return f"{left if minutes < 90 else f'{minutes / 60:.1f} h'} left"


def _means(rows: list[dict[str, float]]) -> str:
    terms = ", ".join(f"{name} {mean:.4f}" for name, mean in _terms(rows).items())
    return f"loss {_mean(rows, 'loss'):.4f}" + (f" ({terms})" if terms else "")


def _terms(rows: list[dict[str, float]]) -> dict[str, float]:
    """Average the terms that are part of the loss."""
    means = {name: _mean(rows, name) for name in TERMS}
    return {name: mean for name, mean in means.items() if mean}


def _mean(rows: list[dict[str, float]], name: str) -> float:
    return sum(row[name] for row in rows) / len(rows)
