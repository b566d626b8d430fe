"""Progress is a bar on a terminal and plain lines elsewhere."""

import io

import pytest

from egma_prep.storage import progress
from egma_prep.storage.progress import Progress


class _Clock:
    seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    found = _Clock()
    monkeypatch.setattr(progress, "time", found)
    return found


def test_a_line_tells_count_share_rate_and_time_left(clock: _Clock) -> None:
    shown = Progress("readings", 400)
    clock.seconds += 10
    shown.advance(100)
    assert shown.line() == "readings: 100/400 (25%), 10.0/s, 0:30 left"


def test_elsewhere_a_plain_line_comes_at_most_every_ten_seconds(
    clock: _Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("readings", 40) as shown:
        for _ in range(40):
            clock.seconds += 1
            shown.advance(1)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "readings: 10/40 (25%)",
        "readings: 20/40 (50%)",
        "readings: 30/40 (75%)",
        "readings: 40/40 (100%)",
    ]


def test_on_a_terminal_one_line_is_drawn_over_and_over(
    clock: _Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    with Progress("readings", 2) as shown:
        clock.seconds += 1
        shown.advance(1)
    drawn = terminal.getvalue()
    assert drawn.count("\n") == 1 and drawn.endswith("\n")
    assert "[############------------] readings: 1/2 (50%)" in drawn
