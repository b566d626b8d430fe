"""Phantom readings: invented X-rays, speech and gaze in a published layout, with their truth.

Nothing here imports the rest of `egma_prep`, so that the truth it writes is independent of the
pipeline that is measured against it.
"""

from collections.abc import Callable
from pathlib import Path

from .readings import plan_readings
from .tree import write_mimic_eye
from .truth import write_truth


def write_tree(
    root: Path,
    readings: int,
    *,
    small: bool = False,
    seed: int = 0,
    progress: Callable[[int], object] = lambda _: None,
) -> Path:
    """Write a MIMIC-EYE tree of invented readings; return `PHANTOM-truth.json`, their truth.

    Rejects count among the readings. Same arguments give the same bytes. `small` images have a
    sixth of the usual width and height. `progress` is called with 1 after each reading's files.
    """
    plan = plan_readings(readings, small=small, seed=seed)
    write_mimic_eye(root, plan, progress)
    return write_truth(root / "PHANTOM-truth.json", plan, seed)
