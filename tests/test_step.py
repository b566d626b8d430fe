"""A step of training as a card wants it: no waiting, few shapes, parts of a batch, one gradient."""

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from egma_train.data.augment import draw
from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import Batch, BatchLoader, on_device
from egma_train.errors import BadUsageError
from egma_train.losses import egma_loss
from egma_train.model.egma import EgmaModel, new_configs
from egma_train.model.tokenizer import make_tokenizer
from egma_train.options import ExecutionOptions, Options, options_of
from egma_train.processes import ALONE
from egma_train.train import numerics, step
from egma_train.train.numerics import compiler, products, repeatable
from egma_train.train.step import Progress, Towers, Trainer, make_trainer

CPU, META = torch.device("cpu"), torch.device("meta")
SMALL: dict[str, Any] = {
    "swin_width": 12, "text_width": 32, "text_heads": 2, "projection": 32, "vocabulary_size": 300,
}  # fmt: skip


@pytest.fixture(scope="module")
def cache(shards: Path) -> ReadingCache:
    return open_cache(shards)


@pytest.fixture(scope="module")
def tokenizer(cache: ReadingCache) -> Any:
    return make_tokenizer(cache.texts(range(len(cache.has_grid))), 300, 77)


def trainer_of(device: torch.device, *changes: Any, compiled: Any = None) -> Trainer:
    """A small model's trainer, the same weights each time."""
    options = options_of("tiny", {"model": SMALL}, *changes)
    torch.manual_seed(3)
    model = EgmaModel(*new_configs(options.model, 300), options.model).to(device)
    trainer = make_trainer(model, options, ALONE, device, compiled)
    trainer.parallel.train()
    return trainer


def loaded(
    cache: ReadingCache, tokenizer: Any, options: Options, readings: int, **more: Any
) -> Batch:
    loader = BatchLoader(
        cache, tokenizer, cache.readings_with_gaze(),
        draws=draw(options.data, len(cache), 0, 0), **more,
    )  # fmt: skip
    return loader.load(np.arange(readings))


# -- nothing waits ---------------------------------------------------------------------------------


class HostTensors(TorchDispatchMode):
    """Notes what brings a tensor of the host to the card, for which the host would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        tensors = [one for one in (*args, made) if isinstance(one, Tensor)]
        devices = {one.device.type for one in tensors}
        if len(devices) > 1:
            self.found.append(str(func))
        return made


needs_transformers_5 = pytest.mark.skipif(
    not numerics.COMPILES, reason="transformers before 5 waits for the card, and does not compile"
)


@needs_transformers_5
@pytest.mark.parametrize("at_once", [0, 2], ids=["the whole batch", "parts"])
@pytest.mark.parametrize("objective", ["egma", "clip"])
@pytest.mark.parametrize("preset", ["paper", "official-code"])
def test_a_step_never_makes_the_host_wait_for_the_card(
    monkeypatch: pytest.MonkeyPatch,
    cache: ReadingCache,
    tokenizer: Any,
    preset: str,
    objective: str,
    at_once: int,
) -> None:
    """On the device meta, which has no values, whatever asks for one fails."""
    with pytest.raises(RuntimeError):
        bool(torch.ones(1, device=META).all())
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.zeros(3, device=META)[torch.ones(3, dtype=torch.bool, device=META)]
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    like = options_of(preset)
    changes = {"data": vars(like.data), "loss": vars(like.loss) | {"objective": objective}}
    changes["model"] = {name: getattr(like.model, name) for name in ("average_padding",)}
    trainer = trainer_of(META, changes)
    batch = loaded(
        cache, tokenizer, trainer.options, 5, few_shapes=True, readings_at_once=at_once,
        padding_counts=trainer.model.padding_counts,
    )  # fmt: skip
    batch = batch.to(META)
    with HostTensors() as seen:
        told = trainer.step(batch, Progress(), 1e-4)
    assert told.device == META and seen.found == []


@pytest.mark.needs_gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("at_once", [0, 3], ids=["the whole batch", "parts"])
def test_a_step_on_a_card_is_that_of_the_cpu(
    cache: ReadingCache, tokenizer: Any, at_once: int
) -> None:
    card = torch.device("cuda")
    exact = {"execution": {"precision": "float32", "tf32": False, "compile": "off"}}
    told = []
    for device in (CPU, card):
        trainer = trainer_of(device, exact)
        more = {"few_shapes": device == card, "padding_counts": False, "readings_at_once": at_once}
        batch = loaded(cache, tokenizer, trainer.options, 8, **more)
        moved = next(on_device(iter([batch.pinned() if device == card else batch]), device))
        told.append([trainer.step(moved, Progress(step), 1e-3).cpu() for step in range(3)])
    for one, other in zip(*told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


# -- few shapes ------------------------------------------------------------------------------------


def test_sentences_sorted_into_few_shapes_are_all_there_once(
    cache: ReadingCache, tokenizer: Any
) -> None:
    options = options_of("tiny")
    plain = loaded(cache, tokenizer, options, 20)
    few = loaded(cache, tokenizer, options, 20, few_shapes=True, padding_counts=False)
    m = few.sentence_mask.shape[1]
    assert m % 4 == 0 and m - plain.sentence_mask.shape[1] < 4
    assert few.sentence_mask[:, : plain.sentence_mask.shape[1]].equal(plain.sentence_mask)
    (whole,), groups = plain.parts[0].texts, few.parts[0].texts
    assert len(groups) > 1  # some are longer than 16 tokens
    assert all(len(one.input_ids) % 64 == 0 for one in groups)
    assert {one.input_ids.shape[1] for one in groups} <= {16, 32, 64, 77}
    read = {}
    for one in groups:
        for ids, attended, place in zip(
            one.input_ids, one.attention_mask, one.places.tolist(), strict=True
        ):
            assert attended.any()  # a text of no tokens would average nothing
            if place < 20 * m:
                assert place not in read
                read[place] = ids[attended.bool()].tolist()
    rows, columns = few.sentence_mask.nonzero(as_tuple=True)
    assert sorted(read) == (rows * m + columns).tolist()
    in_order = [
        ids[kept.bool()].tolist()
        for ids, kept in zip(whole.input_ids, whole.attention_mask, strict=True)
    ]
    assert [read[place] for place in sorted(read)] == in_order


def test_many_batches_have_few_shapes(cache: ReadingCache, tokenizer: Any) -> None:
    options = options_of("tiny")
    loader = BatchLoader(
        cache, tokenizer, cache.readings_with_gaze(), few_shapes=True, padding_counts=False
    )
    rng = np.random.default_rng(0)
    shapes = set()
    for _ in range(20):
        batch = loader.load(rng.permutation(len(cache))[:16])
        shapes |= {tuple(one.input_ids.shape) for one in batch.parts[0].texts}
    assert len(shapes) <= 6 and options


@pytest.mark.parametrize("changed", ["few_shapes", "readings_at_once", "both"])
def test_shapes_and_parts_change_no_loss_and_no_gradient(
    monkeypatch: pytest.MonkeyPatch, cache: ReadingCache, tokenizer: Any, changed: str
) -> None:
    """The parts of a batch of 11 are of 3 and 4 readings; in float64, so that sums agree."""
    real = step.pixels
    monkeypatch.setattr(step, "pixels", lambda *seen: real(*seen).double())
    trainer = trainer_of(CPU)
    trainer.model.double()
    plain = loaded(cache, tokenizer, trainer.options, 11)
    more: dict[str, Any] = {"few_shapes": True, "padding_counts": False}
    more = {"few_shapes": more, "readings_at_once": {"readings_at_once": 4}}.get(
        changed, more | {"readings_at_once": 4}
    )
    other = loaded(cache, tokenizer, trainer.options, 11, **more)
    assert (len(other.parts) == 3) == (changed != "few_shapes")
    found = [gradients_of(trainer, batch) for batch in (plain, other)]
    (loss, gradients), (other_loss, other_gradients) = found
    assert other_loss == pytest.approx(loss, rel=1e-9)
    largest = max(float(one.abs().max()) for one in gradients.values())
    for name, value in gradients.items():
        assert (other_gradients[name] - value).abs().max() < 1e-9 * largest, name


def gradients_of(trainer: Trainer, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    trainer.optimizer.zero_grad()
    loss, _ = trainer.gradients(batch, 0)
    own = trainer.model.named_parameters()
    return float(loss.total.detach()), {
        name: copy.deepcopy(one.grad) for name, one in own if one.grad is not None
    }


def test_a_tower_that_is_frozen_stays_and_the_other_learns(
    cache: ReadingCache, tokenizer: Any
) -> None:
    trainer = trainer_of(CPU)
    model: Any = trainer.model
    model.vision_model.requires_grad_(False)
    before = {name: one.clone() for name, one in trainer.model.state_dict().items()}
    trainer.step(loaded(cache, tokenizer, trainer.options, 8), Progress(), 1e-2)
    moved = {n for n, one in trainer.model.state_dict().items() if not one.equal(before[n])}
    assert moved and not any(name.startswith("vision_model") for name in moved)


def test_parts_draw_the_same_dropout_in_both_passes(
    monkeypatch: pytest.MonkeyPatch, cache: ReadingCache, tokenizer: Any
) -> None:
    """Gradients handed to features that another dropout made would be of nothing."""
    trainer = trainer_of(CPU, {"model": {"text_dropout": 0.3, "swin_drop_path": 0.3}})
    batch = loaded(cache, tokenizer, trainer.options, 9, readings_at_once=3)
    made = []
    real = trainer.parallel.forward

    def noted(*asked: Any) -> Any:
        encoded = real(*asked)
        made.append([one.detach().clone() for one in encoded])
        return encoded

    monkeypatch.setattr(trainer.parallel, "forward", noted)
    trainer.gradients(batch, 5)
    first, second = made[:3], made[3:]
    assert len(second) == 3
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other)
    sentences = [one[2][0, 0] for one in first]
    assert not sentences[0].equal(sentences[1])


# -- compiling -------------------------------------------------------------------------------------


@needs_transformers_5
def test_towers_and_loss_compile_whole_and_not_anew_for_each_shape(
    cache: ReadingCache, tokenizer: Any
) -> None:
    torch.compiler.reset()
    counter = CompileCounter()

    def compiled(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        made: Callable[..., Any] = torch.compile(
            function, backend=counter, fullgraph=True, dynamic=dynamic
        )
        return made

    plain, trainer = trainer_of(CPU), trainer_of(CPU, compiled=compiled)
    counts = []
    for readings in (8, 7, 8, 7, 8, 7):
        batch = loaded(
            cache, tokenizer, trainer.options, readings, few_shapes=True, padding_counts=False
        )
        told, other = (one.step(batch, Progress(readings), 1e-3) for one in (trainer, plain))
        torch.testing.assert_close(told, other, rtol=1e-5, atol=1e-6)
        counts.append(counter.frame_count)
    assert counts[0] == 3 + (counts[0] > 3)  # images, texts of one or two lengths, the loss
    assert counts[-1] == counts[-3] <= 9  # lengths that vary are compiled once for all
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("asked", "device", "steps", "triton", "said"),
    [
        ("auto", "cpu", 10**6, True, None),
        ("off", "cuda", 10**6, True, None),
        ("auto", "cuda", 999, True, "not compiled: 999 steps do not pay for it"),
        ("auto", "cuda", 1000, False, "not compiled: there is no Triton here"),
        ("auto", "cuda", 1000, True, "compiling towers and loss"),
        ("on", "cuda", 1, False, "compiling towers and loss"),
        ("on", "cpu", 1, False, "compiling towers and loss"),
    ],
)
def test_what_is_compiled_is_said(
    monkeypatch: pytest.MonkeyPatch, asked: str, device: str, steps: int, triton: bool, said: Any
) -> None:
    monkeypatch.setattr(numerics, "find_spec", lambda name: name if triton else None)
    monkeypatch.setattr(numerics, "COMPILES", True)
    lines: list[str] = []
    options = ExecutionOptions(compile=asked)
    made = compiler(options, torch.device(device), steps, lines.append)
    assert (made is not None) == bool(said and said.startswith("compiling"))
    assert (not lines) if said is None else lines[0].startswith(said)


def test_what_cannot_be_compiled_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numerics, "COMPILES", False)
    lines: list[str] = []
    assert compiler(ExecutionOptions(), torch.device("cuda"), 10**6, lines.append) is None
    assert lines == ["not compiled: transformers 5 or later is needed"]
    with pytest.raises(BadUsageError, match="needs transformers 5 or later"):
        compiler(ExecutionOptions(compile="on"), CPU, 1, lines.append)


# -- numbers ---------------------------------------------------------------------------------------


@pytest.fixture
def torch_settings() -> Iterator[None]:
    before = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    yield
    assert (
        torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    ) == before  # fmt: skip


@pytest.mark.usefixtures("torch_settings")
def test_tf32_is_for_towers_on_a_card_and_gone_afterwards() -> None:
    with products(torch.device("cuda"), True):
        assert torch.get_float32_matmul_precision() == "high"
        with products(torch.device("cuda"), False):
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    with products(CPU, True):
        assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("torch_settings")
def test_what_is_not_repeatable_is_refused_while_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with repeatable(True, CPU):  # whose bits are the same anyway
        assert not torch.are_deterministic_algorithms_enabled()
    with repeatable(True, torch.device("cuda")):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.backends.cuda.flash_sdp_enabled()
    with repeatable(False, torch.device("cuda")):
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


def test_a_compiled_tower_is_the_system_it_was_made_of() -> None:
    model = trainer_of(CPU).model
    towers = Towers(model, lambda function, **_: function)
    assert {name.removeprefix("model.") for name in towers.state_dict()} == set(model.state_dict())
    images, ids = torch.rand(2, 3, 112, 112), torch.ones(3, 5, dtype=torch.long)
    model.eval()
    assert model(images, ids, ids).sentences.shape == (3, 32)


def test_a_loss_of_a_sample_without_a_sentence_is_no_number_where_nothing_can_be_raised() -> None:
    """On a CPU it is refused; compiled for a card, where it cannot be, nothing looks right."""
    features = torch.rand(2, 49, 8), torch.rand(2, 3, 8)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    asked = (*features, mask, torch.rand(2, 3, 49), mask, 14.0)
    with pytest.raises(ValueError, match="a sample has no sentence"):
        egma_loss(*asked, terms=("mlce",))
    compiled = torch.compile(egma_loss, backend="eager")
    assert compiled(*asked, terms=("mlce",)).total.isnan()
