"""Each image's own report among all: ranks by loops and by scikit-learn, chance by drawing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation import egma_eval, save_tiny_model, written
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from egma_train.data.shards import find_shards, read_shard
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.report_retrieval import (
    chance,
    ranks_of_right,
    report_retrieval,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "untrained")


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return load_encoder(model)


@given(seed=st.integers(0, 50), n=st.integers(2, 12), k=st.integers(1, 11))
def test_recall_is_scikit_learns_where_every_report_is_another(seed: int, n: int, k: int) -> None:
    scores = np.random.default_rng(seed).normal(size=(n, n))
    ranks = ranks_of_right(scores, np.eye(n, dtype=bool))
    if k < n > 2:
        theirs = top_k_accuracy_score(np.arange(n), scores, k=k)
        assert float((ranks <= k).mean()) == pytest.approx(theirs)
    for query, own in enumerate(scores):
        assert ranks[query] == [*np.argsort(-own)].index(query) + 1


def test_a_report_of_the_same_words_is_right_and_a_tie_is_not() -> None:
    right = np.array([[1, 1, 0, 0], [0, 0, 1, 0]], bool)
    scores = np.array([[0.1, 0.9, 0.5, 0.2], [0.3, 0.3, 0.3, 0.1]])
    assert ranks_of_right(scores, right).tolist() == [1, 3]


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), k=st.sampled_from([1, 2, 5, 20]))
def test_chance_is_what_random_orders_reach(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    said = rng.integers(0, 6, 8)
    same = said[:, None] == said
    drawn = [float((ranks_of_right(rng.random((8, 8)), same) <= k).mean()) for _ in range(1500)]
    assert np.mean(drawn) == pytest.approx(chance(same, k), abs=0.03)


@pytest.mark.parametrize("score", ["pooled", "matches"])
def test_ranks_are_those_of_plain_loops(clean_out: Path, encoder: Encoder, score: str) -> None:
    found = report_retrieval(clean_out, encoder, score=score, batch_size=5)
    every = {}
    for one in (one for path in find_shards(clean_out) for one in read_shard(path)):
        every.setdefault(one.dicom_id, one)
    readings = list(every.values())
    assert [row["reading_id"] for row in found["rows"]] == [one.reading_id for one in readings]
    forth, back = np.zeros((2, len(readings), len(readings)))
    for i, image in enumerate(readings):
        frame = np.frombuffer(image.image, np.uint8).reshape(1, 224, 224)
        pooled, patches = (part[0].numpy() for part in encoder.images(frame))
        for j, report in enumerate(readings):
            if score == "pooled":
                mean = encoder.texts(report.texts, unit=False).numpy().mean(0)
                forth[i, j] = back[j, i] = pooled @ mean / np.linalg.norm(mean)
            else:
                own = patches @ encoder.sentences(report.texts).numpy().T
                forth[i, j], back[j, i] = own.max(1).mean(), own.max(0).mean()
    texts = [" ".join(" ".join(one.texts).casefold().split()) for one in readings]
    for way, scores in (("image-to-text", forth), ("text-to-image", back)):
        for i, row in enumerate(found["rows"]):
            best = max(scores[i, j] for j in range(len(texts)) if texts[j] == texts[i])
            wrong = [scores[i, j] for j in range(len(texts)) if texts[j] != texts[i]]
            at_least, at_most = (sum(one >= best + e for one in wrong) for e in (1e-6, -1e-6))
            assert 1 + at_least <= row[f"{way} rank"] <= 1 + at_most
        for k in (1, 5, 10):
            share = np.mean([row[f"{way} rank"] <= k for row in found["rows"]])
            figure = found["metrics"][f"{way} recall@{k}"]
            assert figure["value"] == pytest.approx(share)
            assert figure["low"] <= share <= figure["high"] and 0 < figure["chance"] < 1


def test_the_command_says_the_figures_and_the_difference_to_the_first(
    clean_out: Path, model: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "second", seed=5)
    base = ("report-retrieval", "--shards", clean_out, "--out", tmp_path, "--split", "train")
    result = egma_eval(*base, model, other)
    assert result.exit_code == 0, result.output
    report: Any = json.loads(written(tmp_path, "report-retrieval").read_text())
    assert report["protocol"]["splits"] == ["train"] and report["trained_on"] is None
    assert f"of {report['different_reports']} reports" in result.output
    assert "median rank image-to-text " in result.output
    assert "difference to untrained, over" in result.output
    lines = [one for one in result.output.splitlines() if "image-to-text recall@5" in one]
    assert len(lines) == 3  # of each model, and between them
    bad = egma_eval(*base, "--split", "tran", model)
    assert bad.exit_code == 2 and "no split 'tran'; there are: " in bad.stderr
    bad = egma_eval(*base, "--score", "best", model)
    assert bad.exit_code == 2 and "there are: matches, pooled" in bad.stderr
