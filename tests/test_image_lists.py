"""Labels in the formats that datasets are published in, quirks included, and their images."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation import egma_eval, picture, save_tiny_model, write_dicom, write_picture, written

from egma_train.errors import BadUsageError
from egma_train.evaluate import chexpert
from egma_train.evaluate.image_lists import ImageList, locate
from egma_train.evaluate.shipped import shipped_toml
from egma_train.evaluate.tasks import read_images

FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
RELEASE = "CheXpert-v1.0-small/train"


def by_name(images: ImageList) -> dict[str, str]:
    return {one: images.classes[c] for one, c in zip(images.ids, images.labels, strict=True)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "untrained")


# -- CheXpert -------------------------------------------------------------------------------------


def chexpert_csv(path: Path, rows: list[tuple[str, str, dict[str, str]]]) -> Path:
    names = shipped_toml("chexpert")["lists"]["8x200"]["classes"] + ["Consolidation"]
    lines = [",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *names])]
    for image, side, labels in rows:
        values = [labels.get(name, "") for name in names]
        lines.append(",".join([image, "Female", "68", side, "AP", *values]))
    path.write_text("\n".join(lines) + "\n")
    return path


def test_5x200_takes_frontal_images_with_one_of_five_and_the_others_absent(tmp_path: Path) -> None:
    labels = chexpert_csv(tmp_path / "train.csv", [
        (f"{RELEASE}/p1/s1/view1_frontal.jpg", "Frontal", {"Edema": "1.0", "Atelectasis": "0.0"}),
        (f"{RELEASE}/p1/s1/view2_lateral.jpg", "Lateral", {"Edema": "1.0"}),
        (f"{RELEASE}/p2/s1/view1_frontal.jpg", "Frontal", {"Edema": "1.0", "Atelectasis": "-1.0"}),
        (f"{RELEASE}/p3/s1/view1_frontal.jpg", "Frontal", {"Edema": "1.0", "Cardiomegaly": "1.0"}),
        (f"{RELEASE}/p4/s1/view1_frontal.jpg", "Frontal", {"Fracture": "1.0"}),
        (f"{RELEASE}/p5/s1/view1_frontal.jpg", "Frontal",
         {"Pleural Effusion": "1.0", "Fracture": "1.0"}),
    ])  # fmt: skip
    images = read_images("chexpert5x200", labels, None, 0)
    assert images.classes == FIVE
    assert by_name(images) == {
        f"{RELEASE}/p1/s1/view1_frontal.jpg": "Edema",
        f"{RELEASE}/p5/s1/view1_frontal.jpg": "Pleural Effusion",
    }


def test_5x200_draws_200_of_each_by_seed_whatever_the_order_of_the_rows(tmp_path: Path) -> None:
    rows = [
        (f"{RELEASE}/p{name[0]}{name[1]}{i}/s1/view1_frontal.jpg", "Frontal", {name: "1.0"})
        for i in range(250)
        for name in FIVE
    ]
    lists = [
        read_images("chexpert5x200", chexpert_csv(tmp_path / f"{i}.csv", own), None, seed)
        for i, (own, seed) in enumerate([(rows, 0), (rows[::-1], 0), (rows, 1)])
    ]
    assert np.bincount(lists[0].labels).tolist() == [200] * 5
    assert lists[0].sha256 == lists[1].sha256 != lists[2].sha256
    assert "200 of 250 images of Edema drawn by seed 0" in lists[0].notes


def test_the_published_8x200_list_is_recognised_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = chexpert_csv(tmp_path / "candidate.csv", [
        (f"{RELEASE}/p1/s1/view1_frontal.jpg", "Frontal", {"Fracture": "1.0", "Edema": "-1.0"}),
        (f"{RELEASE}/p2/s1/view1_frontal.jpg", "Frontal", {"No Finding": "1.0"}),
    ])  # fmt: skip
    images = read_images("chexpert8x200", labels, None, 0)
    assert list(by_name(images).values()) == ["Fracture", "No Finding"]
    assert images.notes[0].startswith("not the published list")
    declared = shipped_toml("chexpert")
    assert len(declared["lists"]["8x200"]["sha256"]) == 64
    declared["lists"]["8x200"]["sha256"] = hashlib.sha256(labels.read_bytes()).hexdigest()
    monkeypatch.setattr(chexpert, "shipped_toml", lambda name: declared)
    assert read_images("chexpert8x200", labels, None, 0).notes == ("the published list",)


def test_nothing_outside_the_folder_of_images_is_read(tmp_path: Path) -> None:
    write_picture(tmp_path / "outside.png", picture(0))
    (tmp_path / "images").mkdir()
    ids = ["../outside.png", str(tmp_path / "outside.png"), "a/../../outside.png"]
    assert locate(tmp_path / "images", ids) == [None] * 3


def test_a_file_is_not_guessed_where_two_may_be_meant(tmp_path: Path) -> None:
    for place in ("root.png", "a/dup.png", "b/dup.png", "c/one.dcm", "c/one.png"):
        write_picture(tmp_path / place.replace(".dcm", ".png"), picture(0))
    (tmp_path / "c/one.png").rename(tmp_path / "c/one.jpg")
    found = locate(tmp_path, ["x/root.png", "y/root.png", "dup", "one", "root"])
    assert found == [None, None, None, tmp_path / "c/one.jpg", tmp_path / "root.png"]


def test_chexperts_paths_start_at_the_release_or_above_it(tmp_path: Path) -> None:
    image = tmp_path / RELEASE / "patient00001/study1/view1_frontal.jpg"
    write_picture(image, picture(0))
    ids = [f"{RELEASE}/patient00001/study1/view1_frontal.jpg", f"{RELEASE}/patient2/none.jpg"]
    assert locate(tmp_path, ids) == [image, None]
    assert locate(tmp_path / "CheXpert-v1.0-small", ids) == [image, None]


def test_the_command_measures_chexpert_in_jpeg(model: Path, tmp_path: Path) -> None:
    rows = [(f"{RELEASE}/p{i}/s1/view1_frontal.jpg", "Frontal", {FIVE[i % 5]: "1.0"})
            for i in range(10)]  # fmt: skip
    for i, (image, _, _) in enumerate(rows):
        write_picture(tmp_path / image, picture(i % 5, 390, 320))
    result = egma_eval(
        "zero-shot", "--task", "chexpert5x200", "--images", tmp_path, "--out", tmp_path,
        "--labels", chexpert_csv(tmp_path / "train.csv", rows), "--score", "best-patch", model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-chexpert5x200").read_text())
    assert report["evaluated"]["counts"] == dict.fromkeys(FIVE, 2)
    assert report["prompts"]["counts"]["Atelectasis"] == 60


# -- RSNA -----------------------------------------------------------------------------------------

BOXES = """\
patientId,x,y,width,height,Target
aaa,264.0,152.0,213.0,379.0,1
aaa,562.0,152.0,256.0,453.0,1
bbb,,,,,0
ccc,,,,,0
"""
CLASSES = """\
patientId,class
aaa,Lung Opacity
aaa,Lung Opacity
bbb,Normal
ccc,No Lung Opacity / Not Normal
"""


def test_rsna_counts_a_patient_once_and_says_who_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "stage_2_train_labels.csv").write_text(BOXES)
    (tmp_path / "stage_2_detailed_class_info.csv").write_text(CLASSES)
    (tmp_path / "all.txt").write_text("aaa\nbbb\nccc.dcm\n")
    boxes, classes = (
        read_images("rsna", tmp_path / name, tmp_path / "all.txt", 0)
        for name in ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv")
    )
    assert by_name(boxes) == {"aaa": "Pneumonia", "bbb": "No Finding", "ccc": "No Finding"}
    assert by_name(classes) == {"aaa": "Pneumonia", "bbb": "No Finding"}
    assert classes.notes == (
        "1 patients neither normal nor with pneumonia left out",
        "1 of 3 ids in all.txt name no image, such as ccc",
    )


def test_rsnas_test_patients_are_15_percent_by_seed(tmp_path: Path) -> None:
    lines = [f"p{i:03},,,,,{i % 2}" for i in range(200)]
    lists = []
    for i, (own, seed) in enumerate([(lines, 0), (lines[::-1], 0), (lines, 1)]):
        path = tmp_path / f"{i}.csv"
        path.write_text("\n".join(["patientId,x,y,width,height,Target", *own]))
        lists.append(read_images("rsna", path, None, seed))
    assert [len(one) for one in lists] == [30] * 3
    assert lists[0].sha256 == lists[1].sha256 != lists[2].sha256
    assert "15% of 200 patients drawn by seed 0" in lists[0].notes


def test_the_command_measures_rsna_in_dicom(model: Path, tmp_path: Path) -> None:
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(40):
        write_dicom(tmp_path / f"rsna/stage_2_train_images/{i:03}-a.dcm", picture(i % 2))
        rows += [f"{i:03}-a,1.0,2.0,3.0,4.0,1"] * 2 if i % 2 else [f"{i:03}-a,,,,,0"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    result = egma_eval(
        "zero-shot", "--task", "rsna", "--images", tmp_path / "rsna", "--out", tmp_path,
        "--labels", tmp_path / "labels.csv", model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-rsna").read_text())
    assert report["evaluated"]["images"] == 6 and not report["unreadable"]
    assert report["prompts"]["counts"] == {"No Finding": 5, "Pneumonia": 5}


# -- SIIM-ACR -------------------------------------------------------------------------------------

RUNS = """\
ImageId, EncodedPixels
1.2.276.1, -1
1.2.276.2, 175349 7 1013 12
1.2.276.2, 191000 3 1020 5
1.2.276.3,-1
1.2.276.4,
"""


def test_siim_reads_the_blank_in_its_header_and_several_masks_an_image(tmp_path: Path) -> None:
    (tmp_path / "train-rle.csv").write_text(RUNS)
    images = read_images("siim", tmp_path / "train-rle.csv", None, 0)
    assert by_name(images) == {
        "1.2.276.1": "No Finding",
        "1.2.276.2": "Pneumothorax",
        "1.2.276.3": "No Finding",
    }
    assert images.notes == ("1 images with a blank mask left out",)


@pytest.mark.parametrize(
    "file", ["1.2.276.2\n1.2.276.3\n", "ImageId,x\n1.2.276.2,0\n1.2.276.3.dcm,1\n\n"]
)
def test_a_file_names_the_subset_to_measure(model: Path, tmp_path: Path, file: str) -> None:
    (tmp_path / "train-rle.csv").write_text(RUNS)
    (tmp_path / "subset.csv").write_text(file)
    for i in range(1, 4):  # as Kaggle's archive nests them
        name = f"1.2.276.{i}"
        write_dicom(tmp_path / f"dicom-images-train/{name}.0/{name}.1/{name}.dcm", picture(i % 2))
    result = egma_eval(
        "zero-shot", "--task", "siim", "--images", tmp_path, "--labels",
        tmp_path / "train-rle.csv", "--list", tmp_path / "subset.csv", "--out", tmp_path, model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-siim").read_text())
    assert report["evaluated"]["counts"] == {"No Finding": 1, "Pneumothorax": 1}
    assert report["list"]["name"] == "SIIM-ACR by train-rle.csv, those in subset.csv"
    unknown = ["1 of 3 ids in subset.csv name no image, such as ImageId"] if "," in file else []
    assert report["list"]["notes"][1:] == unknown
    assert "few images of a class (No Finding 1, Pneumothorax 1)" in result.output


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text", "told"),
    [
        ("csv", "image,label\na.png,x\n", "has no column path; there are: image, label"),
        ("csv", "path,label\na.png,x\na.png,y\n", "a.png has two labels"),
        ("csv", "path,label\n", "no image has a label that counts"),
        ("siim", "ImageId,Mask\n1,-1\n", "has no column EncodedPixels"),
        ("rsna", "patientId,x\n1,2\n", "has neither Target nor class"),
        ("rsna", "patientId,Target\n1,2\n", "1 has the label '2', not 0, 1"),
        ("mimic", "", "no task 'mimic'; there are: chexpert5x200, chexpert8x200, csv, rsna, siim"),
    ],
)
def test_a_table_that_cannot_be_read_is_one_line(
    tmp_path: Path, task: str, text: str, told: str
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(BadUsageError) as raised:
        read_images(task, tmp_path / "labels.csv", None, 0)
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_mistakes_on_the_command_line_end_with_2_and_one_line(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("path,label\na.png,Scoliosis\nb.png,Edema\n")
    (tmp_path / "one.csv").write_text("path,label\na.png,Edema\n")
    (tmp_path / "blank.csv").write_text("path,label\na.png,Edema\nb.png,\n")
    (tmp_path / "other.toml").write_text('Edema = ["edema"]\nHealthy = ["clear"]')
    call = ["zero-shot", "--task", "csv", "--images", tmp_path, "--labels", tmp_path / "own.csv"]
    for more, told in [
        ([model], "no prompts for ['Scoliosis']; there are: Atelectasis"),
        ([tmp_path / "none"], "no such folder; name a run, a model or weights"),
        ([model, "--list", tmp_path / "none.txt"], "cannot read"),
        ([model, "--prompts", tmp_path / "own.csv"], "holds no prompts"),
        ([model, "--bogus"], "No such option"),
        ([model, "--labels", tmp_path / "one.csv"], "one class only, Edema"),
        ([model, "--labels", tmp_path / "blank.csv"], "blank.csv, row 3: a blank path or label"),
        ([model, "--prompts", tmp_path / "other.toml"], "no prompts for ['Scoliosis']"),
    ]:
        result = egma_eval(*call, "--out", tmp_path, *more)
        assert result.exit_code == 2 and told in result.stderr, result.output
        assert result.stderr.startswith("egma-eval: ") and result.stderr.count("\n") == 1
