"""A finished folder keeps its readings, whatever has become of DATA or of its own files."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import egma_prep, run_etl
from tables import contents

from egma_prep.synth import write_tree

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def data(phantom: Path, tmp_path: Path) -> Path:
    """A tree to be changed."""
    return shutil.copytree(phantom, tmp_path / "data")


@pytest.fixture
def out(clean_out: Path, tmp_path: Path) -> Path:
    """What was made of it, to be changed."""
    return shutil.copytree(clean_out, tmp_path / "out")


def files_of(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "workers"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def modes_of(folder: Path) -> dict[str, int]:
    return {path.as_posix(): path.stat().st_mode for path in (folder, *folder.rglob("*"))}


@contextmanager
def nothing_changes(out: Path) -> Iterator[None]:
    files, modes = files_of(out), modes_of(out)
    yield
    assert files_of(out) == files
    assert {name: mode for name, mode in modes_of(out).items() if name in modes} == modes


def refused(*arguments: object) -> str:
    result = egma_prep(*arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.splitlines()) == 1, result.stderr
    return result.stderr


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def images(data: Path) -> list[Path]:
    return sorted(data.rglob("*.jpg"))


def empty_images(data: Path) -> None:
    for path in images(data):
        path.write_bytes(b"")


def list_others(data: Path, pattern: str = "*.jpg") -> None:
    digest = hashlib.sha256(b"another").hexdigest()
    paths = sorted(data.rglob(pattern))
    lines = [f"{digest}  {path.relative_to(data).as_posix()}\n" for path in paths]
    (data / "SHA256SUMS.txt").write_text("".join(lines))


def reverse_times(data: Path) -> None:
    for path in data.rglob("fixations.csv"):
        head, *rows = path.read_text().splitlines()
        path.write_text("\n".join([head, *reversed(rows), ""]))


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "images without a byte": (empty_images, "empty_file, such as: patient_"),
    "a list with other checksums of images": (list_others, "not_as_published, such as: patient_"),
    "a list with other checksums of tables": (
        lambda data: list_others(data, "*.csv"),
        "not_as_published, such as: patient_",
    ),
    "fixations in reverse": (reverse_times, "reversed_time, such as: patient_"),
}


@pytest.mark.fault(
    "content that has become unusable",
    "all images emptied; a SHA256SUMS.txt with other digests of them, of tables; all rows of gaze"
    " reversed;"
    " `run` again into the finished folder",
    "exit 2, one line with both counts, the reason, a file and how to mend; nothing is changed",
)
@pytest.mark.parametrize("kind", SPOILT)
def test_readings_whose_content_became_unusable_replace_none_unasked(
    data: Path, out: Path, kind: str
) -> None:
    spoil, said = SPOILT[kind]
    spoil(data)
    with nothing_changes(out):
        line = refused("run", data, "--out", out)
    assert f"{out} holds 22 readings, of which {data} has " in line
    assert said in line and "--replace would let" in line


def test_one_spoilt_image_of_many_is_a_reject_as_ever(data: Path, out: Path) -> None:
    images(data)[0].write_bytes(b"")
    said = run_etl(data, out, "--max-reject-share", 1)
    assert said.exit_code == 0 and "empty_file" in said.output
    assert 20 <= json.loads((out / "run.json").read_text())["counts"]["written"] < 22


@pytest.mark.fault(
    "a repair from a share that is half mounted",
    "a bit of a part's table or record flipped, all images gone; `verify --repair`, then `run`",
    "exit 2, one line with both counts; nothing is deleted; once mounted, the repair restores all",
)
@pytest.mark.parametrize("name", ["words.parquet", "record.json"])
def test_no_repair_deletes_what_it_cannot_make_again(
    phantom: Path, data: Path, out: Path, clean_out: Path, name: str
) -> None:
    flip(out / "state" / "part-00000" / name)
    for path in images(data):
        path.unlink()
    with nothing_changes(out):
        result = egma_prep("verify", "--out", out, "--repair", "--against", data, "--sample", 0)
        assert result.exit_code == 2, result.output
        assert "missing_file, such as: " in result.stderr
        assert f"{out} holds 22 readings, of which {data} has 0" in result.stderr
        assert "of which" in refused("run", data, "--out", out)
    mended = egma_prep("verify", "--out", out, "--repair", "--against", phantom, "--sample", 0)
    assert mended.exit_code == 0, mended.output
    assert contents(out) == contents(clean_out)


@pytest.mark.fault(
    "another dataset into an OUT whose table of readings is damaged",
    "a bit of it flipped, or it and every part's share of it; `run` of another dataset",
    "exit 2, one line with the count that was written; nothing is changed",
)
@pytest.mark.parametrize("also", ["nothing else", "the parts' tables", "the shards, too"])
def test_a_damaged_table_is_no_proof_that_nothing_was_written(
    out: Path, tmp_path: Path, also: str
) -> None:
    write_tree(tmp_path / "other", 8, small=True, seed=99)
    flip(out / "tables" / "readings.parquet")
    if also != "nothing else":
        for path in out.glob("state/part-*/readings.parquet"):
            flip(path)
    if also == "the shards, too":
        shutil.rmtree(out / "shards")
    with nothing_changes(out):
        line = refused("run", tmp_path / "other", "--out", out)
    assert f"{out} holds 22 readings, of which {tmp_path / 'other'} has " in line


@pytest.mark.skipif(sys.platform != "linux" and os.geteuid() == 0, reason="root reads everything")
def test_folders_that_may_not_be_read_are_named_as_the_reason(data: Path, out: Path) -> None:
    from test_safe_folders import as_anyone

    patients = sorted(data.glob("patient_*"))
    for patient in patients:
        patient.chmod(0)
    try:
        with as_anyone(), nothing_changes(out):
            line = refused("run", data, "--out", out)
    finally:
        for patient in patients:
            patient.chmod(0o700)
    assert "unreadable_file, such as: patient_" in line and "Permission denied" in line
    assert "another dataset" not in line


# -- a run that is refused, DATA that was moved, an OUT of another user ---------------------------


@pytest.mark.fault(
    "a run that is refused, into a folder of another mode",
    "an OUT of mode 700 with --shared, one of 750 with --no-shared; `run` of another dataset",
    "exit 2, one line; no mode and no file is changed",
)
@pytest.mark.parametrize(("mode", "flag"), [(0o700, "--shared"), (0o750, "--no-shared")])
def test_a_refused_run_changes_no_mode(out: Path, tmp_path: Path, mode: int, flag: str) -> None:
    write_tree(tmp_path / "other", 8, small=True, seed=99)
    out.chmod(mode)
    with nothing_changes(out):
        assert "another dataset" in refused("run", tmp_path / "other", "--out", out, flag)


@pytest.mark.fault(
    "DATA is moved, or copied, after a run",
    "its folder renamed; `run` from there, twice; `verify --repair` before and after",
    "run.json has the new place and says so once; before that the repair names --against",
)
def test_moved_data_are_known_by_their_new_place(
    data: Path, out: Path, clean_out: Path, tmp_path: Path
) -> None:
    assert run_etl(data, out).exit_code == 0
    moved = data.rename(tmp_path / "moved")
    flip(out / "state" / "part-00000" / "words.parquet")
    line = egma_prep("verify", "--out", out, "--repair", "--sample", 0).stderr
    assert f"{data} is not there any more" in line and "--against" in line
    mended = egma_prep("verify", "--out", out, "--repair", "--sample", 0, "--against", moved)
    assert mended.exit_code == 0, mended.output
    again = moved.rename(tmp_path / "again")
    said = run_etl(again, out)
    assert said.exit_code == 0 and f"a run of {moved}; bringing it to {again}" in said.output
    assert json.loads((out / "run.json").read_text())["data"] == str(again)
    assert "bringing it" not in run_etl(again, out).output
    flip(out / "state" / "part-00000" / "words.parquet")
    mended = egma_prep("verify", "--out", out, "--repair", "--sample", 0)
    assert mended.exit_code == 0, mended.output
    assert contents(out) == contents(clean_out)


@pytest.mark.needs_root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs another user")
def test_a_folder_of_another_user_is_told_to_be_for_reading_only(data: Path, out: Path) -> None:
    from test_safe_folders import as_anyone

    for path in (out, *out.rglob("*")):
        os.chown(path, 12345, 12345)
        path.chmod(0o755 if path.is_dir() else 0o644)
    for command in (["render-heatmaps", "--sigma", 8], ["verify", "--repair"], ["run", data]):
        with as_anyone(), nothing_changes(out):
            result = egma_prep(*command, "--out", out)
        assert result.exit_code == 2, result.output
        assert "it is another user's, for you to read only" in result.stderr
        assert "Errno" not in result.stderr and "--out OWN" in result.stderr
