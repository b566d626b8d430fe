"""Phantoms as a laboratory would keep its own recordings (FORMATS 11)."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from .dicom import dicom_file, jpeg_file, stored_values
from .findings import draw_xray
from .readings import PhantomImage, PhantomReading
from .recogniser_files import WORDS_FILES
from .tracker_files import GAZE_FILES, SCREEN, shown_at

_FACTS = """# PHANTOM recordings: every image, word, gaze point and identifier is invented.
name = "PHANTOM laboratory"
version = "1"
licence = "CC0 1.0"
terms = "PHANTOM readings, invented; do not mix them with real ones"
citation = "PHANTOM laboratory, no year"

[gaze]
{gaze}

[screen]
width_px = {screen.width_px}
height_px = {screen.height_px}
width_mm = {screen.width_mm}
distance_mm = {screen.distance_mm}

[words]
{words}
"""
_COLUMNS = (
    "reading_id,image,subject_id,study_id,split,view,audio_offset_s,"
    "image_x0_px,image_y0_px,image_x1_px,image_y1_px,label:Finding"
)
OFFSET_S = 2.5
"""The trackers' clocks begin so long before the audio."""


def write_recordings(
    root: Path,
    plan: list[PhantomReading],
    gaze_format: str,
    words_format: str,
    dicom: bool,
    progress: Callable[[int], object],
) -> list[PhantomReading]:
    """Write a tree in a tracker's and a recogniser's format.

    Returns
    -------
    list of PhantomReading
        As they are kept there; those whose authors discarded them are not.
    """
    tracker, recogniser = GAZE_FILES[gaze_format], WORDS_FILES[words_format]
    kept = [_in_lab(one, ".dcm" if dicom else "") for one in plan if one.reject != "discarded"]
    for image in {reading.image.number: reading.image for reading in kept}.values():
        _write(root / image.path, _image_file(image))
    lines = [_COLUMNS]
    for reading in kept:
        folder = root / reading.reading_id
        shown = shown_at(reading.image.chest.width, reading.image.chest.height)
        moved = [
            look._replace(begin=look.begin + OFFSET_S, end=look.end + OFFSET_S)
            for look in reading.fixations
        ]
        _write(folder / tracker.file, tracker.write(moved, shown, reading.image))
        spoken = [] if reading.reject else reading.tokens
        _write(folder / recogniser.file, recogniser.write(spoken))
        boxes = [
            f"{f.label(3)},ellipse,{','.join(map(str, f.ellipse))},4"
            for f in reading.image.findings
        ]
        _write(folder / "regions.csv", "\n".join(["name,kind,x0,y0,x1,y1,certainty", *boxes, ""]))
        cells = (
            reading.reading_id, reading.image.path, reading.image.subject_id,
            reading.image.study_id, reading.image.split, reading.image.view, OFFSET_S, *shown,
            int(bool(boxes)),
        )  # fmt: skip
        lines.append(",".join(map(str, cells)))
        progress(1)
    _write(root / "readings.csv", "\n".join([*lines, ""]))
    facts = _FACTS.format(gaze=tracker.facts, words=recogniser.facts, screen=SCREEN)
    _write(root / "dataset.toml", facts)
    _write(root / "PHANTOM.txt", facts.partition("\n")[0] + "\n")
    _write(root / ".gitignore", "*\n")
    return kept


def _in_lab(reading: PhantomReading, suffix: str) -> PhantomReading:
    """Name image and dataset as a laboratory would; keep what its tracker saw, on the image."""
    image = reading.image
    suffix = suffix or (".jpg", ".png", ".16.png")[image.number % 3]
    path = f"images/PHANTOM-{image.number:04d}{suffix}"
    image_id = re.sub("[^A-Za-z0-9_-]", "_", path.rpartition(".")[0])
    width, height = image.chest.width, image.chest.height
    looks = [  # EYE GAZE rounds odd sizes up to even ones
        look._replace(x=look.x - (look.x == width), y=look.y - (look.y == height))
        if not reading.phase
        else look
        for look in reading.fixations
        if look.valid
    ]
    image = image._replace(path=path, dicom_id=image_id)
    return reading._replace(dataset="recordings", image=image, fixations=looks)


def _image_file(image: PhantomImage) -> bytes:
    """Make a DICOM file, or MIMIC-CXR-JPG's picture as JPEG or as PNG of 8 or 16 bits."""
    stored = stored_values(image, draw_xray(image.chest, image.findings))
    if image.path.endswith(".dcm"):
        return dicom_file(image, stored)
    jpeg = jpeg_file(image, stored)
    if image.path.endswith(".jpg"):
        return jpeg
    pixels = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE))
    deep = pixels.astype(np.uint16) * 257 if image.path.endswith(".16.png") else pixels
    return cv2.imencode(".png", deep)[1].tobytes()


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
