"""How sentence maps change when their windows start earlier, on a sample rendered anew."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.etl.out_folder import OutFolder
from egma_prep.etl.render_again import RENDERED_FROM, render_reading
from egma_prep.options import Options, with_changes
from egma_prep.shards.schema import key_of
from egma_prep.shards.tables import read_parquet

Inputs = list[tuple[dict[str, Any], dict[str, pa.Table]]]

LEADS_S = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)
_SAMPLE = 150  # readings: each is aligned anew for every lead


@dataclass(frozen=True)
class Lead:
    """Windows that start `lead_s` earlier.

    Attributes
    ----------
    readings : int
        How many were rendered.
    gaze_s : Series
        Seconds of gaze in each sentence's window, by patient.
    half_cells : float
        Mean number of the 49 cells that hold half of a map: fewer is more concentrated.
    """

    lead_s: float
    readings: int
    gaze_s: "pd.Series[float]"
    half_cells: float

    @property
    def patients(self) -> int:
        """How many the sentences are of."""
        return self.gaze_s.index.nunique()


def sampled(out: OutFolder) -> Inputs:
    """Read what renders evenly chosen readings with gaze, at most 150 of them."""
    readings = read_parquet(out.table("readings")).to_pylist()
    seen = [row for row in readings if row["fixations_on_image"]]
    chosen = seen[:: -(-len(seen) // _SAMPLE) or 1]
    inputs: Inputs = []
    for part in sorted({row["part"] for row in chosen}):
        tables = out.part_rows(part, RENDERED_FROM)
        for facts in (row for row in chosen if row["part"] == part):
            inputs.append((facts, {name: tables[name][key_of(facts)] for name in tables}))
    return inputs


def by_lead(inputs: Inputs, options: Options) -> list[Lead]:
    """Render a sample at each lead time."""
    return [_measured(lead_s, inputs, options) for lead_s in (LEADS_S if inputs else ())]


def _measured(lead_s: float, inputs: Inputs, options: Options) -> Lead:
    changes = {"level": "sentence", "lead": lead_s, "empty_sentence": "null"}
    wanted = with_changes(options, {"render": changes})
    made = [
        (facts["subject_id"], sentence)
        for facts, tables in inputs
        for sentence in render_reading(facts, tables, wanted)["sentences"]
    ]
    gaze_s = pd.Series([one["gaze_seconds"] for _, one in made], [patient for patient, _ in made])
    cells = [half_cells(one["grid"]) for _, one in made if one["grid"] is not None]
    return Lead(lead_s, len(inputs), gaze_s, float(np.mean(cells)) if cells else float("nan"))


def half_cells(grid: NDArray[np.float32]) -> int:
    """Count the largest cells, of ``(49,)``, that together hold half of the sum."""
    held = np.cumsum(np.sort(grid.astype(np.float64))[::-1])
    return int(np.searchsorted(held, held[-1] / 2) + 1)
