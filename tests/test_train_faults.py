"""Training among other processes, kills, full disks and signals: always resumable, in one line."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import signature
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
import torch
from conftest import invoked
from evaluation import egma_eval, save_tiny_model
from safetensors.torch import load_file
from test_train import SMALL, assert_same_run, begun_like, command, egma_train, metrics_of

from egma_train import load_model
from egma_train.cli import main
from egma_train.data import cache as caches
from egma_train.data.cache import open_cache
from egma_train.errors import BadUsageError
from egma_train.evaluate import reports
from egma_train.evaluate.reports import own_turn, read_rows, write_report
from egma_train.run_folder import RunFolder
from egma_train.storage.atomic import finish_swaps, whole_folder

GOLDEN = Path(__file__).parent / "golden" / "shard-v1.npz"


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of one epoch."""
    out = tmp_path_factory.mktemp("done")
    result = egma_train("--shards", shards, "--out", out, *SMALL, "--epochs", 1)
    assert result.exit_code == 0, result.output
    return out / "runs" / "tiny-egma-seed0"


def killed_at(moment: int, work: Callable[[], Any]) -> bool:
    """Do something in a forked process that is killed before or after a rename; False: at none.

    Moments 0 and 1 are before and after the first rename, 2 and 3 of the second, and so on.
    """
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    try:
        seen = 0
        for name in ("rename", "replace"):
            real = getattr(os, name)

            def hooked(*places: Any, real: Any = real) -> None:
                nonlocal seen
                if seen == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                real(*places)
                if seen + 1 == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                seen += 2

            setattr(os, name, hooked)
        work()
    finally:
        os._exit(0)


def until_none_is_left(work: Callable[[], Any], check: Callable[[], Any]) -> int:
    """Kill a piece of work at each of its renames; count the kills."""
    moment = 0
    while killed_at(moment, work):
        check()
        moment += 1
    return moment


def leftovers(folder: Path) -> list[str]:
    return [one.name for one in folder.rglob(".*") if one.suffix in (".tmp", ".old")]


# -- kills ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "training is killed while it writes",
    "SIGKILL before and after each rename of a run's start, checkpoints, model, card and record",
    "what was begun is resumable from a whole checkpoint; nothing half-written is left",
)
def test_a_run_killed_at_any_rename_is_whole_and_cleaned_by_the_next(tmp_path: Path) -> None:
    model, tokenizer = load_model(save_tiny_model(tmp_path / "model"))
    run = RunFolder(tmp_path / "runs" / "one")
    record = json.loads(
        '{"status": "running", "preset": "tiny", "started_from": "x", "shards_fingerprint": "0",'
        ' "epochs_done": 1, "options": {"loss": {"objective": "egma"}}, "versions": {}, "counts":'
        ' {"readings": 1, "images": 1, "readings_with_used_gaze": 1, "datasets": ["x"]}}'
    )

    def whole_run() -> None:
        with run.alone():
            run.begin(model, tokenizer, record)
            for step in (1, 2):
                run.save_checkpoint(step, model, tokenizer, {"progress": {"step": step}})
            run.finish(model, tokenizer, record | {"status": "complete"})
            run.finish(model, tokenizer, record | {"status": "complete"})  # as a resume would

    def check() -> None:
        if run.record_file.exists():
            load_file(run.start / "model.safetensors")
            complete = run.record()["status"] == "complete"
            if place := run.last_checkpoint():
                load_file(place / "model.safetensors")
                torch.load(place / "training.pt", weights_only=True)
            assert place or not complete
            with run.alone():
                assert not complete or load_file(run.model / "model.safetensors")
        else:
            assert not run.checkpoints.exists()
            run.check_free()
        with run.alone():
            assert leftovers(run.root) == []
        shutil.rmtree(run.root)

    assert until_none_is_left(whole_run, check) >= 20


@pytest.mark.fault(
    "a folder that replaces another, killed",
    "SIGKILL before and after each rename of the swap, three times in a row",
    "the old or the new one is there, whole",
)
def test_a_replaced_folder_is_never_lost(tmp_path: Path) -> None:
    place = tmp_path / "place"

    def replace() -> None:
        with whole_folder(place) as folder:
            (folder / "a").write_text("new")

    def check() -> None:
        if killed_at(0, replace):  # again, before anybody has cleaned up
            finish_swaps(tmp_path)
        assert (place / "a").read_text() in ("old", "new")
        assert leftovers(tmp_path) == []
        (place / "a").write_text("old")

    place.mkdir()
    (place / "a").write_text("old")
    assert until_none_is_left(replace, check) == 4


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    """A folder of one shard without Parquet, whose threads a forked process would not have."""
    (tmp_path / "golden").mkdir()
    shutil.copy(GOLDEN, tmp_path / "golden" / "part-00000.npz")
    return tmp_path / "golden"


@pytest.mark.fault(
    "a cache's build is killed",
    "SIGKILL in the middle of the arrays, and before and after each rename",
    "the next one builds it, deletes what was left and says how much",
)
def test_a_killed_build_is_done_again_and_its_rest_deleted(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = open_cache(golden, tmp_path / "calm")
    said: list[str] = []

    def check() -> None:
        again = open_cache(golden, tmp_path / "hurt", say=said.append)
        np.testing.assert_array_equal(again.images, calm.images)
        assert again.texts(range(2)) == calm.texts(range(2))
        assert leftovers(tmp_path / "hurt") == []
        shutil.rmtree(tmp_path / "hurt")

    def build() -> None:
        open_cache(golden, tmp_path / "hurt")

    assert until_none_is_left(build, check) >= 4
    with monkeypatch.context() as patch:
        real = caches._append

        def dies(*arguments: Any) -> None:
            real(*arguments)
            os.kill(os.getpid(), signal.SIGKILL)

        patch.setattr(caches, "_append", dies)
        shutil.rmtree(tmp_path / "hurt")
        assert killed_at(99, build)
    said.clear()
    check()
    assert "MB freed" in said[-1]


# -- full disks -----------------------------------------------------------------------------------


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Let the kernel refuse longer files, as it refuses all on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.fault(
    "the disk is full while training writes",
    "RLIMIT_FSIZE of 60 bytes to 300 KB: metrics, TensorBoard, a checkpoint's weights and state",
    "exit 2, one line names the place and `--resume`, which ends as if undisturbed",
)
def test_a_full_disk_ends_a_run_in_one_line_and_resume_goes_on(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    calm = begun_like(done, tmp_path, "calm", epochs=2)
    hurt = begun_like(done, tmp_path, "hurt", epochs=2)
    every = ("--set", "execution.checkpoint_steps=2")
    assert egma_train(*command(shards, tmp_path, "calm", *every)[2:]).exit_code == 0
    named = {60: "metrics.csv", 250: "metrics.csv|tensorboard", 3_000: "step-", 300_000: "step-"}
    for size, what in named.items():
        with files_up_to(size):
            result = egma_train(*command(shards, tmp_path, "hurt", *every)[2:])
        assert result.exit_code == 2, (size, result.output)
        (line,) = result.stderr.splitlines()
        assert re.search(what, line) and "(File too large); make room" in line
        assert "--resume (--name hurt)" in line
        assert leftovers(hurt) == []
    assert egma_train(*command(shards, tmp_path, "hurt", *every)[2:]).exit_code == 0
    assert_same_run(calm, hurt)


@pytest.mark.fault(
    "the disk is full while a run begins or a cache is built",
    "RLIMIT_FSIZE of 20 KB and 200 KB",
    "exit 2, one line; nothing half-written is left and the same command works",
)
def test_a_full_disk_at_the_beginning_leaves_nothing(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1)
    elsewhere = ("--set", f"execution.cache={tmp_path / 'cache'}")
    with files_up_to(200_000):
        for more, what in (((), "/start (File too large); make"), (elsewhere, "no cache can be")):
            result = egma_train(*words, *more)
            assert result.exit_code == 2
            (line,) = result.stderr.splitlines()
            assert what in line and "--resume" not in line
    assert leftovers(tmp_path) == [] and not list(tmp_path.rglob("run.json"))
    assert egma_train(*words, *elsewhere).exit_code == 0


# -- other processes ------------------------------------------------------------------------------


@pytest.mark.fault(
    "two processes train one run",
    "the lock held by a process that is then killed; a link in the lock's place",
    "the second ends in one line that names the first; the next goes on; no link is followed",
)
def test_one_process_at_a_time_trains_a_run(done: Path, shards: Path, tmp_path: Path) -> None:
    run = begun_like(done, tmp_path, "one", epochs=1)
    arguments = command(shards, tmp_path, "one")[2:]
    ready, say_ready = os.pipe()
    child = os.fork()
    if not child:
        with RunFolder(run).alone():
            os.write(say_ready, b"1")
            signal.pause()
    try:
        os.read(ready, 1)
        for words in (arguments, arguments[:-1]):  # to resume it, to begin it
            result = egma_train(*words)
            assert result.exit_code == 2
            (line,) = result.stderr.splitlines()
            assert f"being trained by process {child} on " in line and "wait" in line
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    (tmp_path / "theirs").write_text("theirs")
    (run / ".lock").unlink()
    (run / ".lock").symlink_to(tmp_path / "theirs")
    result = egma_train(*arguments)
    assert result.exit_code == 2 and "is a link; delete it" in result.stderr
    assert (tmp_path / "theirs").read_text() == "theirs"
    (run / ".lock").unlink()
    assert egma_train(*arguments).exit_code == 0


@pytest.mark.fault(
    "two processes build one cache",
    "a second one starts while the first has written its arrays",
    "the second says whom it waits for and takes what the first made",
)
def test_a_second_build_waits_for_the_first(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready, say_ready = os.pipe()
    go, say_go = os.pipe()
    child = os.fork()
    if not child:
        real = caches._as_arrays

        def slow(index: Any) -> Any:
            os.write(say_ready, b"1")
            os.read(go, 1)
            return real(index)

        caches._as_arrays = slow  # type: ignore[assignment]
        try:
            open_cache(golden, tmp_path / "cache", say=lambda _: None)
        finally:
            os._exit(0)
    os.read(ready, 1)
    said: list[str] = []

    def heard(line: str) -> None:
        said.append(line)
        os.write(say_go, b"1")

    monkeypatch.setattr(caches, "_build", lambda *_: pytest.fail("built twice"))
    assert len(open_cache(golden, tmp_path / "cache", say=heard)) == 1
    assert os.waitpid(child, 0)[1] == 0
    assert said == [
        f"the shards are being copied to {tmp_path / 'cache'} by process {child} on"
        f" {os.uname().nodename}; waiting for it"
    ]


@pytest.mark.fault(
    "caches of older renderings",
    "shards rendered again, while another process reads the older cache and when it has ended",
    "what is read is kept; the rest is deleted and its size told",
)
def test_older_caches_are_deleted_once_nobody_reads_them(golden: Path) -> None:
    said: list[str] = []
    older = open_cache(golden, say=said.append)
    place = next(one for one in (golden / "cache").iterdir() if one.is_dir())
    shutil.copy(GOLDEN, golden / "part-00001.npz")
    newer = open_cache(golden, say=said.append)
    assert place.is_dir() and len(newer) == 2 * len(older)
    del older
    del newer
    open_cache(golden, say=said.append)
    assert not place.exists() and said[-1].startswith("older copies of shards in")
    assert len([one for one in (golden / "cache").iterdir() if one.is_dir()]) == 1


@pytest.mark.fault(
    "a cache's folder with files of the user's",
    "a text, folders and a lock of names that ours have, one of them beside our own files, and a"
    " second name of a file in the lock's place; a whole run with `execution.cache`",
    "what lacks our mark is kept to the letter, a foreign lock is refused in one line; an older"
    " cache of ours is deleted",
)
def test_only_what_is_ours_is_deleted_or_written_over_in_a_cache_folder(
    golden: Path, shards: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    open_cache(golden, mine)
    (ours,) = (one for one in mine.iterdir() if one.is_dir())
    shutil.copytree(ours, mixed := mine / "00112233445566aa-v1")
    files = [
        mine / "0123456789abcdef.txt", mine / ".0123456789abcdef.txt.7.tmp",
        mine / "0123456789abcdef-v1" / "thesis", mine / ".0123456789abcdef-v1.7.old" / "images",
        mine / ".shards-mine" / "x", mine / ".shards-abcdefg1" / "part-00000.npz", mixed / "thesis",
    ]  # fmt: skip
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    shutil.rmtree(golden)  # so that its cache is of no use any more
    arguments = ("--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 1)
    command = (*arguments, "--set", f"execution.cache={mine}")
    lock = mine / ".lock"
    (tmp_path / "theirs").write_text("")
    for put in (lambda: lock.write_text("mine"), lambda: lock.hardlink_to(tmp_path / "theirs")):
        lock.unlink()
        put()
        before = lock.read_text()
        result = egma_train(*command)
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and f"{lock} is in the place of a lock" in line
        assert lock.read_text() == before and "move it away" in line
    lock.unlink()
    result = egma_train(*command)
    assert result.exit_code == 0, result.output
    assert "older copies of shards" in result.output and not ours.exists()
    assert {path.read_text() for path in files} == {"mine"}
    assert {one.name for one in mixed.iterdir()} >= {"images", "index.npz", "thesis"}
    (place,) = (one for one in mine.glob("[0-9a-f]*-v[0-9]") if not (one / "thesis").exists())
    (place / "thesis").write_text("mine")
    (place / "index.npz").unlink()
    (line,) = (result := egma_train(*command)).stderr.splitlines()
    assert result.exit_code == 2 and f"{place} holds files that are not a cache's" in line
    assert (place / "thesis").read_text() == "mine"


def set_to(value: object, where: object = slice(None)) -> Callable[[np.ndarray], None]:
    return lambda values: values.__setitem__(where, value)


def turn_around(values: np.ndarray) -> None:
    values[:] = values[::-1].copy()


CRAFTED_ARRAYS: tuple[tuple[str, Callable[[np.ndarray], Any]], ...] = (
    ("grids", set_to(1e30)), ("grids", set_to(np.nan)), ("grids", set_to(-5, 3)),
    ("offsets", turn_around), ("offsets", set_to(0, 1)), ("offsets", set_to(-1, 0)),
    ("text_offsets", turn_around), ("text_offsets", set_to(10**9, 1)), ("text", set_to(0xFF, 5)),
    ("has_grid", lambda values: values.view(np.uint8).fill(2)), ("image_number", set_to(10**9)),
    ("reading_id", set_to("../../x", 0)), ("dataset", set_to("\x1b[2J", 0)),
    ("reading_grids", set_to(7)), ("reading_grids", set_to(np.nan, (slice(None), 0))),
)  # fmt: skip


def craft(place: Path, name: str, change: Callable[[np.ndarray], Any]) -> None:
    """Change an array of a cache; every file keeps its size, every checksum fits."""
    if (place / name).exists():
        kind = "<f4" if name == "grids" else np.uint8
        change(values := np.fromfile(place / name, kind))
        values.tofile(place / name)
        return
    with np.load(place / "index.npz") as stored:
        index = {one: stored[one] for one in stored.files}
    if index[name].dtype.kind == "U":
        index[name] = index[name].astype("U60")
    change(index[name])
    np.savez(place / "index.npz", **index)  # type: ignore[arg-type]


@pytest.mark.fault(
    "a crafted cache",
    "grids of 1e30, NaN and -5, offsets turned around, ids that are paths or type, broken text;"
    " sizes and checksums fit; then a whole run",
    "told in one line and made again from the shards; the run is that of an undisturbed one",
)
def test_a_crafted_cache_is_made_again_before_anything_of_it_is_used(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    calm = open_cache(shards, tmp_path / "cache")
    expected = {name: np.array(values) for name, values in vars(calm).items() if name != "_held"}
    del calm
    (place,) = (one for one in (tmp_path / "cache").iterdir() if one.is_dir())
    for name, change in CRAFTED_ARRAYS:
        craft(place, name, change)
        said: list[str] = []
        again = open_cache(shards, tmp_path / "cache", say=said.append)
        assert said == [f"{place} is damaged: copying the shards again"], name
        for one, values in expected.items():
            np.testing.assert_array_equal(getattr(again, one), values)
        open_cache(shards, tmp_path / "cache", say=lambda line: pytest.fail(line))
    craft(place, "grids", set_to(np.nan))
    craft(place, "offsets", turn_around)
    more = ("--epochs", 1, "--set", f"execution.cache={tmp_path / 'cache'}")
    result = egma_train("--shards", shards, "--out", tmp_path, *SMALL, *more)
    assert result.exit_code == 0 and "is damaged: copying the shards again" in result.output
    assert metrics_of(tmp_path / "runs" / done.name) == metrics_of(done)


@pytest.mark.fault(
    "training or an evaluation with an unset variable",
    "`--out ''`, and `--shards`, `--images`, `--labels`, `--data`, a checkpoint likewise",
    "exit 2, one line; nothing is written into the working folder",
)
def test_no_empty_path_stands_for_the_working_folder(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shutil.copytree(shards, tmp_path / "here"))
    before = sorted(Path().rglob("*"))
    images = ("--images", ".", "--labels", "labels.csv")
    for run, option, *arguments in (
        (egma_train, "--out", "--shards", shards, "--out", "", *SMALL),
        (egma_train, "--shards", "--shards", "", "--out", ".", *SMALL),
        (egma_eval, "--out", "grounding", "--out", "", "--shards", shards, done),
        (egma_eval, "--shards", "grounding", "--shards", "", done),
        (egma_eval, "--images", "retrieval", *images, "--images", "", done),
        (egma_eval, "--labels", "retrieval", *images, "--labels", "", done),
        (egma_eval, "--data", "table", "--data", "", done),
        (egma_eval, "CHECKPOINTS", "embed", "--task", "csv", *images, ""),
    ):
        result = run(*arguments)
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and option in line, line
        assert "is empty, as an unset variable is; give a path" in line
    assert sorted(Path().rglob("*")) == before


def save_by_polars(path: Path, **metadata: str) -> None:
    frame = pl.read_parquet(path)
    frame.write_parquet(path, **({"metadata": metadata} if metadata else {}))


def save_by_pandas(path: Path) -> None:
    pd.read_parquet(path).drop(columns="labels").to_parquet(path)


def save_by_duckdb(path: Path) -> None:
    aside = path.with_suffix(".aside")
    duckdb.sql(f"copy (select * from '{path}') to '{aside}' (format parquet)")
    aside.replace(path)


@pytest.mark.fault(
    "shards that another program saved anew",
    "by pandas, Polars and DuckDB, which drop the file's metadata; by Polars with it",
    "one line says that the metadata is gone and how to mend it; with it the run is as before",
)
def test_shards_without_their_metadata_are_told_from_those_of_another_version(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(shards / "shards", tmp_path / "shards").parent
    files = sorted((out / "shards").iterdir())
    raw = pq.read_schema(files[0]).metadata
    metadata = {name.decode(): value.decode() for name, value in raw.items()}
    command = ("--shards", out, "--out", out, *SMALL, "--epochs", 1)
    for save in (save_by_pandas, save_by_polars, save_by_duckdb):
        shutil.copy(shards / "shards" / files[0].name, files[0])
        save(files[0])
        result = egma_train(*command)
        (line,) = result.stderr.splitlines()
        assert result.exit_code == 2 and f"{files[0]} lacks egma-prep's metadata" in line
        assert "save it with the metadata that it had" in line and "version that" not in line
    if "metadata" not in signature(pl.DataFrame.write_parquet).parameters:
        pytest.skip("a Polars that saves no metadata")
    for path in files:
        shutil.copy(shards / "shards" / path.name, path)
        save_by_polars(path, **metadata)
    result = egma_train(*command)
    assert result.exit_code == 0, result.output
    assert metrics_of(out / "runs" / done.name) == metrics_of(done)


REPORT = {
    "checkpoint": {"name": "m", "sha256": "0"},
    "rows": [{"path": f"{sign}cmd|' /C calc'!A0", "score": -0.5} for sign in "=+-@'"],
}


@pytest.mark.fault(
    "two evaluations write into one folder, and one is killed",
    "a second one while the first has its turn; SIGKILL at each rename of a report",
    "one after the other; rows are whole where their figures are, nothing is left over",
)
def test_reports_are_written_in_turn_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "evaluation" / "task"

    def check() -> None:
        for path in folder.glob("*.json"):
            assert read_rows(path)[0]["path"] == REPORT["rows"][0]["path"]  # type: ignore[index]
        with own_turn(folder):
            assert leftovers(folder) == []
        shutil.rmtree(tmp_path / "evaluation")

    assert until_none_is_left(lambda: write_report(folder, REPORT), check) == 4
    ready, say_ready = os.pipe()
    go, say_go = os.pipe()
    child = os.fork()
    if not child:
        with own_turn(folder):
            os.write(say_ready, b"1")
            os.read(go, 1)
        os._exit(0)
    os.read(ready, 1)
    said: list[str] = []
    monkeypatch.setattr(reports, "tell", lambda line: (said.append(line), os.write(say_go, b"1")))
    path = write_report(folder, REPORT)
    assert os.waitpid(child, 0)[1] == 0 and f"by process {child}" in said[0]
    text = path.with_suffix(".csv").read_text()
    assert [line[0] for line in text.splitlines()[1:]] == ["'"] * 4 + ["'"]
    assert [row["path"] for row in read_rows(path)] == [r["path"] for r in REPORT["rows"]]  # type: ignore[index]


# -- signals --------------------------------------------------------------------------------------

_STOPS_AND_HANGS_UP = """
import os, signal, sys
from egma_train import cli
from egma_train.train import step
real, calls = step.batch_loss, []
def batch_loss(*arguments):
    calls.append(1)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGSTOP)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    return real(*arguments)
step.batch_loss = batch_loss
cli.main(sys.argv[1:])
"""


@pytest.mark.fault(
    "training is suspended, then its ssh is lost",
    "SIGSTOP in a step, a second process meanwhile, SIGCONT, SIGHUP twice in the next step",
    "the second process is refused; exit 130 after a checkpoint, resumed to the same end",
)
def test_a_run_survives_being_suspended_and_hung_up(
    done: Path, shards: Path, tmp_path: Path
) -> None:
    calm = begun_like(done, tmp_path, "calm", epochs=2)
    hurt = begun_like(done, tmp_path, "hurt", epochs=2)
    words = command(shards, tmp_path, "hurt")[2:]
    child = subprocess.Popen(
        [sys.executable, "-c", _STOPS_AND_HANGS_UP, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    assert egma_train(*command(shards, tmp_path, "calm")[2:]).exit_code == 0
    assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
    refused = egma_train(*words)
    assert refused.exit_code == 2 and f"by process {child.pid}" in refused.stderr
    os.kill(child.pid, signal.SIGCONT)
    said, _ = child.communicate()
    assert child.returncode == 130 and "continue with the same command and --resume" in said
    assert "Traceback" not in said and len(metrics_of(hurt)) == 3
    assert egma_train(*words).exit_code == 0
    assert_same_run(calm, hurt)


@pytest.mark.fault(
    "ssh is lost, or the job is ended, before the first step",
    "SIGHUP and SIGTERM while a cache is built",
    "exit 130, one line, nothing left over; the same command works",
)
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM], ids=["SIGHUP", "SIGTERM"])
def test_a_signal_before_training_ends_in_one_line(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    real = caches._append

    def hung_up(*arguments: Any) -> None:
        os.kill(os.getpid(), number)
        real(*arguments)

    monkeypatch.setattr(caches, "_append", hung_up)
    before = signal.signal(number, signal.SIG_DFL)
    try:
        result = invoked(
            main, "--shards", shards, "--out", tmp_path, "--set", f"execution.cache={tmp_path}/c"
        )
    finally:
        signal.signal(number, before)
    assert result.exit_code == 130
    assert result.output.splitlines()[-1] == "stopped; repeat the same command"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", ".x", "", "a b", "x" * 129, "é", "a\nb"])
def test_a_name_that_leaves_runs_is_refused(shards: Path, tmp_path: Path, name: str) -> None:
    result = egma_train("--shards", shards, "--out", tmp_path / "out", "--name", name, *SMALL)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert "write letters, digits" in line
    assert [one.name for one in tmp_path.iterdir() if one.name != "out"] == []


def test_weights_are_not_lost_when_a_swap_fails(tmp_path: Path) -> None:
    place = tmp_path / "place"
    with whole_folder(place) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(BadUsageError, match="cannot write"), whole_folder(place) as folder:
        shutil.rmtree(folder)  # so that it cannot take its place
    assert (place / "a").read_text() == "old" and leftovers(tmp_path) == []
