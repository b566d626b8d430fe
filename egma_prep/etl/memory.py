"""How much memory a command may use: what is free here, and what its control groups allow."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil

_CGROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory.high", "memory.limit_in_bytes")
"""Version 2: hard and throttling; version 1."""


def allowed_memory(processes: Path = Path("/proc/self/cgroup"), groups: Path = _CGROUPS) -> int:
    """Tell how many bytes may be used, at most what is free now.

    A batch system or a container limits a group that this process is in, or one above it; Dask
    itself looks at the topmost alone.
    """
    return min([int(psutil.virtual_memory().available), *_limits(processes, groups)])


def _limits(processes: Path, groups: Path) -> Iterator[int]:
    lines = []
    with contextlib.suppress(OSError):  # not Linux
        lines = processes.read_text().splitlines()
    for line in lines:
        _, controllers, inside = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        # A container may be told its path on the host, which is not there: its own is the topmost.
        below = PurePosixPath(inside.strip("/"))
        homes = [groups / "memory"] if controllers else [groups, groups / "unified"]
        for place in (home / one for home in homes for one in (below, *below.parents)):
            for name in _LIMITS:
                with contextlib.suppress(OSError, ValueError):  # "max"
                    yield int((place / name).read_text())
