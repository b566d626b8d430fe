"""Recordings of one's own: every format of gaze and words gives what MIMIC-EYE's layout gives."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import egma_prep, run_etl

from egma_prep.errors import Reject
from egma_prep.etl.make_part import load_reading
from egma_prep.etl.parts import Job
from egma_prep.options import Options
from egma_prep.sources.recognisers import recognisers
from egma_prep.sources.registry import choose_source, with_defaults_of
from egma_prep.sources.screens import Screen, fixations_on_image
from egma_prep.sources.trackers import TrackedGaze, trackers
from egma_prep.synth import write_tree
from egma_prep.synth.recogniser_files import WORDS_FILES
from egma_prep.synth.tracker_files import GAZE_FILES

READINGS = 12
Columns = dict[str, dict[str, list[Any]]]


def made(tree: Path) -> dict[tuple[str, ...], Columns]:
    """Make every reading of a tree, by its sentences' texts: ids differ between layouts."""
    files = Job(tree, None, tree / "out", "", Options()).files()
    source = choose_source(files)
    job = Job(tree, None, tree / "out", source.name, with_defaults_of(source, Options()))
    found = {}
    for subject in source.plan(files):
        for planned in subject.readings:
            columns = load_reading(planned, job, files, {})
            if not isinstance(columns, Reject):
                found[planned.reading_id] = columns[0]
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Columns]:
    root = tmp_path_factory.mktemp("mimic-eye")
    write_tree(root / "data", READINGS, small=True)
    return made(root / "data")


def sentences(columns: Columns) -> list[dict[str, Any]]:
    return columns["shard"]["sentences"][0]


@pytest.mark.parametrize("gaze", sorted(GAZE_FILES))
def test_gaze_of_every_format_gives_the_heatmaps_of_mimic_eye(
    gaze: str, expected: dict[str, Columns], tmp_path: Path
) -> None:
    write_tree(tmp_path / "lab", READINGS, small=True, layout="recordings", gaze=gaze)
    found = made(tmp_path / "lab")
    assert found.keys() == {*expected}
    for reading_id, columns in found.items():
        for own, its in zip(sentences(columns), sentences(expected[reading_id]), strict=True):
            assert own["text"] == its["text"]
            assert (own["begin"], own["end"]) == (its["begin"], its["end"])
            assert own["gaze_seconds"] == pytest.approx(its["gaze_seconds"], abs=0.02)
            assert (own["heatmap"] is None) == (its["heatmap"] is None)
            if own["heatmap"]:
                apart = np.frombuffer(own["heatmap"], np.uint8).astype(int)
                apart -= np.frombuffer(its["heatmap"], np.uint8)
                assert np.abs(apart).max() <= 8  # formats round to tenths of a pixel, and to ms


@pytest.mark.parametrize("words", sorted(WORDS_FILES))
def test_words_of_every_format_give_the_sentences_of_mimic_eye(
    words: str, expected: dict[str, Columns], tmp_path: Path
) -> None:
    write_tree(tmp_path / "lab", READINGS, small=True, layout="recordings", words=words)
    found = made(tmp_path / "lab")
    assert found.keys() == {*expected}
    for reading_id, columns in found.items():
        for own, its in zip(sentences(columns), sentences(expected[reading_id]), strict=True):
            assert own["text"] == its["text"]
            assert (own["begin"], own["end"]) == pytest.approx((its["begin"], its["end"]), abs=0.01)


PAGE = (Path(__file__).parent.parent / "docs/own_data.md").read_text()
SET_UPS = re.findall(r"```toml (\w+) (\w+)\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize(("gaze", "words", "facts"), SET_UPS, ids=lambda one: one.split("\n")[0])
def test_the_pages_set_ups_read_the_phantom_of_their_formats(
    gaze: str, words: str, facts: str, expected: dict[str, Columns], tmp_path: Path
) -> None:
    write_tree(tmp_path / "lab", READINGS, small=True, layout="recordings", gaze=gaze, words=words)
    (tmp_path / "lab/dataset.toml").write_text(facts)
    found = made(tmp_path / "lab")
    assert found.keys() == {*expected}
    for reading_id, columns in found.items():
        its = sentences(expected[reading_id])
        assert [one["text"] for one in sentences(columns)] == [one["text"] for one in its]
        seen_s = [one["gaze_seconds"] for one in sentences(columns)]
        assert seen_s == pytest.approx([one["gaze_seconds"] for one in its], abs=0.05)


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "lab", 4, small=True, layout="recordings").parent


def without_screen(lab: Path) -> None:
    facts = (lab / "dataset.toml").read_text()
    (lab / "dataset.toml").write_text(re.sub(r"\[screen\].*?\n\n", "", facts, flags=re.DOTALL))


def test_a_degree_is_counted_in_image_pixels_by_the_screens_geometry(
    lab: Path, tmp_path: Path
) -> None:
    run_etl(lab, tmp_path / "out")
    rows = pd.read_csv(lab / "readings.csv").set_index("reading_id")
    readings = pd.read_parquet(tmp_path / "out/tables/readings.parquet").set_index("reading_id")
    fixations = pd.read_parquet(tmp_path / "out/tables/fixations.parquet")
    for name, gaze in fixations.groupby("reading_id"):
        shown = rows.loc[name]
        degree_mm = 2 * 650 * np.tan(np.pi / 360)
        for axis, side in (("x", "width"), ("y", "height")):
            drawn_px = shown[f"image_{axis}1_px"] - shown[f"image_{axis}0_px"]
            px = degree_mm / (531 / 1920) * readings.loc[name, side] / drawn_px
            assert gaze[f"px_per_deg_{axis}"].to_numpy() == pytest.approx(px)


def test_without_a_screen_a_sigma_in_degrees_is_refused_and_pixels_are_not(
    lab: Path, tmp_path: Path
) -> None:
    without_screen(lab)
    result = run_etl(lab, tmp_path / "degrees", "--sigma", "1deg")
    assert result.exit_code == 2 and "(no_degrees)" in result.output
    assert run_etl(lab, tmp_path / "out").exit_code == 0
    fixations = pd.read_parquet(tmp_path / "out/tables/fixations.parquet")
    assert fixations["px_per_deg_x"].isna().all() and len(fixations)
    result = egma_prep("render-heatmaps", "--out", tmp_path / "out", "--sigma", "1deg")
    assert result.exit_code == 2 and "width_mm and distance_mm" in result.output
    assert egma_prep("verify", "--out", tmp_path / "out", "--against", lab).exit_code == 0


def test_a_screens_pixel_falls_on_the_image_pixel_that_is_drawn_there(lab: Path) -> None:
    gaze = TrackedGaze(*np.array([[0.0], [1], [100], [40]]), "screen_px")
    as_drawn, _ = fixations_on_image(gaze, Screen(), (90, 30, 590, 430), (500, 400), 0.0)
    assert (as_drawn.x_px[0], as_drawn.y_px[0]) == pytest.approx((10, 10))
    halved, _ = fixations_on_image(gaze, Screen(), (90, 30, 340, 230), (500, 400), 0.0)
    assert (halved.x_px[0], halved.y_px[0]) == pytest.approx((20.5, 20.5))  # of 20 and 21
    share = gaze._replace(x=np.array([0.5]), y=np.array([0.25]), frame="image_share")
    middle, _ = fixations_on_image(share, Screen(), None, (500, 400), 0.0)
    assert (middle.x_px[0], middle.y_px[0]) == pytest.approx((249.5, 99.5))


def test_an_image_whose_place_on_the_screen_is_not_told_is_taken_as_fitted_and_noted() -> None:
    gaze = TrackedGaze(*np.array([[0.0], [1], [0.5], [0.25]]), "screen_share", (1920, 1080))
    seen, notes = fixations_on_image(gaze, Screen(), None, (1000, 2000), 0.0)
    assert (seen.x_px[0], seen.y_px[0]) == pytest.approx((499.5, 499.5))
    assert notes == {"image_place_guessed": 1, "image_drawn_stretched": 0}


def test_an_image_drawn_in_another_shape_than_its_own_is_noted() -> None:
    gaze = TrackedGaze(*np.array([[0.0], [1], [100], [40]]), "screen_px")
    _, notes = fixations_on_image(gaze, Screen(), (0, 0, 1920, 100), (640, 547), 0.0)
    assert notes["image_drawn_stretched"] == 1


def test_readings_whose_clock_nobody_tells_are_noted_and_a_told_zero_is_not(
    lab: Path, tmp_path: Path
) -> None:
    rows = pd.read_csv(lab / "readings.csv", dtype=str, keep_default_na=False)
    rows["audio_offset_s"] = ["", "", "0", "0"]
    rows.to_csv(lab / "readings.csv", index=False)
    result = run_etl(lab, tmp_path / "out")
    assert "noted: 2 readings without audio_offset_s" in result.output


def test_a_column_whose_name_is_nearly_one_that_is_read_is_named(lab: Path, tmp_path: Path) -> None:
    table = (lab / "readings.csv").read_text().replace("audio_offset_s", "audio_offset", 1)
    (lab / "readings.csv").write_text(table)
    result = run_etl(lab, tmp_path / "out")
    assert "the column 'audio_offset' is not read; is it 'audio_offset_s'?" in result.output


@pytest.mark.parametrize("file", ["", "../other/gaze.csv", "/etc/passwd", "a/b.csv"])
def test_a_file_outside_of_the_readings_folder_is_refused(
    lab: Path, tmp_path: Path, file: str
) -> None:
    facts = (lab / "dataset.toml").read_text()
    (lab / "dataset.toml").write_text(facts.replace('"fixations.csv"', f'"{file}"'))
    result = run_etl(lab, tmp_path / "out")
    assert result.exit_code == 2 and "gaze.file is" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cells", "says"),
    {
        "an image elsewhere": ({"image": "../x.png"}, "bad_path"),
        "no image": ({"image": ""}, "bad_path"),
        "an image that is missing": ({"image": "images/none.png"}, "missing_file"),
        "an offset that is no number": ({"audio_offset_s": "soon"}, "bad_number"),
        "three edges of a rectangle": ({"image_x1_px": ""}, "bad_number"),
        "a rectangle inside out": ({"image_x1_px": "1"}, "bad_number"),
        "an id that leads elsewhere": ({"reading_id": "../x"}, "bad_id"),
        "milliseconds as the offset": ({"audio_offset_s": "2500000"}, "implausible_time"),
    }.values(),
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_a_row_that_cannot_be_used_rejects_its_reading_alone(
    lab: Path, tmp_path: Path, cells: dict[str, str], says: str
) -> None:
    rows = pd.read_csv(lab / "readings.csv", dtype=str, keep_default_na=False)
    rows.loc[0, list(cells)] = list(cells.values())
    rows.to_csv(lab / "readings.csv", index=False)
    result = run_etl(lab, tmp_path / "out", "--max-reject-share", "1")
    assert result.exit_code == 0 and f"({says})" in result.output
    written = pd.read_parquet(tmp_path / "out/tables/readings.parquet")
    assert len(written) == 3


def test_phantoms_are_written_in_every_format_that_is_read() -> None:
    assert {*GAZE_FILES} == {*trackers()}
    assert {*WORDS_FILES} == {*recognisers()}
