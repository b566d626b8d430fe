"""Gaze as eye trackers' programs export it (FORMATS 14), in text of our own making."""

from collections.abc import Callable
from typing import NamedTuple

from .gaze import Fixation
from .readings import PhantomImage

Shown = tuple[float, float, float, float]


class PhantomScreen(NamedTuple):
    """The laboratory's screen."""

    width_px: int = 1920
    height_px: int = 1080
    width_mm: int = 531
    distance_mm: int = 650


SCREEN = PhantomScreen()


class GazeFile(NamedTuple):
    """A format: the file's name, ``[gaze]`` of dataset.toml, and who writes one."""

    file: str
    facts: str
    write: Callable[[list[Fixation], Shown, PhantomImage], str | bytes]


def shown_at(width: int, height: int) -> Shown:
    """Tell where the screen shows an image: 1,000 pixels high, left of the middle."""
    scale = min(1000 / height, 1800 / width)
    return 40.0, 20.0, 40.0 + round(width * scale), 20.0 + round(height * scale)


def on_screen(look: Fixation, shown: Shown, image: PhantomImage) -> tuple[float, float]:
    """Return the screen pixel, centres at integers, of a fixation's image pixel."""
    x0, y0, x1, y1 = shown
    x = x0 + (look.x + 0.5) / image.chest.width * (x1 - x0) - 0.5
    y = y0 + (look.y + 0.5) / image.chest.height * (y1 - y0) - 0.5
    return x, y


def _csv(looks: list[Fixation], _: Shown, __: PhantomImage) -> str:
    lines = [f"{look.begin!r},{look.end!r},{look.x},{look.y}" for look in looks]
    return "\n".join(["begin,end,x,y", *lines, ""])


GAZE_FILES = {
    "csv": GazeFile(
        "fixations.csv",
        'file = "fixations.csv"\nformat = "csv"\ntime_unit = "s"\nframe = "image_px"',
        _csv,
    )
}
