"""The readings as Localized Narratives: pictures in colour, phrases, a pointer's samples."""

import json
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2

from .findings import draw_xray
from .gaze import Fixation
from .readings import PhantomReading
from .truth import describe

_SPLITS = {"train": "train2017", "validate": "val2017", "test": "test2017"}
_AWAY_S = 0.1  # so long between two looks, the pointer was off the image


def narrated(reading: PhantomReading) -> PhantomReading:
    """Tell a reading as a narrative: its image is its subject, a pointer moves for the eye."""
    image = reading.image
    shown = f"PHANTOM_{_SPLITS[image.split]}-{90_000_000 + image.number}"
    reading_id = f"{shown}-{reading.number}"
    told = image._replace(
        subject_id=shown,
        study_id=reading_id,
        dicom_id=shown,
        view=None,
        path=f"images/{90_000_000 + image.number:012d}.jpg",
    )
    return reading._replace(
        dataset="localized_narratives",
        reading_id=reading_id,
        image=told,
        reject=None if reading.reject == "discarded" else reading.reject,
        fixations=[one for entry in _entries(reading) for one in entry],
    )


def write_narratives(
    root: Path, plan: list[PhantomReading], progress: Callable[[int], object]
) -> list[dict[str, Any]]:
    """Write a file of narratives a split, and the pictures; return what is true of them."""
    told = [narrated(reading) for reading in plan]
    lines: dict[str, list[str]] = defaultdict(list)
    for reading in told:
        path = root / reading.image.path
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            grey = draw_xray(reading.image.chest, reading.image.findings)
            coloured = cv2.applyColorMap(grey, cv2.COLORMAP_JET)
            path.write_bytes(cv2.imencode(".jpg", coloured)[1].tobytes())
        lines[reading.image.split].append(json.dumps(_narrative(reading)))
        progress(1)
    for split, some in lines.items():
        file = root / f"PHANTOM_{split}_localized_narratives.jsonl"
        file.write_text("".join(f"{line}\n" for line in some), encoding="utf-8", newline="\n")
    return [describe(reading) for reading in told]


def _narrative(reading: PhantomReading) -> dict[str, Any]:
    dataset, image, annotator = reading.reading_id.split("-")
    width, height = reading.image.chest.width, reading.image.chest.height
    phrases = [] if reading.reject else reading.spoken
    entries: list[list[dict[str, float]]] = [[]]
    for look, after in pairwise([*reading.fixations, None]):
        assert look is not None
        place = {"x": (look.x + 0.5) / width, "y": (look.y + 0.5) / height, "t": look.begin}
        entries[-1].append(place)
        if after is None or after.begin > look.end:
            entries.append([])
    return {
        "dataset_id": dataset,
        "image_id": image,
        "annotator_id": int(annotator),
        "caption": " ".join(phrase.text for phrase in phrases),
        "timed_caption": [
            {"utterance": one.text, "start_time": one.begin, "end_time": one.end} for one in phrases
        ],
        "traces": entries[:-1],
        "voice_recording": f"PHANTOM/{reading.reading_id}.ogg",
    }


def _entries(reading: PhantomReading) -> list[list[Fixation]]:
    """Let each look last until the next, and the last one before the pointer left no time."""
    entries: list[list[Fixation]] = [[]]
    # A pointer is not at whole pixels.
    seen = [look._replace(x=look.x + 0.25) for look in reading.fixations if look.valid]
    for look, after in pairwise([*seen, None]):
        assert look is not None
        stays = after is not None and after.begin - look.end < _AWAY_S
        end = after.begin if stays and after is not None else look.end
        entries[-1].append(look._replace(end=end))
        if not stays:
            entries[-1].append(look._replace(begin=end, end=end))
            entries.append([])
    return entries[:-1]
