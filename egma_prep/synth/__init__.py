"""Phantom readings: invented X-rays, speech and gaze in a published layout, with their truth.

Nothing here imports the rest of `egma_prep`, so that the truth it writes is independent of the
pipeline that is measured against it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def write_tree(
    root: Path,
    readings: int,
    *,
    small: bool = False,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write a MIMIC-EYE tree of invented readings, and the truth about them.

    Parameters
    ----------
    root : Path
        Folder to write into; made if it is missing.
    readings : int
        Planned readings over both datasets, the rejects among them included.
    small : bool
        Images with a sixth of the usual width and height.
    seed : int
        Same arguments give the same bytes.
    progress : callable, optional
        Called with 1 as each reading's files are done.

    Returns
    -------
    Path
        `PHANTOM-truth.json`, see `egma_prep.synth.truth` for its layout.
    """
    from .readings import plan_readings
    from .tree import write_mimic_eye
    from .truth import write_truth

    plan = plan_readings(readings, small=small, seed=seed)
    write_mimic_eye(root, plan, progress or (lambda _: None))
    return write_truth(root / "PHANTOM-truth.json", plan, seed)
