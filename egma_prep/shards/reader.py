"""Shards as a sequence of readings with arrays, for Python users."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.shards.formats import count_rows, load_shard, shard_files
from egma_prep.storage.atomic import read_json
from egma_prep.storage.paths import place_of

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl
    from matplotlib.figure import Figure

_PARTS_IN_MEMORY = 4  # of some 60 MB; who shuffles over more reads a file a reading

Map = NDArray[np.uint8]


@dataclass(frozen=True)
class Sentence:
    """One sentence, or word with ``--level word``.

    Attributes
    ----------
    begin, end : float or None
        Seconds from the start of the recording; None in a written report.
    heatmap : ndarray or None
        ``(224, 224)`` uint8, peak 255; None without gaze.
    grid : ndarray or None
        ``(7, 7)`` float32 area means of heatmap/255, or shares of its sum.
    mentions : list of dict or None
        name, kind (finding, anatomy), side, negated, uncertain; None of single words and in shards
        of schema 1.
    """

    text: str
    begin: float | None
    end: float | None
    words: int
    fixations: int
    gaze_seconds: float
    heatmap: Map | None
    peak_seconds: float | None
    grid: NDArray[np.float32] | None
    mentions: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Reading:
    """One shard row.

    Attributes
    ----------
    image : ndarray
        ``(224, 224)`` uint8, row-major.
    heatmap : ndarray or None
        Of the whole reading, as the image.
    labels : dict
        Values by name, such as ``chexpert:Edema``.
    regions : list of dict
        Boxes and ellipses in the 224 frame.
    """

    dataset: str
    reading_id: str
    subject_id: str
    study_id: str
    dicom_id: str
    split: str | None
    view: str | None
    width: int
    height: int
    image: Map
    heatmap: Map | None
    sentences: list[Sentence]
    labels: dict[str, float]
    regions: list[dict[str, Any]]

    def plot(self) -> "Figure":
        """Draw the image, the whole reading's map and each sentence's."""
        from egma_prep.shards.figure import figure_of

        panels = [("whole reading", self.heatmap)]
        for one in self.sentences:
            gaze = "no gaze" if one.heatmap is None else f"{one.gaze_seconds:.1f} s of gaze"
            panels.append((f"{one.text}  [{gaze}]", one.heatmap))
        return figure_of(f"{self.dataset}  {self.reading_id}", self.image, panels)


class Shards(Sequence[Reading]):
    """Readings in the order of their files; a few files are kept in memory.

    Attributes
    ----------
    paths : list of Path
        The files.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)
        self._ends = list(accumulate(map(count_rows, self.paths)))
        self._tables: OrderedDict[Path, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return self._ends[-1]

    @overload
    def __getitem__(self, index: int) -> Reading: ...

    @overload
    def __getitem__(self, index: slice) -> list[Reading]: ...

    def __getitem__(self, index: int | slice) -> Reading | list[Reading]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = index + len(self) if index < 0 else index
        if not 0 <= at < len(self):
            raise IndexError(f"reading {index} of {len(self)}")
        number = bisect_right(self._ends, at)
        before = self._ends[number - 1] if number else 0
        rows = self._table(self.paths[number]).slice(at - before, 1)
        return _reading(rows.to_pylist()[0])

    def __iter__(self) -> Iterator[Reading]:
        for path in self.paths:
            for batch in self._table(path).to_batches(max_chunksize=1):
                yield _reading(batch.to_pylist()[0])

    def __repr__(self) -> str:
        return f"<{len(self)} readings in {len(self.paths)} shards, {self.metadata}>"

    @property
    def metadata(self) -> dict[str, str]:
        """How the maps were made: ``sigma``, ``window``, ..., and the schema's version."""
        stored = self._table(self.paths[0]).schema.metadata
        return {
            name.decode().removeprefix("egma."): value.decode() for name, value in stored.items()
        }

    def find(self, reading_id: str) -> Reading:
        """Return a reading by its id.

        Raises
        ------
        KeyError
            If there is none.
        """
        for path in self.paths:
            ids = self._table(path).column("reading_id").to_pylist()
            if reading_id in ids:
                return _reading(self._table(path).slice(ids.index(reading_id), 1).to_pylist()[0])
        raise KeyError(reading_id)

    def to_arrow(self) -> pa.Table:
        """Read everything into one Arrow table, maps as bytes."""
        return pa.concat_tables([load_shard(path) for path in self.paths])

    def to_pandas(self) -> "pd.DataFrame":
        """Read everything into a pandas data frame, maps as bytes."""
        return self.to_arrow().to_pandas()

    def to_polars(self) -> "pl.DataFrame":
        """Read everything into a polars data frame, maps as bytes; polars must be installed."""
        import polars as pl

        found = pl.from_arrow(self.to_arrow())
        assert isinstance(found, pl.DataFrame)
        return found

    def _table(self, path: Path) -> pa.Table:
        if path not in self._tables:
            self._tables[path] = load_shard(path)
        self._tables.move_to_end(path)
        while len(self._tables) > _PARTS_IN_MEMORY:
            self._tables.popitem(last=False)
        return self._tables[path]


def open_shards(path: str | Path = "out") -> Shards:
    """Open an output folder, its folder of shards, or one shard, of either format.

    Returns
    -------
    Shards
        A sequence of `Reading`.

    Raises
    ------
    BadUsageError
        If there are no shards, the run that makes them is not finished, or one is damaged or of
        another schema version.
    """
    place = place_of(path)
    if place.is_file():
        return Shards([place])
    _refuse_unfinished(place if (place / "shards").is_dir() else place.parent)
    files = shard_files(place / "shards") or shard_files(place)
    if not files:
        raise BadUsageError(f"{place} holds no shards; make them with: egma-prep run DATA")
    return Shards(files)


def _refuse_unfinished(out: Path) -> None:
    if (out / "state" / "swap.json").exists():
        raise BadUsageError(
            f"the shards in {out} are being replaced; wait, or repeat: egma-prep render-heatmaps"
        )
    run = read_json(out / "run.json")
    if run is not None and run.get("status") != "complete":
        raise BadUsageError(
            f"the run in {out} is not finished; wait, or repeat: egma-prep run DATA"
        )


def _reading(row: dict[str, Any]) -> Reading:
    made = {
        "image": _map(row["image"]),
        "heatmap": _map(row["heatmap"]),
        "sentences": [sentence_of(sentence) for sentence in row["sentences"]],
        "labels": dict(row["labels"]),
    }
    return Reading(**{name: made.get(name, row[name]) for name in Reading.__dataclass_fields__})


def sentence_of(row: dict[str, Any]) -> Sentence:
    """Take a row of a shard's ``sentences``."""
    grid = row["grid"]
    made = {
        "heatmap": _map(row["heatmap"]),
        "grid": None
        if grid is None
        else np.array(grid, dtype=np.float32).reshape(GRID_CELLS, GRID_CELLS),
    }
    return Sentence(**{name: made.get(name, row[name]) for name in Sentence.__dataclass_fields__})


def _map(stored: bytes | None) -> Any:
    if stored is None:
        return None
    return np.frombuffer(stored, np.uint8).reshape(FRAME_PX, FRAME_PX)
