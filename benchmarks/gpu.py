"""A step of training on a card, beside the bare towers and open_clip's step; prints Markdown.

Needs a card and what the project installs, no data and no weights: at most six minutes. Without a
card the same lines are printed of small towers on the CPU, to try the script out.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, as everyone calls it
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from egma_train.data.augment import draw
from egma_train.data.cache import ReadingCache
from egma_train.data.loading import Batch, BatchLoader, iterate, on_device
from egma_train.data.sampling import Batches
from egma_train.errors import first_line
from egma_train.evaluate.encoder import Encoder
from egma_train.losses import egma_loss
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.tokenizer import make_tokenizer
from egma_train.options import ExecutionOptions, Options, options_of
from egma_train.processes import ALONE
from egma_train.run_folder import RunFolder
from egma_train.train.checkpoints import CheckpointWriter
from egma_train.train.numerics import compiler, precision_of, products, repeatable
from egma_train.train.step import Progress, Trainer, make_trainer

READINGS, SENTENCES, WORDS = 800, 5.9, 11
"""Of a reading some six sentences of 13 tokens, as in the dictations of REFLACX."""
PEAK_TFLOPS = {"H100": 989, "H200": 989, "A100": 312, "L40S": 362}
"""Of dense bfloat16 products, by the makers' data sheets."""
RUN_READINGS, RUN_EPOCHS = 3689, 50


@click.command()
@click.option("--small", is_flag=True, help="Small towers, few steps: to try the script.")
def main(small: bool) -> None:
    """Print every table."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_card = device.type == "cuda"
    small = small or not on_card
    name = torch.cuda.get_device_name(device) if on_card else "the CPU: no card is here"
    print(f"{name}, torch {torch.__version__}, {'small' if small else 'the paper' + chr(39) + 's'}"
          " towers with random weights\n")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        cache = invented(Path(folder), 48 if small else READINGS)
        setting = Setting(cache, device, small)
        table(setting)
        two_passes(setting)
        checkpoints(setting, Path(folder))
        memory_of_the_loss(device, 64 if small else 2048)
        repeated(setting)
        embedding(setting)


class Setting:
    """Data, device and the paper's options."""

    def __init__(self, cache: ReadingCache, device: torch.device, small: bool) -> None:
        self.cache, self.device, self.small = cache, device, small
        texts = cache.texts(range(len(cache.has_grid)))
        self.tokenizer = make_tokenizer(texts, 2000, 77)
        self.batch_size = 8 if small else 100
        self.steps = 3 if small else 30
        preset = "tiny" if small else "paper"
        layers = {} if small else {"model": {"text_layers": 12}}
        self.options = options_of(preset, layers, {"train": {"batch_size": self.batch_size}})

    def with_execution(self, **execution: Any) -> Options:
        """Take the options with others of how the work is done."""
        return replace(self.options, execution=replace(self.options.execution, **execution))

    def trainer(self, options: Options, compiled: Any = None) -> Trainer:
        """Make towers, the same each time, and what trains them."""
        torch.manual_seed(0)
        model = EgmaModel(*new_configs(options.model, len(self.tokenizer)), options.model)
        trainer = make_trainer(model.to(self.device), options, ALONE, self.device, compiled)
        trainer.parallel.train()
        return trainer

    def batches(self, size: int, steps: int, **more: Any) -> Iterator[Batch]:
        """Load batches as the trainer does."""
        draws = draw(self.options.data, len(self.cache), 0, 0)
        few = {"few_shapes": self.device.type != "cpu", "padding_counts": False}
        loader = BatchLoader(
            self.cache, self.tokenizer, self.cache.readings_with_gaze(), draws=draws,
            **(few | more),
        )  # fmt: skip
        order: list[Any] = []
        while len(order) < steps:
            everyone = np.arange(len(self.cache))
            order += Batches(everyone, self.cache.image_number, size, 0).of(len(order))
        loaded = iterate(loader, order[:steps], 2, pin=self.device.type == "cuda")
        return on_device(loaded, self.device)


def invented(root: Path, readings: int) -> ReadingCache:
    """Make readings of noise and invented words."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(SENTENCES - 1, readings) + 1
    words = [f"w{chr(97 + i % 26)}{chr(97 + i // 26)}" for i in range(400)]
    lengths = rng.poisson(WORDS - 1, counts.sum()) + 1
    texts = [" ".join(rng.choice(words, k)).encode() for k in lengths]
    cells = (rng.random((counts.sum(), 49)) - 0.5).clip(0).astype(np.float32)
    names = np.array([f"PHANTOM{i}" for i in range(readings)])
    return ReadingCache(
        fingerprint="invented",
        images=rng.integers(0, 256, (readings, 224, 224), np.uint8),
        grids=cells,
        has_grid=np.ones(len(texts), np.bool_),
        reading_grids=np.zeros((readings, 49), np.float32),
        offsets=np.concatenate([[0], np.cumsum(counts)]),
        dataset=np.full(readings, "phantom"),
        reading_id=names,
        split=np.full(readings, "train"),
        image_number=np.arange(readings),
        shard_of=np.zeros(readings, np.int64),
        sizes=np.full((readings, 2), 224),
        maps=None,
        _text=np.frombuffer(b"".join(texts), np.uint8),
        _text_offsets=np.concatenate([[0], np.cumsum([len(one) for one in texts])]),
        _held=None,  # type: ignore[arg-type]
    )


# -- samples a second ------------------------------------------------------------------------------


def table(setting: Setting) -> None:
    """Time the trainer, the bare towers and open_clip's step."""
    flops = operations(setting)
    rows = []
    for precision, compile_ in (
        ("bfloat16", "on"), ("bfloat16", "off"), ("float16", "off"), ("float32", "off"),
    ):  # fmt: skip
        if setting.device.type == "cpu" and (precision == "float16" or compile_ == "on"):
            continue
        options = setting.with_execution(precision=precision, compile=compile_)
        how = "compiled" if compile_ == "on" else "as it is"
        compiled = compiler(options.execution, setting.device, 10**6, lambda _: None)
        try:
            took, kernels = trained(setting, options, compiled)
            bare, _ = bare_towers(setting, options, compiled)
        except Exception as error:  # such as of a compiler that is not there
            print(f"({precision}, {how}: {first_line(error)})")
            continue
        rows.append((f"trainer, {precision}, {how}", took, bare / took, kernels))
    clip, kernels = open_clip_step(setting)
    rows.append(("open_clip's step, bfloat16, one text of 77 tokens", clip, None, kernels))
    peak = next((one for name, one in PEAK_TFLOPS.items() if name in device_name(setting)), None)
    print("| step | samples/s | of the bare towers | kernels of the time | MFU |")
    print("|---|---|---|---|---|")
    for name, seconds, ratio, share in rows:
        rate = setting.batch_size / seconds
        mfu = f"{flops * rate / setting.batch_size / peak / 1e12:.0%}" if peak and ratio else ""
        told = "" if ratio is None else f"{ratio:.2f}"
        print(f"| {name} | {rate:,.0f} | {told} | {share} | {mfu} |", flush=True)
    print(f"\n{flops / setting.batch_size / 1e9:.0f} GFLOP a sample, loss included.\n")


def device_name(setting: Setting) -> str:
    """Name the card."""
    on_card = setting.device.type == "cuda"
    return torch.cuda.get_device_name(setting.device) if on_card else "CPU"


def operations(setting: Setting) -> float:
    """Count the floating-point operations of a step."""
    trainer = setting.trainer(setting.with_execution(precision="float32"))
    (batch,) = setting.batches(setting.batch_size, 1)
    with FlopCounterMode(display=False) as counted:
        trainer.step(batch, Progress(), 1e-6)
    return float(counted.get_total_flops())


def trained(setting: Setting, options: Options, compiled: Any) -> tuple[float, str]:
    """Time a step of the trainer with its loader."""
    trainer, at = setting.trainer(options, compiled), Progress()

    def steps(number: int) -> None:
        for batch in setting.batches(setting.batch_size, number):
            trainer.step(batch, at, 1e-6)
            at.step += 1

    return timed(setting, steps)


def bare_towers(setting: Setting, options: Options, compiled: Any) -> tuple[float, str]:
    """Time the towers and AdamW alone, on one batch that is on the card already."""
    trainer = setting.trainer(options, compiled)
    (batch,) = setting.batches(setting.batch_size, 1)
    px = trainer.model.facts.image_px
    pixels = torch.randn(setting.batch_size, 3, px, px, device=setting.device)
    low = trainer.precision != torch.float32

    def steps(number: int) -> None:
        for _ in range(number):
            torch.compiler.cudagraph_mark_step_begin()
            trainer.optimizer.zero_grad(set_to_none=True)
            with (
                products(setting.device, tf32=True),
                torch.autocast(setting.device.type, trainer.precision, enabled=low),
            ):
                made = trainer.parallel(pixels, batch.parts[0].texts, batch.sentence_mask.shape[1])
                sum(one.float().sum() for one in made[:3]).backward()
            trainer.optimizer.step()

    return timed(setting, steps)


class ClipTowers(nn.Module):
    """Swin and BERT as open_clip would train them: pooled image, first token, one projection."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        options = setting.options
        made = EgmaModel(*new_configs(options.model, len(setting.tokenizer)), options.model)
        self.vision, self.text = made.vision_model.model, made.text_model.model
        self.image_head = made.vision_model.projection_head
        self.text_head = made.text_model.projection_head
        self.logit_scale = made.logit_scale

    def forward(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one image and one text each to unit length."""
        image = self.image_head(self.vision(pixels).last_hidden_state.mean(1))
        text = self.text_head(self.text(ids, mask).last_hidden_state[:, 0])
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1), self.logit_scale.exp()


def open_clip_step(setting: Setting) -> tuple[float, str]:
    """Time what open_clip's `train_one_epoch` does to a batch, its arithmetic written again.

    Amp in bfloat16, ClipLoss, unscaled gradients, AdamW, the scale clamped; it cannot be imported
    here, because it wants torchvision and timm.
    """
    towers = ClipTowers(setting).to(setting.device).train()
    optimizer = torch.optim.AdamW(towers.parameters(), lr=1e-6)
    size, px = setting.batch_size, setting.options.model.image_px
    pixels = torch.randn(size, 3, px, px, device=setting.device)
    ids = torch.full((size, 77), 5, device=setting.device)
    own = torch.arange(size, device=setting.device)
    precision = precision_of("bfloat16", setting.device)

    def steps(number: int) -> None:
        for _ in range(number):
            optimizer.zero_grad()
            with torch.autocast(setting.device.type, precision):
                image, text, scale = towers(pixels, ids, torch.ones_like(ids))
                logits = scale * image @ text.T
                loss = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                towers.logit_scale.clamp_(0, np.log(100))

    return timed(setting, steps)


def timed(setting: Setting, steps: Callable[[int], None]) -> tuple[float, str]:
    """Return the seconds of a step, and the share of them that kernels ran, once all is warm."""
    steps(max(3, setting.steps // 2))
    wait(setting.device)
    begin = time.perf_counter()
    steps(setting.steps)
    wait(setting.device)
    seconds = (time.perf_counter() - begin) / setting.steps
    if setting.device.type != "cuda":
        return seconds, "-"
    number = max(3, setting.steps // 4)
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        wait(setting.device)
        begin = time.perf_counter()
        steps(number)
        wait(setting.device)
        wall = time.perf_counter() - begin
    busy = sum(one.self_device_time_total for one in seen.key_averages()) / 1e6
    return seconds, f"{busy / wall:.0%} (profiled)"


def wait(device: torch.device) -> None:
    """Wait for the card."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# -- what else is promised -------------------------------------------------------------------------


def two_passes(setting: Setting) -> None:
    """Compare the gradients of parts with those of one pass, and the memory of a large batch."""
    still = {"model": {"text_dropout": 0.0, "swin_drop_path": 0.0}}
    kept = setting.options
    setting.options = options_of(
        "tiny" if setting.small else "paper",
        {"model": {"text_layers": 4 if setting.small else 12}}, still,
        {"train": {"batch_size": setting.batch_size}},
    )  # fmt: skip
    trainer = setting.trainer(setting.with_execution(precision="float32", tf32=False))
    found = []
    for at_once in (0, setting.batch_size // 4):
        trainer.optimizer.zero_grad(set_to_none=True)
        (batch,) = setting.batches(setting.batch_size, 1, readings_at_once=at_once)
        trainer.gradients(batch, 0)
        own = [one.grad.double() for one in trainer.model.parameters() if one.grad is not None]
        found.append(torch.cat([one.flatten() for one in own]))
    apart = float((found[0] - found[1]).norm() / found[0].norm())
    print(f"Two-pass gradients differ from one pass's by {apart:.1e} of their length (float32).")
    setting.options = kept
    large = len(setting.cache) if setting.small else 800
    trainer = setting.trainer(setting.with_execution(precision="auto"))
    with peak_of(setting.device) as peak:
        for batch in setting.batches(large, 2, readings_at_once=setting.batch_size):
            trainer.step(batch, Progress(), 1e-6)
    print(f"A batch of {large} in parts of {setting.batch_size}: at most {peak()}.")


def checkpoints(setting: Setting, root: Path) -> None:
    """Time what checkpoints cost a run of the paper's length."""
    trainer = setting.trainer(setting.with_execution(precision="auto"))
    (batch,) = setting.batches(setting.batch_size, 1)
    trainer.step(batch, Progress(), 1e-6)
    run = RunFolder(root / "run")
    with run.alone():
        run.write_record({
            "status": "running", "preset": "paper", "shards_fingerprint": "", "counts": {},
            "options": {},
        })  # fmt: skip
        writer = CheckpointWriter(run, setting.tokenizer, ExecutionOptions())
        for which in ("first", "second"):
            wait(setting.device)
            begin = time.perf_counter()
            writer.begin(trainer, Progress(step=1 + (which == "second")))
            wait(setting.device)
            copied = time.perf_counter() - begin
            writer.finish()
            written = time.perf_counter() - begin
            print(
                f"The {which} checkpoint holds the training up for {copied:.2f} s; it is written"
                f" after {written:.1f} s."
            )


def memory_of_the_loss(device: torch.device, size: int) -> None:
    """Take the loss of a large batch, forward and backward."""
    torch.manual_seed(0)
    patches, sentences = (
        torch.randn(size, k, 512, device=device, requires_grad=True) for k in (49, 8)
    )
    mask = torch.ones(size, 8, dtype=torch.bool, device=device)
    gaze = (torch.rand(size, 8, 49, device=device) - 0.5).clamp(min=0)
    with peak_of(device) as peak:
        egma_loss(patches, sentences, mask, gaze, mask, 14.0).total.backward()
        wait(device)
    print(f"The loss of {size} readings, 49 patches, 8 sentences: at most {peak()}.")


@contextmanager
def peak_of(device: torch.device) -> Iterator[Callable[[], str]]:
    """Measure the most memory of a card."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)

    def told() -> str:
        if device.type != "cuda":
            return "- GiB (no card)"
        return f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f} GiB"

    yield told


def repeated(setting: Setting) -> None:
    """Take the same steps twice with execution.deterministic."""
    ends = []
    for _ in range(2):
        with repeatable(True, setting.device):
            trainer = setting.trainer(setting.with_execution(deterministic=True))
            for at, batch in enumerate(setting.batches(setting.batch_size, 3)):
                trainer.step(batch, Progress(step=at), 1e-4)
            ends.append([one.detach().clone() for one in trainer.model.parameters()])
    same = all(one.equal(other) for one, other in zip(*ends, strict=True))
    print(f"Twice the same three steps, deterministic: {'the same' if same else 'OTHER'} bits.")


def embedding(setting: Setting) -> None:
    """Encode frames as egma-eval does."""
    trainer = setting.trainer(setting.options)
    size = setting.batch_size
    precision = precision_of("auto", setting.device)
    own = (trainer.model.eval(), setting.tokenizer, setting.device)
    encoder = Encoder("", "", *own, precision=precision)
    frames = np.asarray(setting.cache.images[:size])
    seconds, _ = timed(setting, lambda number: [encoder.images(frames) for _ in range(number)])  # type: ignore[arg-type,return-value]
    told = str(precision).removeprefix("torch.")
    print(f"Encoding frames: {size / seconds:,.0f} images/s in {told}.")


if __name__ == "__main__":
    sys.exit(main())
