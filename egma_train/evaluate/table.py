"""The paper's Tables I to III with our models beside it, from a list of tests."""

import csv
import html
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from egma_train.evaluate.encoder import checkpoint_name, load_encoder, weights_hash
from egma_train.evaluate.reports import write_report
from egma_train.evaluate.retrieval import retrieval
from egma_train.evaluate.shipped import shipped_toml
from egma_train.evaluate.tasks import read_test
from egma_train.evaluate.zero_shot import zero_shot

Report = dict[str, Any]
Say = Callable[[str], Any]
Rows = list[list[str]]

_RETRIEVAL = "chexpert8x200"
_FILES = {"images", "labels", "list", "prompts"}


def run_tests(
    checkpoints: Sequence[Path],
    tests: Iterable[Mapping[str, str]],
    data: Path,
    out: Path,
    say: Say,
    *,
    changes: Mapping[str, Any],
    seed: int,
    batch_size: int,
) -> list[Report]:
    """Measure checkpoints by the tests whose data is there; read again what is measured already.

    Parameters
    ----------
    tests : iterable of mapping
        ``task``, ``images``, ``labels`` and maybe ``list``, ``prompts``, ``protocol``, ``score``.
    data : Path
        What the paths are below.
    changes : mapping
        Options for foreign weights and the device.

    Returns
    -------
    list of dict
        Reports; ``test`` names what a table's cell asks for.
    """
    reports = []
    for test in tests:
        files = {part: data / test[part] for part in _FILES & test.keys()}
        absent = sorted(str(path) for path in files.values() if not path.exists())
        if absent:
            say(f"{test['task']} is left out: no {', '.join(absent)}")
            continue
        images, paths, prompts = read_test(test["task"], **files, seed=seed)
        how = {part: test[part] for part in ("protocol", "score") if part in test}
        ranks = test["task"] == _RETRIEVAL
        name = "retrieval" if ranks else f"zero-shot-{test['task']}"
        task: Any = retrieval if ranks else zero_shot
        measure = partial(task, images, paths, prompts, **how)
        known = {"test": name, "images": images.sha256, "prompts": prompts.sha256, "seed": seed}
        known |= {"found": len(paths) - paths.count(None), "changes": repr(changes), **how}
        for place in checkpoints:
            key = known | {"weights": weights_hash(place)}
            file = out / "evaluation" / name / f"{checkpoint_name(place)}.json"
            report = _read(file)
            if report.get("key") != key:
                say(f"{checkpoint_name(place)}: {name}")
                encoder = load_encoder(place, changes)
                report = measure(encoder, seed=seed, batch_size=batch_size)
                report |= {"checkpoint": encoder.told(), "key": key, "test": name}
                write_report(file.parent, encoder.name, report)
            reports.append(report)
    return reports


def tables(reports: Iterable[Report]) -> Iterator[tuple[str, Rows]]:
    """Lay out each of the paper's tables: title, then rows with the header first.

    Our figures are the mean and deviation over seeds, or with one seed the value and its interval.
    """
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for report in reports:
        for metric, figure in report["metrics"].items():
            found[_label(report)][f"{report['test']} {metric}"].append(figure)
    for declared in shipped_toml("paper-tables")["tables"]:
        rows = [["Method", "From", *declared["columns"]]]
        left = dict(found)

        def ours(label: str, cells: Sequence[str] = declared["cells"]) -> list[str]:
            return [label, "ours", *(_cell(found[label].get(cell, [])) for cell in cells)]

        for method, printed in declared["rows"].items():
            rows.append([method, "paper", *(_printed(value) for value in printed)])
            label = declared["ours"].get(method)
            if left.pop(label, None):
                rows.append(ours(label))
        rows += [ours(label) for label in left]
        yield declared["title"], [row for row in rows if row[1] != "ours" or set(row[2:]) != {"-"}]


def write_tables(folder: Path, reports: Sequence[Report]) -> list[Path]:
    """Write ``tables.md``, ``tables.csv`` and ``tables.html``."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = list(tables(reports))
    tested = sorted({(one["test"], one["list"]["name"], one["evaluated"]["images"],
                      one["evaluated"]["sha256"][:16]) for one in reports})  # fmt: skip
    notes = [f"{test}: {n} images, {name}, sha256 {sha}..." for test, name, n, sha in tested]
    texts = {"tables.md": _markdown(made, notes), "tables.html": _html(made, notes)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    with (folder / "tables.csv").open("w", newline="") as file:
        lines = [[title, *row] for title, rows in made for row in rows]
        csv.writer(file).writerows([*lines, *([note] for note in notes)])
    return [folder / name for name in (*texts, "tables.csv")]


def _label(report: Report) -> str:
    """Name what was trained, whatever the seed; foreign weights by their own name."""
    told = report["checkpoint"]
    objective, share = told.get("objective", told["name"]), told.get("gaze_fraction", 1.0)
    whole = share == 1 or objective in ("untrained", "clip")
    return objective if whole else f"{objective}, {share:.0%} gaze"


def _cell(figures: Sequence[Mapping[str, float]]) -> str:
    if not figures:
        return "-"
    values = [100 * one["value"] for one in figures]
    if len(values) > 1:
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} ({len(values)})"
    return f"{values[0]:.2f} [{100 * figures[0]['low']:.2f}, {100 * figures[0]['high']:.2f}]"


def _printed(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}"


def _markdown(made: Iterable[tuple[str, Rows]], notes: Iterable[str]) -> str:
    lines = []
    for title, (header, *rows) in made:
        ruler = ["---"] * len(header)
        lines += [
            f"## {title}",
            "",
            *(f"| {' | '.join(row)} |" for row in (header, ruler, *rows)),
            "",
        ]
    return "\n".join([*lines, *(f"- {note}" for note in notes), ""])


def _html(made: Iterable[tuple[str, Rows]], notes: Iterable[str]) -> str:
    def line(row: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    parts = ["<!doctype html><meta charset='utf-8'><title>Evaluation</title>"]
    for title, (header, *rows) in made:
        cells = [line(header, "th"), *(line(row, "td") for row in rows)]
        parts.append(f"<h2>{html.escape(title)}</h2><table border='1'>{''.join(cells)}</table>")
    return "\n".join([*parts, *(f"<p>{html.escape(note)}</p>" for note in notes), ""])


def _read(path: Path) -> Report:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
