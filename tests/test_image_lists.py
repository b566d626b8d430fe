"""Labels in the formats that datasets are published in, quirks included, and their images."""

import csv
import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation import egma_eval, picture, save_tiny_model, write_dicom, write_picture, written
from sklearn.model_selection import train_test_split

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets import chexpert
from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.datasets.rsna import gloria_test
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.datasets.tasks import read_images, read_test
from egma_train.evaluate.table import prepared

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
FIVE = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
FIVE_HEAD = ",".join(["Path", *FIVE]) + "\n"
RELEASE = "CheXpert-v1.0-small/train"


def by_name(images: ImageList) -> dict[str, str]:
    return {one: images.classes[c] for one, c in zip(images.ids, images.labels, strict=True)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "untrained")


# -- CheXpert -------------------------------------------------------------------------------------


def quoted(value: str) -> str:
    return f'"{value}"' if "," in value else value


def chexpert_csv(path: Path, rows: list[tuple[str, str, dict[str, str]]]) -> Path:
    lines = [",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *FINDINGS])]
    for image, side, labels in rows:
        values = [labels.get(name, "") for name in FINDINGS]
        lines.append(",".join([image, "Female", "68", side, "AP", *map(quoted, values)]))
    path.write_text("\n".join(lines) + "\n")
    return path


def gloria_5x200(path: Path) -> pd.DataFrame:
    """GLoRIA's rule for 5x200 in words of our own: what its script keeps before it draws."""
    table = pd.read_csv(path)
    frontal = table[table["Frontal/Lateral"] == "Frontal"]
    looked_at = [*FIVE, "Enlarged Cardiomediastinum", "Lung Lesion", "Lung Opacity", "Pneumonia",
                 "Pneumothorax", "Pleural Other", "Fracture", "Support Devices"]  # fmt: skip
    said = frontal[looked_at].fillna(0)
    alone = (said != 0).sum(axis=1) == 1
    five = said[list(FIVE)]
    return frontal.assign(label=five.idxmax(axis=1))[alone & (five.max(axis=1) == 1)]


def test_5x200_is_what_glorias_rule_keeps_of_any_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    rows = []
    for i in range(3000):
        spoken = rng.choice(FINDINGS, rng.choice([1, 1, 2, 3]), replace=False)
        labels = {name: str(rng.choice(["1.0", "1.0", "0.0", "-1.0"])) for name in spoken}
        side = str(rng.choice(["Frontal", "Frontal", "Lateral"]))
        rows.append((f"{RELEASE}/p{i}/s1/view1_{side.lower()}.jpg", side, labels))
    path = chexpert_csv(tmp_path / "train.csv", rows)
    expected = gloria_5x200(path).set_index("Path")["label"].to_dict()
    images = read_images("chexpert5x200", path, None, 0)
    assert by_name(images) == expected and len(expected) > 200
    assert images.classes == FIVE and not images.notes


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        ({}, True),
        ({"No Finding": "1.0"}, True),  # GLoRIA does not look at it
        ({"Atelectasis": "0.0", "Fracture": "0"}, True),
        ({"Atelectasis": "-1.0"}, False),
        ({"Atelectasis": "1.0"}, False),
        ({"Support Devices": "1.0"}, False),
        ({"Lung Opacity": "-1.0"}, False),
        ({"Fracture": "1,0"}, False),
        ({"Fracture": "\N{MINUS SIGN}1"}, False),
    ],
    ids=str,
)
def test_a_5x200_image_has_one_of_five_findings_and_nothing_else(
    tmp_path: Path, said: dict[str, str], taken: bool
) -> None:
    others = [(f"{name}_frontal.jpg", "Frontal", {name: "1"}) for name in FIVE]
    asked = ("x_frontal.jpg", "Frontal", {"Edema": "1.0"} | said)
    path = chexpert_csv(tmp_path / "train.csv", [*others, asked])
    assert ("x_frontal.jpg" in read_images("chexpert5x200", path, None, 0).ids) == taken


def test_a_table_without_views_tells_them_by_the_names_of_its_files(tmp_path: Path) -> None:
    names = [f"p{i}/view1_frontal.jpg" for i in range(5)]
    laterals = (
        "lateral.jpg",
        "lateral.jpg.png",
        "lateral_224.jpg",
        "lateral-crop.jpg",
        "LATERAL_1",
    )
    names += [f"p{i}/view2_{name}" for i, name in enumerate(laterals)] + [
        f"p{i}/other.jpg" for i in range(5)
    ]
    lines = [",".join(["Path", *FINDINGS])]
    for i, name in enumerate(names):
        lines.append(",".join([name, *("1" if one == FIVE[i % 5] else "" for one in FINDINGS)]))
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    images = read_images("chexpert5x200", tmp_path / "own.csv", None, 0)
    assert set(images.ids) == {name for name in names if "lateral" not in name.lower()}
    assert images.notes == ("5 images whose view neither table nor name tells, taken as frontal",)


def test_a_5x200_list_that_holds_five_findings_alone_is_taken_and_what_it_lacks_noted(
    tmp_path: Path,
) -> None:
    rows = [
        f"{i}_frontal.jpg," + ",".join("1" if i == k else "" for k in range(5)) for i in range(5)
    ]
    (tmp_path / "own.csv").write_text("\n".join([",".join(["Path", *FIVE]), *rows]) + "\n")
    images = read_images("chexpert5x200", tmp_path / "own.csv", None, 0)
    assert len(images) == 5 and images.notes[0].startswith("the table lacks Enlarged Cardiomed")


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
    eight = shipped_toml("chexpert")["lists"]["8x200"]["classes"]
    labels = chexpert_csv(tmp_path / "candidate.csv", [
        (f"{RELEASE}/p{i}/s1/view1_frontal.jpg", "Frontal", {"Edema": "-1.0"} | {name: "1.0"})
        for i, name in enumerate(eight)
    ])  # fmt: skip
    images = read_images("chexpert8x200", labels, None, 0)
    assert list(by_name(images).values()) == eight
    assert images.notes[0].startswith("not the published list")
    declared = shipped_toml("chexpert")
    assert len(declared["lists"]["8x200"]["sha256"]) == 64
    declared["lists"]["8x200"]["sha256"] = hashlib.sha256(labels.read_bytes()).hexdigest()
    monkeypatch.setattr(chexpert, "shipped_toml", lambda name: declared)
    assert read_images("chexpert8x200", labels, None, 0).notes == ("the published list",)


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
    assert sorted(report["blank"]) == [one for one, _, _ in rows]
    assert " 10 of 10 images have hardly any grey levels" in result.output
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


def gloria_rsna(path: Path) -> set[str]:
    """GLoRIA's rule for RSNA's test patients in words of our own, by what it calls."""
    patients = pd.read_csv(path).groupby("patientId").agg(list).reset_index()
    _, held_out = train_test_split(patients, test_size=0.15 * 2, random_state=0)
    test, _ = train_test_split(held_out, test_size=0.5, random_state=0)
    return set(test["patientId"])


@pytest.mark.parametrize("count", [7, 61, 400, 1003])
def test_rsnas_test_patients_are_glorias_whatever_the_order_of_the_rows(
    tmp_path: Path, count: int
) -> None:
    rng = np.random.default_rng(count)
    names = [f"{rng.integers(16**8):08x}-{i:04}" for i in range(count)]
    targets = np.arange(count) % 2
    rows = [f"{name},{box}.0,2.0,3.0,4.0,1" if positive else f"{name},,,,,0"
            for name, positive in zip(names, targets, strict=True)
            for box in range(rng.integers(1, 4) if positive else 1)]  # fmt: skip
    classes = [f"{name},{'Lung Opacity' if positive else 'Normal'}"
               for name, positive in zip(names, targets, strict=True)]  # fmt: skip
    (tmp_path / "boxes.csv").write_text("\n".join(["patientId,x,y,width,height,Target", *rows]))
    shuffled = ["patientId,x,y,width,height,Target", *rng.permutation(rows)]
    (tmp_path / "shuffled.csv").write_text("\n".join(shuffled))
    (tmp_path / "classes.csv").write_text("\n".join(["patientId,class", *classes]))
    expected = gloria_rsna(tmp_path / "boxes.csv")
    for name in ("boxes.csv", "shuffled.csv", "classes.csv"):
        if count > 7:
            images = read_images("rsna", tmp_path / name, None, seed=5)
            assert set(images.ids) == expected
            told = images.told()["ids_sha256"]
            lines = "".join(f"{one}\n" for one in sorted(expected))
            assert told == hashlib.sha256(lines.encode()).hexdigest()
        assert set(gloria_test(sorted(names))) == expected


def test_rsnas_patients_can_be_drawn_by_seed_or_all_be_taken(tmp_path: Path) -> None:
    lines = [f"p{i:03},,,,,{i % 2}" for i in range(200)]
    lists = []
    for i, (own, seed) in enumerate([(lines, 0), (lines[::-1], 0), (lines, 1)]):
        path = tmp_path / f"{i}.csv"
        path.write_text("\n".join(["patientId,x,y,width,height,Target", *own]))
        lists.append(read_images("rsna", path, None, seed, "drawn"))
    assert [len(one) for one in lists] == [30] * 3
    assert lists[0].sha256 == lists[1].sha256 != lists[2].sha256
    assert "15% of 200 patients drawn by seed 0" in lists[0].notes
    assert len(read_images("rsna", path, None, 0, "all")) == 200


def test_a_plan_names_the_split_and_is_told_what_prompts_its_protocol_lacks(tmp_path: Path) -> None:
    lines = [f"p{i:03},{i % 2}" for i in range(200)]
    (tmp_path / "labels.csv").write_text("\n".join(["patientId,Target", *lines]))
    for line in lines:
        (tmp_path / f"{line[:4]}.dcm").touch()
    test = {"task": "rsna", "images": ".", "labels": "labels.csv"}
    counts = []
    for split in ({}, {"split": "drawn"}, {"split": "all"}):
        _, measure, _ = prepared(test | split, tmp_path, 0)
        counts.append(len(measure.args[0]))
    assert counts == [30, 30, 200]
    with pytest.raises(BadUsageError, match="which are not shipped: give them by --prompts"):
        prepared(test | {"protocol": "official-code"}, tmp_path, 0)
    rows = "".join(f"{i}.png,{',' * i}1{',' * (4 - i)}\n" for i in range(5))
    (tmp_path / "five.csv").write_text(FIVE_HEAD + rows)
    write_picture(tmp_path / "0.png", picture(0))
    found, *_ = read_test(
        "chexpert5x200", tmp_path, tmp_path / "five.csv", seed=0, protocol="official-code"
    )
    assert "which are not shipped; here from chexpert5x200's shipped ones" in found.notes[-1]


def test_patients_who_are_neither_are_left_out_of_the_same_split(tmp_path: Path) -> None:
    three = ["Normal", "lung opacity ", "No Lung Opacity/Not Normal"]
    rows = [f"p{i:03},{three[i % 3]}" for i in range(300)]
    (tmp_path / "classes.csv").write_text("\n".join(["patientId,class", *rows]))
    images = read_images("rsna", tmp_path / "classes.csv", None, 0)
    whole = gloria_rsna(tmp_path / "classes.csv")
    assert set(images.ids) == {one for one in whole if int(one[1:]) % 3 < 2}
    assert f"{45 - len(images)} patients neither normal nor with pneumonia left out" in images.notes


def test_the_command_measures_rsna_in_dicom(model: Path, tmp_path: Path) -> None:
    rows = ["patientId,x,y,width,height,Target"]
    for i in range(40):
        write_dicom(tmp_path / f"rsna/stage_2_train_images/{i:03}-a.dcm", picture(i % 2))
        rows += [f"{i:03}-a,1.0,2.0,3.0,4.0,1"] * 2 if i % 2 else [f"{i:03}-a,,,,,0"]
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    expected = gloria_rsna(tmp_path / "labels.csv")
    result = egma_eval(
        "zero-shot", "--task", "rsna", "--images", tmp_path / "rsna", "--out", tmp_path,
        "--labels", tmp_path / "labels.csv", model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-rsna").read_text())
    assert report["evaluated"]["images"] == 6 and not report["unreadable"]
    with written(tmp_path, "zero-shot-rsna", ".csv").open(newline="") as file:
        assert {row["path"] for row in csv.DictReader(file)} == expected
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


@pytest.mark.parametrize("none", ["-1", " -1", "-1.0", "[-1]", "\N{MINUS SIGN}1", "'-1'", "-1,0"])
def test_siim_knows_every_spelling_of_no_mask(tmp_path: Path, none: str) -> None:
    rows = ["ImageId, EncodedPixels", *(f"{i},{quoted(none)}\n{i}x,1 2 3 4" for i in range(4))]
    (tmp_path / "rle.csv").write_text("\n".join(rows))
    images = read_images("siim", tmp_path / "rle.csv", None, 0)
    assert by_name(images) == {f"{i}": "No Finding" for i in range(4)} | {
        f"{i}x": "Pneumothorax" for i in range(4)
    }


@pytest.mark.parametrize(
    "mask",
    ["1.0 5.0 3.0 4.0", "1, 5, 3, 4", "1,5,3,4", "[1 5 3 4]", "(1, 5, 3, 4)", "1,0 5,0 3,0 4,0",
     "1;5;3;4", " 1  5 3 4 ", "1e+00 5 3 4", "'1 5 3 4'", "1.0, 5.0, 3.0, 4.0"],
)  # fmt: skip
def test_siim_knows_a_mask_however_it_was_saved_again(tmp_path: Path, mask: str) -> None:
    (tmp_path / "rle.csv").write_text(f'ImageId,EncodedPixels\na,"{mask}"\nb,-1\n')
    images = read_images("siim", tmp_path / "rle.csv", None, 0)
    assert by_name(images) == {"a": "Pneumothorax", "b": "No Finding"}


@pytest.mark.parametrize(
    "mask", ["1.5 5", "1 -5", "1, 5, 3", "1 nan", "1 inf", "0.0 0.0", "1,0 0,0", "-1 -1", "1 5 x 4"]
)
def test_siim_refuses_what_is_neither_runs_nor_none(tmp_path: Path, mask: str) -> None:
    (tmp_path / "rle.csv").write_text(f'ImageId,EncodedPixels\na,"{mask}"\nb,-1\n')
    with pytest.raises(BadUsageError, match="row 2: EncodedPixels of a is"):
        read_images("siim", tmp_path / "rle.csv", None, 0)


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
    "file", ["1.2.276.2\n1.2.276.3\n", "ImageId,x\n1.2.276.2,0\n1.2.276.3.dcm,1\n9,1\n\n"]
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
    unknown = ["1 of 3 ids in subset.csv name no image, such as 9"] if "," in file else []
    assert report["list"]["notes"][1:] == unknown
    assert "few images of a class (No Finding 1, Pneumothorax 1)" in result.output


SPELLED = ("{}.png", "./{}.png", ".\\{}.png", "a//{}.png", "\\a\\{}.png")


@pytest.mark.parametrize(("one", "other"), [(0, 1), (0, 2), (3, 4)])
def test_an_image_under_two_spellings_counts_once_and_has_one_label(
    tmp_path: Path, one: int, other: int
) -> None:
    lines = [f"{SPELLED[k].format(i)},{'Edema' if i % 2 else 'No Finding'}"
             for i in range(4) for k in (one, other)]  # fmt: skip
    (tmp_path / "own.csv").write_text("\n".join(["path,label", *lines]))
    images = read_images("csv", tmp_path / "own.csv", None, 0)
    assert images.ids == tuple(SPELLED[one].format(i) for i in range(4))
    (tmp_path / "list.txt").write_text(SPELLED[other].format(2))
    assert len(read_images("csv", tmp_path / "own.csv", tmp_path / "list.txt", 0)) == 1
    (tmp_path / "own.csv").write_text(
        "\n".join(["path,label", lines[0], lines[3].replace("1", "0")])
    )
    with pytest.raises(BadUsageError, match=r"row 3: .* has two labels .above it is "):
        read_images("csv", tmp_path / "own.csv", None, 0)


def test_a_chexpert_image_under_two_spellings_counts_once(tmp_path: Path) -> None:
    rows = [f"x/p{i}/v.jpg," + ",".join("1" if i == k else "" for k in range(5)) for i in range(5)]
    again = [row.replace("/", "\\") for row in rows]
    (tmp_path / "own.csv").write_text(FIVE_HEAD + "\n".join([*rows, *again]) + "\n")
    images = read_images("chexpert5x200", tmp_path / "own.csv", None, 0)
    assert len(images) == 5 and "5 images whose view neither" in images.notes[0]
    (tmp_path / "own.csv").write_text(
        FIVE_HEAD + f"{rows[0]}\n{again[0].replace(',1,,', ',,1,')}\n"
    )
    with pytest.raises(BadUsageError, match=r"row 3: .* stands twice, labelled otherwise"):
        read_images("chexpert5x200", tmp_path / "own.csv", None, 0)


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "text", "told"),
    [
        ("csv", "image,label\na.png,x\n", "has no column path; there are: image, label"),
        ("csv", "path,label\na.png,x\na.png,y\n", "a.png has two labels"),
        ("csv", "path,label\n", "no image has a label that counts"),
        ("siim", "ImageId,Mask\n1,-1\n", "has no column EncodedPixels"),
        ("rsna", "patientId,x\n1,2\n", "has neither Target nor class"),
        ("rsna", "patientId,Target\n1,2\n", "row 2: 1 has the label '2', not 0, 1"),
        ("rsna", "patientId,Target\n1,\n", "row 2: 1 has the label '', not 0, 1"),
        ("rsna", "patientId,class\n1,Sick\n", "row 2: 1 has the label 'Sick', not Normal"),
        ("rsna", "patientId,Target\n" + "".join(f"{i},0\n" for i in range(40)), "no image of Pneu"),
        ("siim", "ImageId,EncodedPixels\na,nan\nb,1 2\n", "no image of No Finding among 1"),
        ("siim", "ImageId,EncodedPixels\na,-1\nb,1 2\na,3 4\n", "row 4: a has a mask and -1"),
        ("siim", "ImageId,EncodedPixels\na,-1\n\nb,1 2\nc,0\n", "row 5: EncodedPixels of c is '0'"),
        ("siim", "ImageId,EncodedPixels\na,-1\nb,0 0\n", "row 3: EncodedPixels of b is '0 0'"),
        ("siim", "ImageId,EncodedPixels\na,1 0 4 0\n", "row 2: EncodedPixels of a is '1 0 4 0'"),
        ("siim", "ImageId,EncodedPixels\na,-1\nb,1 2 3\n", "row 3: EncodedPixels of b is '1 2 3'"),
        ("chexpert5x200", FIVE_HEAD + "a,yes,,,,\n", "row 2: Atelectasis is 'yes', not 1, 0, -1"),
        ("rsna", "patientId,Target\n", "has no rows"),
        ("chexpert5x200", "Frontal/Lateral," + FIVE_HEAD + "AP,a,1,,,,\n", "row 2: the view 'ap'"),
        ("chexpert5x200", FIVE_HEAD + "a,1,,,,\na,,1,,,\n", "row 3: a stands twice, labelled"),
        (
            "chexpert5x200",
            FIVE_HEAD + "a,1,,,,\n",
            "no image of Cardiomegaly, Consolidation, Edema",
        ),
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
    write_picture(tmp_path / "a.png", picture(0))
    (tmp_path / "own.csv").write_text("path,label\na.png,Scoliosis\nb.png,Edema\n")
    (tmp_path / "siim.csv").write_text("ImageId,EncodedPixels\na,-1\nb,1 2\n")
    (tmp_path / "rsna.csv").write_text("patientId,Target\na,0\nb,1\n")
    siim = ["--task", "siim", "--labels", tmp_path / "siim.csv"]
    rsna = ["--task", "rsna", "--labels", tmp_path / "rsna.csv"]
    (tmp_path / "one.csv").write_text("path,label\na.png,Edema\n")
    (tmp_path / "blank.csv").write_text("path,label\na.png,Edema\nb.png,\n")
    (tmp_path / "other.toml").write_text('Edema = ["edema"]\nHealthy = ["clear"]')
    call = ["zero-shot", "--task", "csv", "--images", tmp_path, "--labels", tmp_path / "own.csv"]
    for more, told in [
        ([model], "no prompts for ['Scoliosis']; there are: Atelectasis"),
        ([tmp_path / "none"], "no such folder or file; name a run, a model or weights"),
        ([model, "--list", tmp_path / "none.txt"], "cannot read"),
        ([model, "--prompts", tmp_path / "own.csv"], "has no column Variable, Text"),
        ([model, "--bogus"], "No such option"),
        ([model, "--labels", tmp_path / "one.csv"], "one class only, Edema"),
        ([model, "--labels", tmp_path / "blank.csv"], "blank.csv, row 3: a blank path or label"),
        ([model, "--prompts", tmp_path / "other.toml"], "no prompts for ['Scoliosis']"),
        ([model, *siim, "--split", "all"], "siim has no --split; --list FILE names"),
        ([model, *rsna, "--split", "gloriaa"], "no split 'gloriaa'; there are: all, drawn, gloria"),
        ([model, *rsna, "--split", "all", "--list", "x"], "--split and --list each name"),
        ([model, *rsna, "--split", "all", "--protocol", "official-code"], "not shipped: give them"),
    ]:
        result = egma_eval(*call, "--out", tmp_path, *more)
        assert result.exit_code == 2 and told in result.stderr, result.output
        assert result.stderr.startswith("egma-eval: ") and result.stderr.count("\n") == 1
