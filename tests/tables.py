"""Read outputs as rows, and compare whole output folders."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

Rows = list[dict[str, Any]]
Key = tuple[str, str]

TABLES = ("readings", "words", "fixations", "alignment", "sentences")


def table(out: Path, name: str) -> Rows:
    return pq.read_table(out / "tables" / f"{name}.parquet").to_pylist()


def rejects(out: Path) -> Rows:
    return pq.read_table(out / "rejects.parquet").to_pylist()


def parts(folder: Path) -> Rows:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def shards(out: Path) -> dict[Key, dict[str, Any]]:
    return {key(row): row for row in parts(out / "shards")}


def key(row: dict[str, Any]) -> Key:
    return row["dataset"], row["reading_id"]


def by_reading(rows: Iterable[dict[str, Any]]) -> dict[Key, Rows]:
    found: dict[Key, Rows] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """Write a record as if it had always been so: its checksum fits."""
    kept = {name: value for name, value in content.items() if name != "seal"}
    text = json.dumps(kept, indent=1).removesuffix("\n}")
    seal = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(f'{text},\n "seal": "{seal}"\n}}\n')


def contents(out: Path) -> dict[str, Any]:
    """Everything a reader can see, part numbers apart."""
    tables = {name: by_reading(table(out, name)) for name in TABLES}
    for rows in tables["readings"].values():
        for row in rows:
            row.pop("part")
    images = {row["dicom_id"]: row for row in parts(out / "images")}
    return {**tables, "shards": shards(out), "images": images, "rejects": rejects(out)}
