"""The images as Open-i ships its own: frontal and lateral PNG files, a report in XML, no gaze."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import cv2
import numpy as np

from . import dictation
from .findings import draw_xray
from .readings import PhantomImage, PhantomReading

_NOTHING_SAID = 9  # of so many reports one has neither findings nor impression
_XML = """<?xml version="1.0" encoding="utf-8"?>
<eCitation>
   <uId id="CXR{uid}"/>
   <title>PHANTOM: every word and image is invented</title>
   <MedlineCitation><Article><Abstract>
      <AbstractText Label="COMPARISON">XXXX.</AbstractText>
      <AbstractText Label="INDICATION">XXXX-year-old phantom.</AbstractText>
      <AbstractText Label="FINDINGS">{findings}</AbstractText>
      <AbstractText Label="IMPRESSION">{impression}</AbstractText>
   </Abstract></Article></MedlineCitation>
   <MeSH>{mesh}</MeSH>
{images}
</eCitation>
"""


def write_open_i(
    root: Path, plan: list[PhantomReading], progress: Callable[[int], object]
) -> list[dict[str, Any]]:
    """Write a report and two views of each image; return what is true of these readings."""
    truth: list[dict[str, Any]] = []
    for reading in {one.image.number: one for one in plan}.values():
        image, uid = reading.image, str(90_000_000 + reading.image.number)
        sentences = _sentences(image)
        said = [] if image.number % _NOTHING_SAID == 5 else [*sentences, "No acute disease XXXX."]
        mesh = sorted({f"{one.kind.labels[2]}/{one.place}" for one in image.findings}) or ["normal"]
        names = [f"CXR{uid}_IM-{image.number:04d}-{view}001" for view in (1, 2)]
        pixels = draw_xray(image.chest, image.findings)
        side = cv2.resize(pixels, (image.chest.width // 2, image.chest.height))
        for name, shown in zip(names, (pixels, side), strict=True):
            _write(root / f"{name}.png", cv2.imencode(".png", shown)[1].tobytes())
            height, width = shown.shape
            facts: dict[str, Any] = {"dataset": "open_i", "reading_id": name}
            facts |= {"subject_id": uid, "study_id": uid}
            facts |= {"dicom_id": name, "split": None, "view": None, "image": f"{name}.png"}
            reject = None if said else "no_report_section"
            facts |= {"width": width, "height": height, "reject": reject, "quirks": []}
            told = [{"text": one.replace("XXXX", "___")} for one in said]
            labels = [f"open_i:{one}" for one in mesh]
            truth.append(facts | {"sentences": told, "labels": labels, "fixations": []})
        # Some sentences follow another without a blank.
        findings = ("" if image.number % 3 == 1 else " ").join(said[:-1])
        text = _XML.format(
            uid=uid,
            findings=escape(findings),
            impression=escape(said[-1] if said else ""),
            mesh="".join(f"<major>{escape(one)}</major>" for one in mesh),
            images="\n".join(f'   <parentImage id="{name}"/>' for name in names),
        )
        _write(root / f"ecgen-radiology/{uid}.xml", text.encode())
        progress(len(names))
    return truth


def _sentences(image: PhantomImage) -> list[str]:
    rng = np.random.default_rng([image.chest.seed, 2])
    said = dictation.compose(image.chest, image.findings, 0, frozenset(), rng)
    return [dictation.join_words([*one.text.split(), "."]).capitalize() for one in said]


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
