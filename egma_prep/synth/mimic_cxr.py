"""What MIMIC-CXR-JPG's tables and report files say of a phantom study (FORMATS 4)."""

from __future__ import annotations

from .findings import KINDS
from .readings import PhantomImage

CHEXPERT_LABELS = (
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion", "Pleural Other",
    "Pneumonia", "Pneumothorax", "Support Devices",
)  # fmt: skip
CHEXPERT = ("subject_id", "study_id", *CHEXPERT_LABELS)
SPLIT = ("dicom_id", "study_id", "subject_id", "split")
METADATA = (
    "dicom_id", "subject_id", "study_id", "PerformedProcedureStepDescription", "ViewPosition",
    "Rows", "Columns", "StudyDate", "StudyTime", "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning", "PatientOrientationCodeSequence_CodeMeaning",
)  # fmt: skip


def chexpert_labels(image: PhantomImage) -> dict[str, str]:
    """Return the study's 14 labels: `1.0` where planted, some `0.0` and `-1.0`, else blank."""
    labels = dict.fromkeys(CHEXPERT_LABELS, "")
    kinds = {finding.kind for finding in image.findings}
    if image.number % 2:
        labels |= {"Pneumothorax": "0.0", "Pleural Effusion": "0.0"}
    if "consolidation" in kinds:
        labels["Pneumonia"] = "-1.0"
    for kind in kinds:
        labels |= dict.fromkeys(KINDS[kind].chexpert, "1.0")
    if not kinds - {"device"}:
        labels["No Finding"] = "1.0"
    return labels


def metadata_row(image: PhantomImage) -> list[str]:
    """Return the image's row of the metadata table; dates lie in the years 2100 on."""
    view = image.view
    long_view = {"PA": "postero-anterior", "AP": "antero-posterior"}[view]
    n = image.number
    date = f"{2110 + n % 80}{1 + n % 12:02d}{1 + n % 28:02d}"
    time = f"{n * 7919 % 24}{n * 31 % 60:02d}{n * 17 % 60:02d}.{n * 13 % 1000:03d}"
    return [
        image.dicom_id, image.subject_id, image.study_id, f"CHEST ({view})", view,
        str(image.height), str(image.width), date, time, f"CHEST ({view})", long_view, "Erect",
    ]  # fmt: skip


def report(image: PhantomImage) -> str:
    """Return the study's report, worded otherwise than any dictation about it."""
    seen = sorted({f.label(3).lower() for f in image.findings})
    impression = f"Findings compatible with {', '.join(seen)}." if seen else "Unremarkable study."
    findings = "" if image.number % 5 == 4 else " FINDINGS:\n\n Single frontal view reviewed.\n \n"
    return (
        " PHANTOM - invented text, no patient.\n"
        "                                 FINAL REPORT\n"
        f" EXAMINATION:  CHEST ({image.view})\n \n INDICATION:  ___ year old phantom.\n \n"
        f"{findings} IMPRESSION:\n \n {impression}\n"
    )
