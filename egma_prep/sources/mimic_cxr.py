"""MIMIC-CXR: images and reports without gaze, for mixed training (FORMATS, section 4)."""

from collections.abc import Iterable

from egma_prep.errors import BadUsageError, Reject
from egma_prep.options import SourceOptions
from egma_prep.sources import cxr_tables as mimic_cxr
from egma_prep.sources.cxr_tree import cxr_homes, cxr_tree, image_size
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.planning import by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan


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
        files.table(path, mimic_cxr.required("metadata"))  # without it there is nothing to plan
        here = tree.patients(files)
        plans = plan_tables(files, [path], mimic_cxr, ())
        return by_subject(
            plan
            for plan in with_image_facts(plans, mimic_cxr, tree.tables(files))
            if isinstance(plan, Reject) or plan.subject_id in here
        )

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one study's report."""
        tree = cxr_tree(files)
        image, study = mimic_cxr.image_and_study(planned.row, planned.metadata_path)
        report = tree.report(files, planned.subject_id, study)
        return mimic_cxr.raw_reading(
            planned,
            (files.read(report), report),
            path := tree.image(files, planned.subject_id, study, image),
            lambda: image_size(files, path),
        )


SOURCE = MimicCxr()
