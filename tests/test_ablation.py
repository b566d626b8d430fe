"""From shards to the finished table, killed on the way; and what a table says."""

import csv
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE_S
from evaluation import egma_eval, picture, write_dicom

from egma_train.evaluate.table import tables

PLAN = """
[arms]
objectives = ["clip", "egma"]
gaze_fractions = [0.5]
seeds = [0, 1]
[start]
preset = "tiny"
[options.model]
swin_width = 12
text_width = 32
text_heads = 2
projection = 32
[options.train]
epochs = 1
batch_size = 8
[[tests]]
task = "siim"
images = "siim"
labels = "siim/train-rle.csv"
[[tests]]
task = "rsna"
images = "rsna"
labels = "rsna/labels.csv"
"""


@pytest.fixture
def place(clean_out: Path, tmp_path: Path) -> Path:
    """Shards, a plan and a test dataset."""
    shutil.copytree(clean_out / "shards", tmp_path / "shards")
    (tmp_path / "plan.toml").write_text(PLAN)
    rows = ["ImageId, EncodedPixels"]
    for i in range(8):
        write_dicom(tmp_path / f"data/siim/{i}/1.2.{i}.dcm", picture(i % 2))
        rows.append(f"1.2.{i}, {'1 2' if i % 2 else '-1'}")
    (tmp_path / "data/siim/train-rle.csv").write_text("\n".join(rows))
    return tmp_path


def test_an_ablation_goes_on_after_a_kill_and_trains_nothing_twice(place: Path) -> None:
    call = [
        "ablation", "--shards", place, "--out", place / "out", "--data", place / "data",
        "--config", place / "plan.toml",
    ]  # fmt: skip
    script = "from egma_train.evaluate.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, call)],
        stdout=subprocess.DEVNULL,
    ) as process:
        first = place / "out/runs/ablation-clip-gaze1-seed0/model/model.safetensors"
        second = place / "out/runs/ablation-egma-gaze1-seed0/run.json"
        end = time.monotonic() + PATIENCE_S
        while not second.exists() and time.monotonic() < end and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert first.exists() and second.exists()
    written = first.stat().st_mtime_ns
    result = egma_eval(*call)
    assert result.exit_code == 0, result.output
    assert first.stat().st_mtime_ns == written
    assert "ablation-egma-gaze1-seed0: going on" in result.output
    assert f"rsna is left out: no {place / 'data/rsna'}" in result.output
    with (place / "out/evaluation/tables.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row and row[0].startswith("Table III")]
    ours = {row[1]: row[3:] for row in rows if row[2] == "ours"}
    assert set(ours) == {"untrained", "clip", "egma", "egma, 50% gaze"}
    assert all(row[0] == "-" and row[6].endswith("(2)") for row in ours.values())
    (always,) = (row[3:] for row in rows if row[2] == "baseline")
    assert always == ["-"] * 6 + ["50.00", "33.33", "50.00"]  # 4 of 8; F1 of 2/3 and 0
    order = [row[1] for row in rows]
    assert order.index("egma") == order.index("Unified(Ours)") + 1
    markdown = (place / "out/evaluation/tables.md").read_text()
    assert "| Unified(Ours) | paper | 60.50 | 58.48 | - |" in markdown and "8 images" in markdown
    for said in (
        "SIIM-ACR may be one minus the true ones",
        "prompts 8x200 queries: Table VI as printed, sha256",
        "protocol paper (every prompt; the class of the most similar one); score pooled",
    ):
        assert said in markdown
    assert "<td>60.50</td>" in (place / "out/evaluation/tables.html").read_text()

    again = egma_eval(*call)
    assert again.exit_code == 0 and "epoch" not in again.output
    assert "zero-shot-siim\n" not in again.output  # nothing is measured twice
    runs = place / "out/runs/ablation-clip-gaze1-seed0"
    assert (runs / "start/tokenizer.json").read_text() == (
        runs / "model/tokenizer.json"
    ).read_text()
    write_dicom(place / "data/siim/0/1.2.0.dcm", picture(1))
    other = egma_eval(*call)
    assert other.exit_code == 0 and other.output.count("zero-shot-siim\n") == 8
    (place / "data/siim/1/1.2.1.dcm").write_bytes(b"cut")
    lost = egma_eval(*call)
    assert lost.exit_code == 0 and "zero-shot-siim: 1 of 8 images could not be read" in lost.output
    assert "zero-shot-siim: 7 of 8 images" in lost.output
    table = ("table", "--out", place / "out", "--data", place / "data", "--config", call[-1])
    twice = egma_eval(*table, runs, runs / "model")
    assert twice.exit_code == 0 and "(2)" not in twice.output
    (place / "plan.toml").write_text(PLAN.replace("epochs = 1", "epochs = 2"))
    other = egma_eval(*call)
    assert other.exit_code == 2 and "are another plan's: other options" in other.stderr
    (place / "plan.toml").write_text(PLAN)
    for shard in sorted((place / "shards").iterdir())[1:]:
        shard.unlink()
    other = egma_eval(*call)
    assert other.exit_code == 2 and "are another plan's: other shards" in other.stderr


def test_one_seed_is_shown_with_its_interval_and_several_with_their_deviation() -> None:
    def report(seed: int, value: float, sha: str = "", recipe: str = "") -> dict[str, Any]:
        figure = {"value": value, "low": value - 0.1, "high": value + 0.1}
        told: dict[str, Any] = {
            "name": f"run{seed}",
            "objective": "egma",
            "gaze_fraction": 1.0,
            "seed": seed,
        }
        told |= {"recipe": recipe}
        told["sha256"] = sha or f"{seed:064}"
        return {"checkpoint": told, "test": "zero-shot-siim", "metrics": {"accuracy": figure}}

    def cell(*reports: dict[str, Any]) -> str:
        (_, rows), *_ = tables(reports)
        return next(row[8] for row in rows if row[1] == "ours")

    assert cell(report(0, 0.5)) == "50.00 [40.00, 60.00]"
    assert cell(report(0, 0.5), report(1, 0.6)) == "55.00 ± 7.07 (2)"
    with_other_options = report(0, 0.6, "f" * 64)
    (_, rows), *_ = tables([report(0, 0.5), with_other_options])
    ours = {row[0]: row[8] for row in rows if row[1] == "ours"}
    assert ours == {
        "egma (run0, 00000000)": "50.00 [40.00, 60.00]",
        "egma (run0, ffffffff)": "60.00 [50.00, 70.00]",
    }
    (_, rows), *_ = tables([report(0, 0.5), report(1, 0.6, recipe="longer")])
    assert sum(row[1] == "ours" for row in rows) == 2


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seeds = [0, 1]", "seeds = []", "arms.seeds is []"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "arms.seeds is [0, 0]"),
        ("seeds = [0, 1]", "", "[arms] lacks seeds"),
        ('"egma"]', '"egmq"]', "'egmq'"),
        ("[0.5]", "[5]", "data.gaze_fraction is 5"),
        ("[0.5]", '["half"]', "arms.gaze_fractions is ['half']"),
        ("epochs = 1", "epoch = 1", "'epoch'"),
        ('task = "rsna"', 'task = "rsnaa"', "no task 'rsnaa'"),
        ('task = "rsna"', 'task = "siim"', "two tests of siim"),
        ('images = "rsna"', "", "a test lacks images"),
        ('images = "rsna"', 'images = "rsna"\nscore = "worst"', "no score 'worst'"),
        ('images = "rsna"', 'images = "rsna"\nimage = "rsna"', "no entry of a test 'image'"),
        ('task = "rsna"', 'task = "csv"', "no task 'csv'"),
        ('task = "rsna"', 'task = "chexpert8x200"\nprotocol = "mean"', "has no protocol"),
        ('task = "rsna"', 'task = "siim"\nsplit = "all"', "no split 'all'"),
        ('images = "rsna"', 'images = "rsna"\nsplit = "gloriaa"', "no split 'gloriaa'"),
        ('preset = "tiny"', 'preset = "tinny"', "no preset 'tinny'"),
        ('preset = "tiny"', "initt = []", "no entry of [start] 'initt'"),
        ("seeds = [0, 1]", "seeds = [0]\nseed = 3", "no entry of [arms] 'seed'"),
        ("[0.5]", "[0.5, 0.50000001]", "two arms have one name"),
        ("epochs = 1", "epochs = 1\nseed = 7", "options.train.seed is decided by [arms]"),
        ("siim/train-rle.csv", "plan.toml", "no column ImageId"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_plan_that_cannot_be_carried_out_is_told_before_any_training(
    place: Path, old: str, new: str, told: str
) -> None:
    assert old in PLAN
    (place / "data/plan.toml").write_text("neither,here")
    (place / "plan.toml").write_text(PLAN.replace(old, new))
    result = egma_eval(
        "ablation", "--shards", place, "--out", place / "out", "--data", place / "data",
        "--config", place / "plan.toml",
    )  # fmt: skip
    assert result.exit_code == 2 and told in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and not (place / "out/runs").exists()


def test_an_ablation_without_any_test_data_does_not_train(place: Path) -> None:
    result = egma_eval(
        "ablation", "--shards", place, "--out", place / "out", "--data", place / "none",
        "--config", place / "plan.toml",
    )  # fmt: skip
    assert result.exit_code == 2 and "no test has its files below --data" in result.stderr
    assert not (place / "out").exists()
