"""One reading as a figure: image, whole-reading map, a map for each sentence."""

import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Map = NDArray[np.uint8]

_COLUMNS = 4
_PANEL_INCHES = 2.6
_TITLE_CHARACTERS = 34


def figure_of(title: str, image: Map, panels: list[tuple[str, Map | None]]) -> Figure:
    """Draw a map over the image in each panel, and the image alone before them.

    Parameters
    ----------
    image : ndarray
        ``(224, 224)`` uint8.
    panels : list of tuple
        Each a title and a map like the image, or None.
    """
    rows = -(-(1 + len(panels)) // _COLUMNS)
    size = (_COLUMNS * _PANEL_INCHES, rows * (_PANEL_INCHES + 0.75))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=10)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, heatmap) in zip(axes, [("X-ray", None), *panels], strict=False):
        _panel(axis, name, image, heatmap)
    return figure


def _panel(axis: Axes, title: str, image: Map, heatmap: Map | None) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    if heatmap is not None:
        share = heatmap / 255
        axis.imshow(matplotlib.colormaps["inferno"](share), alpha=0.75 * np.sqrt(share))
    axis.set_title("\n".join(textwrap.wrap(title, _TITLE_CHARACTERS)), fontsize=7.5)
