"""A complete run for Python users: its tables, shards and options."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from egma_prep.errors import BadUsageError
from egma_prep.etl.out_folder import OutFolder
from egma_prep.shards.reader import Shards, open_shards
from egma_prep.shards.schema import INPUTS, REJECTS
from egma_prep.shards.tables import read_table
from egma_prep.storage.paths import place_of, resolved

if TYPE_CHECKING:
    import pandas as pd


class Run:
    """A complete run's tables as pandas data frames, its shards and what it was made with.

    Attributes
    ----------
    options : dict
        By stage.
    counts : dict
        Readings planned, written and rejected, images, sentences, notes.
    """

    def __init__(self, out: OutFolder, run: dict[str, Any]) -> None:
        self._out = out
        self.options: dict[str, Any] = run["options"]
        self.counts: dict[str, Any] = run["counts"]

    def __repr__(self) -> str:
        return f"<run in {self._out.root}, {self.counts['written']} readings>"

    @property
    def readings(self) -> "pd.DataFrame":
        """One row a reading."""
        return self._table("readings")

    @property
    def words(self) -> "pd.DataFrame":
        """One row a dictated word, with the seconds of gaze in it."""
        return self._table("words")

    @property
    def fixations(self) -> "pd.DataFrame":
        """One row a fixation; none of a run with ``--privacy``."""
        return self._table("fixations")

    @property
    def alignment(self) -> "pd.DataFrame":
        """One row a pair of a fixation and a word, with the seconds that they share."""
        return self._table("alignment")

    @property
    def sentences(self) -> "pd.DataFrame":
        """One row a sentence."""
        return self._table("sentences")

    @property
    def rejects(self) -> "pd.DataFrame":
        """What was not written, why, and how to mend it."""
        return read_table(self._out.rejects, REJECTS).to_pandas()

    @property
    def inputs(self) -> "pd.DataFrame":
        """Every file that was read: path, size, time stamp, SHA-256."""
        return read_table(self._out.inputs, INPUTS).to_pandas()

    @property
    def shards(self) -> Shards:
        """Images and heatmaps, reading by reading."""
        return open_shards(self._out.root)

    def _table(self, name: str) -> "pd.DataFrame":
        if not self._out.table(name).exists():
            raise BadUsageError(
                f"{self._out.root} was made with --privacy and has no table of {name}"
            )
        return self._out.read(name).to_pandas()


def open_run(out: str | Path = "out") -> Run:
    """Open a complete run.

    Raises
    ------
    BadUsageError
        If there is none, or it is not finished.
    """
    folder = OutFolder(resolved(place_of(out)))
    return Run(folder, folder.finished_run())
