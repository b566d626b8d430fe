"""What is true of each phantom reading, for measuring a pipeline: one JSON file.

`readings` lists, in planned order, what a pipeline should find in the files: tokens, sentences,
fixations and every overlap between them. `reject` is null, `discarded` or `empty_transcript`.
"""

import json
from pathlib import Path
from typing import Any

from .readings import PhantomReading


def write_truth(path: Path, truth: list[dict[str, Any]], seed: int) -> Path:
    """Write the truth of all readings, one a line; return its path."""
    lines = ",\n".join(map(json.dumps, truth))
    text = f'{{"phantom": true, "seed": {seed}, "readings": [\n{lines}\n]}}\n'
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def describe(reading: PhantomReading) -> dict[str, Any]:
    """Return the truth of one reading; times in s, places in original image px."""
    image = reading.image
    tokens = [token._asdict() for token in reading.tokens if not reading.reject]
    sentences = [sentence._asdict() for sentence in reading.sentences if not reading.reject]
    fixations = [] if reading.reject == "discarded" else _fixations(reading)
    for s in sentences:
        s["gaze_seconds"] = sum(max(0.0, _shared(s, f)) for f in fixations if f["on_image"])
    phase, found = reading.phase, image.findings
    findings = [{"name": f.label(phase), "place": f.place, "ellipse": f.ellipse} for f in found]
    shared = ([t, f, _shared(a, b)] for t, a in enumerate(tokens) for f, b in enumerate(fixations))
    facts: dict[str, Any] = {name: getattr(reading, name) for name in ("dataset", "reading_id")}
    facts |= {name: getattr(image, name) for name in image._fields[1:6]}
    facts |= {"width": image.chest.width, "height": image.chest.height, "image": image.path}
    facts |= {"reject": reading.reject, "quirks": sorted(reading.quirks), "findings": findings}
    facts |= {"tokens": tokens, "sentences": sentences, "fixations": fixations}
    return facts | {"alignment": [overlap for overlap in shared if overlap[2] > 0]}


def _fixations(reading: PhantomReading) -> list[dict[str, Any]]:
    width, height = reading.image.chest.width, reading.image.chest.height
    fixations = []
    for begin, end, x, y, valid, _ in reading.fixations:
        if not reading.phase:  # EYE GAZE rounds odd sizes up to even: one px too far is pulled in
            x, y = x - (x == width), y - (y == height)
        on_image = 0 <= x < width and 0 <= y < height
        if valid:
            fixations.append({"begin": begin, "end": end, "x": x, "y": y, "on_image": on_image})
    return fixations


def _shared(a: dict[str, Any], b: dict[str, Any]) -> float:
    return float(min(a["end"], b["end"]) - max(a["begin"], b["begin"]))
