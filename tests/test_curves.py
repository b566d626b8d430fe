"""Curves behind a classification's figures, and the page that links every report."""

import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, chromium
from evaluation import egma_eval, list_of_pictures, save_tiny_model
from selenium.webdriver.common.by import By
from sklearn.calibration import calibration_curve
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from egma_train.evaluate.curves import (
    Answers,
    answers_of,
    calibration,
    draw_curves,
    expected_calibration_error,
)
from egma_train.evaluate.overview import write_overview
from egma_train.evaluate.reports import read_rows

CLASSES = ["Edema", "No $Finding$", "<b>Pneumonia"]


def invented(n: int = 400, seed: int = 0) -> Answers:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, n)
    logits = rng.normal(size=(n, 3)) + 1.5 * np.eye(3)[truth]
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return Answers(CLASSES, truth, shares)


def test_calibration_is_scikit_learns_and_its_error_that_of_loops() -> None:
    answers = invented()
    sure, right, counts = calibration(answers)
    predicted = answers.shares.argmax(1)
    theirs = calibration_curve(predicted == answers.truth, answers.shares.max(1), n_bins=10)
    some = counts > 0
    np.testing.assert_allclose(right[some], theirs[0])
    np.testing.assert_allclose(sure[some], theirs[1])
    assert counts.sum() == 400 and np.isnan(sure[~some]).all()
    error = 0.0
    for low in np.arange(10) / 10:
        own = (answers.shares.max(1) >= low) & (answers.shares.max(1) < low + 0.1)
        if own.any():
            hits = (predicted == answers.truth)[own].mean()
            error += own.mean() * abs(hits - answers.shares.max(1)[own].mean())
    assert expected_calibration_error(answers) == pytest.approx(error, abs=1e-9)


def test_a_sure_and_right_model_is_calibrated() -> None:
    truth = np.array([0, 1, 2, 1])
    assert expected_calibration_error(Answers(CLASSES, truth, np.eye(3)[truth])) == 0


def test_the_drawing_has_the_figures_of_each_class_and_repeats_itself(tmp_path: Path) -> None:
    answers = invented()
    for name in ("a.svg", "b.svg"):
        draw_curves(answers, "a $model$ <b>", tmp_path / name)
    drawn = (tmp_path / "a.svg").read_text()
    for number, name in enumerate(CLASSES):
        known = roc_auc_score(answers.truth == number, answers.shares[:, number])
        noted = html.escape(f"{name}: {known:.3f}")  # as matplotlib notes what it draws
        assert f"<!-- {noted} -->" in drawn
    ids = r'id="[^"]*"|#[0-9a-zA-Z]+'
    one, other = (re.sub(ids, "", (tmp_path / name).read_text()) for name in ("a.svg", "b.svg"))
    assert len(one) == len(other)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models on a list, as the command leaves it."""
    root = tmp_path_factory.mktemp("evaluated")
    models = [save_tiny_model(root / name, seed) for seed, name in enumerate(("one", "two"))]
    _, paths = list_of_pictures(root / "images", ["a", "b"], 8)
    lines = [f"{path.name},{'ab'[i // 8]}" for i, path in enumerate(paths)]
    (root / "own.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    (root / "own.toml").write_text('a = ["lungs are clear"]\nb = ["pneumonia"]\n')
    own = ("--task", "csv", "--images", root / "images", "--labels", root / "own.csv")
    result = egma_eval("zero-shot", "--out", root, *own, "--prompts", root / "own.toml", *models)
    assert result.exit_code == 0, result.output
    assert f"all reports: {root / 'evaluation' / 'evaluation.html'}" in result.output
    return root


def test_each_report_has_its_curves_of_its_own_answers(evaluated: Path) -> None:
    reports = sorted((evaluated / "evaluation" / "zero-shot-csv").glob("*.json"))
    assert len(reports) == 2
    for path in reports:
        report = json.loads(path.read_text())
        answers = answers_of(report, read_rows(path))
        assert path.with_suffix(".svg").stat().st_size > 10_000
        positive = answers.truth == 1
        known = roc_auc_score(positive, answers.shares[:, 1])
        assert report["metrics"]["auroc"]["value"] == pytest.approx(known, abs=1e-6)


@pytest.mark.needs_chromium
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver")
def test_one_page_links_every_report_and_has_each_class(evaluated: Path) -> None:
    folder = evaluated / "evaluation"
    strange = ['{"metrics": 3}', '{"metrics": []}', "[" * 10_000, "null"]
    for i, text in enumerate(strange):
        (folder / "zero-shot-csv" / f"strange{i}.json").write_text(text)
    page = write_overview(folder)
    with chromium() as driver:
        driver.get(page.as_uri())
        links = [
            one.get_attribute("href") or "" for one in driver.find_elements(By.CSS_SELECTOR, "a")
        ]
        for link in links:
            assert Path(link.removeprefix("file://")).is_file()
        assert [Path(link).suffix for link in links] == [".json", ".csv", ".svg"] * 2
        rows: list[Any] = []
        for one in driver.find_elements(By.CSS_SELECTOR, "details"):
            one.find_element(By.TAG_NAME, "summary").click()
            rows.append([row.text.split() for row in one.find_elements(By.TAG_NAME, "tr")[1:]])
        assert driver.get_log("browser") == []
    for path, own in zip(sorted((folder / "zero-shot-csv").glob("o*.json")), rows, strict=False):
        table = read_rows(path)
        truth, predicted = ([row[name] for row in table] for name in ("label", "predicted"))
        theirs = precision_recall_fscore_support(
            truth, predicted, labels=["a", "b"], zero_division=0
        )
        for i, cells in enumerate(own):
            assert cells[:2] == ["ab"[i], str(theirs[3][i])]
            for cell, value in zip(cells[2:], (one[i] for one in theirs[:3]), strict=True):
                assert cell == "-" or float(cell[:-1]) == pytest.approx(100 * value, abs=0.01)
