"""Lay a plan out as a MIMIC-EYE tree with the quirks of the published one (FORMATS 3)."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import cv2

from . import eye_gaze, mimic_cxr, reflacx
from .anatomy import Pixels
from .findings import draw_xray
from .readings import PhantomImage, PhantomReading

CXR_META = (*mimic_cxr.METADATA, "in_eye_gaze", "in_reflacx", "StudyDateTime", "stay_id")
REFLACX_METADATA = (
    *reflacx.METADATA,
    *reflacx.LABELS_PHASE_1,
    *(label for label in reflacx.LABELS if label not in reflacx.LABELS_PHASE_1),
)


class Table:
    """A table of the whole data set that each patient's folder gets its rows of.

    Lines begin with the row's number in the table they once came from, as pandas writes it.
    """

    def __init__(
        self, header: Sequence[str], *, newline: str = "\n", first: int, step: int
    ) -> None:
        self.header, self.newline = ["", *header], newline
        self._next, self._step = first, step
        self._lines: list[str] = []
        self._of_subject: dict[str, list[str]] = defaultdict(list)

    def add(self, subject_id: str | None, row: Iterable[str], index: int | None = None) -> None:
        """Append a row; with subject None it reaches no patient's folder."""
        text = io.StringIO()
        number = self._next if index is None else index
        csv.writer(text, lineterminator=self.newline).writerow([str(number), *row])
        self._next += self._step
        self._lines.append(text.getvalue())
        if subject_id is not None:
            self._of_subject[subject_id].append(text.getvalue())

    def write(self, path: Path, subject_id: str | None = None) -> None:
        """Write all rows, or one subject's."""
        lines = self._lines if subject_id is None else self._of_subject[subject_id]
        _write(path, ",".join(self.header) + self.newline + "".join(lines))


def write_mimic_eye(
    root: Path, plan: list[PhantomReading], progress: Callable[[int], object]
) -> None:
    """Write every file of a MIMIC-EYE tree but the truth.

    Parameters
    ----------
    root : Path
        Folder for the tree; made if it is missing.
    plan : list of PhantomReading
        What to write.
    progress : callable
        Called with 1 as each reading's files are done.
    """
    _write(root / "PHANTOM.txt", _NOTICE)
    tables = _fill_tables(plan)
    patients: dict[str, list[PhantomReading]] = defaultdict(list)
    for reading in plan:
        patients[reading.image.subject_id].append(reading)
    for subject, readings in patients.items():
        folder = root / f"patient_{subject}"
        _write_patient_tables(folder, subject, readings, tables)
        drawn = set()
        for reading in readings:
            if reading.image.dicom_id not in drawn:
                drawn.add(reading.image.dicom_id)
                _write_image(root, reading.image)
            (_write_reflacx if reading.phase else _write_eye_gaze)(folder, reading)
            progress(1)
        _litter(folder)
    _write_spreadsheets(root / "spreadsheets", tables)


_NOTICE = """PHANTOM: every image, word, gaze point, number and identifier in this tree is invented.
No patient and no radiologist stands behind any of it; do not mix it with real data.
"""


def _fill_tables(plan: list[PhantomReading]) -> dict[str, Table]:
    tables = {
        "cxr_meta": Table(CXR_META, first=57, step=3),
        "cxr_meta_with_stay_id_only": Table(CXR_META, first=57, step=3),
        "cxr_chexpert": Table(mimic_cxr.CHEXPERT, first=120, step=7),
        "cxr_negbio": Table(mimic_cxr.CHEXPERT, first=120, step=7),
        "cxr_split": Table(mimic_cxr.SPLIT, first=310, step=11, newline="\r\n"),
        "metadata": Table(REFLACX_METADATA, first=0, step=0, newline="\r\n"),
        "master_sheet": Table(eye_gaze.MASTER_SHEET, first=5, step=2, newline="\r\n"),
        "fixations": Table(eye_gaze.GAZEPOINT, first=40, step=1),
        "eye_gaze": Table(eye_gaze.GAZEPOINT, first=1000, step=1),
        "bounding_boxes": Table(eye_gaze.BOXES, first=34, step=1),
    }
    images = {reading.image.dicom_id: reading.image for reading in plan}
    phases: dict[str, set[int]] = defaultdict(set)
    for reading in plan:
        phases[reading.image.dicom_id].add(reading.phase)
    for image in images.values():
        _add_cxr_rows(tables, image, phases[image.dicom_id])
    _add_metadata(tables["metadata"], plan)
    for reading in plan:
        if not reading.phase:
            _add_eye_gaze_rows(tables, reading)
    return tables


def _add_cxr_rows(tables: dict[str, Table], image: PhantomImage, phases: set[int]) -> None:
    subject, n = image.subject_id, image.number
    row = mimic_cxr.metadata_row(image)
    date, clock = row[7], f"{float(row[8]):010.3f}"
    moment = f"{date[:4]}-{date[4:6]}-{date[6:]} {clock[:2]}:{clock[2:4]}:{clock[4:]}000"
    stay = f"{30_000_000 + n}.0" if n % 3 else ""
    row += [str(0 in phases), str(phases != {0}), moment, stay]
    tables["cxr_meta"].add(subject, row)
    if stay:
        tables["cxr_meta_with_stay_id_only"].add(subject, row, index=57 + 3 * n)
    labels = mimic_cxr.chexpert_labels(image)
    tables["cxr_chexpert"].add(subject, [subject, image.study_id, *labels.values()])
    negbio = labels | {"Edema": "-1.0" if n % 4 == 1 else ""}
    tables["cxr_negbio"].add(subject, [subject, image.study_id, *negbio.values()])
    tables["cxr_split"].add(subject, [image.dicom_id, image.study_id, subject, image.split])
    if n % 4 == 2:  # a study of the patient, and one of somebody else, that nobody gazed at
        _add_unseen_study(tables, image, subject, subject)
        _add_unseen_study(tables, image, None, str(91_000_000 + n))


def _add_unseen_study(
    tables: dict[str, Table], image: PhantomImage, owner: str | None, subject: str
) -> None:
    study, dicom = str(int(image.study_id) + 2_000_000), _other_dicom_id(image, subject)
    blank = [""] * len(mimic_cxr.CHEXPERT_LABELS)
    tables["cxr_chexpert"].add(owner, [subject, study, *blank])
    tables["cxr_negbio"].add(owner, [subject, study, *blank])
    tables["cxr_split"].add(owner, [dicom, study, subject, image.split])


def _other_dicom_id(image: PhantomImage, salt: str) -> str:
    digest = hashlib.sha256(f"{image.dicom_id} {salt}".encode()).hexdigest()
    return "-".join(digest[k : k + 8] for k in range(0, 40, 8))


def _add_metadata(table: Table, plan: list[PhantomReading]) -> None:
    """Add the three phase tables one after the other: each counts its rows from 0."""
    for phase in (1, 2, 3):
        rows = [reflacx.metadata(r) for r in plan if r.phase == phase]
        rows.sort(key=lambda row: row["image" if phase == 3 else "id"])
        for index, row in enumerate(rows):
            cells = [_after_concat(c, row.get(c, "")) for c in REFLACX_METADATA]
            table.add(row["subject_id"], cells, index)


def _after_concat(column: str, value: str) -> str:
    """Write certainties that only one kind of phase asks for as pandas does beside blanks."""
    both = set(reflacx.LABELS_PHASE_1) & set(reflacx.LABELS)
    asked_once = column not in reflacx.METADATA and column not in both
    return f"{value}.0" if asked_once and value.isdigit() else value


def _add_eye_gaze_rows(tables: dict[str, Table], reading: PhantomReading) -> None:
    image = reading.image
    tables["master_sheet"].add(image.subject_id, eye_gaze.master_row(image).values())
    for row in eye_gaze.fixation_rows(reading):
        tables["fixations"].add(image.subject_id, row)
    if reading.number % 80 == 1:
        for row in eye_gaze.calibration_rows(reading):
            tables["fixations"].add(None, row)
    for row in eye_gaze.gaze_rows(reading):
        tables["eye_gaze"].add(image.subject_id, row)
    for row in eye_gaze.box_rows(image):
        tables["bounding_boxes"].add(image.subject_id, row)


def _write_patient_tables(
    folder: Path, subject: str, readings: list[PhantomReading], tables: dict[str, Table]
) -> None:
    for name in ("cxr_meta", "cxr_chexpert", "cxr_negbio", "cxr_split"):
        tables[name].write(folder / "CXR-JPG" / f"{name}.csv", subject)
    if any(r.phase for r in readings):
        tables["metadata"].write(folder / "REFLACX" / "metadata.csv", subject)
    if any(not r.phase for r in readings):
        for name in ("master_sheet", "fixations", "eye_gaze", "bounding_boxes"):
            tables[name].write(folder / "EyeGaze" / f"{name}.csv", subject)


def _write_spreadsheets(folder: Path, tables: dict[str, Table]) -> None:
    for name in ("cxr_meta", "cxr_meta_with_stay_id_only"):
        tables[name].write(folder / f"{name}.csv")
    for name in ("cxr_chexpert", "cxr_negbio", "cxr_split"):
        tables[name].write(folder / "CXR-JPG" / f"{name}.csv")
    tables["metadata"].write(folder / "REFLACX" / "metadata.csv")
    tables["master_sheet"].write(folder / "EyeGaze" / "master_sheet_with_updated_stayId.csv")
    tables["bounding_boxes"].write(folder / "EyeGaze" / "bounding_boxes.csv")
    tables["fixations"].write(folder / "EyeGaze" / "fixations.csv")
    tables["fixations"].write(folder / "EyeGaze" / "eye_gaze.csv")  # as published: a misnomer


def _write_image(root: Path, image: PhantomImage) -> None:
    pixels = draw_xray(image.chest, image.findings)
    path = root / image.path
    _write(path, _jpeg(pixels))
    if image.number % 3 == 1:  # a lateral view that nobody gazed at and no table lists
        lateral = cv2.resize(pixels, (image.width // 3, image.height // 2))
        _write(path.with_name(_other_dicom_id(image, "lateral") + ".jpg"), _jpeg(lateral))
    reports = root / f"patient_{image.subject_id}" / "CXR-DICOM"
    _write(reports / f"s{image.study_id}.txt", mimic_cxr.report(image))


def _jpeg(pixels: Pixels) -> bytes:
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def _write_reflacx(folder: Path, reading: PhantomReading) -> None:
    main = folder / "REFLACX" / "main_data" / reading.reading_id
    for name, text in reflacx.main_files(reading).items():
        _write(main / name, text)
    gaze = folder / "REFLACX" / "gaze_data" / reading.reading_id
    gaze.mkdir(parents=True, exist_ok=True)
    if reading.reject != "discarded":
        _write(gaze / "gaze.csv", reflacx.gaze_csv(reading))


def _write_eye_gaze(folder: Path, reading: PhantomReading) -> None:
    transcripts = folder / "EyeGaze" / "audio_segmentation_transcripts" / reading.image.dicom_id
    _write(transcripts / "transcript.json", eye_gaze.transcript_json(reading))
    for name, content in eye_gaze.mask_pngs(reading.image).items():
        _write(transcripts / name, content)
    _write(transcripts / "audio.wav", b"PHANTOM, no sound")
    _write(transcripts / "audio.mp3", b"PHANTOM, no sound")


def _litter(folder: Path) -> None:
    """Leave what mirrors and desktops leave in folders."""
    folders = [folder]
    for place in ("REFLACX/main_data", "EyeGaze/audio_segmentation_transcripts"):
        if (folder / place).is_dir():
            folders += [folder / place, *sorted((folder / place).iterdir())]
    for path in folders:
        _write(path / "index.html", "<html>PHANTOM</html>\n")
    _write(folder / "CXR-JPG" / ".DS_Store", b"\0\0\0\1Bud1")


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
