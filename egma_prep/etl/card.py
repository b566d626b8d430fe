"""What lies beside the data: a card with the terms of use, a record that may be shown to others."""

import hashlib
import json
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from egma_prep.etl.small_cells import coarse
from egma_prep.sources.manifests import declared, manifest
from egma_prep.storage.progress import one_line

_CREDENTIALED = "PhysioNet Credentialed"
TERMS = f"""\
Derived from credentialed data of PhysioNet ({manifest("mimic-eye")["licence"]}),
unless the readings are phantoms. Whoever opens it must be credentialed and have signed the data use
agreements of MIMIC-CXR, REFLACX and EYE GAZE. Do not share it with anyone else, do not send it to
online services such as chat models, do not try to identify patients or radiologists, and publish
derived data through PhysioNet only."""

REPORTS = {"": "report.html", " --shareable": "report-shareable.html"}
"""Pages about a run, by the flag that makes each; a page names the run's fingerprint."""

_WITH_GAZE = "It holds raw gaze: fixations, their alignment with words, gaze of single words."
_WITHOUT_GAZE = "Made with --privacy: no raw gaze"

_MARKS = re.compile(r"[\\`<>|\[\]]")

_DECIDES = ("schema_version", "source", "options", "software", "counts")
_NOT_TO_BE_SHOWN = ("data", "images", "inputs", "outputs", "seal", "declared")


def terms_of(run: Mapping[str, Any]) -> str:
    """Say under which terms a run's readings are: by their datasets' declarations, or by their own.

    Parameters
    ----------
    run : mapping
        As in ``run.json``.
    """
    names = sorted(run["counts"]["written_by_dataset"])
    own = run.get("declared", {})
    others = [_terms_of_one(one, own.get(one, {})) for one in names if not _is_credentialed(one)]
    if len(others) == len(names) > 0:
        return "\n".join(["The terms of each dataset's readings:", *others])
    apart = ["", "Of other datasets here:", *others] if others else []
    return "\n".join([TERMS, *apart])


def _is_credentialed(dataset: str) -> bool:
    return declared(dataset).get("licence", "").startswith(_CREDENTIALED)


def _terms_of_one(dataset: str, own: Mapping[str, str]) -> str:
    told = {**declared(dataset), **own}
    if not told:
        return f"{_text(dataset)}: no declaration says under which."
    place = f" ({told['access']})" if "licence" not in own else f" ({_text(own.get('name', ''))})"
    said = [f"{_text(dataset)}: {_text(told['licence'])}{place}"]
    said += [_text(told["terms"])] if "terms" in told else []
    said += [f"Cite: {_text(told['citation'])}"] if "citation" in told else []
    return f"{'. '.join(said)}."


def data_card(run: dict[str, Any]) -> str:
    """Describe a complete run in Markdown.

    Parameters
    ----------
    run : dict
        As in ``run.json``.
    """
    counts = run["counts"]
    return _card(
        run,
        f"{_readings(run)}; {counts['rejected']} of {counts['planned']} planned readings are listed"
        f" in `rejects.parquet`.\n"
        + (_without_gaze(run) if run["options"]["output"]["privacy"] else _WITH_GAZE),
        "`egma-prep verify` checks every file against its checksum; `shareable.json` has no paths,"
        " ids, rows or small counts and may be shown to others.",
    )


def export_card(run: dict[str, Any], kind: str) -> str:
    """Describe an export of a complete run; equal runs have equal cards."""
    about = f"Written by `egma-prep export --to {kind}` from a run of {_readings(run)}."
    return _card(run, about, f"Run {fingerprint(run)}.")


def _without_gaze(run: dict[str, Any]) -> str:
    credentialed = any(map(_is_credentialed, run["counts"]["written_by_dataset"]))
    return f"{_WITHOUT_GAZE}{'; still credentialed data' * credentialed}."


def _readings(run: dict[str, Any]) -> str:
    counts = run["counts"]
    by_dataset = ", ".join(
        f"{_text(name)} {n}" for name, n in sorted(counts["written_by_dataset"].items())
    )
    return (
        f"{counts['written']} readings ({by_dataset or 'none'}) of {counts['images']} images,"
        f" {counts['sentences']} sentences"
    )


def _card(run: dict[str, Any], about: str, more: str) -> str:
    return "\n".join(
        [
            "# Readings with sentence heatmaps",
            "",
            about,
            "",
            "## Terms of use",
            "",
            terms_of(run),
            "",
            "## How it was made",
            "",
            f"egma {_text(run['software']['egma'])}, layout {_text(run['source'])}, schema"
            f" {run['schema_version']}. {more}",
            "",
            "| option | value |",
            "|---|---|",
            *(
                f"| {_text(stage)}.{_text(name)} | {_text(value)} |"
                for stage, values in run["options"].items()
                for name, value in values.items()
            ),
            "",
        ]
    )


def _text(value: object) -> str:
    """Let Markdown take for text what a record says: others may have made it."""
    return _MARKS.sub(r"\\\g<0>", one_line(str(value)))


def shareable(
    run: dict[str, Any], readings: list[dict[str, Any]], rejects: Iterable[dict[str, Any]]
) -> dict[str, Any]:
    """Leave out of a run's record whatever names a file, a person or a place, and small counts.

    Parameters
    ----------
    run : dict
        As in ``run.json``.
    readings : list of dict
        Rows of ``readings.parquet``, their patients, datasets and splits.
    rejects : iterable of dict
        Rows of ``rejects.parquet``.
    """
    kept = {name: value for name, value in run.items() if name not in _NOT_TO_BE_SHOWN}
    where = Counter(f"{reject['stage']}: {reject['reason']}" for reject in rejects)
    counts = run["counts"]
    patients = len({row["subject_id"] for row in readings})

    def told(number: int) -> int | str | None:
        return coarse(number, patients)

    return kept | {
        "counts": {name: told(one) for name, one in counts.items() if isinstance(one, int)}
        | {
            "written_by_dataset": _by(readings, lambda row: str(row["dataset"])),
            "written_by_split": _by(readings, lambda row: known_split(row["split"] or "none")),
            "rejected_by_reason": _each(counts["rejected_by_reason"], told),
            "notes": _each(counts["notes"], told),
        },
        "inputs": inputs_of(run),
        "rejected_by_stage": _each(where, told),
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def _by(
    readings: list[dict[str, Any]], name_of: Callable[[dict[str, Any]], str]
) -> dict[str, int | str | None]:
    patients: dict[str, list[str]] = defaultdict(list)
    for row in readings:
        patients[name_of(row)].append(row["subject_id"])
    return {name: coarse(len(ids), len(set(ids))) for name, ids in sorted(patients.items())}


def _each(counts: Mapping[str, int], told: Callable[[int], Any]) -> dict[str, Any]:
    return {name: told(number) for name, number in counts.items()}


def known_split(split: str) -> str:
    """Take a split by a name that everybody has; another dataset's may tell something."""
    return split if split in (*manifest("mimic-cxr")["splits"], "none") else "other"


def summed_up(inputs: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Count input files by their fingerprints; the hash is of the contents, wherever they lie."""
    contents, total = [], 0
    for known in inputs:
        contents.append(known.get("sha256") or "")
        total += max(known["size"], 0)
    told = json.dumps(sorted(contents)).encode()
    return {
        "files": len(contents),
        "bytes": total,
        "sha256": hashlib.sha256(told).hexdigest(),
    }


def inputs_of(run: dict[str, Any]) -> dict[str, Any]:
    """Take what ``run.json`` says of the input files; once it had them all, by path."""
    inputs = run["inputs"]
    return inputs if inputs.keys() == {"files", "bytes", "sha256"} else summed_up(inputs.values())


def fingerprint(run: dict[str, Any]) -> str:
    """Name what a run made: equal options, software, inputs and counts have equal names."""
    decides = {name: run[name] for name in _DECIDES} | {"inputs": inputs_of(run)["sha256"]}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def outdated_reports(root: Path, run: dict[str, Any]) -> list[tuple[str, str]]:
    """List the reports in a folder that are not of its run, with how to make each again."""
    found = []
    own = fingerprint(run).encode()
    for flag, name in REPORTS.items():
        path = root / name
        if path.exists() and own not in path.read_bytes():
            again = f"egma-prep report{flag} --out {root}"
            found.append((name, f"of an earlier run; repeat: {again}"))
    return found
