"""Checkpoints against each other: the rows of reports, paired, in memory, from files, in tables."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation import (
    OracleEncoder,
    RandomEncoder,
    egma_eval,
    list_of_pictures,
    save_tiny_model,
)
from numpy.typing import NDArray

from egma_train.evaluate.datasets.image_lists import ImageList, patients
from egma_train.evaluate.datasets.prompts import shipped_prompts
from egma_train.evaluate.differences import difference
from egma_train.evaluate.reports import read_rows, told, write_report
from egma_train.evaluate.retrieval import retrieval
from egma_train.evaluate.table import differences
from egma_train.evaluate.zero_shot import zero_shot

PROMPTS = shipped_prompts("8x200")
CLASSES = tuple(PROMPTS.queries)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageList, list[Path]]:
    """Six images of each of the eight classes."""
    return list_of_pictures(tmp_path_factory.mktemp("images"), CLASSES, 6)


def reports(task: Any, listed: tuple[ImageList, list[Path]]) -> list[dict[str, Any]]:
    """Of a model that knows nothing and of one that knows all."""
    made = []
    for name, kind in (("random", RandomEncoder), ("oracle", OracleEncoder)):
        report = task(*listed, PROMPTS, kind(PROMPTS.queries, CLASSES))
        made.append(report | {"checkpoint": {"name": name, "sha256": name}, "test": "made"})
    return made


@pytest.mark.parametrize("task", [zero_shot, retrieval])
def test_differences_are_those_of_the_figures_and_of_the_right_sign(
    task: Any, listed: tuple[ImageList, list[Path]]
) -> None:
    first, second = reports(task, listed)
    found = difference(first, second)
    assert found is not None and found["to"]["name"] == "random"
    assert (
        found["rows"] == len(first["rows"]) and found["metrics"].keys() == first["metrics"].keys()
    )
    for name, figure in found["metrics"].items():
        values = [report["metrics"][name]["value"] for report in (first, second)]
        assert figure["value"] == pytest.approx(values[1] - values[0]), name
        assert 0 < figure["low"] <= figure["value"] <= figure["high"] and figure["p"] < 0.01, name
    back = difference(second, first)
    assert back is not None
    for name, figure in back["metrics"].items():
        assert figure["value"] == pytest.approx(-found["metrics"][name]["value"])


@pytest.mark.parametrize("task", [zero_shot, retrieval])
def test_rows_read_from_the_report_in_the_folder_give_the_same(
    task: Any, listed: tuple[ImageList, list[Path]], tmp_path: Path
) -> None:
    first, second = reports(task, listed)
    stored = [one | {"rows": read_rows(write_report(tmp_path, one))} for one in (first, second)]
    assert difference(*stored) == difference(first, second)


def test_only_images_that_both_could_read_are_compared(
    listed: tuple[ImageList, list[Path]],
) -> None:
    first, second = reports(zero_shot, listed)
    fewer = second | {"rows": second["rows"][10:]}
    found = difference(first, fewer)
    assert found is not None and found["rows"] == 38
    right = np.mean([row["label"] == row["predicted"] for row in first["rows"][10:]])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(1 - right)
    assert difference(first, second | {"rows": []}) is None


class NoisyEncoder(RandomEncoder):
    """Gives each image and text a direction that follows from its own noise."""

    def __init__(self, noise: int) -> None:
        super().__init__({name: list(own) for name, own in PROMPTS.queries.items()}, CLASSES)
        self.noise = noise

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        drawn = torch.Generator().manual_seed(self.noise)
        return torch.nn.functional.normalize(torch.randn(len(texts), 8, generator=drawn), dim=-1)

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.texts(["image"] * len(frames))
        return pooled, pooled[:, None].expand(-1, 49, -1)


def test_queries_of_several_classes_that_share_a_text_all_count(
    listed: tuple[ImageList, list[Path]], tmp_path: Path
) -> None:
    shared = {name: [*own[:5], "a chest radiograph"] for name, own in PROMPTS.queries.items()}
    prompts = dataclasses.replace(PROMPTS, queries=shared)
    first, second = (
        retrieval(*listed, prompts, NoisyEncoder(noise))
        | {"checkpoint": {"name": f"m{noise}", "sha256": ""}}
        for noise in (0, 1)
    )
    stored = [one | {"rows": read_rows(write_report(tmp_path, one))} for one in (first, second)]
    for found in (difference(first, second), difference(*stored)):
        assert found is not None and found["rows"] == 48 + 8 * len(shared["Edema"])
        for name, figure in found["metrics"].items():
            values = [report["metrics"][name]["value"] for report in (first, second)]
            assert figure["value"] == pytest.approx(values[1] - values[0]), name


def test_sentences_are_compared_by_patient() -> None:
    """Two sentences a patient, the second model better by .1 in all; one sentence is not shared."""
    rng = np.random.default_rng(0)

    def report(more: float, n: int) -> dict[str, Any]:
        rows = [
            {"dataset": "d", "reading_id": f"r{i // 2}", "dicom_id": "i", "sentence": i % 2,
             "subject_id": f"p{i // 2}", "cnr": value + more, "miou": (value + more) / 9}
            for i, value in enumerate(values[:n])
        ]  # fmt: skip
        protocol = {"definition": "biovil", "seed": 0}
        told = {"name": f"m{more}", "sha256": ""}
        return {"task": "grounding", "protocol": protocol, "rows": rows, "checkpoint": told}

    values = rng.normal(size=40)
    found = difference(report(0, 40), report(0.1, 39))
    assert found is not None and found["rows"] == 39
    assert found["metrics"]["cnr"]["value"] == pytest.approx(0.1)
    assert found["metrics"]["miou"] == pytest.approx(
        {"value": 0.1 / 9, "low": 0.1 / 9, "high": 0.1 / 9, "p": 1 / 2001}
    )


def test_the_tables_end_with_the_differences_to_the_first_model(
    listed: tuple[ImageList, list[Path]],
) -> None:
    first, second = reports(zero_shot, listed)
    ((title, (header, *rows)),) = differences([first, second])
    assert title == "Differences to random, paired" and header[3:] == ["Figure", "Difference", "p"]
    found = difference(first, second)
    assert found is not None
    for row, (name, figure) in zip(rows, found["metrics"].items(), strict=True):
        assert row[:4] == ["made", "oracle", "48", name]
        assert row[4].startswith(f"+{100 * figure['value']:.2f} [") and float(row[5]) < 0.01
    assert [*differences([first])] == []


def test_the_command_tells_the_difference_to_the_first_of_several_checkpoints(
    listed: tuple[ImageList, list[Path]], tmp_path: Path
) -> None:
    images, paths = listed
    lines = [
        f"{one},{CLASSES[label]}" for one, label in zip(images.ids, images.labels, strict=True)
    ]
    (tmp_path / "own.csv").write_text("\n".join(["path,label", *lines]))
    models = [save_tiny_model(tmp_path / name, seed) for seed, name in enumerate(("one", "two"))]
    result = egma_eval(
        "zero-shot", "--task", "csv", "--images", paths[0].parent, "--labels",
        tmp_path / "own.csv", "--out", tmp_path, *models,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert result.output.count("difference to one, over 48 rows that both have:") == 1
    assert "few images of a class (Atelectasis 6" in result.output
    assert "hardly any grey levels" not in result.output


def test_a_contrast_is_told_as_a_number_and_controls_below_their_figure() -> None:
    over = {"value": 0.25, "low": 0.1, "high": 0.4, "p": 0.012}
    figure = {"value": 1.25, "low": 1.0, "high": 1.5, "prior": 1.0, "over prior": over}
    report = {
        "task": "grounding",
        "checkpoint": {"name": "m"},
        "protocol": {},
        "cautions": ["12 patients: few"],
        "metrics": {"cnr": figure},
    }
    lines = [" ".join(line.split()) for line in told(report)]
    assert lines[1:] == [
        "12 patients: few",
        "cnr 1.250 [1.000, 1.500]",
        "location prior 1.000 difference +0.250 [0.100, 0.400], p 0.012",
    ]


@pytest.mark.parametrize(
    "ids",
    [
        (
            "CheXpert-v1.0/train/patient00001/study1/view1.jpg",
            "CheXpert-v1.0/train/patient{}/study2/v.jpg",
        ),
        (
            r"CheXpert\train\patient00001\study1\view1.jpg",
            r"CheXpert\train\patient{}\study2\view1.jpg",
        ),
        ("train/Patient00001/a.jpg", "train/PATIENT{}/b.jpg"),
        ("patient00001_study1_view1_frontal.jpg", "patient{}_study2_view1_frontal.jpg"),
        ("train_patient00001-a.png", "train_patient{}-b.png"),
        ("p90/p90000001/s9/a.jpg", "p90/p900{}/s8/b.jpg"),
        ("p90000001_s9_a.jpg", "P900{}.dcm"),
        ("s90000001/a.jpg", "s900{}/b.jpg"),
        ("00000001_000.png", "000{}_001.png"),
        ("images_001/00000001_000.png", "images_012/000{}_001.png"),
        (r"images_001\00000001_000.png", r"images_012\000{}_001.png"),
        ("90000001_99000001_a-b.jpg", "900{}_99000002_c-d.jpg"),
        ("90000001/99000001/a.jpg", "900{}/99000002/b.jpg"),
        ("files/90000001-1.png", "files/900{}-2.png"),
        ("20240131/90000001_1.png", "20240201/900{}_2.png"),
        ("p90/p90000001/s9/a.jpg", "900{}_8_b.jpg"),
    ],
)
def test_patients_are_known_however_paths_are_written(ids: tuple[str, str]) -> None:
    first, other = ids
    numbers = patients([first, other.format("00001"), other.format("00002")]).tolist()
    assert numbers[0] == numbers[1] != numbers[2]


def test_where_a_path_names_no_patient_each_image_is_its_own() -> None:
    ids = ["patient.jpg", "x.png", "inpatient1_a.png", "inpatient1_b.png", "p1/2.png", "p1/3.png"]
    ids += ["20240131_1.png", "20240131_2.png", "1.2.90000001.1", "1.2.90000001.2"]
    ids += ["123456789_0.png", "123456789_1.png", "1234567_0.png", "1234567_1.png"]
    assert len(set(patients(ids).tolist())) == len(ids)


def test_a_folder_that_all_images_lie_in_is_no_patient() -> None:
    ids = [f"scratch/90000001/data/{i}.png" for i in range(4)]
    assert len(set(patients(ids).tolist())) == len(ids)
    ids = [f"scratch/90000001/0000000{1 + i // 2}_00{i}.png" for i in range(4)]
    assert patients(ids).tolist() == [0, 0, 1, 1]
    assert patients(["00000001/00000001_0.png", "00000001/00000001_1.png"]).tolist() == [0, 0]
    assert patients(["00000001_000.png", "00000001_001.png"]).tolist() == [0, 0]
