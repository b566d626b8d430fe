"""WebDataset: a tar a part, one sample a reading, members deterministic."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np

from egma_prep.exports import Rows
from egma_prep.shards.encode import facts_of, png
from egma_prep.shards.reader import Reading, Shards
from egma_prep.storage.atomic import appearing_whole

CARD_HEAD = ""


def write_part(shard: Shards, folder: Path, part: str) -> Rows:
    """Write a tar; a sample's key is its number, for ids may hold dots, which end a key."""
    rows = []
    with (
        appearing_whole(folder / f"{part}.tar") as temporary,
        tarfile.open(temporary, "w") as archive,
    ):
        for number, reading in enumerate(shard):
            for name, data in _members(reading).items():
                # No time and no owner: equal runs have equal tars.
                member = tarfile.TarInfo(f"{part}-{number:05d}.{name}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            rows.append({"dataset": reading.dataset, "reading_id": reading.reading_id})
    return rows


def finish(folder: Path, rows: Rows) -> Path:
    """Add nothing."""
    return folder


def _members(reading: Reading) -> dict[str, bytes]:
    """Encode a sample; sentences without gaze have a zero map and ``has_gaze`` false."""
    whole = {} if reading.heatmap is None else {"heatmap.png": png(reading.heatmap)}
    maps = [one.heatmap for one in reading.sentences]
    blank = np.zeros_like(reading.image)
    sentences = io.BytesIO()
    np.savez_compressed(
        sentences,
        heatmaps=np.stack([blank if one is None else one for one in maps]),  # (m, 224, 224)
        has_gaze=np.array([one is not None for one in maps]),
    )
    return {
        "image.png": png(reading.image),
        **whole,
        "sentences.npz": sentences.getvalue(),
        "json": json.dumps(facts_of(reading)).encode(),
    }
