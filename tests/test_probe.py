"""The linear probe: scikit-learn's answers, no image on both sides, shares nested in each other."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import egma_eval, save_tiny_model, write_picture
from sklearn.linear_model import LogisticRegression

from egma_train.errors import BadUsageError
from egma_train.evaluate.compare import Measured
from egma_train.evaluate.datasets.image_lists import ImageList
from egma_train.evaluate.probe import Labelled, check_apart, probe, share_of_each_class


def listed(prefix: str, labels: Any, classes: tuple[str, ...] = ("a", "b", "c")) -> ImageList:
    ids = tuple(f"{prefix}{i}.png" for i in range(len(labels)))
    return ImageList(prefix, classes, ids, np.asarray(labels))


def measured(prefix: str, n: int, seed: int) -> Measured:
    """Features of three classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    values = rng.normal(size=(n, 8)) + 1.2 * np.eye(8)[labels]
    images = listed(prefix, labels)
    facts: dict[str, Any] = {"evaluated": images.told(), "cautions": [], "unreadable": []}
    return Measured(images, values, facts)


def test_its_answers_are_scikit_learns_on_standardised_features() -> None:
    train, test = measured("train", 120, 0), measured("test", 60, 1)
    found = probe(train, test)
    middle, spread = train.values.mean(0), train.values.std(0)
    theirs = LogisticRegression(max_iter=2000).fit(
        (train.values - middle) / spread, train.images.labels
    )
    shares = theirs.predict_log_proba((test.values - middle) / spread)
    scores = np.array([[row[f"score {name}"] for name in "abc"] for row in found["rows"]])
    np.testing.assert_allclose(scores, shares, atol=1e-3)
    hits = np.mean(shares.argmax(1) == test.images.labels)
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(hits) and hits > 0.5
    assert found["protocol"]["images"] == 120


def test_classes_are_matched_by_name_whatever_their_order() -> None:
    train, test = measured("train", 120, 0), measured("test", 60, 1)
    turned = test._replace(images=listed("test", 2 - test.images.labels, ("c", "b", "a")))
    one, other = probe(train, test), probe(train, turned)
    assert one["metrics"]["accuracy"] == other["metrics"]["accuracy"]
    assert [row["predicted"] for row in one["rows"]] == [row["predicted"] for row in other["rows"]]


def test_images_to_learn_from_that_cannot_be_read_are_told_and_a_lost_class_refused() -> None:
    train, test = measured("train", 120, 0), measured("test", 60, 1)
    lost = [{"id": "z.png", "reason": "not found"}]
    found = probe(train._replace(report=train.report | {"unreadable": lost}), test)
    assert found["unreadable"] == lost
    assert "1 of 121 images to learn from cannot be read" in found["cautions"]
    two = train.images.only(train.images.labels < 2)
    less = train._replace(images=two, values=train.values[train.images.labels < 2])
    with pytest.raises(BadUsageError, match="no image of c to learn from can be read"):
        probe(less, test)


def test_smaller_shares_are_in_larger_ones_and_hold_each_class() -> None:
    labels = np.repeat([0, 1, 2], [200, 30, 4])
    shares = [set(share_of_each_class(labels, f, 7).tolist()) for f in (0.01, 0.1, 0.5, 1)]
    assert all(one <= other for one, other in itertools.pairwise(shares))
    assert [len(one) for one in shares] == [2 + 1 + 1, 20 + 3 + 1, 100 + 15 + 2, 234]
    assert share_of_each_class(labels, 0.1, 8).tolist() != sorted(shares[1])


def test_what_is_on_both_sides_is_refused_or_told() -> None:
    one, other = listed("x", [0, 1, 2]), listed("y", [1])
    spelled = [Path("a/x0.png"), Path("b/../a/X.png"), None]
    with pytest.raises(BadUsageError, match=r"1 images are to be learnt from and tested on, such"):
        check_apart(Labelled(one, spelled), Labelled(other, [Path("a/X.png")]))
    with pytest.raises(BadUsageError, match="no image of d to learn from"):
        check_apart(Labelled(one, []), Labelled(listed("y", [0], ("d", "b", "c")), []))

    def of(*ids: str) -> Labelled:
        return Labelled(ImageList("l", ("a",), ids, np.zeros(len(ids), np.int64)), [])

    train = of("patient00001/study1/v.jpg", "patient00002/study1/v.jpg")
    test = of("patient00002/study2/v.jpg", "patient00003/study1/v.jpg")
    assert check_apart(train, test) == ["1 patients have images in both lists"]
    assert check_apart(train, of("patient00003/study1/v.jpg")) == []


def test_the_command_measures_each_share_and_draws_its_curves(tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "untrained")
    rng = np.random.default_rng(0)
    for side, n in (("train", 24), ("test", 12)):
        rows = []
        for i in range(n):
            pixels = rng.integers(0, 60, (50, 60)) + 120 * (i % 2)
            write_picture(tmp_path / "images" / f"{side}{i}.png", pixels.astype(np.uint8))
            rows.append(f"{side}{i}.png,{['dark', 'bright'][i % 2]}")
        (tmp_path / f"{side}.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    own = ("probe", "--task", "csv", "--images", tmp_path / "images", "--out", tmp_path)
    own += ("--labels", tmp_path / "test.csv")
    assert "give --train-labels or --train-list" in egma_eval(*own, model).stderr
    learnt = ("--train-labels", tmp_path / "train.csv", "--fraction", "0.1", "--fraction", "1")
    result = egma_eval(*own, *learnt, model)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "evaluation" / "probe-csv"
    reports = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    assert sorted(one["protocol"]["images"] for one in reports) == [2, 24]
    best = max(reports, key=lambda one: one["protocol"]["images"])
    assert best["metrics"]["accuracy"]["value"] == 1  # dark from bright, even untrained
    assert len([*folder.glob("*.svg")]) == 2
    nan = egma_eval(*own, *learnt, "--fraction", "nan", model)
    assert nan.exit_code == 2 and "--fraction is above 0 and at most 1" in nan.stderr
    same = egma_eval(*own, "--train-labels", tmp_path / "test.csv", model)
    assert same.exit_code == 2 and "12 images are to be learnt from and tested on" in same.stderr
