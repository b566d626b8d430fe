"""Readings whose clocks or places look wrong, ranked and drawn: what no single value shows.

Milliseconds taken for seconds, swapped axes, a screen that was not mapped to the image and a clock
that is off cannot be told from one number, but at a glance.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed
from egma_prep.options import ImageOptions
from egma_prep.sources.reading import Fixations, RawReading, Size, Words

_WIDE = 3.0
"""Image widths or heights of surroundings that a figure shows at most."""


class Fit(NamedTuple):
    """How gaze, image and words of a reading fit together.

    Attributes
    ----------
    on_image : float
        Share of the gaze's seconds.
    begins_s, ends_s : float
        By which the words begin after the gaze, and end after it.
    shared : float
        Share of the shorter of both, first to last, in which there is the other.
    """

    on_image: float
    begins_s: float
    ends_s: float
    shared: float

    @property
    def oddness(self) -> float:
        """How little fits, 0 to 2."""
        return (1 - self.on_image) + (1 - self.shared)


def fit_of(raw: RawReading) -> Fit | None:
    """Measure a reading; None where it has no gaze or its words no times."""
    gaze, words = raw.fixations, raw.words
    if not len(gaze.begin_s) or not words.text or np.isnan(words.begin_s).any():
        return None
    length_s = np.maximum(gaze.end_s - gaze.begin_s, 0)
    on_image = (gaze.x_px >= 0) & (gaze.x_px < raw.width)
    on_image &= (gaze.y_px >= 0) & (gaze.y_px < raw.height)
    seen, said = ((float(one.begin_s.min()), float(one.end_s.max())) for one in (gaze, words))
    shorter_s = min(seen[1] - seen[0], said[1] - said[0])
    both_s = min(seen[1], said[1]) - max(seen[0], said[0])
    return Fit(
        float(length_s[on_image].sum() / max(length_s.sum(), 1e-9)),
        said[0] - seen[0],
        said[1] - seen[1],
        float(np.clip(both_s / max(shorter_s, 1e-9), 0, 1)),
    )


def figure_of(raw: RawReading, image: tuple[bytes, Size] | None) -> Figure:
    """Draw gaze over the image with its surroundings, and both clocks below.

    Parameters
    ----------
    image : tuple, optional
        The image's file and its size; without one, its outline is drawn alone.
    """
    figure = Figure(figsize=(7, 8), layout="constrained", facecolor="white")
    place, clock = figure.subplots(2, 1, height_ratios=[4, 1])
    gaze, words = raw.fixations, raw.words
    if image is not None:
        frame = frame_of(*image[1], "pad")
        values, _ = framed(image[0], raw.image_path, frame, ImageOptions(colour="luma"))
        side = max(raw.width, raw.height)
        left, top = (raw.width - side) / 2, (raw.height - side) / 2
        edges = (left, left + side, top + side, top)
        place.imshow(values, cmap="gray", vmin=0, vmax=255, extent=edges)
    outline = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]) * (raw.width, raw.height)
    place.plot(*outline.T, color="tab:orange", lw=1)
    place.scatter(gaze.x_px, gaze.y_px, c=gaze.begin_s, s=14, cmap="viridis")
    for limits, size, values_px in (
        (place.set_xlim, raw.width, gaze.x_px),
        (place.set_ylim, raw.height, gaze.y_px),
    ):
        least = max(min(0, float(values_px.min())), -_WIDE * size)
        most = min(max(size, float(values_px.max())), (1 + _WIDE) * size)
        limits(least - 0.03 * size, most + 0.03 * size)
    place.invert_yaxis()
    place.set_title(f"{raw.reading_id}: gaze, first to last, and the image's edge", fontsize=9)
    clocks: list[tuple[Words | Fixations, str]] = [(words, "tab:blue"), (gaze, "tab:green")]
    for row, (one, colour) in enumerate(clocks):
        spans = list(zip(one.begin_s, one.end_s - one.begin_s, strict=True))
        clock.broken_barh(spans, (row, 0.8), color=colour)
    clock.set_yticks([0.4, 1.4], ["words", "gaze"])
    clock.set_xlabel("s")
    return figure
