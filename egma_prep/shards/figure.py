"""One reading as a figure: image, whole-reading map, a map for each sentence."""

import textwrap
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

Map = NDArray[np.uint8]

_COLUMNS = 4
_PANEL_INCHES = 2.6
_TITLE_CHARACTERS = 34
_WORDS = 7  # a line
_WORD_INCHES = 1.5


class Passage(NamedTuple):
    """A word or sentence, the seconds of gaze in it, and its map."""

    text: str
    gaze_seconds: float
    heatmap: Map | None


def figure_of(title: str, image: Map, panels: list[tuple[str, Map | None]]) -> Figure:
    """Draw a map over the image in each panel, a cross without one; the image alone before them.

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
    figure.suptitle(title, fontsize=10, parse_math=False)
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (name, heatmap) in zip(
        axes, [("image", np.zeros_like(image)), *panels], strict=False
    ):
        _panel(axis, name, image, heatmap)
    return figure


def figure_of_words(
    title: str, image: Map, sentences: list[tuple[Passage, list[Passage]]]
) -> Figure:
    """Draw each sentence's map, its words' maps to the right, a cross where one is missing.

    Parameters
    ----------
    image : ndarray
        ``(224, 224)`` uint8.
    sentences : list of tuple
        Each a sentence and its words.
    """
    words = [word for _, some in sentences for word in some]
    missing = sum(word.heatmap is None for word in words)
    without = sum(sentence.heatmap is None for sentence, _ in sentences)
    lines = [(one, some[i : i + _WORDS]) for one, some in sentences for i in _starts(some)]
    size = ((_WORDS + 1) * _WORD_INCHES, (len(lines) + 0.4) * (_WORD_INCHES + 0.35))
    figure = Figure(figsize=size, facecolor="white")
    figure.suptitle(
        f"{title}:  no map for {missing} of {len(words)} words and {without} of {len(sentences)}"
        " sentences",
        fontsize=9,
        parse_math=False,
    )
    axes = figure.subplots(len(lines), _WORDS + 1, squeeze=False)
    top = 1 - 0.4 / size[1]
    figure.subplots_adjust(0.01, 0.01, 0.99, top - 0.35 / size[1], wspace=0.08, hspace=0.35)
    drawn: set[int] = set()
    for row, (sentence, some) in zip(axes, lines, strict=True):
        for axis in row:
            axis.set_axis_off()
        if id(sentence) not in drawn:
            _word_panel(row[0], sentence, image, 22)
            drawn.add(id(sentence))
        for axis, word in zip(row[1:], some, strict=False):
            _word_panel(axis, word, image, 18)
    return figure


def _starts(words: list[Passage]) -> range:
    return range(0, max(len(words), 1), _WORDS)


def _word_panel(axis: Axes, one: Passage, image: Map, characters: int) -> None:
    title = textwrap.shorten(one.text, round(1.7 * characters), placeholder=" ...")
    _panel(axis, f"{title} [{one.gaze_seconds:.1f}\u00a0s]", image, one.heatmap, characters)


def _panel(
    axis: Axes, title: str, image: Map, heatmap: Map | None, characters: int = _TITLE_CHARACTERS
) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    if heatmap is None:
        edge = image.shape[0] - 1
        axis.plot([0, edge, np.nan, 0, edge], [0, edge, np.nan, edge, 0], color="red", lw=1.2)
    else:
        share = heatmap / 255
        axis.imshow(matplotlib.colormaps["inferno"](share), alpha=0.75 * np.sqrt(share))
    text = "\n".join(textwrap.wrap(title, characters))
    axis.set_title(text, fontsize=7.5, parse_math=False)  # a dictated $ is one
