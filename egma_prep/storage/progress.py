"""Progress with rate and time left: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from types import TracebackType
from typing import TextIO

_SECONDS_BETWEEN_LINES = 10.0  # in a log file, where nothing is drawn over
_SECONDS_BETWEEN_DRAWS = 0.2  # on a terminal: faster than one reads, slower than it flickers
_BAR_CELLS = 24


def one_line(text: str) -> str:
    """Replace what would steer a terminal, or break the line: names come from others' files."""
    return "".join(one if one.isprintable() else "?" for one in text)


def tell(line: str, stream: TextIO | None = None) -> None:
    """Print a line; that nobody can be told any more must not end a run."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print(one_line(line), file=stream, flush=True)


class Progress:
    """Counts readings towards a total and shows it on standard error."""

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self._live = _is_terminal()
        self._start = self._shown = time.monotonic()
        self._shown_done = -1

    def __enter__(self) -> "Progress":
        if self._live:
            self._show()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._show()
            _show_text("\n")
        elif self.done < self.total or self._shown_done < self.done:
            self._show()

    def advance(self, readings: int) -> None:
        """Count readings as done."""
        self.done += readings
        every = _SECONDS_BETWEEN_DRAWS if self._live else _SECONDS_BETWEEN_LINES
        if time.monotonic() - self._shown >= every:
            self._show()

    def line(self) -> str:
        """Describe the state: count, share, rate, time left."""
        seconds = max(time.monotonic() - self._start, 1e-9)
        rate = self.done / seconds
        left = f"{_clock((self.total - self.done) / rate)} left" if rate else "starting"
        if self.done >= self.total:
            left = f"in {_clock(seconds)}"
        share = self.done / max(self.total, 1)
        return f"{self.label}: {self.done}/{self.total} ({share:.0%}), {rate:.1f}/s, {left}"

    def _show(self) -> None:
        self._shown, self._shown_done = time.monotonic(), self.done
        if self._live:
            filled = round(_BAR_CELLS * self.done / max(self.total, 1))
            bar = "#" * filled + "-" * (_BAR_CELLS - filled)
            _show_text(f"\r\x1b[K[{bar}] {self.line()}")
        else:
            _show_text(f"{self.line()}\n")


def _is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # closed before or after Python began
        return False


def _show_text(text: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # as `tell`
        sys.stderr.write(text)
        sys.stderr.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
