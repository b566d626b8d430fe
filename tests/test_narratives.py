"""Localized Narratives and those of videos: what is read, what is rejected, what cannot harm."""

import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import egma_prep, run_etl
from tables import by_reading, rejects, table

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.options import SourceOptions
from egma_prep.sources import files as input_files
from egma_prep.sources.check_reading import check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.narratives import safe
from egma_prep.sources.reading import typed_reading
from egma_prep.sources.registry import sources
from egma_prep.synth import write_tree

NARRATIVE: dict[str, Any] = {
    "dataset_id": "PHANTOM_val2017",
    "image_id": "42",
    "annotator_id": 7,
    "caption": "In this picture, a box.",
    "timed_caption": [
        {"utterance": "In this", "start_time": 0.1, "end_time": 0.7},
        {"utterance": "picture,", "start_time": 0.7, "end_time": 1.0},
        {"utterance": "a box.", "start_time": 1.2, "end_time": 1.7},
    ],
    "traces": [
        [{"x": 0.25, "y": 0.5, "t": 0.0}, {"x": 0.5, "y": 0.5, "t": 0.4}],
        [{"x": 1.25, "y": -0.5, "t": 0.9}, {"x": 0.75, "y": 0.5, "t": 1.1},
         {"x": 0.75, "y": 0.25, "t": 1.6}],
    ],
    "voice_recording": "PHANTOM.ogg",
}  # fmt: skip
WIDTH, HEIGHT = 40, 20


def write(data: Path, *records: Any, file: str = "coco_val_localized_narratives.jsonl") -> Path:
    """Write lines, texts as they are, and a picture of every image that they name."""
    data.mkdir(exist_ok=True)
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    (data / file).write_text("".join(f"{line}\n" for line in lines))
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, ::2] = (200, 90, 10)
    (data / "val2017").mkdir(exist_ok=True)
    cv2.imwrite(str(data / "val2017" / "000000000042.jpg"), picture)
    return data


def changed(**values: Any) -> dict[str, Any]:
    return NARRATIVE | values


def load(data: Path, images: Path | None = None, source: str = "localized_narratives") -> list:
    files, layout = InputFiles(data, images), sources()[source]
    planned = [one for subject in layout.plan(files) for one in subject.readings]
    return [layout.load(one, files, SourceOptions()) for one in planned]


# -- what a narrative says ------------------------------------------------------------------------


def test_a_narrative_becomes_what_it_says(tmp_path: Path) -> None:
    (raw,) = load(write(tmp_path / "data", NARRATIVE))
    assert (raw.reading_id, raw.subject_id) == ("PHANTOM_val2017-42-7", "PHANTOM_val2017-42")
    assert (raw.dicom_id, raw.study_id) == ("PHANTOM_val2017-42", "PHANTOM_val2017-42-7")
    assert (raw.split, raw.view, raw.width, raw.height) == ("validate", None, WIDTH, HEIGHT)
    # A share s of the width is s * width - 0.5; the last sample of each entry has no length.
    begin_s, end_s, x, y = raw.fixations[:4]
    assert begin_s.tolist() == [0.0, 0.4, 0.9, 1.1, 1.6]
    assert end_s.tolist() == [0.4, 0.4, 1.1, 1.6, 1.6]
    assert x.tolist() == [9.5, 19.5, 49.5, 29.5, 29.5]
    assert y.tolist() == [9.5, 9.5, -10.5, 9.5, 4.5]
    # "In this" shares 0.6 s by two and four letters.
    assert raw.words.text == ["In", "this", "picture,", "a", "box."]
    np.testing.assert_allclose(raw.words.begin_s, [0.1, 0.3, 0.7, 1.2, 1.3])
    np.testing.assert_allclose(raw.words.end_s, [0.3, 0.7, 1.0, 1.3, 1.7])


@pytest.mark.parametrize(
    ("dataset", "split"),
    [
        ("mscoco_val2017", "validate"), ("mscoco_train2017", "train"),
        ("open_images_validation", "validate"), ("open_images_test", "test"),
        ("Flick30k_test", "test"), ("ADE20k_validation", "validate"), ("trainspotting", None),
    ],
)  # fmt: skip
def test_a_split_is_told_by_the_datasets_name(
    tmp_path: Path, dataset: str, split: str | None
) -> None:
    (raw,) = load(write(tmp_path / "data", changed(dataset_id=dataset)))
    assert raw.split == split
    assert raw.notes.get("without_split", 0) == (split is None)


def test_pictures_may_lie_elsewhere_unpadded_or_in_their_datasets_folder(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE)
    (data / "val2017").rename(tmp_path / "val2017")
    for images, name in ((tmp_path, "val2017/000000000042.jpg"), (tmp_path / "val2017", "42.jpg")):
        if name == "42.jpg":
            (images / "000000000042.jpg").rename(images / name)
        (raw,) = load(data, images)
        assert raw.image_path == f"images:{name}"
    alone = run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    assert alone.exit_code == 2
    assert "42.jpg is missing: give the folder of the pictures by --images DIR" in alone.output


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A phantom tree and its run."""
    root = tmp_path_factory.mktemp("narratives")
    write_tree(root / "data", 24, small=True, seed=3, layout="localized_narratives")
    done = run_etl(root / "data", root / "out")
    assert done.exit_code == 0, done.output
    return root / "data", root / "out"


@pytest.mark.parametrize("name", ["words", "fixations", "sentences", "alignment"])
def test_phantoms_give_what_is_true_of_them(ran: tuple[Path, Path], name: str) -> None:
    data, out = ran
    truth = json.loads((data / "PHANTOM-truth.json").read_text())["readings"]
    found = by_reading(table(out, name))
    kept = [one for one in truth if not one["reject"]]
    assert {key for _, key in found} == {one["reading_id"] for one in kept} and len(kept) > 20
    for one in kept:
        rows = found["localized_narratives", one["reading_id"]]
        if name == "words":
            texts, times = (
                [row["text"] for row in rows],
                [(row["begin"], row["end"]) for row in rows],
            )
            assert texts == [token["text"] for token in one["tokens"]]
            np.testing.assert_allclose(times, [(t["begin"], t["end"]) for t in one["tokens"]])
        elif name == "sentences":
            assert [row["text"] for row in rows] == [each["text"] for each in one["sentences"]]
            spans = [(row["first_word"], row["last_word"]) for row in rows]
            assert spans == [(s["first_token"], s["last_token"]) for s in one["sentences"]]
        elif name == "fixations":
            told = [[row[key] for key in ("begin", "end", "x", "y")] for row in rows]
            true = [[each[key] for key in ("begin", "end", "x", "y")] for each in one["fixations"]]
            np.testing.assert_allclose(told, true, atol=1e-6)
        else:
            pairs = {(row["word_index"], row["fixation_index"]): row["seconds"] for row in rows}
            true_s = {(word, look): seconds for word, look, seconds in one["alignment"]}
            assert {key for key, s in pairs.items() if s > 1e-9} == {
                key for key, s in true_s.items() if s > 1e-9
            }
            assert all(abs(pairs.get(key, 0) - s) < 1e-6 for key, s in true_s.items())


def test_readings_of_a_picture_share_its_image_and_its_part(ran: tuple[Path, Path]) -> None:
    rows = table(ran[1], "readings")
    parts = defaultdict(set)
    for row in rows:
        parts[row["dicom_id"]].add((row["part"], row["split"]))
        assert row["subject_id"] == row["dicom_id"]
    assert len(parts) < len(rows)
    assert all(len(found) == 1 for found in parts.values())


# -- what is rejected -----------------------------------------------------------------------------

BROKEN: dict[str, tuple[Any, str]] = {
    "a line that is no JSON": ('{"dataset_id": "PHANT', "bad_json"),
    "a line that is a list": ("[1, 2]", "bad_json"),
    "a line of a number": ("7", "bad_json"),
    "a line of brackets without end": ("[" * 100_000, "bad_json"),
    "a line that is cut amid its trace": (
        json.dumps(NARRATIVE | {"annotator_id": 104})[:-40], "bad_json",
    ),
    "an id twice": (
        json.dumps(NARRATIVE | {"annotator_id": 105})[:-1] + ', "image_id": "43"}', "bad_json",
    ),
    "no annotator": (changed(annotator_id=None), "bad_json"),
    "an image that is a list": (changed(image_id=["42"]), "bad_json"),
    "no trace": ({k: v for k, v in NARRATIVE.items() if k != "traces"}, "bad_json"),
    "an empty trace": (changed(traces=[[], []]), "no_fixations"),
    "a trace that is not in entries": (changed(traces=NARRATIVE["traces"][0]), "bad_json"),
    "a sample without y": (changed(traces=[[{"x": 0.5, "t": 0.0}]]), "bad_json"),
    "a sample that is text": (changed(traces=[[{"x": "left", "y": 0, "t": 0}]]), "bad_number"),
    "a sample at infinity": (changed(traces=[[{"x": 1e999, "y": 0, "t": 0}]]), "bad_number"),
    "a sample that is true": (changed(traces=[[{"x": True, "y": 0, "t": 0}]]), "bad_json"),
    "a trace in pixels": (changed(traces=[[{"x": 320, "y": 12, "t": 0}]]), "bad_number"),
    "a trace that runs backwards": (
        changed(traces=[[{"x": 0, "y": 0, "t": 2}, {"x": 0, "y": 0, "t": 1}]]), "reversed_time",
    ),
    "a trace in milliseconds": (
        changed(traces=[[{"x": 0, "y": 0, "t": 0}, {"x": 0, "y": 0, "t": 9000}]]),
        "implausible_time",
    ),
    "entries out of order": (
        changed(traces=NARRATIVE["traces"][::-1]), "reversed_time",
    ),
    "no words": (changed(timed_caption=[]), "empty_transcript"),
    "words that are no list": (changed(timed_caption="In this"), "bad_json"),
    "a word without an end": (
        changed(timed_caption=[{"utterance": "In", "start_time": 0.1}]), "bad_json",
    ),
    "half a character": (
        changed(timed_caption=[{"utterance": "\ud800", "start_time": 0, "end_time": 1}]),
        "bad_json",
    ),
    "words out of order": (
        changed(timed_caption=NARRATIVE["timed_caption"][::-1]), "reversed_time",
    ),
    "a word that ends before it begins": (
        changed(timed_caption=[{"utterance": "In", "start_time": 1, "end_time": 0}]),
        "reversed_time",
    ),
    "a picture that is not there": (changed(image_id="43"), "missing_file"),
    "an image that leads out": (changed(image_id="../../42"), "bad_id"),
    "an image at the root": (changed(image_id="/etc/passwd"), "bad_id"),
    "an image of a name without end": (changed(image_id="4" * 5000), "bad_id"),
}  # fmt: skip


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tree of all of them beside a sound one, and its run."""
    root = tmp_path_factory.mktemp("broken")
    lines = [
        line | {"annotator_id": line["annotator_id"] and 100 + at}
        if isinstance(line, dict)
        else line
        for at, (line, _) in enumerate(BROKEN.values())
    ]
    data = write(root / "data", *lines, NARRATIVE)
    result = run_etl(data, root / "out", "--max-reject-share", 1)
    assert result.exit_code == 0, result.output
    more = len(BROKEN)
    assert (
        f"planned {more + 1} = written 1 (localized_narratives 1) + rejected {more}"
        in result.output
    )
    return data, root / "out"


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_narrative_is_rejected_and_the_run_goes_on(
    broken: tuple[Path, Path], what: str
) -> None:
    at = [*BROKEN].index(what)
    own = [
        row
        for row in rejects(broken[1])
        if re.search(rf"jsonl, line {at + 1}\b", row["message"])
        or (row["reading_id"] or "").split("-")[-1] == str(100 + at)
        or (row["reading_id"] or "").split("-")[-2:-1] == [str(100 + at)]
        or ("4444" in (row["reading_id"] or "") and what == "an image of a name without end")
    ]
    assert [row["reason"] for row in own] == [BROKEN[what][1]]
    assert len(own[0]["message"]) < 700 and "\n" not in own[0]["message"]


def test_a_tree_of_broken_narratives_is_verified_and_scanned(broken: tuple[Path, Path]) -> None:
    data, out = broken
    checked = egma_prep("verify", "--out", out, "--against", data)
    assert checked.exit_code == 0, checked.output
    scanned = egma_prep("scan", data)
    assert scanned.exit_code == 0 and f"would be rejected: {len(BROKEN)}" in scanned.output


def test_a_line_without_end_is_rejected_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_files, "MAX_LINE_BYTES", 4096)
    data = write(tmp_path / "data", json.dumps(changed(caption="x" * 9000)), NARRATIVE)
    result = run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    assert "jsonl, line 1 has 9," in result.output and "(oversized)" in result.output
    assert "written 1" in result.output


def test_a_narrative_that_stands_twice_counts_once(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE, "", NARRATIVE)
    shutil.copy(
        data / "coco_val_localized_narratives.jsonl",
        data / "coco_val_localized_narratives (1).jsonl",
    )
    result = run_etl(data, tmp_path / "out")
    assert "planned 1 = written 1" in result.output, result.output


def test_narratives_of_one_key_that_differ_are_both_rejected(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE, changed(caption="other"), changed(annotator_id=8))
    result = run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    assert "rejected PHANTOM_val2017-42-7 (duplicate_id)" in result.output
    assert "written 1" in result.output


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a b", "1"), ("a_b", "1")),
        (("a/b", "1"), ("a?b", "1")),
        (("a-b", "1"), ("a", "b-1")),
        ((".a", "1"), ("a", "1")),
        (("a" * 200, "1"), ("a" * 201, "1")),
        (("\ud800", "1"), ("\ud801", "1")),
    ],
)
def test_ids_that_had_to_be_changed_stay_apart(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert safe(*one) != safe(*other)


# -- files that are too large to keep -------------------------------------------------------------


def test_lines_that_moved_make_nothing_again(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE)
    assert run_etl(data, tmp_path / "out").exit_code == 0
    file = data / "coco_val_localized_narratives.jsonl"
    file.write_text("\n\n" + file.read_text().replace("\n", "\r\n"))
    assert "nothing to do" in run_etl(data, tmp_path / "out").output
    file.write_text(file.read_text().replace("1.7", "1.6"))
    assert "again, other metadata" in run_etl(data, tmp_path / "out").output


def test_a_file_that_changes_under_a_run_stops_it(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE)
    files, layout = InputFiles(data), sources()["localized_narratives"]
    (planned,) = [one for subject in layout.plan(files) for one in subject.readings]
    file = data / "coco_val_localized_narratives.jsonl"
    for change in (lambda: file.write_text("x" + file.read_text()), file.unlink):
        change()
        with pytest.raises(BadUsageError, match=r"jsonl (changed while|cannot be read)"):
            layout.load(planned, files, SourceOptions())


def test_an_archive_of_pictures_is_told_of(tmp_path: Path) -> None:
    data = write(tmp_path / "data", NARRATIVE)
    (data / "val2017" / "000000000042.jpg").rename(data / "42.jpg")
    (data / "val2017").rmdir()
    (data / "val2017.zip").write_bytes(b"PK")
    assert "val2017.zip: still packed" in run_etl(data, tmp_path / "out").output


# -- degrees, and terms ---------------------------------------------------------------------------


def test_degrees_that_nobody_knows_are_refused(ran: tuple[Path, Path], tmp_path: Path) -> None:
    data, out = ran
    asked = run_etl(data, tmp_path / "out", "--sigma", "1deg")
    again = egma_prep("render-heatmaps", "--out", out, "--sigma", "1deg")
    for result in (asked, again):
        assert result.exit_code == 2
        assert "localized_narratives does not tell how wide its images were" in result.stderr
    assert "pixels a degree" not in egma_prep("scan", data).output


# -- real stories of videos -----------------------------------------------------------------------

HOMES = [above / "shared" / "real" / "gaze" / "vidln" for above in Path(__file__).parents]
REAL = next((home for home in HOMES if home.is_dir()), HOMES[0])
real = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real beside the checkout")

# By file, line and story: samples by frame, words, the first and last one and their times in ms.
STORIES = {
    ("OVIS_train", 0, 0): ({5: 171, 6: 111, 8: 117}, 10, "A", 2360, "road.", 21070),
    ("OVIS_train", 0, 1): ({9: 915}, 39, "In", 2380, "sky.", 91850),
    ("OVIS_train", 1, 0): ({5: 127, 6: 66, 7: 72}, 12, "A", 4000, "tiger.", 22550),
    ("OVIS_train", 1, 1): ({6: 127, 8: 79, 9: 59}, 12, "Another", 2460, "tiger.", 19430),
    ("OVIS_train", 1, 2): ({0: 666}, 18, "In", 1890, "sky.", 30680),
    ("OVIS_train", 2, 0): ({0: 409, 1: 371, 7: 311}, 14, "A", 3880, "land.", 60450),
    ("OVIS_train", 2, 1): ({1: 426}, 13, "In", 2230, "fences.", 27710),
    ("oops_train", 0, 0): ({0: 180, 1: 57, 8: 101, 9: 71}, 34, "A", 1830, "left.", 32530),
    ("oops_train", 0, 1): ({4: 94, 7: 110, 9: 127}, 36, "A", 3460, "cake.", 42030),
    ("oops_train", 0, 2): ({0: 92, 6: 38, 7: 29}, 12, "Another", 2870, "side.", 15730),
    ("oops_train", 0, 3): ({1: 121, 3: 64, 9: 62}, 28, "A", 4300, "mouth.", 34220),
    ("oops_train", 0, 4): ({1: 409}, 27, "In", 2500, "sky.", 28040),
    ("oops_train", 1, 0): ({0: 117, 2: 122, 5: 70, 8: 169}, 23, "A", 3750, "surface.", 42600),
    ("oops_train", 1, 1): ({0: 145, 2: 88, 4: 33, 9: 26}, 17, "A", 3580, "air.", 28620),
    ("oops_train", 1, 2): ({0: 206, 4: 107, 8: 123}, 26, "Another", 4410, "surface.", 39610),
    ("oops_train", 1, 3): ({9: 155}, 24, "In", 2950, "audible.", 29840),
    ("oops_train", 2, 0): ({0: 218, 3: 135, 9: 185}, 21, "A", 2770, "laughing.", 33050),
    ("oops_train", 2, 1): ({1: 260, 3: 190, 8: 196}, 30, "Another", 3560, "floor.", 45940),
    ("oops_train", 2, 2): ({0: 198, 1: 122, 2: 146}, 12, "The", 4030, "drinking.", 26780),
    ("oops_train", 2, 3): ({7: 306, 8: 164, 9: 179}, 16, "The", 4350, "him.", 35160),
    ("oops_train", 2, 4): ({5: 211, 6: 209}, 23, "The", 4200, "man.", 30150),
    ("oops_train", 2, 5): ({1: 442}, 35, "In", 390, "bucket.", 39730),
}
FRAME_PX = (320, 180)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    """The real files, blank pictures as their frames, and the stories as JSON has them."""
    root, told = tmp_path_factory.mktemp("videos"), {}
    blank = np.full((FRAME_PX[1], FRAME_PX[0], 3), 90, np.uint8)
    blank[:, ::5] = (40, 160, 220)
    picture = cv2.imencode(".png", blank)[1].tobytes()
    (root / "data").mkdir()
    for path in REAL.glob("*.jsonl"):
        (root / "data" / path.name).write_bytes(path.read_bytes())
        for at, line in enumerate(path.read_text().splitlines()):
            video = json.loads(line)
            folder = root / "frames" / video["dataset_id"] / video["video_id"]
            folder.mkdir(parents=True)
            for name in video["keyframe_names"]:
                (folder / f"{name}.png").write_bytes(picture)
            for number, story in enumerate(video["actor_narratives"]):
                told[video["dataset_id"], at, number] = video, story
    return root / "data", root / "frames", told


def read_stories(videos: tuple[Path, Path, dict]) -> dict[tuple[str, int, int], dict[int, Any]]:
    data, frames, _ = videos
    files, layout = InputFiles(data, frames), sources()["video_localized_narratives"]
    found: dict[tuple[str, int, int], dict[int, Any]] = defaultdict(dict)
    for subject in layout.plan(files):
        assert not subject.rejects
        for planned in subject.readings:
            raw = layout.load(planned, files, SourceOptions())
            key = planned.row["dataset"], planned.line.number - 1, int(planned.row["story"])
            found[key][int(planned.row["frame"])] = raw
    return found


@real
def test_all_22_real_stories_are_read(videos: tuple[Path, Path, dict]) -> None:
    found = read_stories(videos)
    assert found.keys() == STORIES.keys() == videos[2].keys() and len(found) == 22
    for key, (samples, words, first, begin_ms, last, end_ms) in STORIES.items():
        assert {frame: len(raw.fixations.begin_s) for frame, raw in found[key].items()} == samples
        for raw in found[key].values():
            assert (len(raw.words.text), raw.split) == (words, "train")
            assert (raw.words.text[0], raw.words.text[-1]) == (first, last)
            assert raw.words.begin_s[0] == pytest.approx(begin_ms / 1000)
            assert raw.words.end_s[-1] == pytest.approx(end_ms / 1000)


@real
def test_each_real_story_has_the_samples_and_the_text_of_its_file(
    videos: tuple[Path, Path, dict],
) -> None:
    found = read_stories(videos)
    for key, (_, story) in videos[2].items():
        start_ms = story["recording_start_time_ms_since_epoch"]
        rows = defaultdict(list)
        for entry in story["traces"]:
            for one, after in pairwise([*entry, entry[-1]]):
                rows[one["kf_idx"]].append(
                    [
                        (one["time_ms_since_epoch"] - start_ms) / 1000,
                        (after["time_ms_since_epoch"] - start_ms) / 1000,
                        one["x"] * FRAME_PX[0] - 0.5,
                        one["y"] * FRAME_PX[1] - 0.5,
                    ]
                )
        assert found[key].keys() == rows.keys()
        for frame, raw in found[key].items():
            np.testing.assert_allclose(np.array(raw.fixations[:4]).T, rows[frame], atol=1e-9)
            assert " ".join(raw.words.text) == " ".join(story["caption"].split())
            told = [(one["start_ms"], one["end_ms"]) for one in story["time_alignment"]]
            times_s = np.array(raw.words[1:]).T
            np.testing.assert_allclose(times_s * 1000, told, atol=1e-6)


@real
@pytest.mark.parametrize(
    ("key", "frame", "at", "row"),
    [  # by hand: begin and end in ms, shares of width and height
        (("OVIS_train", 0, 0), 5, 0, (1609, 1637, 0.74895, 0.32929)),
        (("OVIS_train", 0, 0), 5, 1, (1637, 1670, 0.75175, 0.32929)),
        (("OVIS_train", 0, 0), 5, 50, (3320, 3320, 0.96795, 0.38919)),
        (("OVIS_train", 0, 0), 6, 0, (3812, 3836, 0.11677, 0.52895)),
        (("OVIS_train", 0, 0), 6, 7, (3954, 3954, 0.17012, 0.63378)),
        (("oops_train", 2, 0), 0, 0, (1533, 1550, 0.47629, 0.36882)),
        (("oops_train", 2, 0), 0, 1, (1550, 1566, 0.48287, 0.35419)),
        (("oops_train", 2, 0), 0, 2, (1566, 1583, 0.4911, 0.33371)),
        (("oops_train", 2, 0), 0, 3, (1583, 1599, 0.49768, 0.31323)),
        (("oops_train", 2, 0), 0, 4, (1599, 1616, 0.50591, 0.28689)),
    ],
)
def test_rows_read_by_hand_are_read_so(
    videos: tuple[Path, Path, dict], key: tuple, frame: int, at: int, row: tuple
) -> None:
    gaze = read_stories(videos)[key][frame].fixations
    begin_ms, end_ms, x, y = row
    assert gaze.begin_s[at] * 1000 == pytest.approx(begin_ms)
    assert gaze.end_s[at] * 1000 == pytest.approx(end_ms)
    assert (gaze.x_px[at] + 0.5) / FRAME_PX[0] == pytest.approx(x)
    assert (gaze.y_px[at] + 0.5) / FRAME_PX[1] == pytest.approx(y)


@real
def test_the_real_stories_run_end_to_end(videos: tuple[Path, Path, dict], tmp_path: Path) -> None:
    data, frames, _ = videos
    done = run_etl(data, tmp_path / "out", "--images", frames)
    assert done.exit_code == 0, done.output
    assert "planned 56 = written 56 (video_localized_narratives 56)" in done.output
    checked = egma_prep(
        "verify", "--out", tmp_path / "out", "--against", data, "--images", frames, "--sample", 56
    )
    assert checked.exit_code == 0, checked.output
    videos_of = {row["subject_id"] for row in table(tmp_path / "out", "readings")}
    assert len(videos_of) == 6


BAD_STORIES: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no traces": (lambda story: story.pop("traces"), "bad_json"),
    "no start": (lambda story: story.pop("recording_start_time_ms_since_epoch"), "bad_json"),
    "a frame that is not there": (
        lambda story: story["traces"][0][0].update(kf_idx=9),
        "bad_number",
    ),
    "half a frame": (lambda story: story["traces"][0][0].update(kf_idx=0.5), "bad_number"),
    "a word without a time": (lambda story: story["time_alignment"][0].pop("end_ms"), "bad_json"),
}


@pytest.mark.parametrize("what", BAD_STORIES)
def test_a_broken_story_costs_no_other(tmp_path: Path, what: str) -> None:
    from example_trees import video_localized_narratives as example

    picture = tmp_path / "picture.jpg"
    cv2.imwrite(str(picture), np.full((90, 160, 3), 80, np.uint8))
    example.write(tmp_path / "data", picture)
    spoil, reason = BAD_STORIES[what]
    video = json.loads(json.dumps(example.VIDEO))
    spoil(video["actor_narratives"][1])
    (tmp_path / "data" / "PHANTOM_train.jsonl").write_text(json.dumps(video))
    result = run_etl(tmp_path / "data", tmp_path / "out", "--max-reject-share", 1)
    assert "planned 3 = written 2" in result.output, result.output
    assert f"({reason})" in result.output


def test_words_of_a_story_do_without_their_places_in_the_caption(tmp_path: Path) -> None:
    from example_trees import video_localized_narratives as example

    picture = tmp_path / "picture.jpg"
    cv2.imwrite(str(picture), np.full((90, 160, 3), 80, np.uint8))
    example.write(tmp_path / "data", picture)
    video = json.loads(json.dumps(example.VIDEO))
    stories = video["actor_narratives"]
    stories[0]["time_alignment"][2]["referenced_word_start_idx"] = 1
    stories[1].pop("caption")
    (tmp_path / "data" / "PHANTOM_train.jsonl").write_text(
        f"{json.dumps(video)}\n{json.dumps(video | {'actor_narratives': []})}\n"
    )
    raws = load(tmp_path / "data", source="video_localized_narratives")
    said = {tuple(raw.words.text) for raw in raws}
    assert said == {("The", "heart", "which", "large"), ("No", "effusion")}


def test_words_of_a_story_have_its_punctuation_and_those_no_sound_matched(tmp_path: Path) -> None:
    from example_trees import video_localized_narratives as example

    picture = tmp_path / "picture.jpg"
    cv2.imwrite(str(picture), np.full((90, 160, 3), 80, np.uint8))
    example.write(tmp_path / "data", picture)
    raws = load(tmp_path / "data", source="video_localized_narratives")
    assert {raw.reading_id.rpartition("-")[0][-1] for raw in raws} == {"0", "1"}
    first = next(raw for raw in raws if len(raw.words.text) == 5)
    assert first.words.text == ["The", "heart,", "which", "is", "large."]  # "is" has no time
    np.testing.assert_allclose(first.words.begin_s, [0.5, 0.7, 1.0, 1.0 + 0.2 * 5 / 7, 1.5])


# -- damaged at random ----------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["localized_narratives", "video_localized_narratives"])
def test_damaged_lines_are_read_as_they_are_or_rejected(
    tmp_path: Path, campaign: Any, source: str
) -> None:
    from example_trees import video_localized_narratives as example

    data = write(tmp_path / "data", NARRATIVE)
    file = data / "coco_val_localized_narratives.jsonl"
    if source != "localized_narratives":
        shutil.rmtree(data)
        picture = tmp_path / "picture.png"
        cv2.imwrite(str(picture), np.full((90, 160, 3), 80, np.uint8))
        example.write(data, picture)
        file = data / "PHANTOM_train.jsonl"
    sound, layout, draw = file.read_bytes(), sources()[source], np.random.default_rng(1)
    seen: Counter[str] = Counter()
    for _ in range(campaign.inputs):
        damaged = bytearray(sound)
        for _ in range(int(draw.integers(1, 4))):
            at = int(draw.integers(len(damaged)))
            kind = int(draw.integers(4))
            if kind == 0:
                damaged[at] = int(draw.integers(256))
            elif kind == 1:
                del damaged[at : at + int(draw.integers(1, 30))]
            elif kind == 2:
                damaged[at:at] = damaged[at : at + int(draw.integers(1, 60))]
            else:
                damaged[at:at] = str(
                    draw.choice(["1e999", "-", "null", "[", '"', "9" * 400])
                ).encode()
        file.write_bytes(damaged)
        files = InputFiles(data)
        for subject in layout.plan(files):
            seen.update(reject.reason for reject in subject.rejects)
            for planned in subject.readings:
                try:
                    raw = typed_reading(layout.load(planned, files, SourceOptions()), planned)
                    check_reading(raw, (raw.width, raw.height))
                    seen["read"] += 1
                except BadInputError as error:
                    seen[error.reason] += 1
    assert seen["read"] and seen["bad_json"] and "wrong_type" not in seen
    campaign.say(f"{source}: {campaign.inputs} damaged files", seen)
