"""Drawings as files that appear whole."""

import warnings
from pathlib import Path
from typing import Any

from egma_train.storage.atomic import whole_file


def save_figure(figure: Any, target: Path, **how: Any) -> None:
    """Write a figure of matplotlib; `how` as its ``savefig`` takes it."""
    with whole_file(target) as aside, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of letters that the font has not
        figure.savefig(aside, **how)
