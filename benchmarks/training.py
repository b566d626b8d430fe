"""The loss beside loops, and its share of a step; prints Markdown."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it

from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import BatchLoader
from egma_train.data.sampling import Batches
from egma_train.losses import egma_loss, multi_label_cross_entropy
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.tokenizer import make_tokenizer
from egma_train.options import options_of
from egma_train.processes import ALONE
from egma_train.train.step import Encoded, batch_loss, make_trainer

B, M, N, D, SCALE = 100, 8, 49, 512, 14.0


@click.command()
@click.option("--loss", "loss_kind", help="One kind alone, for its peak memory.")
def main(loss_kind: str | None) -> None:
    """Measure all, or one kind of loss in a process of its own."""
    torch.set_num_threads(2)
    if loss_kind:
        inputs = features()
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = peak_kb()
        LOSSES[loss_kind](*inputs)[0].backward()
        print(peak_kb() - before)
        return
    losses()
    with tempfile.TemporaryDirectory() as folder:
        cache = phantoms(Path(folder), 64)
        steps(cache)


def peak_kb() -> int:
    """Read the peak of this process's memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


# -- the loss --------------------------------------------------------------------------------------


def features() -> tuple[torch.Tensor, ...]:
    """Make random features, masks and gaze."""
    torch.manual_seed(0)
    mask = torch.ones(B, M, dtype=torch.bool)
    return (
        torch.randn(B, N, D, requires_grad=True), torch.randn(B, M, D, requires_grad=True), mask,
        (torch.rand(B, M, N) - 0.5).clamp(min=0), mask,
    )  # fmt: skip


def vectorised(*inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Ours."""
    found = egma_loss(*inputs, SCALE)
    return found.total, found.total


def within_sample(p: Any, s: Any, grid: Any) -> torch.Tensor:
    """Eq. 5 and 7-10 of one sample, of unit features."""
    own = s @ p.T * SCALE
    all_true = torch.ones_like(own, dtype=torch.bool)
    labels = grid > 0
    mlce = multi_label_cross_entropy(own, labels, all_true).mean()
    mlce = mlce + multi_label_cross_entropy(own.T, labels.T, all_true.T).mean()
    total = mlce / 2
    for cosines, gaze, sources, targets in ((own.T, grid.T, s, p), (own, grid, p, s)):
        with torch.no_grad():
            low, high = cosines.amin(1, keepdim=True), cosines.amax(1, keepdim=True)
            w = ((cosines - low) / (high - low) >= 1 / cosines.shape[1]).float() + gaze
            w = w / w.sum(1, keepdim=True)
        scores = F.normalize(w @ sources, dim=-1) @ targets.T * SCALE
        own_column = torch.arange(len(scores))
        both = F.cross_entropy(scores, own_column) + F.cross_entropy(scores.T, own_column)
        total = total + both / 4
    return total / B


def over_samples(p: Any, s: Any, mask: Any, grid: Any, _: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Loop over the samples; each against all others at once."""
    p, s = F.normalize(p, dim=-1), F.normalize(s, dim=-1)
    image_to_text, text_to_image = [], []
    total = torch.zeros(())
    for k in range(B):
        cosines = torch.einsum("nd,lmd->lmn", p[k], s)
        image_to_text.append(cosines.amax(1).mean(1) * SCALE)
        cosines = torch.einsum("md,lnd->lmn", s[k], p)
        text_to_image.append(cosines.amax(2).mean(1) * SCALE)
        total = total + within_sample(p[k], s[k], grid[k])
    return total + halves(torch.stack(image_to_text), torch.stack(text_to_image)), total


def over_pairs(p: Any, s: Any, mask: Any, grid: Any, _: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Loop over all pairs of samples."""
    p, s = F.normalize(p, dim=-1), F.normalize(s, dim=-1)
    image_to_text, text_to_image = [], []
    total = torch.zeros(())
    for k in range(B):
        cosines = [p[k] @ s[j].T for j in range(B)]
        image_to_text.append(torch.stack([one.amax(1).mean() * SCALE for one in cosines]))
        cosines = [s[k] @ p[j].T for j in range(B)]
        text_to_image.append(torch.stack([one.amax(1).mean() * SCALE for one in cosines]))
        total = total + within_sample(p[k], s[k], grid[k])
    return total + halves(torch.stack(image_to_text), torch.stack(text_to_image)), total


def halves(image_to_text: torch.Tensor, text_to_image: torch.Tensor) -> torch.Tensor:
    """Average both directions' cross-entropies."""
    own = torch.arange(B)
    return (F.cross_entropy(image_to_text, own) + F.cross_entropy(text_to_image, own)) / 2


LOSSES: dict[str, Callable[..., tuple[torch.Tensor, torch.Tensor]]] = {
    "vectorised": vectorised, "loop over samples": over_samples, "loop over pairs": over_pairs,
}  # fmt: skip


def losses() -> None:
    """Time forward and backward, interleaved; memory in processes of their own."""
    inputs = features()
    values = {kind: float(loss(*inputs)[0]) for kind, loss in LOSSES.items()}
    assert np.allclose(list(values.values()), values["vectorised"], rtol=1e-4), values
    seconds: dict[str, list[float]] = {kind: [] for kind in LOSSES}
    for _ in range(5):
        for kind, loss in LOSSES.items():
            begin = time.perf_counter()
            loss(*inputs)[0].backward()
            seconds[kind].append(time.perf_counter() - begin)
    ours = np.median(seconds["vectorised"])
    print(f"The loss, b = {B}, m = {M}, n = {N}, d = {D}, forward and backward, two threads:\n")
    print("| | ms | times ours | peak memory MB |\n|---|---|---|---|")
    for kind, taken in seconds.items():
        call = [sys.executable, __file__, "--loss", kind]
        peak = int(subprocess.run(call, capture_output=True, check=True, text=True).stdout)
        middle = np.median(taken)
        print(f"| {kind} | {middle * 1e3:.0f} | {middle / ours:.1f} | {peak / 1024:.0f} |")


# -- a step ----------------------------------------------------------------------------------------


def phantoms(root: Path, readings: int) -> ReadingCache:
    """Make shards of phantoms."""
    script = "from egma_prep.cli import main; main()"
    tree, out = str(root / "tree"), str(root / "out")
    make = ["synth", tree, "--readings", str(readings), "--small"]
    prepare = ["run", tree, "--out", out, "--config", "phantom"]
    for words in (make, prepare):
        subprocess.run([sys.executable, "-c", script, *words], check=True, stdout=sys.stderr)
    return open_cache(root / "out", say=lambda _: None)


def steps(cache: ReadingCache) -> None:
    """Time loading, towers and loss in a step of ``tiny`` and of ``paper``."""
    print("\nA step on two cores, by what takes its time:\n")
    columns = ("preset", "batch", "s", "loading", "towers, forward and backward", "loss")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    texts = cache.texts(range(len(cache.has_grid)))
    for preset, size, repeats in (("tiny", 32, 8), ("paper", 16, 2)):
        options = options_of(preset, {"model": {"text_layers": 12 if preset == "paper" else 4}})
        tokenizer = make_tokenizer(texts, 2000, 77)
        model = EgmaModel(*new_configs(options.model, len(tokenizer)), options.model)
        loader = BatchLoader(cache, tokenizer, cache.readings_with_gaze())
        batches = Batches(np.arange(len(cache)), cache.image_number, size, 0).of(0)
        spent = np.array([step(model, loader, one, options) for one in batches[: repeats + 1]][1:])
        mean = spent.mean(0)
        shares = " | ".join(f"{share:.1%}" for share in mean / mean.sum())
        print(f"| {preset} | {size} | {mean.sum():.2f} | {shares} |")


def step(model: Any, loader: BatchLoader, readings: Any, options: Any) -> list[float]:
    """Take one step; return seconds of loading, towers and loss."""
    marks = [time.perf_counter()]
    batch = loader.load(readings)
    marks.append(time.perf_counter())
    trainer = make_trainer(model, options, ALONE, torch.device("cpu"))
    found = trainer.encoded(0, batch, 0)
    marks.append(time.perf_counter())
    leaves = Encoded(*(one.detach().requires_grad_() for one in found))
    batch_loss(leaves, batch, options).total.backward()
    marks.append(time.perf_counter())
    kept = [
        (one, leaf.grad) for one, leaf in zip(found, leaves, strict=True) if leaf.grad is not None
    ]
    torch.autograd.backward(*map(list, zip(*kept, strict=True)))
    marks.append(time.perf_counter())
    load, forward, loss, backward = np.diff(marks)
    return [load, forward + backward, loss]


if __name__ == "__main__":
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    main()
