"""Phantom readings: invented X-rays, speech and gaze in a published layout, with their truth.

Nothing here imports the rest of `egma_prep`, so that the truth it writes is independent of the
pipeline that is measured against it.
"""

from collections.abc import Callable
from pathlib import Path

from .checksums import write_checksums
from .narratives import write_narratives
from .readings import plan_readings
from .tree import write_mimic_eye, write_native, write_notices
from .truth import write_truth

NATIVE = ("reflacx", "eye_gaze")
_OPEN = {"localized_narratives": write_narratives}
LAYOUTS = ("mimic_eye", *NATIVE, *_OPEN)
UNFINISHED = "PHANTOM-unfinished"
"""Lies in a tree while it is written, and in one that was cut."""


def write_tree(
    root: Path,
    readings: int,
    *,
    small: bool = False,
    seed: int = 0,
    layout: str = "mimic_eye",
    dicom: bool = False,
    checksums: bool = False,
    progress: Callable[[int], object] = lambda _: None,
) -> Path:
    """Write a tree of invented readings and `PHANTOM-truth.json`, their truth; return its path.

    `layout` is one of `LAYOUTS`: a native one holds those of the readings that are its dataset's,
    and their images, DICOM if `dicom`, in a MIMIC-CXR tree. Rejects count among the readings. Same
    arguments give the same bytes. `small` images have a sixth of the usual width and height. With
    `checksums`, a `SHA256SUMS.txt` lists every file, as releases do: who changes one afterwards has
    a file that is not as published. `progress` is called with 1 after each reading's files.
    ValueError if no reading belongs.
    """
    plan = plan_readings(readings, small=small, seed=seed, in_phrases=layout in _OPEN)
    root.mkdir(parents=True, exist_ok=True)
    (root / UNFINISHED).touch()
    if layout == "mimic_eye":
        write_mimic_eye(root, plan, progress)
    elif layout in _OPEN:
        write_notices(root)
        plan = _OPEN[layout](root, plan, progress)
    else:
        plan = write_native(root, plan, layout, dicom, progress)
    if not plan:
        (root / UNFINISHED).unlink()
        raise ValueError(f"none of {readings} readings is of {layout}; ask for more")
    if checksums:
        write_checksums(root)
    truth = write_truth(root / "PHANTOM-truth.json", plan, seed)
    (root / UNFINISHED).unlink()
    return truth
