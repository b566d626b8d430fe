"""MIMIC-EYE: REFLACX and EYE GAZE merged by patient, with JPEG images (FORMATS, section 3)."""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from egma_prep.errors import BadInputError, Reject
from egma_prep.input_files import InputFiles
from egma_prep.manifests import manifest
from egma_prep.options import SourceOptions
from egma_prep.parse import eye_gaze, mimic_cxr, reflacx
from egma_prep.parse.csv_file import Table
from egma_prep.parse.values import dicom_id, flag, pixels, safe_id
from egma_prep.readings import PlannedReading, RawReading
from egma_prep.sources import SubjectPlan

_LAYOUT = manifest("mimic-eye")["layout"]
_PREFIX = _LAYOUT["patient"].removesuffix("*")
_REFLACX, _EYE_GAZE = "reflacx", "eye_gaze"


class MimicEye:
    """The patient-level MIMIC-EYE tree."""

    name = "mimic_eye"
    looks_like = "patient_<subject_id> folders"

    def recognises(self, files: InputFiles) -> bool:
        """Look for a patient folder."""
        return bool(_patients(files))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read each patient's two metadata tables."""
        for patient in _patients(files):
            files.forget_tables()
            files.fingerprints.clear()
            subject = SubjectPlan(patient.removeprefix(_PREFIX))
            metadata = f"{_root(patient, 'reflacx')}/{_LAYOUT['reflacx_metadata']}"
            _plan_table(subject, files, metadata, _REFLACX, _reflacx_folders(files, patient))
            sheet = f"{_root(patient, 'eye_gaze')}/{_eye_gaze_file('master_sheet')}"
            transcripts = files.folders(f"{_root(patient, 'eye_gaze')}/{_transcripts()}")
            _plan_table(subject, files, sheet, _EYE_GAZE, transcripts)
            subject.inputs = dict(files.fingerprints)
            yield subject

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading of either dataset."""
        patient = f"{_PREFIX}{planned.subject_id}"
        if planned.dataset == _REFLACX:
            return _load_reflacx(planned, files, patient)
        return _load_eye_gaze(planned, files, patient, options)


SOURCE = MimicEye()


def _patients(files: InputFiles) -> list[str]:
    return [name for name in files.folders(".") if name.startswith(_PREFIX)]


def _root(patient: str, part: str) -> str:
    return f"{patient}/{_LAYOUT[part]}"


def _transcripts() -> str:
    return manifest("eye-gaze")["transcripts"]["folder"]


def _eye_gaze_file(table: str) -> str:
    return manifest("eye-gaze")["tables"][table]["file"]


def _reflacx_home(files: InputFiles, patient: str) -> str:
    homes = [f"{_root(patient, 'reflacx')}/{name}" for name in _LAYOUT["reflacx_readings"]]
    return next((home for home in homes if files.has(home)), homes[0])


def _reflacx_folders(files: InputFiles, patient: str) -> list[str]:
    ours = files.folders(_reflacx_home(files, patient))
    return [name for name in ours if name not in ("gaze_data", "main_data")]


def _plan_table(
    subject: SubjectPlan, files: InputFiles, path: str, dataset: str, folders: list[str]
) -> None:
    """Plan one table's rows; readings with a folder but no row are rejects."""
    if not folders and not files.has(path):
        return
    names = _metadata_columns(dataset)
    id_column = names["reading_id" if dataset == _REFLACX else "dicom_id"]
    try:
        table = files.table(path, names.values())
    except BadInputError as error:
        for reading_id in folders or [""]:
            subject.rejects.append(Reject.of(error, dataset, reading_id, "plan"))
        return
    for row in range(len(table)):
        cells = table.row(row)
        try:
            subject.readings.append(_plan_row(dataset, cells, path, subject.subject_id))
        except BadInputError as error:
            subject.rejects.append(Reject.of(error, dataset, cells[id_column], "plan"))
    for name in sorted(set(folders) - {cell.strip() for cell in table.columns[id_column]}):
        missing = BadInputError("no_metadata_row", path, f"{path} has no row for {name!r}")
        subject.rejects.append(Reject.of(missing, dataset, name, "plan"))


def _plan_row(dataset: str, cells: dict[str, str], path: str, subject_id: str) -> PlannedReading:
    names = _metadata_columns(dataset)
    if dataset == _REFLACX:
        reading_id = safe_id(cells[names["reading_id"]], path, "the reading id")
        if flag(cells[names["discarded"]], path, names["discarded"]):
            raise BadInputError("discarded", path, f"{reading_id} is marked as discarded")
    else:
        reading_id = dicom_id(cells[names["dicom_id"]], path)
    subject = safe_id(cells[names["subject_id"]], path, "the subject id")
    if subject != subject_id:
        what = f"{path} has a row of subject {subject}"
        raise BadInputError("other_subject", path, what)
    return PlannedReading(dataset, reading_id, subject_id, path, cells)


def _metadata_columns(dataset: str) -> dict[str, str]:
    if dataset == _REFLACX:
        return reflacx.columns("metadata")
    return eye_gaze.columns("master_sheet")


class _ImageFacts(NamedTuple):
    size: tuple[int, int] | None
    view: str | None
    split: str | None
    labels: dict[str, float]
    metadata_path: str


def _image_facts(files: InputFiles, patient: str, image: str, study: str) -> _ImageFacts:
    declared = manifest("mimic-cxr")
    metadata, splits, chexpert = (
        files.table(
            f"{_root(patient, 'cxr')}/{declared['tables'][kind]['file']}",
            mimic_cxr.columns(kind).values(),
        )
        for kind in ("metadata", "split", "chexpert")
    )
    chexpert.require(declared["labels"]["chexpert"])
    return _ImageFacts(
        mimic_cxr.size(metadata, image),
        mimic_cxr.view(metadata, image),
        mimic_cxr.split(splits, image),
        mimic_cxr.labels(chexpert, study),
        metadata.path,
    )


def _load_reflacx(planned: PlannedReading, files: InputFiles, patient: str) -> RawReading:
    names, row, metadata = reflacx.columns("metadata"), planned.row, planned.metadata_path
    image = dicom_id(row[names["dicom_id"]], metadata)
    study = reflacx.study_id(row[names["image"]], metadata)
    folder = f"{_reflacx_home(files, patient)}/{planned.reading_id}"

    def table(kind: str) -> Table:
        file = manifest("reflacx")["tables"][kind]["file"]
        return files.table(f"{folder}/{file}", reflacx.columns(kind).values())

    cxr = _image_facts(files, patient, image, study)
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=study,
        dicom_id=image,
        split=row[names["split"]].strip() or cxr.split,
        view=cxr.view,
        image_path=_image_path(patient, study, image),
        width=pixels(row[names["width"]], metadata, names["width"]),
        height=pixels(row[names["height"]], metadata, names["height"]),
        fixations=reflacx.fixations(table("fixations")),
        words=reflacx.words(table("words")),
        labels=cxr.labels | reflacx.labels(row, metadata),
        regions=reflacx.regions(table("ellipses"), table("chest_box")),
    )


def _load_eye_gaze(
    planned: PlannedReading, files: InputFiles, patient: str, options: SourceOptions
) -> RawReading:
    root, row, image = _root(patient, "eye_gaze"), planned.row, planned.reading_id
    sheet = planned.metadata_path
    study = safe_id(row[eye_gaze.columns("master_sheet")["study_id"]], sheet, "the study id")
    cxr = _image_facts(files, patient, image, study)
    if cxr.size is None:
        what = f"{cxr.metadata_path} has no row for {image}"
        raise BadInputError("no_metadata_row", cxr.metadata_path, what)

    def table(kind: str) -> Table:
        return files.table(f"{root}/{_eye_gaze_file(kind)}", eye_gaze.columns(kind).values())

    gaze, mended = eye_gaze.fixations(
        table("fixations"),
        image,
        *cxr.size,
        eye_gaze.pads(row, sheet),
        options.eye_gaze_vertical,
    )
    transcript = f"{root}/{_transcripts()}/{image}/{manifest('eye-gaze')['transcripts']['file']}"
    offset_s = options.eye_gaze_audio_offset_s
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=study,
        dicom_id=image,
        split=cxr.split,
        view=cxr.view,
        image_path=_image_path(patient, study, image),
        width=cxr.size[0],
        height=cxr.size[1],
        fixations=gaze,
        words=eye_gaze.words(files.read(transcript), transcript, offset_s),
        labels=cxr.labels | eye_gaze.labels(row, sheet),
        regions=eye_gaze.boxes(table("boxes"), image),
        notes=Counter(mended),
    )


def _image_path(patient: str, study_id: str, image: str) -> str:
    return f"{_root(patient, 'cxr')}/s{study_id}/{image}.jpg"
