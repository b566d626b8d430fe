"""Who may read what is written, and what is never written over."""

import contextlib
import ctypes
import errno
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conftest import egma_prep, run_etl
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tables import contents, rejects

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.etl.run import run_etl as run_from_python
from egma_prep.exports import kinds
from egma_prep.shards.formats import formats, load_shard
from egma_prep.shards.tables import write_table
from egma_prep.storage.atomic import appearing_whole
from egma_prep.synth import write_tree

IN_THREADS = {"execution": {"processes": False, "readings_per_part": 8}}
THREADS = ("--set", "execution.processes=false")


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def modes(folder: Path) -> dict[str, int]:
    """List what is not 700, or 600 for a file; below `folder`."""
    found = {path.relative_to(folder).as_posix(): mode(path) for path in folder.rglob("*")}
    return {
        name: bits
        for name, bits in found.items()
        if bits != (0o700 if (folder / name).is_dir() else 0o600)
    }


def shared_modes(folder: Path) -> set[int]:
    return {mode(path) for path in folder.rglob("*")} | {mode(folder)}


def done(*arguments: object) -> str:
    result = egma_prep(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> str:
    result = egma_prep(*arguments)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line


# -- modes ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "a umask that lets everybody read",
    "umask 0 and 022 for every command; the modes of all that it left are listed",
    "700 and 600 whatever the umask; with --shared 750 and 640",
)
@pytest.mark.parametrize("mask", [0, 0o022])
@pytest.mark.usefixtures("no_cluster")
def test_whatever_a_command_writes_is_its_owners_alone(tmp_path: Path, mask: int) -> None:
    place = tmp_path / "place"
    place.mkdir(0o700)
    out = place / "far" / "out"
    with umask(mask):
        done("synth", place / "new" / "phantom", "--readings", 6, "--small")
        assert modes(place) == {}
        run_etl(place / "new" / "phantom", out)
        assert modes(place) == {}
        if mask == 0:  # the rest writes by the same doors
            done("render-heatmaps", "--out", out, "--set", "execution.processes=false")
            next((out / "shards").iterdir()).unlink()
            egma_prep("verify", "--out", out, "--repair", "--sample", 0)
            done("report", "--out", out)
            done("inspect", "--out", out, "--png", place / "figures" / "one.png")
        for kind in kinds() if mask == 0 else ["png"]:
            done("export", place / "exports" / kind, "--to", kind, "--out", out)
        assert modes(place) == {}
        assert os.umask(mask) == mask, "a command gives the umask back"


@pytest.mark.usefixtures("no_cluster")
def test_a_call_from_python_writes_for_the_owner_alone_too(phantom: Path, tmp_path: Path) -> None:
    with umask(0):
        run_from_python(phantom, tmp_path / "out", [IN_THREADS], say=lambda _: None)
    assert mode(tmp_path / "out") == 0o700 and modes(tmp_path / "out") == {}


@pytest.mark.usefixtures("no_cluster")
def test_what_is_shared_stays_shared_until_it_is_not_and_is_for_the_group_alone(
    tmp_path: Path,
) -> None:
    out = tmp_path / "far" / "out"
    write_tree(phantom := tmp_path / "phantom", 4, small=True)
    with umask(0):
        run_etl(phantom, out, "--shared")
        assert mode(out.parent) == 0o750
        done("report", "--out", out)
        done("inspect", "--out", out)
        done("render-heatmaps", "--out", out, "--sigma", 8, "--set", "execution.processes=false")
        run_etl(phantom, out, "--sigma", 16)
        assert shared_modes(out) - {0o600} == {0o750, 0o640}
        alone = [path.name for path in out.rglob("*") if mode(path) == 0o600]
        assert set(alone) <= {"workers"}, "the group may read, not run"
        done("export", tmp_path / "x" / "png", "--to", "png", "--out", out, "--shared")
        done("synth", tmp_path / "y" / "phantom", "--readings", 2, "--small", "--shared")
        for place in ("x", "y"):
            assert shared_modes(tmp_path / place) == {0o750, 0o640}
        done("export", tmp_path / "x" / "png", "--to", "png", "--out", out)  # closes it again
        assert modes(tmp_path / "x" / "png") == {}
        done("inspect", "--out", out, "--png", tmp_path / "mine.png")  # of another group, perhaps
        assert mode(tmp_path / "mine.png") == 0o600
        done("export", tmp_path / "own", "--to", "npz", "--out", out)
        assert mode(tmp_path / "own") == 0o700 and modes(tmp_path / "own") == {}
        for name in ("cache", "runs"):  # of training, which keeps them here by default
            (out / name / "inside").mkdir(parents=True)
            (out / name / "inside" / "file").write_text("")
            for path in (out / name, *(out / name).rglob("*")):
                path.chmod(0o750 if path.is_dir() else 0o640)
        said = run_etl(phantom, out, "--no-shared").output
        assert "was open to others (mode 750), now to you alone" in said
        assert mode(out) == 0o700 and all(name.endswith(".png") for name in modes(out))
        assert "was open" not in run_etl(phantom, out, "--shared").output
        assert shared_modes(out) - {0o600} == {0o750, 0o640}


@pytest.mark.usefixtures("no_cluster")
def test_a_projects_folder_hands_its_group_on(phantom: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    run_etl(phantom, tmp_path / "out", "--shared")
    assert mode(tmp_path / "out") == mode(tmp_path / "out" / "shards") == 0o2750


@pytest.mark.fault(
    "a folder that its owner had opened to a group",
    "`chmod 770` of a finished OUT, then a run with and without --shared",
    "one line says what it was and names --shared, which makes it 750",
)
def test_a_folder_that_was_open_is_closed_with_a_line(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(clean_out, tmp_path / "out")
    for path in out.rglob("*"):  # as a copy under another umask
        path.chmod(0o775 if path.is_dir() else 0o664)
    out.chmod(0o770)
    said = run_etl(phantom, out).output
    assert f"{out} was open to others (mode 770), now to you alone; --shared lets" in said
    assert mode(out) == 0o700 and modes(out) == {}
    out.chmod(0o777)
    assert "(mode 777), now to its group" in run_etl(phantom, out, "--shared").output
    assert mode(out) == 0o750
    assert "open to others" not in run_etl(phantom, out).output
    assert mode(out) == 0o750


@pytest.mark.parametrize("mask", [0, 0o077])
def test_what_a_killed_run_leaves_half_written_is_its_owners_alone(
    tmp_path: Path, mask: int
) -> None:
    with umask(mask), appearing_whole(tmp_path / "new" / "part-00000.npz") as temporary:
        np.savez(temporary.open("wb"), image=np.zeros(3))
        assert mode(temporary) == 0o600 and mode(temporary.parent) == 0o700


# -- what is not ours -----------------------------------------------------------------------------


@pytest.mark.fault(
    "--out . or an unset variable, in somebody's folder",
    "`--out .`, `--out ''`, a folder of mode 1777 with a README.md; DEST, DIR, --png likewise",
    "exit 2, one line; nothing is replaced, no mode is changed",
)
def test_nothing_that_is_not_ours_is_replaced_or_closed(
    phantom: Path, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    for name in ("README.md", "shareable.json", "figure.png"):
        (mine / name).write_text("mine")
    (mine / "link.png").symlink_to("figure.png")
    mine.chmod(0o1777)
    monkeypatch.chdir(mine)
    before = {path: (path.lstat(), path.read_bytes()) for path in mine.iterdir()}
    assert "README.md is not of egma-prep; choose another folder" in refused(
        "run", phantom, "--out", "."
    )
    run = ("--out", clean_out)
    for arguments in (
        ("run", phantom, "--out", ""),
        ("run", "", *run),
        ("export", "", "--to", "png", *run),
        ("synth", "", "--readings", 2),
        ("report", "--out", ""),
        ("inspect", "--png", "", *run),
    ):
        assert "is empty, as an unset variable is" in refused(*arguments)
    assert "not an empty folder" in refused("export", ".", "--to", "png", *run)
    assert "not an empty folder" in refused("synth", ".", "--readings", 2)
    for name in ("figure.png", "link.png"):
        assert f"{name} is not of egma-prep; move it away" in refused(
            "inspect", "--png", name, *run
        )
    assert {path: (path.lstat(), path.read_bytes()) for path in mine.iterdir()} == before
    assert stat.S_IMODE(mine.stat().st_mode) == 0o1777


def test_a_figure_of_ours_is_made_again_and_no_page_of_others(
    clean_out: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(clean_out, tmp_path / "out")
    for _ in range(2):
        done("inspect", "--out", out)
    (figure,) = out.glob("*.png")
    pixels, software = Image.open(figure), PngInfo()
    software.add_text("Software", "Matplotlib version3.9.0, https://matplotlib.org/")
    pixels.save(figure, pnginfo=software)  # as earlier versions wrote it
    done("inspect", "--out", out)
    (out / "report.html").write_text("<title>My report</title>")
    assert "report.html is not of egma-prep; move it away" in refused("report", "--out", out)
    (out / "report.html").unlink()
    (out / "report.html").symlink_to(tmp_path / "elsewhere.html")
    assert "report.html is not of egma-prep" in refused("report", "--out", out)
    assert not (tmp_path / "elsewhere.html").exists()


@pytest.mark.usefixtures("no_cluster")
def test_a_folder_of_ours_is_known_without_its_run_json(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"  # before run.json
    for name in ("tables", "images", "shards", "state/scratch"):
        (killed / name).mkdir(parents=True)
    (killed / "state" / "workers").touch()
    assert run_etl(phantom, killed).exit_code == 0
    (tmp_path / "sooner" / "state").mkdir(parents=True)
    assert run_etl(phantom, tmp_path / "sooner").exit_code == 0
    lost = shutil.copytree(clean_out, tmp_path / "lost")
    (lost / "run.json").unlink()
    (lost / ".gitignore").unlink()
    assert run_etl(phantom, lost).exit_code == 0
    kept = tmp_path / "kept"  # empty, and known to git
    kept.mkdir()
    (kept / ".gitignore").write_text("*\n!.gitignore\n")
    assert run_etl(phantom, kept).exit_code == 0
    assert (kept / ".gitignore").read_text() == "*\n!.gitignore\n"


def test_a_half_export_of_somebody_else_is_left_alone(clean_out: Path, tmp_path: Path) -> None:
    work = tmp_path / ".there.unfinished"
    work.mkdir()
    (work / "notes.txt").write_text("mine")
    line = refused("export", tmp_path / "there", "--to", "png", "--out", clean_out)
    assert f"{work} is not of an export of yours" in line
    assert (work / "notes.txt").read_text() == "mine"
    shutil.rmtree(work)
    work.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    refused("export", tmp_path / "there", "--to", "png", "--out", clean_out)
    assert not list((tmp_path / "elsewhere").iterdir())


# -- what was written before ----------------------------------------------------------------------


@pytest.fixture
def finished(phantom: Path, clean_out: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A tree and an OUT made of it, both to be changed."""
    return (
        shutil.copytree(phantom, tmp_path / "data"),
        shutil.copytree(clean_out, tmp_path / "out"),
    )


@pytest.mark.fault(
    "another dataset into a finished OUT",
    "a run of 24 readings, then of 8 others into the same folder, then with --replace",
    "exit 2, one line with both counts, nothing is changed; with --replace it is theirs",
)
@pytest.mark.usefixtures("no_cluster")
def test_another_dataset_does_not_replace_a_finished_run_unasked(
    finished: tuple[Path, Path], clean_out: Path, tmp_path: Path
) -> None:
    data, out = finished
    write_tree(tmp_path / "other", 8, small=True, seed=99)
    line = refused("run", tmp_path / "other", "--out", out, *THREADS).partition("; ")[0]
    assert f"{out} holds 22 readings, of which {tmp_path / 'other'} has 0" in line
    assert "--replace" in line and contents(out) == contents(clean_out)
    assert run_etl(tmp_path / "other", out, "--replace", "--sigma", 8).exit_code == 0
    assert egma_prep("verify", "--out", out, "--sample", 0).exit_code == 0
    assert len(open_shards(out)) < 9
    assert run_etl(data, out, "--replace").exit_code == 0
    assert contents(out) == contents(clean_out), "the other dataset's sigma is gone with it"


@pytest.mark.fault(
    "a share that is half mounted",
    "most patients' folders gone, or only their images, or only the readings' files; `run` again",
    "exit 2, one line with both counts, nothing is changed",
)
@pytest.mark.parametrize("gone", ["patients", "images", "files of readings"])
@pytest.mark.usefixtures("no_cluster")
def test_half_of_the_data_does_not_replace_the_whole_unasked(
    finished: tuple[Path, Path], clean_out: Path, gone: str
) -> None:
    data, out = finished
    pattern = {"patients": ".", "images": "CXR-JPG/s*"}.get(gone, "REFLACX/main_data/P*")
    for patient in sorted(data.glob("patient_*"))[3:]:
        for folder in patient.glob(pattern) if pattern != "." else [patient]:
            shutil.rmtree(folder)
    line = refused("run", data, "--out", out)
    assert re.search(rf"holds 22 readings, of which {data} has [2-9]:", line)
    assert contents(out) == contents(clean_out)


@pytest.mark.usefixtures("no_cluster")
def test_the_same_data_elsewhere_and_more_data_are_taken_without_a_word(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    few, out = tmp_path / "few", tmp_path / "out"
    for patient in sorted(phantom.glob("patient_*"))[:4]:
        shutil.copytree(patient, few / patient.name)
    assert run_etl(few, out).exit_code == 0
    assert run_etl(phantom, out).exit_code == 0  # grown, and elsewhere
    assert contents(out) == contents(clean_out)
    moved = shutil.copytree(phantom, tmp_path / "moved")
    jpegs = sorted(moved.glob("patient_*/CXR-JPG/s*/*.jpg"))
    for path in jpegs:  # other names than those recorded
        path.rename(path.with_suffix(".jpeg"))
    assert len(jpegs) >= 17
    next(iter(moved.glob("patient_*/REFLACX/main_data/P*/fixations.csv"))).unlink()  # one is lost
    said = run_etl(moved, out, "--set", "image.fit=stretch")
    assert said.exit_code == 0, said.output
    assert len(open_shards(out)) == 21


# -- planted names --------------------------------------------------------------------------------


@pytest.mark.fault(
    "a link planted where a lock is to be",
    "`.DEST.lock`, OUT/state/lock and OUT/state/workers as symbolic, hard and dangling links",
    "exit 2, one line; what the link leads to is as before",
)
@pytest.mark.parametrize("kind", ["symbolic", "hard", "dangling"])
def test_no_planted_link_is_followed(
    phantom: Path, clean_out: Path, tmp_path: Path, kind: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    out = shutil.copytree(clean_out, tmp_path / "out")

    def plant(path: Path) -> None:
        path.unlink(missing_ok=True)
        if kind == "hard":
            path.hardlink_to(victim)
        else:
            path.symlink_to(victim if kind == "symbolic" else tmp_path / "nothing")

    plant(tmp_path / ".there.lock")
    line = refused("export", tmp_path / "there", "--to", "png", "--out", out)
    assert ".there.lock is a link or no ordinary file" in line
    for name in ("lock", "workers"):
        plant(out / "state" / name)
        assert f"{name} is a link" in refused("run", phantom, "--out", out)
        (out / "state" / name).unlink()
    assert victim.read_text() == "mine" and not (tmp_path / "nothing").exists()


# -- ids that lead elsewhere ----------------------------------------------------------------------


def with_id(table: pa.Table, name: str, value: str) -> pa.Table:
    at = table.schema.get_field_index(name)
    values = [value, *table.column(name).to_pylist()[1:]]
    return table.set_column(at, table.schema.field(name), pa.array(values))


LEADS_ELSEWHERE = pytest.mark.fault(
    "an id in a shard that leads elsewhere",
    "a shard, Parquet and NPZ, whose first id is `../../x`, absolute, `..`, blank or 200 letters",
    "exit 2, one line for every command that reads it; no file outside DEST and OUT",
)


@LEADS_ELSEWHERE
@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_an_id_that_leads_elsewhere_is_refused(
    clean_out: Path, tmp_path: Path, suffix: str
) -> None:
    stored = load_shard(next((clean_out / "shards").iterdir()))
    shard = tmp_path / f"part-00000.{suffix}"
    for name, value in (
        ("reading_id", "../../x"),
        ("dataset", f"{tmp_path}/x"),
        ("reading_id", ".."),
        ("reading_id", ""),
        ("reading_id", "a" * 200),
        ("dataset", "a\nb"),
    ):
        formats()[suffix].save(with_id(stored, name, value), shard)
        with pytest.raises(BadUsageError, match=f"has the {name} .*, and no shard of") as caught:
            list(open_shards(shard))
        assert "\n" not in str(caught.value)


@LEADS_ELSEWHERE
@pytest.mark.parametrize("command", ["export", "inspect", "report"])
def test_no_command_writes_where_an_id_leads(clean_out: Path, tmp_path: Path, command: str) -> None:
    out = shutil.copytree(clean_out, tmp_path / "a" / "b" / "out")
    shard = sorted((out / "shards").iterdir())[0]
    write_table(shard, with_id(load_shard(shard), "reading_id", "../../../planted"))
    before = sorted(tmp_path.glob("*"))
    more = {"export": (tmp_path / "a" / "b" / "c", "--to", "png"), "inspect": ("../../../planted",)}
    result = egma_prep(command, *more.get(command, ()), "--out", out)
    assert result.exit_code == 2 and "and no shard of egma-prep has such a one" in result.output
    assert sorted(tmp_path.glob("*")) == before and "Traceback" not in result.output


# -- what may not be read -------------------------------------------------------------------------


@contextlib.contextmanager
def as_anyone() -> Iterator[None]:
    """Take from root, for a while and in this thread alone, the right to what the mode forbids."""
    if os.geteuid():
        yield
        return
    capabilities = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    kept = (ctypes.c_uint32 * 6)()
    assert capabilities.capget(header, kept) == 0
    without = (ctypes.c_uint32 * 6)(*kept)
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert capabilities.capset(header, without) == 0
    try:
        yield
    finally:
        assert capabilities.capset(header, kept) == 0


@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything")
@pytest.mark.fault(
    "a patient's folder that may not be read",
    "`chmod 0` of a patient's folder, and in others' of REFLACX, of EyeGaze, of a reading's folder",
    "listed as unreadable_file, the others written; written once it may be read; `scan` counts it",
)
@pytest.mark.usefixtures("no_cluster")
def test_a_folder_that_may_not_be_read_costs_its_patient_alone(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    data, out = shutil.copytree(phantom, tmp_path / "data"), tmp_path / "out"
    first, *others = sorted(data.glob("patient_*"))
    sheet, other = [one for one in others if (one / "EyeGaze").exists()][:2]
    tables, readings = [
        one for one in others if (one / "REFLACX").exists() and one not in (sheet, other)
    ][:2]
    closed = [
        first,
        sheet / "EyeGaze",
        tables / "REFLACX",
        next((readings / "REFLACX" / "main_data").glob("P*")),
    ]
    for folder in closed:
        folder.chmod(0)
    try:
        with as_anyone():
            said = run_etl(data, out, "--max-reject-share", 1)
            scanned = done("scan", data)
    finally:
        for folder in closed:
            folder.chmod(0o700)
    assert said.exit_code == 0 and "Permission denied" in said.output
    found = {row["path"] for row in rejects(out) if row["reason"] == "unreadable_file"}
    names = {folder.relative_to(data).as_posix() for folder in closed}
    assert len(found) == 4 and all(any(one.startswith(name) for one in found) for name in names)
    assert " 4 unreadable_file" in scanned
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert counts["planned"] == counts["written"] + counts["rejected"] and counts["written"] > 10
    assert run_etl(data, out).exit_code == 0
    assert contents(out) == contents(clean_out)


@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything")
@pytest.mark.fault(
    "a file of ours that may not be read",
    "`chmod 0` of run.json, of a table, of a shard; every command that reads them",
    "exit 2, one line says so, and nothing of damage or of deleting",
)
@pytest.mark.parametrize("name", ["run.json", "tables/readings.parquet", "shards"])
def test_a_file_that_may_not_be_read_is_not_called_damaged(
    phantom: Path, clean_out: Path, tmp_path: Path, name: str
) -> None:
    out = shutil.copytree(clean_out, tmp_path / "out")
    path = sorted((out / name).iterdir())[0] if name == "shards" else out / name
    path.chmod(0)
    with as_anyone():
        lines = [refused("inspect", "P300R000001", "--out", out)]
        if name == "run.json":
            lines += [refused("run", phantom, "--out", out), refused("verify", "--out", out)]
    for line in lines:
        assert f"{path} cannot be read (" in line and "check its permissions" in line
        assert "damaged" not in line and "delete" not in line


# -- file systems that keep less ------------------------------------------------------------------


@pytest.fixture
def exfat(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the system answer as one that mounts exFAT or NTFS through FUSE: all is 777 for ever.

    Such a driver is not at hand where tests run; everything above the system calls is ours.
    """
    make, open_file, mask = os.mkdir, os.open, os.umask
    before = mask(0)
    monkeypatch.setattr(os, "mkdir", lambda path, mode=0, **named: make(path, 0o777, **named))
    monkeypatch.setattr(
        os, "open", lambda path, flags, mode=0, **named: open_file(path, flags, 0o777, **named)
    )
    monkeypatch.setattr(os, "chmod", answer(None))
    monkeypatch.setattr(os, "umask", lambda _: 0)
    yield
    mask(before)


def answer(error: int | None) -> Callable[..., None]:
    def answered(*_: object, **__: object) -> None:
        if error is not None:
            raise OSError(error, os.strerror(error))

    return answered


@pytest.mark.fault(
    "a file system without permissions",
    "system calls that answer as exFAT through FUSE does: 777 whatever is asked; a run, an export",
    "one line says so and what to do; the run goes on",
)
@pytest.mark.usefixtures("exfat", "no_cluster")
def test_a_file_system_without_modes_is_told(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run = run_etl(phantom, out)
    assert run.exit_code == 0
    (line,) = [one for one in run.output.splitlines() if "permissions" in one]
    assert f"{out}/state keeps no permissions (the mode stays 777)" in line
    assert "choose a folder on another one, or have it mounted with umask=077" in line
    assert "keeps no permissions" in done("export", tmp_path / "x", "--to", "npz", "--out", out)
    assert contents(out) == contents(clean_out)


@pytest.mark.fault(
    "a file system that refuses chmod or fsync",
    "EPERM, EINVAL and ENOTSUP from `os.chmod` and `os.fsync`; then EIO",
    "the run goes on, for fsync with a line; a disk that fails still ends it",
)
@pytest.mark.parametrize("refusal", [errno.EPERM, errno.EINVAL, errno.ENOTSUP])
@pytest.mark.usefixtures("no_cluster")
def test_refused_chmod_and_fsync_end_no_run(
    phantom: Path, tmp_path: Path, refusal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = tmp_path / "data"
    first = next(iter(sorted(phantom.glob("patient_*"))))
    shutil.copytree(first, tree / first.name)
    (tmp_path / "out").mkdir(0o755)
    monkeypatch.setattr(os, "chmod", answer(refusal))
    monkeypatch.setattr(os, "fsync", answer(refusal))
    run = run_etl(tree, tmp_path / "out")
    assert run.exit_code == 0, run.output
    assert f"(fsync: {os.strerror(refusal)}); after a power cut look by: egma-prep verify" in (
        run.output
    )
    assert "is not yours to close (its mode stays 755)" in run.output
    monkeypatch.setattr(os, "fsync", answer(errno.EIO))
    assert "Input/output error" in refused("run", tree, "--out", tmp_path / "new")


@pytest.mark.needs_root
def test_a_link_of_another_user_in_a_folder_that_looks_like_ours_is_refused(
    phantom: Path, tmp_path: Path
) -> None:
    if os.geteuid():
        pytest.skip("only root can give a link away")
    (victim := tmp_path / "victim").mkdir()
    (victim / "part-00000.parquet").write_text("mine")
    out = tmp_path / "out"
    (out / "state").mkdir(parents=True)
    (out / "state" / "workers").touch()
    (out / "images").symlink_to(victim)
    os.lchown(out / "images", 65534, 65534)
    assert "images is a link of another user" in refused("run", phantom, "--out", out)
    assert [path.read_text() for path in victim.iterdir()] == ["mine"]


# -- git ------------------------------------------------------------------------------------------


@pytest.mark.fault(
    "folders of readings made in a checkout",
    "a run, exports and phantoms in a git repository, then `git add --all`",
    "git sees none of them",
)
@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_git_sees_no_readings(clean_out: Path, tmp_path: Path) -> None:
    shutil.copytree(clean_out, tmp_path / "out")
    done("export", tmp_path / "png", "--to", "png", "--out", clean_out)
    done("synth", tmp_path / "phantom", "--readings", 2, "--small")
    for layout in ("reflacx", "eye_gaze"):
        write_tree(tmp_path / layout, 8, small=True, layout=layout)
    (tmp_path / "code.py").touch()
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    subprocess.run(["git", "-C", tmp_path, "add", "--all"], check=True)
    listed = subprocess.run(
        ["git", "-C", tmp_path, "ls-files"], check=True, capture_output=True, text=True
    )
    assert listed.stdout.split() == ["code.py"]
