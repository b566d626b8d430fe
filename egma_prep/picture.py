"""One reading as a figure: image, whole-reading map, a map for each sentence."""

import textwrap
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pyarrow.compute as pc
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError
from egma_prep.geometry import FRAME_PX
from egma_prep.out_folder import OutFolder, read_parquet

_COLUMNS = 4
_PANEL_INCHES = 2.6
_TITLE_CHARACTERS = 34


def draw_reading(out_root: Path, reading_id: str | None = None, png: Path | None = None) -> Path:
    """Draw a reading's shard row as a PNG.

    Parameters
    ----------
    out_root : Path
        Holds a complete run.
    reading_id : str, optional
        By default the first reading whose sentences all have gaze.
    png : Path, optional
        By default ``<reading_id>.png`` in the output folder.

    Returns
    -------
    Path
        The figure's file.
    """
    out = OutFolder(out_root)
    out.finished_run()
    row = _find(out, reading_id)
    target = png or out.root / f"{row['reading_id']}.png"
    figure = _figure(row)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110, format="png")
    return target


def _find(out: OutFolder, reading_id: str | None) -> dict[str, Any]:
    readings = read_parquet(out.tables / "readings.parquet")
    if reading_id is not None:
        readings = readings.filter(pc.equal(readings["reading_id"], reading_id))
    if not readings.num_rows:
        raise BadUsageError(f"{out.root} has no reading {reading_id}; see tables/readings.parquet")
    first = None
    for part in sorted(set(readings["part"].to_pylist())):
        for row in read_parquet(out.shard(part)).to_pylist():
            complete = all(sentence["heatmap"] for sentence in row["sentences"])
            if row["reading_id"] == reading_id or (reading_id is None and complete):
                return row
            first = first or row
    assert first is not None
    return first


def _figure(row: dict[str, Any]) -> Figure:
    panels = [("X-ray", None), ("whole reading", row["heatmap"])]
    for sentence in row["sentences"]:
        title = f"{sentence['text']}  [{sentence['gaze_seconds']:.1f} s of gaze]"
        panels.append((title, sentence["heatmap"]))
    rows = -(-len(panels) // _COLUMNS)
    size = (_COLUMNS * _PANEL_INCHES, rows * (_PANEL_INCHES + 0.75))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.suptitle(f"{row['dataset']}  {row['reading_id']}", fontsize=10)
    image = _square(row["image"])
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    for axis, (title, stored) in zip(axes, panels, strict=False):
        _panel(axis, title, image, _square(stored) if stored else None)
    return figure


def _panel(
    axis: Axes, title: str, image: NDArray[np.uint8], heatmap: NDArray[np.uint8] | None
) -> None:
    axis.imshow(image, cmap="gray", vmin=0, vmax=255)
    if heatmap is not None:
        share = heatmap / 255
        axis.imshow(matplotlib.colormaps["inferno"](share), alpha=0.75 * np.sqrt(share))
    axis.set_title("\n".join(textwrap.wrap(title, _TITLE_CHARACTERS)), fontsize=7.5)


def _square(stored: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(stored, np.uint8).reshape(FRAME_PX, FRAME_PX)
