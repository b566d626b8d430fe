"""A reading that cannot be true is rejected by name; a true one never is, however odd."""

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import egma_prep, run_etl
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tables import rejects, shards

from egma_prep.errors import NOTES, BadInputError
from egma_prep.etl import make_part as making
from egma_prep.etl.invariants import broken_rules
from egma_prep.gaze.frame import frame_of
from egma_prep.options import Options, SourceOptions, with_changes
from egma_prep.shards.assemble import FramedImage, reading_columns
from egma_prep.shards.schema import SHARD, TABLES, without_raw_gaze
from egma_prep.sources.check_reading import MENDED, check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import Fixations, RawReading, Region, RowsOfFile, Words
from egma_prep.sources.registry import sources
from egma_prep.synth import write_tree

Row = tuple[float, float, float, float]  # begin, end in s; x, y in px
Word = tuple[str, float, float]
WIDTH, HEIGHT = 2544, 3056
SAID = [("heart", 0.8, 1.1), ("normal", 1.1, 1.6), (".", 1.6, 1.9), ("no", 2.4, 2.6)]


def reading(gaze: list[Row], said: list[Word] = SAID, **more: Any) -> RawReading:
    begin, end, x, y = np.array(gaze, dtype=float).reshape(-1, 4).T
    degree = np.full(len(gaze), 100.0)
    text, starts, ends = zip(*said, strict=True)
    words = Words(list(text), np.array(starts, dtype=float), np.array(ends, dtype=float))
    facts = {"split": None, "view": None, "image_path": "PHANTOM.jpg", "labels": {}, "regions": []}
    keys = dict.fromkeys(("dataset", "reading_id", "subject_id", "study_id", "dicom_id"), "1")
    facts |= {
        "fixation_rows": RowsOfFile("gaze.csv", lambda row: f"row {row + 1}"),
        "word_rows": RowsOfFile("words.csv", lambda row: f"row {row + 1}"),
        "width": WIDTH,
        "height": HEIGHT,
    }
    fixations = Fixations(begin, end, x, y, degree, degree)
    return RawReading(**keys, **facts | more, fixations=fixations, words=words)  # type: ignore[arg-type]


def looks(number: int, *, step_s: float = 0.4, length_s: float = 0.3) -> list[Row]:
    """Look here and there, from one lung to the other."""
    return [
        (k * step_s, k * step_s + length_s, 700.0 + 1100 * (k % 2) + k, 900.0 + 40 * k)
        for k in range(number)
    ]


def checked(raw: RawReading, size: tuple[int, int] | None = None) -> RawReading:
    return check_reading(raw, size or (raw.width, raw.height))


def gaze_of(raw: RawReading) -> list[Row]:
    return list(zip(*(column.tolist() for column in raw.fixations[:4]), strict=True))


PHRASES = [
    (text, begin, begin + 1.0)
    for begin in (1.0, 3.0)
    for text in ("no", "effusion", ".", "no", "mass", ".")
]


@pytest.mark.parametrize("number", [6, 12])
def test_words_that_share_a_phrases_interval_may_repeat(number: int) -> None:
    found = checked(reading(looks(12), PHRASES[:number]))
    assert words_of(found) == PHRASES[:number] and not mended(found)
    few = [("no", 1.0, 2.0), ("no", 1.0, 2.0), (".", 1.0, 2.0), (".", 1.0, 2.0)]
    assert words_of(checked(reading(looks(12), few))) == few


def test_a_table_of_phrases_that_stands_twice_counts_once() -> None:
    said = [("heart", 0.5, 0.9), *PHRASES]
    for twice in (said * 2, [word for word in said for _ in range(2)]):
        found = checked(reading(looks(12), twice))
        assert words_of(found) == said
        assert mended(found) == {"words_twice": len(said)}


def words_of(raw: RawReading) -> list[Word]:
    words = raw.words
    return list(zip(words.text, words.begin_s.tolist(), words.end_s.tolist(), strict=True))


def mended(raw: RawReading) -> dict[str, int]:
    return {name: number for name in MENDED if (number := raw.notes.get(name, 0))}


# -- what stands twice ----------------------------------------------------------------------------

ONCE = looks(5)
TWICE = {
    "row by row": [row for row in ONCE for _ in range(2)],
    "table by table": ONCE * 2,
    "in part": ONCE[:4] + ONCE[1:],
}


@pytest.mark.parametrize("name", TWICE)
def test_rows_of_fixations_that_stand_twice_count_once(name: str) -> None:
    found = checked(reading(TWICE[name]))
    assert gaze_of(found) == ONCE
    assert mended(found) == {"fixation_rows_twice": len(TWICE[name]) - len(ONCE)}


def test_of_a_row_a_sample_the_last_row_of_each_fixation_stays() -> None:
    grown = [
        (begin, min(begin + k / 60, end), x + (begin + k / 60 < end), y)
        for begin, end, x, y in ONCE
        for k in range(1, 19)
    ]
    found = checked(reading(grown))
    assert gaze_of(found) == ONCE
    assert mended(found) == {"rows_of_growing_fixations": len(grown) - len(ONCE)}


COPIES: dict[str, Callable[[Row], Row]] = {
    "of two decimals": lambda row: (round(row[0], 2), round(row[1], 2), row[2], row[3]),
    "a millisecond later": lambda row: (row[0] + 0.001, row[1] + 0.001, row[2], row[3]),
    "a millisecond earlier": lambda row: (row[0] - 0.001, row[1] - 0.001, row[2], row[3]),
    "a pixel further": lambda row: (row[0], row[1], row[2] + 1, row[3] - 1),
}


@pytest.mark.parametrize("order", ["table by table", "row by row"])
@pytest.mark.parametrize("name", COPIES)
def test_a_copy_of_fixations_with_other_digits_counts_once(name: str, order: str) -> None:
    own = [(b + 0.1234, e + 0.1278, x, y) for b, e, x, y in looks(9)]
    copy = [COPIES[name](row) for row in own]
    both = (
        [*own, *copy]
        if order == "table by table"
        else [r for two in zip(own, copy, strict=True) for r in two]
    )
    found = checked(reading(both))
    assert np.abs(np.array(gaze_of(found)) - np.array(own)).max(axis=0).tolist() == pytest.approx(
        [0, 0, 0, 0], abs=1 if name == "a pixel further" else 0.006
    )
    assert sum(mended(found).values()) == len(own)
    assert mended(checked(found)) == {}


def test_growing_rows_whose_start_drifts_are_one_fixation() -> None:
    grown = [
        (begin + k * 1e-4, min(begin + k / 60, end), x, y)
        for begin, end, x, y in ONCE
        for k in range(1, 19)
    ]
    found = checked(reading(grown))
    assert np.abs(np.array(gaze_of(found)) - np.array(ONCE)).max() < 0.002
    assert mended(found) == {"rows_of_growing_fixations": len(grown) - len(ONCE)}


def test_short_fixations_that_follow_each_other_at_one_place_stay() -> None:
    short = [(0.004 * k, 0.004 * k + 0.004, 900.0, 900.0) for k in range(9)]
    assert gaze_of(checked(reading([*short, *((b + 1, e + 1, x, y) for b, e, x, y in ONCE)])))[
        :9
    ] == [pytest.approx(row) for row in short]


CORRECTION = ("no", 1.3, 1.3)
CORRECTED = [("no", 1.0, 1.3), CORRECTION, CORRECTION, ("mass", 1.3, 1.8), (".", 1.8, 2.0)]
SAID_TWICE = {
    "row by row": [word for word in CORRECTED for _ in range(2)],
    "table by table": CORRECTED * 2,
    "three times": CORRECTED * 3,
    "in part": CORRECTED[:4] + CORRECTED[1:3] + CORRECTED[3:],
}


@pytest.mark.parametrize("name", SAID_TWICE)
def test_words_that_stand_twice_at_one_time_count_once(name: str) -> None:
    found = checked(reading(looks(4), SAID_TWICE[name]))
    assert words_of(found) == CORRECTED
    assert mended(found) == {"words_twice": len(SAID_TWICE[name]) - len(CORRECTED)}


def test_a_word_said_again_and_corrections_of_no_length_are_kept() -> None:
    found = checked(reading(looks(4), CORRECTED))
    assert words_of(found) == CORRECTED
    assert not mended(found)


DICTATED = [
    (text, 0.533 + 0.37 * k, 0.533 + 0.37 * k + length)
    for k, (text, length) in enumerate(
        [("the", 0.13), ("the", 0.29), ("heart", 0.31), ("is", 0.11), ("normal", 0.37), (".", 0.2)]
    )
]
WORD_COPIES: dict[str, Callable[[Word], Word]] = {
    "rounded to 0.1 s": lambda word: (word[0], round(word[1], 1), round(word[2], 1)),
    "rounded to 0.01 s": lambda word: (word[0], round(word[1], 2), round(word[2], 2)),
    "4 ms later": lambda word: (word[0], word[1] + 0.004, word[2] + 0.004),
    "10 ms earlier": lambda word: (word[0], word[1] - 0.01, word[2] - 0.01),
    "in capitals": lambda word: (word[0].upper(), *word[1:]),
}


@pytest.mark.parametrize("name", WORD_COPIES)
def test_a_copy_of_words_with_other_times_or_letters_is_rejected(name: str) -> None:
    both = sorted([*DICTATED, *map(WORD_COPIES[name], DICTATED)], key=lambda word: word[1])
    with pytest.raises(BadInputError, match=r"words\.csv.* 12 of 12 .*row 1 and row 2;") as caught:
        checked(reading(looks(8), both))
    assert caught.value.reason == "repeated_words"


def test_a_copy_of_words_of_which_most_round_to_themselves_is_rejected() -> None:
    own = [(f"word{k}", 0.5 * k, 0.5 * k + (0.42 if k % 4 == 0 else 0.4)) for k in range(16)]
    copy = [(text, round(begin, 1), round(end, 1)) for text, begin, end in own]
    both = [word for two in zip(own, copy, strict=True) for word in two]
    with pytest.raises(BadInputError, match="32 of 32 words"):
        checked(reading(looks(20), both))


@pytest.mark.parametrize("overlap_s", [0.0, 0.1])
def test_a_dictation_in_which_each_word_is_said_again_is_kept(overlap_s: float) -> None:
    begins = [0.5 + (0.4 - overlap_s) * k for k in range(8)]
    texts = ["no", "no", "mass", "mass", "the", "the", ".", "."]
    said = [(text, begin, begin + 0.4) for text, begin in zip(texts, begins, strict=True)]
    assert words_of(checked(reading(looks(8), said))) == said


def test_a_pair_that_a_recogniser_wrote_over_itself_is_kept() -> None:
    pair = [("no", 0.5, 0.9), ("no", 0.6, 0.9)]
    for said in (pair, [*pair, ("mass", 1.0, 1.4), (".", 1.4, 1.6)]):
        assert words_of(checked(reading(looks(8), said))) == said


# -- what is rounding -----------------------------------------------------------------------------


def test_a_fixation_that_shares_a_sample_with_the_next_is_cut_there() -> None:
    found = checked(reading([(0.0, 0.517, 900, 900), (0.5, 0.9, 1500, 950)]))
    assert gaze_of(found) == [(0.0, 0.5, 900, 900), (0.5, 0.9, 1500, 950)]
    assert mended(found) == {"fixations_cut": 1}


def test_words_a_step_of_rounding_back_are_moved_so_that_no_sentence_runs_back() -> None:
    found = checked(reading(looks(4), [("clear", 1.0, 1.3), (".", 0.9, 0.9), ("no", 1.4, 1.6)]))
    assert words_of(found) == [("clear", 1.0, 1.3), (".", 1.0, 1.0), ("no", 1.4, 1.6)]
    assert mended(found) == {"words_moved_forward": 1}


# -- what cannot be -------------------------------------------------------------------------------

SHARES = [(begin, end, x / WIDTH, y / HEIGHT) for begin, end, x, y in looks(12)]
IMPOSSIBLE = {
    "one place and another at once": (
        reading([(0.0, 1.0, 900, 900), (0.5, 1.5, 1500, 900)]),
        "overlapping_fixations",
        "gaze.csv: row 2 begins at 0.5 s, but row 1 runs from 0 to 1 s",
    ),
    "a short fixation inside a long one": (
        reading([(0.0, 2.0, 900, 900), (0.1, 0.1, 9, 9), (0.5, 0.9, 1500, 900)]),
        "overlapping_fixations",
        "row 2 begins at 0.1 s, but row 1",
    ),
    "both eyes, row by row": (
        reading([row for b, e, x, y in ONCE for row in ((b, e, x, y), (b, e, x + 9, y))]),
        "overlapping_fixations",
        "row 2 begins at 0 s, but row 1",
    ),
    "fixations that go back after rows that stand twice": (
        reading([ONCE[0], *ONCE, (0.9, 1.0, 900, 900)]),
        "reversed_time",
        "row 7 begins at 0.9 s, but row 6 runs from 1.6 to 1.9 s",
    ),
    "durations in milliseconds": (
        reading([(b, b + 300, x, y) for b, _, x, y in ONCE]),
        "implausible_time",
        "row 1 runs from 0 to 300 s, 300 s long",
    ),
    "fixations of a third of a millisecond": (
        reading([(b, b + 0.0003, x, y) for b, _, x, y in looks(10)]),
        "implausible_time",
        "the fixations of gaze.csv last 0.0003 s on average",
    ),
    "a single word of five minutes": (
        reading(ONCE, [("heart", 0.8, 300.8)]),
        "implausible_time",
        "words.csv: row 1 runs from 0.8 to 300.8 s, 300 s long",
    ),
    "words of a third of a millisecond": (
        reading(ONCE, [(f"word{k}", k / 1000, k / 1000 + 3e-4) for k in range(12)]),
        "implausible_time",
        "the words of words.csv last 0.0003 s on average",
    ),
    "words that go back by more than a step": (
        reading(ONCE, [*SAID, ("effusion", 2.25, 2.7)]),
        "reversed_time",
        "words.csv: row 5 begins at 2.25 s, but row 4 before it at 2.4 s",
    ),
    "words that go back step by step": (
        reading(ONCE, [("a", 1.0, 1.2), ("b", 0.95, 1.2), ("c", 0.85, 1.2)]),
        "reversed_time",
        "row 3 begins at 0.85 s, but row 1 before it at 1 s",
    ),
    "shares in place of pixels": (reading(SHARES), "gaze_in_a_corner", "all 12 fixations"),
    "three looks at the first pixel": (
        reading([(b, e, x / WIDTH, y / HEIGHT) for b, e, x, y in looks(3)]),
        "gaze_in_a_corner",
        "all 3 fixations",
    ),
    "pixels of a frame of 224": (
        reading([(b, e, x * 224 / 3056, y * 224 / 3056) for b, e, x, y in looks(12)]),
        "gaze_in_a_corner",
        "(2544 x 3056 pixels)",
    ),
    "all clipped to the last pixel": (
        reading([(b, e, WIDTH - 1, HEIGHT - 1) for b, e, _, _ in looks(12)]),
        "gaze_in_a_corner",
        "at 99.98% to 99.98% of its width",
    ),
    "y alone in shares": (
        reading([(b, e, x, y / HEIGHT) for b, e, x, y in looks(12)]),
        "gaze_in_a_corner",
        "all 12 fixations",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_cannot_be_is_rejected_with_its_row_and_numbers(name: str) -> None:
    raw, reason, said = IMPOSSIBLE[name]
    with pytest.raises(BadInputError) as caught:
        checked(raw)
    assert caught.value.reason == reason
    assert said in str(caught.value)


# -- images ---------------------------------------------------------------------------------------


@given(
    width=st.integers(200, 4000),
    height=st.integers(200, 4000),
    scale=st.floats(0.06, 2.5),
    rounded=st.tuples(*[st.sampled_from([np.floor, np.ceil, np.round])] * 2),
)
def test_an_image_of_another_size_is_taken_however_its_sides_were_rounded(
    width: int, height: int, scale: float, rounded: tuple[Callable[[float], float], ...]
) -> None:
    size = int(rounded[0](width * scale)), int(rounded[1](height * scale))
    found = checked(reading([(0, 1, 99, 99)], width=width, height=height), size)
    assert found.notes["image_size_differs"] == (size != (width, height))


@given(width=st.integers(1000, 4000), height=st.integers(1000, 4000), more=st.floats(0.02, 1))
def test_an_image_that_was_padded_or_cropped_by_a_fiftieth_is_not(
    width: int, height: int, more: float
) -> None:
    raw = reading([(0, 1, 99, 99)], width=width, height=height)
    for size in ((round(width * (1 + more)), height), (width, round(height / (1 + more)))):
        with pytest.raises(BadInputError, match="it seems to have been"):
            checked(raw, size)


def test_an_image_turned_by_90_degrees_is_told_as_such() -> None:
    with pytest.raises(BadInputError, match=r"3056 x 2544 pixels.*2544 x 3056.*turned by 90"):
        checked(reading(ONCE), (HEIGHT, WIDTH))


def test_an_image_without_gaze_may_have_any_size() -> None:
    unknown = [(text, np.nan, np.nan) for text, _, _ in SAID]
    found = checked(reading([], unknown), (512, 512))
    assert found.words.text == [text for text, _, _ in SAID]
    assert found.notes["readings_without_gaze"] == found.notes["image_size_differs"] == 1


@pytest.mark.parametrize("shape", ["as it is", "half the size", "padded to a square"])
def test_without_a_table_of_sizes_the_pads_of_eye_gaze_tell_the_shape(shape: str) -> None:
    # 2544 x 3056 px were shown as 852 x 1024 (FORMATS 5.2).
    size = {"as it is": (2544, 3056), "half the size": (1272, 1528)}.get(shape, (3056, 3056))
    raw = reading(looks(3), width=size[0], height=size[1], shown_px=(852.0, 1024.0))
    if shape != "padded to a square":
        checked(raw)
        return
    with pytest.raises(BadInputError, match="3056 x 3056 pixels, the screen showed it as 852 x 1"):
        checked(raw)


# -- boxes and ellipses ---------------------------------------------------------------------------

CHEST = Region("chest", "box", 300, 300, 2300, 2700)
MASS = Region("Mass", "ellipse", 700, 900, 1100, 1300, 3.0)


def test_regions_that_stand_twice_count_once() -> None:
    sure = MASS._replace(certainty=5.0)
    found = checked(reading(ONCE, regions=[MASS, CHEST, sure, CHEST, MASS, MASS]))
    assert found.regions == [MASS, CHEST, sure]
    assert found.notes["regions_twice"] == 3


def test_regions_in_shares_of_the_image_are_left_out_and_counted() -> None:
    share = Region("Mass", "ellipse", 0.27, 0.3, 0.43, 0.42, 3.0)
    found = checked(reading(ONCE, regions=[CHEST, share, MASS], notes={"regions_left_out": 2}))
    assert found.regions == [CHEST, MASS]
    assert found.notes["regions_left_out"] == 3 and "regions_in_a_corner" not in found.notes


def test_regions_that_all_lie_in_the_corner_at_the_origin_are_counted() -> None:
    percent = [MASS._replace(x0=27, y0=30, x1=43, y1=42), MASS._replace(x0=60, y0=50, x1=70, y1=80)]
    found = checked(reading(ONCE, regions=[CHEST, *percent]))
    assert found.regions == [CHEST, *percent] and found.notes["regions_in_a_corner"] == 2


@pytest.mark.parametrize(
    ("layout", "names"),
    [("eye_gaze", ["bounding_boxes.csv"]),
     ("reflacx", ["anomaly_location_ellipses.csv", "chest_bounding_box.csv"])],
)  # fmt: skip
def test_tables_that_stand_twice_give_the_same_readings_and_say_so(
    healthy: dict[str, Path], tmp_path: Path, no_cluster: None, layout: str, names: list[str]
) -> None:
    data = shutil.copytree(healthy[layout], tmp_path / "data")
    assert run_etl(data, tmp_path / "clean").exit_code == 0
    rows = 0
    for path in (path for name in names for path in data.rglob(name)):
        rows += sum(1 for _ in csv.reader(path.open(newline=""))) - 1
        change(path, lambda rows: rows * 2)
    if layout == "eye_gaze":  # rows of no fixations stand twice, too
        change(data / "fixations.csv", lambda rows: rows * 2)
    done = run_etl(data, tmp_path / "out")
    assert shards(tmp_path / "out") == shards(tmp_path / "clean")
    notes, before = (
        json.loads((tmp_path / out / "run.json").read_text())["counts"]["notes"]
        for out in ("out", "clean")
    )
    assert 0 < notes.pop("regions_twice") <= rows and NOTES["regions_twice"] in done.output
    assert bool(notes.pop("fixation_rows_twice", 0)) == (layout == "eye_gaze")
    assert notes == before


# -- what may be cut ------------------------------------------------------------------------------


def cut_at_half(path: Path) -> None:
    """Leave the first half, and of the last row its last number but for one digit."""
    lines = path.read_bytes().splitlines()
    half = lines[: len(lines) // 2]
    path.write_bytes(b"\n".join([*half[:-1], half[-1][:-1]]))


def test_tables_that_are_cut_inside_a_number_are_never_read_unsaid(
    healthy: dict[str, Path], tmp_path: Path, no_cluster: None
) -> None:
    data, out = shutil.copytree(healthy["reflacx"], tmp_path / "data"), tmp_path / "out"
    gaze, words, box = sorted((data / "main_data").glob("P3*"))[:3]
    cut_at_half(gaze / "fixations.csv")
    cut_at_half(words / "timestamps_transcription.csv")
    table = box / "chest_bounding_box.csv"
    table.write_bytes(table.read_bytes().rstrip()[:-1])
    done = run_etl(data, out)
    (lost,) = (row for row in rejects(out) if row["reason"] == "bad_csv")
    assert lost["reading_id"] == gaze.name and "fixations.csv ends amid a line" in lost["message"]
    notes = json.loads((out / "run.json").read_text())["counts"]["notes"]
    assert notes["tables_perhaps_cut"] == 2 and NOTES["tables_perhaps_cut"] in done.output
    whole = gaze / "fixations.csv"  # without the line's end alone, as some editors save it
    whole.write_bytes((healthy["reflacx"] / "main_data" / gaze.name / whole.name).read_bytes()[:-2])
    run_etl(data, out)
    assert not [row for row in rejects(out) if row["reason"] == "bad_csv"]


def test_of_a_shared_table_the_reading_of_the_last_row_may_be_cut(
    healthy: dict[str, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(healthy["eye_gaze"], tmp_path / "data")
    for name in ("fixations.csv", "master_sheet.csv"):
        (data / name).write_bytes((data / name).read_bytes().rstrip())
    files, source = InputFiles(data), sources()["eye_gaze"]
    plans = [one for plan in source.plan(files) for one in plan.readings]
    cut = {one.reading_id for one in plans if one.tables["fixations"].is_cut}
    with (data / "fixations.csv").open(newline="") as file:
        *_, last = csv.DictReader(file)
    assert cut == {last["DICOM_ID"]}
    assert [one.path for one in files.remarks if "may be cut" in one.what] == ["master_sheet.csv"]


# -- what is odd ----------------------------------------------------------------------------------

NEAR = [(b, e, 1200.0 + x % 90, 1500.0 + y % 70) for b, e, x, y in looks(12)]
ODD = {
    "a single look of 40 ms": (reading([(1.0, 1.04, 900, 900)]), {"words_and_gaze_lengths"}),
    "two looks at the first pixel": (reading([(0, 1, 0, 0), (1, 2, 1, 1)]), set()),
    "one finding looked at": (reading(NEAR), {"gaze_in_a_small_part"}),
    "one pixel looked at, zoomed": (
        reading([(b, e, 1200, 1500) for b, e, _, _ in looks(12)]),
        {"gaze_in_a_small_part"},
    ),
    "one quarter of the image": (
        reading([(b, e, x / 2, y / 2) for b, e, x, y in looks(12)]),
        {"gaze_in_a_small_part"},
    ),
    "most gaze on the buttons": (
        reading([*looks(2), (1.0, 4.0, -500, 900)]),
        {"gaze_mostly_off_image", "fixations_off_image"},
    ),
    "no gaze on the image": (
        reading([(0, 3, -2, -2)]),
        {"readings_without_gaze", "fixations_off_image"},
    ),
    "words ten minutes later": (
        reading(looks(5), [(text, b + 600, e + 600) for text, b, e in SAID]),
        {"words_and_gaze_apart"},
    ),
    "gaze five seconds early": (
        reading([(b - 5, e - 5, x, y) for b, e, x, y in looks(20)]),
        {"gaze_before_the_recording"},
    ),
    "words over two minutes": (
        reading(looks(5), [*SAID, ("effusion", 120.0, 121.0)]),
        {"words_and_gaze_lengths"},
    ),
    "a word that lasts into the next": (
        reading(looks(5), [("heart", 0.8, 1.5), ("normal", 1.1, 1.6)]),
        {"words_overlapping"},
    ),
    "fixations before the recording, of no length": (
        reading([(b - 2, b - 2, x, y) for b, _, x, y in looks(5)]),
        {"readings_without_gaze", "words_and_gaze_apart", "gaze_before_the_recording"},
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_noted_and_left_as_it_is(name: str) -> None:
    raw, names = ODD[name]
    found = checked(raw)
    assert {note for note, number in found.notes.items() if number} == names
    assert set(found.notes) <= set(NOTES)
    assert (gaze_of(found), words_of(found)) == (gaze_of(raw), words_of(raw))


# -- properties -----------------------------------------------------------------------------------


@st.composite
def true_readings(draw: st.DrawFn) -> RawReading:
    """Draw what a tracker and a recogniser may write: a few looks or many, anywhere sensible."""
    number, said = draw(st.integers(1, 40)), draw(st.integers(1, 30))
    spread = draw(st.floats(0, 0.6))  # 0: zoomed in on one place
    centre = draw(st.tuples(st.floats(0.2, 0.8), st.floats(0.2, 0.8)))
    places = draw(st.sampled_from([0, 2, 3]))  # decimals of times
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    begin = np.cumsum(rng.uniform(0.02, 2, number)).round(places or 5)
    end = np.minimum(begin + rng.uniform(0.05, 2, number), np.append(begin[1:], 99.0))
    x, y = np.array([[WIDTH], [HEIGHT]]) * (
        np.array(centre)[:, None] + spread * rng.normal(0, 0.3, (2, number))
    )
    spoken = np.cumsum(rng.choice([0, 0.01, 0.2, 0.5, 3], said)).round(places or 1)
    until = np.append(spoken[1:], spoken[-1] + 0.4)
    words = [("word", *times) for times in zip(spoken, until, strict=True)]
    times = (np.floor(column * 1000) / 1000 if places == 3 else column for column in (begin, end))
    return reading(list(zip(*times, np.floor(x), np.floor(y), strict=True)), words)


@given(raw=true_readings())
def test_a_true_reading_is_never_rejected_nor_changed(raw: RawReading) -> None:
    found = checked(raw)
    assert not mended(found)
    assert (gaze_of(found), words_of(found)) == (gaze_of(raw), words_of(raw))


@st.composite
def doubtful_readings(draw: st.DrawFn) -> RawReading:
    """Draw rows that touch, overlap by a little or more, stand twice or go back by steps."""
    gaze: list[Row] = []
    clock = draw(st.sampled_from([0.0, -0.3, 1.25]))
    for _ in range(draw(st.integers(0, 12))):
        begin = clock + draw(st.sampled_from([0.1, 0.3, 0.001, 0.0, -0.005, -0.0199, -0.02]))
        length = draw(st.sampled_from([0.3, 0.1, 0.02, 0.01, 0.004, 0.0]))
        x = draw(st.sampled_from([700.0, 1500.0, 900.0, -3.0]))
        gaze += [(begin, begin + length, x, 900.0)] * draw(st.sampled_from([1, 1, 1, 2]))
        clock = max(clock, begin + length)
    said: list[Word] = []
    now = 0.2
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.sampled_from([0.3, 0.1, 0.0, -0.05, -0.1]))
        length = draw(st.sampled_from([0.3, 0.1, 0.05, 0.0]))
        text = draw(st.sampled_from(["no", "mass", "."]))
        said += [(text, now, now + length)] * draw(st.sampled_from([1, 1, 1, 2]))
    return reading(gaze, said)


def accepted(raw: RawReading) -> RawReading | None:
    try:
        return checked(raw)
    except BadInputError:
        return None


@given(raw=doubtful_readings())
def test_no_window_of_an_accepted_reading_holds_more_gaze_than_its_seconds(raw: RawReading) -> None:
    found = accepted(raw)
    if found is None:
        return
    gaze = gaze_of(found)
    edges = sorted({edge for begin, end, *_ in gaze for edge in (begin, end)} | {0.33, 1.0})
    for first, last in combinations(edges, 2):
        held = sum(max(0.0, min(end, last) - max(begin, first)) for begin, end, *_ in gaze)
        assert held <= last - first + 1e-9
    begins = [begin for _, begin, _ in words_of(found)]
    assert begins == sorted(begins)
    assert all(end >= begin for _, begin, end in words_of(found))


@given(raw=doubtful_readings())
def test_an_accepted_reading_passes_again_as_it_is(raw: RawReading) -> None:
    found = accepted(raw)
    if found is None:
        return
    again = checked(replace(found, notes={}))
    assert not mended(again)
    assert (gaze_of(again), words_of(again)) == (gaze_of(found), words_of(found))


RENDERED = [
    {},
    {"render": {"level": "word", "window": "pause"}},
    {"render": {"window": "pause", "lead": 1.5}},
    {"render": {"lead": 0.7}, "output": {"privacy": True}},
]


@settings(max_examples=60, deadline=None)
@given(
    raw=doubtful_readings(), scale=st.sampled_from([1, 0.5, 0.37]), more=st.sampled_from(RENDERED)
)
def test_verify_is_content_with_whatever_is_written(
    raw: RawReading, scale: float, more: dict[str, Any]
) -> None:
    size = round(WIDTH * scale), round(HEIGHT * scale)
    found = accepted(raw)
    if found is None or not any(text != "." for text in found.words.text):
        return
    options = with_changes(Options(), more)
    image = FramedImage(frame_of(*size), np.zeros((224, 224), np.uint8))
    columns = reading_columns(check_reading(raw, size), image, options)
    if options.output.privacy:
        columns = without_raw_gaze(columns)
    columns["readings"]["part"] = [0]
    (shard,) = pa.Table.from_pydict(columns.pop("shard"), SHARD).to_pylist()
    tables = {name: pa.Table.from_pydict(columns[name], TABLES[name]) for name in columns}
    assert list(broken_rules(shard, tables, options)) == []


# -- the commands ---------------------------------------------------------------------------------


def change(path: Path, changed: Callable[[list[list[str]]], list[list[str]]]) -> None:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *changed(rows)])


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("healthy")
    for layout in ("reflacx", "eye_gaze"):
        write_tree(root / layout, 12, small=True, seed=3, layout=layout)
    return {layout: root / layout for layout in ("reflacx", "eye_gaze")}


def test_verify_finds_what_was_written_unchecked_and_repair_mends_it(
    healthy: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_cluster: None
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(healthy["reflacx"], data)
    assert run_etl(data, tmp_path / "clean").exit_code == 0
    clean = shards(tmp_path / "clean")
    twice, backwards, padded = sorted(one for _, one in clean)[:3]
    folder = data / "main_data"
    change(folder / twice / "fixations.csv", lambda rows: rows * 2)
    spoken = folder / backwards / "timestamps_transcription.csv"
    change(spoken, lambda rows: [*rows[3:], *rows[:3]])
    with monkeypatch.context() as unchecked:
        unchecked.setattr(making, "check_reading", lambda raw, size: raw)
        assert run_etl(data, out).exit_code == 0
    found = egma_prep("verify", "--out", out)
    assert found.exit_code == 1
    assert f"{twice}: " in found.output and NOTES["fixation_rows_twice"] in found.output
    assert "s of gaze in a window of" in found.output
    assert f"{backwards}: " in found.output and "before it at" in found.output
    assert padded not in found.output
    egma_prep("verify", "--out", out, "--repair")
    assert egma_prep("verify", "--out", out, "--against", data).exit_code == 0
    assert [row["reason"] for row in rejects(out) if row["reading_id"] == backwards] == [
        "reversed_time"
    ]
    mended = shards(out)
    assert mended[("reflacx", twice)] == clean[("reflacx", twice)]


def test_a_scan_announces_what_a_run_would_reject_and_note(
    healthy: dict[str, Path], tmp_path: Path, no_cluster: None
) -> None:
    data = tmp_path / "data"
    shutil.copytree(healthy["reflacx"], data)
    twice, backwards = sorted((data / "main_data").glob("P3*"))[:2]
    change(twice / "fixations.csv", lambda rows: rows * 2)
    change(backwards / "timestamps_transcription.csv", lambda rows: rows[::-1])
    scanned, done = egma_prep("scan", data).stdout, run_etl(data, tmp_path / "out")
    assert "1 reversed_time" in scanned
    noted = [line.strip() for line in scanned.splitlines() if "noted: " in line]
    assert any(NOTES["fixation_rows_twice"] in line for line in noted)
    assert [line.strip() for line in done.output.splitlines() if "noted: " in line] == noted


def test_rows_of_an_excerpt_are_named_as_in_the_file(
    healthy: dict[str, Path], tmp_path: Path, no_cluster: None
) -> None:
    data = tmp_path / "data"
    shutil.copytree(healthy["eye_gaze"], data)
    table = data / "fixations.csv"
    with table.open(newline="") as file:
        header, *rows = csv.reader(file)
    image, begin, valid = (header.index(name) for name in ("DICOM_ID", "FPOGS", "FPOGV"))
    victim = rows[-1][image]
    own = [n for n, row in enumerate(rows) if row[image] == victim and float(row[valid])]
    late, early = own[3], own[4]
    rows[late], rows[early] = rows[early], rows[late]
    change(table, lambda _: rows)
    files, source = InputFiles(data), sources()["eye_gaze"]
    planned = {one.reading_id: one for plan in source.plan(files) for one in plan.readings}
    raw = source.load(planned[victim], files, SourceOptions())
    with pytest.raises(BadInputError) as caught:
        checked(raw)
    assert caught.value.path == "fixations.csv"
    assert f"row {early + 1} begins at {float(rows[early][begin]):g} s" in str(caught.value)
    assert f"but row {late + 1} runs from" in str(caught.value)


def padded(image: Image.Image) -> Image.Image:
    square = Image.new("L", (max(image.size),) * 2)
    square.paste(image, (0, 0))
    return square


def test_an_image_that_was_padded_is_seen_where_no_table_has_its_size(
    healthy: dict[str, Path], tmp_path: Path, no_cluster: None
) -> None:
    data = tmp_path / "data"
    shutil.copytree(healthy["eye_gaze"], data)
    for path in data.rglob("mimic-cxr-2*.csv.gz"):
        path.unlink()
    paths = {path.stem: path for path in sorted(data.rglob("*.jpg"))}
    with (data / "fixations.csv").open(newline="") as file:
        shown = {row["DICOM_ID"] for row in csv.DictReader(file)}
    for name in sorted(shown & set(paths)):
        with Image.open(paths[name]) as image:
            if image.width != image.height:
                victim, other = name, padded(image.convert("L"))
    other.save(paths[victim], "JPEG", quality=95)
    run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    found = [(row["reading_id"], row["reason"]) for row in rejects(tmp_path / "out")]
    assert found == [(victim, "other_aspect")]
