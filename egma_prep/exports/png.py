"""PNG folders: ``DATASET/READING_ID/`` with image, heatmaps and ``reading.json``."""

import json
from pathlib import Path

from egma_prep.exports import Rows
from egma_prep.shards.encode import facts_of, png
from egma_prep.shards.reader import Reading, Shards

CARD_HEAD = ""


def write_part(shard: Shards, folder: Path, part: str) -> Rows:
    """Write a folder a reading; sentence maps are numbered, those without gaze are absent."""
    rows = []
    for reading in shard:
        place = folder / reading.dataset / reading.reading_id
        place.mkdir(parents=True, exist_ok=True)
        for name, data in _files(reading).items():
            (place / name).write_bytes(data)
        rows.append({"dataset": reading.dataset, "reading_id": reading.reading_id})
    return rows


def finish(folder: Path, rows: Rows) -> Path:
    """Add nothing."""
    return folder


def _files(reading: Reading) -> dict[str, bytes]:
    maps = {"image.png": reading.image, "heatmap.png": reading.heatmap}
    maps |= {f"sentence-{i:03d}.png": one.heatmap for i, one in enumerate(reading.sentences)}
    facts = json.dumps(facts_of(reading), indent=1).encode()
    return {name: png(one) for name, one in maps.items() if one is not None} | {
        "reading.json": facts
    }
