"""Files that come with the package: prompts, list hashes, the paper's figures, the ablation."""

import tomllib
from pathlib import Path
from typing import Any

_INSIDE = Path(__file__).parents[1] / "data"
_CHECKOUT = Path(__file__).parents[3]


def shipped_file(name: str) -> Path:
    """Find a file in the installed package, or where a checkout keeps it."""
    declared = _CHECKOUT / "data_manifests"
    homes = (_INSIDE, declared / "evaluation", declared / "words", _CHECKOUT / "pipelines")
    return next(home / name for home in homes if (home / name).is_file())


def shipped_toml(name: str) -> dict[str, Any]:
    """Read a shipped TOML."""
    return tomllib.loads(shipped_file(f"{name}.toml").read_text(encoding="utf-8"))
