"""Phantom trees and their clean runs, made once a session."""

import contextlib
import json
import os
import shutil
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from click import Command
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from egma_prep.cli import main
from egma_prep.etl import run
from egma_prep.synth import write_tree

# Several test processes share the cores, and beside other work torch's threads wait for each other
# most of the time. It reads this when it is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A machine that does other work is slow, no fault.
settings.register_profile(
    "loaded",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("loaded")

PATIENCE_S = 900
"""Only what hangs takes so long: no test depends on the speed of the machine."""

MATRIX = pytest.StashKey[dict[tuple[str, str, str], list[str]]]()

IN_THREADS = ("--set", "execution.processes=false", "--set", "execution.readings_per_part=8")


def invoked(command: Command, *arguments: object) -> Result:
    """Run a command in this process; click before 8.2 keeps stderr apart only when asked."""
    apart = {"mix_stderr": False} if "mix_stderr" in signature(CliRunner).parameters else {}
    result = CliRunner(**apart).invoke(command, [str(argument) for argument in arguments])
    if apart:
        result.__class__ = _BothStreams
    return result


class _BothStreams(Result):
    output = property(lambda self: self.stdout + self.stderr)


def egma_prep(*arguments: object) -> Result:
    """Run a command of the real CLI in this process."""
    return invoked(main, *arguments)


def run_etl(data: Path, out: Path, *more: object) -> Result:
    return egma_prep("run", data, "--out", out, *IN_THREADS, *more)


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tree with every quirk."""
    root = tmp_path_factory.mktemp("data") / "mimic-eye"
    write_tree(root, 24, small=True, seed=3)
    return root


@pytest.fixture(scope="session")
def truth(phantom: Path) -> dict[str, Any]:
    return json.loads((phantom / "PHANTOM-truth.json").read_text())


@pytest.fixture(scope="session")
def clean_out(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run, not to be changed by tests."""
    out = tmp_path_factory.mktemp("clean") / "out"
    result = run_etl(phantom, out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def reported(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with both reports, not to be changed by tests."""
    shutil.copytree(clean_out, out := tmp_path_factory.mktemp("reported") / "out")
    for flags in ((), ("--shareable",)):
        result = egma_prep("report", "--out", out, *flags)
        assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def shards(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards alone, with their cache, for a module's runs of training."""
    from egma_train.data.cache import open_cache  # torch, which most tests do without

    root = tmp_path_factory.mktemp("shards")
    shutil.copytree(clean_out / "shards", root / "shards")
    open_cache(root)
    return root


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs do their work in this process, one part after the other."""

    def one_by_one(client: object, work: Any, jobs: deque[Any]) -> Iterator[tuple[Any, Any]]:
        while jobs:
            job = jobs.popleft()
            yield job, work(*job)

    monkeypatch.setattr(run, "dask_client", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(run, "each_done", one_by_one)


# -- the record of faults -------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-matrix", type=Path, help="Write docs/reliability.md from this run.")
    parser.addoption("--soak", type=Path, help="Random tests at full length; write what they saw.")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[MATRIX] = defaultdict(list)
    config.stash[CAMPAIGN] = SOAK if config.getoption("--soak") else Campaign()


def fault_of(item: pytest.Item) -> tuple[str, str, str] | None:
    """What a test's ``fault`` marker says: what happens, how it is done, what is promised."""
    marker = item.get_closest_marker("fault")
    return marker.args if marker else None  # type: ignore[return-value]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    fault = fault_of(item)
    if fault and (report.when == "call" or not report.passed):
        item.config.stash[MATRIX][fault].append(report.outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    if target := session.config.getoption("--fault-matrix"):
        target.write_text(reliability_page(session.config.stash[MATRIX]))
    if target := session.config.getoption("--soak"):
        failed = (
            "" if not session.testsfailed else f"\n**{session.testsfailed} campaigns failed.**\n"
        )
        target.write_text(soak_page(session.config.stash[CAMPAIGN]) + failed)


def reliability_page(matrix: dict[tuple[str, str, str], list[str]]) -> str:
    """Write the page from what the tests recorded of themselves."""
    text = (Path(__file__).parent / "reliability_head.md").read_text()
    rows = [
        f"| {number} | {' | '.join(fault)} | {_result(outcomes)} |"
        for number, (fault, outcomes) in enumerate(matrix.items(), 1)
    ]
    head = ["| | fault | how it is injected | promised | result |", "|---|---|---|---|---|"]
    return "\n".join([text, *head, *rows]) + "\n"


def _result(outcomes: list[str]) -> str:
    if "failed" in outcomes:
        return "**broken**"
    passed = outcomes.count("passed")
    return f"held ({passed})" if passed else "not run here"


# -- campaigns ------------------------------------------------------------------------------------


@dataclass
class Campaign:
    """How much the random tests do, small in the suite and large by ``--soak``, and what they saw.

    Attributes
    ----------
    inputs : int
        Damaged inputs for each parser.
    kills, flips : int
        Kills of a run, flipped bits of its outputs.
    """

    inputs: int = 60
    kills: int = 1
    flips: int = 60
    said: list[str] = field(default_factory=list)

    def say(self, what: str, seen: Mapping[str, int]) -> None:
        """Keep a line for the end."""
        found = ", ".join(f"{name} {number:,}" for name, number in sorted(seen.items()))
        self.said.append(f"| {what} | {found} |")


SOAK = Campaign(inputs=10_000, kills=100, flips=1_000)
CAMPAIGN = pytest.StashKey[Campaign]()


@pytest.fixture(scope="session")
def campaign(pytestconfig: pytest.Config) -> Campaign:
    return pytestconfig.stash[CAMPAIGN]


def soak_page(campaign: Campaign) -> str:
    """Write the page from what the campaigns saw."""
    head = ["# Soak", "", "Written by `make soak`.", "", "| campaign | outcomes |", "|---|---|"]
    return "\n".join([*head, *campaign.said]) + "\n"
