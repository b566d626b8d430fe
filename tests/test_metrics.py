"""Figures against scikit-learn and cases done by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from egma_train.evaluate.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    balanced_accuracy_slopes,
    cautions,
    classification,
    confusion_matrix,
    levels,
    macro_f1,
    macro_f1_slopes,
    paired_classification,
    recalls,
)

CASES = st.integers(0, 10**6).map(np.random.default_rng)


def drawn(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth with every class, probabilities with ties, and the most probable class."""
    n_classes = int(rng.integers(2, 6))
    truth = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 50)])
    scores = rng.integers(1, 6, (len(truth), n_classes)).astype(float)
    shares = scores / scores.sum(1, keepdims=True)
    return truth, shares, shares.argmax(1)


@settings(max_examples=50, deadline=None)
@given(CASES)
def test_figures_of_counts_are_scikit_learns(rng: np.random.Generator) -> None:
    truth, shares, predicted = drawn(rng)
    n_classes = shares.shape[1]
    counts = confusion_matrix(truth, predicted, n_classes)
    labels = list(range(n_classes))
    assert (counts == reference.confusion_matrix(truth, predicted, labels=labels)).all()
    assert accuracy(counts) == pytest.approx(reference.accuracy_score(truth, predicted))
    expected = reference.f1_score(truth, predicted, labels=labels, average="macro", zero_division=0)
    assert macro_f1(counts) == pytest.approx(expected)
    expected = reference.balanced_accuracy_score(truth, predicted)
    assert balanced_accuracy(counts) == pytest.approx(expected)
    assert recalls(counts) == pytest.approx(
        reference.recall_score(truth, predicted, labels=labels, average=None)
    )


def test_a_class_without_images_that_is_never_predicted_has_no_f1() -> None:
    truth = np.array([0, 1, 1])
    assert macro_f1(confusion_matrix(truth, truth, 4)) == 1.0
    assert macro_f1(confusion_matrix(truth, np.array([0, 1, 3]), 4)) == pytest.approx(
        reference.f1_score(truth, [0, 1, 3], average="macro", zero_division=0)
    )


@settings(max_examples=50, deadline=None)
@given(CASES)
def test_auroc_is_scikit_learns_with_ties_and_weights(rng: np.random.Generator) -> None:
    truth, shares, _ = drawn(rng)
    weights = rng.integers(0, 3, len(truth)).astype(float)
    weights[:2] = 1  # of both kinds
    found = auroc(truth == 0, levels(shares[:, 0]), weights)
    expected = reference.roc_auc_score(truth == 0, shares[:, 0], sample_weight=weights)
    assert found == pytest.approx(expected)


@settings(max_examples=10, deadline=None)
@given(CASES)
def test_auroc_of_classes_is_scikit_learns_mean_of_one_against_the_rest(
    rng: np.random.Generator,
) -> None:
    truth, shares, predicted = drawn(rng)
    two = shares.shape[1] == 2
    expected = reference.roc_auc_score(
        truth, shares[:, 1] if two else shares, multi_class="ovr", average="macro"
    )
    found = classification(truth, shares, predicted)["auroc"]["value"]
    assert found == pytest.approx(expected)


def test_a_case_done_by_hand() -> None:
    """Of three A two are found; the one B is found; a C is taken for A."""
    truth, predicted = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 1, 1, 0])
    counts = confusion_matrix(truth, predicted, 3)
    assert counts.tolist() == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert accuracy(counts) == 3 / 5
    assert balanced_accuracy(counts) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert macro_f1(counts) == pytest.approx((4 / 6 + 2 / 3 + 0) / 3)
    assert auroc(np.array([True, False]), np.array([0, 0]), np.ones(2)) == 0.5
    assert np.isnan(auroc(np.array([True, True]), np.array([0, 1]), np.ones(2)))


@settings(max_examples=20, deadline=None)
@given(CASES)
@pytest.mark.parametrize(
    ("figure", "slopes"),
    [(balanced_accuracy, balanced_accuracy_slopes), (macro_f1, macro_f1_slopes)],
    ids=["balanced accuracy", "macro-F1"],
)
def test_slopes_are_what_a_figure_changes_by(
    figure: Any, slopes: Any, rng: np.random.Generator
) -> None:
    counts = rng.integers(1, 9, (3, 3)).astype(float)
    by_hand = np.empty((3, 3))
    for cell in np.ndindex(3, 3):
        more, less = counts.copy(), counts.copy()
        more[cell] += 1e-5
        less[cell] -= 1e-5
        by_hand[cell] = (figure(more) - figure(less)) / 2e-5
    assert slopes(counts) == pytest.approx(by_hand, abs=1e-7)


def test_what_few_images_decide_is_said() -> None:
    counts = np.array([[40, 1, 0], [2, 5, 0], [0, 0, 0]])
    said = " ".join(cautions(counts, ("A", "B", "C")))
    assert "3 errors in 48 images" in said and "(B 7)" in said and "no images of C" in said
    assert cautions(np.full((2, 2), 10), ("A", "B")) == []


def test_two_classifiers_are_compared_on_the_same_images() -> None:
    """The second is the first, ten images of a hundred mended."""
    rng = np.random.default_rng(0)
    truth = np.arange(100) % 2
    before = np.where(rng.random(100) < 0.3, 1 - truth, truth)
    wrong = np.flatnonzero(before != truth)[:10]
    after = before.copy()
    after[wrong] = truth[wrong]
    sides = [(np.eye(2)[own], own) for own in (before, after)]
    found = paired_classification(truth, sides[0], sides[1], 0)
    values = [
        reference.balanced_accuracy_score(truth, own)
        - reference.balanced_accuracy_score(truth, before)
        for own in (before, after)
    ]
    assert found["balanced_accuracy"]["value"] == pytest.approx(values[1])
    assert found["accuracy"]["value"] == pytest.approx(0.1)
    # Ten coins that all fall on one side, twice, and half of that event.
    assert found["accuracy"]["p"] == pytest.approx(2 * 0.5**10 - 0.5**10)
    for name, figure in found.items():
        assert 0 < figure["low"] < figure["value"] < figure["high"] < 0.25, name
        assert figure["p"] < 0.01
    assert found == paired_classification(truth, sides[0], sides[1], 0)
    same = paired_classification(truth, sides[0], sides[0], 0)
    assert all(figure["value"] == 0 and figure["p"] == 1 for figure in same.values())
    for name in ("accuracy", "balanced_accuracy", "macro_f1"):  # equal on a hundred is not sure
        assert same[name]["low"] < 0 < same[name]["high"], name


@pytest.mark.parametrize("lost", [0, 1, 3, 8])
def test_where_classes_are_balanced_p_of_balanced_accuracy_is_mcnemars(lost: int) -> None:
    """Each image weighs alike, so that both are one test; 1 of 60 mended is no sure gain."""
    truth = np.arange(60) % 2
    before, after = truth.copy(), truth.copy()
    before[: lost + 3] ^= 1
    after[20:23] ^= 1
    sides = [(np.eye(2)[own], own) for own in (before, after)]
    found = paired_classification(truth, sides[0], sides[1], 0)
    assert found["balanced_accuracy"]["value"] == pytest.approx(found["accuracy"]["value"])
    for name in ("balanced_accuracy", "macro_f1", "auroc"):
        one = found[name]
        if lost:
            near = 0.04 if name == "balanced_accuracy" else 0.2
            assert one["p"] == pytest.approx(found["accuracy"]["p"], abs=near), name
            assert (one["p"] < 0.05) == (found["accuracy"]["p"] < 0.05), name
        assert (one["low"] <= 0 <= one["high"]) or one["p"] < 0.05, name


def test_models_alike_but_for_the_spread_of_their_scores_have_the_same_auroc() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(50) % 2
    share = np.clip(truth * 0.2 + rng.random(50) * 0.8, 0, 1)
    sides = [(np.stack([1 - own, own], 1), truth) for own in (share, share**9 / 5)]
    found = paired_classification(truth, sides[0], sides[1], 0)["auroc"]
    assert found == {"value": 0, "low": 0, "high": 0, "p": 1}


def test_a_few_patients_tell_no_two_models_apart() -> None:
    truth, patient = np.arange(40) % 2, np.arange(40) // 10
    sides = [(np.eye(2)[own], own) for own in (1 - truth, truth)]
    for figure in paired_classification(truth, sides[0], sides[1], 0, patient).values():
        assert figure["value"] == 1 and np.isnan([figure["low"], figure["high"]]).all()
        assert figure["p"] == 2 / 2**4


def test_images_of_one_patient_widen_the_intervals_of_all_figures() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(30) % 2, 4)
    right = np.repeat(rng.random(30) < 0.7, 4)  # four images that stand or fall together
    predicted = np.where(right, truth, 1 - truth)
    scores = np.eye(2)[predicted] + np.repeat(rng.random((30, 2)), 4, axis=0)
    alone = classification(truth, scores, predicted)
    together = classification(truth, scores, predicted, np.repeat(np.arange(30), 4))
    for name in alone:
        widths = [one[name]["high"] - one[name]["low"] for one in (alone, together)]
        assert widths[1] / widths[0] == pytest.approx(2, rel=0.15), name  # the root of four
