"""Work done ahead in threads and on a card's copying stream, its results in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import torch


class Movable(Protocol):
    """What has tensors that can be moved."""

    def to(self, device: torch.device) -> Any:
        """Move them."""


Moved = TypeVar("Moved", bound=Movable)
Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int, ahead: int
) -> Iterator[Result]:
    """Yield what `work` makes of each item; at most `ahead` results wait to be taken."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def on_device(batches: Iterable[Moved], device: torch.device) -> Iterator[Moved]:
    """Move batches to a device; to a card the next one while the one before is worked on."""
    if device.type != "cuda":
        yield from (batch.to(device) for batch in batches)
        return
    copying, working = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    ahead: deque[tuple[Moved, torch.cuda.Event]] = deque()

    def next_one() -> Moved:
        batch, copied = ahead.popleft()
        working.wait_event(copied)
        return batch

    for batch in batches:
        # A copy may get the memory of a batch whose step is still at work: it waits for that step,
        # and goes on beside the one after it.
        copying.wait_stream(working)
        with torch.cuda.stream(copying):
            ahead.append((batch.to(device), copying.record_event()))
        if len(ahead) > 1:
            yield next_one()
    while ahead:
        yield next_one()
