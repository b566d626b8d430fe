"""A scan tells what a run would do, and how the documents' claims fare, without rows or ids."""

import json
import re
import shutil
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import egma_prep, run_etl

from egma_prep.synth import write_tree


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("scan")
    for layout in ("mimic_eye", "reflacx", "eye_gaze"):
        write_tree(root / layout, 24, small=True, seed=3, layout=layout)
    return {layout: root / layout for layout in ("mimic_eye", "reflacx", "eye_gaze")}


def scan(data: Path, *more: object) -> str:
    result = egma_prep("scan", data, *more)
    assert result.exit_code == 0, result.output
    return result.stdout


def outcome(text: str, statement: str) -> tuple[int, int]:
    found = re.search(rf"^ +(\d+) +(\d+) +{re.escape(statement)}$", text, re.MULTILINE)
    assert found, f"{statement!r} is not in\n{text}"
    return int(found[1]), int(found[2])


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx", "eye_gaze"])
def test_a_scan_announces_what_the_run_does(
    layout: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    text = scan(trees[layout])
    run_etl(trees[layout], tmp_path / "out")
    counts = json.loads((tmp_path / "out" / "run.json").read_text())["counts"]
    assert text.startswith(f"{layout} tree of ")
    listed = dict(re.findall(r"^  (reflacx|eye_gaze) +(\d+) ", text, re.MULTILINE))
    assert sum(map(int, listed.values())) == counts["planned"]
    assert f"would be rejected: {counts['rejected']}\n" in text
    for reason, number in counts["rejected_by_reason"].items():
        assert f"  {number} {reason}\n" in text
    assert "3052 readings" in text or "1083 readings" in text
    assert re.search(r"needs about [\d.]+ GB in --out and [\d.]+ minutes with \d+ workers", text)


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx", "eye_gaze"])
def test_a_scan_shows_no_id_no_row_no_path(layout: str, trees: dict[str, Path]) -> None:
    text = scan(trees[layout])
    truth = json.loads((trees[layout] / "PHANTOM-truth.json").read_text())["readings"]
    for reading in truth:
        for secret in ("reading_id", "subject_id", "study_id", "dicom_id"):
            assert reading[secret] not in text
        for sentence in reading["sentences"]:
            assert sentence["text"] not in text
    assert str(trees[layout]) not in text
    assert not re.search(r"\b9\d{7}\b|[0-9a-f]{8}-", text)


def test_a_scan_writes_nothing(trees: dict[str, Path]) -> None:
    before = {path: path.stat().st_mtime_ns for path in trees["reflacx"].rglob("*")}
    scan(trees["reflacx"])
    assert {path: path.stat().st_mtime_ns for path in trees["reflacx"].rglob("*")} == before


def rewrite(data: Path, name: str, change: Callable[[list[str]], list[str]]) -> None:
    lines = (data / name).read_text().split("\n")
    (data / name).write_text("\n".join(change(lines)))


def cell(number: int, value: Callable[[str], str]) -> Callable[[list[str]], list[str]]:
    """Change a column of every row."""

    def change(lines: list[str]) -> list[str]:
        rows = [line.split(",") for line in lines]
        for row in rows[1:-1]:
            row[number] = value(row[number])
        return [",".join(row) for row in rows]

    return change


FPOGD, FPOGID, FPOGV, DICOM_ID, X, Y = 9, 10, 11, 2, 35, 36
CLAIMS = {
    "eye_gaze: Time is FPOGS + FPOGD": ("fixations.csv", cell(FPOGD, lambda s: str(float(s) + 1))),
    "eye_gaze: FPOGID is a whole number": ("fixations.csv", cell(FPOGID, lambda s: s + ".5")),
    "eye_gaze: X_ORIGINAL follows from FPOGX and the pads": (
        "fixations.csv", cell(X, lambda s: s if int(s) < 0 else str(int(s) // 2)),
    ),
    "eye_gaze: Y_ORIGINAL follows from FPOGY over 1080 lines": (
        "fixations.csv", cell(Y, lambda s: s if int(s) < 0 else str(int(s) * 1080 // 1024 + 9)),
    ),
    "eye_gaze: samples' DICOM ids have at most 44 characters": (
        "eye_gaze.csv", cell(DICOM_ID, lambda s: s + "7"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_that_fails_is_counted_as_broken(
    claim: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    name, change = CLAIMS[claim]
    held, broken = outcome(scan(trees["eye_gaze"]), claim)
    assert held > 50 and broken == 0
    shutil.copytree(trees["eye_gaze"], tmp_path / "tree")
    rewrite(tmp_path / "tree", name, change)
    assert outcome(scan(tmp_path / "tree"), claim)[1] > 50


def test_an_image_of_another_size_is_counted(trees: dict[str, Path], tmp_path: Path) -> None:
    claim = "an image has the size that the metadata give"
    held, broken = outcome(scan(trees["reflacx"]), claim)
    assert held > 10 and broken == 0
    shutil.copytree(trees["reflacx"], tmp_path / "tree")
    table = "main_data/metadata_phase_3.csv"
    rewrite(tmp_path / "tree", table, cell(6, lambda s: str(int(s) + 2)))
    assert outcome(scan(tmp_path / "tree"), claim)[1] > 5


def test_the_length_of_real_audio_is_measured(trees: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(trees["eye_gaze"], tmp_path / "tree")
    for path in (tmp_path / "tree").rglob("audio.wav"):
        with wave.open(str(path), "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(1)
            sound.setframerate(100)
            sound.writeframes(bytes(1250))
    text = scan(tmp_path / "tree")
    assert outcome(text, "eye_gaze: audio.wav is a WAV file")[1] == 0
    assert re.search(r"12\.5 +eye_gaze: seconds of audio a reading", text)


@pytest.mark.parametrize("spelling", ["Hosp", "Hsop", "Core"])
def test_the_spelling_of_a_folder_is_told(
    spelling: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(trees["mimic_eye"], tmp_path / "tree")
    patients = list((tmp_path / "tree").glob("patient_*"))
    for patient in patients:
        (patient / spelling).mkdir()
    text = scan(tmp_path / "tree")
    assert outcome(text, f"mimic_eye: a patient has a folder {spelling}") == (len(patients), 0)
    assert outcome(text, "mimic_eye: the sheet eye_gaze.csv is fixations.csv") == (1, 0)


def test_a_canvas_that_was_letterboxed_can_be_told(tmp_path: Path) -> None:
    def scale(data: Path) -> float:
        found = re.search(r"down the image ([\d.]+) times as far as across", scan(data))
        assert found
        return float(found[1])

    write_tree(tmp_path / "tree", 160, small=True, seed=3, layout="eye_gaze")
    heights = json.loads((tmp_path / "tree" / "PHANTOM-truth.json").read_text())["readings"]
    height = {reading["dicom_id"]: reading["height"] for reading in heights}
    filled = scale(tmp_path / "tree")

    def letterbox(lines: list[str]) -> list[str]:
        rows = [line.split(",") for line in lines]
        for row in rows[1:-1]:
            middle = height.get(row[DICOM_ID], 0) / 2
            if int(row[Y]) >= 0:
                row[Y] = str(round(middle + (int(row[Y]) - middle) * 1024 / 1080))
        return [",".join(row) for row in rows]

    rewrite(tmp_path / "tree", "fixations.csv", letterbox)
    assert filled == pytest.approx(1, abs=0.1)
    assert scale(tmp_path / "tree") / filled == pytest.approx(1024 / 1080, abs=0.01)
