"""Hugging Face ``datasets`` on disk, with image features, for ``datasets.load_from_disk``."""

import shutil
from pathlib import Path
from typing import Any

import datasets

from egma_prep.etl.own_process import unhide_torch
from egma_prep.exports import Rows
from egma_prep.shards.encode import facts_of, png
from egma_prep.shards.reader import Map, Reading, Shards

CARD_HEAD = """\
---
license: other
license_name: terms-of-use-below
pretty_name: Readings with sentence heatmaps
task_categories: [image-to-text, zero-shot-image-classification]
tags: [eye-tracking, visual-grounding]
---

"""


def _features(names: dict[str, str]) -> dict[str, Any]:
    """Read ``{"int32": "width height"}``."""
    return {name: datasets.Value(kind) for kind, group in names.items() for name in group.split()}


_MENTION = _features({"string": "name kind side", "bool": "negated uncertain"})
_SENTENCE = _features(
    {"string": "text", "float64": "begin end", "int32": "words fixations"}
    | {"float32": "gaze_seconds peak_seconds"}
) | {
    "heatmap": datasets.Image(),
    "grid": datasets.List(datasets.Value("float32")),
    "mentions": datasets.List(_MENTION),
}
_REGION = _features({"string": "name kind", "float32": "x0 y0 x1 y1 certainty"})
_LABEL = _features({"string": "name", "float32": "value"})
FEATURES = datasets.Features(
    {
        **_features({"string": "dataset reading_id subject_id study_id dicom_id split view"}),
        **_features({"int32": "width height"}),
        "image": datasets.Image(),
        "heatmap": datasets.Image(),
        "sentences": datasets.List(_SENTENCE),
        "labels": datasets.List(_LABEL),
        "regions": datasets.List(_REGION),
    }
)


def write_part(shard: Shards, folder: Path, part: str) -> Rows:
    """Write one part as a dataset of its own."""
    unhide_torch()
    shutil.rmtree(folder / part, ignore_errors=True)
    rows = [_row(reading) for reading in shard]
    _save(datasets.Dataset.from_list(rows, features=FEATURES), folder / part)
    return [{name: row[name] for name in ("dataset", "reading_id")} for row in rows]


def finish(folder: Path, rows: Rows) -> Path:
    """Join the parts."""
    unhide_torch()
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    parts = [datasets.load_from_disk(path) for path in sorted(folder.glob("part-*"))]
    _save(datasets.concatenate_datasets(parts), whole)
    return whole


def _save(made: datasets.Dataset, folder: Path) -> None:
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()  # ours shows the whole
    try:
        made.save_to_disk(folder)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _row(reading: Reading) -> dict[str, Any]:
    row = facts_of(reading)
    for facts, sentence in zip(row["sentences"], reading.sentences, strict=True):
        facts["heatmap"] = _image(sentence.heatmap)
    labels = [{"name": name, "value": value} for name, value in reading.labels.items()]
    maps = {"image": _image(reading.image), "heatmap": _image(reading.heatmap)}
    return row | maps | {"labels": labels}


def _image(values: Map | None) -> dict[str, Any] | None:
    return None if values is None else {"bytes": png(values), "path": None}
