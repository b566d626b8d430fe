"""The same sentence of one phantom reading under every choice."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.choices.measure import FRAME, gaze_of, mask_of, said_of
from benchmarks.choices.phantoms import Reading
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.options import RenderOptions
from egma_prep.shards.assemble import rendered

_COLUMNS = 7


def draw(readings: list[Reading], choices: dict[str, RenderOptions], path: Path) -> None:
    """Draw the first sentence after another that names a finding, where a reader zoomed in.

    Of few readings none may be so; then it is the first that has such a sentence.
    """
    named = [(one, at) for one in readings for at in _later_findings(one)]
    zoomed = [(one, at) for one, at in named if one.px_per_deg.min() < one.px_per_deg.max()]
    reading, at = [*zoomed, *named][0]
    ellipse = reading.sentences[at].ellipse
    assert ellipse is not None
    gaze = gaze_of(reading, FRAME)
    rows = -(-len(choices) // _COLUMNS)
    figure = Figure(figsize=(1.75 * _COLUMNS, 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for axis in axes[len(choices) :]:
        axis.set_axis_off()
    for axis, (name, options) in zip(axes, choices.items(), strict=False):
        made = rendered(gaze, *said_of(reading), FRAME, options)["sentences"]
        heat = np.frombuffer(made[at]["heatmap"] or bytes(FRAME_PX**2), np.uint8)
        axis.imshow(heat.reshape(FRAME_PX, FRAME_PX), cmap="inferno", vmin=0, vmax=255)
        axis.contour(mask_of(ellipse), levels=[0.5], colors="white", linewidths=0.8)
        axis.set(xticks=[], yticks=[])
        axis.set_title(name.replace("the paper: ", "paper: "), fontsize=6.5)
    figure.savefig(path, dpi=80, metadata={"Software": None})


def _later_findings(reading: Reading) -> list[int]:
    return [at for at, one in enumerate(reading.sentences) if at and one.ellipse is not None]
