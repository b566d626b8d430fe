"""What the sources' files say of a reading or an image, as lines of text (FORMATS 1, 2 and 4)."""

import json
from collections.abc import Iterable

import cv2
import numpy as np

from .anatomy import REGIONS
from .dictation import join_words
from .gaze import Fixation, eye_gaze_pads, reflacx_screen, screen_fraction
from .readings import PhantomImage, PhantomReading

_HEADERS = """\
phase_1: Airway wall thickening,Atelectasis,Consolidation,Emphysema,Enlarged cardiac silhouette,\
Fibrosis,Fracture,Groundglass opacity,Mass,Nodule,Other,Pleural effusion,Pleural thickening,\
Pneumothorax,Pulmonary edema,Quality issue,Support devices,Wide mediastinum
later_phases: Abnormal mediastinal contour,Acute fracture,Atelectasis,Consolidation,\
Enlarged cardiac silhouette,Enlarged hilum,Groundglass opacity,Hiatal hernia,\
High lung volume / emphysema,Interstitial lung disease,Lung nodule or mass,Other,\
Pleural abnormality,Pneumothorax,Pulmonary edema,Support devices
eye: x_position,y_position,pupil_area_normalized,angular_resolution_x_pixels_per_degree,\
angular_resolution_y_pixels_per_degree,window_width,window_level,xmin_shown_from_image,\
ymin_shown_from_image,xmax_shown_from_image,ymax_shown_from_image,xmin_in_screen_coordinates,\
ymin_in_screen_coordinates,xmax_in_screen_coordinates,ymax_in_screen_coordinates
cxr_chexpert: subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,\
Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,\
Pleural Other,Pneumonia,Pneumothorax,Support Devices
cxr_split: dicom_id,study_id,subject_id,split
cxr_meta: dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,\
StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,\
PatientOrientationCodeSequence_CodeMeaning,in_eye_gaze,in_reflacx,StudyDateTime,stay_id
metadata: id,split,eye_tracking_data_discarded,image,dicom_id,subject_id,image_size_x,image_size_y
fixations: SESSION_ID,MEDIA_ID,DICOM_ID,CNT,Time (in secs),TIMETICK(f=10000000),FPOGX,FPOGY,FPOGS,\
FPOGD,FPOGID,FPOGV,BPOGX,BPOGY,BPOGV,LPCX,LPCY,LPD,LPS,LPV,RPCX,RPCY,RPD,RPS,RPV,BKID,BKDUR,\
BKPMIN,LPMM,LPMMV,RPMM,RPMMV,SACCADE_MAG,SACCADE_DIR,VID_FRAME,X_ORIGINAL,Y_ORIGINAL
bounding_boxes: dicom_id,bbox_name,x1,x2,y1,y2
master_sheet: dicom_id,path,study_id,patient_id,stay_id,gender,anchor_age,image_top_pad,\
image_bottom_pad,image_left_pad,image_right_pad,dx1,dx1_icd,dx2,dx2_icd,dx3,dx3_icd,dx4,dx4_icd,\
dx5,dx5_icd,dx6,dx6_icd,dx7,dx7_icd,dx8,dx8_icd,dx9,dx9_icd,normal_reports,Normal,CHF,pneumonia,\
consolidation,enlarged_cardiac_silhouette,linear__patchy_atelectasis,lobar__segmental_collapse,\
not_otherwise_specified_opacity___pleural__parenchymal_opacity__,pleural_effusion_or_thickening,\
pulmonary_edema__hazy_opacity,normal_anatomically,elevated_hemidiaphragm,hyperaeration,\
vascular_redistribution,atelectasis__chx,cardiomegaly__chx,consolidation__chx,edema__chx,\
enlarged_cardiomediastinum__chx,fracture__chx,lung_lesion__chx,lung_opacity__chx,\
no_finding__chx,pleural_effusion__chx,pleural_other__chx,pneumonia__chx,pneumothorax__chx,\
support_devices__chx,cxr_exam_indication
"""
HEADERS = dict(line.split(": ") for line in _HEADERS.splitlines())
_ASKED = f"{HEADERS['phase_1']},{HEADERS['later_phases']}".split(",")
_ALL_LABELS = list(dict.fromkeys(_ASKED))
_READING_FACTS = HEADERS["metadata"]
HEADERS["metadata"] += "," + ",".join(_ALL_LABELS)
HEADERS |= {f"metadata_phase_{phase}": f"{_READING_FACTS},{labels}" for phase, labels in (
    (1, HEADERS["phase_1"]), (2, HEADERS["later_phases"]), (3, HEADERS["later_phases"]))
}  # fmt: skip
HEADERS["native_cxr_meta"] = ",".join(HEADERS["cxr_meta"].split(",")[:12])
HEADERS |= {"cxr_negbio": HEADERS["cxr_chexpert"], "eye_gaze": HEADERS["fixations"]}
_MASKS = {"mediastanum": "upper mediastinum", "aortic_knob": "trachea"} | {
    f"{side}_lung": f"{side} lung" for side in ("left", "right")
}


def csv_text(header: str, lines: Iterable[str], newline: str = "\r\n") -> str:
    """Return the text of a CSV file."""
    return "".join(line + newline for line in (header, *lines))


def reflacx_files(reading: PhantomReading) -> dict[str, str | bytes]:
    """Return a REFLACX reading's files by path; a discarded one has two."""
    folder, image = f"REFLACX/main_data/{reading.reading_id}", reading.image
    x0, y0, x1, y1 = image.chest.box("chest")
    if "chest_box_outside" in reading.quirks:
        x0, y1 = -9, image.chest.height + 9
    header = f"xmin,ymin,xmax,ymax,certainty,{','.join(_labels(reading))}"
    files: dict[str, str | bytes] = {
        f"{folder}/anomaly_location_ellipses.csv": csv_text(header, _ellipse_lines(reading)),
        f"{folder}/chest_bounding_box.csv": f"xmin,ymin,xmax,ymax\r\n{x0},{y0},{x1},{y1}\r\n",
    }
    if reading.reject == "discarded":
        return files
    words = [t.text.replace(",", '","') + f",{t.begin:.2f},{t.end:.2f}" for t in reading.tokens]
    word_header = "word,timestamp_start_word,timestamp_end_word"
    looks = [f"{f.begin:.3f},{f.end:.3f},{','.join(_eye(reading, f))}" for f in reading.fixations]
    look_header = f"timestamp_start_fixation,timestamp_end_fixation,{HEADERS['eye']}"
    start_s, cells = reading.fixations[0].begin, _eye(reading, reading.fixations[0])
    eye = [",".join(cells)] * 90 + [",,,,," + ",".join(cells[5:])] * 20  # at 1000 Hz, then a blink
    samples = [f"{start_s + k / 1000:.3f},{now}" for k, now in enumerate(eye)]
    sample_header = f"timestamp_sample,{HEADERS['eye']}"
    return files | {
        f"{folder}/fixations.csv": csv_text(look_header, looks),
        f"{folder}/timestamps_transcription.csv": csv_text(word_header, words),
        f"{folder}/transcription.txt": join_words([t.text for t in reading.tokens]),
        f"{folder.replace('main', 'gaze')}/gaze.csv": csv_text(sample_header, samples),
    }


def metadata_line(reading: PhantomReading, native: bool = False) -> str:
    """Return the reading's line of its phase's table, or of all phases' with blanks for others."""
    image = reading.image
    said = dict.fromkeys(_labels(reading), "0") | {"Support devices": "False"}
    said["Other"] = "azygos fissure" if reading.number % 9 == 4 else ""
    said |= {"Quality issue": "False"} if reading.phase == 1 else {}
    if "two_labels" in reading.quirks:
        said["Groundglass opacity"] = str(_certainty(reading, 0))
    for k, finding in enumerate(image.findings):
        drawn = finding.kind.drawn_as_ellipse
        said[finding.label(reading.phase)] = str(_certainty(reading, k)) if drawn else "True"
    for label, value in said.items():
        # Whole numbers beside blanks, as pandas writes them.
        if not native and value.isdigit() and _ASKED.count(label) == 1:
            said[label] += ".0"
    path = f"physionet.org/files/mimic-cxr/2.0.0/{dicom_path(image)}"
    facts = [reading.reading_id, image.split, str(reading.reject == "discarded"), path]
    facts += [image.dicom_id, image.subject_id, str(image.chest.width), str(image.chest.height)]
    labels = _labels(reading) if native else _ALL_LABELS
    return ",".join([*facts, *(said.get(label, "") for label in labels)])


def _labels(reading: PhantomReading) -> list[str]:
    return HEADERS["phase_1" if reading.phase == 1 else "later_phases"].split(",")


def dicom_path(image: PhantomImage) -> str:
    """Return an image's place in MIMIC-CXR."""
    subject = image.subject_id
    return f"files/p{subject[:2]}/p{subject}/s{image.study_id}/{image.dicom_id}.dcm"


def _ellipse_lines(reading: PhantomReading) -> list[str]:
    lines: list[str] = []
    for k, finding in enumerate(reading.image.findings):
        if not finding.kind.drawn_as_ellipse:
            continue
        x0, y0, x1, y1 = finding.ellipse
        true = {finding.label(reading.phase)}
        if "two_labels" in reading.quirks and not lines:
            true.add("Groundglass opacity")
        if "swapped_ellipse" in reading.quirks and not lines:
            x0, x1 = x1, x0
        flags = ",".join(str(label in true) for label in _labels(reading))
        lines.append(f"{x0},{y0},{x1},{y1},{_certainty(reading, k)},{flags}")
    return lines


def _certainty(reading: PhantomReading, k: int) -> int:
    return 3 + (reading.number + k) % 3


def _eye(reading: PhantomReading, f: Fixation) -> list[str]:
    """Return the cells from x_position on; what is shown while zoomed surrounds the gaze."""
    width, height = reading.image.chest.width, reading.image.chest.height
    across, down = round(width / f.zoom), round(height / f.zoom)
    x0 = min(max(0, f.x - across // 2), width - across)
    y0 = min(max(0, f.y - down // 2), height - down)
    scale, left, top = reflacx_screen(width, height)
    screen = (left, top, left + scale * width, top + scale * height)
    eye = (f.x, f.y, 0.984, *[round(reading.px_per_deg / f.zoom)] * 2, "0.85012", "0.49801")
    return [str(cell) for cell in (*eye, x0, y0, x0 + across, y0 + down, *map(round, screen))]


def eye_gaze_files(reading: PhantomReading) -> dict[str, str | bytes]:
    """Return an EYE GAZE reading's files by path; masks are boxes at image size, 255 inside."""
    folder = f"EyeGaze/audio_segmentation_transcripts/{reading.image.dicom_id}"
    full_text = " ".join(s.text for s in reading.sentences).rstrip(".") + ". "
    phrases = [] if reading.reject else reading.spoken
    timed = [{"begin_time": p.begin, "end_time": p.end, "phrase": p.text} for p in phrases]
    text = json.dumps({"full_text": full_text, "time_stamped_text": timed}, indent=2) + "\n"
    files: dict[str, str | bytes] = {f"{folder}/transcript.json": text}
    for name, region in _MASKS.items():
        x0, y0, x1, y1 = reading.image.chest.box(region)
        mask = np.zeros((reading.image.chest.height, reading.image.chest.width), np.uint8)
        mask[y0:y1, x0:x1] = 255
        files[f"{folder}/{name}.png"] = cv2.imencode(".png", mask)[1].tobytes()
    return files | {f"{folder}/audio.{kind}": "PHANTOM, no sound" for kind in ("wav", "mp3")}


def eye_gaze_lines(reading: PhantomReading) -> dict[str, list[str]]:
    """Return an EYE GAZE reading's lines by table: of fixations their ends, then 60 Hz samples."""
    ends, times = [f.end for f in reading.fixations], [k / 60 for k in range(100)]
    image, numbers = reading.image, np.searchsorted(ends, times).tolist()
    names = list(REGIONS)[: 5 if image.number % 6 == 5 else 17]
    boxes = [(name, *image.chest.box(name)) for name in names]
    return {
        "master_sheet": [_master_line(image)],
        "fixations": [_gazepoint_line(reading, k, end) for k, end in enumerate(ends)],
        "eye_gaze": [_gazepoint_line(reading, *at) for at in zip(numbers, times, strict=True)],
        "bounding_boxes": [
            f"{image.dicom_id},{n},{x0}.0,{x1}.0,{y0}.0,{y1}.0" for n, x0, y0, x1, y1 in boxes
        ],
    }


def _master_line(image: PhantomImage) -> str:
    """Return the image's line of master_sheet.csv, whose last cell holds all that needs quotes."""
    kinds = {finding.kind.name for finding in image.findings}
    normal, heart = not kinds, "cardiomegaly" in kinds
    flags = [normal, normal, heart, not (normal or heart)]
    stay = ("", "30000001", "30000001.0", '"[30000001, 30000002]"')[image.number % 4]
    pads = eye_gaze_pads(image.chest.width, image.chest.height)
    cells = [image.dicom_id, dicom_path(image), image.study_id, image.subject_id, stay, "F"]
    cells += ["60 - 70", *map(str, pads), "Phantom condition", "Z999", *[""] * 16]
    cells += [*(str(int(flag)) for flag in flags), *"0" * 11, *chexpert_labels(image)]
    said = f'"phantom number {image.number}, with ""cough""\nand ___, evaluate for pneumonia"'
    return ",".join([*cells, said])


def _gazepoint_line(reading: PhantomReading, number: int, time_s: float) -> str:
    f, image = reading.fixations[number], reading.image
    x, y = screen_fraction(image.chest.width, image.chest.height, f.x, f.y)
    media, point, ok = reading.number // 4 % 30, f"{x:.5f},{y:.5f}", int(f.valid)
    clock = f"{int(time_s * 60)},{time_s:.5f},{int(time_s * 1e7)}.0"
    # Fixation ids need not start at 1.
    fixation = f"{f.begin:.5f},{max(0.0, time_s - f.begin):.5f},{number + 2 + reading.number % 4}"
    pupil = f"0.41200,0.52100,18.50000,1.02000,{ok}"
    return (
        f"1,{media},{image.dicom_id},{clock},{point},{fixation},{ok},{point},{ok},{pupil},{pupil},"
        f"0,0.0,12.0,3.12,{ok},3.2,{ok},0.0,0.0,0.0,{f.x},{f.y}"
    )


def chexpert_labels(image: PhantomImage) -> list[str]:
    """Return the study's 14 labels: `1.0` where planted, some `0.0` and `-1.0`, else blank."""
    planted = {finding.kind.labels[2] for finding in image.findings}
    labels = {"Pleural Effusion": "0.0"} | dict.fromkeys(planted, "1.0")
    labels["Pneumonia"] = "-1.0" if "Consolidation" in planted else ""
    labels["No Finding"] = "" if planted - {"Support Devices"} else "1.0"
    return [labels.get(name, "") for name in HEADERS["cxr_chexpert"].split(",")[2:]]


def cxr_meta_line(image: PhantomImage, phases: set[int]) -> str:
    """Return the image's line of cxr_meta.csv; dates lie in the years 2100 on."""
    view, year = image.view or "", 2110 + image.number % 80
    long_view = {"PA": "postero-anterior", "AP": "antero-posterior"}[view]
    stay = f"{30_000_000 + image.number}.0" if image.number % 3 else ""
    return (
        f"{image.dicom_id},{image.subject_id},{image.study_id},CHEST ({view}),{view},"
        f"{image.chest.height},{image.chest.width},{year}0315,93015.25,CHEST ({view}),{long_view},"
        f"Erect,{0 in phases},{phases != {0}},{year}-03-15 09:30:15.250000,{stay}"
    )


def report(image: PhantomImage) -> str:
    """Return the study's report, worded otherwise than any dictation about it."""
    seen = sorted({f.label(3).lower() for f in image.findings})
    impression = f"Findings compatible with {', '.join(seen)}." if seen else "Unremarkable study."
    return (
        " PHANTOM - INVENTED TEXT, NO PATIENT.\n                                 FINAL REPORT\n"
        f" EXAMINATION:  CHEST ({image.view})\n \n INDICATION:  ___ year old phantom.\n \n"
        f" FINDINGS:\n\n Single frontal view reviewed.\n \n IMPRESSION:\n \n {impression}\n"
    )
