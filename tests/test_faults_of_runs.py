"""Killed, starved, doubled: a run comes through, or says in one line what to mend."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import IN_THREADS, PATIENCE_S, egma_prep, run_etl
from distributed import Client
from tables import contents, rejects, shards

from egma_prep.errors import OF_THE_MACHINE
from egma_prep.etl import cluster, outside_cluster, run
from egma_prep.etl import make_part as shards_module
from egma_prep.storage import lock

COMMAND = (sys.executable, "-c", "from egma_prep.cli import main; main()")
SMALL_PARTS = ("--workers", "2", "--set", "execution.readings_per_part=2")


def start(
    data: Path, out: Path, *more: object, hook: Path | None = None, limit: Any = None
) -> subprocess.Popen[str]:
    environment = os.environ | ({"PYTHONPATH": str(hook)} if hook else {})

    def before() -> None:
        # A shell that started the tests in the background has Ctrl-C ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if limit:
            limit()

    return subprocess.Popen(
        [*COMMAND, "run", str(data), "--out", str(out), *SMALL_PARTS, *map(str, more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
        preexec_fn=before,
    )


def finish(run: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == code, said
    assert "Traceback" not in said, said
    return said


def wait_for_parts(out: Path, number: int = 1) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len(list(out.glob("state/part-*/record.json"))) < number:
        assert time.monotonic() < deadline, "no part was made"
        time.sleep(0.01)


def litter(out: Path) -> list[Path]:
    found = [*out.rglob(".*.tmp"), *out.rglob("reading.json"), *out.glob("state/scratch*")]
    return [*found, *out.glob("state/lock"), *out.glob("state/swap.json")]


def assert_as_undisturbed(out: Path, clean_out: Path) -> None:
    assert contents(out) == contents(clean_out)
    assert litter(out) == []
    assert egma_prep("verify", "--out", out).exit_code == 0


# -- kills ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "the driver is killed, its workers are not",
    "SIGKILL to the driver's process after the first part",
    "the workers end; the next run goes on and ends as if undisturbed",
)
def test_a_run_whose_driver_was_killed_is_finished_by_the_next(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    process = start(phantom, tmp_path / "out")
    wait_for_parts(tmp_path / "out")
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=PATIENCE_S)
    assert not alive
    assert run_etl(phantom, tmp_path / "out").exit_code == 0
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.fault(
    "a worker is killed in the middle",
    "SIGKILL to every worker process after the first part",
    "the same run goes on with new workers and ends as if undisturbed",
)
def test_a_run_whose_workers_were_killed_goes_on(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    process = start(phantom, tmp_path / "out")
    wait_for_parts(tmp_path / "out")
    for child in psutil.Process(process.pid).children(recursive=True):
        if "spawn_main" in " ".join(child.cmdline()):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    finish(process)
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(
            signal.SIGTERM,
            143,
            id="SIGTERM",
            marks=pytest.mark.fault(
                "the batch system ends the job",
                "SIGTERM to the driver after the first part",
                "exit 143, one line; the next run goes on",
            ),
        ),
        pytest.param(
            signal.SIGINT,
            130,
            id="Ctrl-C",
            marks=pytest.mark.fault(
                "Ctrl-C",
                "SIGINT to all processes of a run after the first part",
                "exit 130, one line; the next run goes on and makes no finished part again",
            ),
        ),
    ],
)
def test_a_run_that_is_told_to_stop_is_finished_by_the_next(
    phantom: Path, clean_out: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    out = tmp_path / "out"
    process = start(phantom, out)
    wait_for_parts(out)
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    said = finish(process, code)
    assert "the same command goes on from here" in said

    def made() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in out.glob("state/part-*/record.json")}

    before = made()
    assert run_etl(phantom, out).exit_code == 0
    assert before.items() <= made().items()
    assert_as_undisturbed(out, clean_out)


class Killed(BaseException):
    """As abrupt as a kill: nothing in the code catches it."""


@pytest.mark.fault(
    "a kill at each moment when a file appears",
    "the n-th rename of a run raises, before and after it is done, for every third n",
    "the next run ends as if undisturbed",
)
@pytest.mark.usefixtures("no_cluster")  # a kill in this process is seen
@pytest.mark.parametrize("after", [False, True], ids=["before the rename", "after the rename"])
@pytest.mark.parametrize("nth", range(0, 32, 3))
def test_a_kill_at_a_rename_is_survived(
    phantom: Path,
    clean_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    nth: int,
    after: bool,
) -> None:
    real, done, one_at_a_time = os.replace, [], threading.Lock()

    def replace(old: Any, new: Any) -> None:
        with one_at_a_time:  # tables are merged in threads; dead, none of them goes on
            if len(done) > nth or (len(done) == nth and not after):
                raise Killed
            real(old, new)
            done.append(new)
            if len(done) > nth:
                raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os, "replace", replace)
        run_etl(phantom, tmp_path / "out")
    assert run_etl(phantom, tmp_path / "out").exit_code == 0
    assert_as_undisturbed(tmp_path / "out", clean_out)


# -- whom the death of a worker is laid to --------------------------------------------------------


def workers_die(monkeypatch: pytest.MonkeyPatch, dies_at: Callable[[int], str]) -> list[str]:
    """Let each attempt at a part die: "" not at all, "begin" before any work, else in a function.

    Returns what became of each attempt, filled as they are made.
    """
    fates: list[str] = []

    def killed(*_: Any, **__: Any) -> None:
        raise Killed

    def each_done(client: object, work: Any, jobs: Any) -> Iterator[tuple[Any, Any]]:
        while jobs:
            job = jobs.popleft()
            fates.append(fate := dies_at(len(fates)))
            if not fate:
                yield job, work(*job)
                continue
            if fate != "begin":
                with monkeypatch.context() as patched, contextlib.suppress(Killed):
                    patched.setattr(shards_module, fate, killed)
                    work(*job)
            yield job, cluster.WORKER_DIED

    monkeypatch.setattr(run, "dask_client", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(run, "each_done", each_done)
    return fates


DEATHS = {
    "at a reading once, then thrice before they begin": ["load_reading", *["begin"] * 3],
    "four times while they write": ["write_tables"] * 4,
}


@pytest.mark.fault(
    "workers that die, but of no reading",
    "once at a reading and then before any work; while a part is written",
    "no reading is blamed; the part is made",
)
@pytest.mark.parametrize("when", DEATHS)
def test_no_reading_is_blamed_when_workers_die(
    when: str, phantom: Path, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = DEATHS[when]
    one_part = ("--set", "execution.readings_per_part=24")
    fates = workers_die(monkeypatch, lambda n: planned[n] if n < len(planned) else "")
    assert run_etl(phantom, tmp_path / "out", *one_part).exit_code == 0
    assert fates == [*planned, ""]
    assert "killed_worker" not in {row["reason"] for row in rejects(tmp_path / "out")}
    assert not litter(tmp_path / "out")


def test_a_note_of_an_earlier_run_blames_no_reading(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(run, "dask_client", lambda *_: contextlib.nullcontext())
        patched.setattr(run, "each_done", lambda _, work, jobs: [work(*job) for job in jobs])
        patched.setattr(shards_module, "load_reading", lambda *_: (_ for _ in ()).throw(Killed))
        run_etl(phantom, out)
    assert list(out.rglob("reading.json"))
    workers_die(monkeypatch, lambda n: "begin" if n < 3 else "")
    assert run_etl(phantom, out).exit_code == 0
    assert "killed_worker" not in {row["reason"] for row in rejects(out)}


@pytest.mark.parametrize("where", ["begin", "load_reading"])
def test_workers_that_always_die_end_the_run_in_one_line(
    where: str, phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fates = workers_die(monkeypatch, lambda _: where)
    result = run_etl(phantom, tmp_path / "out", "--set", "execution.readings_per_part=24")
    assert result.exit_code == 2 and len(fates) < 100
    assert "workers die time and again" in result.stderr.splitlines()[-1]
    assert "fewer --workers" in result.stderr.splitlines()[-1]


# -- readings that take their worker with them ----------------------------------------------------

_FATAL = """
import os, cv2
real = cv2.imdecode

def imdecode(data, flags):
    if fate := {fates}.get(len(data)):
        exec(fate)
    return real(data, flags)

cv2.imdecode = imdecode
"""

FATES = {
    "a reading on which the worker is killed each time": (
        "os.kill(os.getpid(), 9)", "killed_worker", "as the kernel does when memory is short",
    ),
    "a reading on which a library crashes each time": (
        "os.abort()", "killed_worker", "as a fault in a decoder does",
    ),
    "a reading for which there is no memory": (
        "bytearray(2**62)", "out_of_memory", "a real MemoryError while decoding",
    ),
    "a reading on which our own code fails": (
        "raise LookupError('ours')", "unexpected", "an exception that no code expects",
    ),
}  # fmt: skip


_AGAIN = {True: "the next run", False: "a later `verify --repair`"}


def fatal_images(phantom: Path, truth: dict[str, Any]) -> dict[int, set[tuple[str, str]]]:
    """Choose images by their sizes in bytes, which no others have; tell whose they are."""
    readings = [one for one in truth["readings"] if not one["reject"]]
    sizes = {one["image"]: (phantom / one["image"]).stat().st_size for one in readings}
    alone = [image for image, size in sizes.items() if [*sizes.values()].count(size) == 1]
    return {
        sizes[image]: {(r["dataset"], r["reading_id"]) for r in readings if r["image"] == image}
        for image in alone[: len(FATES)]
    }


@pytest.fixture(scope="module")
def fatal(
    phantom: Path, truth: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, set[tuple[str, str]]]]:
    """Run over a tree with a fatal reading of each kind; tell whose readings they are."""
    place, images = tmp_path_factory.mktemp("fatal"), fatal_images(phantom, truth)
    fates = {size: fate for size, (fate, _, _) in zip(images, FATES.values(), strict=True)}
    (place / "sitecustomize.py").write_text(_FATAL.format(fates=fates))
    options = ("--set", "execution.readings_per_part=8", "--max-reject-share", 1)
    finish(start(phantom, place / "out", *options, hook=place))
    return place / "out", dict(zip(FATES, images.values(), strict=True))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name, f"{how}, for one image in all workers", f"rejected as {reason}; its part's"
                f" other readings kept; {_AGAIN[reason in OF_THE_MACHINE]} tries it again",
            ),
        )
        for name, (_, reason, how) in FATES.items()
    ],
)  # fmt: skip
def test_a_fatal_reading_costs_only_itself(
    fatal: tuple[Path, dict[str, set[tuple[str, str]]]], clean_out: Path, name: str
) -> None:
    out, whose = fatal
    reasons = {(row["dataset"], row["reading_id"]): row["reason"] for row in rejects(out)}
    assert {reasons.get(one) for one in whose[name]} == {FATES[name][1]}
    theirs, lost = shards(clean_out), set().union(*whose.values())
    assert shards(out) == {one: row for one, row in theirs.items() if one not in lost}


def test_once_nothing_is_fatal_any_more_a_run_and_a_repair_bring_all_readings_back(
    phantom: Path,
    fatal: tuple[Path, dict[str, set[tuple[str, str]]]],
    clean_out: Path,
    tmp_path: Path,
) -> None:
    out = shutil.copytree(fatal[0], tmp_path / "out")
    assert egma_prep("verify", "--out", out).exit_code == 0
    again = egma_prep("run", phantom, "--out", out)
    assert again.exit_code == 0, again.output
    assert "again, readings were rejected as " in again.output
    assert not OF_THE_MACHINE & {row["reason"] for row in rejects(out)}
    repaired = egma_prep("verify", "--out", out, "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert_as_undisturbed(out, clean_out)


# -- several runs at once -------------------------------------------------------------------------


@pytest.mark.fault(
    "another command while a run is at work",
    "render-heatmaps and `verify --repair` while the lock is held",
    "one line, exit 2, nothing changed",
)
@pytest.mark.parametrize("command", [("render-heatmaps",), ("verify", "--repair")])
def test_commands_that_write_wait_for_the_lock(
    clean_out: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    with lock.locked(out / "state" / "lock"):
        result = egma_prep(*command, "--out", out)
    assert result.exit_code == 2 and f"in use by process {os.getpid()}" in result.stderr
    assert contents(out) == contents(clean_out)


LOCKS = {
    "of a process that died": json.dumps({"pid": 2**22 - 1, "host": socket.gethostname()}),
    "of another machine": json.dumps({"pid": 1, "host": "another"}),
    "of nonsense": "\0 nonsense",
    "that is empty": "",
}


@pytest.mark.fault(
    "a lock file left behind",
    "of a dead process, of another machine, of nonsense, empty",
    "the next run takes it over",
)
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_left_behind_locks_nobody_out(
    phantom: Path, clean_out: Path, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    (out / "state" / "lock").write_text(LOCKS[name])
    (out / "tables" / "words.parquet").unlink()
    assert run_etl(phantom, out).exit_code == 0
    assert_as_undisturbed(out, clean_out)


@pytest.mark.fault(
    "a file system without locks",
    "`flock` answers ENOLCK, the lock file names a living, a dead and a far process",
    "refused while the named process may live, taken over when it is dead",
)
@pytest.mark.parametrize(
    ("pid", "host", "free"),
    [
        (os.getpid(), socket.gethostname(), False),
        (2**22 - 1, socket.gethostname(), True),
        (1, "another", False),
    ],
    ids=["of this process", "of a dead one", "of another machine"],
)
def test_without_flock_the_named_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int, host: str, free: bool
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    path = tmp_path / "lock"
    path.write_text(json.dumps({"pid": pid, "host": host}))
    refused = pytest.raises(lock.BadUsageError, match=str(pid))
    with contextlib.nullcontext() if free else refused, lock.locked(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert path.exists() != free


_BUSY = """
import sys, time
from pathlib import Path
from egma_prep.storage.lock import at_work
with at_work(Path(sys.argv[1])):
    print("at work", flush=True)
    time.sleep(1.5)
"""


@pytest.mark.fault(
    "a worker that outlives its killed run",
    "a process that still writes when the next run starts",
    "the next run waits for it; told in one line if it takes too long",
)
@pytest.mark.parametrize("patience_s", [PATIENCE_S, 0.2])
def test_a_run_waits_for_workers_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> None:
    monkeypatch.setattr(lock, "_PATIENCE_S", patience_s)
    workers = tmp_path / "workers"
    process = subprocess.Popen(
        [sys.executable, "-c", _BUSY, str(workers)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "at work\n"
    if patience_s < 1:
        with pytest.raises(lock.BadUsageError, match="still write to"):
            lock.wait_for_workers(workers)
    else:
        lock.wait_for_workers(workers)
        assert process.wait(timeout=PATIENCE_S) == 0
    process.kill()
    process.communicate()


# -- starvation -----------------------------------------------------------------------------------


@contextlib.contextmanager
def small_disk(place: Path, kibibytes: int) -> Iterator[None]:
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(place)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def can_mount(place: Path) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError, OSError), small_disk(place, 64):
        return True
    return False


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    if not can_mount(tmp_path / "trial"):
        pytest.skip("mounting is not allowed here")
    return tmp_path / "disk"


@pytest.mark.needs_root
@pytest.mark.fault(
    "the disk is full in the middle of a write",
    "OUT on a file system of 300, 700 and 1,500 KiB; then it is made larger",
    "exit 2, one line names the file and the reason, no half file; the next run goes on",
)
@pytest.mark.parametrize("kibibytes", [300, 700, 1500])
def test_a_full_disk_is_told_and_survived(
    phantom: Path, clean_out: Path, disk: Path, kibibytes: int
) -> None:
    with small_disk(disk, kibibytes):
        result = run_etl(phantom, disk / "out", "--set", "execution.readings_per_part=2")
        assert result.exit_code == 2, result.output
        (line,) = [one for one in result.stderr.splitlines() if one.startswith("egma-prep: ")]
        assert "No space left" in line and str(disk) in line
        assert not list((disk / "out").rglob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert run_etl(phantom, disk / "out").exit_code == 0
        assert_as_undisturbed(disk / "out", clean_out)


@pytest.mark.needs_root
@pytest.mark.fault(
    "the disk is full before a rendering, a repair or a phantom tree",
    "OUT on a file system of 6 MiB that another file fills; synth into 300 KiB",
    "exit 2, one line names what could not be written; with room the same command goes on",
)
def test_a_full_disk_is_told_by_the_other_commands_too(phantom: Path, disk: Path) -> None:
    with small_disk(disk, 6 * 1024):
        out = disk / "out"
        assert run_etl(phantom, out).exit_code == 0
        with contextlib.suppress(OSError), (disk / "fill").open("wb", buffering=0) as fill:
            while True:
                fill.write(bytes(1024))
        again = ("render-heatmaps", "--out", out, "--sigma", 9, *IN_THREADS[:2])
        shard = next((out / "shards").glob("*.parquet"))
        damaged = bytearray(shard.read_bytes())
        damaged[len(damaged) // 2] ^= 1
        repair = ("verify", "--out", out, "--against", phantom, "--repair")
        for command in (again, repair):
            if command is repair:
                with shard.open("rb+") as file:
                    file.write(damaged)
            result = egma_prep(*command)
            told = [one for one in result.stderr.splitlines() if one.startswith("egma-prep: ")]
            assert result.exit_code == 2 and len(told) == 1
            assert f"cannot write {out}/state/" in told[0] and "No space left" in told[0]
        (disk / "fill").unlink()
        assert egma_prep(*repair).exit_code == 0
        assert egma_prep(*again).exit_code == 0
    with small_disk(tiny := disk.with_name("tiny"), 300):
        result = egma_prep("synth", tiny / "tree", "--readings", 8, "--small")
        (line,) = [one for one in result.stderr.splitlines() if one.startswith("egma-prep: ")]
        assert result.exit_code == 2 and f"cannot write {tiny}/tree (No space left" in line


@pytest.mark.needs_root
@pytest.mark.fault(
    "OUT may not be written",
    "a file system mounted read-only, with and without a finished run on it",
    "exit 2 before any work, one line; reading commands work",
)
def test_a_read_only_folder_is_told_before_any_work(phantom: Path, disk: Path) -> None:
    with small_disk(disk, 65536):
        run_etl(phantom, disk / "out")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for out in (disk / "out", disk / "new"):
            result = run_etl(phantom, out, "--sigma", 8)
            assert result.exit_code == 2, result.output
            assert "Read-only file system" in result.stderr
            assert len(result.stderr.splitlines()) == 1
        assert egma_prep("verify", "--out", disk / "out").exit_code == 0


@pytest.mark.fault(
    "a limit on the size of files",
    "RLIMIT_FSIZE of 64 KiB for the driver and its workers",
    "exit 2, one line names the file; the next run goes on",
)
def test_a_limit_on_file_sizes_is_told_and_survived(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))

    said = finish(start(phantom, tmp_path / "out", limit=limit), 2)
    assert "cannot write" in said and "File too large" in said
    assert run_etl(phantom, tmp_path / "out").exit_code == 0
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.fault(
    "few file descriptors",
    "RLIMIT_NOFILE of 256 soft and 4096 hard, then of 128 for both",
    "the run succeeds",
)
@pytest.mark.parametrize(("soft", "hard"), [(128, 4096), (128, 128)])
def test_few_file_descriptors_suffice(
    phantom: Path, clean_out: Path, tmp_path: Path, soft: int, hard: int
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    finish(start(phantom, tmp_path / "out", limit=limit))
    assert_as_undisturbed(tmp_path / "out", clean_out)


# -- clusters -------------------------------------------------------------------------------------


def by_itself(
    home: Path, module: str, *arguments: str, env: dict[str, str] | None = None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{module}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=home,
        start_new_session=True,
        env=env,
    )


def join(home: Path, address: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    return by_itself(home, "dask_worker", address, "--nthreads", "1", "--no-dashboard", env=env)


@contextlib.contextmanager
def scheduler(tmp_path: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A real scheduler and workers of their own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    processes = [
        by_itself(tmp_path, "dask_scheduler", "--port", str(port), "--no-dashboard"),
        *(join(tmp_path, address) for _ in range(workers)),
    ]
    try:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield address, processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.fault(
    "the scheduler goes away",
    "a scheduler of its own killed after the first part",
    "exit 2, one line; the next run, without it, goes on",
)
def test_a_scheduler_that_goes_away_is_told(phantom: Path, clean_out: Path, tmp_path: Path) -> None:
    with scheduler(tmp_path, 1) as (address, processes):
        process = start(phantom, tmp_path / "out", "--scheduler", address)
        wait_for_parts(tmp_path / "out")
        os.killpg(processes[0].pid, signal.SIGKILL)
        said = finish(process, 2)
        assert "scheduler" in said and "goes on from here" in said
    assert run_etl(phantom, tmp_path / "out", "--set", "execution.scheduler=").exit_code == 0
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.fault(
    "a worker of a cluster of its own is killed",
    "one of two workers, with its nanny, killed after the first part",
    "the run goes on with the other and ends as if undisturbed",
)
def test_a_cluster_that_loses_a_worker_goes_on(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    with scheduler(tmp_path, 2) as (address, processes):
        process = start(phantom, tmp_path / "out", "--scheduler", address)
        wait_for_parts(tmp_path / "out")
        os.killpg(processes[1].pid, signal.SIGKILL)
        finish(process)
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.needs_root
@pytest.mark.fault(
    "a worker does not see DATA",
    "a worker of a cluster of its own under whose DATA, or OUT, an empty disk is mounted",
    "one line names the machine and the folder, exit 2; no reading is rejected for it",
)
@pytest.mark.parametrize("hidden", ["DATA", "OUT"])
def test_a_worker_that_does_not_see_what_the_command_sees_is_told(
    phantom: Path, clean_out: Path, tmp_path: Path, hidden: str
) -> None:
    if not can_mount(tmp_path / "trial"):
        pytest.skip("mounting is not allowed here")
    data = shutil.copytree(phantom, tmp_path / "data")
    (tmp_path / "out").mkdir()
    place = data if hidden == "DATA" else tmp_path / "out"
    inside = f"mount -t tmpfs none {place} && exec {sys.executable} -m distributed.cli.dask_worker"
    with scheduler(tmp_path, 0) as (address, processes):
        processes.append(
            subprocess.Popen(
                ["unshare", "-m", "sh", "-c", f"{inside} {address} --nthreads 1 --no-dashboard"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                start_new_session=True,
            )
        )
        said = finish(start(data, tmp_path / "out", "--scheduler", address), 2)
        assert f"does not see {place} as this command does" in said
    assert run_etl(data, tmp_path / "out", "--set", "execution.scheduler=").exit_code == 0
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.fault(
    "workers of a cluster come and go",
    "a second worker joins after the first part, then the first one is told to leave",
    "the run goes on with the late one and ends as if undisturbed",
)
def test_a_worker_that_joins_late_finishes_what_one_that_leaves_began(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    with scheduler(tmp_path, 1) as (address, processes):
        process = start(phantom, tmp_path / "out", "--scheduler", address)
        wait_for_parts(tmp_path / "out")
        processes.append(join(tmp_path, address, {"PATH": os.defpath}))
        with Client(address) as client:
            client.wait_for_workers(2, timeout=PATIENCE_S)
        processes[1].terminate()
        finish(process)
        assert processes[1].wait(PATIENCE_S) is not None
    assert_as_undisturbed(tmp_path / "out", clean_out)


@pytest.mark.fault(
    "a scheduler without workers",
    "a scheduler of its own, no worker",
    "one line says how to start one, exit 2",
)
def test_a_scheduler_without_workers_is_told(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outside_cluster, "_WORKER_SECONDS", 1)
    with scheduler(tmp_path, 0) as (address, _):
        result = egma_prep("run", phantom, "--out", tmp_path / "out", "--scheduler", address)
    assert result.exit_code == 2
    assert "has no workers; start some: dask worker" in result.stderr
