"""Gaze of an eye tracker's export: each module here with ``FORMATS`` and ``fixations``."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from egma_prep.sources.reading import FloatArray, RowsOfFile

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
"""Of a unit of time."""
FRAMES = ("image_px", "image_share", "screen_px", "screen_share")
"""What positions refer to: pixels or shares, of the image or of the screen it was shown on."""


class GazeFile(NamedTuple):
    """How the gaze of a dataset is stored: ``[gaze]`` of its ``dataset.toml``.

    Attributes
    ----------
    time_unit : str
        Of `SECONDS`, where a format leaves it open.
    frame : str
        Of `FRAMES`; empty where the format says it.
    columns : mapping
        Our names (``begin``, ``end`` or ``duration``, ``x``, ``y``) to a table's columns.
    """

    file: str = "fixations.csv"
    format: str = "csv"
    time_unit: str = "s"
    frame: str = ""
    columns: Mapping[str, str] = {}


class TrackedGaze(NamedTuple):
    """Fixations as a tracker's software found them, in file order; arrays are ``(n,)``.

    Attributes
    ----------
    begin_s, end_s : ndarray
        Seconds of the tracker's own clock.
    x, y : ndarray
        In what `frame` says.
    screen_px : tuple, optional
        Width and height of the screen, where the file tells them.
    zero_s : float, optional
        The clock where the file says that the stimulus or the sound began.
    rows : RowsOfFile
        For messages.
    notes : mapping
        Counts of what was left out, by `errors.NOTES`.
    """

    begin_s: FloatArray
    end_s: FloatArray
    x: FloatArray
    y: FloatArray
    frame: str
    screen_px: tuple[float, float] | None = None
    zero_s: float | None = None
    rows: RowsOfFile = RowsOfFile()
    notes: Mapping[str, int] = MappingProxyType({})


Reader = Callable[[bytes, str, GazeFile], TrackedGaze]


def trackers() -> dict[str, Reader]:
    """Find the reader of every format, by the name that ``dataset.toml`` has for it."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {name: module.fixations for module in modules for name in module.FORMATS}
