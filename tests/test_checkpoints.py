"""Checkpoints by time, written by a thread; what a run tells, held-out readings included."""

import json
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_train import SMALL, assert_same_run, begun_like, command, egma_train, metrics_of, weights

from egma_train.data.cache import open_cache
from egma_train.data.loading import Batch
from egma_train.data.sampling import chosen_readings, held_readings
from egma_train.errors import BadUsageError
from egma_train.options import DataOptions
from egma_train.run_folder import RunFolder
from egma_train.train import telling
from egma_train.train.step import Encoded
from egma_train.train.telling import Telling
from egma_train.train.validation import pointed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of one epoch."""
    out = tmp_path_factory.mktemp("done")
    result = egma_train("--shards", shards, "--out", out, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    return out / "runs" / "tiny-egma-seed0"


# -- checkpoints -----------------------------------------------------------------------------------


def test_checkpoints_come_by_time_and_the_newest_two_are_kept(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    for name, minutes, kept in (("often", 0, 2), ("seldom", 10, 1)):
        run = begun_like(done, tmp_path, name, epochs=2)
        every = ("--set", f"execution.checkpoint_minutes={minutes}")
        assert egma_train(*command(shards, tmp_path, name, *every)[2:]).exit_code == 0
        steps = len(metrics_of(run))
        names = [f"step-{step:08d}" for step in range(1, steps + 1)][-kept:]
        assert sorted(one.name for one in (run / "checkpoints").iterdir()) == names


def test_training_goes_on_while_a_checkpoint_is_written(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun_like(done, tmp_path, "one", epochs=2)
    real, seen = RunFolder.save_checkpoint, []

    def slow(self: RunFolder, step: int, *own: Any) -> None:
        if step == 1:
            until(lambda: len(metrics_of(run)) > 3)
        seen.append((step, threading.current_thread() is not threading.main_thread()))
        real(self, step, *own)

    monkeypatch.setattr(RunFolder, "save_checkpoint", slow)
    every = ("--set", "execution.checkpoint_steps=1000", "--set", "execution.checkpoint_minutes=1")
    minutes = iter([0, *([2 * 60] * 1000)])  # due once, after the first step, and at the end
    monkeypatch.setattr(
        "egma_train.train.checkpoints.time", SimpleNamespace(monotonic=lambda: next(minutes))
    )
    result = egma_train(*command(shards, tmp_path, "one", *every)[2:])
    assert result.exit_code == 0, result.output
    assert seen == [(1, True), (len(metrics_of(run)), True)]


def until(true: Any) -> None:
    while not true():
        threading.Event().wait(0.01)


_DIES_WHILE_WRITING = """
import os, signal, sys, threading
from egma_train import cli, run_folder
real = run_folder.save_model
def save_model(folder, *own):
    real(folder, *own)
    if folder.name.startswith(".step-00000004"):
        assert threading.current_thread() is not threading.main_thread()
        os.kill(os.getpid(), signal.SIGKILL)
run_folder.save_model = save_model
cli.main(sys.argv[1:])
"""


@pytest.mark.fault(
    "training is killed while a thread writes a checkpoint",
    "SIGKILL when a checkpoint's weights are written and the optimiser's state is not",
    "resumed from the whole one before, to the same end bit for bit",
)
def test_a_kill_while_a_checkpoint_is_written_loses_the_one_before_never(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    calm = begun_like(done, tmp_path, "calm", epochs=2)
    hurt = begun_like(done, tmp_path, "hurt", epochs=2)
    every = ("--set", "execution.checkpoint_steps=2")
    assert egma_train(*command(shards, tmp_path, "calm", *every)[2:]).exit_code == 0
    words = [sys.executable, "-c", _DIES_WHILE_WRITING]
    killed = subprocess.run([*words, *command(shards, tmp_path, "hurt", *every)[2:]])
    assert killed.returncode == -signal.SIGKILL
    assert [one.name for one in (hurt / "checkpoints").glob("step-*")] == ["step-00000002"]
    again = egma_train(*command(shards, tmp_path, "hurt", *every)[2:])
    assert again.exit_code == 0 and "continuing after step 2" in again.stdout
    assert_same_run(calm, hurt)


def test_a_loss_that_is_no_number_leaves_the_checkpoint_before_it(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of no numbers in the newest checkpoint would be gone on from for ever."""
    from egma_train.train import step

    run = begun_like(done, tmp_path, "one", epochs=2)
    real, calls = step.batch_loss, []

    def spoilt(*asked: Any) -> Any:
        calls.append(1)
        loss = real(*asked)
        return loss._replace(total=loss.total * float("nan")) if len(calls) == 4 else loss

    monkeypatch.setattr(step, "batch_loss", spoilt)
    every = ("--set", "execution.checkpoint_minutes=0")
    result = egma_train(*command(shards, tmp_path, "one", *every)[2:])
    assert result.exit_code == 2 and "the loss is nan at step 4" in result.stderr
    assert max(one.name for one in (run / "checkpoints").iterdir()) == "step-00000003"


# -- telling ---------------------------------------------------------------------------------------


def test_a_run_tells_its_rate_its_waiting_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Steps of 8 readings, 2 s each, half a second of it waiting; 4 of 12 are done before."""
    now = [100.0]
    monkeypatch.setattr(telling.time, "monotonic", lambda: now[0])
    lines: list[str] = []
    told = Telling(12, 4, CPU, lines.append)

    def slow() -> Any:
        for item in range(4):
            now[0] += 0.5
            yield item

    told.begin_epoch()
    for _ in told.waiting(slow()):
        now[0] += 1.5
        told.add([{"loss": 3.0, "mlce": 2.0, "contrastive": 1.0, "mapping": 0.0, "samples": 8}])
    told.end_epoch(2, 3)
    assert lines == [
        "epoch 2/3: loss 3.0000 (mlce 2.0000, contrastive 1.0000); 4 steps in 8.0 s,"
        " 4.0 samples/s, 25% of it waiting for data, 8 s left"
    ]
    now[0] += 61
    told.add([{"loss": 5.0, "mlce": 5.0, "contrastive": 0.0, "mapping": 0.0, "samples": 8}])
    assert re.fullmatch(
        r"step 9/12: loss 5\.0000 \(mlce 5\.0000\), [0-9.]+ samples/s, \d+ s left", lines[1]
    )


def test_metrics_go_to_weights_and_biases_where_asked_for(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1)
    asked = ("--set", "execution.wandb=ours")
    monkeypatch.setitem(sys.modules, "wandb", None)
    result = egma_train(*words, *asked)
    assert result.exit_code == 2 and "execution.wandb needs wandb: pip install" in result.stderr
    assert not (tmp_path / "runs").exists()  # the same command without it begins the run
    begun: list[dict[str, Any]] = []
    logged: list[tuple[dict[str, float], int]] = []
    ended: list[int] = []
    board = SimpleNamespace(
        log=lambda values, step: logged.append((values, step)),
        finish=lambda exit_code: ended.append(exit_code),
    )
    stand_in = SimpleNamespace(init=lambda **own: (begun.append(own), board)[1])
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    assert egma_train(*words, *asked).exit_code == 0
    run = tmp_path / "runs" / "tiny-egma-seed0"
    assert begun[0]["project"] == "ours" and begun[0]["name"] == run.name
    assert begun[0]["dir"] == str(run) and begun[0]["config"]["train"]["epochs"] == 1
    assert [step for _, step in logged] == [int(row["step"]) for row in metrics_of(run)]
    assert logged[0][0]["loss"] == pytest.approx(float(metrics_of(run)[0]["loss"]))
    assert ended == [0]


# -- held-out readings -----------------------------------------------------------------------------


def test_what_is_held_out_is_not_trained_on_and_changes_nothing_but_that(
    shards: Path, tmp_path: Path
) -> None:
    cache = open_cache(shards)
    held = DataOptions(validation_split="validate")
    trained, validated = chosen_readings(cache, held), held_readings(cache, held)
    assert set(cache.split[validated].tolist()) == {"validate"} and len(validated)
    assert "validate" not in set(cache.split[trained].tolist())
    both = DataOptions(one_reading_per_image=False)
    every = DataOptions(one_reading_per_image=False, validation_split="validate")
    whole = {*chosen_readings(cache, every).tolist(), *held_readings(cache, every).tolist()}
    assert whole == set(chosen_readings(cache, both).tolist())
    words = ("--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 2)
    asked = ("--set", "data.validation_split=validate")
    for name, epochs in (("each", 1), ("second", 3)):  # the last epoch's is looked at in any case
        more = ("--name", name, "--set", f"execution.validation_epochs={epochs}")
        result = egma_train(*words, *asked, *more)
        assert result.exit_code == 0, result.output
        assert result.output.count("held out: loss ") == (2 if epochs == 1 else 1)
    each, second = tmp_path / "runs" / "each", tmp_path / "runs" / "second"
    assert_same_run(each, second)
    found, other = (pd.read_csv(run / "validation.csv") for run in (each, second))
    assert found["epoch"].tolist() == [1, 2] and other["epoch"].tolist() == [2]
    pd.testing.assert_frame_equal(found[1:].reset_index(drop=True), other)
    terms = found["mlce"] + found["contrastive"] + found["mapping"]
    np.testing.assert_allclose(found["loss"], terms, rtol=1e-5)
    record = json.loads((each / "run.json").read_text())
    assert record["counts"]["held_out"] == len(held_readings(cache, every))


def test_a_run_resumed_in_its_second_epoch_has_the_same_validation(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    runs = []
    for name in ("calm", "hurt"):
        run = begun_like(done, tmp_path, name, epochs=2)
        record = json.loads((run / "run.json").read_text())
        record["options"]["data"]["validation_split"] = "validate"
        (run / "run.json").write_text(json.dumps(record))
        runs.append(run)
    calm, hurt = runs
    every = ("--set", "execution.checkpoint_steps=2")
    assert egma_train(*command(shards, tmp_path, "calm", *every)[2:]).exit_code == 0
    words = [sys.executable, "-c", _DIES_WHILE_WRITING]
    subprocess.run([*words, *command(shards, tmp_path, "hurt", *every)[2:]])
    assert egma_train(*command(shards, tmp_path, "hurt", *every)[2:]).exit_code == 0
    assert (calm / "validation.csv").read_text() == (hurt / "validation.csv").read_text()
    assert weights(calm).keys() == weights(hurt).keys()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"validation_split": "vali"}, r"split \(data\.validation_split\) 'vali'; there are: "),
        ({"validation_split": "train", "splits": ("train",)}, "is among data.splits"),
    ],
)
def test_a_split_that_cannot_be_held_out_is_said(
    shards: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadUsageError, match=said):
        chosen_readings(open_cache(shards), DataOptions(**options))


def test_pointing_counts_the_best_patch_among_the_most_gazed() -> None:
    """Three sentences of four patches: right, wrong, and one whose gaze is everywhere."""
    patches = torch.eye(4)[None]
    sentences = torch.tensor([[[0, 9, 1, 0], [2, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1.0]]])
    grid = torch.tensor([[[0, 0.8, 0.1, 0], [0.2, 0, 1.0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]])
    mask = torch.tensor([[True, True, True, False]])
    batch = Batch((), mask, grid, mask, np.zeros(1, np.int64), (1,))
    encoded = Encoded(patches, patches[:, 0], sentences, sentences, torch.tensor(1.0))
    assert pointed(encoded, batch, torch.tensor([0.1, 0.2, 0.7, 0.0])) == [1, 1, 2]
