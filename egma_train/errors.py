"""What a user can mend, in one line."""

from collections.abc import Iterable


class BadUsageError(Exception):
    """A command cannot start or finish: one line for the user, exit code 2."""


def first_line(error: Exception) -> str:
    """Take what matters of a library's error."""
    return str(error).partition("\n")[0]


def unknown_name(kind: str, name: object, known: Iterable[object]) -> BadUsageError:
    """Refuse a name and list the known ones."""
    return BadUsageError(f"no {kind} {name!r}; there are: {', '.join(sorted(map(str, known)))}")
