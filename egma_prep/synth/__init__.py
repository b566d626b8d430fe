"""Phantom readings: invented X-rays, speech and gaze in a published layout, with their truth.

Nothing here imports the rest of `egma_prep`, so that the truth it writes is independent of the
pipeline that is measured against it.
"""

from collections.abc import Callable
from pathlib import Path

from .checksums import write_checksums
from .narratives import write_narratives
from .open_i import write_open_i
from .readings import plan_readings
from .recordings import write_recordings
from .tree import write_mimic_eye, write_native, write_notices
from .truth import describe, write_truth

_OPEN = {"localized_narratives": write_narratives, "open_i": write_open_i}
WITH_DICOM = ("reflacx", "eye_gaze", "recordings")
LAYOUTS = ("mimic_eye", *WITH_DICOM, *_OPEN)
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
    gaze: str = "csv",
    words: str = "csv",
    progress: Callable[[int], object] = lambda _: None,
) -> Path:
    """Write a tree of invented readings and `PHANTOM-truth.json`, their truth; return its path.

    `layout` is one of `LAYOUTS`: a native one holds those of the readings that are its dataset's,
    and their images, DICOM if `dicom`, in a MIMIC-CXR tree; ``recordings`` all but the discarded
    ones, in a tracker's and a recogniser's format (`gaze` of `GAZE_FILES`, `words` of
    `WORDS_FILES`); ``localized_narratives`` tells all of them, and ``open_i`` has a report and two
    views of each image. Rejects count among the readings. Same arguments give the same bytes.
    `small` images have a sixth of the usual width and height. With `checksums`, a `SHA256SUMS.txt`
    lists every file, as releases do: who changes one afterwards has a file that is not as
    published. `progress` is called with how many readings' files were written. ValueError if no
    reading belongs.
    """
    plan = plan_readings(readings, small=small, seed=seed, in_phrases=layout in _OPEN)
    root.mkdir(parents=True, exist_ok=True)
    (root / UNFINISHED).touch()
    if layout in _OPEN:
        write_notices(root)
        truth = _OPEN[layout](root, plan, progress)
    else:
        if layout == "mimic_eye":
            write_mimic_eye(root, plan, progress)
        elif layout == "recordings":
            plan = write_recordings(root, plan, gaze, words, dicom, progress)
        else:
            plan = write_native(root, plan, layout, dicom, progress)
        truth = [describe(reading) for reading in plan]
    if not truth:
        (root / UNFINISHED).unlink()
        raise ValueError(f"none of {readings} readings is of {layout}; ask for more")
    if checksums:
        write_checksums(root)
    path = write_truth(root / "PHANTOM-truth.json", truth, seed)
    (root / UNFINISHED).unlink()
    return path
