"""Phantom trees and their clean runs, made once a session."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from egma_prep.cli import main
from egma_prep.synth import write_tree

IN_THREADS = ("--set", "execution.processes=false", "--set", "execution.readings_per_part=8")


def egma_prep(*arguments: object) -> Result:
    """Run a command of the real CLI in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


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
