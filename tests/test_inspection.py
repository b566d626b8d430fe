"""One reading as a figure, by sentence and by word."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import egma_prep, run_etl
from tables import by_reading, table

from egma_prep import open_shards
from egma_prep.shards import figure as picture
from egma_prep.shards.figure import Passage

Blocks = list[tuple[Passage, list[Passage]]]


@pytest.fixture(scope="module")
def blocks(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Blocks]:
    """What is drawn at the level of words, by reading."""
    seen: dict[str, Blocks] = {}
    draw = picture.figure_of_words

    def kept(title: str, image: np.ndarray, sentences: Blocks) -> object:
        seen[title.split()[1]] = sentences
        return draw(title, image, sentences[:1])  # all of them take seconds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(picture, "figure_of_words", kept)
        for reading in open_shards(clean_out)[:6]:
            png = tmp_path_factory.mktemp("figure") / "one.png"
            arguments = ("--out", clean_out, "--png", png, "--level", "word")
            result = egma_prep("inspect", reading.reading_id, *arguments)
            assert result.exit_code == 0, result.output
            assert png.read_bytes().startswith(b"\x89PNG")
    return seen


def test_each_word_stands_beside_its_sentence_with_its_own_gaze(
    blocks: dict[str, Blocks], clean_out: Path
) -> None:
    spoken = {key[1]: rows for key, rows in by_reading(table(clean_out, "words")).items()}
    assert len(blocks) >= 5
    for reading_id, drawn in blocks.items():
        for index, (_, words) in enumerate(drawn):
            rows = [row for row in spoken[reading_id] if row["sentence_index"] == index]
            rows = [row for row in rows if any(map(str.isalnum, row["text"]))]
            assert [word.text for word in words] == [row["text"] for row in rows]
            told = [word.gaze_seconds for word in words]
            assert told == pytest.approx([row["gaze_seconds"] for row in rows])
            assert [one.heatmap is None for one in words] == [one == 0 for one in told]
    assert any(word.heatmap is None for some in blocks.values() for _, ws in some for word in ws)


def test_sentences_beside_words_are_those_of_the_shards(
    blocks: dict[str, Blocks], clean_out: Path
) -> None:
    stored = {one.reading_id: one for one in open_shards(clean_out)}
    for reading_id, drawn in blocks.items():
        for (ours, _), theirs in zip(drawn, stored[reading_id].sentences, strict=True):
            assert ours.text == theirs.text
            assert np.array_equal(ours.heatmap, theirs.heatmap)


def test_missing_word_maps_are_crossed_out_and_counted() -> None:
    blank = np.zeros((224, 224), np.uint8)

    def passage(text: str, heatmap: np.ndarray | None) -> Passage:
        return Passage(text, 0.0 if heatmap is None else 1.0, heatmap)

    words = [passage(f"word{i}", None if i % 3 else blank) for i in range(10)]
    figure = picture.figure_of_words("one", blank, [(passage("a sentence", blank), words)])
    crossed = [axis for axis in figure.axes if axis.lines]
    assert {axis.get_title().split()[0] for axis in crossed} == {
        f"word{i}" for i in range(10) if i % 3
    }
    assert "no map for 6 of 10 words and 0 of 1 sentences" in figure.get_suptitle()
    assert len([axis for axis in figure.axes if axis.get_title()]) == 11


def test_words_of_a_run_with_privacy_are_refused_in_one_line(
    phantom: Path, tmp_path: Path, no_cluster: None
) -> None:
    few = tmp_path / "data"
    patients = sorted(phantom.glob("patient_*"))[:3]
    for patient in patients:
        shutil.copytree(patient, few / patient.name)
    run_etl(few, tmp_path / "out", "--privacy")
    result = egma_prep("inspect", "--out", tmp_path / "out", "--level", "word")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "made with --privacy" in result.stderr


def test_dollars_are_drawn_as_dictated_and_letters_without_a_shape_say_nothing(
    phantom: Path, tmp_path: Path, no_cluster: None
) -> None:
    patient = next(phantom.glob("patient_*/REFLACX")).parent
    shutil.copytree(patient, tmp_path / "data" / patient.name)
    for path in (tmp_path / "data").glob("*/REFLACX/main_data/*/timestamps_transcription.csv"):
        head, *rows = path.read_text().splitlines()
        said = ["$x^2$", "$...$", "心臟", "\N{GRINNING FACE}", r"$\\frac$"]
        rows[:5] = [
            ",".join([word, *row.split(",")[1:]]) for word, row in zip(said, rows[:5], strict=True)
        ]
        path.write_text("\n".join([head, *rows]) + "\n")
    run_etl(tmp_path / "data", tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for level in ("sentence", "word"):
            result = egma_prep("inspect", "--out", tmp_path / "out", "--level", level)
            assert (result.exit_code, result.stderr) == (0, ""), result.output
    figure = open_shards(tmp_path / "out")[0].plot()
    titles = [axis.title for axis in figure.axes if axis.get_title()]
    assert "$x^2$ $...$" in " ".join(one.get_text() for one in titles)
    assert not any(one.get_parse_math() for one in titles)


def test_a_sentence_without_gaze_is_crossed_out(clean_out: Path) -> None:
    readings = open_shards(clean_out)
    (without,) = (one for one in readings if one.heatmap is None)
    for reading in (without, readings[0]):
        axes = [axis for axis in reading.plot().axes if axis.images]
        maps = [axes[0], reading.heatmap, *(one.heatmap for one in reading.sentences)]
        assert [bool(axis.lines) for axis in axes] == [one is None for one in maps]
        told = [axis.get_title().split()[-2:] == ["[no", "gaze]"] for axis in axes[2:]]
        assert told == [one.heatmap is None for one in reading.sentences]


def test_a_figure_that_would_not_be_named_a_png_is_refused(clean_out: Path, tmp_path: Path) -> None:
    result = egma_prep("inspect", "--out", clean_out, "--png", tmp_path / "x.jpg")
    assert result.exit_code == 2 and "does not end in .png" in result.stderr
    assert list(tmp_path.iterdir()) == []
