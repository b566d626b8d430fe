"""Files that come with the package: prompts, list hashes, the paper's figures, the ablation."""

import tomllib
from pathlib import Path
from typing import Any

from egma_train.errors import BadUsageError

_INSIDE = Path(__file__).parent / "data"
_CHECKOUT = Path(__file__).parents[2]


def shipped_file(name: str) -> Path:
    """Find a file in the installed package, or where a checkout keeps it."""
    homes = (_INSIDE, _CHECKOUT / "data_manifests" / "evaluation", _CHECKOUT / "pipelines")
    return next(home / name for home in homes if (home / name).is_file())


def shipped_toml(name: str) -> dict[str, Any]:
    """Read a shipped TOML."""
    return tomllib.loads(shipped_file(f"{name}.toml").read_text(encoding="utf-8"))


def read_text(path: Path) -> str:
    """Read a user's text file.

    Raises
    ------
    BadUsageError
        If there is none, or it is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadUsageError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BadUsageError(f"{path} is no UTF-8 text") from None
