"""Grounding: figures by hand and from scikit-learn, regions that sentences name, the command."""

import csv
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from evaluation import egma_eval, save_tiny_model, written
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from egma_prep import open_shards
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import grounding, measured, names, region_mask
from egma_train.shards import find_shards, read_shard


def quarter() -> NDArray[np.bool_]:
    mask = np.zeros((224, 224), np.bool_)
    mask[:112, :112] = True
    return mask


def test_a_map_that_is_the_mask_finds_it_and_its_opposite_does_not() -> None:
    grid = np.zeros((7, 7))
    grid[:3, :3], grid[3, :4], grid[:4, 3] = 1, 0.5, 0.5
    right, wrong = measured(grid.ravel(), quarter()), measured(-grid.ravel(), quarter())
    assert right["pointing"] == 1 and right["iou"] > 0.9 and right["auroc"] > 0.99
    assert wrong["pointing"] == 0 and wrong["iou"] < 0.05 and wrong["auroc"] < 0.01
    assert right["cnr"] > 2 and wrong["cnr"] == pytest.approx(-right["cnr"])
    assert right["chance of iou"] == pytest.approx(0.25 / 1.75)
    assert right["chance of pointing"] == pytest.approx(4 * 4 / 49)  # centres to 112 + 15 px


@pytest.mark.parametrize(("cell", "hit"), [(2 * 7 + 2, 1), (3 * 7 + 3, 0), (3 * 7 + 1, 0)])
def test_the_pointing_game_takes_the_best_patchs_centre(cell: int, hit: int) -> None:
    """The centre of the fourth row is 16 px below its edge at 96; the mask ends at 96."""
    mask = np.zeros((224, 224), np.bool_)
    mask[:96, :96] = True
    assert measured(np.eye(49)[cell], mask)["pointing"] == hit


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6).map(np.random.default_rng))
def test_figures_are_those_of_their_definitions(rng: np.random.Generator) -> None:
    cosines, mask = rng.normal(size=49), rng.random((224, 224)) < 0.2
    found = measured(cosines, mask)
    spread = cv2.resize(cosines.reshape(7, 7), (224, 224)).ravel()
    inside = mask.ravel()
    assert found["auroc"] == pytest.approx(roc_auc_score(inside, spread))
    a, b = spread[inside], spread[~inside]
    assert found["cnr"] == pytest.approx((a.mean() - b.mean()) / np.sqrt(a.var() + b.var()))
    top = set(np.argsort(-spread, kind="stable")[: inside.sum()].tolist())
    truth = set(np.flatnonzero(inside).tolist())
    assert found["iou"] == pytest.approx(len(top & truth) / len(top | truth))


def test_a_mask_of_everything_or_nothing_is_left_out() -> None:
    for mask in (np.zeros((224, 224), np.bool_), np.ones((224, 224), np.bool_)):
        assert all(np.isnan(value) for value in measured(np.arange(49.0), mask).values())


def region(name: str, kind: str = "ellipse") -> dict[str, Any]:
    return {"name": name, "kind": kind, "x0": 10.0, "y0": 20.0, "x1": 30.0, "y1": 60.0}


@pytest.mark.parametrize(
    ("text", "name", "kind", "expected"),
    [
        ("There is a left Pneumothorax.", "Pneumothorax", "ellipse", True),
        ("no pneumothorax.", "Pneumothorax", "ellipse", False),
        ("a mass in the left lung", "Lung nodule or mass", "ellipse", True),
        ("emphysema.", "High lung volume / emphysema", "ellipse", True),
        ("no opacity in the right upper lung", "right upper lung zone", "box", True),
        ("the left upper lung is clear", "right upper lung zone", "box", False),
        ("frontal view of the chest.", "chest", "box", False),
    ],
)
def test_a_sentence_names_a_region_by_all_its_words(
    text: str, name: str, kind: str, expected: bool
) -> None:
    assert names(text, region(name, kind)) is expected


def test_boxes_and_ellipses_have_their_areas() -> None:
    box, ellipse = region_mask(region("x", "box")), region_mask(region("x"))
    assert box.sum() == 21 * 41 and box[20:61, 10:31].all()
    assert ellipse.sum() == pytest.approx(np.pi * 10 * 20, rel=0.02)
    assert ellipse[40, 20] and not ellipse[21, 11]


@pytest.mark.parametrize("form", ["parquet", "npz"])
def test_regions_and_maps_are_read_from_either_format(
    clean_out: Path, tmp_path: Path, form: str
) -> None:
    if form == "npz":
        from egma_prep.export import export

        export(clean_out, tmp_path / "shards", "npz")
    folder = clean_out if form == "parquet" else tmp_path / "shards"
    found = {(one.dataset, one.reading_id): one for path in find_shards(folder)
             for one in read_shard(path, maps=True)}  # fmt: skip
    for reading in open_shards(clean_out):
        own = found[reading.dataset, reading.reading_id]
        assert [one["name"] for one in own.regions] == [one["name"] for one in reading.regions]
        assert [one["x0"] for one in own.regions] == [one["x0"] for one in reading.regions]


class Oracle(Encoder):
    """Each patch is a direction; a sentence is its own heatmap, taken in the shards' order."""

    def __init__(self, shards: Path) -> None:
        super().__init__("oracle", "", None, None, torch.device("cpu"))  # type: ignore[arg-type]
        self.grids = [
            sentence.grid.ravel() / np.linalg.norm(sentence.grid)
            for path in find_shards(shards)
            for reading in open_shards(shards)
            if reading.reading_id in {one.reading_id for one in read_shard(path)}
            for sentence in reading.sentences
            if sentence.grid is not None
        ]

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        taken, self.grids = self.grids[: len(texts)], self.grids[len(texts) :]
        return torch.from_numpy(np.stack(taken)).float()

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(frames), 49), torch.eye(49).expand(len(frames), -1, -1)


def test_an_oracle_finds_what_was_looked_at_in_whole_shards(clean_out: Path) -> None:
    report = grounding(clean_out, Oracle(clean_out), batch_size=5)
    figures = {name: figure["value"] for name, figure in report["metrics"].items()}
    assert figures["pointing"] > 0.97 and figures["auroc"] > 0.97 and figures["iou"] > 0.5
    assert figures["pointing"] > 2 * report["metrics"]["pointing"]["chance"]


class Random(Encoder):
    """Each sentence and patch is a direction of its own, drawn in turn."""

    def __init__(self, seed: int) -> None:
        super().__init__("random", "", None, None, torch.device("cpu"))  # type: ignore[arg-type]
        self.rng = torch.Generator().manual_seed(seed)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return F.normalize(torch.randn(len(texts), 16, generator=self.rng), dim=-1)

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        patches = F.normalize(torch.randn(len(frames), 49, 16, generator=self.rng), dim=-1)
        return patches[:, 0], patches


def test_random_models_are_at_chance_and_mostly_within_the_interval(clean_out: Path) -> None:
    """An interval of 95 % may miss now and then; the mean of six models is near chance."""
    drawn = [grounding(clean_out, Random(seed))["metrics"] for seed in range(6)]
    for name in ("pointing", "cnr", "auroc"):
        figures = [metrics[name] for metrics in drawn]
        assert sum(one["low"] < one["chance"] < one["high"] for one in figures) >= 4
        mean = np.mean([one["value"] for one in figures])
        assert mean == pytest.approx(figures[0]["chance"], abs=0.05)


@pytest.mark.parametrize("against", ["gaze", "regions"])
def test_the_command_compares_with_gaze_and_with_regions(
    clean_out: Path, tmp_path: Path, against: str
) -> None:
    shutil.copytree(clean_out / "shards", tmp_path / "shards")
    model = save_tiny_model(tmp_path / "untrained")
    call = ["grounding", "--shards", tmp_path, "--out", tmp_path, "--against", against, model]
    result = egma_eval(*call)
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, f"grounding-{against}").read_text())
    figure = report["metrics"]["auroc"]
    assert figure["low"] <= figure["value"] <= figure["high"] and figure["chance"] == 0.5
    assert report["sentences"] > 10 and report["trained_on"] is None
    assert "whether the model was trained on these readings is not known" in result.output
    images = {one.dicom_id for path in find_shards(tmp_path) for one in read_shard(path)}
    assert report["images"] <= len(images)
    with written(tmp_path, f"grounding-{against}", ".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == report["sentences"]
    for name in ("pointing", "iou", "cnr", "auroc"):
        mean = np.nanmean([float(row[name]) for row in rows])
        assert mean == pytest.approx(report["metrics"][name]["value"])
    assert f"cnr {report['metrics']['cnr']['value']:.3f} [" in " ".join(result.output.split())
    result = egma_eval(*call, "--split", "none")
    assert result.exit_code == 2 and "no split 'none'; there are: test, train" in result.stderr
