"""Recordings of one's own: every format of gaze and words gives what MIMIC-EYE's layout gives."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from egma_prep.errors import Reject
from egma_prep.etl.make_part import load_reading
from egma_prep.etl.parts import Job
from egma_prep.options import Options
from egma_prep.sources.recognisers import recognisers
from egma_prep.sources.registry import choose_source, with_defaults_of
from egma_prep.sources.trackers import trackers
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


def test_phantoms_are_written_in_every_format_that_is_read() -> None:
    assert {*GAZE_FILES} == {*trackers()}
    assert {*WORDS_FILES} == {*recognisers()}
