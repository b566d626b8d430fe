"""Who may read what is written, and what is never written over."""

import contextlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from conftest import egma_prep, run_etl

from egma_prep.exports import kinds
from egma_prep.run import run_etl as run_from_python
from egma_prep.synth import write_tree
from egma_prep.whole_files import appearing_whole

IN_THREADS = {"execution": {"processes": False, "readings_per_part": 8}}


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
            done("inspect", "--out", out)
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
        done("inspect", "--out", out, "--png", out.parent / "one.png")
        done("render-heatmaps", "--out", out, "--sigma", 8, "--set", "execution.processes=false")
        run_etl(phantom, out, "--sigma", 16)
        assert shared_modes(out) - {0o600} == {0o750, 0o640}
        alone = [path.name for path in out.rglob("*") if mode(path) == 0o600]
        assert set(alone) <= {"workers"}, "the group may read, not run"
        done("export", tmp_path / "x" / "png", "--to", "png", "--out", out, "--shared")
        done("synth", tmp_path / "y" / "phantom", "--readings", 2, "--small", "--shared")
        for place in ("x", "y"):
            assert shared_modes(tmp_path / place) == {0o750, 0o640}
        done("export", tmp_path / "own", "--to", "npz", "--out", out)
        assert mode(tmp_path / "own") == 0o700 and modes(tmp_path / "own") == {}
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
        done("inspect", "--out", out, "--png", tmp_path / "one.png")
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


# -- planted names --------------------------------------------------------------------------------


@pytest.mark.fault(
    "a link planted where a lock is to be",
    "`.DEST.lock` and OUT/state/lock, workers and a part's note as symbolic and as hard links",
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
