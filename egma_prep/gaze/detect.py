"""Fixations in samples of gaze, by pymovements' detectors: I-DT and I-VT.

Salvucci and Goldberg, "Identifying fixations and saccades in eye-tracking protocols", ETRA 2000.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError

FloatArray = NDArray[np.float64]
DETECTORS = ("idt", "ivt")

# A sample that lies further from the one before than that many usual steps follows a gap.
_GAP = 2.5
# Over so long a time I-VT takes its velocity: single steps of a fast tracker are noise.
_VELOCITY_S = 0.02
_FEWEST = 2  # samples that can be a fixation


class Detector(NamedTuple):
    """A detector and its thresholds, of which each uses its own.

    Attributes
    ----------
    kind : {"idt", "ivt"}
        By dispersion, or by velocity.
    dispersion_deg : float
        Width and height of a fixation, summed, at most.
    velocity_deg_per_s : float
        Of samples in a fixation, at most.
    shortest_s : float
        A fixation lasts so long at least.
    """

    kind: str
    dispersion_deg: float
    velocity_deg_per_s: float
    shortest_s: float


def require_detectors() -> None:
    """Say how to install what finds fixations in samples, unless it is there."""
    if importlib.util.find_spec("pymovements") is None:
        raise BadUsageError(
            "fixations in samples are found by pymovements, which is not installed;"
            " pip install 'egma[gaze]'"
        )


def fixations_in(
    time_s: FloatArray, x_deg: FloatArray, y_deg: FloatArray, detector: Detector
) -> NDArray[np.intp]:
    """Find the fixations in samples ``(n,)``, whose positions are NaN where the eye was lost.

    No fixation goes on across lost samples, a gap, or time that runs backwards.

    Returns
    -------
    ndarray
        ``(k, 2)`` first and last sample of each.
    """
    step_s = _usual_step(time_s)
    found = [
        (first + begin, first + last)
        for first, end in _unbroken(time_s, x_deg + y_deg, step_s)
        for begin, last in _of_run(
            np.stack([x_deg[first:end], y_deg[first:end]], axis=1), step_s, detector
        )
    ]
    return np.array(found, dtype=np.intp).reshape(-1, 2)


def _usual_step(time_s: FloatArray) -> float:
    steps = np.diff(time_s)
    forward = steps[steps > 0]
    return float(np.median(forward)) if forward.size else 1.0


def _unbroken(time_s: FloatArray, position: FloatArray, step_s: float) -> Iterator[tuple[int, int]]:
    """Yield first sample and end of each run without a gap."""
    steps = np.diff(time_s, prepend=time_s[:1] - step_s)
    seen = np.isfinite(position)
    starts = seen & ~((steps > 0) & (steps <= _GAP * step_s) & np.append(False, seen[:-1]))
    run = np.cumsum(starts) * seen  # 0 where lost
    edges = np.flatnonzero(np.diff(run, prepend=0, append=0))
    for first, end in pairwise(edges):
        if run[first]:
            yield int(first), int(end)


def _of_run(
    position_deg: FloatArray, step_s: float, detector: Detector
) -> Iterator[tuple[int, int]]:
    """Find the fixations of samples ``(n, 2)`` in equal steps."""
    idt, ivt = _detectors()
    fewest = max(int(np.ceil(detector.shortest_s / step_s - 1e-6)), _FEWEST)
    if len(position_deg) <= fewest:
        return
    if detector.kind == "idt":
        events = idt(
            position_deg, minimum_duration=fewest, dispersion_threshold=detector.dispersion_deg
        )
    else:
        velocity = _velocity(position_deg, step_s)
        events = ivt(
            velocity, minimum_duration=fewest, velocity_threshold=detector.velocity_deg_per_s
        )
    for first, last in events.frame.select("onset", "offset").iter_rows():
        # I-DT's last sample is the first beyond its threshold, unless the run ends there.
        is_beyond = detector.kind == "idt" and last < len(position_deg) - 1
        yield int(first), int(last) - is_beyond


@cache
def _detectors() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Import pymovements, which takes seconds and sets filters of warnings, when it is needed.

    It imports scipy.stats, which asks `sys.modules` for torch and cannot do with a hidden one.
    """
    hidden = sys.modules.get("torch", sys) is None
    if hidden:
        del sys.modules["torch"]
    try:
        from pymovements.events import idt, ivt
    finally:
        if hidden:
            sys.modules["torch"] = None  # type: ignore[assignment]
    return idt, ivt


def _velocity(position_deg: FloatArray, step_s: float) -> FloatArray:
    """Fit a slope (degrees a second) to the samples around each; at the ends they stand still."""
    half = max(int(_VELOCITY_S / step_s / 2), 1)
    way = np.arange(-half, half + 1)
    padded = np.pad(position_deg, [(half, half), (0, 0)], mode="edge")
    slopes = [np.correlate(column, way, mode="valid") for column in padded.T]
    return np.stack(slopes, axis=1) / (way @ way * step_s)
