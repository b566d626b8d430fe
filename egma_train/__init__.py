"""Pre-train EGMA, the paper's eye-gaze guided alignment, from shards alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from egma_train.model.egma import EgmaModel

__all__ = ["clip_loss", "egma_loss", "load_model"]


def load_model(folder: "str | Path") -> "tuple[EgmaModel, Any]":
    """Load a trained model and its tokenizer from a run's ``model`` folder."""
    from egma_train.model.egma import EgmaModel
    from egma_train.model.weights import own_tokenizer

    model = EgmaModel.from_pretrained(Path(folder))
    return model, own_tokenizer(Path(folder), model)


def __getattr__(name: str) -> Any:
    """Import the losses when they are asked for; torch takes seconds."""
    if name in ("clip_loss", "egma_loss"):
        from egma_train import losses

        return getattr(losses, name)
    raise AttributeError(name)
