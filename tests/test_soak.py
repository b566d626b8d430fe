"""Chance decides when a run is killed and which bit flips; `make soak` does it at full length."""

import contextlib
import os
import random
import shutil
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE_S, Campaign, run_etl
from test_faults_of_runs import assert_as_undisturbed, finish, start, wait_for_parts

from egma_prep.etl.verify import verify

KINDS = {
    "shards": "shards/*",
    "images": "images/*",
    "tables": "tables/*",
    "parts' shares of tables": "state/*/*.parquet",
    "records": "state/*/record.json",
    "rejects": "rejects.parquet",
}


def kill(pid: int, whom: str) -> None:
    """Kill a run's driver, one of its workers, or all its processes, wherever it is."""
    with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
        if whom == "all":
            os.killpg(pid, signal.SIGKILL)
        elif whom == "driver":
            os.kill(pid, signal.SIGKILL)
        elif children := psutil.Process(pid).children(recursive=True):
            children[-1].kill()


@pytest.mark.fault(
    "a kill at a random moment",
    "SIGKILL to the driver, a worker, or all processes of a run, at a random moment of it",
    "the next run ends as if undisturbed, nothing left over",
)
def test_a_run_killed_at_any_moment_is_finished_by_the_next(
    phantom: Path, clean_out: Path, tmp_path: Path, campaign: Campaign
) -> None:
    begun = time.monotonic()
    finish(start(phantom, tmp_path / "undisturbed"))
    usual_s = time.monotonic() - begun
    parts = len(list((tmp_path / "undisturbed").glob("state/part-*")))
    chance, seen = random.Random(20), Counter[str]()
    for turn in range(campaign.kills):
        out = tmp_path / "out"
        whom = chance.choice(["driver", "worker", "all"])
        run = start(phantom, out)
        # Most of a small run is its start: two in three kills come while parts appear.
        if turn % 3 != 2:
            wait_for_parts(out, chance.randrange(1, parts))
            time.sleep(chance.uniform(0, 0.2))
        else:
            time.sleep(chance.uniform(0, usual_s))
        kill(run.pid, whom)
        made = len(list(out.glob("state/part-*/record.json")))
        when = (
            "before the first part" if not made else "among the parts" if made < parts else "late"
        )
        seen[f"{whom} {when}"] += 1
        run.communicate(timeout=PATIENCE_S)
        assert run_etl(phantom, out).exit_code == 0
        assert_as_undisturbed(out, clean_out)
        shutil.rmtree(out)
    campaign.say(f"{campaign.kills} runs killed, and finished as if undisturbed", seen)


@pytest.mark.fault(
    "three runs into one folder at once",
    "three processes started together",
    "one runs; the others exit 2 and name its process and host",
)
def test_of_three_runs_at_once_one_runs(
    phantom: Path, clean_out: Path, tmp_path: Path, campaign: Campaign
) -> None:
    runs = [start(phantom, tmp_path / "out") for _ in range(3)]
    said = [one.communicate(timeout=PATIENCE_S)[0] for one in runs]
    codes = sorted(one.returncode for one in runs)
    assert codes == [0, 2, 2], said
    winner = next(one.pid for one in runs if one.returncode == 0)
    for one, text in zip(runs, said, strict=True):
        if one.returncode:
            assert f"in use by process {winner} on {socket.gethostname()}" in text
            assert "Traceback" not in text
    assert_as_undisturbed(tmp_path / "out", clean_out)
    campaign.say("three runs started at once", {"ran": 1, "refused by name": 2})


@pytest.mark.fault(
    "a flipped bit anywhere",
    "single bits of shards, images, tables and records, chosen at random, one at a time",
    "`verify` names the file, each time",
)
def test_a_flipped_bit_anywhere_is_found_and_named(
    clean_out: Path, tmp_path: Path, campaign: Campaign
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    chance, seen = random.Random(21), Counter[str]()
    for _ in range(campaign.flips):
        kind = chance.choice([*KINDS])
        path = chance.choice(sorted(out.glob(KINDS[kind])))
        kept = path.read_bytes()
        at = chance.randrange(8 * len(kept))
        path.write_bytes(
            kept[: at // 8] + bytes([kept[at // 8] ^ 1 << at % 8]) + kept[at // 8 + 1 :]
        )
        found = {finding.path for finding in verify(out, sample=0).findings}
        assert path.relative_to(out).as_posix() in found
        path.write_bytes(kept)
        seen[kind] += 1
    assert not verify(out, sample=0).findings
    campaign.say(f"{campaign.flips} flipped bits, all found and named", seen)
