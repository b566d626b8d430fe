"""What a model sees: where each sentence is most similar, beside where its reader looked."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from egma_train.data.shards import ShardReading, find_shards
from egma_train.errors import BadUsageError, UnreadableImageError
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.figures import save_figure
from egma_train.evaluate.grounding import SHARE_OF_PEAK, as_frame, measured, spread
from egma_train.evaluate.images.frames import read_frame
from egma_train.evaluate.readings import readings_of

Pixels = NDArray[np.uint8]

MOST_ROWS = 100
_OPACITY = 0.45
_PANEL_INCHES, _TITLE_CHARACTERS, _MOST_CHARACTERS = 2.6, 34, 100


class View(NamedTuple):
    """A sentence and an image, as the model and, if it is known, as the reader sees them.

    Attributes
    ----------
    name, split : str
        Of the reading, or of the file.
    number : int
        Of the sentence, from 0.
    image : ndarray
        ``(h, h)`` uint8, as the model gets it.
    similarity : ndarray
        ``(h, h)``: 0 where the sentence is least similar, 1 where most; cosines are `cosines`.
    cosines : tuple of float
        The least and the most.
    gaze : ndarray or None
        ``(h, h)`` uint8, peak 255.
    figures : dict
        ``pointing``, ``iou``, ``cnr`` and ``auroc`` as `measured` has them; empty without gaze.
    """

    name: str
    split: str
    number: int
    text: str
    image: Pixels
    similarity: NDArray[np.float64]
    cosines: tuple[float, float]
    gaze: Pixels | None
    figures: dict[str, float]


def views_of_reading(shards: Path, encoder: Encoder, reading_id: str) -> list[View]:
    """Look at every sentence of a reading.

    Raises
    ------
    BadUsageError
        If there is no such reading, or it has no sentence; other ids are suggested.
    """
    names: set[str] = set()
    for reading in readings_of(find_shards(shards), maps=True):
        names.add(reading.reading_id)
        if reading.reading_id == reading_id:
            if not reading.texts:
                raise BadUsageError(f"{reading_id} has no sentence to show")
            return list(_views([reading], encoder))
    near = get_close_matches(reading_id, sorted(names), 3) or sorted(names)[:3]
    raise BadUsageError(
        f"no reading {reading_id!r:.140} among {len(names)} in {shards}; such as {', '.join(near)}"
    )


def views_of_split(
    shards: Path, encoder: Encoder, splits: Sequence[str] = (), batch_size: int = 32
) -> Iterator[View]:
    """Look at every sentence with gaze of some splits' readings, or of all.

    Raises
    ------
    BadUsageError
        If a split has no reading.
    """
    every = readings_of(find_shards(shards), splits, maps=True)
    readings = (one for one in every if any(own is not None for own in one.maps))
    while batch := list(islice(readings, batch_size)):
        yield from (one for one in _views(batch, encoder) if one.gaze is not None)


def views_of_file(path: Path, texts: Sequence[str], encoder: Encoder) -> list[View]:
    """Look at an image file for some texts of one's own.

    Raises
    ------
    BadUsageError
        If it is no image.
    """
    try:
        frame = read_frame(path, *encoder.preparation)
    except UnreadableImageError as error:
        raise BadUsageError(f"{path} is no image to show: {error}") from None
    _, (patches,) = encoder.images(frame[None])
    cosines = _cosines(encoder, texts, patches)
    side = len(frame)
    views = []
    for number, (text, own) in enumerate(zip(texts, cosines, strict=True)):
        wide = np.asarray(cv2.resize(spread(own), (side, side)), np.float64)  # linear
        views.append(_view(path.name, "", number, text, frame, wide, own, None, {}))
    return views


def _views(readings: Sequence[ShardReading], encoder: Encoder) -> Iterator[View]:
    frames = np.stack([as_frame(one.image) for one in readings])
    sizes = np.array([(one.width, one.height) for one in readings])
    _, seen, shares = encoder.of_shards(frames, sizes)
    for reading, frame, patches, share in zip(readings, frames, seen, shares, strict=True):
        cosines = _cosines(encoder, reading.texts, patches)
        columns = zip(reading.texts, reading.maps, cosines, strict=True)
        for number, (text, stored, own) in enumerate(columns):
            gaze = None if stored is None else as_frame(stored)
            figures = {}
            if gaze is not None:
                figures = measured(own, gaze > 255 * SHARE_OF_PEAK, share)
            names = (reading.reading_id, reading.split or "unknown", number, text)
            yield _view(*names, frame, spread(own, share), own, gaze, figures)


def _cosines(encoder: Encoder, texts: Sequence[str], patches: torch.Tensor) -> NDArray[np.float64]:
    cosines: NDArray[np.float64] = (encoder.sentences(texts) @ patches.T).double().cpu().numpy()
    return cosines


def _view(
    name: str,
    split: str,
    number: int,
    text: str,
    image: Pixels,
    wide: NDArray[np.float64],
    cosines: NDArray[np.float64],
    gaze: Pixels | None,
    figures: dict[str, float],
) -> View:
    low, high = float(wide.min()), float(wide.max())
    similarity = (wide - low) / max(high - low, 1e-12)
    between = (float(cosines.min()), float(cosines.max()))
    return View(name, split, number, text, image, similarity, between, gaze, figures)


def overlaid(image: Pixels, values: NDArray[np.float64]) -> Pixels:
    """Lay values from 0 to 1 over a grey image in colours: ``(h, h, 3)`` uint8, BGR."""
    grey = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    colours = cv2.applyColorMap((values * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    # Where there is nothing the image is as it is.
    opacity = (_OPACITY * values)[..., None]
    return np.rint(grey * (1 - opacity) + colours * opacity).astype(np.uint8)


def told_of(view: View) -> str:
    """Say how near the model is to the reader, in half a line."""
    figures = {name: value for name, value in view.figures.items() if value == value}
    if not figures:
        return "no gaze to compare with"
    where = "points right" if figures["pointing"] else "points wrong"
    return f"{where}, AUROC {100 * figures['auroc']:.0f}, IoU {100 * figures['iou']:.0f}"


def draw_views(views: Sequence[View], title: str, target: Path) -> None:
    """Draw a row for each sentence: image, the model's similarity, the reader's gaze.

    Raises
    ------
    BadUsageError
        If there are more rows than a picture has.
    """
    if len(views) > MOST_ROWS:
        raise BadUsageError(
            f"{len(views)} sentences are too many for one picture of {MOST_ROWS}; leave out"
            " --reading for a page, or give fewer --text"
        )
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays

    with_gaze = any(one.gaze is not None for one in views)
    columns = 3 if with_gaze else 2
    size = (columns * _PANEL_INCHES + 0.4, len(views) * (_PANEL_INCHES + 0.75) + 0.4)
    figure = Figure(figsize=size, facecolor="white")
    figure.suptitle(title, fontsize=10, parse_math=False, y=1 - 0.1 / size[1])
    # Fixed: to lay out some hundred pictures takes minutes.
    figure.subplots_adjust(0.01, 0.2 / size[1], 0.99, 1 - 0.7 / size[1], 0.05, 0.25)
    for row, view in zip(figure.subplots(len(views), columns, squeeze=False), views, strict=True):
        between = f"cosine {view.cosines[0]:.3f} to {view.cosines[1]:.3f}"
        said = textwrap.shorten(f"{view.number}: {view.text}", _MOST_CHARACTERS)
        titles = [textwrap.fill(said, _TITLE_CHARACTERS), between]
        pictures = [cv2.cvtColor(view.image, cv2.COLOR_GRAY2BGR)]
        pictures.append(overlaid(view.image, view.similarity))
        if view.gaze is not None:
            titles.append(told_of(view))
            pictures.append(overlaid(view.image, view.gaze / 255))
        for axis in row:
            axis.set_axis_off()
        for axis, told, picture in zip(row, titles, pictures, strict=False):
            axis.imshow(picture[..., ::-1])
            axis.set_title(told, fontsize=7)
            axis.title.set_parse_math(False)
        if with_gaze and view.gaze is None:
            row[-1].set_title("no gaze", fontsize=7)
    save_figure(figure, target, dpi=110, format="png")


def best_and_worst(views: Iterable[View], most: int) -> tuple[list[View], dict[str, Any]]:
    """Keep the sentences that the model finds best and worst by AUROC, and count all.

    Returns
    -------
    tuple
        At most `most` views, the best first, and ``sentences``, ``pointing`` and ``auroc`` of all
        whose gaze is on some pixels and not on others.
    """
    kept: list[View] = []
    counted, pointing, auroc = 0, 0.0, 0.0
    for view in views:
        if np.isnan(view.figures["auroc"]):
            continue
        counted += 1
        pointing += view.figures["pointing"]
        auroc += view.figures["auroc"]
        kept.append(view)
        if len(kept) > 2 * most:
            kept = _ends(kept, most)
    means = {"pointing": pointing / max(counted, 1), "auroc": auroc / max(counted, 1)}
    return _ends(kept, most), {"sentences": counted, **means}


def _ends(views: list[View], most: int) -> list[View]:
    ordered = sorted(views, key=lambda one: (-one.figures["auroc"], one.name, one.number))
    if len(ordered) <= most:
        return ordered
    return [*ordered[: most - most // 2], *ordered[len(ordered) - most // 2 :]]
