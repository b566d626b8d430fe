"""Colour to grey: X-rays of one hue by their luma, pictures of many hues refused."""

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError

_AVERAGED_PX = 512
"""Colour is judged on the picture averaged to at most this side, every second row and column: no
pass over every pixel but the average, and a camera's colour noise is no hue."""
_LUMA_STEPS = 32
_APART, _SHARE = 12, 0.05
"""Measured on tinted, false-coloured and photographed pictures: of a tint, JPEG's losses included,
under 3 % of the pixels stray so far, of photographs 40 % and more; what is left is for marks."""

_LEAST, _RUN = 0.001, 0.15
"""A tint goes through the lumas: each strength is met, by a third at least, in neighbours that
are half of a picture's lumas in tinted films, up to 0.11 in solid overlays. Lumas of fewer pixels,
such as the edges of letters, are not counted."""

Pixels = NDArray[np.uint8]


def grey_of_colours(pixels: Pixels, path: str, colour: str) -> tuple[Pixels, tuple[str, ...]]:
    """Take the luma, 0.299 R + 0.587 G + 0.114 B (Rec. 601, OpenCV's ``cvtColor``).

    Parameters
    ----------
    pixels : ndarray
        ``(rows, columns, 3)`` in OpenCV's order: blue, green, red.
    colour : str
        ``luma`` takes any colours.

    Returns
    -------
    grey : ndarray
        ``(rows, columns)``.
    notes : tuple of str
        Which of `errors.NOTES` are true of the colours.

    Raises
    ------
    BadInputError
        If hue varies over the picture, which an X-ray's does not.
    """
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    if colour == "luma":
        return grey, ()
    tinted, off_hue = coloured_shares(pixels)
    if off_hue > _SHARE:
        what = f"{path} is in colour: {off_hue:.0%} of it is off the one hue of a tinted film"
        raise BadInputError("not_a_grey_image", path, what)
    return grey, ("tinted_image",) * (tinted > _SHARE)


def coloured_shares(pixels: Pixels) -> tuple[float, float]:
    """Tell which share of a picture is coloured, and which off its one hue.

    A tinted film has one hue, whose strength hangs on the luma alone. So each pixel's chroma (Cb,
    Cr of Rec. 601) is compared with the mean chroma's direction, as far out as the median of the
    pixels of its luma.
    """
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
    return float(np.mean(np.hypot(cr, cb) > _APART)), float(np.mean(apart > _APART))


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
