"""The same inputs and options give the same output, wherever and however often they run."""

import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import IN_THREADS, PATIENCE_S, egma_prep, run_etl
from distributed import LocalCluster
from tables import TABLES, contents, parts, rejects

from egma_prep.shards.tables import write_table

PARTS_OF_8 = ("--set", "execution.readings_per_part=8")


def in_a_process_of_its_own(
    arguments: list[object], env: dict[str, str], before: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does; `before` is Python to run first."""
    code = f"{before}\nfrom egma_prep.cli import main\nmain()"
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        env={**os.environ, **env},
    )


def assert_same(out: Path, reference: Path) -> None:
    """Compare everything that a reader can see, row order and file names included."""
    assert contents(out) == contents(reference)
    paths = {path.relative_to(reference) for path in reference.rglob("*.parquet")}
    assert {path.relative_to(out) for path in out.rglob("*.parquet")} == paths
    for path in paths:
        ours, theirs = pq.read_table(out / path), pq.read_table(reference / path)
        assert ours.equals(theirs, check_metadata=True), path
    ours, theirs = (json.loads((one / "run.json").read_text()) for one in (out, reference))
    for name in ("counts", "options", "n_parts", "schema_version"):
        assert ours[name] == theirs[name]


def state_of(root: Path) -> dict[str, tuple[int, int, str]]:
    """Size, modification time and digest of every file."""
    return {
        str(path.relative_to(root)): (
            path.stat().st_size,
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def rewritten(root: Path, before: dict[str, tuple[int, int, str]]) -> set[str]:
    """Name the parts whose shard, images or share of the tables are not the same files."""
    after = state_of(root)
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    return {
        piece.removesuffix(".parquet")
        for name in changed
        for piece in Path(name).parts
        if piece.startswith("part-")
    }


# -- other machines -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_write_the_same(
    phantom: Path, clean_out: Path, tmp_path: Path, workers: int
) -> None:
    arguments = ["run", phantom, "--out", tmp_path / "out", "--workers", workers, *PARTS_OF_8]
    done = in_a_process_of_its_own(arguments, {"PYTHONHASHSEED": str(workers)})
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", clean_out)


def test_one_thread_writes_the_same(phantom: Path, clean_out: Path, tmp_path: Path) -> None:
    assert run_etl(phantom, tmp_path / "out", "--workers", 1).exit_code == 0
    assert_same(tmp_path / "out", clean_out)


@pytest.fixture(scope="module")
def turkish(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A locale with a decimal comma, and where the lower case of I is not i."""
    place = tmp_path_factory.mktemp("locale")
    build = ["localedef", "--no-archive", "-i", "tr_TR", "-f", "UTF-8", place / "tr_TR.UTF-8"]
    if shutil.which("localedef") is None or subprocess.run(build, capture_output=True).returncode:
        pytest.skip("no sources here to build a Turkish locale from")
    return {"LOCPATH": str(place), "LC_ALL": "tr_TR.UTF-8"}


def test_a_turkish_locale_far_east_writes_the_same(
    phantom: Path, clean_out: Path, tmp_path: Path, turkish: dict[str, str]
) -> None:
    check = (
        "import locale, time\n"
        "locale.setlocale(locale.LC_ALL, '')\n"
        "assert locale.localeconv()['decimal_point'] == ',' and time.timezone == -14 * 3600"
    )
    env = {**turkish, "TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "3"}
    arguments = ["run", phantom, "--out", tmp_path / "out", *IN_THREADS]
    done = in_a_process_of_its_own(arguments, env, check)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", clean_out)


def test_an_ascii_locale_far_west_writes_the_same(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    check = (
        "import locale\nassert locale.getpreferredencoding(False) in ('ANSI_X3.4-1968', 'ASCII')"
    )
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "America/St_Johns"}
    arguments = ["run", phantom, "--out", tmp_path / "out", *IN_THREADS]
    done = in_a_process_of_its_own(arguments, env | {"PYTHONHASHSEED": "4"}, check)
    assert done.returncode == 0, done.stderr
    assert_same(tmp_path / "out", clean_out)


class Shuffled:
    """What ``os.scandir`` returns, in another order."""

    def __init__(self, entries: Iterator[Any], draw: random.Random) -> None:
        self.entries = list(entries)
        draw.shuffle(self.entries)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.entries)

    def __next__(self) -> Any:
        if not self.entries:
            raise StopIteration
        return self.entries.pop(0)

    def __enter__(self) -> "Shuffled":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.entries = []


@pytest.mark.parametrize("seed", [0, 1])
def test_any_order_of_files_in_folders_writes_the_same(
    phantom: Path, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    draw, shuffled = random.Random(seed), []
    scandir, listdir = os.scandir, os.listdir

    def scan(path: Any = ".") -> Shuffled:
        shuffled.append(str(path))
        return Shuffled(scandir(path), draw)

    def names(path: Any = ".") -> list[Any]:
        found = listdir(path)
        draw.shuffle(found)
        return found

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(os, "listdir", names)
    assert run_etl(phantom, tmp_path / "out").exit_code == 0
    monkeypatch.undo()
    assert any(str(phantom) in path for path in shuffled)
    assert_same(tmp_path / "out", clean_out)


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    """Address of a cluster that somebody else started, elsewhere."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=2,
        processes=True,
        dashboard_address="127.0.0.1:0",
        scheduler_port=0,
    ) as cluster:
        yield cluster.scheduler_address


def test_an_existing_cluster_with_another_working_directory_writes_the_same(
    scheduler: str,
    phantom: Path,
    clean_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    data = os.path.relpath(phantom)
    result = egma_prep("run", data, "--out", "out", "--scheduler", scheduler, *PARTS_OF_8)
    assert result.exit_code == 0, result.output
    assert_same(tmp_path / "out", clean_out)


def test_an_existing_cluster_renders_again_the_same(
    scheduler: str,
    phantom: Path,
    clean_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(clean_out, "here")
    shutil.copytree(clean_out, "there")
    sigma = ("--sigma", "8")
    there = egma_prep("render-heatmaps", "--out", "there", "--scheduler", scheduler, *sigma)
    assert there.exit_code == 0, there.output
    here = egma_prep("render-heatmaps", "--out", "here", *IN_THREADS[:2], *sigma)
    assert here.exit_code == 0, here.output
    assert_same(tmp_path / "there", tmp_path / "here")


# -- again ----------------------------------------------------------------------------------------


@pytest.fixture
def own(phantom: Path, clean_out: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A tree and its output, for a test to change."""
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)  # keeps the modification times
    shutil.copytree(clean_out, out)
    assert "nothing to do" in egma_prep("run", data, "--out", out).stdout  # the tree's new place
    return data, out


@pytest.mark.parametrize(
    "more",
    ["", "--sigma 16", "--sigma 16.0", "--config mimic-eye", "--workers 1", "--window spoken"],
)
def test_a_second_run_says_so_and_changes_no_file(own: tuple[Path, Path], more: str) -> None:
    data, out = own
    before = state_of(out)
    result = egma_prep("run", data, "--out", out, *more.split())
    assert result.exit_code == 0
    assert "nothing to do" in result.stdout
    assert state_of(out) == before


def test_a_second_run_in_a_process_of_its_own_stops_within_seconds(
    own: tuple[Path, Path],
) -> None:
    data, out = own
    before = state_of(out)
    done = in_a_process_of_its_own(["run", data, "--out", out], {})
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert state_of(out) == before


def test_another_time_stamp_on_every_input_redoes_nothing(own: tuple[Path, Path]) -> None:
    data, out = own
    before = state_of(out)
    for path in data.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
    result = run_etl(data, out)
    assert "nothing to do" in result.stdout
    assert state_of(out) == before


def test_one_more_patient_changes_one_part_only(
    phantom: Path, clean_out: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    readings = [one for one in truth["readings"] if not one["reject"]]
    part = {row["reading_id"]: row["part"] for row in pq.read_table(
        clean_out / "tables" / "readings.parquet"
    ).to_pylist()}  # fmt: skip
    late = f"patient_{readings[0]['subject_id']}"
    shutil.copytree(phantom, data, ignore=shutil.ignore_patterns(late))
    assert run_etl(data, out).exit_code == 0
    before = state_of(out)
    shutil.copytree(phantom / late, data / late)
    result = run_etl(data, out)
    assert result.exit_code == 0, result.output
    assert rewritten(out, before) == {f"part-{part[readings[0]['reading_id']]:05d}"}
    assert contents(out) == contents(clean_out)


def victim_of(truth: dict[str, Any], clean_out: Path) -> tuple[dict[str, Any], str]:
    reading = next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )
    rows = pq.read_table(clean_out / "tables" / "readings.parquet").to_pylist()
    part = next(row["part"] for row in rows if row["reading_id"] == reading["reading_id"])
    return reading, f"part-{part:05d}"


@pytest.mark.parametrize("what", ["fixations", "metadata", "image"])
def test_a_changed_input_redoes_its_part_only(
    own: tuple[Path, Path], clean_out: Path, truth: dict[str, Any], what: str
) -> None:
    data, out = own
    reading, part = victim_of(truth, clean_out)
    patient = data / f"patient_{reading['subject_id']}"
    if what == "image":
        other = next(one for one in truth["readings"] if one["dicom_id"] != reading["dicom_id"])
        shutil.copyfile(data / other["image"], data / reading["image"])
    elif what == "metadata":
        path = patient / "REFLACX" / "metadata.csv"
        path.write_bytes(path.read_bytes().replace(b",train,", b",test,"))
    else:
        path = patient / "REFLACX" / "main_data" / reading["reading_id"] / "fixations.csv"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: len(lines) // 2]))
    before = state_of(out)
    result = run_etl(data, out)
    assert result.exit_code == 0, result.output
    assert rewritten(out, before) == {part}
    ours, theirs = contents(out), contents(clean_out)
    changed = {one for one, row in theirs["shards"].items() if ours["shards"].get(one) != row}
    assert (reading["dataset"], reading["reading_id"]) in changed
    assert {theirs["shards"][one]["subject_id"] for one in changed} == {reading["subject_id"]}


def test_changed_content_of_the_same_size_is_noticed_by_its_time_stamp(
    own: tuple[Path, Path], clean_out: Path, truth: dict[str, Any]
) -> None:
    data, out = own
    reading, part = victim_of(truth, clean_out)
    folder = data / f"patient_{reading['subject_id']}" / "REFLACX" / "main_data"
    path = folder / reading["reading_id"] / "timestamps_transcription.csv"
    content = path.read_bytes()
    word = next(token["text"] for token in reading["tokens"] if len(token["text"]) > 3).encode()
    path.write_bytes(content.replace(word, b"x" * len(word)))
    assert path.stat().st_size == len(content)
    before = state_of(out)
    assert run_etl(data, out).exit_code == 0
    assert rewritten(out, before) == {part}


@pytest.mark.parametrize("folder", ["shards", "images", "state"])
@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_damaged_output_is_made_again(
    own: tuple[Path, Path], clean_out: Path, folder: str, how: str
) -> None:
    data, out = own
    files = sorted((out / folder).rglob("part-*.parquet" if folder != "state" else "record.json"))
    if how == "removed":
        files[0].unlink()
    else:
        files[0].write_bytes(files[0].read_bytes()[:99])
    result = run_etl(data, out)
    assert result.exit_code == 0, result.output
    assert "1 of 3 parts" in result.stdout
    assert_same(out, clean_out)


@pytest.mark.parametrize(
    "name", [*(f"tables/{name}.parquet" for name in TABLES), "rejects.parquet"]
)
def test_a_removed_table_is_joined_again(
    own: tuple[Path, Path], clean_out: Path, name: str
) -> None:
    data, out = own
    (out / name).unlink()
    shards = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert run_etl(data, out).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == shards
    assert_same(out, clean_out)


# -- files ----------------------------------------------------------------------------------------


def stored(clean_out: Path) -> list[Path]:
    return [*sorted((clean_out / "shards").iterdir()), *sorted((clean_out / "images").iterdir())]


def test_every_shard_and_image_file_is_zstd_in_small_row_groups_without_dictionaries(
    clean_out: Path,
) -> None:
    assert stored(clean_out)
    for path in stored(clean_out):
        metadata = pq.ParquetFile(path).metadata
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            assert group.num_rows <= 64
            for index in range(group.num_columns):
                column = group.column(index)
                assert column.compression == "ZSTD"
                if column.physical_type == "BYTE_ARRAY":
                    assert not column.has_dictionary_page, column.path_in_schema
                    assert not {"PLAIN_DICTIONARY", "RLE_DICTIONARY"} & set(column.encodings)


def test_a_part_of_many_readings_has_row_groups_of_64(tmp_path: Path) -> None:
    many = pa.table({"image": [b"\0" * 50] * 130})
    write_table(tmp_path / "part.parquet", many)
    metadata = pq.ParquetFile(tmp_path / "part.parquet").metadata
    groups = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert groups == [64, 64, 2]


def test_a_shard_says_how_it_was_made(clean_out: Path) -> None:
    said = {
        name.decode(): value.decode()
        for path in (clean_out / "shards").iterdir()
        for name, value in pq.read_schema(path).metadata.items()
    }
    names = {"schema_version", "image_size", "sigma", "truncation", "normalisation", "window"}
    assert {f"egma.{name}" for name in names | {"fit"}} <= set(said)
    numbers = {name: float(said[f"egma.{name}"]) for name in ("image_size", "sigma", "truncation")}
    assert numbers == {"image_size": 224, "sigma": 16, "truncation": 3}
    assert (said["egma.window"], said["egma.fit"]) == ("spoken", "pad")
    version = json.loads((clean_out / "run.json").read_text())["schema_version"]
    assert said["egma.schema_version"] == version


def test_an_image_file_names_the_schema_and_the_frame(clean_out: Path) -> None:
    for path in (clean_out / "images").iterdir():
        said = pq.read_schema(path).metadata
        assert {b"egma.schema_version", b"egma.image_size", b"egma.fit"} <= set(said)


def test_each_image_is_stored_once_and_is_that_of_its_readings(clean_out: Path) -> None:
    images = parts(clean_out / "images")
    stored_once = {row["dicom_id"]: row for row in images}
    assert len(stored_once) == len(images)
    shown = parts(clean_out / "shards")
    assert {row["dicom_id"] for row in shown} == set(stored_once)
    assert len(shown) > len(images)  # some have several readings
    for row in shown:
        image = stored_once[row["dicom_id"]]
        assert [row[name] for name in image] == list(image.values())


def test_the_output_folder_is_its_owners_alone(clean_out: Path) -> None:
    assert stat.S_IMODE(clean_out.stat().st_mode) == 0o700


def test_an_empty_folder_that_was_open_to_all_becomes_its_owners_alone(
    phantom: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    one = next(path for path in sorted(phantom.glob("patient_*")))
    shutil.copytree(one, data / one.name)
    (tmp_path / "out").mkdir(mode=0o777)
    run_etl(data, tmp_path / "out")
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_no_temporary_file_is_left(clean_out: Path) -> None:
    names = [path.name for path in clean_out.rglob("*") if path.is_file()]
    names.remove(".gitignore")
    assert not [name for name in names if name.startswith(".") or name.endswith(".tmp")]
    assert {path.name for path in clean_out.iterdir()} == {
        "run.json", "tables", "images", "shards", "rejects.parquet", "state", "README.md",
        "shareable.json", ".gitignore", "inputs.parquet",
    }  # fmt: skip


def test_pandas_alone_reads_every_file(clean_out: Path) -> None:
    for path in sorted((clean_out / "shards").iterdir()):
        frame = pd.read_parquet(path)
        assert set(frame["image"].map(len)) == {224 * 224}
        for sentences in frame["sentences"]:
            for sentence in sentences:
                assert sentence["heatmap"] is None or len(sentence["heatmap"]) == 224 * 224
                assert sentence["grid"] is None or len(sentence["grid"]) == 49
    for name in TABLES:
        assert len(pd.read_parquet(clean_out / "tables" / f"{name}.parquet"))
    assert len(pd.read_parquet(clean_out / "rejects.parquet")) == len(rejects(clean_out))


def test_pyarrow_alone_reads_every_file(clean_out: Path) -> None:
    code = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name in ("egma_prep", "pandas"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
import pyarrow.parquet as pq
for path in sys.argv[1:]:
    assert pq.read_table(path).to_pylist()
"""
    files = [str(path) for path in clean_out.rglob("*.parquet") if "state" not in path.parts]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_slurm_jobs_make_the_same(phantom: Path, clean_out: Path, tmp_path: Path) -> None:
    """By the recipe, with an `sbatch` that starts a job here and a `scancel` that ends it."""
    for name, script in {
        "sbatch": 'cp "$1" "$1.job"; setsid bash "$1.job" >/dev/null 2>&1 & echo Submitted job $!',
        "scancel": 'for job; do kill -- -"$job"; done',
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    recipe = Path(__file__).parents[1] / "pipelines" / "slurm.py"
    done = subprocess.run(
        [sys.executable, recipe, "2", phantom, "--out", tmp_path / "out"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "not encrypted" not in done.stderr and not list(tmp_path.glob(".egma-*"))
    assert contents(tmp_path / "out") == contents(clean_out)
