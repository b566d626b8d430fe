"""An output folder that an earlier version made is opened, checked, rendered, trained from, kept.

``PHANTOM-out-v1.tar`` holds what version 0.1.0 made, before inputs had a table of their own, of
``egma-prep synth /PHANTOM --readings 4 --small --seed 4``.
"""

import json
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import IN_THREADS, egma_prep, invoked
from tables import contents

from egma_prep import open_run, open_shards
from egma_prep.synth import write_tree

GOLDEN = Path(__file__).parent / "golden" / "PHANTOM-out-v1.tar"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "PHANTOM-out"


def test_an_earlier_versions_output_is_read_and_verified(out: Path) -> None:
    assert len(open_shards(out)) == len(open_run(out).readings) == 4
    result = egma_prep("verify", "--out", out)
    assert result.exit_code == 0 and "no findings" in result.stdout, result.output
    for command in (("inspect",), ("report",), ("export", out.parent / "png", "--to", "png")):
        assert egma_prep(*command, "--out", out).exit_code == 0


def test_an_earlier_versions_output_is_rendered_again(out: Path) -> None:
    result = egma_prep("render-heatmaps", "--out", out, "--sigma", 8, *IN_THREADS[:2])
    assert result.exit_code == 0, result.output
    assert open_shards(out).metadata["sigma"] == "8.0"
    assert egma_prep("verify", "--out", out).exit_code == 0


def test_an_earlier_versions_output_is_trained_from(out: Path) -> None:
    from egma_train.cli import main as train

    short = ("--preset", "tiny", "--epochs", "1", "--init", "random")
    result = invoked(train, "--shards", out, "--out", out, *short)
    assert result.exit_code == 0, result.output


def test_a_run_brings_an_earlier_versions_output_up_to_date(out: Path) -> None:
    write_tree(out.parent / "data", 4, small=True, seed=4)
    before = contents(out)
    again = egma_prep("run", out.parent / "data", "--out", out, *IN_THREADS[:2])
    assert again.exit_code == 0, again.output
    after = contents(out)
    for found in (before, after):  # phantom pictures differ with OpenCV's version
        for row in (*found["shards"].values(), *found["images"].values()):
            row.pop("image")
    # What version 0.1.0 did not tell.
    for rows in after["fixations"].values():
        for row in rows:
            told = [row.pop(f"shown_{side}") for side in ("x0", "y0", "x1", "y1")]
            assert None not in told
    for row in after["shards"].values():
        for sentence in row["sentences"]:
            assert sentence.pop("mentions") is not None
    assert after == before
    assert egma_prep("verify", "--out", out, "--against", out.parent / "data").exit_code == 0
    run_file = json.loads((out / "run.json").read_text())
    if "making part-00000 again" in again.stdout:  # else all was as it should be
        assert run_file["inputs"]["files"] == pq.read_metadata(out / "inputs.parquet").num_rows
