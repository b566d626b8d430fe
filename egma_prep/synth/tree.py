"""Lay a plan out as the published trees, with their quirks (FORMATS 1 to 4)."""

import gzip
import itertools
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2

from . import sources
from .dicom import dicom_file, jpeg_file, stored_values
from .findings import draw_xray
from .readings import PhantomImage, PhantomReading, hex_id

# By table and subject, of subject "" all; each begins with its number in the table it came from.
_Lines = defaultdict[tuple[str, str], list[str]]
Progress = Callable[[int], object]
_NOTICE = """PHANTOM: every image, word, gaze point, number and identifier in this tree is invented.
No patient and no radiologist stands behind any of it; do not mix it with real data.
"""
_CRLF_TABLES = ("cxr_split", "metadata", "master_sheet")
_TABLES = {  # and their folders
    **dict.fromkeys(("cxr_meta", "cxr_chexpert", "cxr_negbio", "cxr_split"), "CXR-JPG"),
    "metadata": "REFLACX",
    **dict.fromkeys(("master_sheet", "fixations", "eye_gaze", "bounding_boxes"), "EyeGaze"),
}


def write_mimic_eye(root: Path, plan: list[PhantomReading], progress: Progress) -> None:
    """Write every file of a MIMIC-EYE tree but the truth; call `progress` with 1 a reading."""
    write_notices(root)
    lines = _fill_tables(plan)
    patients: dict[str, list[PhantomReading]] = defaultdict(list)
    for reading in plan:
        patients[reading.image.subject_id].append(reading)
    for subject, readings in patients.items():
        folder = root / f"patient_{subject}"
        for table, group in _TABLES.items():
            if lines[table, subject]:
                _write_table(folder / group / f"{table}.csv", table, lines[table, subject])
        for image in {reading.image.number: reading.image for reading in readings}.values():
            _write_image(root, image)
        for reading in readings:
            files = sources.reflacx_files if reading.phase else sources.eye_gaze_files
            for path, content in files(reading).items():
                _write(folder / path, content)
            if reading.phase:  # also of discarded readings
                samples = folder / f"REFLACX/gaze_data/{reading.reading_id}"
                samples.mkdir(parents=True, exist_ok=True)
            progress(1)
        _litter(folder)
    _write_spreadsheets(root / "spreadsheets", lines)


def write_native(
    root: Path, plan: list[PhantomReading], layout: str, dicom: bool, progress: Progress
) -> list[PhantomReading]:
    """Write a native tree of the readings that belong to it, and a MIMIC-CXR tree of their images.

    Returns
    -------
    list of PhantomReading
        Those written, their images where they now lie.
    """
    suffix = ".dcm" if dicom else ".jpg"
    kept = [_in_mimic_cxr(reading, suffix) for reading in plan if reading.dataset == layout]
    write_notices(root)
    for image in {reading.image.number: reading.image for reading in kept}.values():
        _write_image(root, image)
    for reading in kept:
        files = sources.reflacx_files if reading.phase else sources.eye_gaze_files
        for path, content in files(reading).items():
            _write(root / path.partition("/")[2], content)  # without MIMIC-EYE's folder
        if reading.phase:
            (root / "gaze_data" / reading.reading_id).mkdir(parents=True, exist_ok=True)
        progress(1)
    for folder in {root, *root.glob("main_data/*/"), *root.glob("audio*/*/")}:
        _write(folder / "index.html", "<html>PHANTOM</html>\n")
    tables = _reflacx_tables(kept) if layout == "reflacx" else _eye_gaze_tables(kept)
    for name, text in (tables | _cxr_tables(kept)).items():
        data = text.encode()
        _write(root / name, gzip.compress(data, mtime=0) if name.endswith(".gz") else data)
    return kept


def write_notices(root: Path) -> None:
    """Say in a tree that nothing in it is real, and keep it out of git."""
    _write(root / "PHANTOM.txt", _NOTICE)
    _write(root / ".gitignore", "*\n")


def _in_mimic_cxr(reading: PhantomReading, suffix: str) -> PhantomReading:
    place = Path("images", sources.dicom_path(reading.image)).with_suffix(suffix)
    return reading._replace(image=reading.image._replace(path=place.as_posix()))


def _reflacx_tables(plan: list[PhantomReading]) -> dict[str, str]:
    tables = {}
    for name, phase in ((f"metadata_phase_{phase}", phase) for phase in (1, 2, 3)):
        readings = sorted((r for r in plan if r.phase == phase), key=lambda r: r.reading_id)
        lines = [sources.metadata_line(reading, native=True) for reading in readings]
        tables[f"main_data/{name}.csv"] = sources.csv_text(sources.HEADERS[name], lines)
    return tables


def _eye_gaze_tables(plan: list[PhantomReading]) -> dict[str, str]:
    lines = _fill_tables(plan)
    return {
        f"{table}.csv": sources.csv_text(sources.HEADERS[table], _unnumbered(lines[table, ""]))
        for table in ("master_sheet", "fixations", "eye_gaze", "bounding_boxes")
    }


def _cxr_tables(plan: list[PhantomReading]) -> dict[str, str]:
    lines = _fill_tables(plan)
    meta = [",".join(line.split(",")[:12]) for line in _unnumbered(lines["cxr_meta", ""])]
    named = {"metadata": sources.csv_text(sources.HEADERS["native_cxr_meta"], meta, "\n")} | {
        table: sources.csv_text(
            sources.HEADERS[f"cxr_{table}"], _unnumbered(lines[f"cxr_{table}", ""]), "\n"
        )
        for table in ("split", "chexpert", "negbio")
    }
    return {f"images/mimic-cxr-2.0.0-{table}.csv.gz": text for table, text in named.items()}


def _unnumbered(lines: list[str]) -> list[str]:
    return [line.partition(",")[2] for line in lines]


def _fill_tables(plan: list[PhantomReading]) -> _Lines:
    lines = _Lines(list)
    phases: dict[str, set[int]] = defaultdict(set)
    for reading in plan:
        phases[reading.image.dicom_id].add(reading.phase)
    for image in {reading.image.dicom_id: reading.image for reading in plan}.values():
        _add_cxr_lines(lines, image, phases[image.dicom_id])
    numbers = {phase: itertools.count() for phase in (1, 2, 3)}  # each phase's table starts at 0
    for r in sorted(plan, key=lambda r: (r.phase, r.reading_id)):
        if r.phase:
            line, number = sources.metadata_line(r), next(numbers[r.phase])
            _add(lines, "metadata", r.image.subject_id, line, number)
        else:
            _add_eye_gaze_lines(lines, r)
    return lines


def _add(lines: _Lines, table: str, subject: str, line: str, number: int | None = None) -> None:
    whole = lines[table, ""]
    whole.append(f"{40 + 3 * len(whole) if number is None else number},{line}")
    if subject:
        lines[table, subject].append(whole[-1])


def _add_cxr_lines(lines: _Lines, image: PhantomImage, phases: set[int]) -> None:
    subject, labels = image.subject_id, sources.chexpert_labels(image)
    _add(lines, "cxr_meta", subject, sources.cxr_meta_line(image, phases))
    studies = [(image.dicom_id, image.study_id, subject, ",".join(labels))]
    if image.number % 4 == 2:  # a study of the patient, and of somebody else, that nobody gazed at
        study, blank = str(int(image.study_id) + 2_000_000), "," * (len(labels) - 1)
        others = (subject, str(91_000_000 + image.number))
        studies += [(hex_id(f"{image.dicom_id} {o}"), study, o, blank) for o in others]
    for dicom, study, owner, said in studies:
        _add(lines, "cxr_split", owner, f"{dicom},{study},{owner},{image.split}")
        _add(lines, "cxr_chexpert", owner, f"{owner},{study},{said}")
        _add(lines, "cxr_negbio", owner, f"{owner},{study},{said}")


def _add_eye_gaze_lines(lines: _Lines, reading: PhantomReading) -> None:
    rows, image = sources.eye_gaze_lines(reading), reading.image
    for table in rows:
        for row in rows[table]:
            _add(lines, table, image.subject_id, row)
    if reading.number % 80 == 1:  # the blank calibration slide: an id of 39 characters
        for table in ("fixations", "eye_gaze"):
            for row in rows[table][:3]:
                _add(lines, table, "", row.replace(image.dicom_id, image.dicom_id[:-5]))


def _write_spreadsheets(folder: Path, lines: _Lines) -> None:
    meta = lines["cxr_meta", ""]
    stays = [line for line in meta if not line.endswith(",")]
    _write_table(folder / "cxr_meta.csv", "cxr_meta", meta)
    _write_table(folder / "cxr_meta_with_stay_id_only.csv", "cxr_meta", stays)
    sheets = {f"{group}/{table}": table for table, group in _TABLES.items() if table != "cxr_meta"}
    sheets["EyeGaze/master_sheet_with_updated_stayId"] = sheets.pop("EyeGaze/master_sheet")
    sheets["EyeGaze/eye_gaze"] = "fixations"  # as published: a misnomer
    for name, table in sheets.items():
        _write_table(folder / f"{name}.csv", table, lines[table, ""])


def _write_table(path: Path, table: str, lines: list[str]) -> None:
    newline = "\r\n" if table in _CRLF_TABLES else "\n"
    _write(path, sources.csv_text("," + sources.HEADERS[table], lines, newline))


def _write_image(root: Path, image: PhantomImage) -> None:
    pixels = draw_xray(image.chest, image.findings)
    path, stored = root / image.path, stored_values(image, pixels)
    _write(path, (dicom_file if path.suffix == ".dcm" else jpeg_file)(image, stored))
    if image.number % 3 == 1:  # a lateral view that nobody gazed at and no table lists
        lateral = cv2.resize(stored, (image.chest.width // 3, image.chest.height // 2))
        name = hex_id(f"{image.dicom_id} lateral") + ".jpg"
        _write(path.with_name(name), jpeg_file(image, lateral))
    native = path.parent.with_suffix(".txt")
    report = root / f"patient_{image.subject_id}/CXR-DICOM/{native.name}"
    _write(report if image.path.startswith("patient_") else native, sources.report(image))


def _litter(folder: Path) -> None:  # as mirrors and desktops leave it
    readings = (*folder.glob("REFLACX/main_data/*"), *folder.glob("EyeGaze/audio*/*"))
    for path in {folder, *readings, *(reading.parent for reading in readings)}:
        _write(path / "index.html", "<html>PHANTOM</html>\n")
    _write(folder / "CXR-JPG" / ".DS_Store", b"\0\0\0\1Bud1")


def _write(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
