"""How long the eye is ahead of the voice, from gaze and sentences alone."""

import numpy as np
from numpy.typing import NDArray

from egma_prep.gaze.align import overlap_seconds

FloatArray = NDArray[np.float64]

SHIFTS_S = np.arange(0.0, 4.01, 0.25)


def spread_by_shift(
    begin_s: FloatArray,
    end_s: FloatArray,
    x_px: FloatArray,
    y_px: FloatArray,
    said_begin_s: FloatArray,
    shifts_s: FloatArray = SHIFTS_S,
) -> FloatArray:
    """Measure how far gaze is spread inside windows that are moved back by each shift.

    A window goes from a sentence's begin to the next one's, so that the pause, in which the eye
    stays or goes on, is neither lost nor shared. Whoever looks at one thing after the other keeps
    the eye together inside each; a window that is too late or too early mixes two things. So the
    shift of the least spread is how long the eye is ahead.

    Parameters
    ----------
    begin_s, end_s, x_px, y_px : ndarray
        ``(k,)`` fixations on the image.
    said_begin_s : ndarray
        ``(m,)`` sentences in spoken order.

    Returns
    -------
    ndarray
        ``(s,)``: for each shift the mean over gaze seconds of the squared distance in pixels from
        its window's centre of gaze; NaN where no window has two fixations.
    """
    found = []
    for shift_s in shifts_s:
        starts_s = said_begin_s - shift_s
        weight_s = overlap_seconds(starts_s[:-1], starts_s[1:], begin_s, end_s)
        weight_s = weight_s[(weight_s > 0).sum(axis=1) > 1]
        seconds = weight_s.sum(axis=1)
        squares = np.zeros(len(weight_s))
        for place in (x_px, y_px):
            middle = weight_s @ place / seconds
            squares += (weight_s * (place[None] - middle[:, None]) ** 2).sum(axis=1)
        found.append(squares.sum() / seconds.sum() if len(weight_s) else np.nan)
    return np.array(found)


def estimated_lag_s(spreads: FloatArray, shifts_s: FloatArray = SHIFTS_S) -> float:
    """Find the shift of the least spread over many readings, finer than the shifts are apart.

    Parameters
    ----------
    spreads : ndarray
        ``(n, s)`` of n readings, as `spread_by_shift` gives them.

    Returns
    -------
    float
        Seconds; NaN where nothing is known. A parabola through the least and its neighbours.
    """
    known = spreads[~np.isnan(spreads).any(axis=1)]
    if not len(known):
        return float("nan")
    # Each reading counts alike: an image's size and a reader's restlessness are their own.
    curve = (known / known.mean(axis=1, keepdims=True)).mean(axis=0)
    at = int(np.argmin(curve))
    if at in (0, len(shifts_s) - 1):
        return float(shifts_s[at])
    before, least, after = curve[at - 1 : at + 2]
    step = float(shifts_s[1] - shifts_s[0])
    return float(shifts_s[at]) + step * (before - after) / (2 * (before - 2 * least + after))
