"""`egma-prep init` recognises what lies in a laboratory's folders, and what it writes runs."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from conftest import egma_prep

from egma_prep.sources.dataset_toml import dataset_facts
from egma_prep.synth import write_tree
from egma_prep.synth.recogniser_files import WORDS_FILES
from egma_prep.synth.tracker_files import GAZE_FILES

PAIRS = [(gaze, "csv") for gaze in sorted(GAZE_FILES)] + [
    ("csv", words) for words in sorted(WORDS_FILES) if words != "csv"
]


def started(lab: Path, gaze: str = "csv", words: str = "csv") -> tuple[str, dict[str, Any]]:
    """Write a lab, take its two files away, begin them anew; what was said, and what written."""
    write_tree(lab, 3, small=True, layout="recordings", gaze=gaze, words=words)
    (lab / "dataset.toml").unlink()
    (lab / "readings.csv").rename(lab.parent / "readings.csv")
    result = egma_prep("init", lab)
    assert result.exit_code == 0, result.output
    return result.output, tomllib.loads((lab / "dataset.toml").read_text())


@pytest.mark.parametrize(("gaze", "words"), PAIRS)
def test_formats_columns_and_units_are_recognised_and_said(
    gaze: str, words: str, tmp_path: Path
) -> None:
    said, facts = started(tmp_path / "lab", gaze, words)
    assert (facts["gaze"]["format"], facts["words"]["format"]) == (gaze, words)
    assert f"gaze.format: {gaze}" in said and f"words.format: {words}" in said
    written = dataset_facts((tmp_path / "lab/dataset.toml").read_bytes())
    assert (
        written.gaze.file == GAZE_FILES[gaze].file and written.words.file == WORDS_FILES[words].file
    )
    assert (tmp_path / "lab/readings.csv").read_text() == "reading_id,image\n"


def test_a_table_in_milliseconds_with_other_names_runs_after_readings_are_filled_in(
    tmp_path: Path,
) -> None:
    lab = tmp_path / "lab"
    write_tree(lab, 3, small=True, layout="recordings")
    for path in lab.glob("*/fixations.csv"):
        rows = [list(map(float, line.split(","))) for line in path.read_text().split()[1:]]
        lines = [f"{1000 * b:.0f},{1000 * (e - b):.0f},{x},{y}" for b, e, x, y in rows]
        path.write_text("\n".join(["onset_ms,fix_dur,pos_x,pos_y", *lines, ""]))
    (lab / "dataset.toml").unlink()
    (lab / "readings.csv").rename(tmp_path / "readings.csv")
    assert egma_prep("init", lab).exit_code == 0
    facts = dataset_facts((lab / "dataset.toml").read_bytes())
    assert facts.gaze.columns == {
        "x": "pos_x",
        "y": "pos_y",
        "begin": "onset_ms",
        "duration": "fix_dur",
    }
    assert (facts.gaze.time_unit, facts.gaze.frame) == ("ms", "image_px")
    (tmp_path / "readings.csv").replace(lab / "readings.csv")
    result = egma_prep("run", lab, "--out", tmp_path / "out", "--set", "execution.processes=false")
    assert result.exit_code == 0 and "written 3" in result.output, result.output


@pytest.mark.parametrize(("unit", "ticks"), [("s", 1), ("ms", 1000), ("us", 1_000_000)])
def test_a_table_of_samples_is_told_from_one_of_fixations(
    unit: str, ticks: int, tmp_path: Path
) -> None:
    lab = tmp_path / "lab"
    write_tree(lab, 2, small=True, layout="recordings")
    lines = [f"{at / 250 * ticks},{100 + at % 7},{90 + at % 5}" for at in range(500)]
    for path in lab.glob("*/fixations.csv"):
        path.write_text("\n".join(["timestamp,gaze_x,gaze_y", *lines, ""]))
    (lab / "dataset.toml").unlink()
    (lab / "readings.csv").unlink()
    result = egma_prep("init", lab)
    assert result.exit_code == 0, result.output
    gaze = dataset_facts((lab / "dataset.toml").read_bytes()).gaze
    assert (gaze.from_, gaze.time_unit) == ("samples", unit)
    assert gaze.columns == {"t": "timestamp", "x": "gaze_x", "y": "gaze_y"}


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    started(tmp_path / "lab")
    before = (tmp_path / "lab/dataset.toml").read_bytes()
    result = egma_prep("init", tmp_path / "lab")
    assert result.exit_code == 2 and "is there already" in result.output
    assert (tmp_path / "lab/dataset.toml").read_bytes() == before


def test_a_folder_without_recordings_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").write_text("buy milk")
    result = egma_prep("init", tmp_path)
    assert result.exit_code == 2 and re.search("no folder with gaze or words", result.output)
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]
