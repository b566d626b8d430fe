"""Grounding: figures by hand and from scikit-learn, regions that sentences name, the command."""

import csv
import json
import shutil
from collections import Counter
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
from egma_prep.sources.manifests import vocabulary
from egma_train.data.shards import find_shards, read_shard
from egma_train.errors import BadUsageError
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import (
    Others,
    _others,
    _pointing,
    affirms,
    grounding,
    measured,
    measured_as_biovil,
    names,
    region_mask,
)
from egma_train.geometry import FRAME


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


def biovil_by_pixels(cosines: Any, mask: Any) -> tuple[float, float]:
    """Restate hi-ml's map and the paper's two measures with loops, the kernel written out.

    scipy's filter ends at four deviations (six patches) and mirrors the edge patch itself.
    """
    steps = np.arange(-6, 7)
    weights = np.exp(-(steps**2) / (2 * 1.5**2))
    weights /= weights.sum()
    mirrored = [*range(7), *range(6, -1, -1)]
    smooth = cosines.reshape(7, 7)
    for _ in range(2):  # along the columns, then, turned, along the rows
        smooth = np.array(
            [
                sum(w * smooth[mirrored[(i + s) % 14]] for s, w in zip(steps, weights, strict=True))
                for i in range(7)
            ]
        ).T
    pixels = np.array([[smooth[y // 32, x // 32] for x in range(224)] for y in range(224)])
    a, b = pixels[mask], pixels[~mask]
    cnr = abs(a.mean() - b.mean()) / np.sqrt(a.var() + b.var())
    ious = []
    for threshold in (0.1, 0.2, 0.3, 0.4, 0.5):
        above = {*np.flatnonzero(pixels > threshold).tolist()}
        truth = {*np.flatnonzero(mask).tolist()}
        ious.append(len(above & truth) / len(above | truth))
    return float(cnr), float(np.mean(ious))


@pytest.mark.parametrize("seed", range(3))
def test_biovils_definition_is_its_authors_code_restated(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cosines = rng.normal(0.1, 0.5, 49)
    mask = np.zeros((224, 224), np.bool_)
    top, left = rng.integers(0, 120, 2)
    mask[top : top + 80, left : left + 60] = True
    found = measured_as_biovil(cosines, mask)
    assert [found["cnr"], found["miou"]] == pytest.approx([*biovil_by_pixels(cosines, mask)])
    # The opposite map has the same absolute contrast, which is why ours is signed.
    assert measured_as_biovil(-cosines, mask)["cnr"] == pytest.approx(found["cnr"])
    # Cosines below every threshold mark nothing.
    assert measured_as_biovil(cosines / 100, mask)["miou"] == 0


def test_a_mask_of_everything_or_nothing_is_left_out() -> None:
    for mask in (np.zeros((224, 224), np.bool_), np.ones((224, 224), np.bool_)):
        for measure in (measured, measured_as_biovil):
            assert all(np.isnan(value) for value in measure(np.arange(49.0), mask).values())


def region(name: str, kind: str = "ellipse") -> dict[str, Any]:
    return {"name": name, "kind": kind, "x0": 10.0, "y0": 20.0, "x1": 30.0, "y1": 60.0}


@pytest.mark.parametrize(
    ("text", "name", "kind", "expected"),
    [
        ("There is a left Pneumothorax.", "Pneumothorax", "ellipse", True),
        ("no pneumothorax.", "Pneumothorax", "ellipse", True),
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


@pytest.mark.parametrize(
    ("text", "label", "expected"),
    [
        ("There is a left pneumothorax.", "Pneumothorax", True),
        ("no pneumothorax.", "Pneumothorax", False),
        ("no effusion, possible pneumothorax.", "Pneumothorax", True),
        ("no pneumothorax, small effusion.", "Pleural abnormality", True),
        ("the heart is enlarged.", "Enlarged cardiac silhouette", True),
        ("a mass in the left lung", "Lung nodule or mass", True),
        ("pneumothorax.", "Nodule", False),
    ],
)
def test_a_sentence_affirms_a_finding_by_what_it_mentions(
    text: str, label: str, expected: bool
) -> None:
    mentions = [one._asdict() for one in vocabulary().mentions(text)]
    assert affirms(mentions, label) is expected


@pytest.mark.parametrize("against", ["gaze", "regions"])
def test_of_sentences_that_affirm_findings_only_those_point(clean_out: Path, against: str) -> None:
    points = {
        mentions: {
            one[1:3] for one in _others(find_shards(clean_out), against, mentions, 7).sentences
        }
        for mentions in ("any", "affirmed")
    }
    affirming = {
        (reading.reading_id, number)
        for reading in open_shards(clean_out)
        for number, one in enumerate(reading.sentences)
        if any(m["kind"] == "finding" and not m["negated"] for m in one.mentions or ())
    }
    if against == "gaze":
        assert points["affirmed"] == points["any"] & affirming
        assert 0 < len(points["affirmed"]) < len(points["any"])
        return
    ellipses = points["affirmed"] - points["any"]  # named by another word: "layering fluid"
    assert ellipses <= affirming and points["affirmed"] & affirming


def test_shards_that_do_not_tell_mentions_are_refused_where_they_are_asked_for() -> None:
    old = Path(__file__).parent / "golden" / "shard-v1.parquet"
    (reading,) = read_shard(old, maps=True)
    with pytest.raises(BadUsageError, match="--mentions any"):
        list(_pointing(reading, "gaze", "affirmed"))
    assert list(_pointing(reading, "gaze", "any"))


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
        from egma_prep.exports.export import export

        export(clean_out, tmp_path / "shards", "npz")
    folder = clean_out if form == "parquet" else tmp_path / "shards"
    found = {(one.dataset, one.reading_id): one for path in find_shards(folder)
             for one in read_shard(path, maps=True)}  # fmt: skip
    for reading in open_shards(clean_out):
        own = found[reading.dataset, reading.reading_id]
        assert [one["name"] for one in own.regions] == [one["name"] for one in reading.regions]
        assert [one["x0"] for one in own.regions] == [one["x0"] for one in reading.regions]


class Oracle(Encoder):
    """Each patch is a direction; a sentence is the mean of the heatmaps that its words have."""

    grid = 7  # type: ignore[assignment]
    preparation = (FRAME, 224)  # type: ignore[assignment]

    def __init__(self, shards: Path) -> None:
        super().__init__("oracle", "", None, None, torch.device("cpu"))  # type: ignore[arg-type]
        self.grids: dict[str, list[Any]] = {"": [np.ones(49)]}
        for reading in open_shards(shards):
            for sentence in reading.sentences:
                if sentence.grid is not None:
                    grid = sentence.grid.ravel()
                    own = self.grids.setdefault(sentence.text, [])
                    own.append(grid / np.linalg.norm(grid))

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.mean(self.grids[one], 0) for one in texts])).float()

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(len(frames), 49), torch.eye(49).expand(len(frames), -1, -1)


def test_an_oracle_of_sentences_is_above_the_prior_and_the_swap(clean_out: Path) -> None:
    report = grounding(clean_out, Oracle(clean_out), batch_size=5)
    for name in ("pointing", "iou", "cnr", "auroc"):
        figure = report["metrics"][name]
        for control in ("prior", "swapped"):
            over = figure[f"over {control}"]
            assert over["value"] == pytest.approx(figure["value"] - figure[control])
            assert 0 < over["low"] < over["value"] < over["high"] and over["p"] < 0.01, name
    assert report["metrics"]["pointing"]["value"] > 2 * report["metrics"]["pointing"]["chance"]
    again = grounding(clean_out, Oracle(clean_out), batch_size=50)
    assert again["metrics"] == report["metrics"]  # the swaps hang on no batch


class Blind(Oracle):
    """Sees one fixed map in any image whatever is said."""

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        every = np.mean([grid for own in self.grids.values() for grid in own], 0)
        return torch.from_numpy(every).float().expand(len(texts), -1)


def test_a_model_that_knows_where_readers_look_is_no_better_than_the_controls(
    clean_out: Path,
) -> None:
    for figure in grounding(clean_out, Blind(clean_out))["metrics"].values():
        assert figure["over swapped"] == {"value": 0, "low": 0, "high": 0, "p": 1}
        assert abs(figure["over prior"]["value"]) < 0.1 * max(figure["prior"], 1)


def area_means(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    means = cv2.resize(mask.astype(np.float32), (7, 7), interpolation=cv2.INTER_AREA)
    return np.asarray(means, np.float32).ravel()


@pytest.mark.parametrize("against", ["gaze", "regions"])
def test_the_prior_is_the_mean_of_other_patients_targets(clean_out: Path, against: str) -> None:
    """Added up again from what egma_prep reads, the judged patient left out."""
    others = _others(find_shards(clean_out), against, "any", 7)
    grids: dict[str, list[Any]] = {}
    for reading in open_shards(clean_out):
        for sentence in reading.sentences:
            if against == "gaze":
                target = None if sentence.grid is None else sentence.grid.ravel()
            else:
                drawn = [region_mask(one) for one in reading.regions if names(sentence.text, one)]
                mask = np.any(drawn, axis=0) if drawn else None
                target = None if mask is None else area_means(mask)
            if target is not None:
                grids.setdefault(reading.subject_id, []).append(target)
    assert len(grids) > 3
    for patient in grids:
        rest = [one for other, own in grids.items() if other != patient for one in own]
        mean = np.mean(rest, 0)
        assert others.prior(patient) == pytest.approx(mean / mean.max(), abs=1e-5)


def test_of_one_patient_alone_there_is_no_prior() -> None:
    others = Others({"p": np.ones(49)}, {"p": 1}, [("p", "r", 0, "Clear.")])
    assert np.isnan(others.prior("p")).all()
    assert np.isnan([*measured(others.prior("p"), quarter()).values()]).all()


def test_a_swapped_sentence_is_another_patients_of_other_words() -> None:
    said = [("p1", "r1", 0, "Clear."), ("p1", "r2", 0, "No mass."), ("p2", "r3", 0, "clear.")]
    others = Others({}, {}, said)
    keys = [("d", "r1", "i", number) for number in range(20)]
    assert {others.sentence("p1", "Normal heart.", key, 0) for key in keys} == {"clear."}
    assert others.sentence("p1", "Clear.", keys[0], 0) is None  # there is none of other words
    drawn = [others.sentence("p3", "x", key, 0) for key in keys]
    assert set(drawn) == {"Clear.", "No mass.", "clear."}
    assert drawn == [others.sentence("p3", "x", key, 0) for key in keys]
    assert drawn != [others.sentence("p3", "x", key, 1) for key in keys]


def test_a_swapped_sentence_is_drawn_evenly_whoever_said_most() -> None:
    """One patient said 50 of 54 sentences; the others' four have a quarter of the draws each."""
    said = [("a", f"r{i:02}", 0, f"a{i}") for i in range(50)] + [(p, "r", 0, p) for p in "bcde"]
    others = Others({}, {}, said)
    drawn = Counter(others.sentence("a", "a0", ("key", i), 0) for i in range(800))
    assert drawn.keys() == set("bcde")
    assert all(150 <= count <= 250 for count in drawn.values())  # 200 +- 4 deviations


@pytest.mark.parametrize("same", ["No pneumothorax", "no  pneumothorax .", "NO PNEUMO-THORAX"])
def test_words_are_no_others_for_their_case_punctuation_or_spaces(same: str) -> None:
    others = Others({}, {}, [("b", "r", 0, same)])
    assert others.sentence("a", "No pneumothorax.", ("key",), 0) is None


class Random(Encoder):
    """Each sentence and patch is a direction of its own, drawn in turn."""

    grid = 7  # type: ignore[assignment]
    preparation = (FRAME, 224)  # type: ignore[assignment]

    def __init__(self, seed: int) -> None:
        super().__init__("random", "", None, None, torch.device("cpu"))  # type: ignore[arg-type]
        self.rng = torch.Generator().manual_seed(seed)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        return F.normalize(torch.randn(len(texts), 16, generator=self.rng), dim=-1)

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        patches = F.normalize(torch.randn(len(frames), 49, 16, generator=self.rng), dim=-1)
        return patches[:, 0], patches


def test_random_models_are_at_chance_and_mostly_within_the_interval(clean_out: Path) -> None:
    """An interval of 95 % may miss now and then; the mean of four models is near chance."""
    drawn = [grounding(clean_out, Random(seed))["metrics"] for seed in range(4)]
    for name in ("pointing", "cnr", "auroc"):
        figures = [metrics[name] for metrics in drawn]
        assert sum(one["low"] < one["chance"] < one["high"] for one in figures) >= 3
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
