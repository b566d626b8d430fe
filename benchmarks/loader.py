"""Our loader beside others on the same decoded fields; prints Markdown."""

import contextlib
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training import phantoms
from egma_train import ReadingDataset, collate_readings
from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import BatchLoader, iterate
from egma_train.data.sampling import Batches

SAMPLES, BATCH, EPOCHS, ROUNDS = 1024, 32, 4, 3
WORKERS = (0, 2)

Kind = tuple[str, int]
"""A loader and its number of workers."""
Row = dict[str, Any]
Epoch = Callable[[], Iterable[int]]
"""Yields the sizes of an epoch's batches; each epoch is in another order."""


def main() -> None:
    """Write the same samples for each loader, then time shuffled epochs in turns.

    What starts workers is an epoch before the clock; the others' workers live on between epochs.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = phantoms(Path(folder), SAMPLES + 40)
        rows = [row_of(cache, i) for i in range(SAMPLES)]
        made = {
            "ours, memory-mapped": ours(cache),
            "ours, straight from the shards": streamed(Path(folder) / "out"),
            "ours, as a dataset of torch": as_dataset(Path(folder) / "out"),
            "Hugging Face datasets": hugging_face(rows, Path(folder)),
            "webdataset": web_dataset(rows, Path(folder)),
            "litdata": lit_data(rows, Path(folder)),
        }
        rates = timed({(name, w): make(w) for w in WORKERS for name, make in made.items()})
    print(f"Image, grids and text of {SAMPLES} samples, shuffled, batches of {BATCH}:\n")
    print("| loader | samples/s, 0 workers | ours is | samples/s, 2 workers | ours is |")
    print("|---|---|---|---|---|")
    for name in made:
        cells = [
            f"{rates[name, w]:,.0f} | {rates['ours, memory-mapped', w] / rates[name, w]:.1f} x"
            for w in WORKERS
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def timed(epochs: Mapping[Kind, Epoch]) -> dict[Kind, float]:
    """Return the samples a second of each, the best of some rounds in turns."""
    best = dict.fromkeys(epochs, 0.0)
    for round_ in range(ROUNDS + 1):
        for kind, epoch in epochs.items():
            begin = time.perf_counter()
            seen = sum(sum(epoch()) for _ in range(EPOCHS))
            rate = seen / (time.perf_counter() - begin)
            assert seen == EPOCHS * SAMPLES, seen
            best[kind] = max(best[kind], rate if round_ else 0)
    return best


def row_of(cache: ReadingCache, i: int) -> Row:
    """Take one sample's fields."""
    sentences, _ = cache.sentences_of(np.array([i]))
    return {
        "image": cache.images[i].tobytes(),
        "grid": np.asarray(cache.grids[sentences]).tobytes(),
        "texts": "\n".join(cache.texts(sentences)),
    }


def decoded(rows: Iterable[Row]) -> Row:
    """Make a batch of raw fields, as a user of those formats would."""
    rows = list(rows)
    images = [np.frombuffer(row["image"], np.uint8).reshape(224, 224) for row in rows]
    grids = [
        torch.from_numpy(np.frombuffer(row["grid"], "<f4").reshape(-1, 49).copy()) for row in rows
    ]
    return {
        "image": torch.from_numpy(np.stack(images)),
        "grid": torch.nn.utils.rnn.pad_sequence(grids, batch_first=True),
        "texts": [row["texts"].split("\n") for row in rows],
    }


class _Texts:
    """Stands for a tokenizer: all loaders read text, none is timed for cutting it up."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, torch.Tensor]:
        return {name: torch.zeros(len(texts), 1) for name in ("input_ids", "attention_mask")}


def ours(cache: ReadingCache) -> Callable[[int], Epoch]:
    """Read from the cache that egma-train makes of shards."""
    loader = BatchLoader(cache, _Texts(), np.ones(len(cache), bool))
    number = iter(range(1_000_000))

    def epoch(workers: int) -> Iterator[int]:
        order = Batches(np.arange(SAMPLES), np.arange(len(cache)), BATCH, 0).of(next(number))
        return (len(batch.readings) for batch in iterate(loader, order, workers))

    return lambda workers: lambda: epoch(workers)


def streamed(out: Path) -> Callable[[int], Epoch]:
    """Read images from the shards, four windows an epoch."""
    cache = open_cache(out, images=False, say=lambda _: None)
    loader = BatchLoader(cache, _Texts(), np.ones(len(cache), bool))
    readings = np.arange(SAMPLES)
    order = Batches(readings, cache.image_number, BATCH, 0, cache.shard_of, SAMPLES // 4)
    number = iter(range(1_000_000))

    def epoch(workers: int) -> Iterator[int]:
        batches = order.of(next(number))
        return (len(batch.readings) for batch in iterate(loader, batches, workers))

    return lambda workers: lambda: epoch(workers)


def as_dataset(out: Path) -> Callable[[int], Epoch]:
    """Read by what is handed on for models of one's own."""
    stored = torch.utils.data.Subset(ReadingDataset(out), range(SAMPLES))
    how: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "collate_fn": renamed}
    return lambda workers: torch_loader(stored, workers, **how)


def renamed(items: list[Row]) -> Row:
    """Batch, and call the images as the others do."""
    batch = collate_readings(items)
    return batch | {"image": batch["images"]}


def torch_loader(dataset: Any, workers: int, **more: Any) -> Epoch:
    """Wrap a dataset in torch's loader, its workers kept."""
    loader: Any = torch.utils.data.DataLoader(
        dataset, num_workers=workers, persistent_workers=workers > 0, **more
    )
    return lambda: (len(batch["image"]) for batch in loader)


def hugging_face(rows: list[Row], root: Path) -> Callable[[int], Epoch]:
    """Write an Arrow dataset; shuffled by the loader's sampler, whole batches fetched."""
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows).save_to_disk(root / "hf")
    stored = datasets.load_from_disk(root / "hf")
    how: dict[str, Any] = {"batch_size": BATCH, "shuffle": True, "collate_fn": decoded}
    return lambda workers: torch_loader(stored, workers, **how)


def web_dataset(rows: list[Row], root: Path) -> Callable[[int], Epoch]:
    """Write two tars, one for each worker; shuffled within a buffer."""
    import webdataset

    paths = [str(root / f"part-{part}.tar") for part in (0, 1)]
    for part, path in enumerate(paths):
        with tarfile.open(path, "w") as tar:
            for i, row in list(enumerate(rows))[part::2]:
                for name, value in row.items():
                    data = value if isinstance(value, bytes) else value.encode()
                    entry = tarfile.TarInfo(f"{i:06d}.{name}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
    stored = webdataset.WebDataset(paths, shardshuffle=2, empty_check=False).shuffle(500)
    batches = stored.map(_with_text).batched(BATCH, collation_fn=decoded)
    return lambda workers: torch_loader(batches, workers, batch_size=None)


def _with_text(row: Row) -> Row:
    return {**row, "texts": row["texts"].decode()}


def lit_data(rows: list[Row], root: Path) -> Callable[[int], Epoch]:
    """Write litdata's chunks, small enough for both workers to have some."""
    import litdata

    with contextlib.redirect_stdout(sys.stderr):
        litdata.optimize(
            rows.__getitem__, [*range(SAMPLES)], str(root / "lit"), chunk_bytes="8MB",
            num_workers=1, start_method="fork",
        )  # fmt: skip

    def epochs(workers: int) -> Epoch:
        stored = litdata.StreamingDataset(str(root / "lit"), shuffle=True)
        loader = litdata.StreamingDataLoader(
            stored, batch_size=BATCH, num_workers=workers, collate_fn=decoded,
            persistent_workers=workers > 0,
        )  # fmt: skip
        return lambda: (len(batch["image"]) for batch in loader)

    return epochs


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(2)
    main()
