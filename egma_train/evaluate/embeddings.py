"""Pooled image features to a table, and the paper's Fig. 4 drawn from them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from egma_train.errors import BadUsageError
from egma_train.evaluate.encoder import Encoder, encoded
from egma_train.evaluate.image_lists import ImageList

_PERPLEXITY = 30.0


def embed(
    images: ImageList,
    paths: Sequence[Path | None],
    encoder: Encoder,
    batch_size: int,
    unreadable: dict[int, str],
) -> pa.Table:
    """Encode images: path, label and the pooled feature of length 1.

    Raises
    ------
    BadUsageError
        If no image can be read.
    """
    batches = list(encoded(encoder, paths, batch_size, unreadable))
    if not batches:
        raise BadUsageError(f"none of {len(images)} images can be read; {unreadable[0]}")
    kept = images.only([number for batch in batches for number in batch.numbers])
    vectors = np.concatenate([batch.pooled.cpu().numpy() for batch in batches])  # (N, d)
    return pa.table(
        {
            "path": kept.ids,
            "label": [kept.classes[label] for label in kept.labels],
            "embedding": pa.array(list(vectors), pa.list_(pa.float32())),
        }
    )


def write_embeddings(table: pa.Table, stem: Path, seed: int) -> list[Path]:
    """Write the table as Parquet and its t-SNE as a figure, coloured by class."""
    import matplotlib
    from sklearn.manifold import TSNE

    matplotlib.use("Agg")
    from matplotlib import pyplot

    stem.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    files = [stem.with_name(f"{stem.name}{suffix}") for suffix in (".parquet", "-tsne.png")]
    pq.write_table(table, files[0])
    vectors = np.array(table["embedding"].to_pylist())
    labels = np.array(table["label"].to_pylist())
    if len(labels) < 3:
        return files[:1]
    perplexity = min(_PERPLEXITY, (len(labels) - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
    figure, axes = pyplot.subplots(figsize=(6, 5), layout="constrained")
    for name in dict.fromkeys(labels.tolist()):
        own = points[labels == name]
        axes.scatter(own[:, 0], own[:, 1], s=6, label=name)
    axes.set(title=f"{stem.name}: t-SNE of {len(labels)} images", xticks=[], yticks=[])
    axes.legend(markerscale=2, fontsize="small")
    figure.savefig(files[1], dpi=150)
    pyplot.close(figure)
    return files
