"""Telling users what can be told; a command loses the rest and goes on."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from egma_train.errors import BadUsageError
from egma_train.storage.atomic import own_modes
from egma_train.storage.safe_text import for_terminal


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Run a command so that nobody who stops to listen can end it, and nobody else reads of it."""
    _keep_descriptors_taken()
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_modes())
        stack.enter_context(_signals_as_ctrl_c())
        stack.enter_context(_quiet_threads())
        if sys.stdout is sys.__stdout__:  # not those of a test
            stack.enter_context(contextlib.redirect_stdout(_lossy(sys.stdout, 1)))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(_lossy(sys.stderr, 2)))
        yield


def tell(line: object, error: bool = False) -> None:
    """Print a line without control characters, whoever wrote what is in it.

    That nobody can be told any more must not end what is at work.
    """
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print(for_terminal(str(line)), file=sys.stderr if error else sys.stdout, flush=True)


@contextlib.contextmanager
def _signals_as_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and SIGHUP (ssh lost) clean up and say a line too; nohup's stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_IGN)  # shells repeat SIGHUP
        raise KeyboardInterrupt

    asked = (signal.SIGTERM, signal.SIGHUP)
    before = {one: signal.getsignal(one) for one in asked}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """Say nothing where TensorBoard's thread cannot write: it tells the main thread, which does."""
    before = threading.excepthook

    def hook(caught: threading.ExceptHookArgs) -> None:
        if not isinstance(caught.exc_value, OSError):
            before(caught)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def check_working_folder() -> None:
    """Stop where the working folder was deleted: torch would end the process by oneMKL's words.

    Raises
    ------
    BadUsageError
        If so.
    """
    try:
        os.getcwd()
    except OSError:
        raise BadUsageError(
            "the working folder is gone (deleted, or its disk is not mounted); cd to one that"
            " exists, then repeat the same command"
        ) from None


class _LossyFile(io.FileIO):
    """A closed terminal, a reader that went away or a full disk must not end a night's run."""

    def write(self, data: object) -> int:
        with contextlib.suppress(OSError):
            if (written := super().write(data)) is not None:  # type: ignore[arg-type]
                return written
        return memoryview(data).nbytes  # type: ignore[arg-type]


def _lossy(stream: TextIO | None, descriptor: int) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
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
