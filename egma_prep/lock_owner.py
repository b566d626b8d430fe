"""Who holds a lock, and whether that process still runs."""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError


class InUseError(BadUsageError):
    """Another process holds a lock."""


def in_use(path: Path, owner: dict[str, Any]) -> InUseError:
    """Say who holds a lock."""
    return InUseError(
        f"{path.parent.parent} is in use by process {owner.get('pid', '?')} on"
        f" {owner.get('host', '?')} since {owner.get('since', '?')}; wait for it, or choose"
        " another folder by --out"
    )


def this_process() -> dict[str, Any]:
    """Name this process for others to look for."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def parsed(data: bytes) -> dict[str, Any]:
    """Read what a lock says of its owner; nothing of one that is damaged."""
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def is_alive(owner: dict[str, Any]) -> bool:
    """Tell whether a lock's owner still runs; of another machine's process nobody here can."""
    if owner.get("host") != socket.gethostname():
        return bool(owner)
    try:
        os.kill(int(owner["pid"]), 0)
    except (KeyError, ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
