"""Turn radiologists' eye tracking and dictation into sentence-heatmap shards."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from egma_prep.errors import BadUsageError
    from egma_prep.etl.finished_run import open_run
    from egma_prep.etl.render_again import render_heatmaps
    from egma_prep.etl.run import run_etl
    from egma_prep.gaze.heatmaps import heatmap
    from egma_prep.shards.reader import open_shards
    from egma_prep.sources.reading import Region

__version__ = "0.1.0"
__all__ = [
    "BadUsageError", "Region", "heatmap", "open_run", "open_shards", "render_heatmaps", "run_etl",
]  # fmt: skip

_HOMES = {
    "BadUsageError": "errors",
    "Region": "sources.reading",
    "heatmap": "gaze.heatmaps",
    "open_run": "etl.finished_run",
    "open_shards": "shards.reader",
    "render_heatmaps": "etl.render_again",
    "run_etl": "etl.run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for, so that `import egma_prep` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
