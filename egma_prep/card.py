"""What lies beside the data: a card with the terms of use, a record that may be shown to others."""

import hashlib
import json
import platform
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from egma_prep.manifests import manifest

TERMS = f"""\
Derived from credentialed data of PhysioNet ({manifest("mimic-eye")["licence"]}),
unless the readings are phantoms. Whoever opens it must be credentialed and have signed the data use
agreements of MIMIC-CXR, REFLACX and EYE GAZE. Do not share it with anyone else, do not send it to
online services such as chat models, do not try to identify patients or radiologists, and publish
derived data through PhysioNet only."""

REPORTS = {"": "report.html", " --shareable": "report-shareable.html"}
"""Pages about a run, by the flag that makes each; a page names the run's fingerprint."""

_WITH_GAZE = "It holds raw gaze: fixations, their alignment with words, gaze of single words."
_WITHOUT_GAZE = "Made with --privacy: no raw gaze; still credentialed data."

_DECIDES = ("schema_version", "source", "options", "software", "counts")
_NOT_TO_BE_SHOWN = ("data", "images", "inputs", "outputs", "seal")


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
        + (_WITHOUT_GAZE if run["options"]["output"]["privacy"] else _WITH_GAZE),
        "`egma-prep verify` checks every file against its checksum; `shareable.json` has no paths,"
        " ids or rows and may be shown to others.",
    )


def export_card(run: dict[str, Any], kind: str) -> str:
    """Describe an export of a complete run; equal runs have equal cards."""
    about = f"Written by `egma-prep export --to {kind}` from a run of {_readings(run)}."
    return _card(run, about, f"Run {fingerprint(run)}.")


def _readings(run: dict[str, Any]) -> str:
    counts = run["counts"]
    by_dataset = ", ".join(
        f"{name} {n}" for name, n in sorted(counts["written_by_dataset"].items())
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
            TERMS,
            "",
            "## How it was made",
            "",
            f"egma {run['software']['egma']}, layout {run['source']}, schema"
            f" {run['schema_version']}. {more}",
            "",
            "| option | value |",
            "|---|---|",
            *(
                f"| {stage}.{name} | {value} |"
                for stage, values in run["options"].items()
                for name, value in values.items()
            ),
            "",
        ]
    )


def shareable(run: dict[str, Any], rejects: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Leave out of a run's record whatever names a file, a person or a place.

    Parameters
    ----------
    run : dict
        As in ``run.json``.
    rejects : iterable of dict
        Rows of ``rejects.parquet``.
    """
    kept = {name: value for name, value in run.items() if name not in _NOT_TO_BE_SHOWN}
    contents = _contents(run)
    where = Counter(f"{reject['stage']}: {reject['reason']}" for reject in rejects)
    return kept | {
        "inputs": {
            "files": len(contents),
            "bytes": sum(max(known["size"], 0) for known in run["inputs"].values()),
            "sha256": hashlib.sha256(json.dumps(contents).encode()).hexdigest(),
        },
        "rejected_by_stage": where,
        "machine": {"system": platform.system(), "processor": platform.machine()},
    }


def fingerprint(run: dict[str, Any]) -> str:
    """Name what a run made: equal options, software, inputs and counts have equal names."""
    decides = {name: run[name] for name in _DECIDES} | {"inputs": _contents(run)}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


def _contents(run: dict[str, Any]) -> list[str]:
    return sorted(known.get("sha256", "") for known in run["inputs"].values())


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
