"""Recordings of one's own: one table, one file of facts, a folder a reading (FORMATS, 11)."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from egma_prep.errors import BadInputError
from egma_prep.images import image_size
from egma_prep.options import SourceOptions
from egma_prep.sources import extras
from egma_prep.sources.dataset_toml import DATASET_TOML, dataset_facts
from egma_prep.sources.files import InputFiles
from egma_prep.sources.labels_and_regions import labels_of, regions_of
from egma_prep.sources.manifests import columns_of, required_columns
from egma_prep.sources.planning import (
    MetadataTable,
    by_subject,
    one_patient_an_image,
    plan_tables,
    remark_misspelt,
)
from egma_prep.sources.reading import PlannedReading, RawReading, Region
from egma_prep.sources.recognisers import dictated
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.samples import detected
from egma_prep.sources.screens import fixations_on_image, rectangle_of
from egma_prep.sources.trackers import tracked_gaze
from egma_prep.sources.values import LONGEST_S, is_blank, number, optional_text, safe_id

NAME = "recordings"
READINGS, REGIONS = "readings.csv", "regions.csv"


def plan_row(row: Mapping[str, str], path: str) -> PlannedReading:
    """Plan the reading of one row; where it names no patient, the image is one.

    Raises
    ------
    BadInputError
        If its ids or its image's path cannot be used.
    """
    reading_id = safe_id(row["reading_id"], path, "the reading")
    image = row["image"].strip().replace("\\", "/")
    if image.startswith("/") or ".." in image.split("/") or is_blank(image):
        raise BadInputError("bad_path", path, f"the image of {reading_id} is {image[:60]!r}")
    image_id = re.sub("[^A-Za-z0-9_-]", "_", PurePosixPath(image).with_suffix("").as_posix())
    image_id = safe_id(image_id, path, "the image's path")
    told = {name: row.get(f"{name}_id", "") for name in ("subject", "study")}
    subject, study = (
        other if is_blank(told[name]) else safe_id(told[name], path, f"the {name}'s id")
        for name, other in (("subject", image_id), ("study", reading_id))
    )
    return PlannedReading(NAME, reading_id, subject, study, image_id, path, {**row, "image": image})


METADATA = MetadataTable(NAME, "reading_id", required_columns(NAME, "readings"), plan_row)


class Recordings:
    """A laboratory's tree."""

    name = NAME
    looks_like = f"{READINGS}, {DATASET_TOML} and <reading_id>/ (egma-prep init DIR begins one)"

    def recognises(self, files: InputFiles) -> bool:
        """Look for the two files at the root."""
        return files.has(READINGS) and files.has(DATASET_TOML)

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """List the table's readings; those of one image have one patient, so no split parts it."""
        facts = dataset_facts(files.read(DATASET_TOML))
        table = files.table(READINGS, METADATA.required)  # without it there is nothing to plan
        remark_misspelt(files, table, columns_of(NAME, "readings").values())
        folders = [one for one in files.folders("") if files.has(f"{one}/{facts.gaze.file}")]
        return by_subject(one_patient_an_image(plan_tables(files, [READINGS], METADATA, folders)))

    def declaration(self, files: InputFiles) -> dict[str, str]:
        """Tell what cards must repeat."""
        facts = dataset_facts(files.read(DATASET_TOML))
        told = {name: getattr(facts, name) for name in ("name", "licence", "terms", "citation")}
        return {name: value for name, value in told.items() if value}

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read one reading's gaze, words and regions; its image is decoded elsewhere."""
        facts = dataset_facts(files.read(DATASET_TOML))
        row, folder = planned.row, planned.reading_id
        size = image_size(files.read(row["image"]), row["image"])
        said_path, gaze_path = f"{folder}/{facts.words.file}", f"{folder}/{facts.gaze.file}"
        said = dictated(files.read(said_path), said_path, facts.words)
        from_ = "samples" if options.gaze_from == "samples" else facts.gaze.from_
        told = facts.gaze._replace(from_=from_)
        gaze = tracked_gaze(files.read(gaze_path), gaze_path, told)
        # A tracker's clock may have begun long before the audio, which is that of the words.
        offset_s = _number(row, "audio_offset_s")
        is_told = offset_s is not None or gaze.zero_s is not None
        if offset_s is None:
            offset_s = gaze.zero_s or 0.0
            if gaze.zero_s is None and gaze.begin_s.min() > LONGEST_S:
                what = f"{gaze_path} begins at {gaze.begin_s.min():,.0f} s of a clock of its own"
                raise BadInputError("no_clock", gaze_path, what)
        edges = [_number(row, f"image_{side}_px") for side in ("x0", "y0", "x1", "y1")]
        shown = rectangle_of(edges, READINGS)
        fixations, notes = fixations_on_image(gaze, facts.screen, shown, size, offset_s)
        notes["clock_taken_as_the_audios"] = int(not is_told)
        rows = gaze.rows
        if from_ == "samples":
            fixations, rows, outside = detected(fixations, rows, options)
            notes |= outside
        labels, damaged = labels_of(row, NAME)
        regions, left_out = _regions(files, f"{folder}/{REGIONS}")
        return RawReading(
            *planned.key,
            subject_id=planned.subject_id,
            study_id=planned.study_id,
            dicom_id=planned.dicom_id,
            split=optional_text(row.get("split", "")),
            view=extras.known_view(row.get("view", "")),
            image_path=row["image"],
            width=size[0],
            height=size[1],
            fixations=fixations,
            words=said.words,
            labels=labels,
            regions=regions,
            notes=Counter(gaze.notes) + Counter(notes) + Counter(said.notes) + damaged + left_out,
            fixation_rows=rows,
            word_rows=said.rows,
        )


SOURCE = Recordings()


def _number(row: Mapping[str, str], name: str) -> float | None:
    cell = row.get(name, "")
    return None if is_blank(cell) else number(cell, READINGS, f"{READINGS}, {name}")


def _regions(files: InputFiles, path: str) -> tuple[list[Region], Counter[str]]:
    if not files.has(path):
        return [], Counter()
    try:
        table = files.table(path, required_columns(NAME, "regions"))
    except BadInputError:  # no heatmap needs it
        return [], Counter(region_tables_left_out=1)
    return regions_of(table, columns_of(NAME, "regions"))
