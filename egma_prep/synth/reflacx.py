"""The files of one REFLACX reading (FORMATS 1.1 to 1.7), as text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from .anatomy import Box
from .dictation import join_words
from .findings import KINDS
from .gaze import Fixation, reflacx_screen
from .readings import PhantomReading

LABELS_PHASE_1 = (
    "Airway wall thickening", "Atelectasis", "Consolidation", "Emphysema",
    "Enlarged cardiac silhouette", "Fibrosis", "Fracture", "Groundglass opacity", "Mass", "Nodule",
    "Other", "Pleural effusion", "Pleural thickening", "Pneumothorax", "Pulmonary edema",
    "Quality issue", "Support devices", "Wide mediastinum",
)  # fmt: skip
LABELS = (
    "Abnormal mediastinal contour", "Acute fracture", "Atelectasis", "Consolidation",
    "Enlarged cardiac silhouette", "Enlarged hilum", "Groundglass opacity", "Hiatal hernia",
    "High lung volume / emphysema", "Interstitial lung disease", "Lung nodule or mass", "Other",
    "Pleural abnormality", "Pneumothorax", "Pulmonary edema", "Support devices",
)  # fmt: skip
METADATA = (
    "id", "split", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id",
    "image_size_x", "image_size_y",
)  # fmt: skip
_SHOWN = (
    "xmin_shown_from_image", "ymin_shown_from_image", "xmax_shown_from_image",
    "ymax_shown_from_image", "xmin_in_screen_coordinates", "ymin_in_screen_coordinates",
    "xmax_in_screen_coordinates", "ymax_in_screen_coordinates",
)  # fmt: skip
_EYE = (
    "x_position", "y_position", "pupil_area_normalized", "angular_resolution_x_pixels_per_degree",
    "angular_resolution_y_pixels_per_degree", "window_width", "window_level", *_SHOWN,
)  # fmt: skip
FIXATIONS = ("timestamp_start_fixation", "timestamp_end_fixation", *_EYE)
GAZE = ("timestamp_sample", *_EYE)
WORDS = ("word", "timestamp_start_word", "timestamp_end_word")


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]], newline: str = "\r\n") -> str:
    """Return a CSV file's text; values are written as they print."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=newline)
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def main_files(reading: PhantomReading) -> dict[str, str]:
    """Return the files of main_data/<id> by name; a discarded reading has two."""
    labels = LABELS_PHASE_1 if reading.phase == 1 else LABELS
    ellipse_columns = ("xmin", "ymin", "xmax", "ymax", "certainty", *labels)
    files = {
        "anomaly_location_ellipses.csv": csv_text(ellipse_columns, _ellipse_rows(reading, labels)),
        "chest_bounding_box.csv": csv_text(ellipse_columns[:4], [_chest_box(reading)]),
    }
    if reading.reject == "discarded":
        return files
    words = [(t.text, f"{t.begin:.2f}", f"{t.end:.2f}") for t in reading.tokens]
    return files | {
        "fixations.csv": csv_text(FIXATIONS, _fixation_rows(reading)),
        "timestamps_transcription.csv": csv_text(WORDS, words),
        "transcription.txt": join_words([t.text for t in reading.tokens]),
    }


def gaze_csv(reading: PhantomReading, rows: int = 200) -> str:
    """Return the first `rows` of the 1000 Hz samples; a blink leaves their cells empty."""
    samples = []
    first = reading.fixations[0]
    start_ms = round(first.begin * 1000)
    for k in range(rows):
        seen = next((f for f in reading.fixations if f.end * 1000 >= start_ms + k), first)
        cells = _eye_cells(reading, seen, k)
        if 90 <= k < 110:
            cells[:5] = [""] * 5
        samples.append([f"{(start_ms + k) / 1000:.3f}", *cells])
    return csv_text(GAZE, samples)


def metadata(reading: PhantomReading) -> dict[str, str]:
    """Return the reading's row of metadata_phase_<n>.csv by column, label certainties as ints."""
    image = reading.image
    subject = image.subject_id
    folder = f"physionet.org/files/mimic-cxr/2.0.0/files/p{subject[:2]}/p{subject}"
    path = f"{folder}/s{image.study_id}/{image.dicom_id}.dcm"
    discarded = str(reading.reject == "discarded")
    fixed = (reading.reading_id, image.split, discarded, path, image.dicom_id, subject)
    row = dict(zip(METADATA, (*fixed, str(image.width), str(image.height)), strict=True))
    labels = LABELS_PHASE_1 if reading.phase == 1 else LABELS
    row |= dict.fromkeys(labels, "0")
    row |= {
        "Support devices": "False",
        "Other": "azygos fissure" if reading.number % 9 == 4 else "",
    }
    if reading.phase == 1:
        row["Quality issue"] = str(reading.number % 4 == 0)
    if "two_labels" in reading.quirks:
        row["Groundglass opacity"] = str(_certainty(reading, 0))
    for k, finding in enumerate(reading.image.findings):
        drawn = KINDS[finding.kind].drawn_as_ellipse
        row[finding.label(reading.phase)] = str(_certainty(reading, k)) if drawn else "True"
    return row


def _certainty(reading: PhantomReading, number: int) -> int:
    return 3 + (reading.number + number) % 3


def _ellipse_rows(reading: PhantomReading, labels: Sequence[str]) -> list[list[object]]:
    rows: list[list[object]] = []
    for k, finding in enumerate(reading.image.findings):
        if not KINDS[finding.kind].drawn_as_ellipse:
            continue
        x0, y0, x1, y1 = finding.ellipse
        true = {finding.label(reading.phase)}
        if "two_labels" in reading.quirks and not rows:
            true.add("Groundglass opacity")
        if "swapped_ellipse" in reading.quirks and not rows:
            x0, x1 = x1, x0
        rows.append([x0, y0, x1, y1, _certainty(reading, k), *(name in true for name in labels)])
    return rows


def _chest_box(reading: PhantomReading) -> Box:
    x0, y0, x1, y1 = reading.image.chest.box("chest")
    if "chest_box_outside" in reading.quirks:
        return -reading.image.width // 50, y0, x1, reading.image.height + reading.image.height // 40
    return x0, y0, x1, y1


def _fixation_rows(reading: PhantomReading) -> list[list[object]]:
    return [
        [f"{f.begin:.3f}", f"{f.end:.3f}", *_eye_cells(reading, f, k)]
        for k, f in enumerate(reading.fixations)
    ]


def _eye_cells(reading: PhantomReading, f: Fixation, number: int) -> list[object]:
    """Return the cells from x_position on."""
    per_deg = reading.px_per_deg / f.zoom
    pupil = 0.9 + number * 37 % 200 / 1000
    window = (f"{0.8 + number % 5 / 100:.5f}", "0.49801")
    shown = _shown_rect(reading, f)
    scale, left, top = reflacx_screen(reading.image.width, reading.image.height)
    right, bottom = left + scale * reading.image.width, top + scale * reading.image.height
    screen = [round(v) for v in (left, top, right, bottom)]
    eye = [f.x, f.y, f"{pupil:.3f}", round(per_deg), round(per_deg * 1.01)]
    return [*eye, *window, *shown, *screen]


def _shown_rect(reading: PhantomReading, f: Fixation) -> Box:
    """Return the image px that were visible: a window around the gaze, kept inside the image."""
    width, height = reading.image.width, reading.image.height
    across, down = round(width / f.zoom), round(height / f.zoom)
    x0 = min(max(0, f.x - across // 2), width - across)
    y0 = min(max(0, f.y - down // 2), height - down)
    return x0, y0, x0 + across, y0 + down
