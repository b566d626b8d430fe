"""MIMIC-EYE: REFLACX and EYE GAZE merged by patient, with JPEG images (FORMATS, section 3)."""

import contextlib
from collections.abc import Callable, Iterable

from egma_prep.errors import BadInputError, Reject
from egma_prep.options import SourceOptions
from egma_prep.sources import eye_gaze, reflacx
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tables import REQUIRED, ImageTables
from egma_prep.sources.cxr_tree import IMAGE_SUFFIXES, cxr_tree, image_size
from egma_prep.sources.files import NOT_UNPACKED, InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.planning import MetadataTable, plan_tables
from egma_prep.sources.reading import ImageFacts, PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan

_LAYOUT = manifest("mimic-eye")["layout"]
_PREFIX = _LAYOUT["patient"].removesuffix("*")
_EYE_GAZE = manifest("eye-gaze")
_TRANSCRIPTS = _EYE_GAZE["transcripts"]


class MimicEye:
    """The patient-level MIMIC-EYE tree."""

    name = "mimic_eye"
    looks_like = "patient_<subject_id> folders"
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for a patient folder."""
        return bool(_patients(files))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read each patient's two metadata tables."""
        for name in files.packed_in(""):
            if name.lower().startswith(_PREFIX):
                files.remark(name, NOT_UNPACKED)
        for patient in files.ahead(_patients(files), _plan_patient):
            yield _plan_patient(files, patient)

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading of either dataset."""
        patient = f"{_PREFIX}{planned.subject_id}"
        if planned.dataset != reflacx.DATASET:
            return _load_eye_gaze(planned, files, patient, options)
        folder = f"{_reflacx_home(files, patient)}/{planned.reading_id}"
        return reflacx.raw_reading(
            planned,
            lambda file, names: files.table(f"{folder}/{file}", names),
            _image_facts(files, patient, planned),
            path := _image_path(files, planned),
            lambda: image_size(files, path),
            reflacx.samples_of(planned, files, f"{patient}/{_LAYOUT['reflacx']}/", options),
            options,
        )


SOURCE = MimicEye()


def _patients(files: InputFiles) -> list[str]:
    return [name for name in files.folders(".") if name.lower().startswith(_PREFIX)]


def _reflacx_home(files: InputFiles, patient: str) -> str:
    homes = [f"{patient}/{_LAYOUT['reflacx']}/{name}" for name in _LAYOUT["reflacx_readings"]]
    there = (home for home in homes if files.has(home) or files.has(files.spelled(home)))
    return next(there, homes[0])


def _reflacx_folders(files: InputFiles, patient: str) -> list[str]:
    ours = files.folders(_reflacx_home(files, patient))
    return [name for name in ours if name not in ("gaze_data", "main_data")]


def _transcript_folders(files: InputFiles, patient: str) -> list[str]:
    return files.folders(f"{patient}/{_LAYOUT['eye_gaze']}/{_TRANSCRIPTS['folder']}")


def _plan_patient(files: InputFiles, patient: str) -> SubjectPlan:
    files.forget_tables()
    files.fingerprints.clear()
    subject = SubjectPlan(patient[len(_PREFIX) :])
    try:
        files.check_readable(patient)
    except BadInputError as error:
        subject.add(Reject.of(error, "", "", "plan"))
        return subject
    metadata = f"{patient}/{_LAYOUT['reflacx']}/{_LAYOUT['reflacx_metadata']}"
    _plan_table(subject, files, metadata, reflacx.METADATA, _reflacx_folders)
    sheet = f"{patient}/{_LAYOUT['eye_gaze']}/{_EYE_GAZE['tables']['master_sheet']['file']}"
    _plan_table(subject, files, sheet, eye_gaze.MASTER_SHEET, _transcript_folders)
    for table in _image_tables(patient).values():  # what is remarked by a worker nobody is told
        if not files.has(files.spelled(table)):
            files.remark_copy(table)
    subject.inputs = dict(files.fingerprints)
    return subject


def _plan_table(
    subject: SubjectPlan,
    files: InputFiles,
    path: str,
    metadata: MetadataTable,
    list_folders: Callable[[InputFiles, str], list[str]],
) -> None:
    try:
        folders = list_folders(files, path.partition("/")[0])
    except BadInputError as unreadable:  # what lies there nobody can tell
        subject.add(Reject.of(unreadable, metadata.dataset, "", "plan"))
        return
    if not folders and not files.has(path):
        return
    for plan in plan_tables(files, [path], metadata, folders):
        if isinstance(plan, PlannedReading) and plan.subject_id != subject.subject_id:
            what = f"{path} has a row of subject {plan.subject_id}"
            error = BadInputError("other_subject", path, what)
            plan = Reject.of(error, *plan.key, "plan")
        subject.add(plan)


def _image_tables(patient: str) -> dict[str, str]:
    tables = manifest("mimic-cxr")["tables"]
    return {kind: f"{patient}/{_LAYOUT['cxr']}/{table['file']}" for kind, table in tables.items()}


def _image_facts(files: InputFiles, patient: str, planned: PlannedReading) -> ImageFacts:
    tables = {}
    for kind, path in _image_tables(patient).items():
        try:
            tables[kind] = files.table(path, REQUIRED[kind])
        except BadInputError:  # an extra; what is missing then is counted
            files.remark_copy(path)
    return ImageTables(tables).facts(planned.dicom_id, planned.study_id)


def _load_eye_gaze(
    planned: PlannedReading, files: InputFiles, patient: str, options: SourceOptions
) -> RawReading:
    root = f"{patient}/{_LAYOUT['eye_gaze']}"

    def table(kind: str) -> Table:
        path = f"{root}/{_EYE_GAZE['tables'][kind]['file']}"
        return files.table(path, eye_gaze.REQUIRED[kind])

    tables = {"fixations": table("fixations")}
    with contextlib.suppress(BadInputError):  # an extra; that it is missing is counted
        tables["boxes"] = table("boxes")
    samples = eye_gaze.samples_of(planned, files, f"{root}/", options)
    transcript = f"{root}/{_TRANSCRIPTS['folder']}/{planned.dicom_id}/{_TRANSCRIPTS['file']}"
    return eye_gaze.raw_reading(
        planned,
        tables,
        (files.read(transcript), transcript),
        _image_facts(files, patient, planned),
        path := _image_path(files, planned),
        lambda: image_size(files, path),
        options,
        samples,
    )


def _image_path(files: InputFiles, planned: PlannedReading) -> str:
    folder = f"{_PREFIX}{planned.subject_id}/{_LAYOUT['cxr']}/s{planned.study_id}"
    own = [f"{folder}/{planned.dicom_id}{suffix}" for suffix in IMAGE_SUFFIXES]
    if files.images is not None:
        elsewhere = cxr_tree(files).image(files, planned)
        if files.has(elsewhere):
            return elsewhere
    return files.first(own)
