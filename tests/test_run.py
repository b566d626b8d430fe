"""The whole ETL on a phantom tree against the tree's own truth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import run_etl
from tables import by_reading, key, parts, rejects, shards, table

from egma_prep.errors import NOTES

Truth = dict[str, Any]


def _written(truth: Truth) -> dict[tuple[str, str], Any]:
    return {key(one): one for one in truth["readings"] if one["reject"] is None}


def test_written_and_rejected_readings_are_those_of_the_truth(
    clean_out: Path, truth: Truth
) -> None:
    assert {key(row) for row in table(clean_out, "readings")} == set(_written(truth))
    expected = {(*key(one), one["reject"]) for one in truth["readings"] if one["reject"]}
    assert {(*key(row), row["reason"]) for row in rejects(clean_out)} == expected


def test_planned_is_written_plus_rejected(clean_out: Path, truth: Truth) -> None:
    counts = json.loads((clean_out / "run.json").read_text())["counts"]
    assert counts["planned"] == len(truth["readings"])
    assert counts["planned"] == counts["written"] + counts["rejected"]
    assert counts["written"] == len(parts(clean_out / "shards"))


def test_what_was_noted_is_known_by_name_and_said_once(phantom: Path, clean_out: Path) -> None:
    notes = json.loads((clean_out / "run.json").read_text())["counts"]["notes"]
    assert set(notes) <= set(NOTES)
    said = run_etl(phantom, clean_out).output
    for name, number in notes.items():
        assert said.count(f"noted: {number:,} {NOTES[name]}\n") == (number > 0)


@pytest.mark.parametrize(
    "name", ["subject_id", "study_id", "dicom_id", "split", "view", "width", "height"]
)
def test_facts_of_a_reading_equal_the_truth(clean_out: Path, truth: Truth, name: str) -> None:
    found = {key(row): row[name] for row in table(clean_out, "readings")}
    assert found == {one: reading[name] for one, reading in _written(truth).items()}
    assert found == {one: row[name] for one, row in shards(clean_out).items()}


def test_words_keep_their_text_times_and_sentence(clean_out: Path, truth: Truth) -> None:
    found = by_reading(table(clean_out, "words"))
    for one, reading in _written(truth).items():
        words, tokens = found[one], reading["tokens"]
        assert [row["text"] for row in words] == [token["text"] for token in tokens]
        assert [row["sentence_index"] for row in words] == [token["sentence"] for token in tokens]
        for edge in ("begin", "end"):
            np.testing.assert_allclose(
                [row[edge] for row in words], [token[edge] for token in tokens], atol=1e-9
            )


def test_sentences_are_cut_where_the_truth_cuts(clean_out: Path, truth: Truth) -> None:
    found = by_reading(table(clean_out, "sentences"))
    for one, reading in _written(truth).items():
        expected = [
            (
                s["text"],
                s["first_token"],
                s["last_token"],
                pytest.approx(s["begin"]),
                pytest.approx(s["end"]),
            )
            for s in reading["sentences"]
        ]
        rows = found[one]
        assert [
            (row["text"], row["first_word"], row["last_word"], row["begin"], row["end"])
            for row in rows
        ] == expected


def test_fixations_are_kept_in_file_order_with_their_place(clean_out: Path, truth: Truth) -> None:
    found = by_reading(table(clean_out, "fixations"))
    for one, reading in _written(truth).items():
        for name in ("begin", "end", "x", "y", "on_image"):
            np.testing.assert_allclose(
                [float(row[name]) for row in found[one]],
                [float(fixation[name]) for fixation in reading["fixations"]],
                atol=1e-9,
            )


def test_alignment_seconds_equal_the_truth(clean_out: Path, truth: Truth) -> None:
    found = by_reading(table(clean_out, "alignment"))
    for one, reading in _written(truth).items():
        ours = {(r["word_index"], r["fixation_index"]): r["seconds"] for r in found.get(one, [])}
        theirs = {(word, fixation): seconds for word, fixation, seconds in reading["alignment"]}
        assert {k: v for k, v in ours.items() if v > 1e-9} == pytest.approx(
            {k: v for k, v in theirs.items() if v > 1e-9}, abs=1e-9
        )


def test_gaze_seconds_of_each_sentence_equal_the_truth(clean_out: Path, truth: Truth) -> None:
    found = shards(clean_out)
    for one, reading in _written(truth).items():
        ours = [sentence["gaze_seconds"] for sentence in found[one]["sentences"]]
        assert ours == pytest.approx([s["gaze_seconds"] for s in reading["sentences"]], abs=1e-5)
