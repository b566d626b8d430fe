"""Several findings an image: scikit-learn's AUROC, tables as CheXpert and VinDr-CXR have them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import egma_eval, save_tiny_model, write_picture, written
from sklearn.metrics import roc_auc_score

from egma_prep import open_shards
from egma_train.data.shards import find_shards
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.datasets.label_tables import read_label_table
from egma_train.evaluate.datasets.prompts import Prompts
from egma_train.evaluate.datasets.shard_labels import labels_of_shards
from egma_train.evaluate.multi_label import multi_label, multi_label_of_shards, prompts_of

CHEXPERT = """Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Pleural Effusion
CheXpert-v1.0-small/valid/patient90001/study1/a.jpg,Male,73,Frontal,AP,0.0,1.0,
CheXpert-v1.0-small/valid/patient90002/study1/a.jpg,Female,70,Frontal,PA,,0.0,1.0
CheXpert-v1.0-small/valid/patient90003/study1/a.jpg,Male,85,Frontal,,1.0,-1.0,0.0
"""
VINDR = """image_id,rad_id,Aortic enlargement,Cardiomegaly,Other
p1,R1,1,0,0
p1,R2,1,1,0
p1,R3,0,0,0
p2,R1,0,1,0
p2,R2,0,1,0
p3,R1,0,1,0
p3,R2,1,0,0
"""


def table(folder: Path, text: str) -> Path:
    (folder / "labels.csv").write_text(text)
    return folder / "labels.csv"


def test_a_table_of_chexpert_has_its_findings_and_nothing_else(tmp_path: Path) -> None:
    read = read_label_table(table(tmp_path, CHEXPERT))
    assert read.findings == ("No Finding", "Edema", "Pleural Effusion")
    assert read.ids[1].endswith("patient90002/study1/a.jpg")
    truth = [[0, 1, 0], [0, 0, 1], [1, np.nan, 0]]
    np.testing.assert_array_equal(read.truth, truth)
    assert read.notes == ("1 labels are uncertain and left out, finding by finding",)


def test_of_several_readers_most_count_and_a_finding_that_none_has_is_none(tmp_path: Path) -> None:
    read = read_label_table(table(tmp_path, VINDR))
    assert read.findings == ("Aortic enlargement", "Cardiomegaly") and read.ids == (
        "p1",
        "p2",
        "p3",
    )
    np.testing.assert_array_equal(read.truth, [[1, 0], [0, 1], [np.nan, np.nan]])
    assert read.notes[0] == "7 rows of 3 images: what most of them say counts"


def test_what_is_left_out_of_a_table_is_said(tmp_path: Path) -> None:
    even = "image_id,Edema,Even,Mass\na,1,1,0\na,1,0,0\n./b,0,1,1\nb,0,0,1\n,1,1,1\n"
    read = read_label_table(table(tmp_path, even))
    assert read.findings == ("Edema", "Mass") and read.ids == ("a", "b")
    assert read.notes == (
        "1 rows name no image and are left out",
        "4 rows of 2 images: what most of them say counts",
        "Even: the same for all images, left out",
    )


ROWS = "\n".join(f"{i}.png,{i % 2},0.5" for i in range(20))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"path,Edema,Score\n{ROWS}\n20.png,yes,0.5\n", "row 22: Edema is 'yes'; a finding is 1"),
        (f"path,Edema,Edema\n{ROWS.replace('0.5', '1')}\n", "has the column Edema 2 times"),
        (f"path,Edema\n{ROWS}\n", "row 2: 3 cells for 2 columns"),
        ("a,b\n1,0\n", "has no column that names images"),
        ("path,Edema\nx.png,1\n", "no column of 1 and 0 is a finding that some"),
        ("path,Age\nx.png,70\ny.png,1\n", "no column of 1 and 0"),
        ("", "has no column that names images"),
    ],
)
def test_a_table_without_findings_is_told(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadUsageError, match=said):
        read_label_table(table(tmp_path, text))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pictures of 30 patients, some labels uncertain, and an untrained model."""
    root = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(2)
    rows = ["path,Edema,Pneumonia"]
    for i in range(30):
        write_picture(root / "images" / f"{i}.png", rng.integers(0, 255, (40, 40)).astype(np.uint8))
        rows.append(f"{i}.png,{rng.integers(0, 2)},{'-1' if i == 4 else rng.integers(0, 2)}")
    table(root, "\n".join(rows) + "\n")
    return root, save_tiny_model(root / "untrained")


def test_its_auroc_is_scikit_learns_of_cosines_by_hand(made: tuple[Path, Path]) -> None:
    root, model = made
    encoder, labels = load_encoder(model), read_label_table(root / "labels.csv")
    paths = [root / "images" / one for one in labels.ids]
    found = multi_label(labels, paths, prompts_of(labels.findings, None), encoder)
    frames = [row["path"] for row in found["rows"]]
    assert frames == list(labels.ids)
    for i, (name, said) in enumerate((("Edema", "edema"), ("Pneumonia", "pneumonia"))):
        known = ~np.isnan(labels.truth[:, i])
        plain, denied = (encoder.texts([one])[0] for one in (said, f"no {said}"))
        scores = []
        for seen in encoder.each(labels.ids, paths, 7, {}):
            scores += ((seen.pooled @ plain) - (seen.pooled @ denied)).tolist()
        own = np.array([row[f"score {name}"] for row in found["rows"]])
        np.testing.assert_allclose(own, scores, atol=1e-5)
        theirs = roc_auc_score(labels.truth[known, i], own[known])
        figure = found["metrics"][f"auroc {name}"]
        assert figure["value"] == pytest.approx(theirs) and figure["low"] < theirs < figure["high"]
    mean = found["metrics"]["mean auroc"]["value"]
    assert mean == pytest.approx(
        np.mean([found["metrics"][f"auroc {one}"]["value"] for one in labels.findings])
    )
    assert (
        found["findings"]["Pneumonia"]["positive"] + found["findings"]["Pneumonia"]["negative"]
        == 29
    )


def test_prompts_of_ones_own_are_averaged_by_finding() -> None:
    own = Prompts("own", {"A": ("a", "b"), "no A": ("c",), "B": ("d",), "no B": ("e",)})
    assert list(prompts_of(["B", "A"], own).queries) == ["B", "no B", "A", "no A"]
    with pytest.raises(BadUsageError, match=r"has no prompts for \['no C'\]"):
        prompts_of(["C"], Prompts("own", {"C": ("c",)}))
    shipped = prompts_of(["No Finding", "Edema"], None)
    assert shipped.queries["No Finding"] == ("no finding",)
    assert shipped.queries["no No Finding"] == ("finding",)


def test_the_command_says_each_finding(made: tuple[Path, Path], tmp_path: Path) -> None:
    root, model = made
    own = ("--images", root / "images", "--labels", root / "labels.csv", "--out", tmp_path)
    result = egma_eval("multi-label", *own, model, save_tiny_model(tmp_path / "two", 3))
    assert result.exit_code == 0, result.output
    assert "mean auroc" in result.output and "(no interval)" in result.output
    for name in ("mean auroc", "auroc Edema", "auroc Pneumonia"):
        assert name in result.output
    report: Any = json.loads(written(tmp_path, "multi-label").read_text())
    assert report["metrics"]["mean auroc"]["low"] is None  # not all are known of every image
    assert "1 labels are uncertain" in result.output
    swapped = (root / "labels.csv").read_text().replace("Edema,Pneumonia", "Pneumonia,Edema")
    (tmp_path / "swapped.csv").write_text(swapped)
    more = (*own[:2], "--labels", tmp_path / "swapped.csv", *own[4:])
    assert egma_eval("multi-label", *more, model).exit_code == 0
    assert len(list((tmp_path / "evaluation" / "multi-label").glob("untrained*.json"))) == 2
    page = (tmp_path / "evaluation" / "evaluation.html").read_text()
    assert "auroc Edema" in page and "multi-label" in page


# -- the shards' own labels -----------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["chexpert", "reflacx"])
def test_the_shards_labels_are_the_truth_of_one_reading_an_image(
    clean_out: Path, dataset: str
) -> None:
    table, readings = labels_of_shards(find_shards(clean_out), (), dataset)
    said: dict[str, list[dict[str, float]]] = {}
    for reading in open_shards(clean_out):
        own = {n: v for n, v in reading.labels.items() if n.startswith(f"{dataset}:")}
        if own:
            said.setdefault(reading.dicom_id, []).append(own)
    assert table.ids == tuple(said) == tuple(one.dicom_id for one in readings)
    assert len(table.findings) > 3
    for i, image in enumerate(table.ids):
        for j, name in enumerate(table.findings):
            values = [one.get(f"{dataset}:{name}") for one in said[image]]
            if dataset == "chexpert":
                votes = [{None: 0, 0.0: 0, 1.0: 1, -1.0: None}[value] for value in values]
            else:
                flag = name == "Support devices"
                votes = [None if v is None else int(v >= (1 if flag else 3)) for v in values]
            yes, no = votes.count(1), votes.count(0)
            wanted = np.nan if yes == no else float(yes > no)
            np.testing.assert_equal(table.truth[i, j], wanted)


def test_the_command_measures_on_the_shards_own_labels(clean_out: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    flags = ("--shards", clean_out, "--labels-of", "reflacx", "--out", tmp_path, model)
    result = egma_eval("multi-label", *flags)
    assert result.exit_code == 0, result.output
    encoder = load_encoder(model, {})
    report = multi_label_of_shards(clean_out, None, encoder, dataset="reflacx")
    (path,) = (tmp_path / "evaluation" / "multi-label-reflacx").glob("*.json")
    told = json.loads(path.read_text())["metrics"]
    assert {name: one["value"] for name, one in told.items()} == {
        name: one["value"] for name, one in report["metrics"].items()
    }
    table, readings = labels_of_shards(find_shards(clean_out), (), "reflacx")
    rows = {row["path"]: row for row in report["rows"]}
    for j, name in enumerate(table.findings):
        known = ~np.isnan(table.truth[:, j])
        scores = [rows[one][f"score {name}"] for one in np.array(table.ids)[known]]
        wanted = roc_auc_score(table.truth[known, j], scores)
        assert report["metrics"][f"auroc {name}"]["value"] == pytest.approx(wanted)
    frame = np.frombuffer(readings[0].image, np.uint8).reshape(1, 224, 224)
    sizes = np.array([(readings[0].width, readings[0].height)])
    queries = prompts_of(table.findings[:1], None)
    texts = [encoder.texts(one) for one in queries.queries.values()]
    pooled = encoder.of_shards(frame, sizes)[0]
    wanted = (pooled @ (texts[0] - texts[1]).T).item()
    assert rows[table.ids[0]][f"score {table.findings[0]}"] == pytest.approx(wanted, abs=1e-5)


def test_shards_without_such_labels_name_those_they_have(clean_out: Path, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model")
    flags = ("--shards", clean_out, "--labels-of", "reflax", "--out", tmp_path, model)
    result = egma_eval("multi-label", *flags)
    assert result.exit_code == 2 and "reflacx" in result.output
    both = egma_eval("multi-label", "--images", tmp_path, "--out", tmp_path, model)
    assert both.exit_code == 2 and "--images and --labels, or --shards" in both.output
