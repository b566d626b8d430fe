"""An evaluation's report: a JSON for programs, its rows as a CSV, a screen for people."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from egma_train.own_process import tell
from egma_train.storage.atomic import finish_swaps, make_folder, write_whole
from egma_train.storage.lock import locked
from egma_train.storage.safe_text import csv_rows, csv_text

Report = Mapping[str, Any]


_CONTROLS = {"prior": "location prior", "swapped": "swapped sentence"}
_DECIDE = ("task", "protocol", "prompts", "list", "evaluated", "shards")
_AS_PERCENT, _AS_NUMBER = "{:.2%}", "{:.3f}"


@contextmanager
def own_turn(folder: Path) -> Iterator[None]:
    """Let one process at a time write into a folder of reports, and clean up after killed ones."""
    make_folder(folder)
    with locked(folder / ".lock", f"{folder} is being written to by", tell) as held:
        if held:
            finish_swaps(folder)
        yield


def write_report(folder: Path, report: Report) -> Path:
    """Write ``NAME-DIGITS.json`` and, of the same name, a CSV with a row a query.

    The digits stand for all that decides the figures: model, images, prompts, protocol. The JSON
    comes last: where it is, its rows are.
    """
    told = report["checkpoint"]
    digits = short_hash(told["sha256"], *(report.get(part) for part in _DECIDE))
    stem = f"{told['name']}-{digits}"
    header = list(report["rows"][0])
    rows = [[row[name] for name in header] for row in report["rows"]]
    rest = {key: value for key, value in report.items() if key != "rows"}
    path = folder / f"{stem}.json"
    make_folder(folder.parent)
    with own_turn(folder):
        write_whole(folder / f"{stem}.csv", csv_text([header, *rows]))
        write_whole(path, json.dumps(_plain(rest), indent=1) + "\n")
    return path


def read_rows(report_file: Path) -> list[dict[str, str]]:
    """Read the rows beside a report, all as text."""
    header, *rows = csv_rows(report_file.with_suffix(".csv").read_text(encoding="utf-8"))
    return [dict(zip(header, row, strict=True)) for row in rows]


def short_hash(*parts: Any) -> str:
    """Digest what JSON can hold to eight digits."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


def told(report: Report) -> Iterable[str]:
    """Say the figures in a screen."""
    yield f"{report['checkpoint']['name']}: {report['task']}, {protocol_of(report)}"
    if "list" in report:
        listed, seen = report["list"], report["evaluated"]
        yield f"  {listed['name']}: {seen['images']} of {listed['given']['images']} images"
        if seen["counts"]:
            yield f"  {', '.join(f'{name} {n}' for name, n in seen['counts'].items())}"
        yield f"  sha256 of the evaluated list {seen['sha256'][:16]}..."
        yield from (f"  {note}" for note in listed["notes"])
        yield from (f"  without {one['id']}: {one['reason']}" for one in report["unreadable"][:3])
        given = listed["given"]["counts"]
        if lost := [name for name, count in seen["counts"].items() if given[name] and not count]:
            yield f"  NO IMAGE OF {', '.join(lost)} COULD BE READ: this is another task"
        if len(report["unreadable"]) > 3:
            yield f"  and {len(report['unreadable']) - 3} more, all in the report"
    if "sentences" in report:
        yield f"  {report['sentences']} sentences about {report['images']} images"
    elif "different_reports" in report:
        yield f"  {report['images']} images of {report['patients']} patients and their reports"
    yield from (f"  {caution}" for caution in report["cautions"])
    if report.get("trained_on"):
        yield "  THE MODEL WAS TRAINED ON THESE READINGS: name a --split that it has not seen"
    elif report.get("trained_on", False) is None:
        yield "  whether the model was trained on these readings is not known"
    for name, figure in report["metrics"].items():
        write = shown(name)
        known = {
            part: write(one).rstrip("%")
            for part, one in figure.items()
            if not isinstance(one, Mapping)
        }
        between = f"[{known['low']}, {known['high']}]"
        if figure["low"] != figure["low"]:
            between = "(no interval)"
        yield f"  {name:<28}{known['value']:>7} {between}{_frame(known)}"
        for control, said in _CONTROLS.items():
            if control in figure:
                over = _difference(write, figure[f"over {control}"])
                yield f"    {said:<26}{known[control]:>7}  difference {over}"
    if "chance" in report:
        always = report["majority"]
        yield (
            f"  chance of accuracy {100 * report['chance']:.2f}, always answering"
            f" {always['class']} {100 * always['accuracy']:.2f}"
        )
    if "median_rank" in report:
        ranks = (f"{way} {rank:g}" for way, rank in report["median_rank"].items())
        yield f"  median rank {', '.join(ranks)}, of {report['different_reports']} reports"
    if "recall" in report:
        shares = (f"{name} {100 * share:.2f}" for name, share in report["recall"].items())
        yield f"  recall {', '.join(shares)}"
        yield "  confusion, rows are truth:"
        for name, row in zip(
            report["confusion"]["classes"], report["confusion"]["rows_are_truth"], strict=True
        ):
            yield f"    {name:<20}{''.join(f'{count:>7}' for count in row)}"

    if "difference" in report:
        own = report["difference"]
        yield f"  difference to {own['to']['name']}, over {own['rows']} rows that both have:"
        for name, figure in own["metrics"].items():
            yield f"    {name:<26}{_difference(shown(name), figure)}"


def shown(name: str) -> Callable[[float], str]:
    """Choose how a figure is written: a contrast as a number, all else in per cent."""
    return (_AS_NUMBER if name == "cnr" else _AS_PERCENT).format


def _difference(write: Callable[[float], str], figure: Mapping[str, float]) -> str:
    value, low, high = (write(figure[part]).rstrip("%") for part in ("value", "low", "high"))
    sign = "+" if figure["value"] > 0 else ""
    interval = f"[{low}, {high}]" if figure["low"] == figure["low"] else "(too few: no interval)"
    return f"{sign}{value} {interval}, p {figure['p']:.3g}"


def protocol_of(report: Report) -> str:
    """Say by which protocol, in words."""
    protocol = {key: value for key, value in report["protocol"].items() if key != "is"}
    named = {"protocol": protocol.pop("name")} if "name" in protocol else {}
    return ", ".join(f"{key} {value}" for key, value in (named | protocol).items())


def _frame(figure: Mapping[str, str]) -> str:
    """Add chance and ceiling where they are known."""
    known = [f"{name} {figure[name]}" for name in ("chance", "ceiling") if name in figure]
    return f"  ({', '.join(known)})" if known else ""


def _plain(value: Any) -> Any:
    """Turn NaN, which JSON lacks, into null."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return None if value != value else value
