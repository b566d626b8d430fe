"""Pre-train EGMA, the paper's eye-gaze guided alignment, from shards alone."""

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egma_train.data.dataset import ReadingDataset, collate_readings
    from egma_train.errors import BadUsageError
    from egma_train.evaluate.checkpoints import load_encoder
    from egma_train.losses import clip_loss, egma_loss
    from egma_train.model.weights import load_model

__version__ = version("egma")  # stands in egma_prep/__init__.py
__all__ = [
    "BadUsageError", "ReadingDataset", "clip_loss", "collate_readings", "egma_loss",
    "load_encoder", "load_model",
]  # fmt: skip

_HOMES = {
    "BadUsageError": "errors",
    "ReadingDataset": "data.dataset",
    "clip_loss": "losses",
    "collate_readings": "data.dataset",
    "egma_loss": "losses",
    "load_encoder": "evaluate.checkpoints",
    "load_model": "model.weights",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for: torch takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
