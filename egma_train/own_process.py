"""Telling users what can be told; a command loses the rest and goes on."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from egma_train.errors import BadUsageError


@contextlib.contextmanager
def own_process() -> Iterator[None]:
    """Run a command so that nobody who stops to listen can end it."""
    _keep_descriptors_taken()
    with contextlib.ExitStack() as stack:
        if sys.stdout is sys.__stdout__:  # not those of a test
            stack.enter_context(contextlib.redirect_stdout(_lossy(sys.stdout, 1)))
        if sys.stderr is sys.__stderr__:
            stack.enter_context(contextlib.redirect_stderr(_lossy(sys.stderr, 2)))
        yield


def tell(line: str) -> None:
    """Print a line; that nobody can be told any more must not end what is at work."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a closed file
        print(line, flush=True)


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
