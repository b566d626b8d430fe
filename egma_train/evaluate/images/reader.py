"""A process of its own that reads images: a line of JSON in, a line of JSON and the pixels out.

A pool whose processes answer through one pipe waits for ever where one of them is killed in the
middle of an answer. Here each has pipes of its own, which end with it.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.images.frames import Frame, frame_or_reason
from egma_train.geometry import Geometry


class Reader:
    """A process that reads one image after the other; for one thread at a time."""

    def __init__(self) -> None:
        # A session of its own: who stops the command by Ctrl-C says so, once. -P: nothing of the
        # folder that one happens to be in is imported.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def read(self, path: Path | None, geometry: Geometry, side_px: int) -> Frame | str:
        """Read an image, or say why it cannot be; `BadUsageError` if the process was killed."""
        if path is None:
            return "not found"
        into, out = self._process.stdin, self._process.stdout
        assert into is not None and out is not None
        try:
            into.write(json.dumps([str(path), list(geometry), side_px]).encode() + b"\n")
            into.flush()
            told = json.loads(out.readline())
            if isinstance(told, str):
                return told
            pixels = out.read(told[0] * told[1])
            return np.frombuffer(pixels, np.uint8).reshape(told)
        except (OSError, ValueError):
            raise BadUsageError(
                "a process that reads images was killed, as happens where memory is short; use"
                " fewer: taskset -c 0-3 and the same command"
            ) from None

    def close(self) -> None:
        """Let the process end; it does by itself where this one is killed."""
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Answer until nobody asks any more."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a decoder that prints must not be taken for an answer
    for line in sys.stdin.buffer:
        path, geometry, side_px = json.loads(line)
        found = frame_or_reason(Path(path), Geometry(*geometry), side_px)
        told = found if isinstance(found, str) else found.shape
        answers.write(json.dumps(told).encode() + b"\n")
        if not isinstance(found, str):
            answers.write(np.ascontiguousarray(found).tobytes())
        answers.flush()


if __name__ == "__main__":
    main()
