"""REFLACX as PhysioNet ships it (FORMATS, section 1), with images from MIMIC-CXR."""

from collections.abc import Iterable

from egma_prep.options import SourceOptions
from egma_prep.sources import reflacx_files as reflacx
from egma_prep.sources.cxr_tree import cxr_tree, image_size
from egma_prep.sources.files import InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.planning import by_subject, plan_tables, with_image_facts
from egma_prep.sources.reading import PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan

_LAYOUT = manifest("reflacx")["layout"]


class Reflacx:
    """The native REFLACX tree."""

    name = "reflacx"
    looks_like = _LAYOUT["metadata"]
    dicom_grey = manifest("mimic-cxr")["images"]["dicom_grey"]

    def recognises(self, files: InputFiles) -> bool:
        """Look for a phase's metadata."""
        return bool(files.tables_matching("", _LAYOUT["metadata"]))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read the phases' metadata."""
        tables = cxr_tree(files).tables(files)
        paths = files.tables_matching("", _LAYOUT["metadata"])
        plans = plan_tables(files, paths, reflacx, files.folders(_LAYOUT["readings"]))
        return by_subject(with_image_facts(plans, reflacx, tables))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's folder."""
        image, study = reflacx.image_and_study(planned.row, planned.metadata_path)
        folder = f"{_LAYOUT['readings']}/{planned.reading_id}"
        return reflacx.raw_reading(
            planned,
            lambda file, names: files.table(f"{folder}/{file}", names),
            planned.facts,
            path := cxr_tree(files).image(files, planned.subject_id, study, image),
            lambda: image_size(files, path),
        )


SOURCE = Reflacx()
