"""EYE GAZE as PhysioNet ships it (FORMATS, section 2), with images from MIMIC-CXR."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from egma_prep.errors import BadInputError, Reject
from egma_prep.options import SourceOptions
from egma_prep.sources import eye_gaze_files as eye_gaze
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tree import cxr_tree, image_size
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.planning import by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan

_TABLES, _TRANSCRIPTS = manifest("eye-gaze")["tables"], manifest("eye-gaze")["transcripts"]
_SHEET = _TABLES["master_sheet"]["file"]


class EyeGaze:
    """The native EYE GAZE (egd-cxr) tree."""

    name = "eye_gaze"
    looks_like = f"{_SHEET} and {_TRANSCRIPTS['folder']}"
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for the master sheet."""
        return bool(files.tables_matching("", _SHEET))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read the master sheet, and hand each reading its rows of the tables of all readings."""
        tables = cxr_tree(files).tables(files)
        plans = plan_tables(files, [_SHEET], eye_gaze, files.folders(_TRANSCRIPTS["folder"]))
        return by_subject(_with_rows(with_image_facts(plans, eye_gaze, tables), files))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's transcript."""
        image, study = eye_gaze.image_and_study(planned.row, planned.metadata_path)
        path = cxr_tree(files).image(files, planned.subject_id, study, image)
        transcript = f"{_TRANSCRIPTS['folder']}/{image}/{_TRANSCRIPTS['file']}"
        return eye_gaze.raw_reading(
            planned,
            planned.tables,
            (files.read(transcript), transcript),
            planned.facts,
            path,
            lambda: image_size(files, path),
            options,
        )


SOURCE = EyeGaze()


def _with_rows(
    plans: Iterable[PlannedReading | Reject], files: InputFiles
) -> Iterator[PlannedReading | Reject]:
    """Hand each reading its rows; without gaze all are rejected, without boxes none has them."""
    listed = list(plans)
    images = {plan.reading_id for plan in listed if isinstance(plan, PlannedReading)}

    def excerpts(kind: str) -> dict[str, Table]:
        table = files.columns(
            _TABLES[kind]["file"], list(eye_gaze.columns(kind).values()), eye_gaze.required(kind)
        )
        return table.excerpts(eye_gaze.columns(kind)["dicom_id"], images)

    try:
        gaze = excerpts("fixations")
    except BadInputError as error:
        for plan in listed:
            yield plan if isinstance(plan, Reject) else Reject.of(error, *plan.key, "plan")
        return
    boxes: dict[str, Table] = {}
    try:
        boxes = excerpts("boxes")
    except BadInputError as error:
        files.remark(
            _TABLES["boxes"]["file"], f"passed over, so that no reading has boxes ({error})"
        )
    for plan in listed:
        if isinstance(plan, PlannedReading):
            rows = {"fixations": gaze[plan.reading_id]}
            rows |= {"boxes": boxes[plan.reading_id]} if boxes else {}
            plan = replace(plan, tables=rows)
        yield plan
