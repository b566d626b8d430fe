"""One reading of ``out/`` as a figure's file."""

from pathlib import Path

from egma_prep.errors import BadUsageError
from egma_prep.out_folder import OutFolder
from egma_prep.reader import Reading, open_shards


def draw_reading(out_root: Path, reading_id: str | None = None, png: Path | None = None) -> Path:
    """Draw a reading's shard row as a PNG.

    Parameters
    ----------
    out_root : Path
        Holds a complete run.
    reading_id : str, optional
        By default the first reading whose sentences all have gaze.
    png : Path, optional
        By default ``<reading_id>.png`` in the output folder.

    Returns
    -------
    Path
        The figure's file.
    """
    out = OutFolder(out_root)
    out.finished_run()
    reading = _find(out, reading_id)
    target = png or out.root / f"{reading.reading_id}.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    reading.plot().savefig(target, dpi=110, format="png")
    return target


def _find(out: OutFolder, reading_id: str | None) -> Reading:
    shards = open_shards(out.root)
    if reading_id is None:
        complete = (
            reading
            for reading in shards
            if all(sentence.heatmap is not None for sentence in reading.sentences)
        )
        return next(complete, shards[0])
    try:
        return shards.find(reading_id)
    except KeyError:
        raise BadUsageError(
            f"{out.root} has no reading {reading_id}; see tables/readings.parquet"
        ) from None
