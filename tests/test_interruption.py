"""A run that is stopped goes on where it stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PATIENCE_S
from tables import contents

_COMMAND = (sys.executable, "-c", "from egma_prep.cli import main; main()", "run")


def _start(phantom: Path, out: Path) -> subprocess.Popen[str]:
    more = ("--out", str(out), "--workers", "2", "--set", "execution.readings_per_part=2")
    return subprocess.Popen(
        [*_COMMAND, str(phantom), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        # A shell that started the tests in the background has it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _wait_for_first_part(out: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not list(out.glob("state/part-*/record.json")):
        assert time.monotonic() < deadline, "no part was made"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "SIGKILL"])
def test_a_run_that_was_stopped_by_a_signal_is_finished_by_the_next(
    phantom: Path, clean_out: Path, tmp_path: Path, number: signal.Signals
) -> None:
    out = tmp_path / "out"
    stopped = _start(phantom, out)
    _wait_for_first_part(out)
    os.killpg(stopped.pid, number)
    said, _ = stopped.communicate(timeout=PATIENCE_S)
    if number == signal.SIGINT:
        assert stopped.returncode == 130
        assert "Traceback" not in said
        assert "the same command goes on from here" in said
    made = {path: path.stat().st_mtime_ns for path in out.glob("state/part-*/record.json")}

    resumed = _start(phantom, out)
    said, _ = resumed.communicate(timeout=PATIENCE_S)
    assert resumed.returncode == 0, said
    assert (
        made.items()
        <= {path: path.stat().st_mtime_ns for path in out.glob("state/part-*/record.json")}.items()
    )
    assert contents(out) == contents(clean_out)
    assert not list(out.rglob(".*.tmp"))
