"""What the driver makes of a cluster that goes away."""

from collections import deque
from typing import Any

import pytest
from distributed import Client, Future
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from egma_prep.cluster import each_done
from egma_prep.errors import BadUsageError


@pytest.mark.parametrize(
    "error",
    [FutureCancelledError("job", "lost"), CommClosedError("in <TCP (closed)>: Stream is closed")],
    ids=lambda error: f"seen as {type(error).__name__}",
)
def test_a_scheduler_that_is_gone_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: Any, **__: Any) -> None:
        raise error

    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        monkeypatch.setattr(Future, "result", lost)
        with pytest.raises(BadUsageError, match=r"scheduler is gone.*goes on from here"):
            list(each_done(client, abs, deque([(-1,)])))
