"""Mistakes that users made when they first met the commands, each met by one line."""

import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import egma_prep, run_etl

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.synth import write_tree


@pytest.fixture
def native(tmp_path: Path) -> Path:
    root = tmp_path / "native"
    write_tree(root, 6, small=True, layout="reflacx")
    return root


@pytest.mark.parametrize("kind", ["metadata", "split", "chexpert"])
@pytest.mark.parametrize("command", ["run", "scan"])
@pytest.mark.parametrize("keep", [0, 40])
@pytest.mark.usefixtures("no_cluster")
def test_a_damaged_table_of_all_images_is_named_in_one_line(
    native: Path, tmp_path: Path, kind: str, command: str, keep: int
) -> None:
    (table,) = native.rglob(f"mimic-cxr-2.0.0-{kind}.csv.gz")
    table.write_bytes(table.read_bytes()[:keep])
    out = ("--out", tmp_path / "out") if command == "run" else ()
    result = egma_prep(command, native, *out)
    assert result.exit_code == 0 and "Traceback" not in result.output
    (line,) = [line for line in result.output.splitlines() if table.name in line]
    told = {"metadata": "view", "split": "split", "chexpert": "CheXpert labels"}[kind]
    assert f"no reading has its {told}" in line and "; download " in line


@pytest.mark.parametrize("keep", [0, 40])
def test_a_damaged_table_that_lists_the_images_is_named_in_one_line(
    native: Path, tmp_path: Path, keep: int
) -> None:
    (table,) = native.rglob("mimic-cxr-2.0.0-metadata.csv.gz")
    table.write_bytes(table.read_bytes()[:keep])
    result = egma_prep("run", native / "images", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "Traceback" not in result.output
    (line,) = result.output.splitlines()
    assert table.name in line and "; download " in line


def test_a_missing_phase_is_not_blamed_on_another(native: Path, tmp_path: Path) -> None:
    tables = sorted((native / "main_data").glob("metadata_phase_*.csv"))
    fullest = max(tables, key=lambda path: len(path.read_text().splitlines()))
    fullest.unlink()
    run_etl(native, tmp_path / "out", "--max-reject-share", 1)
    rejects = pd.read_parquet(tmp_path / "out" / "rejects.parquet")
    without = rejects[rejects.reason == "no_metadata_row"].message
    assert len(without)
    for other in set(tables) - {fullest}:
        assert without.str.contains(f"none of .*{other.name}.* has a row").all()


def test_a_folder_with_other_peoples_shards_is_not_written_into(
    phantom: Path, tmp_path: Path
) -> None:
    mine = tmp_path / "out" / "shards" / "part-00000.parquet"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = run_etl(phantom, tmp_path / "out")
    assert result.exit_code == 2 and "is not of egma-prep; choose another folder" in result.output
    assert mine.read_bytes() == b"mine"


def test_the_folder_of_images_is_not_written_into(native: Path) -> None:
    result = run_etl(native, native / "files", "--images", native / "files")
    assert result.exit_code == 2 and "--images" in result.output


def test_images_that_are_not_elsewhere_are_taken_from_data(phantom: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "images" / "files" / "p90" / "p90999999" / "s1"
    elsewhere.mkdir(parents=True)
    (elsewhere / "x.jpg").write_bytes(b"")
    plain, other = tmp_path / "plain", tmp_path / "other"
    assert run_etl(phantom, plain).exit_code == 0
    assert run_etl(phantom, other, "--images", tmp_path / "images").exit_code == 0
    written = [pd.read_parquet(out / "tables" / "readings.parquet") for out in (plain, other)]
    assert written[0].reading_id.tolist() == written[1].reading_id.tolist()


def test_a_reader_that_goes_away_is_no_error(phantom: Path) -> None:
    script = f"from egma_prep.cli import main; main(['scan', {str(phantom)!r}])"
    shell = f'{sys.executable} -c "{script}" | head -1'
    result = subprocess.run(shell, shell=True, capture_output=True, text=True)
    assert "mimic_eye tree" in result.stdout
    errors = [line for line in result.stderr.splitlines() if not line.startswith("readings:")]
    assert errors == []


def test_a_table_that_is_no_shard_is_said_to_be_none(clean_out: Path) -> None:
    with pytest.raises(BadUsageError, match="is no shard"):
        open_shards(clean_out / "images")[0]


def test_a_damaged_shard_is_made_again_after_what_the_message_says(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(clean_out, out)
    first = sorted((out / "shards").iterdir())[0]
    first.write_bytes(bytes(len(first.read_bytes())))
    with pytest.raises(BadUsageError, match="delete it and repeat: egma-prep run"):
        open_shards(out)[0]
    first.unlink()
    assert run_etl(phantom, out).exit_code == 0
    assert len(open_shards(out)) == len(open_shards(clean_out))
