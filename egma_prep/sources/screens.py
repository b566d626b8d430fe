"""Where on its image somebody looked who saw it on a screen: the geometry of a lab's set-up."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.reading import Fixations, FloatArray, Size
from egma_prep.sources.trackers import TrackedGaze

Rectangle = tuple[float, float, float, float]
"""Edges x0, y0, x1, y1 in screen pixels: an image drawn on pixels 0 to 99 has x0 = 0, x1 = 100."""
_STRETCHED = 0.05  # more than rounding the edges of a small image makes


class Screen(NamedTuple):
    """``[screen]`` of a ``dataset.toml``; None where it does not say."""

    width_px: float | None = None
    height_px: float | None = None
    width_mm: float | None = None
    distance_mm: float | None = None


def rectangle_of(edges: Sequence[float | None], path: str) -> Rectangle | None:
    """Take four edges x0, y0, x1, y1 or none; `BadInputError` if they make no rectangle."""
    known = [one for one in edges if one is not None]
    if not known:
        return None
    if len(known) < len(edges) or known[0] >= known[2] or known[1] >= known[3]:
        told = ", ".join("blank" if one is None else f"{one:g}" for one in edges)
        what = f"the image's place on the screen, x0, y0, x1, y1, is {told}: no rectangle"
        raise BadInputError("bad_number", path, what)
    return known[0], known[1], known[2], known[3]


def fixations_on_image(
    gaze: TrackedGaze, screen: Screen, shown: Rectangle | None, image_px: Size, offset_s: float
) -> tuple[Fixations, dict[str, int]]:
    """Bring a tracker's fixations onto the image and onto the clock of the words.

    Pixel centres are at integers on the image and on the screen, which map linearly; a share of a
    width counts from its outer edge. Without `shown`, the image is taken as fitted to the middle of
    the screen, and that is noted. Pixels a degree are NaN where the screen is not known.

    Parameters
    ----------
    shown : tuple, optional
        Where on the screen the image was drawn.
    offset_s : float
        The tracker's clock where that of the words is 0.

    Raises
    ------
    BadInputError
        If gaze is of a screen whose size nobody tells.
    """
    screen_px = gaze.screen_px
    if screen.width_px is not None and screen.height_px is not None:
        screen_px = screen.width_px, screen.height_px
    place = shown or (fitted(image_px, screen_px) if screen_px else None)
    x, y = gaze.x, gaze.y
    if gaze.frame.startswith("screen"):
        if place is None or (screen_px is None and gaze.frame == "screen_share"):
            what = "its gaze is of the screen, whose size nobody tells"
            raise BadInputError("no_screen", gaze.rows.path, what)
        if screen_px is not None and gaze.frame == "screen_share":
            x, y = _pixel(x, screen_px[0]), _pixel(y, screen_px[1])
        x = (x + 0.5 - place[0]) / (place[2] - place[0])
        y = (y + 0.5 - place[1]) / (place[3] - place[1])
    if gaze.frame != "image_px":
        x, y = _pixel(x, image_px[0]), _pixel(y, image_px[1])
    wide, high = (place[2] - place[0], place[3] - place[1]) if place else image_px
    apart = abs(wide * image_px[1] / (high * image_px[0]) - 1)
    is_guess = shown is None and gaze.frame.startswith("screen")
    degrees = _px_per_degree(screen, place, image_px)
    times = (gaze.begin_s - offset_s, gaze.end_s - offset_s)
    fixations = Fixations(*times, x, y, *(np.full(len(x), degree) for degree in degrees))
    return fixations, {
        "image_place_guessed": int(is_guess),
        "image_drawn_stretched": int(apart > _STRETCHED),
    }


def fitted(image_px: Size, screen_px: tuple[float, float]) -> Rectangle:
    """Place an image as large as it fits in the middle of the screen."""
    scale = min(screen_px[0] / image_px[0], screen_px[1] / image_px[1])
    width, height = image_px[0] * scale, image_px[1] * scale
    left, top = (screen_px[0] - width) / 2, (screen_px[1] - height) / 2
    return left, top, left + width, top + height


def _pixel(share: FloatArray, pixels: float) -> FloatArray:
    return share * pixels - 0.5


def _px_per_degree(screen: Screen, shown: Rectangle | None, image_px: Size) -> tuple[float, float]:
    """Count the image pixels of a degree of visual angle, seen at the middle of the screen.

    Screens have square pixels.
    """
    if not (screen.width_px and screen.width_mm and screen.distance_mm) or shown is None:
        return math.nan, math.nan
    degree_mm = 2 * screen.distance_mm * math.tan(math.radians(0.5))
    degree_px = degree_mm * screen.width_px / screen.width_mm
    x0, y0, x1, y1 = shown
    return degree_px * image_px[0] / (x1 - x0), degree_px * image_px[1] / (y1 - y0)
