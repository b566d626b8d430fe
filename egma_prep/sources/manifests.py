"""The dataset declarations in ``data_manifests/``, the one home of published facts."""

import tomllib
from functools import cache
from typing import Any

from egma_prep.storage.paths import shipped_folder


@cache
def manifest(dataset: str) -> dict[str, Any]:
    """Read one declaration, such as ``reflacx``."""
    path = shipped_folder("data_manifests") / f"{dataset}.toml"
    return tomllib.loads(path.read_text(encoding="utf-8"))


def declared(dataset: str) -> dict[str, Any]:
    """Read the declaration of a dataset by the name that readings have; empty if there is none."""
    try:
        return manifest(dataset.replace("_", "-"))
    except FileNotFoundError:
        return {}


def required_columns(dataset: str, table: str) -> list[str]:
    """List the columns without which a table says nothing; the others are extras."""
    declared = manifest(dataset)["tables"][table]
    extras = declared.get("extras", ())
    return [column for name, column in declared["columns"].items() if name not in extras]
