"""Time the embedding pass, images read from files, beside the bare forward pass.

Towers of the paper's size with random weights; JPEGs of CheXpert-small's size. Both ways in turn;
prints the median of the rounds' ratios.
"""

import statistics
import tempfile
import time
from pathlib import Path

import click
import cv2
import numpy as np
import torch

from egma_train.evaluate.encoder import Encoder, encoded
from egma_train.evaluate.images.frames import read_frame
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.options import Options


@click.command()
@click.option("--images", default=32, show_default=True)
@click.option("--batch-size", default=16, show_default=True)
@click.option("--rounds", default=3, show_default=True)
def main(images: int, batch_size: int, rounds: int) -> None:
    """Print the share of the bare forward pass's speed that the embedding pass reaches."""
    options = Options().model
    model = EgmaModel(*new_configs(options, 100), options).eval()
    encoder = Encoder("paper", "", model, None, torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{i}.jpg" for i in range(images)]
        for i, path in enumerate(paths):
            noise = np.random.default_rng(i).integers(0, 255, (32, 39), np.uint8)
            cv2.imwrite(str(path), cv2.resize(noise, (390, 320)))
        frames = np.stack([read_frame(path) for path in paths])
        ratios, rates = [], []
        for _ in range(rounds + 1):  # the first warms up
            begin = time.monotonic()
            for first in range(0, images, batch_size):
                encoder.images(frames[first : first + batch_size])
            middle = time.monotonic()
            for _ in encoded(encoder, paths, batch_size, {}):
                pass
            end = time.monotonic()
            ratios.append((middle - begin) / (end - middle))
            rates.append(images / (end - middle))
    share, rate = statistics.median(ratios[1:]), statistics.median(rates[1:])
    print(f"embedding pass: {share:.0%} of the bare forward pass's speed, {rate:.1f} images/s"
          f" ({torch.get_num_threads()} threads)")  # fmt: skip


if __name__ == "__main__":
    main()
