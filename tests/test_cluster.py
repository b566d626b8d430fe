"""What the driver makes of a cluster that grows or goes away."""

import threading
import time
from collections import deque
from typing import Any

import pytest
from conftest import PATIENCE_S
from distributed import Client, Future, LocalCluster
from distributed.client import FutureCancelledError
from distributed.comm.core import CommClosedError

from egma_prep.errors import BadUsageError
from egma_prep.etl.cluster import each_done


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


def test_a_scheduler_that_does_not_tell_its_workers_is_gone_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(*_: Any) -> None:
        raise CommClosedError("in <TCP (closed) ConnectionPool.ncores>: ConnectionResetError")

    with Client(processes=False, n_workers=1, dashboard_address=None) as client:
        monkeypatch.setattr(client, "nthreads", lost)
        with pytest.raises(BadUsageError, match=r"scheduler is gone.*goes on from here"):
            list(each_done(client, abs, deque([(-1,)])))


class Gauge:
    """Counts how many calls are under way at most."""

    lock = threading.Lock()
    now = most = 0

    @classmethod
    def work(cls, _: int) -> None:
        with cls.lock:
            cls.now += 1
            cls.most = max(cls.most, cls.now)
        time.sleep(0.02)
        with cls.lock:
            cls.now -= 1


def work(number: int) -> None:
    Gauge.work(number)


def test_workers_that_join_late_get_work_too() -> None:
    with (
        LocalCluster(1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        done = each_done(client, work, deque((i,) for i in range(60)))
        next(done)
        assert Gauge.most == 1
        cluster.scale(5)
        client.wait_for_workers(5, timeout=PATIENCE_S)
        assert len(list(done)) == 59
    assert Gauge.most > 2, "as many as one worker may have were in flight to the end"
