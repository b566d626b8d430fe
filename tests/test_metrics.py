"""Figures against scikit-learn and cases done by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from egma_train.evaluate.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    classification,
    confusion_matrix,
    levels,
    macro_f1,
    mean_with_interval,
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
    found = classification(truth, shares, predicted, 0)["auroc"]["value"]
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


def test_intervals_are_seeded_and_hold_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    samples = rng.random((100, 80)) < 0.3
    found = [mean_with_interval(one.astype(float), 1) for one in samples]
    covered = sum(one["low"] <= 0.3 <= one["high"] for one in found)
    assert 88 <= covered <= 99
    values = samples[0].astype(float)
    assert mean_with_interval(values, 1) == found[0] != mean_with_interval(values, 2)
    deviation = values.std() / np.sqrt(len(values))
    assert found[0]["high"] - found[0]["low"] == pytest.approx(2 * 1.96 * deviation, rel=0.15)
