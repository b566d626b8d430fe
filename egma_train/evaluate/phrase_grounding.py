"""Whether a phrase resembles the patches in the boxes that radiologists drew for it (MS-CXR)."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from egma_train.data.grids import area_weights, on_grid
from egma_train.data.shards import FRAME_PX, ShardReading
from egma_train.errors import BadUsageError, UnreadableImageError, unknown_name
from egma_train.evaluate.datasets.image_files import locate, told_absent
from egma_train.evaluate.datasets.image_lists import patients
from egma_train.evaluate.datasets.user_files import number, read_table
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import (
    DEFINITIONS,
    Case,
    Others,
    figures_of_each,
    region_mask,
    summary,
)
from egma_train.evaluate.images.frames import read_frame
from egma_train.evaluate.intervals import few_groups
from egma_train.storage.ordinary import MOST_TABLE_BYTES, read_ordinary

_ASPECTS_APART = 0.01
_NUMBERS = ("x", "y", "w", "h", "image_width", "image_height")


class Phrase(NamedTuple):
    """A phrase about an image, and its boxes in pixels of it: x, y, width, height of each."""

    text: str
    boxes: list[tuple[float, float, float, float]]


class Boxed(NamedTuple):
    """An image of the table.

    Attributes
    ----------
    id : str
        As it is looked for: a path, or a DICOM id.
    size : tuple of float
        Width and height in pixels, as the boxes have it.
    """

    id: str
    size: tuple[float, float]
    phrases: list[Phrase]


def read_boxes(path: Path, splits: Sequence[str] = ()) -> list[Boxed]:
    """Read MS-CXR's table, a box a row; boxes of one phrase about one image belong together.

    Raises
    ------
    BadUsageError
        If a column is missing, a number cannot be read, a box lies outside its image, or a split
        has no row.
    """
    rows = read_table(path, "dicom_id", "label_text", *_NUMBERS, maybe=("path", "split"))
    seen = Counter(row.cells.get("split", "") or "unknown" for row in rows)
    if lacking := [name for name in splits if name not in seen]:
        raise unknown_name("split", lacking[0], seen)
    images: dict[str, Boxed] = {}
    for row in rows:
        cells = row.cells
        if splits and (cells.get("split", "") or "unknown") not in splits:
            continue
        values = [number(cells[name]) for name in _NUMBERS]
        if any(one is None for one in values) or not cells["label_text"]:
            raise BadUsageError(f"{path}, row {row.number}: a number or the phrase is missing")
        x, y, w, h, width, height = (float(one or 0) for one in values)
        # Boxes were drawn by hand: a pixel beyond the edge is no mistake.
        if not (w > 0 and h > 0 and -1 <= x < x + w <= width + 1 and -1 <= y < y + h <= height + 1):
            raise BadUsageError(f"{path}, row {row.number}: the box lies outside its image")
        name = cells.get("path", "") or cells["dicom_id"]
        image = images.setdefault(name, Boxed(name, (width, height), []))
        same = next((one for one in image.phrases if one.text == cells["label_text"]), None)
        if same is None:
            image.phrases.append(same := Phrase(cells["label_text"], []))
        same.boxes.append((x, y, w, h))
    if not images:
        raise BadUsageError(f"{path} has no box")
    return list(images.values())


def mask_of(phrase: Phrase, size: tuple[float, float]) -> NDArray[np.bool_]:
    """Draw a phrase's boxes in the padded frame of 224, by pixel centres."""
    scale = FRAME_PX / max(size)
    left, top = ((FRAME_PX - scale * side) / 2 for side in size)
    mask = np.zeros((FRAME_PX, FRAME_PX), np.bool_)
    for x, y, w, h in phrase.boxes:
        # A pixel's centre is at its number: the box's edges lie half a pixel before.
        box = {"x0": left + scale * x - 0.5, "x1": left + scale * (x + w) - 0.5}
        box |= {"y0": top + scale * y - 0.5, "y1": top + scale * (y + h) - 0.5}
        mask |= region_mask({"kind": "box", **box})
    return mask


def phrase_grounding(
    table: Path,
    images: Path,
    encoder: Encoder,
    *,
    definition: str = "biovil",
    splits: Sequence[str] = (),
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Measure each phrase as `grounding` does a sentence, its boxes in place of gaze.

    Returns
    -------
    dict
        The report, with the same controls: other patients' mean boxes, and their phrases.

    Raises
    ------
    BadUsageError
        If the table or no image can be read.
    """
    if definition not in DEFINITIONS:
        raise unknown_name("definition", definition, DEFINITIONS)
    boxed = read_boxes(table, splits)
    ids = [one.id for one in boxed]
    paths = locate(images, ids)
    if not any(paths):
        raise BadUsageError(told_absent(images, ids))
    unreadable: list[dict[str, str]] = []
    of = [f"patient {one}" for one in patients(ids)]
    others = _others(boxed, of, encoder.grid)
    cases = _cases(boxed, paths, of, unreadable)
    found = list(figures_of_each(cases, encoder, batch_size, others, definition, seed))
    if not found:
        raise BadUsageError(f"none of {len(ids)} images can be read: {unreadable[0]['reason']}")
    n_patients = len({one["subject_id"] for one in found})
    own = {"against": "boxes", "definition": definition, "splits": list(splits) or "all"}
    own["table"] = hashlib.sha256(read_ordinary(table, MOST_TABLE_BYTES)).hexdigest()[:16]
    return {
        "task": "grounding",
        "protocol": {**own, "seed": seed, "geometry": encoder.preparation[0].told()},
        "sentences": len(found),
        "images": len({one["dicom_id"] for one in found}),
        "patients": n_patients,
        "unreadable": unreadable,
        "cautions": [
            *few_groups(n_patients, "patients"),
            *([f"{len(unreadable)} of {len(ids)} images cannot be read"] if unreadable else []),
        ],
        "metrics": summary(found, definition, seed),
        "rows": [
            {name: value for name, value in one.items() if not name.startswith("chance")}
            for one in found
        ],
    }


def _cases(
    boxed: Sequence[Boxed],
    paths: Sequence[Path | None],
    of: Sequence[str],
    unreadable: list[dict[str, str]],
) -> Iterator[Case]:
    for one, path, patient in zip(boxed, paths, of, strict=True):
        try:
            if path is None:
                raise UnreadableImageError("not found")
            frame = read_frame(path)
            _check_aspect(path, one.size)
        except UnreadableImageError as error:
            unreadable.append({"id": one.id, "reason": str(error)})
            continue
        texts = [phrase.text for phrase in one.phrases]
        width, height = map(round, one.size)
        name = one.id.rpartition("/")[2]
        facts = ("ms-cxr", name, patient, name, None, b"", None, width, height, texts)
        reading = ShardReading(*facts, [], [], [])
        masks = [mask_of(phrase, one.size) for phrase in one.phrases]
        yield Case(reading, frame, list(range(len(texts))), texts, masks)


def _check_aspect(path: Path, size: tuple[float, float]) -> None:
    """Refuse a picture of another shape than the boxes were drawn on; a DICOM is taken as it is."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError:
        return
    if abs(width * size[1] / (height * size[0]) - 1) > _ASPECTS_APART:
        raise UnreadableImageError(
            f"{width} x {height} px, and its boxes are of {size[0]:g} x {size[1]:g}"
        )


def _others(boxed: Sequence[Boxed], of: Sequence[str], cells: int) -> Others:
    sums: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(cells**2))
    counts, phrases, weights = Counter[str](), [], area_weights(cells)
    for one, patient in zip(boxed, of, strict=True):
        for at, phrase in enumerate(one.phrases):
            mask = mask_of(phrase, one.size).astype(np.uint8) * 255
            sums[patient] += np.asarray(on_grid(mask, weights), np.float64)
            counts[patient] += 1
            phrases.append((patient, one.id, at, phrase.text))
    return Others(sums, counts, sorted(phrases))
