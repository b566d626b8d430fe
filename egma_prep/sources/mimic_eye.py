"""MIMIC-EYE: REFLACX and EYE GAZE merged by patient, with JPEG images (FORMATS, section 3)."""

from collections.abc import Iterable

from egma_prep.cxr_tree import cxr_tree
from egma_prep.errors import BadInputError, Reject
from egma_prep.input_files import InputFiles
from egma_prep.manifests import manifest
from egma_prep.options import SourceOptions
from egma_prep.parse import eye_gaze, reflacx
from egma_prep.parse.mimic_cxr import ImageTables, needed_columns
from egma_prep.planning import RowParser, plan_tables
from egma_prep.readings import ImageFacts, PlannedReading, RawReading
from egma_prep.sources import SubjectPlan

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
        for patient in files.ahead(_patients(files), _plan_patient):
            yield _plan_patient(files, patient)

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading of either dataset."""
        patient = f"{_PREFIX}{planned.subject_id}"
        if planned.dataset == reflacx.DATASET:
            return _load_reflacx(planned, files, patient)
        return _load_eye_gaze(planned, files, patient, options)


SOURCE = MimicEye()


def _patients(files: InputFiles) -> list[str]:
    return [name for name in files.folders(".") if name.startswith(_PREFIX)]


def _root(patient: str, part: str) -> str:
    return f"{patient}/{_LAYOUT[part]}"


def _reflacx_home(files: InputFiles, patient: str) -> str:
    homes = [f"{_root(patient, 'reflacx')}/{name}" for name in _LAYOUT["reflacx_readings"]]
    return next((home for home in homes if files.has(home)), homes[0])


def _reflacx_folders(files: InputFiles, patient: str) -> list[str]:
    ours = files.folders(_reflacx_home(files, patient))
    return [name for name in ours if name not in ("gaze_data", "main_data")]


def _plan_patient(files: InputFiles, patient: str) -> SubjectPlan:
    files.forget_tables()
    files.fingerprints.clear()
    subject = SubjectPlan(patient.removeprefix(_PREFIX))
    metadata = f"{_root(patient, 'reflacx')}/{_LAYOUT['reflacx_metadata']}"
    _plan_table(subject, files, metadata, reflacx, _reflacx_folders(files, patient))
    sheet = f"{_root(patient, 'eye_gaze')}/{_EYE_GAZE['tables']['master_sheet']['file']}"
    transcripts = files.folders(f"{_root(patient, 'eye_gaze')}/{_TRANSCRIPTS['folder']}")
    _plan_table(subject, files, sheet, eye_gaze, transcripts)
    subject.inputs = dict(files.fingerprints)
    return subject


def _plan_table(
    subject: SubjectPlan, files: InputFiles, path: str, parser: RowParser, folders: list[str]
) -> None:
    if not folders and not files.has(path):
        return
    for plan in plan_tables(files, [path], parser, folders):
        if isinstance(plan, PlannedReading) and plan.subject_id != subject.subject_id:
            what = f"{path} has a row of subject {plan.subject_id}"
            error = BadInputError("other_subject", path, what)
            plan = Reject.of(error, *plan.key, "plan")
        subject.add(plan)


def _image_facts(files: InputFiles, patient: str, image: str, study: str) -> ImageFacts:
    return ImageTables(
        {
            kind: files.table(f"{_root(patient, 'cxr')}/{table['file']}", needed_columns(kind))
            for kind, table in manifest("mimic-cxr")["tables"].items()
        }
    ).facts(image, study)


def _load_reflacx(planned: PlannedReading, files: InputFiles, patient: str) -> RawReading:
    image, study = reflacx.image_and_study(planned.row, planned.metadata_path)
    folder = f"{_reflacx_home(files, patient)}/{planned.reading_id}"
    return reflacx.raw_reading(
        planned,
        lambda file, names: files.table(f"{folder}/{file}", names),
        _image_facts(files, patient, image, study),
        _image_path(files, planned.subject_id, study, image),
    )


def _load_eye_gaze(
    planned: PlannedReading, files: InputFiles, patient: str, options: SourceOptions
) -> RawReading:
    root = _root(patient, "eye_gaze")
    image, study = eye_gaze.image_and_study(planned.row, planned.metadata_path)
    facts = _image_facts(files, patient, image, study)
    if facts.size is None:
        path = f"{_root(patient, 'cxr')}/{manifest('mimic-cxr')['tables']['metadata']['file']}"
        raise BadInputError("no_metadata_row", path, f"{path} has no row for {image}")
    tables = {
        kind: files.table(
            f"{root}/{_EYE_GAZE['tables'][kind]['file']}", eye_gaze.columns(kind).values()
        )
        for kind in ("fixations", "boxes")
    }
    transcript = f"{root}/{_TRANSCRIPTS['folder']}/{image}/{_TRANSCRIPTS['file']}"
    return eye_gaze.raw_reading(
        planned,
        tables,
        (files.read(transcript), transcript),
        facts,
        facts.size,
        _image_path(files, planned.subject_id, study, image),
        options,
    )


def _image_path(files: InputFiles, subject_id: str, study_id: str, image: str) -> str:
    own = f"{_PREFIX}{subject_id}/{_LAYOUT['cxr']}/s{study_id}/{image}.jpg"
    if files.images is None:
        return own
    elsewhere = cxr_tree(files).image(files, subject_id, study_id, image)
    return elsewhere if files.has(elsewhere) or not files.has(own) else own
