"""MIMIC-CXR: images and reports without gaze, for mixed training (FORMATS, section 4)."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from egma_prep.errors import BadUsageError, Reject
from egma_prep.options import SourceOptions
from egma_prep.sources import extras
from egma_prep.sources.cxr_tables import COLUMNS, REQUIRED
from egma_prep.sources.cxr_tree import cxr_homes, cxr_tree, image_size
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.planning import MetadataTable, by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import Fixations, PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.report_sections import report_words
from egma_prep.sources.values import dicom_id, numbered_id

DATASET = "mimic_cxr"


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one image.

    Raises
    ------
    BadInputError
        If its ids cannot be used.
    """
    names = COLUMNS["metadata"]
    image = dicom_id(row[names["dicom_id"]], path)
    study, subject = (
        numbered_id(row[names[f"{whose}_id"]], path, f"the {whose} id")
        for whose in ("study", "subject")
    )
    kept = {name: row[name] for name in names.values() if name in row}
    return PlannedReading(DATASET, image, subject, study, image, path, kept)


METADATA = MetadataTable(DATASET, COLUMNS["metadata"]["dicom_id"], REQUIRED["metadata"], plan_row)


def raw_reading(
    planned: PlannedReading,
    report_file: tuple[bytes, str],
    image_path: str,
    measured: Callable[[], tuple[int, int]],
) -> RawReading:
    """Read an image's report; it has no gaze, and its words no times.

    Parameters
    ----------
    planned : PlannedReading
        Made by `plan_row`, with what the tables know of the image.
    report_file : tuple
        The study's report and its path.
    image_path : str
        For the reading; not opened here.
    measured : callable
        Reads the image's own size, where no table tells it.
    """
    facts = planned.facts
    report = report_words(*report_file)
    notes = Counter(facts.notes) + extras.absent(facts.split, facts.view) + Counter(report.notes)
    size = facts.size
    if size is None:
        size, notes["size_by_image"] = measured(), 1
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=planned.study_id,
        dicom_id=planned.dicom_id,
        split=facts.split,
        view=facts.view,
        image_path=image_path,
        width=size[0],
        height=size[1],
        fixations=Fixations.none(),
        words=report.words,
        labels=dict(facts.labels),
        regions=[],
        notes=notes,
        paragraphs=report.paragraphs,
    )


# -- the tree -------------------------------------------------------------------------------------


class MimicCxr:
    """A MIMIC-CXR or MIMIC-CXR-JPG tree; one reading an image."""

    name = "mimic_cxr"
    looks_like = "files/p10, p11, ..."
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for the patients' folders at the root."""
        return bool(cxr_homes(files, "", (".",)))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """List the images that the metadata table has of the patients who are there."""
        tree = cxr_tree(files)
        path = tree.table_path(files, "metadata")
        if path is None:
            raise BadUsageError(
                f"{files.root} has no mimic-cxr-2.*-metadata.csv.gz; copy it from MIMIC-CXR-JPG, or"
                " give its folder by --images DIR"
            )
        files.table(path, REQUIRED["metadata"])  # without it there is nothing to plan
        here = tree.patients(files)
        plans = plan_tables(files, [path], METADATA, ())
        return by_subject(
            plan
            for plan in with_image_facts(plans, tree.tables(files))
            if isinstance(plan, Reject) or plan.subject_id in here
        )

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one study's report."""
        tree = cxr_tree(files)
        report = tree.report(files, planned)
        return raw_reading(
            planned,
            (files.read(report), report),
            path := tree.image(files, planned),
            lambda: image_size(files, path),
        )


SOURCE = MimicCxr()
