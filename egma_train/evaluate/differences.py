"""Which of two checkpoints is better: their reports' rows on the same images, pair by pair."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from egma_train.evaluate.datasets.image_lists import patients
from egma_train.evaluate.grounding import KEY, MEASURES
from egma_train.evaluate.intervals import Floats, paired_answers, paired_means
from egma_train.evaluate.metrics import paired_classification
from egma_train.evaluate.report_retrieval import RECALLS, WAYS
from egma_train.evaluate.retrieval import RANKS
from egma_train.evaluate.zero_shot import log_shares

Report = Mapping[str, Any]
Row = Mapping[str, Any]
Figures = dict[str, dict[str, float]]
_Key = tuple[str, ...]


def difference(first: Report, other: Report) -> dict[str, Any] | None:
    """Subtract a report's figures from another's over the rows that both have.

    Parameters
    ----------
    first, other : mapping
        Reports of one task, protocol and list, with their ``rows``, as measured or as read from
        the CSV.

    Returns
    -------
    dict or None
        ``to`` (the first checkpoint), ``rows`` (how many are shared) and ``metrics``: by name
        value, low, high and p; None where nothing is shared, or a task has no such test.
    """
    if first["task"] not in _TASKS:
        return None
    compare, key = _TASKS[first["task"]]
    before, after = (_by_key(report["rows"], key) for report in (first, other))
    shared = [one for one in before if one in after]
    if not shared:
        return None
    rows = [before[one] for one in shared], [after[one] for one in shared]
    to = {part: first["checkpoint"][part] for part in ("name", "sha256")}
    return {"to": to, "rows": len(shared), "metrics": compare((first, other), rows)}


def _by_key(rows: Sequence[Row], key: Sequence[str]) -> dict[tuple[_Key, int], Row]:
    """Map rows by key and how often it stood before: queries of several classes may be alike."""
    found: dict[tuple[_Key, int], Row] = {}
    seen = Counter[_Key]()
    for row in rows:
        named = tuple(str(row[part]) for part in key)
        found[named, seen[named]] = row
        seen[named] += 1
    return found


def _zero_shot(reports: Sequence[Report], rows: Sequence[Sequence[Row]]) -> Figures:
    classes = reports[0]["confusion"]["classes"]
    truth = np.array([classes.index(row["label"]) for row in rows[0]])
    sides = []
    for report, own in zip(reports, rows, strict=True):
        scores = np.stack([_column(own, f"score {name}") for name in classes], axis=1)
        predicted = np.array([classes.index(row["predicted"]) for row in own])
        sides.append((log_shares(report["logit_scale"] * scores), predicted))
    groups = patients([row["path"] for row in rows[0]])
    return paired_classification(truth, sides[0], sides[1], _seed(reports), groups)


def _retrieval(reports: Sequence[Report], rows: Sequence[Sequence[Row]]) -> Figures:
    ways = np.array([row["way"] for row in rows[0]])
    found: Figures = {}
    for way in dict.fromkeys(ways.tolist()):
        queries = [row["query"] for row in rows[0] if row["way"] == way]
        groups = patients(queries) if way == "image-to-text" else np.arange(len(queries))
        alone = len(np.unique(groups)) == len(groups)
        for name in (f"P@{k}" for k in RANKS):
            one, two = (_column(own, name)[ways == way] for own in rows)
            # The best candidate is relevant or not, which McNemar's test is for.
            made = (
                paired_answers(one > 0, two > 0)
                if alone and name == "P@1"
                else paired_means(one, two, _seed(reports), groups)
            )
            found[f"{way} {name}"] = made._asdict()
    return found


def _grounding(reports: Sequence[Report], rows: Sequence[Sequence[Row]]) -> Figures:
    groups = np.unique([row["subject_id"] for row in rows[0]], return_inverse=True)[1]
    return {
        name: paired_means(
            _column(rows[0], name), _column(rows[1], name), _seed(reports), groups
        )._asdict()
        for name in MEASURES[reports[0]["protocol"]["definition"]]
    }


def _report_retrieval(reports: Sequence[Report], rows: Sequence[Sequence[Row]]) -> Figures:
    groups = np.unique([row["subject_id"] for row in rows[0]], return_inverse=True)[1]
    found: Figures = {}
    for way in WAYS:
        ranks = [_column(own, f"{way} rank") for own in rows]
        for k in RECALLS:
            one, two = ((own <= k).astype(np.float64) for own in ranks)
            found[f"{way} recall@{k}"] = paired_means(one, two, _seed(reports), groups)._asdict()
    return found


def _column(rows: Sequence[Row], name: str) -> Floats:
    return np.array([float(row[name]) for row in rows])


def _seed(reports: Sequence[Report]) -> int:
    return int(reports[0]["protocol"]["seed"])


_Compare = Callable[[Sequence[Report], Sequence[Sequence[Row]]], Figures]
_TASKS: dict[str, tuple[_Compare, tuple[str, ...]]] = {
    "zero-shot": (_zero_shot, ("path", "label")),
    "probe": (_zero_shot, ("path", "label")),
    "retrieval": (_retrieval, ("way", "query")),
    "grounding": (_grounding, KEY),
    "report-retrieval": (_report_retrieval, ("dataset", "reading_id")),
}
