"""In which numbers a card computes, and whether it repeats itself; on a CPU nothing changes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from egma_train.errors import BadUsageError
from egma_train.options import ExecutionOptions

COMPILES = int(version("transformers").partition(".")[0]) >= 5
"""Before, its Swin asks for values while it is compiled, and its BERT whether a mask hides any."""
_WORTH_COMPILING_STEPS = 1000
"""Compiling takes a minute or two, and saves some 0.1 s a step of the paper's on an H200."""


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """Choose what the towers compute in; the loss is always in float32."""
    if name == "cuda-float16":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name != "auto":
        return getattr(torch, name)
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16


@contextmanager
def products(device: torch.device, tf32: bool) -> Iterator[None]:
    """Let a card multiply float32 by TF32, 10 bits of a number in place of 23, or forbid it."""
    if device.type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def repeatable(wanted: bool, device: torch.device) -> Iterator[None]:
    """Take only algorithms that give the same bits each time, as torch knows them."""
    if not wanted or device.type == "cpu":
        yield
        return
    # cuBLAS reads it when it is first used, and adds up in one order with it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    fills: Any = torch.utils.deterministic  # new memory with NaN, which costs time for nothing
    before_it = fills.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    fills.fill_uninitialized_memory = False
    try:
        # The gradients of the fused kernels of attention are added up in any order.
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.use_deterministic_algorithms(before)
        fills.fill_uninitialized_memory = before_it


def compiler(
    options: ExecutionOptions, device: torch.device, steps: int, say: Callable[[str], Any]
) -> Callable[..., Any] | None:
    """Choose whether the towers and the loss are compiled, and say so; None: as they are.

    Parameters
    ----------
    steps : int
        Of the run.

    Raises
    ------
    BadUsageError
        If it is asked for where it cannot be.
    """
    if options.compile == "off" or (options.compile == "auto" and device.type != "cuda"):
        return None
    if not COMPILES:
        if options.compile == "on":
            raise BadUsageError("execution.compile=on needs transformers 5 or later; leave it out")
        say("not compiled: transformers 5 or later is needed")
        return None
    if options.compile == "auto":
        if steps < _WORTH_COMPILING_STEPS:
            say(f"not compiled: {steps} steps do not pay for it (execution.compile=on does it)")
            return None
        if find_spec("triton") is None:
            say("not compiled: there is no Triton here (pip install triton), which takes longer")
            return None
    say("compiling towers and loss: the first steps take minutes")
    # Recorded kernels are launched at once; parts of a batch would each need their own record.
    mode = "reduce-overhead" if device.type == "cuda" and not options.readings_at_once else None

    def compiled(function: Callable[..., Any], dynamic: bool | None = None) -> Callable[..., Any]:
        made: Callable[..., Any] = torch.compile(function, mode=mode, dynamic=dynamic)
        return made

    return compiled
