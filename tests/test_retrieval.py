"""Retrieval both ways: by hand, ties, chance, ceiling, an oracle, the command."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from evaluation import (
    OracleEncoder,
    RandomEncoder,
    egma_eval,
    list_of_pictures,
    save_tiny_model,
    written,
)

from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.datasets.prompts import Prompts, shipped_prompts
from egma_train.evaluate.retrieval import precision_at, retrieval

CLASSES = tuple(shipped_prompts("8x200").queries)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageList, list[Path]]:
    """Twelve images of each of the eight classes."""
    return list_of_pictures(tmp_path_factory.mktemp("images"), CLASSES, 12)


def test_precision_of_a_case_done_by_hand() -> None:
    similar = np.array([[0.1, 0.9, 0.5, 0.7]])
    relevant = np.array([[True, False, False, True]])
    assert [precision_at(similar, relevant, k).tolist() for k in (1, 2, 3, 4)] == [
        [0], [1 / 2], [1 / 3], [1 / 2],
    ]  # fmt: skip


def test_of_equal_candidates_the_earlier_one_comes_first() -> None:
    similar, relevant = np.zeros((1, 40)), np.arange(40)[None] < 5
    assert precision_at(similar, relevant, 5) == 1
    assert precision_at(similar, relevant[:, ::-1], 5) == 0


@pytest.mark.parametrize("reverse", [False, True])
def test_an_oracle_reaches_the_ceiling_whatever_the_order_of_the_prompts(
    listed: tuple[ImageList, list[Path]], reverse: bool
) -> None:
    shipped = shipped_prompts("8x200")
    prompts = Prompts("made", dict(sorted(shipped.queries.items(), reverse=reverse)))
    figures = retrieval(*listed, prompts, OracleEncoder(prompts.queries, CLASSES))["metrics"]
    assert {name: figure["value"] for name, figure in figures.items()} == {
        name: figure["ceiling"] for name, figure in figures.items()
    }
    assert [figure["ceiling"] for figure in figures.values()] == [1, 1, 0.5, 1, 1, 1]
    assert {figure["chance"] for figure in figures.values()} == {1 / 8}


def test_a_random_model_is_at_chance_within_its_interval(
    listed: tuple[ImageList, list[Path]],
) -> None:
    prompts = shipped_prompts("8x200")
    figures = retrieval(*listed, prompts, RandomEncoder(prompts.queries, CLASSES))["metrics"]
    for figure in figures.values():
        assert figure["low"] <= figure["chance"] <= figure["high"]


def test_chance_of_more_than_there_is_stays_below_the_ceiling(
    listed: tuple[ImageList, list[Path]],
) -> None:
    images, paths = listed
    few = Prompts("few", {name: (f"{name} seen",) for name in CLASSES})
    report = retrieval(images, paths, few, OracleEncoder(few.queries, CLASSES))
    figure = report["metrics"]["image-to-text P@10"]
    # One of the eight queries is right, and no order can leave it out.
    assert [figure[part] for part in ("chance", "value", "ceiling")] == pytest.approx([0.1] * 3)


def test_the_command_ranks_a_list_in_the_published_format(
    listed: tuple[ImageList, list[Path]], tmp_path: Path
) -> None:
    images, paths = listed
    columns = ["Path", "Frontal/Lateral", *CLASSES, "Support Devices"]
    with (tmp_path / "candidate.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        for path, label in zip(paths, images.labels, strict=True):
            own = ["1.0" if i == label else ("", "-1.0", "0.0")[i % 3] for i in range(8)]
            rows.writerow([f"CheXpert-v1.0-small/{path.name}", "Frontal", *own, "1.0"])
    model = save_tiny_model(tmp_path / "untrained")
    result = egma_eval(
        "retrieval", "--images", paths[0].parent, "--labels", tmp_path / "candidate.csv",
        "--out", tmp_path, model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "not the published list" in result.output
    assert "(chance 12.50, ceiling 50.00)" in result.output
    report = json.loads(written(tmp_path, "retrieval").read_text())
    with written(tmp_path, "retrieval", ".csv").open(newline="") as file:
        own = [row for row in csv.DictReader(file) if row["way"] == "image-to-text"]
    assert [row["query"] for row in own] == [f"CheXpert-v1.0-small/{path.name}" for path in paths]
    precision = report["metrics"]["image-to-text P@5"]["value"]
    assert np.mean([float(row["P@5"]) for row in own]) == pytest.approx(precision)
    assert report["evaluated"]["images"] == 96
