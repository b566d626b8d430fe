"""Numbers to inline SVG that takes the page's colours."""

import io
import math
from collections.abc import Collection
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from egma_prep.look.report.leads import Lead
from egma_prep.look.report.means import MeanMap
from egma_prep.look.report.numbers import Distribution, Told, bins

_INK, _ACCENT = "#010203", "#040506"  # stand for the page's own colours
_STYLE: Any = {
    "svg.fonttype": "none", "font.size": 8, "text.color": _INK, "axes.labelcolor": _INK,
    "axes.edgecolor": _INK, "xtick.color": _INK, "ytick.color": _INK, "axes.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "figure.facecolor": "none",
}  # fmt: skip
_MAPS_A_ROW = 4


def histogram(one: Distribution, told: Told) -> Markup:
    """Draw a distribution; empty where too few values may be told."""
    number, edges = bins(one.values, told)
    if not number.any():
        return Markup("")
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 1.7), layout="constrained")
        axis = figure.subplots()
        axis.stairs(number, edges, fill=True, color=_ACCENT)
        axis.set_xlabel(one.unit)
        return _svg(figure, one.title)


def lead_curves(leads: list[Lead], told: Told) -> Markup:
    """Draw how the share with gaze and the concentration change with the lead time."""
    shares = [told.share(one.gaze_s > 0).rstrip("%") for one in leads]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7, 2.5), layout="constrained")
        for axis, (label, values) in zip(
            figure.subplots(1, 2),
            {
                "sentences with gaze, %": [float("nan" if one == "–" else one) for one in shares],
                "cells that hold half of a map": [one.half_cells for one in leads],
            }.items(),
            strict=True,
        ):
            axis.plot([one.lead_s for one in leads], values, "o-", color=_ACCENT)
            axis.set(xlabel="lead time, s", ylabel=label)
        return _svg(figure, "Sentence maps by lead time")


def mean_maps(
    means: dict[str, MeanMap], datasets: Collection[str], told: Told, level: str
) -> Markup:
    """Draw mean heatmaps, where all is told over the mean image of their readings.

    Parameters
    ----------
    datasets : collection of str
        Names of means of whole readings.
    level : str
        What the other maps are of, ``sentence`` or ``word``.
    """
    if not means:
        return Markup("")
    rows = math.ceil(len(means) / _MAPS_A_ROW)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(8, 2.5 * rows), layout="constrained")
        axes = figure.subplots(rows, _MAPS_A_ROW, squeeze=False).ravel()
        for axis in axes[len(means) :]:
            axis.set_axis_off()
        for axis, (name, mean) in zip(axes, means.items(), strict=False):
            _mean_map(axis, name, mean, with_image=told.least == 1)
            patients = len(mean.patients)
            what = f"{'reading' if name in datasets else level}s"
            axis.set_xlabel(
                f"{told.count(mean.maps, patients)} {what}, {told.count(patients)} patients"
            )
        return _svg(figure, f"Mean heatmaps: {', '.join(means)}")


def _mean_map(axis: Axes, name: str, mean: MeanMap, with_image: bool) -> None:
    share = mean.map_sum / max(mean.map_sum.max(), 1e-9)
    if with_image:
        axis.imshow(mean.image_sum, cmap="gray", interpolation="bilinear")
    levels = np.linspace(0.1, 1, 7)
    colours = [
        (*matplotlib.colormaps["inferno"](level)[:3], 0.7 * level**0.5) for level in levels[:-1]
    ]
    axis.contourf(share, levels=levels, colors=colours, origin=None if with_image else "upper")
    axis.set(xticks=[], yticks=[], title=name, aspect="equal")
    if not with_image:
        axis.spines[:].set_visible(True)


def _svg(figure: Figure, title: str) -> Markup:
    """Write a figure as an element with a text for those who do not see it."""
    text = io.StringIO()
    # Ids in an SVG are random otherwise, and equal runs have equal pages.
    with matplotlib.rc_context({"svg.hashsalt": title}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    drawing = text.getvalue().partition("<svg")[2]
    drawing = drawing.replace(_INK, "currentColor").replace(_ACCENT, "var(--accent)")
    return Markup('<svg role="img" aria-label="{}"').format(title) + Markup(drawing)
