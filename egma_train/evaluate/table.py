"""The paper's Tables I to IV with our models beside it, from a list of tests."""

import contextlib
import glob
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import checkpoint_name, load_encoder, model_hash
from egma_train.evaluate.curves import draw_beside
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.datasets.tasks import read_test
from egma_train.evaluate.differences import difference
from egma_train.evaluate.page import page
from egma_train.evaluate.reports import own_turn, read_rows, short_hash, write_report
from egma_train.evaluate.retrieval import retrieval
from egma_train.evaluate.zero_shot import majority, zero_shot
from egma_train.storage.atomic import write_whole
from egma_train.storage.safe_text import csv_text, markdown

Report = dict[str, Any]
Test = Mapping[str, str]
Measure = Callable[..., Report]
Say = Callable[[str], Any]
Rows = list[list[str]]

_RETRIEVAL = "chexpert8x200"
_OWN_FAMILY, _CONTINUED = "medclip-vit", "on"
"""Of the paper's own model; others are named: egma on gloria."""
# Raised when the same model and images give other rows or figures: read and cut otherwise, another
# interval. What was measured by earlier rules is then measured again.
_RULES = 5
_FILES = {"images", "labels", "list", "prompts"}


def present(tests: Iterable[Test], data: Path, say: Say) -> list[Test]:
    """Keep the tests whose files are below `data`, and tell what the others lack.

    Raises
    ------
    BadUsageError
        If none is left.
    """
    kept = []
    for test in tests:
        absent = [str(path) for path in _files(test, data).values() if not path.exists()]
        if absent:
            say(f"{test['task']} is left out: no {', '.join(sorted(absent))}")
        else:
            kept.append(test)
    if not kept:
        raise BadUsageError(
            f"no test has its files below --data {data}; see --config for the paths"
        )
    return kept


def run_tests(
    checkpoints: Sequence[Path],
    tests: Iterable[Test],
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
        ``task``, ``images``, ``labels`` and maybe ``list``, ``split``, ``prompts``, ``protocol``,
        ``score``.
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
    models = {model_hash(place, changes): place for place in reversed(checkpoints)}
    for test in present(tests, data, say):
        name, measure, key = prepared(test, data, seed)
        folder = out / "evaluation" / name
        for digest, place in reversed(models.items()):  # what is named twice is one model
            own = key | {"model": digest}
            report = _measured(folder, checkpoint_name(place), own)
            if report is None:
                say(f"{checkpoint_name(place)}: {name}")
                encoder = load_encoder(place, changes)
                for line in encoder.said():
                    say(f"{checkpoint_name(place)}: {line}")
                report = measure(encoder, seed=seed, batch_size=batch_size)
                report |= {"checkpoint": encoder.told(), "key": own, "test": name}
                draw_beside(report, write_report(folder, report))
            if report["unreadable"]:
                lost = f"{len(report['unreadable'])} of {report['list']['given']['images']}"
                say(f"{checkpoint_name(place)}: {name}: {lost} images could not be read")
            for caution in report["cautions"]:
                say(f"{checkpoint_name(place)}: {name}: {caution}")
            reports.append(report)
    return reports


def _files(test: Test, data: Path) -> dict[str, Path]:
    return {part: data / test[part] for part in _FILES & test.keys()}


def prepared(test: Test, data: Path, seed: int) -> tuple[str, Measure, dict[str, Any]]:
    """Read a test's images and prompts: its name, what measures a model, what decides figures."""
    split, protocol = test.get("split"), test.get("protocol")
    files: dict[str, Any] = {**_files(test, data)}
    images, paths, prompts = read_test(
        test["task"], **files, seed=seed, split=split, protocol=protocol
    )
    how = {part: test[part] for part in ("protocol", "score") if part in test}
    ranks = test["task"] == _RETRIEVAL
    name = "retrieval" if ranks else f"zero-shot-{test['task']}"
    task: Any = retrieval if ranks else zero_shot
    stamps = [path and (path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    key = {
        "images": images.sha256,
        "files": short_hash(images.ids, stamps),
        "prompts": short_hash(prompts.queries),
        "seed": seed,
        "rules": _RULES,
        **how,
    }
    return name, partial(task, images, paths, prompts, **how), key


def _measured(folder: Path, checkpoint: str, key: Mapping[str, Any]) -> Report | None:
    """Find the report of what was measured before."""
    for path in sorted(folder.glob(f"{glob.escape(checkpoint)}-*.json")):
        with contextlib.suppress(OSError, ValueError):
            report: Report = json.loads(path.read_text())
            if report.get("key") == key:
                return report | {"rows": read_rows(path)}
    return None


def tables(reports: Sequence[Report]) -> Iterator[tuple[str, Rows]]:
    """Lay out each of the paper's tables: title, then rows with the header first.

    Our figures are the mean and deviation over seeds, or with one seed the value and its interval.
    """
    found: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    labels = _labels(reports)
    for report in reports:
        for metric, figure in report["metrics"].items():
            label = labels[report["checkpoint"]["sha256"]]
            found[label][f"{report['test']} {metric}"].append(figure)
    for declared in shipped_toml("paper-tables")["tables"]:
        rows = [["Method", "From", *declared["columns"]]]
        continued = [one for one in found if f" {_CONTINUED} " in one and "untrained" not in one]
        left = dict.fromkeys(continued if "gains" in declared else found)

        def ours(label: str, declared: Mapping[str, Any] = declared) -> list[str]:
            cells = [_cell(found[label].get(cell, [])) for cell in declared["cells"]]
            if "gains" in declared:
                start = found.get(f"untrained on {label.partition(f'{_CONTINUED} ')[2]}", {})
                gains = [_gain(found[label].get(one), start.get(one)) for one in declared["cells"]]
                cells = [cell + gain for cell, gain in zip(cells, gains, strict=True)]
            return [label, "ours", *cells]

        for method, printed in declared["rows"].items():
            rows.append(
                [
                    method,
                    "paper",
                    *(one if isinstance(one, str) else f"{one:.2f}" for one in printed),
                ]
            )
            labels_here = declared["ours"].get(method, [])
            here = [label for label in labels_here if label in left]
            rows += [ours(label) for label in here]
            left = {label: None for label in left if label not in here}
        rows += [ours(label) for label in left]
        rows += _majority_row(declared["cells"], reports)
        yield declared["title"], [row for row in rows if row[1] != "ours" or set(row[2:]) != {"-"}]


def differences(reports: Sequence[Report]) -> Iterator[tuple[str, Rows]]:
    """Lay out what each model has over the first, test by test, on the images that both have."""
    rows = [["Test", "Model", "Images", "Figure", "Difference", "p"]]
    baselines: dict[str, Report] = {}
    labels = _labels(reports)
    for report in reports:
        baseline = baselines.setdefault(report["test"], report)
        made = None if baseline is report else difference(baseline, report)
        for metric, figure in made["metrics"].items() if made else ():
            value, low, high = (100 * figure[part] for part in ("value", "low", "high"))
            known = low == low  # there is no interval of very few patients
            cell = f"{value:+.2f} " + (f"[{low:.2f}, {high:.2f}]" if known else "(too few)")
            name, shared = labels[report["checkpoint"]["sha256"]], str(made["rows"] if made else 0)
            rows.append([report["test"], name, shared, metric, cell, f"{figure['p']:.3g}"])
    if len(rows) > 1:
        first = next(iter(baselines.values()))["checkpoint"]["name"]
        yield f"Differences to {first}, paired", rows


def write_tables(folder: Path, reports: Sequence[Report]) -> list[Path]:
    """Write ``tables.md``, ``tables.csv`` and ``tables.html``."""
    made = [*tables(reports), *differences(reports)]
    notes = [*shipped_toml("paper-tables")["notes"], *sorted({_note(one) for one in reports})]
    html = page("tables.html", title="Evaluation", tables=made, notes=notes)
    texts = {"tables.md": _markdown(made, notes), "tables.html": html}
    lines = [[title, *row] for title, rows in made for row in rows]
    texts["tables.csv"] = csv_text([*lines, *([note] for note in notes)])
    with own_turn(folder):
        for name, text in texts.items():
            write_whole(folder / name, text)
    return [folder / name for name in texts]


def _note(report: Report) -> str:
    """Say what a test's figures were made of: images, prompts, protocol, score."""
    evaluated, listed, protocol = report["evaluated"], report["list"], report["protocol"]
    how = [f"protocol {protocol['name']} ({protocol['is']})"] if "name" in protocol else []
    return "; ".join(
        [
            f"{report['test']}: {evaluated['images']} of {listed['given']['images']} images,"
            f" {listed['name']}, sha256 {evaluated['sha256'][:16]}...",
            *listed["notes"],
            f"prompts {report['prompts']['name']}, sha256 {report['prompts']['sha256'][:16]}...",
            *how,
            f"score {protocol['score']}",
        ]
    )


def _majority_row(cells: Sequence[str], reports: Iterable[Report]) -> Rows:
    """Lay out what always answering the most frequent class gets, if it is known of any cell."""
    known: dict[str, set[str]] = defaultdict(set)
    for report in reports:
        if report.get("task") == "zero-shot":
            for metric in ("accuracy", "macro_f1", "balanced_accuracy"):
                share = majority(report["evaluated"]["counts"])[metric]
                known[f"{report['test']} {metric}"].add(f"{100 * share:.2f}")
    row = [" or ".join(sorted(known.get(cell, "-"))) for cell in cells]
    return [["Majority class", "baseline", *row]] if set(row) != {"-"} else []


def _labels(reports: Iterable[Report]) -> dict[str, str]:
    """Name models by hash: runs that differ in their seed alone share a name, others do not."""
    models = {one["checkpoint"]["sha256"]: one["checkpoint"] for one in reports}
    alike = defaultdict(list)
    for told in models.values():
        alike[_label(told)].append(told)
    labels = {}
    for label, those in alike.items():
        recipes, seeds = ({told.get(part) for told in those} for part in ("recipe", "seed"))
        repeated = len(seeds) == len(those) and len(recipes) == 1
        for told in those:
            own = f"{label} ({told.get('file', told['name'])}, {told['sha256'][:8]})"
            labels[told["sha256"]] = label if repeated else own
    return labels


def _label(told: Mapping[str, Any]) -> str:
    """Name what was trained; foreign weights by their own name."""
    objective, share = told.get("objective", told["name"]), told.get("gaze_fraction", 1.0)
    family = told.get("system", {}).get("family", _OWN_FAMILY)
    whole = share == 1 or objective in ("untrained", "clip")
    what = objective if whole else f"{objective}, {share:.0%} gaze"
    return (
        f"{what} {_CONTINUED} {family}" if "objective" in told and family != _OWN_FAMILY else what
    )


def _gain(
    figures: Sequence[Mapping[str, float]] | None, start: Sequence[Mapping[str, float]] | None
) -> str:
    """Tell by how many points a mean is above that of what was started from."""
    if not figures or not start:
        return ""
    now, before = (100 * np.mean([one["value"] for one in own]) for own in (figures, start))
    return f" ({now - before:+.2f})"


def _cell(figures: Sequence[Mapping[str, float]]) -> str:
    if not figures:
        return "-"
    values = [100 * one["value"] for one in figures]
    if len(values) > 1:
        return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} ({len(values)})"
    return f"{values[0]:.2f} [{100 * figures[0]['low']:.2f}, {100 * figures[0]['high']:.2f}]"


def _markdown(made: Iterable[tuple[str, Rows]], notes: Iterable[str]) -> str:
    lines = []
    for title, (header, *rows) in made:
        ruler = ["---"] * len(header)
        lines += [
            f"## {title}",
            "",
            *(f"| {' | '.join(row)} |" for row in (header, ruler, *map(_shown, rows))),
            "",
        ]
    return "\n".join([*lines, *(f"- {markdown(note)}" for note in notes), ""])


def _shown(row: Iterable[str]) -> list[str]:
    """Escape what others named; a cell of figures alone stays easy to read."""
    return [one if re.fullmatch(r"[\d .,±+()\[\]-]*", one) else markdown(one) for one in row]
