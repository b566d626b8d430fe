"""Colour to grey: X-rays of one hue by their luma, pictures of many hues refused (semantics.md).

The measure is `egma_prep.images.colour`'s, written again: one package does not know the other.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_train.errors import UnreadableImageError

_AVERAGED_PX, _LUMA_STEPS = 512, 32
_APART, _SHARE = 12, 0.05
"""Grey levels of chroma beyond which a pixel has another hue, and how many may: coloured marks."""

_LEAST, _RUN = 0.001, 0.15
"""A tint goes through the lumas: each strength is met, by a third at least, in neighbours that
are half of a picture's lumas in tinted films, up to 0.11 in solid overlays. Lumas of fewer pixels,
such as the edges of letters, are not counted."""

Pixels = NDArray[np.uint8]


def grey_of_colours(pixels: Pixels) -> Pixels:
    """Take the luma (Rec. 601) of ``(rows, columns, 3)``, in OpenCV's order: blue, green, red.

    Raises
    ------
    UnreadableImageError
        If hue varies over the picture.
    """
    off_hue = share_off_hue(pixels)
    if off_hue > _SHARE:
        raise UnreadableImageError(f"in colour, not grey: {off_hue:.0%} is off the hue of a tint")
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def share_off_hue(pixels: Pixels) -> float:
    """Tell which share of a picture is off its one hue, whose strength hangs on the luma alone."""
    rows, columns, _ = pixels.shape
    times = -(-max(rows, columns) // _AVERAGED_PX)
    whole = pixels[: max(1, rows // times) * times, : max(1, columns // times) * times]
    size = max(1, columns // times), max(1, rows // times)  # whole blocks are averaged fast
    small = cv2.resize(whole, size, interpolation=cv2.INTER_AREA) if times > 1 else pixels
    planes = cv2.cvtColor(np.ascontiguousarray(small[::2, ::2]), cv2.COLOR_BGR2YCrCb)
    luma, cr, cb = planes.reshape(-1, 3).T.astype(np.float32) - np.array([[0], [128], [128]], "f4")
    length = max(float(np.hypot(cr.mean(), cb.mean())), 1e-6)
    hue_cr, hue_cb = cr.mean() / length, cb.mean() / length
    along = cr * hue_cr + cb * hue_cb
    step = (luma * (_LUMA_STEPS / 256)).astype(np.intp)
    strength = np.zeros(_LUMA_STEPS, np.float32)
    for one in np.unique(step):
        strength[one] = max(0, np.median(along[step == one]))
    _drop_overlays(strength, np.bincount(step, minlength=_LUMA_STEPS) / step.size)
    apart = np.hypot(cr - strength[step] * hue_cr, cb - strength[step] * hue_cb)
    return float(np.mean(apart > _APART))


def _drop_overlays(strength: NDArray[np.float32], shares: NDArray[np.float64]) -> None:
    """Set the strengths to 0 that only a few neighbouring lumas have: of boxes, not of a tint."""
    used = np.flatnonzero(shares >= _LEAST)
    levels = strength[used]
    for at, own in enumerate(levels):
        weaker = np.flatnonzero(levels < own / 3)
        before, after = weaker[weaker < at], weaker[weaker > at]
        begin, end = before.max(initial=-1), after.min(initial=len(levels))
        if end - begin - 1 < _RUN * len(levels):
            strength[used[at]] = 0
