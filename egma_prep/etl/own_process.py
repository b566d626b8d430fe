"""What only a process of our own may do, a command: lose what it cannot tell, hide torch."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Run a command so that nobody who stops to listen can end it, and spaCy starts quickly."""
    _keep_descriptors_taken()
    with contextlib.ExitStack() as stack:
        # Whatever a library writes, also in a worker process, is for the owner alone.
        stack.callback(os.umask, os.umask(0o077))
        if sys.stdout is sys.__stdout__:  # not those of a test
            stack.enter_context(contextlib.redirect_stdout(_lossy(sys.stdout, 1)))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(_lossy(sys.stderr, 2)))
        if "torch" not in sys.modules:
            hide_torch()
            stack.callback(sys.modules.pop, "torch", None)
        yield


def hide_torch() -> None:
    """Let spaCy believe that torch is not installed: seconds and 190 MB of every process."""
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]


def unhide_torch() -> None:
    """Let a library look for torch that asks `sys.modules` whether it was imported."""
    if sys.modules.get("torch", sys) is None:
        del sys.modules["torch"]


class _LossyFile(io.FileIO):
    """A closed terminal, a reader that went away or a full disk must not end a night's run."""

    def write(self, data: object) -> int:
        with contextlib.suppress(OSError):
            if (written := super().write(data)) is not None:  # type: ignore[arg-type]
                return written
        return memoryview(data).nbytes  # type: ignore[arg-type]


def _lossy(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:  # closed before Python began: its number may be another file's by now
        return open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")
    encoding = stream.encoding
    raw = io.BufferedWriter(_LossyFile(descriptor, "wb", closefd=False))
    # A name that the terminal's encoding does not have must not end a run either.
    return io.TextIOWrapper(raw, encoding, "backslashreplace", line_buffering=True)


def _keep_descriptors_taken() -> None:
    """Open what was closed (``2>&-``): the next file would get its number, and be written to."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            os.dup2(nowhere, descriptor)
            os.set_inheritable(descriptor, True)
            if nowhere != descriptor:
                os.close(nowhere)
