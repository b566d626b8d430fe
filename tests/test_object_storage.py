"""Whole commands against a real server that speaks S3, beside the same on local folders."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from conftest import PATIENCE_S
from moto.core import set_initial_no_auth_action_count
from moto.server import ThreadedMotoServer
from tables import write_sealed

from egma_prep import open_shards
from egma_prep.etl import make_part as shards_module
from egma_prep.etl.out_folder import OutFolder
from egma_prep.shards.formats import load_shard, shard_files
from egma_prep.storage import listing as trees
from egma_prep.storage import lock
from egma_prep.storage.paths import place_of
from egma_prep.synth import write_tree
from egma_train.cli import main as train
from egma_train.data import cache
from tests.conftest import IN_THREADS, egma_prep, invoked
from tests.conftest import run_etl as run_in_threads
from tests.test_faults_of_runs import join, scheduler

EGMA_PREP = str(Path(sys.executable).with_name("egma-prep"))
IN_PARTS = ("--set", "execution.readings_per_part=3")
NO_PROCESS = 2**22 + 1


def run_etl(data: object, out: object, *more: object) -> Result:
    return run_in_threads(data, out, *IN_PARTS, *more)


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of few files: each costs the server here several requests a test."""
    write_tree(root := tmp_path_factory.mktemp("few") / "mimic-eye", 8, small=True, seed=3)
    return root


@pytest.fixture(scope="module")
def clean_out(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed local run."""
    result = run_etl(phantom, out := tmp_path_factory.mktemp("clean") / "out")
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Start a server of its own kind, with one bucket; the environment names it."""
    started = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    started.start()
    _, port = started.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "tester")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        place("s3://bucket").fs.mkdir("bucket")
        yield f"http://127.0.0.1:{port}"
    started.stop()


def place(url: str) -> Any:
    return place_of(url)


@pytest.fixture(scope="module")
def data(server: str, phantom: Path) -> str:
    place("s3://bucket").fs.put(f"{phantom}/", "bucket/data/", recursive=True)
    return "s3://bucket/data"


def objects(url: str) -> dict[str, tuple[str, Any]]:
    """List the objects below a URL with what changes whenever one is written."""
    root = place(url)
    found = root.fs.find(root.path, detail=True)
    return {
        name.removeprefix(f"{root.path}/"): (info["ETag"], info["LastModified"])
        for name, info in found.items()
        if "ETag" in info  # while nothing is there, the folder itself is listed
    }


def contents(out: Any) -> dict[str, Any]:
    """Read all tables, images, shards and rejects of an output folder, by name."""
    paths = [*out.glob("*/*.parquet"), out / "rejects.parquet"]
    return {
        path.relative_to(out).as_posix(): pq.read_table(path.open("rb")).to_pylist()
        for path in paths
    }


def shards(out: Any) -> list[Any]:
    return [load_shard(path).to_pylist() for path in shard_files(out / "shards")]


def copy_of(out: str, target: str) -> str:
    """Copy a run; in a copy the stamps are others, so that its content decides."""
    fs = place(out).fs
    for path in fs.find(out):
        fs.copy(path, path.replace(out[5:], target[5:], 1))
    return target


def wait_until(happened: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


@pytest.fixture(scope="module")
def done(data: str) -> str:
    """A complete run from a bucket into it, not to be changed by tests."""
    result = run_etl(data, "s3://bucket/done")
    assert result.exit_code == 0, result.output
    return "s3://bucket/done"


def test_a_run_in_a_store_has_the_content_of_the_local_one(done: str, clean_out: Path) -> None:
    assert contents(place(done)) == contents(clean_out)
    counts = [
        json.loads((out / "run.json").read_bytes())["counts"] for out in (place(done), clean_out)
    ]
    assert counts[0] == counts[1]


def test_a_second_run_has_nothing_to_do_and_writes_no_object(data: str, done: str) -> None:
    before = objects(done)
    result = run_etl(data, done)
    assert result.exit_code == 0, result.output
    assert "nothing to do" in result.output
    assert objects(done) == before
    again = run_etl(f"{data}/", f"{done}/")
    assert "nothing to do" in again.output and "holds a run of" not in again.output
    assert "is DATA itself" in run_etl(data, f"{data}/").stderr


def test_training_fills_its_cache_from_a_store_once(
    done: str, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("--preset", "tiny", "--epochs", "1", "--init", "random")
    result = invoked(train, "--shards", done, "--out", str(tmp_path), *short)
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(cache, "copy_shards", lambda *_: pytest.fail("copied twice"))
    folder = tmp_path / "cache"
    stored, local = cache.open_cache(done, folder), cache.open_cache(clean_out, tmp_path / "own")
    files = [one for one in folder.iterdir() if one.is_file() and one.name[0] != "."]
    assert [one.suffix for one in files] == [".txt"]
    for name, values in vars(stored).items():
        if name == "_held":
            continue
        np.testing.assert_array_equal(values, getattr(local, name))


def test_training_reads_images_straight_from_a_store(
    done: str, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = ("--preset", "tiny", "--epochs", "1", "--init", "random", "--set", "data.stream=true")
    monkeypatch.setattr(cache, "copy_shards", lambda *_: pytest.fail("copied"))
    models = []
    for name, source in (("stored", done), ("local", str(clean_out))):
        result = invoked(train, "--shards", source, "--out", str(tmp_path / name), *short)
        assert result.exit_code == 0, result.output
        models += [one.read_bytes() for one in (tmp_path / name).rglob("model/model.safetensors")]
    assert models[0] == models[1]
    kept = {one.name for one in (tmp_path / "stored" / "cache").rglob("*") if one.is_file()}
    assert not kept & {"images", "part-00000.parquet"} and "index.npz" in kept


# -- cut runs -------------------------------------------------------------------------------------


def test_a_run_killed_in_the_middle_is_resumed_with_the_same_content(
    data: str, clean_out: Path
) -> None:
    out = "s3://bucket/killed"
    command = [EGMA_PREP, "run", data, "--out", out, "--workers", "2", *IN_PARTS]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        wait_until(lambda: any(name.endswith("record.json") for name in objects(out)))
        run.kill()
    assert "lock" in {name.rpartition("/")[2] for name in objects(out)}
    result = run_etl(data, out)
    assert result.exit_code == 0, result.output
    assert contents(place(out)) == contents(clean_out)
    assert egma_prep("verify", "--out", out).exit_code == 0


def test_a_run_killed_before_a_part_had_its_tables_is_finished(
    data: str, done: str, clean_out: Path
) -> None:
    part = place(done) / "state" / "part-00001"
    for path in part.iterdir():
        path.unlink()
    (part / "reading.json").write_text("{}")  # what a worker notes before it begins
    (place(done) / "tables" / "readings.parquet").unlink()
    run = place(done) / "run.json"
    write_sealed(run, json.loads(run.read_text()) | {"outputs": {}, "status": "running"})
    result = run_etl(data, done)
    assert result.exit_code == 0, result.output
    assert contents(place(done)) == contents(clean_out)


def test_a_second_run_at_once_is_refused_and_says_who_is_at_work(
    data: str, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_RENEWED_S", 0.3)
    before = objects(done)
    with OutFolder(place_of(done)).locked():
        result = run_etl(data, done)
    assert result.exit_code == 2
    assert f"{done} is in use by process {os.getpid()} on " in result.stderr
    assert objects(done) == before


@pytest.mark.parametrize("host", [socket.gethostname(), "another-machine"])
def test_a_lock_that_a_killed_run_left_is_taken_over(
    data: str, done: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "_EXPIRES_S", 1.0)
    left = {"pid": NO_PROCESS, "host": host, "since": "yesterday", "token": "x", "renewed": 7}
    file = place(done) / "state" / "lock"
    file.write_text(json.dumps(left))
    result = run_etl(data, done)
    assert result.exit_code == 0, result.output
    assert not file.exists()


@pytest.mark.parametrize("copied", [2])
def test_a_swap_that_was_cut_is_finished_by_the_next_command(
    done: str, copied: int, clean_out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = copy_of(done, f"s3://bucket/swap{copied}")
    shutil.copytree(clean_out, local := tmp_path / "out")
    options = ("--sigma", "8", "--format", "npz", *IN_THREADS[:2])
    assert egma_prep("render-heatmaps", "--out", local, *options).exit_code == 0
    copies = iter([None] * copied)

    def cut(*names: str) -> None:
        if next(copies, "end") == "end":
            raise KeyboardInterrupt
        copy(*names)

    with monkeypatch.context() as patch:
        fs = place(out).fs
        copy = fs.copy
        patch.setattr(fs, "copy", cut)
        assert egma_prep("render-heatmaps", "--out", out, *options).exit_code != 0
    unfinished = invoked(train, "--shards", out, "--out", str(tmp_path / "runs"))
    assert (unfinished.exit_code, "are being replaced" in unfinished.stderr) == (2, True)
    assert egma_prep("report", "--out", out).exit_code == 0
    assert not [name for name in objects(out) if "next" in name or "swap" in name]
    assert shards(place(out)) == shards(local)
    assert egma_prep("verify", "--out", out).exit_code == 0
    again = egma_prep("render-heatmaps", "--out", out, *options)
    assert (again.exit_code, shards(place(out))) == (0, shards(local))


# -- damage and mistakes --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shards", "images", "tables", "state"])
def test_verify_finds_a_flipped_byte_and_the_next_run_mends_it(
    data: str, done: str, kind: str, clean_out: Path
) -> None:
    out = copy_of(done, f"s3://bucket/flipped-{kind}")
    victim = sorted((place(out) / kind).glob("**/*.parquet"))[0]
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(bytes(content))
    result = egma_prep("verify", "--out", out)
    assert result.exit_code == 1
    assert victim.relative_to(place(out)).as_posix() in result.output
    assert run_etl(data, out).exit_code == 0
    assert contents(place(out)) == contents(clean_out)


MISTAKES = {
    "a bucket that is not there": ("s3://no-such-bucket/x", "s3://bucket/x", {}, "does not exist"),
    "an output bucket that is not there": ("", "s3://no-such-bucket/x", {}, "bucket does not"),
    "a server that does not answer": (
        "", "s3://bucket/x", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "cannot be reached"
    ),
    "no credentials": ("", "s3://bucket/x", {"AWS_ACCESS_KEY_ID": None}, "credentials"),
    "a kind of URL that nobody knows": ("foo://x/y", "out", {}, "foo"),
    "a URL with one slash": ("", "s3:/bucket/x", {}, "write s3://bucket/x"),
    "a library that is missing": ("gs://x/y", "out", {}, "pip install gcsfs"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_in_one_line(mistake: str, data: str, tmp_path: Path) -> None:
    where, out, changes, said = MISTAKES[mistake]
    environment = {**os.environ, **changes}
    environment = {name: value for name, value in environment.items() if value is not None}
    result = subprocess.run(
        [EGMA_PREP, "run", where or data, "--out", out],
        capture_output=True, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert (result.returncode, len(result.stderr.splitlines())) == (2, 1), result.stderr
    assert result.stderr.startswith("egma-prep: ")
    assert said in result.stderr


@pytest.mark.parametrize("command", [("run", "{data}"), ("verify",), ("render-heatmaps",)])
def test_credentials_that_are_refused_are_told_in_one_line(
    command: tuple[str, ...], data: str, done: str
) -> None:
    before = objects(done)
    given = [word.format(data=data) for word in command]
    refused = set_initial_no_auth_action_count(0)(egma_prep)(*given, "--out", done)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.output
    assert "cannot be reached" in refused.stderr
    assert "check URL, credentials and network" in refused.stderr
    assert objects(done) == before


def test_a_worker_of_a_cluster_of_its_own_without_credentials_is_named(
    phantom: Path, tmp_path: Path, server: str
) -> None:
    without = {name: value for name, value in os.environ.items() if "AWS_" not in name}
    without |= {"AWS_ENDPOINT_URL": server, "AWS_EC2_METADATA_DISABLED": "true"}
    with scheduler(tmp_path, 0) as (address, processes):
        processes.append(join(tmp_path, address, without))
        out = "s3://bucket/by-a-stranger"
        result = egma_prep("run", phantom, "--out", out, "--scheduler", address)
    assert result.exit_code == 2, result.output
    said = result.stderr.splitlines()[-1]
    assert f"from {socket.gethostname()} the object store cannot be reached" in said


# -- mixtures -------------------------------------------------------------------------------------


def test_only_data_or_only_out_may_be_remote(
    data: str, phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    for where, out in ((data, tmp_path / "out"), (phantom, "memory://here/out")):
        result = run_etl(where, out)
        assert result.exit_code == 0, result.output
        assert contents(place_of(out)) == contents(clean_out)
    assert run_etl(f"file://{phantom}", f"file://{tmp_path}/out").exit_code == 0
    again = run_etl(f"file://{phantom}", tmp_path / "out")
    assert "nothing to do" in again.output


def test_every_reading_command_takes_a_url(data: str, done: str, tmp_path: Path) -> None:
    out = copy_of(done, "s3://bucket/commands")
    for command in (
        ("scan", data),
        ("verify", "--out", out, "--against", data),
        ("report", "--out", out),
        ("inspect", "--out", out),
        ("export", tmp_path / "png", "--to", "png", "--out", out),
    ):
        result = egma_prep(*command)
        assert result.exit_code == 0, result.output
    assert {"report.html"} <= set(objects(out))
    assert len([name for name in objects(out) if name.endswith(".png")]) == 1
    assert len(open_shards(out)) == len(open_shards(done))
    refused = egma_prep("export", "s3://bucket/png", "--to", "png", "--out", out)
    assert (refused.exit_code, "local" in refused.stderr) == (2, True)


# -- what a store cannot promise ------------------------------------------------------------------


def test_a_worker_whose_run_lost_its_lock_writes_no_record(
    data: str, done: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = "s3://bucket/taken-over"
    made: list[int] = []

    def slept(plan: Any, *rest: Any) -> Any:
        made.append(plan.part)
        if len(made) == 2:  # as after a minute without network: another run began
            (place(out) / "state" / "lock").write_text('{"token": "of another run"}')
        return make(plan, *rest)

    make = shards_module._load_all
    monkeypatch.setattr(shards_module, "_load_all", slept)
    result = run_etl(data, out, "--workers", "1")
    assert result.exit_code == 2
    assert f"another run has taken over {out}" in result.stderr
    assert len([name for name in objects(out) if name.endswith("record.json")]) == 1
    assert (place(out) / "state" / "lock").read_text() == '{"token": "of another run"}'


def test_a_store_that_stops_answering_rejects_no_reading(
    data: str, phantom: Path, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(tree: Any, path: str) -> bytes:
        if path.endswith(".jpg"):
            raise trees.unreachable(tree.url, TimeoutError("timed out"))
        return reads(tree, path)

    reads = trees._StoreTree.read
    with monkeypatch.context() as patch:
        patch.setattr(trees._StoreTree, "read", read)
        result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 2
    assert "s3://bucket/data cannot be reached (timed out)" in result.stderr
    assert run_etl(data, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(clean_out)


def test_files_of_several_readings_are_fetched_side_by_side_and_each_once(
    data: str, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once, most, asked = 0, 0, Counter[str]()
    counting = threading.Lock()

    def ask(tree: Any, method: Any, path: str, *more: Any, **named: Any) -> Any:
        nonlocal at_once, most
        with counting:
            at_once += 1
            most = max(most, at_once)
            asked[path] += path.endswith(".jpg")
        time.sleep(0.01)
        try:
            return asks(tree, method, path, *more, **named)
        finally:
            with counting:
                at_once -= 1

    asks = trees._StoreTree._asked
    monkeypatch.setattr(trees._StoreTree, "_asked", ask)
    result = run_etl(data, tmp_path / "out", "--workers", "1")
    assert result.exit_code == 0, result.output
    assert most > 2
    assert set(asked.values()) == {0, 1}
    assert contents(tmp_path / "out") == contents(clean_out)


def test_a_changed_object_is_made_again_and_a_touched_one_is_not(
    data: str, phantom: Path, done: str, tmp_path: Path
) -> None:
    tree = copy_of(data, "s3://bucket/changing")
    out = copy_of(done, "s3://bucket/changed")
    assert run_etl(tree, out).exit_code == 0
    fixations = sorted(place(tree).glob("*/REFLACX/main_data/*/fixations.csv"))[0]
    fixations.write_bytes(fixations.read_bytes())
    assert "nothing to do" in run_etl(tree, out).output
    fixations.write_bytes(fixations.read_bytes().replace(b"1", b"2", 1))
    assert "1 of 3 parts to make" in run_etl(tree, out).output
