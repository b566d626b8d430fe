"""Pooled image features to a table, and the paper's Fig. 4 drawn from them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from egma_train.evaluate.compare import Measured
from egma_train.evaluate.figures import save_figure
from egma_train.evaluate.reports import own_turn
from egma_train.storage.atomic import make_folder, whole_file

_PERPLEXITY = 30.0


class Points(NamedTuple):
    """A model's images in the plane: ``(N, 2)``, and the class of each."""

    name: str
    places: NDArray[np.float32]
    labels: NDArray[np.str_]


def write_embeddings(seen: Measured, stem: Path, seed: int) -> tuple[list[Path], Points | None]:
    """Write path, label and unit feature as Parquet and their t-SNE, coloured by class.

    Returns
    -------
    tuple
        The files, and the points of the t-SNE; None of fewer than three images.
    """
    from sklearn.manifold import TSNE

    make_folder(stem.parent.parent)
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".parquet", "-tsne.png")]
    labels = np.array(seen.images.classes)[seen.images.labels]
    vectors = pa.array(list(seen.values), pa.list_(pa.float32()))
    columns = {"path": seen.images.ids, "label": labels, "embedding": vectors}
    with own_turn(stem.parent), whole_file(files[0]) as aside:
        pq.write_table(pa.table(columns), aside)
    if len(labels) < 3:
        return files[:1], None
    perplexity = min(_PERPLEXITY, (len(labels) - 1) / 3)
    places = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(seen.values)
    points = Points(stem.name, places, labels)
    draw_panels(files[1], [points])
    return files, points


def draw_panels(path: Path, panels: Sequence[Points]) -> None:
    """Draw models' images side by side, as the paper's Fig. 4, a class in one colour in all."""
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays

    names = list(dict.fromkeys(label for one in panels for label in one.labels.tolist()))
    figure = Figure(figsize=(1 + 5 * len(panels), 5), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, name in enumerate(names):
            own = panel.places[panel.labels == name]
            axes.scatter(own[:, 0], own[:, 1], s=6, label=name, color=f"C{number % 10}")
        title = f"{panel.name}: t-SNE of {len(panel.labels)} images"
        axes.set(title=title, xticks=[], yticks=[])
        axes.title.set_parse_math(False)
    legend = axes.legend(markerscale=2, fontsize="small")
    for text in legend.get_texts():
        text.set_parse_math(False)  # a class may have a dollar sign in its name
    with own_turn(path.parent):
        save_figure(figure, path, dpi=150, format="png")
