"""An output folder is used again: for more data, other data, other options."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import egma_prep, run_etl
from tables import rejects, shards, table

IN_THREADS = ("--set", "execution.processes=false")


def _only_first_patient(phantom: Path, tree: Path) -> Path:
    first = next(iter(sorted(phantom.glob("patient_*"))))
    shutil.copytree(first, tree / first.name)
    return first


def test_a_trial_on_one_patient_does_not_force_the_whole_tree_into_one_part(
    phantom: Path, tmp_path: Path
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    _only_first_patient(phantom, tree)
    small_parts = (*IN_THREADS, "--set", "execution.readings_per_part=2")
    egma_prep("run", tree, "--out", out, *small_parts)
    assert {row["part"] for row in table(out, "readings")} == {0}
    shutil.copytree(phantom, tree, dirs_exist_ok=True)
    assert egma_prep("run", tree, "--out", out, *small_parts).exit_code == 0
    assert len({row["part"] for row in table(out, "readings")}) > 4
    assert len(list((out / "shards").iterdir())) == len(list((out / "images").iterdir()))


def test_a_run_says_which_options_it_keeps_and_that_the_data_are_others(
    phantom: Path, tmp_path: Path
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    _only_first_patient(phantom, tree)
    egma_prep("run", tree, "--out", out, "--sigma", "8", *IN_THREADS)
    said = run_etl(phantom, out).output
    assert "render.sigma 16.0 -> 8.0" in said
    assert f"holds a run of {tree}" in said and str(phantom) in said


def test_parts_made_by_other_rules_are_made_again(
    phantom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    _only_first_patient(phantom, tree)
    with monkeypatch.context() as before:
        before.setattr("egma_prep.etl.parts.RULES_VERSION", "1")
        run_etl(tree, out)
        assert "nothing to do" in run_etl(tree, out).output
    assert "again, other rules" in run_etl(tree, out).output
    assert "nothing to do" in run_etl(tree, out).output


def test_whole_numbers_and_decimals_are_the_same_option(phantom: Path, tmp_path: Path) -> None:
    run_etl(phantom, tmp_path / "out")
    assert "nothing to do" in run_etl(phantom, tmp_path / "out", "--sigma", "16").output


def test_a_patients_folder_copied_under_another_name_does_not_cost_the_patient(
    phantom: Path, tmp_path: Path, clean_out: Path
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    shutil.copytree(phantom, tree)
    reading = table(clean_out, "readings")[0]
    subject = reading["subject_id"]
    shutil.copytree(tree / f"patient_{subject}", tree / "patient_90999999")
    run_etl(tree, out)
    assert shards(out) == shards(clean_out)
    copies: list[dict[str, Any]] = [row for row in rejects(out) if row["reason"] == "other_subject"]
    assert copies and all(subject in row["message"] for row in copies)
    counts = json.loads((out / "run.json").read_text())["counts"]
    assert counts["planned"] == counts["written"] + counts["rejected"]
