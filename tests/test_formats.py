"""Shards of every format hold the same, and open with nothing of ours."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep, run_etl
from golden_reading import GOLDEN

from egma_prep.errors import BadUsageError
from egma_prep.shards.formats import count_rows, formats, load_shard, shard_files
from egma_prep.shards.schema import SHARD
from egma_prep.shards.tables import write_table

PAGE = Path(__file__).parent.parent / "docs" / "shard-format.md"
GOLDEN_NPZ = GOLDEN.with_suffix(".npz")
TEXTS = ["heart size normal.", "none in the left/right lung"]
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def without_gaze(table: pa.Table) -> pa.Table:
    rows = table.to_pylist()
    for row in rows:
        row |= {"heatmap": None, "regions": [], "labels": [], "split": None}
        for sentence in row["sentences"]:
            sentence |= {"begin": None, "end": None, "heatmap": None, "grid": None}
            sentence |= {"peak_seconds": None, "gaze_seconds": 0.0, "text": "ödème 'µ' 肺"}
    return pa.Table.from_pylist(rows, schema=table.schema)


@pytest.mark.parametrize("change", [None, without_gaze], ids=["with gaze", "without"])
@pytest.mark.parametrize("name", formats())
def test_a_shard_is_read_as_it_was_written(name: str, change, tmp_path: Path) -> None:
    table = pq.read_table(GOLDEN)
    table = change(table) if change else table
    for rows in (table, table.slice(0, 1), pa.concat_tables([table, table]), table.slice(0, 0)):
        path = tmp_path / f"part-0.{name}"
        write_table(path, rows)
        again = load_shard(path)
        assert again.schema.equals(SHARD) and again.schema.metadata == table.schema.metadata
        assert again.to_pylist() == rows.to_pylist()
        assert count_rows(path) == rows.num_rows


@pytest.mark.parametrize("name", formats())
def test_the_same_shard_has_the_same_bytes(name: str, tmp_path: Path) -> None:
    prints = [write_table(tmp_path / f"{k}.{name}", pq.read_table(GOLDEN)) for k in range(2)]
    assert prints[0] == prints[1]


def test_the_golden_npz_is_written_again_array_by_array(tmp_path: Path) -> None:
    write_table(tmp_path / "again.npz", load_shard(GOLDEN))
    with np.load(GOLDEN_NPZ) as golden, np.load(tmp_path / "again.npz") as ours:
        assert golden.files == ours.files
        for name in golden.files:
            assert golden[name].dtype == ours[name].dtype
            np.testing.assert_array_equal(golden[name], ours[name])
    assert load_shard(GOLDEN_NPZ).equals(load_shard(GOLDEN))


def test_every_array_is_on_the_page() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.read_text()))
    with np.load(GOLDEN_NPZ, allow_pickle=False) as golden:
        assert set(golden.files) <= named


@pytest.mark.parametrize(
    "snippet",
    SNIPPETS,
    ids=lambda text: " ".join(re.findall(r"^(?:import|from) (\w+)", text, re.M)),
)
def test_a_snippet_of_the_page_reads_the_golden_shard(snippet: str, tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet").write_bytes(GOLDEN.read_bytes())
    (tmp_path / "part-00000.npz").write_bytes(GOLDEN_NPZ.read_bytes())
    alone = "egma_prep" not in snippet
    check = "import sys, json; print(json.dumps([texts, 'egma_prep' in sys.modules]))"
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_DATASETS_CACHE": "hf"}
    done = subprocess.run(
        [sys.executable, "-c", f"{snippet}\n{check}"],
        cwd=tmp_path, capture_output=True, text=True, check=False, env=os.environ | offline,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [TEXTS, not alone]


def test_an_npz_run_holds_what_a_parquet_run_holds(
    phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = run_etl(phantom, out, "--format", "npz")
    assert result.exit_code == 0, result.output
    assert {path.suffix for path in (out / "shards").iterdir()} == {".npz"}
    assert {path.stat().st_mode & 0o777 for path in (out / "shards").iterdir()} == {0o600}
    ours = [load_shard(path) for path in shard_files(out / "shards")]
    theirs = [load_shard(path) for path in shard_files(clean_out / "shards")]
    assert [one.to_pylist() for one in ours] == [one.to_pylist() for one in theirs]
    assert "nothing to do" in run_etl(phantom, out).output
    back = egma_prep(
        "render-heatmaps", "--out", out, "--format", "parquet", "--set", "execution.processes=false"
    )
    assert back.exit_code == 0, back.output
    assert [load_shard(p) for p in shard_files(out / "shards")] == theirs
    assert {path.suffix for path in (out / "shards").iterdir()} == {".parquet"}


@pytest.mark.parametrize("name", formats())
def test_shards_are_exported_to_a_format(name: str, clean_out: Path, tmp_path: Path) -> None:
    result = egma_prep("export", tmp_path / "there", "--to", name, "--out", clean_out)
    assert result.exit_code == 0, result.output
    theirs = shard_files(clean_out / "shards")
    assert [load_shard(p) for p in shard_files(tmp_path / "there")] == [
        load_shard(path) for path in theirs
    ]
    again = egma_prep("export", tmp_path / "there", "--to", name, "--out", clean_out)
    assert again.exit_code == 0 and "up to date" in again.output
    (tmp_path / "there" / "README.md").write_text("of somebody else")
    again = egma_prep("export", tmp_path / "there", "--to", name, "--out", clean_out)
    assert again.exit_code == 2 and "not an empty folder" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "DATA", "--format", "hdf5"), "npz, parquet"),
        (("export", "DEST", "--to", "hdf5"), "npz, official-egma, parquet"),
        (("export", "DEST", "--to", "npz", "--out", "nowhere"), "holds no run"),
    ],
)
def test_an_unknown_format_lists_the_known(arguments: tuple, says: str, phantom: Path) -> None:
    result = egma_prep(*(phantom if one == "DATA" else one for one in arguments))
    assert result.exit_code == 2 and says in result.stderr


@pytest.mark.parametrize("name", formats())
@pytest.mark.parametrize("damage", ["cut", "empty", "garbage"])
def test_a_damaged_shard_is_named(name: str, damage: str, tmp_path: Path) -> None:
    path = tmp_path / f"part-00000.{name}"
    write_table(path, pq.read_table(GOLDEN))
    whole = path.read_bytes()
    path.write_bytes({"cut": whole[: len(whole) // 2], "empty": b"", "garbage": b"x" * 999}[damage])
    with pytest.raises(BadUsageError, match=re.escape(str(path))):
        load_shard(path)


@pytest.mark.parametrize("name", formats())
def test_a_shard_of_another_schema_is_refused_with_both_versions(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"part-00000.{name}"
    table = pq.read_table(GOLDEN)
    table = table.replace_schema_metadata(table.schema.metadata | {b"egma.schema_version": b"99"})
    write_table(path, table)
    with pytest.raises(BadUsageError, match="schema 99, this version knows 2"):
        load_shard(path)
