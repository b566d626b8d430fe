"""The rows and files of one EYE GAZE reading (FORMATS 2.1 to 2.4)."""

from __future__ import annotations

import json
import math

import cv2
import numpy as np

from .anatomy import REGIONS, lung_mask
from .gaze import Fixation, eye_gaze_pads, screen_fraction
from .mimic_cxr import CHEXPERT_LABELS, chexpert_labels
from .readings import PhantomImage, PhantomReading

GAZEPOINT = (
    "SESSION_ID", "MEDIA_ID", "DICOM_ID", "CNT", "Time (in secs)", "TIMETICK(f=10000000)",
    "FPOGX", "FPOGY", "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "LPCX",
    "LPCY", "LPD", "LPS", "LPV", "RPCX", "RPCY", "RPD", "RPS", "RPV", "BKID", "BKDUR", "BKPMIN",
    "LPMM", "LPMMV", "RPMM", "RPMMV", "SACCADE_MAG", "SACCADE_DIR", "VID_FRAME", "X_ORIGINAL",
    "Y_ORIGINAL",
)  # fmt: skip
BOXES = ("dicom_id", "bbox_name", "x1", "x2", "y1", "y2")
_CONDITIONS = {  # column: kinds of findings that set it
    "consolidation": "consolidation",
    "enlarged_cardiac_silhouette": "cardiomegaly",
    "linear__patchy_atelectasis": "atelectasis",
    "lobar__segmental_collapse": "",
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__": "nodule fibrosis",
    "pleural_effusion_or_thickening": "effusion",
    "pulmonary_edema__hazy_opacity": "",
    "normal_anatomically": "",
    "elevated_hemidiaphragm": "",
    "hyperaeration": "",
    "vascular_redistribution": "",
}
_DIAGNOSES = tuple(f"dx{k}{suffix}" for k in range(1, 10) for suffix in ("", "_icd"))
MASTER_SHEET = (
    "dicom_id", "path", "study_id", "patient_id", "stay_id", "gender", "anchor_age",
    "image_top_pad", "image_bottom_pad", "image_left_pad", "image_right_pad", *_DIAGNOSES,
    "normal_reports", "Normal", "CHF", "pneumonia", *_CONDITIONS,
    "atelectasis__chx", "cardiomegaly__chx", "consolidation__chx", "edema__chx",
    "enlarged_cardiomediastinum__chx", "fracture__chx", "lung_lesion__chx", "lung_opacity__chx",
    "no_finding__chx", "pleural_effusion__chx", "pleural_other__chx", "pneumonia__chx",
    "pneumothorax__chx", "support_devices__chx", "cxr_exam_indication",
)  # fmt: skip


def fixation_rows(reading: PhantomReading) -> list[list[str]]:
    """Return the reading's rows of fixations.csv: one at the end of each fixation."""
    rows = []
    before = None
    for number, fixation in enumerate(reading.fixations):
        seconds = fixation.end - fixation.begin
        rows.append(_row(reading, number, fixation, fixation.end, seconds, before))
        before = fixation
    return rows


def gaze_rows(reading: PhantomReading, rows: int = 100) -> list[list[str]]:
    """Return the first `rows` of the 60 Hz samples; durations grow within a fixation."""
    samples = []
    for k in range(rows):
        time = round(k / 60, 5)
        number, seen = next(
            (n, f) for n, f in enumerate(reading.fixations) if f.end >= time or f.end >= 4
        )
        so_far = max(0.0, time - seen.begin)
        samples.append(_row(reading, number, seen, time, so_far, None))
    return samples


def calibration_rows(reading: PhantomReading, rows: int = 3) -> list[list[str]]:
    """Return rows of the blank slide shown after the reading: an id of 39 characters."""
    slides = []
    for row in fixation_rows(reading)[:rows]:
        row[2] = row[2][:-5]
        row[-2:] = [str(int(float(row[6]) * 1920)), str(int(float(row[7]) * 1080))]
        slides.append(row)
    return slides


def master_row(image: PhantomImage) -> dict[str, str]:
    """Return the image's row of master_sheet.csv by column."""
    kinds = {finding.kind for finding in image.findings}
    subject, n = image.subject_id, image.number
    row = dict.fromkeys(MASTER_SHEET, "")
    row |= {
        "dicom_id": image.dicom_id,
        "path": f"files/p{subject[:2]}/p{subject}/s{image.study_id}/{image.dicom_id}.dcm",
        "study_id": image.study_id,
        "patient_id": subject,
        "stay_id": ("", f"{30_000_000 + n}", f"{30_000_000 + n}.0", "[30000001, 30000002]")[n % 4],
        "gender": "FM"[n % 2],
        "anchor_age": f"{20 + n % 6 * 10} - {30 + n % 6 * 10}",
        "dx1": "Phantom condition, unspecified",
        "dx1_icd": "Z999" if n % 2 else "78650",
        "normal_reports": str(int(not kinds)),
        "Normal": str(int(not kinds)),
        "CHF": str(int("cardiomegaly" in kinds)),
        "pneumonia": str(int(bool(kinds) and "cardiomegaly" not in kinds)),
        "cxr_exam_indication": f'phantom number {n}, with "cough"\nand ___, evaluate for pneumonia',
    }
    pads = eye_gaze_pads(image.width, image.height)
    sides = ("top", "bottom", "left", "right")
    row |= {f"image_{side}_pad": str(pad) for side, pad in zip(sides, pads, strict=True)}
    row |= {c: str(int(bool(kinds & set(k.split())))) for c, k in _CONDITIONS.items()}
    chexpert = chexpert_labels(image)
    return row | {f"{c.lower().replace(' ', '_')}__chx": chexpert[c] for c in CHEXPERT_LABELS}


def box_rows(image: PhantomImage) -> list[list[str]]:
    """Return the image's rows of bounding_boxes.csv: 17 regions, or 5 for every sixth image."""
    names = list(REGIONS)
    del names[image.number % len(names)]
    rows = []
    for name in names[:5] if image.number % 6 == 5 else names:
        x0, y0, x1, y1 = image.chest.box(name)
        rows.append([image.dicom_id, name, *(f"{v}.0" for v in (x0, x1, y0, y1))])
    return rows


def transcript_json(reading: PhantomReading) -> str:
    """Return transcript.json; its full text ends in a period even where the phrases do not."""
    full_text = " ".join(s.text for s in reading.sentences).rstrip(".") + ". "
    phrases = [] if reading.reject else reading.spoken
    timed = [{"phrase": p.text, "begin_time": p.begin, "end_time": p.end} for p in phrases]
    content = {"full_text": full_text, "time_stamped_text": timed}
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def mask_pngs(image: PhantomImage) -> dict[str, bytes]:
    """Return the four region masks at image size by file name, 255 inside."""
    masks = {f"{side}_lung.png": lung_mask(image.chest, side) for side in ("left", "right")}
    for name, region in (("mediastanum", "upper mediastinum"), ("aortic_knob", "trachea")):
        mask = np.zeros((image.height, image.width), np.uint8)
        x0, y0, x1, y1 = image.chest.box(region)
        mask[y0:y1, x0:x1] = 255
        masks[f"{name}.png"] = mask
    quick = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    return {name: cv2.imencode(".png", mask, quick)[1].tobytes() for name, mask in masks.items()}


def _row(
    reading: PhantomReading,
    number: int,
    fixation: Fixation,
    time: float,
    seconds: float,
    before: Fixation | None,
) -> list[str]:
    image = reading.image
    x, y = screen_fraction(image.width, image.height, fixation.x, fixation.y)
    magnitude, direction = _saccade(image, before, x, y)
    valid = str(int(fixation.valid))
    session = (str(1 + reading.number // 120 % 38), str(reading.number // 4 % 30), image.dicom_id)
    clock = (str(int(time * 60)), f"{time:.5f}", f"{123_450_000_000 + int(time * 1e7)}.0")
    start = (f"{fixation.begin:.5f}", f"{seconds:.5f}")
    # Fixation ids need not start at 1.
    fixed = (f"{x:.5f}", f"{y:.5f}", *start, str(number + 2 + reading.number % 4), valid)
    best = (f"{x + 0.001:.5f}", f"{y - 0.001:.5f}", valid)
    pupils = ("0.41200", "0.52100", "18.50000", "1.02000", valid) * 2
    blinks = ("0", "0.00000", "12.0")
    width_mm = ("3.12000", valid, "3.20000", valid)
    saccade = (f"{magnitude:.5f}", f"{direction:.5f}", "0.0")
    place = (str(fixation.x), str(fixation.y))
    return [*session, *clock, *fixed, *best, *pupils, *blinks, *width_mm, *saccade, *place]


def _saccade(
    image: PhantomImage, before: Fixation | None, x: float, y: float
) -> tuple[float, float]:
    """Return the way from the fixation before in screen px, and its direction in degrees."""
    if before is None:
        return 0.0, 0.0
    x0, y0 = screen_fraction(image.width, image.height, before.x, before.y)
    dx, dy = (x - x0) * 1920, (y0 - y) * 1080
    return math.hypot(dx, dy), math.degrees(math.atan2(dy, dx)) % 360
