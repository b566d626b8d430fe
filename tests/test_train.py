"""The command, whole: runs, resumes, several processes, and what it says when it cannot."""

import csv
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from click.testing import Result
from conftest import PATIENCE_S, egma_prep, invoked
from safetensors.torch import load_file
from transformers import get_cosine_schedule_with_warmup

from egma_train import load_model
from egma_train.cli import main
from egma_train.data.cache import open_cache
from egma_train.errors import BadUsageError
from egma_train.launch import usable_device
from egma_train.options import Options, differences, options_of, parse_assignments, with_changes
from egma_train.processes import ALONE, Processes, any_process, joined, wait_for_all
from egma_train.train.numerics import precision_of
from egma_train.train.schedule import learning_rate, short_run
from egma_train.train.step import Trainer

SMALL = (
    "--set", "model.swin_width=12", "--set", "model.text_width=32", "--set", "model.text_heads=2",
    "--set", "model.projection=32", "--batch-size", "8",
)  # fmt: skip


def egma_train(*arguments: object) -> Result:
    return invoked(main, *arguments)


def metrics_of(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of two epochs and what it said."""
    out = tmp_path_factory.mktemp("done")
    result = egma_train("--shards", shards, "--out", out, *SMALL, "--epochs", 2)
    assert result.exit_code == 0, result.output
    return out / "runs" / "tiny-egma-seed0", result.output


def test_a_bare_run_says_that_it_is_tiny_and_why(done: tuple[Path, str]) -> None:
    run, said = done
    why = "no pretrained weights given or found: small towers with random weights"
    assert f"preset tiny: {why}" in said
    assert said.count("end inside the warm-up") == 1  # two epochs, of two of warm-up
    record = json.loads((run / "run.json").read_text())
    assert record["preset"] == "tiny" and why in record["started_from"]


def test_a_run_folder_holds_record_metrics_model_and_card(done: tuple[Path, str]) -> None:
    run, _ = done
    record = json.loads((run / "run.json").read_text())
    assert record["status"] == "complete" and len(record["shards_fingerprint"]) == 64
    assert set(record["versions"]) >= {"egma", "torch", "transformers", "python"}
    assert record["options"]["train"]["epochs"] == 2
    rows = metrics_of(run)
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    for row in rows:
        terms = float(row["mlce"]) + float(row["contrastive"]) + float(row["mapping"])
        assert float(row["loss"]) == pytest.approx(terms, rel=1e-5)
    card = (run / "README.md").read_text()
    assert "data use agreement" in card and record["shards_fingerprint"] in card
    assert run.stat().st_mode & 0o777 == 0o700
    assert list((run / "tensorboard").iterdir())


def test_the_final_model_loads_and_encodes(done: tuple[Path, str]) -> None:
    model, tokenizer = load_model(done[0] / "model")
    tokens = tokenizer(["no pleural effusion."], return_tensors="pt")
    with torch.no_grad():
        seen = model(torch.zeros(1, 3, 112, 112), tokens["input_ids"], tokens["attention_mask"])
    assert seen.patches.isfinite().all() and seen.sentences.shape == (1, 32)


def test_training_lowers_the_loss(shards: Path, tmp_path: Path) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 12, "--batch-size", 32,
        "--set", "train.learning_rate=0.003", "--set", "train.warmup_epochs=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = metrics_of(tmp_path / "runs" / "tiny-egma-seed0")
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


@pytest.mark.parametrize("objective", ["clip", "mlce", "egf", "egm"])
def test_every_objective_trains_and_counts_its_own_terms_only(
    shards: Path, tmp_path: Path, objective: str
) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1, "--objective", objective
    )
    assert result.exit_code == 0, result.output
    row = metrics_of(tmp_path / "runs" / f"tiny-{objective}-seed0")[-1]
    terms = {
        "clip": {"contrastive"}, "mlce": {"mlce"}, "egf": {"mlce", "contrastive"},
        "egm": {"mapping"},
    }[objective]  # fmt: skip
    found = {name for name in ("mlce", "contrastive", "mapping") if float(row[name]) != 0}
    assert found == terms


def test_the_published_preset_trains_from_random_weights_of_any_size(
    shards: Path, tmp_path: Path
) -> None:
    tiny = [f"model.{name}={value}" for name, value in {
        "image_px": 112, "patch_px": 8, "swin_depths": [2, 2], "swin_heads": [2, 4],
        "text_layers": 4, "swin_drop_path": 0.0,
    }.items()]  # fmt: skip
    sets = [word for one in tiny for word in ("--set", one)]
    result = egma_train(
        "--shards", shards, "--out", tmp_path, "--preset", "official-code", "--init", "random",
        *SMALL, *sets, "--epochs", 1, "--name", "published",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    row = metrics_of(tmp_path / "runs" / "published")[0]
    assert float(row["mapping"]) == 0 and float(row["mlce"]) > 0


def test_a_run_that_diverges_stops_with_one_line(shards: Path, tmp_path: Path) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--set", "train.learning_rate=1e30"
    )
    assert result.exit_code == 2
    assert "smaller train.learning_rate" in result.output.splitlines()[-1]
    assert not (tmp_path / "runs" / "tiny-egma-seed0" / "model").exists()


def test_gaze_fraction_0_trains_without_gaze(shards: Path, tmp_path: Path) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1, "--gaze-fraction", 0
    )
    assert result.exit_code == 0 and "0 with gaze" in result.output
    rows = metrics_of(tmp_path / "runs" / "tiny-egma-seed0")
    assert all(float(row["mlce"]) == 0 and float(row["mapping"]) > 0 for row in rows)


# -- resuming --------------------------------------------------------------------------------------


def begun_like(done: Path, out: Path, name: str, **train: Any) -> Path:
    """A run that has written its start and nothing more: the same weights and vocabulary."""
    run = out / "runs" / name
    run.mkdir(parents=True)
    shutil.copytree(done / "start", run / "start")
    record = json.loads((done / "run.json").read_text()) | {"status": "running"}
    record["options"]["train"] |= train
    (run / "run.json").write_text(json.dumps(record))
    return run


def command(shards: Path, out: Path, name: str, *more: str) -> list[str]:
    words = ["-m", "egma_train", "--shards", str(shards), "--out", str(out), "--name", name]
    return [*words, "--resume", *more]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def assert_same_run(one: Path, other: Path) -> None:
    assert metrics_of(one) == metrics_of(other)
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


DIES_AT_A_STEP = """
import os, signal, sys
from egma_train import cli
from egma_train.train import step
real, calls = step.batch_loss, []
def batch_loss(*arguments):
    calls.append(1)
    if len(calls) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
step.batch_loss = batch_loss
cli.main(sys.argv[1:])
"""


def test_a_run_killed_in_mid_epoch_and_resumed_equals_an_undisturbed_one_bit_for_bit(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    calm = begun_like(done[0], tmp_path, "calm", epochs=4)
    hurt = begun_like(done[0], tmp_path, "hurt", epochs=4)
    every = ("--set", "execution.checkpoint_steps=2")
    assert egma_train(*command(shards, tmp_path, "calm", *every)[2:]).exit_code == 0
    steps = len(metrics_of(calm))
    wanted = steps // 4 * 2 + 2  # inside the third epoch
    words = [sys.executable, "-c", DIES_AT_A_STEP.format(step=wanted + 1)]
    killed = subprocess.run([*words, *command(shards, tmp_path, "hurt", *every)[2:]])
    assert killed.returncode == -signal.SIGKILL
    assert len(metrics_of(hurt)) == wanted < steps and not (hurt / "model").exists()
    again = egma_train(*command(shards, tmp_path, "hurt", *every)[2:])
    assert again.exit_code == 0 and "continuing after step " in again.stdout
    assert_same_run(calm, hurt)


def test_ctrl_c_leaves_a_checkpoint_that_resumes_to_the_same_end(
    done: tuple[Path, str], shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = begun_like(done[0], tmp_path, "calm", epochs=3)
    hurt = begun_like(done[0], tmp_path, "hurt", epochs=3)
    arguments = [command(shards, tmp_path, name)[2:] for name in ("calm", "hurt")]
    assert egma_train(*arguments[0]).exit_code == 0
    from egma_train.train import step

    real, calls = step.batch_loss, []

    def interrupted(*args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(step, "batch_loss", interrupted)
        stopped = egma_train(*arguments[1])
    assert stopped.exit_code == 130 and "--resume" in stopped.output
    assert len(metrics_of(hurt)) == 5
    assert [one.name for one in (hurt / "checkpoints").iterdir()] == ["step-00000005"]
    assert egma_train(*arguments[1]).exit_code == 0
    assert_same_run(calm, hurt)


def test_a_checkpoint_that_was_cut_while_written_is_not_taken(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    run = begun_like(done[0], tmp_path, "cut", epochs=1)
    (run / "checkpoints" / ".step-00000099.tmp").mkdir(parents=True)
    assert egma_train(*command(shards, tmp_path, "cut")[2:]).exit_code == 0
    assert int(metrics_of(run)[0]["step"]) == 1


def test_a_checkpoint_that_is_damaged_says_what_to_do(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    run = begun_like(done[0], tmp_path, "hurt")
    shutil.copytree(done[0] / "checkpoints", run / "checkpoints")
    for name in ("training.pt", "model.safetensors"):
        (path,) = run.rglob(f"checkpoints/*/{name}")
        path.write_bytes(path.read_bytes()[:1000])
        result = egma_train(*command(shards, tmp_path, "hurt")[2:])
        assert result.exit_code == 2 and "is damaged" in result.output.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "[]", "{}", "nonsense"])
def test_a_record_that_is_damaged_is_said_to_be(shards: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / "runs" / "one" / "run.json").write_text(text)
    result = egma_train(*command(shards, tmp_path, "one")[2:])
    assert result.exit_code == 2 and "run.json is damaged" in result.output


def test_a_run_can_start_from_another_runs_model_of_its_own_size(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, "--init", done[0] / "model", "--epochs", 1,
        "--name", "next",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    first = load_file(tmp_path / "runs" / "next" / "start" / "model.safetensors")
    assert all(torch.equal(value, weights(done[0])[name]) for name, value in first.items())
    record = json.loads((tmp_path / "runs" / "next" / "run.json").read_text())
    assert record["options"]["model"]["image_px"] == 112


def test_a_name_in_use_is_refused_with_both_ways_out(done: tuple[Path, str], shards: Path) -> None:
    out = done[0].parent.parent
    result = egma_train("--shards", shards, "--out", out, *SMALL)
    assert result.exit_code == 2
    assert "--resume continues it, --name NAME starts another" in result.output


def test_a_resume_with_other_options_names_the_difference(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    begun_like(done[0], tmp_path, "one")
    arguments = command(shards, tmp_path, "one")[2:]
    result = egma_train(*arguments, "--seed", 5)
    assert result.exit_code == 2 and "train.seed 0 -> 5" in result.output
    result = egma_train(*arguments, "--preset", "paper", "--init", "random")
    assert result.exit_code == 2 and "preset tiny -> paper" in result.output


def test_a_resume_with_other_shards_is_refused(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    begun_like(done[0], tmp_path, "one")
    other = tmp_path / "other"
    shutil.copytree(shards / "shards", other)
    next(other.iterdir()).unlink()
    result = egma_train(*command(other, tmp_path, "one")[2:])
    assert result.exit_code == 2 and "the shards are not those" in result.output


def test_a_checkpoint_of_another_run_is_not_gone_on_from(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    one = begun_like(done[0], tmp_path, "one", epochs=2)
    other = begun_like(done[0], tmp_path, "other", epochs=2, seed=7)
    for name in ("one", "other"):
        assert egma_train(*command(shards, tmp_path, name)[2:]).exit_code == 0
        run = tmp_path / "runs" / name / "run.json"
        run.write_text(run.read_text().replace('"complete"', '"running"'))
    shutil.rmtree(one / "checkpoints")
    shutil.copytree(other / "checkpoints", one / "checkpoints")
    result = egma_train(*command(shards, tmp_path, "one")[2:])
    assert result.exit_code == 2 and "is of another run; delete it" in result.stderr


def test_a_resume_of_what_is_not_there_lists_the_runs(done: tuple[Path, str], shards: Path) -> None:
    result = egma_train(*command(shards, done[0].parent.parent, "nothing")[2:])
    assert result.exit_code == 2 and "there are: tiny-egma-seed0" in result.output


def test_a_complete_run_is_not_resumed(done: tuple[Path, str], shards: Path) -> None:
    result = egma_train(*command(shards, done[0].parent.parent, "tiny-egma-seed0")[2:])
    assert result.exit_code == 2 and "is complete" in result.output


def test_shards_of_words_are_trained_on_as_those_of_sentences(
    clean_out: Path, tmp_path: Path
) -> None:
    shutil.copytree(clean_out, words := tmp_path / "words")
    assert egma_prep("render-heatmaps", "--out", words, "--level", "word").exit_code == 0
    result = egma_train("--shards", words, "--out", tmp_path, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    cache, whole = open_cache(words), open_cache(clean_out, tmp_path / "cache")
    assert len(cache.has_grid) > 3 * len(whole.has_grid)
    assert all(" " not in text for text in cache.texts(range(50)))


# -- several processes -----------------------------------------------------------------------------


def _steps(rank: int, world: int, port: int, start: str, shards: str, found: Any) -> None:
    """Three steps in float64 on global batches of seven: two processes have two parts and one."""
    os.environ |= {
        "RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    torch.set_num_threads(1)
    import numpy as np

    from egma_train.data.loading import BatchLoader
    from egma_train.processes import joined
    from egma_train.train import step
    from egma_train.train.step import make_trainer

    pixels = step.pixels
    step.pixels = lambda *seen: pixels(*seen).double()

    options = options_of("tiny", {"data": {"gaze_fraction": 0.7}})
    model, tokenizer = load_model(start)
    model = model.double().train()
    cache = open_cache(Path(shards))
    with joined("cpu") as processes:
        loader = BatchLoader(
            cache, tokenizer, cache.readings_with_gaze(), rank=processes.rank,
            world=processes.world, readings_at_once=3 if world > 1 else 0,
        )  # fmt: skip
        trainer = make_trainer(model, options, processes, torch.device("cpu"))
        losses = []
        for first in (0, 7, 14):
            trainer.optimizer.zero_grad()
            loss, _ = trainer.gradients(loader.load(np.arange(first, first + 7)), first)
            trainer.update()
            losses.append(float(loss.total))
        if rank == 0:
            state = {name: value.numpy() for name, value in model.state_dict().items()}
            found.put((losses, state))


def free_port() -> int:
    """Another suite may run beside this one."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_two_processes_equal_one_on_the_same_global_batch(
    done: tuple[Path, str], shards: Path
) -> None:
    context = torch.multiprocessing.get_context("spawn")
    results = []
    for world in (1, 2):
        found = context.Queue()
        fixed = (world, free_port(), str(done[0] / "start"), str(shards), found)
        processes = [context.Process(target=_steps, args=(rank, *fixed)) for rank in range(world)]
        for process in processes:
            process.start()
        results.append(found.get(timeout=PATIENCE_S))
        for process in processes:
            process.join()
            assert process.exitcode == 0
    (losses, state), (other_losses, other_state) = results
    assert other_losses == pytest.approx(losses, rel=1e-10)
    for name, value in state.items():
        assert other_state[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


@pytest.mark.parametrize(("longest", "moved"), [(0.0, 6.0), (1.0, 1.0), (100.0, 6.0)])
def test_a_gradient_is_clipped_to_its_longest_and_not_at_all_by_zero(
    longest: float, moved: float
) -> None:
    """Plain descent at rate 1 moves a weight by its gradient, 6 here."""
    weights: Any = torch.nn.Linear(1, 1, bias=False)
    weights.clamp_scale = lambda: None
    options = with_changes(Options(), {"train": {"clip_norm": longest}})
    trainer = Trainer(
        weights, weights, torch.optim.SGD(weights.parameters(), 1.0),
        torch.amp.GradScaler("cpu", enabled=False), options, ALONE, torch.device("cpu"),
        torch.float32,
    )  # fmt: skip
    before = weights.weight.item()
    (6 * weights.weight.sum()).backward()
    norm = trainer.update()
    assert float(norm) == pytest.approx(6)
    assert before - weights.weight.item() == pytest.approx(moved, rel=1e-4)


def test_the_command_runs_under_torchrun(
    done: tuple[Path, str], shards: Path, tmp_path: Path
) -> None:
    """Two of them each see their share in parts of three, and look at what is held out."""
    alone = begun_like(done[0], tmp_path, "alone", epochs=1)
    both = begun_like(done[0], tmp_path, "both", epochs=1)
    for run in (alone, both):
        record = json.loads((run / "run.json").read_text())
        record["options"]["data"]["validation_split"] = "validate"
        (run / "run.json").write_text(json.dumps(record))
    parts = ("--set", "execution.readings_at_once=3")
    assert egma_train(*command(shards, tmp_path, "alone")[2:]).exit_code == 0
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    port = ("--master-port", str(free_port()))
    result = subprocess.run(
        [*launcher, *port, *command(shards, tmp_path, "both", *parts)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    losses = [[float(row["loss"]) for row in metrics_of(run)] for run in (alone, both)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-5)
    held = [
        (run / "validation.csv").read_text().splitlines()[1].split(",") for run in (alone, both)
    ]
    assert [float(one) for one in held[1]] == pytest.approx(
        [float(one) for one in held[0]], rel=1e-3
    )
    assert (both / "model" / "model.safetensors").exists()
    assert result.stdout.count("metrics.csv, card ") == 1  # the first process speaks for all


def test_several_gpus_reduce_flags_on_the_cpu_and_speak_from_their_own_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gloo stands in for NCCL; a group that knows one device cannot reduce on the other."""
    alone = torch.distributed.HashStore()
    torch.distributed.init_process_group("cuda:gloo", store=alone, rank=0, world_size=1)
    with pytest.raises(RuntimeError, match="No backend type associated with device type cpu"):
        torch.distributed.all_reduce(torch.zeros(1))
    torch.distributed.destroy_process_group()

    called: list[Any] = []
    real = torch.distributed.init_process_group

    def stand_in(backend: str) -> None:
        called.append(backend)
        devices = backend if ":" in backend else f"cuda:{backend}"
        store = torch.distributed.HashStore()
        real(devices.replace("nccl", "gloo"), store=store, rank=0, world_size=1)

    monkeypatch.setattr(torch.distributed, "init_process_group", stand_in)
    monkeypatch.setattr(torch.cuda, "set_device", called.append)
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    with joined("cuda") as processes:
        assert processes == Processes(5, 8, 1)
        assert any_process(True, processes)
        assert not any_process(False, processes)
        wait_for_all(processes)
    assert called == [1, "cpu:gloo,cuda:nccl"]  # the GPU is chosen before the group is made
    assert not torch.distributed.is_initialized()


def test_each_process_takes_its_own_gpu_and_one_gpu_for_all_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch, "empty", lambda _, device: taken.append(device))
    assert usable_device("cuda", Processes(5, 8, 1)) == torch.device("cuda:1")
    assert usable_device("cuda:3") == torch.device("cuda:3")
    assert usable_device("cpu", Processes(5, 8, 1)) == torch.device("cpu")
    assert [device.index for device in taken] == [1, 3, None]  # no other GPU is touched
    with pytest.raises(BadUsageError, match="cuda:3 is one GPU for 8 processes"):
        usable_device("cuda:3", Processes(5, 8, 1))


def test_a_batch_with_fewer_readings_than_processes_ends_in_one_line_before_the_first_step(
    shards: Path, tmp_path: Path
) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    words = ["-m", "egma_train", "--shards", str(shards), "--out", str(tmp_path), *SMALL]
    result = subprocess.run(
        [*launcher, "--master-port", str(free_port()), *words, "--batch-size", "1"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode != 0
    own = [line for line in result.stderr.splitlines() if "egma-train: " in line]
    assert (
        len(own) == 1
        and "2 processes share batches of which the smallest has 1 reading (" in (own[0])
    )
    assert "IndexError" not in result.stderr and "onnection closed" not in result.stderr
    assert not (tmp_path / "runs").exists()


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--preset", "large"), "no preset 'large'; there are: official-code, paper, tiny"),
        (("--objective", "sparc"), "there are: clip, egf, egm, egma, mlce"),
        (("--set", "loss.rule=x"), "no option in loss 'rule'; there are: label_rule"),
        (("--set", "optimizer.lr=1"), "no option stage 'optimizer'; there are: data"),
        (("--set", "train.epochs"), "write stage.field=value"),
        (("--set", "train.epochs=many"), "train.epochs is 'many'; give a value like 50"),
        (("--epochs", "0"), "train.epochs is 0; give a number from 1"),
        (("--gaze-fraction", "1.5"), "data.gaze_fraction is 1.5; give a number from 0 to 1"),
        (("--preset", "paper"), "preset paper starts from pretrained weights; give --init DIR"),
        (("--preset", "tiny", "--init", "x"), "preset tiny starts from random weights"),
        (("--init", "nowhere"), "--init nowhere: no such folder"),
        (("--config", "nowhere.toml"), "cannot read config nowhere.toml"),
        (("--set", "execution.device=tpu9"), "execution.device=tpu9 cannot be used"),
        (("--set", "execution.device=meta"), "execution.device=meta cannot be used (it holds no"),
        (("--set", "model.image_px=100"), "it must divide 224 and give 7 x 7 patches"),
        (("--set", "data.splits=['trian']"), "there are: "),
        (("--set", "train.learning_rate=inf"), "train.learning_rate is inf; give a number"),
        (("--set", "model.text_states=[]"), "model.text_states"),
        (("--set", "model.projection=0"), "model.projection is 0; give a number from 1"),
        (("--set", "model.image_std=0.0"), "model.image_std is 0.0; give a number from 0.001"),
        (("--set", "loss.sparsity=7"), "loss.sparsity is 7.0; give a number from 0 to 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    shards: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    result = egma_train("--shards", shards, "--out", tmp_path, *arguments)
    assert result.exit_code == 2
    errors = [line for line in result.output.splitlines() if line.startswith("egma-train: ")]
    assert len(errors) == 1 and said in errors[0]
    assert "Traceback" not in result.output
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("run.json"))


def test_shards_that_are_not_there_are_said_in_one_line(tmp_path: Path) -> None:
    result = egma_train("--shards", tmp_path, "--out", tmp_path)
    assert result.exit_code == 2
    assert result.output == (
        f"egma-train: {tmp_path} holds no shards; make them with: egma-prep run DATA\n"
    )


def test_a_config_file_comes_before_flags(shards: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text('[train]\nepochs = 9\nseed = 4\n[loss]\nlabel_rule = "quarter-max"\n')
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--config", config, "--epochs", 1
    )
    assert result.exit_code == 0, result.output
    options = json.loads((tmp_path / "runs/tiny-egma-seed4/run.json").read_text())["options"]
    assert options["train"]["epochs"] == 1 and options["loss"]["label_rule"] == "quarter-max"


def test_the_paper_preset_is_the_papers_recipe() -> None:
    options = options_of("paper")
    assert (options.train.learning_rate, options.train.weight_decay) == (1e-6, 1e-4)
    assert (options.train.epochs, options.train.warmup_epochs) == (50, 10)
    assert options.train.batch_size == 100 and options.data.one_reading_per_image
    assert options.loss.keywords()["sparsity"] is None
    assert differences(options, Options()) == ""


def test_the_learning_rate_warms_up_and_follows_a_cosine_to_zero() -> None:
    options = options_of("paper")
    rates = [learning_rate(step, 10, options) / 1e-6 for step in range(500)]
    assert rates[0] == pytest.approx(1 / 101) and rates[99] == pytest.approx(100 / 101)
    assert max(rates) == rates[100] == 1
    assert rates[300] == pytest.approx(0.5) and 0 < rates[499] < 1e-4
    assert rates[:101] == sorted(rates[:101]) and rates[100:] == sorted(rates[100:], reverse=True)


def test_without_warm_up_the_first_step_has_the_full_rate() -> None:
    options = options_of("paper")
    cold = replace(options, train=replace(options.train, warmup_epochs=0.0))
    assert learning_rate(0, 10, cold) == 1e-6


def test_the_published_schedule_starts_at_zero_and_warms_up_a_tenth_rounded_up() -> None:
    """Of 3 epochs of 31 steps a tenth is 9.3, so 10 steps; step k of them has k tenths."""
    options = options_of("official-code", {"train": {"epochs": 3}})
    rates = [learning_rate(step, 31, options) / 1e-5 for step in range(93)]
    assert rates[:11] == pytest.approx([k / 10 for k in range(11)])
    by_hand = [0.5 + 0.5 * math.cos(math.pi * (step - 10) / 83) for step in range(10, 93)]
    assert rates[10:] == pytest.approx(by_hand)
    theirs = get_cosine_schedule_with_warmup(
        torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1e-5), 10, 93
    )
    assert rates == pytest.approx([theirs.lr_lambdas[0](step) for step in range(93)])


@pytest.mark.parametrize(
    ("preset", "train", "steps_per_epoch", "said"),
    [
        ("paper", {"epochs": 5}, 37, "185 steps end inside the warm-up of 370: the learning rate "
         "reaches 50% of train.learning_rate; lower train.warmup_epochs or train longer"),
        ("paper", {"epochs": 10}, 2, "reaches 95% of"),
        ("paper", {"epochs": 11}, 2, None),
        ("paper", {}, 37, None),
        ("paper", {"epochs": 1, "warmup_epochs": 0.0}, 1, None),
        ("official-code", {"epochs": 1}, 1, "reaches 0% of train.learning_rate; lower "
         "train.warmup_share"),
        ("official-code", {"epochs": 1}, 2, None),
        ("tiny", {"epochs": 2}, 3, "reaches 86% of"),
    ],
)  # fmt: skip
def test_a_run_that_ends_inside_its_warm_up_is_told_how_far_it_comes(
    preset: str, train: dict[str, Any], steps_per_epoch: int, said: str | None
) -> None:
    options = options_of(preset, {"train": train})
    found = short_run(steps_per_epoch, options)
    assert (found is None) if said is None else (found is not None and said in found)
    rates = [learning_rate(i, steps_per_epoch, options) for i in range(
        options.train.epochs * steps_per_epoch)]  # fmt: skip
    assert (max(rates) < 0.96 * options.train.learning_rate) == (found is not None)


def test_the_published_precision_is_float16_on_a_gpu_only() -> None:
    assert precision_of("cuda-float16", torch.device("cuda")) == torch.float16
    assert precision_of("cuda-float16", torch.device("cpu")) == torch.float32


def test_precision_is_float32_on_the_cpu_and_as_asked_elsewhere() -> None:
    assert precision_of("auto", torch.device("cpu")) == torch.float32
    assert precision_of("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_low_precision_and_gradient_checkpointing_train(shards: Path, tmp_path: Path) -> None:
    result = egma_train(
        "--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1, "--set",
        "execution.precision=bfloat16", "--set", "execution.gradient_checkpointing=true",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert all(float(row["loss"]) > 0 for row in metrics_of(tmp_path / "runs/tiny-egma-seed0"))


def test_assignments_are_toml_values_or_words() -> None:
    assert parse_assignments(["a.b=1.5", "a.c=word", "d.e=[1, 2]"]) == {
        "a": {"b": 1.5, "c": "word"},
        "d": {"e": [1, 2]},
    }
