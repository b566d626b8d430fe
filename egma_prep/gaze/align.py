"""Seconds of gaze inside words and sentence windows (DESIGN, "Windows")."""

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

WINDOWS = ("spoken", "pause")


def overlap_seconds(
    begin_s: FloatArray, end_s: FloatArray, other_begin_s: FloatArray, other_end_s: FloatArray
) -> FloatArray:
    """Measure how long each of m intervals overlaps each of n others.

    Returns
    -------
    ndarray
        ``(m, n)`` seconds, zero where two intervals do not meet.
    """
    first = np.maximum(begin_s[:, None], other_begin_s[None, :])  # (m, n)
    last = np.minimum(end_s[:, None], other_end_s[None, :])
    return np.maximum(last - first, 0.0)


def window_starts(
    begin_s: FloatArray, end_s: FloatArray, window: str = "spoken", lead_s: float = 0.0
) -> FloatArray:
    """Decide where each sentence's window starts; it always ends with the sentence.

    Parameters
    ----------
    begin_s, end_s : ndarray
        ``(m,)`` sentences in spoken order, seconds from the start of the recording.
    window : {"spoken", "pause"}
        ``spoken`` is the paper's; ``pause`` adds the silence before the sentence.
    lead_s : float
        Start this much earlier, but never before the previous sentence's begin (for the first,
        the start of the recording). 1.5 s is what REFLACX's authors found best.

    Returns
    -------
    ndarray
        ``(m,)`` seconds.
    """
    start = begin_s
    if window == "pause":
        start = np.minimum(begin_s, _previous(end_s))
    if lead_s > 0:
        start = np.minimum(start, np.maximum(start - lead_s, _previous(begin_s)))
    return start


def _previous(times_s: FloatArray) -> FloatArray:
    return np.concatenate([[0.0], times_s[:-1]])
