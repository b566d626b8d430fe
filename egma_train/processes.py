"""Several processes, one loss: features are gathered so that each sees the global batch."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from egma_train.errors import BadUsageError

T = TypeVar("T")


class Processes(NamedTuple):
    """One process among all, as torchrun tells it."""

    rank: int
    world: int
    local_rank: int

    @property
    def first(self) -> bool:
        """Whether this one writes files and speaks."""
        return self.rank == 0


ALONE = Processes(0, 1, 0)


def this_process() -> Processes:
    """Tell which process this is among torchrun's; alone without it."""
    names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
    return Processes(*(int(os.environ.get(name, alone)) for name, alone in names.items()))


@contextmanager
def joined(device_type: str) -> Iterator[Processes]:
    """Join the other processes of torchrun; alone without it."""
    own = this_process()
    if own.world == 1:
        yield own
        return
    backend = "gloo"
    if device_type == "cuda":
        # NCCL speaks from the current GPU, else all from the first; flags are reduced on the CPU.
        torch.cuda.set_device(own.local_rank)
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend)
    try:
        yield own
    finally:
        # torch (seen in 2.4) ends a group while it holds Python's lock, for which gloo's threads,
        # giving back the last tensors, may wait: for ever. A moment lets them have it before.
        time.sleep(0.1)
        dist.destroy_process_group()


def gathered(own: Tensor, counts: Sequence[int]) -> Tensor:
    """Concatenate the processes' rows; alone, return them.

    The gradient of a process's own rows is multiplied by the number of processes, because
    ``DistributedDataParallel`` divides by it: weights then move as in a single process, and
    parameters that all processes use alike (the scale) do too.

    Parameters
    ----------
    own : Tensor
        ``[counts[rank], ...]``.
    counts : sequence of int
        Rows of each process.
    """
    return own if len(counts) == 1 else _Gather.apply(own, tuple(counts))  # type: ignore[no-untyped-call]


def any_process(flag: bool, processes: Processes) -> bool:
    """Tell whether the flag is raised in any process."""
    if processes.world == 1:
        return flag
    raised = torch.tensor(int(flag))  # on the host, so that nobody waits for a card
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised.item())


def in_first(processes: Processes, work: Callable[[], T]) -> T | None:
    """Do something in the first process; where it cannot, all end and only the first says why."""
    made = failure = None
    if processes.first:
        try:
            made = work()
        except BadUsageError as error:
            failure = error
    if any_process(failure is not None, processes):
        raise failure or BadUsageError()
    return made


def wait_for_all(processes: Processes) -> None:
    """Return when every process has come here."""
    any_process(False, processes)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, counts: tuple[int, ...]) -> Tensor:
        rank = dist.get_rank()
        ctx.rows = (sum(counts[:rank]), sum(counts[: rank + 1]))
        whole = own.new_empty(sum(counts), *own.shape[1:])
        if len(set(counts)) == 1:
            dist.all_gather_into_tensor(whole, own.contiguous())
            return whole
        # Gathering takes equal shares alone; sending each its place needs no second copy either.
        shares = whole.split(counts)
        shares[rank].copy_(own)
        sent = [dist.broadcast(one, at, async_op=True) for at, one in enumerate(shares)]
        for one in sent:
            one.wait()
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        first, end = ctx.rows
        return gradients[0][first:end] * dist.get_world_size(), None
