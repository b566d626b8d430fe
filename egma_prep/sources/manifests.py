"""The dataset declarations in ``data_manifests/``, the one home of published facts."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError
from egma_prep.gaze.mentions import Vocabulary
from egma_prep.storage.paths import shipped_folder


@cache
def manifest(dataset: str) -> dict[str, Any]:
    """Read one declaration, such as ``reflacx``.

    Raises
    ------
    BadUsageError
        If there is none, or it is no TOML.
    """
    path = _path_of(dataset)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadUsageError(f"{path} is missing; declare the dataset there") from None
    except ValueError as error:
        raise BadUsageError(f"{path} is no TOML ({error}); mend it there") from None


def declaration_of(dataset: str) -> bytes:
    """Read a declaration's text, by the name that readings have; nothing if there is none."""
    path = _path_of(dataset.replace("_", "-"))
    return path.read_bytes() if path.exists() else b""


def declared(dataset: str) -> dict[str, Any]:
    """Read the declaration of a dataset by the name that readings have; empty if there is none."""
    return manifest(dataset.replace("_", "-")) if declaration_of(dataset) else {}


def _path_of(dataset: str) -> Path:
    return shipped_folder("data_manifests") / f"{dataset}.toml"


def columns_of(dataset: str, table: str) -> dict[str, str]:
    """Map our names to the released column names of one table."""
    columns: dict[str, str] = manifest(dataset)["tables"][table]["columns"]
    return columns


def required_columns(dataset: str, table: str) -> list[str]:
    """List the columns without which a table says nothing; the others are extras."""
    declared = manifest(dataset)["tables"][table]
    extras = declared.get("extras", ())
    return [column for name, column in declared["columns"].items() if name not in extras]


@cache
def vocabulary() -> Vocabulary:
    """Read the words that sentences mention findings by."""
    return Vocabulary(manifest("words/mentions"))


@cache
def finding_labels() -> dict[str, tuple[str, ...]]:
    """Map each finding that sentences mention to its labels in the datasets."""
    findings = manifest("words/mentions")["findings"]
    return {name: tuple(one["labels"]) for name, one in findings.items()}
