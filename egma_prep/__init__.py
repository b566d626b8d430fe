"""Turn radiologists' eye tracking and dictation into sentence-heatmap shards."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from egma_prep.shards.reader import Shards

__version__ = "0.1.0"


def open_shards(path: "str | Path" = "out") -> "Shards":
    """Open an output folder, its folder of shards, or one shard, of either format.

    Returns
    -------
    Shards
        A sequence of `egma_prep.shards.reader.Reading`.

    Raises
    ------
    egma_prep.errors.BadUsageError
        If there are no shards, or one is damaged or of another schema version.
    """
    from egma_prep.shards.reader import open_shards as open_them  # `import egma_prep` stays instant

    return open_them(path)
