"""Pooled image features to a table, and the paper's Fig. 4 drawn from them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egma_train.evaluate.compare import Measured
from egma_train.evaluate.reports import own_turn
from egma_train.storage.atomic import make_folder, whole_file

_PERPLEXITY = 30.0


def write_embeddings(seen: Measured, stem: Path, seed: int) -> list[Path]:
    """Write path, label and unit feature as Parquet and their t-SNE, coloured by class."""
    from matplotlib.figure import Figure  # not pyplot: the user's backend stays
    from sklearn.manifold import TSNE

    make_folder(stem.parent.parent)
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".parquet", "-tsne.png")]
    labels = np.array(seen.images.classes)[seen.images.labels]
    vectors = pa.array(list(seen.values), pa.list_(pa.float32()))
    columns = {"path": seen.images.ids, "label": labels, "embedding": vectors}
    with own_turn(stem.parent), whole_file(files[0]) as aside:
        pq.write_table(pa.table(columns), aside)
    if len(labels) < 3:
        return files[:1]
    perplexity = min(_PERPLEXITY, (len(labels) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(seen.values)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(labels.tolist()):
        own = points[labels == name]
        axes.scatter(own[:, 0], own[:, 1], s=6, label=name)
    axes.set(title=f"{stem.name}: t-SNE of {len(labels)} images", xticks=[], yticks=[])
    legend = axes.legend(markerscale=2, fontsize="small")
    for text in (axes.title, *legend.get_texts()):
        text.set_parse_math(False)  # a class may have a dollar sign in its name
    with own_turn(stem.parent), whole_file(files[1]) as aside:
        figure.savefig(aside, dpi=150, format="png")
    return files
