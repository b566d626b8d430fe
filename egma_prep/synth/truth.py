"""What is true of each phantom reading, for measuring a pipeline: one JSON file.

`readings` lists, in planned order, what a pipeline should find in the files: tokens, sentences,
fixations and every overlap between them, worked out by plain loops over the plan's numbers.
`reject` is null, `discarded` or `empty_transcript`; rejected readings have no tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .readings import PhantomReading


def write_truth(path: Path, plan: list[PhantomReading], seed: int) -> Path:
    """Write the truth of all readings, one a line; return its path."""
    lines = ",\n".join(json.dumps(describe(reading)) for reading in plan)
    text = f'{{"phantom": true, "seed": {seed}, "readings": [\n{lines}\n]}}\n'
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def describe(reading: PhantomReading) -> dict[str, Any]:
    """Return the truth of one reading; times in s, places in original image px."""
    image = reading.image
    tokens = [] if reading.reject else _tokens(reading)
    fixations = [] if reading.reject == "discarded" else _fixations(reading)
    sentences = [] if reading.reject else [vars(s) | {} for s in reading.sentences]
    for sentence in sentences:
        sentence["gaze_seconds"] = _gaze_seconds(sentence, fixations)
    return {
        "dataset": reading.dataset,
        "reading_id": reading.reading_id,
        "subject_id": image.subject_id,
        "study_id": image.study_id,
        "dicom_id": image.dicom_id,
        "split": image.split,
        "view": image.view,
        "width": image.width,
        "height": image.height,
        "image": image.path,
        "reject": reading.reject,
        "quirks": sorted(reading.quirks),
        "findings": [
            {"name": f.label(reading.phase), "place": f.place, "ellipse": f.ellipse}
            for f in image.findings
        ],
        "tokens": tokens,
        "sentences": sentences,
        "fixations": fixations,
        "alignment": _overlaps(tokens, fixations),
    }


def _tokens(reading: PhantomReading) -> list[dict[str, Any]]:
    return [vars(token) | {} for token in reading.tokens]


def _fixations(reading: PhantomReading) -> list[dict[str, Any]]:
    width, height = reading.image.width, reading.image.height
    fixations = []
    for f in reading.fixations:
        if not f.valid:
            continue
        x, y = f.x, f.y
        if not reading.phase:  # EYE GAZE rounds odd sizes up to even: one px too far is pulled in
            x, y = (x - (x == width), y - (y == height))
        on_image = 0 <= x < width and 0 <= y < height
        fixations.append({"begin": f.begin, "end": f.end, "x": x, "y": y, "on_image": on_image})
    return fixations


def _overlaps(tokens: list[dict[str, Any]], fixations: list[dict[str, Any]]) -> list[list[Any]]:
    overlaps: list[list[Any]] = []
    for t, token in enumerate(tokens):
        for f, fixation in enumerate(fixations):
            seconds = _shared(token, fixation)
            if seconds > 0:
                overlaps.append([t, f, seconds])
    return overlaps


def _gaze_seconds(sentence: dict[str, Any], fixations: list[dict[str, Any]]) -> float:
    shared = (_shared(sentence, f) for f in fixations if f["on_image"])
    return sum(seconds for seconds in shared if seconds > 0)


def _shared(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float(min(a["end"], b["end"]) - max(a["begin"], b["begin"]))
