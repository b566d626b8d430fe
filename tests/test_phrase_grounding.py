"""Phrases against boxes: masks by loops over pixels, figures by hand, what a table may hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import egma_eval, save_tiny_model, write_picture, written

from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.grounding import measured_as_biovil
from egma_train.evaluate.images.frames import read_frame
from egma_train.evaluate.phrase_grounding import (
    Phrase,
    mask_of,
    phrase_grounding,
    read_boxes,
)

HEADER = "category_name,label_text,path,x,y,w,h,dicom_id,image_width,image_height"


def row(patient: int, text: str, *box: float, size: tuple[int, int] = (300, 200)) -> str:
    path = f"files/p90/p9000000{patient}/s1/d{patient}.jpg"
    numbers = ",".join(map(str, box))
    return f"Pneumonia,{text},{path},{numbers},d{patient},{size[0]},{size[1]}"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Four patients' pictures and boxes, one of them lost, and an untrained model."""
    root = tmp_path_factory.mktemp("boxes")
    rng = np.random.default_rng(0)
    rows = [
        row(1, "left opacity", 10, 20, 100, 50), row(1, "left opacity", 150, 100, 60, 60),
        row(1, "effusion", 200, 150, 90, 40), row(2, "right opacity", 0, 0, 80, 100),
        row(3, "lost", 0, 0, 80, 100), row(4, "of another shape", 0, 0, 50, 50, size=(200, 200)),
    ]  # fmt: skip
    (root / "boxes.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    for patient in (1, 2, 4):
        place = root / "images" / f"files/p90/p9000000{patient}/s1/d{patient}.jpg"
        write_picture(place, rng.integers(0, 255, (200, 300)).astype(np.uint8))
    return root, save_tiny_model(root / "untrained")


def test_boxes_of_one_phrase_belong_together(made: tuple[Path, Path]) -> None:
    boxed = read_boxes(made[0] / "boxes.csv")
    assert [[phrase.text for phrase in one.phrases] for one in boxed] == [
        ["left opacity", "effusion"], ["right opacity"], ["lost"], ["of another shape"],
    ]  # fmt: skip
    assert boxed[0].phrases[0].boxes == [(10, 20, 100, 50), (150, 100, 60, 60)]


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (448, 448)])
def test_a_mask_is_what_a_loop_over_pixels_finds(size: tuple[int, int]) -> None:
    phrase = Phrase("x", [(20, 30, 70, 40), (100, 120, 55, 33)])
    mask = mask_of(phrase, size)
    scale = max(size) / 224
    for v in range(0, 224, 3):
        for u in range(0, 224, 3):
            x = (u + 0.5 - 112) * scale + size[0] / 2
            y = (v + 0.5 - 112) * scale + size[1] / 2
            inside = any(bx < x < bx + w and by < y < by + h for bx, by, w, h in phrase.boxes)
            assert mask[v, u] == inside, (u, v)


def test_its_figures_are_biovils_of_cosines_by_hand(made: tuple[Path, Path]) -> None:
    root, model = made
    encoder = load_encoder(model)
    found = phrase_grounding(root / "boxes.csv", root / "images", encoder)
    boxed = {one.id.rpartition("/")[2]: one for one in read_boxes(root / "boxes.csv")}
    assert [one["reason"] for one in found["unreadable"]] == [
        "not found", "300 x 200 px, and its boxes are of 200 x 200",
    ]  # fmt: skip
    assert len(found["rows"]) == found["sentences"] == 3 and found["patients"] == 2
    for own in found["rows"]:
        image = boxed[own["reading_id"]]
        frame = read_frame(root / "images" / image.id)
        patches = encoder.images(frame[None])[1][0].numpy()
        phrase = image.phrases[own["sentence"]]
        cosines = (encoder.sentences([phrase.text]).numpy() @ patches.T)[0].astype(np.float64)
        theirs = measured_as_biovil(cosines, mask_of(phrase, image.size))
        assert own["cnr"] == pytest.approx(theirs["cnr"], abs=1e-4)
        assert own["miou"] == pytest.approx(theirs["miou"], abs=1e-4)
        assert own["prior cnr"] >= 0 and "swapped miou" in own


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([row(1, "a", 250, 20, 100, 50)], "row 2: the box lies outside its image"),
        ([row(1, "a", 0, 0, 0, 50)], "row 2: the box lies outside its image"),
        ([row(1, "", 10, 20, 100, 50)], "row 2: a number or the phrase is missing"),
        ([], "has no box"),
    ],
)
def test_a_table_that_cannot_be_right_is_told(tmp_path: Path, rows: list[str], said: str) -> None:
    (tmp_path / "boxes.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    with pytest.raises(BadUsageError, match=said):
        read_boxes(tmp_path / "boxes.csv")


def test_the_command_measures_by_either_definition(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, model = made
    own = ("--images", root / "images", "--labels", root / "boxes.csv", "--out", tmp_path)
    result = egma_eval("phrase-grounding", *own, model)
    assert result.exit_code == 0, result.output
    assert "2 of 4 images cannot be read" in result.output and "miou" in result.output
    report: Any = json.loads(written(tmp_path, "phrase-grounding").read_text())
    assert report["protocol"]["definition"] == "biovil" and len(report["protocol"]["table"]) == 16
    other = egma_eval("phrase-grounding", *own, "--definition", "own", model)
    assert other.exit_code == 0 and "pointing" in other.output
    bad = egma_eval("phrase-grounding", *own, "--split", "test", model)
    assert bad.exit_code == 2 and "no split 'test'; there are: unknown" in bad.stderr
