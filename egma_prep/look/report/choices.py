"""What other choices of a heatmap would change in a run's own maps, on a sample rendered anew."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError
from egma_prep.etl.render_again import render_reading
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.lag import SHIFTS_S, estimated_lag_s, spread_by_shift
from egma_prep.look.report.leads import Inputs, half_cells
from egma_prep.options import RECIPES, Options, with_changes
from egma_prep.shards.reader import Reading
from egma_prep.shards.schema import Key, key_of
from egma_prep.sources.manifests import finding_labels

Named = Mapping[Key, list[list[dict[str, Any]]]]
"""By reading, the regions that each of its sentences names."""

CHOICES: dict[str, dict[str, Any]] = {
    "as rendered": {},
    "window pause": {"window": "pause"},
    "lead 1.5 s": {"lead": 1.5},
    "sigma 8": {"sigma": 8.0},
    "sigma 32": {"sigma": 32.0},
    "sigma 1deg": {"sigma": "1deg"},
    "weights count": {"weights": "count"},
    **{f"recipe {name}": values for name, values in RECIPES.items()},
}
_DRAWS = 200


@dataclass(frozen=True)
class Choice:
    """One choice's maps beside the run's own; series are indexed by patient, an entry a sentence.

    Attributes
    ----------
    has_map : Series of bool
        Of all sentences of the readings that it can be rendered for.
    half_cells : float
        Mean number of the 49 cells that hold half of a map.
    in_common : float
        Mean share of a map, as 49 cells of sum 1, that lies where the run's own does.
    in_region : Series of bool
        Whether the peak lies in a region that the sentence names and does not deny, where it has
        one.
    """

    name: str
    has_map: "pd.Series[bool]"
    half_cells: float
    in_common: float
    in_region: "pd.Series[bool]"


def named_regions(reading: Reading) -> list[list[dict[str, Any]]]:
    """Find the ellipses that each sentence of a reading names and does not deny."""
    return [_named(one.mentions or [], reading.regions) for one in reading.sentences]


def by_choice(inputs: Inputs, named: Named, options: Options) -> list[Choice]:
    """Render a sample by every choice; one that no reading allows is left out."""

    def made(changes: dict[str, Any]) -> list[Any]:
        base = {"level": "sentence", "empty_sentence": "null"}
        wanted = with_changes(options, {"render": base | changes})
        return [_sentences(facts, tables, wanted) for facts, tables in inputs]

    own, found = made({}), []
    for name, changes in CHOICES.items():  # a choice's maps are gone before the next one's
        rows = made(changes) if changes else own
        if any(one is not None for one in rows):
            found.append(_compared(name, rows, own, inputs, named))
    return found


def _sentences(facts: Any, tables: Any, options: Options) -> list[dict[str, Any]] | None:
    try:
        return render_reading(facts, tables, options)["sentences"]
    except BadUsageError:  # nobody knows how wide a degree was, or what was shown
        return None


def _compared(
    name: str,
    rows: list[Any],
    own: list[Any],
    inputs: Inputs,
    named: Named,
) -> Choice:
    has_map, cells, common, hits = [], [], [], []
    for (facts, _), said, usual in zip(inputs, rows, own, strict=True):
        patient = facts["subject_id"]
        places = named.get(key_of(facts), [])
        for at, (one, other) in enumerate(zip(said or (), usual or (), strict=False)):
            has_map.append((patient, one["heatmap"] is not None))
            if one["heatmap"] is None:
                continue
            cells.append(half_cells(one["grid"]))
            if other["heatmap"] is not None:
                shares = (grid / grid.sum() for grid in (one["grid"], other["grid"]))
                common.append(float(np.minimum(*shares).sum()))
            if at < len(places) and places[at]:
                hits.append((patient, _peak_in(one["heatmap"], places[at])))
    return Choice(
        name,
        _by_patient(has_map),
        float(np.mean(cells)) if cells else float("nan"),
        float(np.mean(common)) if common else float("nan"),
        _by_patient(hits),
    )


def _by_patient(values: list[tuple[str, bool]]) -> "pd.Series[bool]":
    return pd.Series([value for _, value in values], [who for who, _ in values], dtype=bool)


def _named(mentions: list[dict[str, Any]], regions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    affirmed = {one["name"] for one in mentions if one["kind"] == "finding" and not one["negated"]}
    labels = {label for name in affirmed for label in finding_labels().get(name, ())}
    return [one for one in regions if one["kind"] == "ellipse" and one["name"] in labels]


def _peak_in(heatmap: bytes, regions: list[dict[str, Any]]) -> bool:
    row, column = divmod(int(np.argmax(np.frombuffer(heatmap, np.uint8))), FRAME_PX)
    for one in regions:
        x = (column - (one["x0"] + one["x1"]) / 2) / max((one["x1"] - one["x0"]) / 2, 1e-6)
        y = (row - (one["y0"] + one["y1"]) / 2) / max((one["y1"] - one["y0"]) / 2, 1e-6)
        if x**2 + y**2 <= 1:
            return True
    return False


@dataclass(frozen=True)
class Lag:
    """How long the eye is ahead of the voice; seconds, with the middle 95 % of resamples."""

    seconds: float
    low: float
    high: float
    is_at_edge: bool


def lag_of(inputs: Inputs) -> Lag | None:
    """Estimate it over a sample; None where no reading has two sentences with gaze."""
    spreads, patients = [], []
    for facts, tables in inputs:
        gaze = tables["fixations"].filter(tables["fixations"]["on_image"])
        begin_s, end_s, x, y = (
            gaze[name].to_numpy() for name in ("begin", "end", "x_224", "y_224")
        )
        said_s = tables["sentences"]["begin"].to_numpy()
        spreads.append(spread_by_shift(begin_s, end_s, x, y, said_s))
        patients.append(facts["subject_id"])
    if not spreads or np.isnan(found := estimated_lag_s(np.array(spreads))):
        return None
    every, groups = np.array(spreads), _groups(patients)
    rng = np.random.default_rng(0)
    drawn = [
        estimated_lag_s(every[np.concatenate([groups[i] for i in picks])])
        for picks in rng.integers(len(groups), size=(_DRAWS, len(groups)))
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Lag(found, float(low), float(high), found in (SHIFTS_S[0], SHIFTS_S[-1]))


def _groups(patients: list[str]) -> list[NDArray[np.intp]]:
    return [np.flatnonzero(np.array(patients) == one) for one in sorted({*patients})]
