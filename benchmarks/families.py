"""Images a second of each family, encoding and training, beside its bare towers.

Checkpoints of each family's own sizes with random weights would need gigabytes on the disk: the
small ones of the tests are taken, so the ratios are of what this package adds, not of the towers.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from egma_train.data.augment import draw
from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import BatchLoader
from egma_train.evaluate.encoder import Encoder
from egma_train.model.weights import Start, load_start
from egma_train.options import ModelOptions, options_of
from egma_train.processes import ALONE
from egma_train.train.loop import own_grid
from egma_train.train.step import Progress, make_trainer

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


@click.command()
@click.option("--batch-size", default=8, show_default=True)
@click.option("--rounds", default=5, show_default=True)
def main(batch_size: int, rounds: int) -> None:
    """Print a row a family: images/s, and the share of the bare towers' speed."""
    import published_systems
    from conftest import run_etl
    from test_backbones import SYSTEMS

    from egma_prep.synth import write_tree

    options = ModelOptions()
    print(
        "| system | encodes, images/s | of the bare tower | trains, images/s | of the bare towers |"
    )
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_tree(root / "phantom", 24, small=True, seed=3)
        run_etl(root / "phantom", root / "out")
        cache = open_cache(root / "out", maps=True, say=lambda _: None)
        for number, (name, make) in enumerate(SYSTEMS.items()):
            system: published_systems.Published = make(root / str(number))
            start = load_start([f"{system.family}={system.place}"], options)
            told = [
                *_encoding(start, batch_size, rounds),
                *_training(start, cache, batch_size, rounds),
            ]
            cells = [f"{told[0]:.0f}", f"{told[1]:.0%}", f"{told[2]:.1f}", f"{told[3]:.0%}"]
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _encoding(start: Start, batch_size: int, rounds: int) -> tuple[float, float]:
    model = start.model.eval()
    encoder = Encoder("", "", model, start.tokenizer, torch.device("cpu"))
    px = model.facts.image_px
    frames = np.random.default_rng(0).integers(0, 255, (batch_size, 224, 224), np.uint8)
    pixels = torch.randn(batch_size, 3, px, px)

    def bare() -> None:
        with torch.inference_mode():
            model.images(pixels)

    return _pair(lambda: encoder.images(frames), bare, batch_size, rounds)


def _training(
    start: Start, cache: ReadingCache, batch_size: int, rounds: int
) -> tuple[float, float]:
    options = options_of("paper")
    trainer = make_trainer(start.model, options, ALONE, torch.device("cpu"))
    trainer.parallel.train()
    loader = BatchLoader(
        cache, start.tokenizer, cache.readings_with_gaze(), start.model.facts.max_tokens,
        grid=own_grid(start.model, options), draws=draw(options.data, len(cache), 0, 0),
    )  # fmt: skip
    readings = np.arange(batch_size)
    ((texts,),) = [part.texts for part in loader.load(readings).parts]
    px = start.model.facts.image_px
    pixels = torch.randn(batch_size, 3, px, px)

    def step() -> None:
        trainer.step(loader.load(readings), Progress(), 1e-6)

    def bare() -> None:
        trainer.optimizer.zero_grad()
        made = start.model(pixels, texts.input_ids, texts.attention_mask)
        sum(one.sum() for one in made).backward()
        trainer.optimizer.step()

    return _pair(step, bare, batch_size, rounds)


def _pair(
    whole: Callable[[], Any], bare: Callable[[], Any], images: int, rounds: int
) -> tuple[float, float]:
    """Time both in turn; give images/s of the first and the median ratio of the times."""
    times, ratios = [], []
    for _ in range(rounds + 1):  # the first warms up
        begin = time.monotonic()
        whole()
        middle = time.monotonic()
        bare()
        end = time.monotonic()
        times.append(middle - begin)
        ratios.append((end - middle) / (middle - begin))
    return images / statistics.median(times[1:]), statistics.median(ratios[1:])


if __name__ == "__main__":
    main()
