"""One run at a time in an object store: a lock object that is created once and renewed."""

import contextlib
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from egma_prep.errors import BadUsageError
from egma_prep.lock_owner import in_use, is_alive, parsed, this_process
from egma_prep.places import delete, read_bytes, store_of, unreachable

_PAUSE_S = 0.5
_RENEWED_S, _EXPIRES_S, _SETTLES_S = 5.0, 45.0, 1.0
"""How often a lock object is renewed, for how long it may not be before it counts as left behind,
and how long whoever takes it over waits for another who did so at the same moment."""


@contextlib.contextmanager
def locked_object(path: Path) -> Iterator[str]:
    """Hold a lock object, which is created only where there is none, and renew it all the time."""
    mine = this_process() | {"token": secrets.token_hex(8)}
    try:
        _take(path, mine)
    except BadUsageError:
        raise
    except Exception as error:  # each store has its own
        raise unreachable(path, error) from None
    done = threading.Event()
    renewal = threading.Thread(target=_renew, args=(path, mine, done), daemon=True)
    renewal.start()
    try:
        yield mine["token"]
    finally:
        done.set()
        renewal.join()
        if _is_mine(path, mine):
            delete(path)


def check_token(path: Path, token: str) -> None:
    """Refuse to go on where a lock object is not, or no longer, the one of that token.

    Raises
    ------
    BadUsageError
        If so.
    """
    if _stored(path).get("token") != token:
        raise BadUsageError(
            f"another run has taken over {path.parent.parent}, for this one did not renew its lock"
            f" for {_EXPIRES_S:.0f} s; wait for it, then repeat the same command"
        )


def _take(path: Path, mine: dict[str, Any]) -> None:
    if _created(path, mine):
        return
    owner = first = _stored(path)
    deadline_s = time.monotonic() + _EXPIRES_S
    here = socket.gethostname()
    while owner and not (owner.get("host") == here and not is_alive(owner)):
        if owner != first:  # renewed: its holder lives, whatever the clocks of two machines say
            raise in_use(path, owner)
        if time.monotonic() > deadline_s:
            break
        time.sleep(_PAUSE_S)
        owner = _stored(path)
    delete(path)
    if not _created(path, mine):
        raise in_use(path, _stored(path))
    time.sleep(_SETTLES_S)
    if not _is_mine(path, mine):
        raise in_use(path, _stored(path))


def _created(path: Path, mine: dict[str, Any]) -> bool:
    fs, name = store_of(path)
    try:
        fs.pipe_file(name, json.dumps(mine | {"renewed": 0}).encode(), mode="create")
    except FileExistsError:
        return False
    return True


def _renew(path: Path, mine: dict[str, Any], done: threading.Event) -> None:
    """Count up in the lock object; what another has taken over is not touched."""
    renewed = 0
    while not done.wait(_RENEWED_S):
        with contextlib.suppress(Exception):  # the next time may do
            if not _is_mine(path, mine):
                return
            renewed += 1
            path.write_bytes(json.dumps(mine | {"renewed": renewed}).encode())


def _is_mine(path: Path, mine: dict[str, Any]) -> bool:
    return _stored(path).get("token") == mine["token"]


def _stored(path: Path) -> dict[str, Any]:
    try:
        return parsed(read_bytes(path))
    except FileNotFoundError:
        return {}
