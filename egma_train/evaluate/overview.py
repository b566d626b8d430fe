"""All reports of a folder on one page that links them."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from egma_train.evaluate.metrics import recalls
from egma_train.evaluate.page import page
from egma_train.evaluate.reports import own_turn, protocol_of, shown
from egma_train.storage.atomic import write_whole

_PAGE = "evaluation.html"


def write_overview(folder: Path) -> Path:
    """Write ``evaluation.html`` about all reports below ``evaluation``; return its place."""
    tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(folder.glob("*/*.json")):
        with suppress(Exception):  # of others, with anything in it, or being written
            tasks[path.parent.name].append(_told(path, json.loads(path.read_text())))
    others = [folder / "tables.html", *sorted(folder.glob("show/*.*"))]
    links = [(one.name, quote(str(one.relative_to(folder)))) for one in others if one.is_file()]
    html = page("overview.html", title="Evaluation", tasks=[*tasks.items()], others=links)
    with own_turn(folder):
        write_whole(folder / _PAGE, html)
    return folder / _PAGE


def _told(path: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    beside = ((one, path.with_suffix(f".{one}")) for one in ("json", "csv", "svg"))
    place = path.parent.name
    links = [(kind, quote(f"{place}/{own.name}")) for kind, own in beside if own.is_file()]
    return {
        "name": report["checkpoint"]["name"],
        "how": protocol_of(report),
        "links": links,
        "figures": [*_figures(report["metrics"])],
        "classes": [*_classes(report)],
        "cautions": [str(one) for one in report["cautions"]],
    }


def _figures(metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[list[str]]:
    for name, figure in metrics.items():
        write = shown(name)
        value, low, high = (figure[part] for part in ("value", "low", "high"))
        between = f"{write(low)} to {write(high)}" if low is not None else "-"
        known = [figure.get("chance")]
        chances = [write(one) for one in known if one is not None]
        yield [name, "-" if value is None else write(value), between, *chances]


def _classes(report: Mapping[str, Any]) -> Iterator[list[str]]:
    """Lay out each class of a classification."""
    if "confusion" not in report:
        return
    counts = np.array(report["confusion"]["rows_are_truth"])
    precision, recall = recalls(counts.T), recalls(counts)
    for i, name in enumerate(report["confusion"]["classes"]):
        both = precision[i] + recall[i]
        f1 = 2 * precision[i] * recall[i] / both if both > 0 else 0.0
        cells = (
            f"{100 * one:.2f}%" if one == one else "-" for one in (precision[i], recall[i], f1)
        )
        yield [name, str(counts[i].sum()), *cells]
