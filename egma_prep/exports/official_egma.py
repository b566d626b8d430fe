"""The folder and CSV that the published EGMA dataset class reads, started in that folder.

One map a piece of its own sentence splitter, in order, black without gaze, every file present.
"""

import csv
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadUsageError
from egma_prep.exports import Rows
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.shards.encode import jpeg
from egma_prep.shards.reader import Map, Reading, Sentence, Shards

CARD_HEAD = ""

LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
_QUALITY = 95  # what the class reads are JPEGs
_MOST_CLEARED = 64  # of 255; beyond a quarter of the peak nothing is near zero
_STUB = Path("....") / "EGMA" / "local_data" / "sentence-label.csv"  # a path that the class holds

_FORMULA = re.compile(r"'*[=+\-@\t\r]")  # also what has apostrophes already, to be had again
_ENUMERATION = re.compile(r"[0-9]+\.+[^0-9]")
_TOKEN = re.compile(r"\w+|[^\w\s]+")


def write_part(shard: Shards, folder: Path, part: str) -> Rows:
    """Write a folder a reading; readings without any word that the class keeps are left out."""
    if shard.metadata["level"] != "sentence":
        raise BadUsageError(
            "the shards hold words, official-egma needs sentences; first:"
            " egma-prep render-heatmaps --level sentence"
        )
    written = [
        (reading, kept)
        for reading in shard
        if (kept := [one for one in reading.sentences if keeps(one.text)])
    ]
    return [_write(reading, kept, folder) for reading, kept in written]


def finish(folder: Path, rows: Rows) -> Path:
    """Write the CSV of all readings, and the label file that the class opens and never uses."""
    stub = {"index": 0, "Reports": "invented sentence", **dict.fromkeys(LABELS, 0)}
    key = ("dataset", "reading_id", "split")  # the class reads the columns before
    _write_csv(folder / "readings.csv", ["imgpath", "report", *LABELS, *key], rows)
    _write_csv(folder / _STUB, [*stub], [stub])
    return folder


def report_of(sentences: list[str]) -> str:
    """Write sentences so that the published splitter cuts between them and nowhere else."""
    texts = [_uncut(text) for text in sentences]
    ends = [" . " if text[-1].isdigit() else ". " for text in texts]
    report = "".join(text + end for text, end in zip(texts, ends, strict=True)).rstrip()
    assert pieces_of(report) == [*map(_piece, texts[:-1]), _piece(f"{texts[-1]}.")], report
    return report


def pieces_of(report: str) -> list[str]:
    """Cut a report as the published dataset class does (docs/exports.md)."""
    passages = _ENUMERATION.split(report.replace("\n", " "))
    pieces = (_piece(one) for passage in passages for one in passage.split(". "))
    return [piece for piece in pieces if piece]


def _piece(text: str) -> str:
    tokens = (token.encode("ascii", "ignore") for token in _TOKEN.findall(text.lower()))
    return b" ".join(token for token in tokens if token).decode()


def _uncut(text: str) -> str:
    """Take out of a sentence what the splitter would cut at, and its final period."""
    spaced = re.sub(r"\.+(?=\s|$)", " ", " ".join(text.split()))
    return " ".join(re.sub(r"([0-9])\.+(?=[^0-9])", r"\1 ", spaced).split())


def keeps(sentence: str) -> bool:
    """Tell whether the splitter keeps a sentence: it drops those without an ASCII token."""
    return bool(_piece(_uncut(sentence)))


def _write(reading: Reading, sentences: list[Sentence], folder: Path) -> dict[str, object]:
    place = Path(reading.dataset) / reading.reading_id
    maps = folder / place / "sentence_hm"
    maps.mkdir(parents=True, exist_ok=True)
    (folder / place / "src.jpg").write_bytes(jpeg(reading.image, _QUALITY))
    (folder / place / "hm_array.jpg").write_bytes(_map(reading.heatmap, reading.image))
    for index, sentence in enumerate(sentences):
        data = _map(sentence.heatmap, reading.image)
        (maps / f"{index}_sent_hm_array.jpg").write_bytes(data)
    labels = {name: reading.labels.get(f"chexpert:{name}", "") for name in LABELS}
    return {
        "imgpath": (place / "src.jpg").as_posix(),
        "report": report_of([one.text for one in sentences]),
        **labels,
        "dataset": reading.dataset,
        "reading_id": reading.reading_id,
        "split": reading.split or "",
    }


def _map(heatmap: Map | None, image: Map) -> bytes:
    cleared = np.zeros_like(image) if heatmap is None else near_zero_cleared(heatmap)
    return jpeg(cleared, _QUALITY)


def near_zero_cleared(heatmap: Map) -> Map:
    """Clear the values that would make more of the class's 7 x 7 labels positive than of ours.

    The class shrinks a map by a triangle filter and calls every cell above zero positive: any
    value within a cell's width of its centre counts, and so does JPEG's noise around it. Of the
    49 largest values that the cells see so, as many are kept as there are cells with gaze.
    """
    cell = heatmap.shape[0] // GRID_CELLS
    with_gaze = _largest(np.asarray(heatmap), cell, 0) > 0
    seen = np.sort(_largest(heatmap, cell, cell // 2), axis=None)[::-1]
    least = min(int(seen[with_gaze.sum() - 1]), _MOST_CLEARED)
    return np.where(heatmap >= least, heatmap, 0).astype(np.uint8)


def _largest(heatmap: Map, cell: int, beyond: int) -> NDArray[np.uint8]:
    """Find the largest value in each cell and `beyond` pixels around it, ``(7, 7)``."""
    padded = np.pad(heatmap, beyond)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (cell + 2 * beyond,) * 2)
    return windows[::cell, ::cell].max(axis=(2, 3))


def _write_csv(path: Path, columns: list[str], rows: Rows) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows({name: as_text(value) for name, value in row.items()} for row in rows)


def as_text(value: object) -> object:
    """Keep a spreadsheet from running text that was dictated, or that somebody put into a shard.

    A leading apostrophe makes a formula text; who reads the file by program drops the one that
    stands before one of these signs. Numbers stay numbers.
    """
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value
