"""What a user can mend, in one line."""

import errno
import os
import traceback
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version

_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class BadUsageError(Exception):
    """A command cannot start or finish: one line for the user, exit code 2."""


class CannotWriteError(BadUsageError):
    """Something could not be written, such as on a full disk; what is there is whole."""

    @property
    def mend(self) -> str:
        """Say what to do before the command is repeated."""
        full = any(os.strerror(number) in str(self) for number in _FULL)
        return "make room" if full else "mend that"


class UnreadableImageError(Exception):
    """Why an image takes no part in an evaluation."""


def first_line(error: BaseException) -> str:
    """Take what matters of a library's error."""
    return str(error).partition("\n")[0]


def unknown_name(kind: str, name: object, known: Iterable[object]) -> BadUsageError:
    """Refuse a name and list the known ones."""
    return BadUsageError(f"no {kind} {name!r}; there are: {', '.join(sorted(map(str, known)))}")


def broken_package(error: BaseException) -> BadUsageError | None:
    """Name the package that is missing or whose import fails; None if that is not the matter.

    transformers imports what it finds installed, so a torchvision that does not fit torch stops
    it though nothing here needs one; what it raises then names neither.
    """
    while error.__cause__ is not None:
        error = error.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [one.f_globals["__name__"] for one in frames if one.f_code.co_name == "<module>"]
    if isinstance(error, ModuleNotFoundError) and error.name:
        return BadUsageError(
            f"{error.name} is not installed; install it: pip install 'egma[train]'"
        )
    if not modules:
        return None
    module = modules[-1].partition(".")[0]
    package = packages_distributions().get(module, [module])[0]
    try:
        needed = any(one.startswith(package) for one in requires("egma") or ())
        package_and_version = f"{package} {version(package)}"
    except PackageNotFoundError:
        needed, package_and_version = False, package
    mend = f"mend it: pip install --force-reinstall {package}"
    if not needed:
        mend = f"remove it: pip uninstall {package}, or install the version that fits the others"
    return BadUsageError(f"{package_and_version} is broken ({first_line(error)}); {mend}")
