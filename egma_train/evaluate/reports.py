"""An evaluation's report: a JSON for programs, its images as a CSV, a screen for people."""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from egma_train.run_folder import write_whole

Report = Mapping[str, Any]


def write_report(folder: Path, name: str, report: Report) -> Path:
    """Write ``NAME.json``, and ``NAME.csv`` with a row an image where there are predictions."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    rest = {key: value for key, value in report.items() if key != "predictions"}
    if rows := report.get("predictions"):
        text = io.StringIO(newline="")
        table = csv.DictWriter(text, rows[0])
        table.writeheader()
        table.writerows(rows)
        write_whole(folder / f"{name}.csv", text.getvalue())
    path = folder / f"{name}.json"
    write_whole(path, json.dumps(_plain(rest), indent=1) + "\n")
    return path


def told(report: Report) -> Iterable[str]:
    """Say the figures in a screen."""
    yield f"{report['checkpoint']['name']}: {report['task']}, {_protocol(report)}"
    if "list" in report:
        listed, seen = report["list"], report["evaluated"]
        yield f"  {listed['name']}: {seen['images']} of {listed['given']['images']} images"
        yield f"  {', '.join(f'{name} {n}' for name, n in seen['counts'].items())}"
        yield f"  sha256 of the evaluated list {seen['sha256'][:16]}..."
        yield from (f"  {note}" for note in listed["notes"])
        yield from (f"  without {one['id']}: {one['reason']}" for one in report["unreadable"][:3])
        if len(report["unreadable"]) > 3:
            yield f"  and {len(report['unreadable']) - 3} more, all in the report"
    if "sentences" in report:
        yield f"  {report['sentences']} sentences about {report['images']} images"
    if report.get("trained_on"):
        yield "  THE MODEL WAS TRAINED ON THESE READINGS: name a --split that it has not seen"
    for name, figure in report["metrics"].items():
        yield f"  {name:<28}{_interval(figure)}{_frame(figure)}"
    if "chance" in report:
        yield f"  chance of accuracy {100 * report['chance']:.2f}"
    if "recall" in report:
        yield "  recall " + ", ".join(f"{n} {_percent(v)}" for n, v in report["recall"].items())
        yield "  confusion, rows are truth:"
        for name, row in zip(
            report["confusion"]["classes"], report["confusion"]["rows_are_truth"], strict=True
        ):
            yield f"    {name:<20}{''.join(f'{count:>7}' for count in row)}"


def _protocol(report: Report) -> str:
    return ", ".join(str(value) for key, value in report["protocol"].items() if key != "is")


def _interval(figure: Mapping[str, float]) -> str:
    low, high = _percent(figure["low"]), _percent(figure["high"])
    return f"{_percent(figure['value']):>7} [{low}, {high}]"


def _frame(figure: Mapping[str, float]) -> str:
    """Add chance and ceiling where they are known."""
    known = [f"{name} {_percent(figure[name])}" for name in ("chance", "ceiling") if name in figure]
    return f"  ({', '.join(known)})" if known else ""


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _plain(value: Any) -> Any:
    """Turn NaN, which JSON lacks, into null."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if value != value else value
