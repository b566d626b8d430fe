"""Metadata tables to planned readings, patient by patient: shared by the sources."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import NamedTuple

from egma_prep.errors import BadInputError, Reject
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tables import ImageTables
from egma_prep.sources.files import MAY_BE_CUT, InputFiles
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.values import id_key

_ALIKE = 0.7  # a slip of the pen, such as audio_offset for audio_offset_s


class MetadataTable(NamedTuple):
    """A dataset's table of readings, and how one of its rows is read.

    Attributes
    ----------
    id_column : str
        Holds the reading's id.
    required : list of str
        Columns without which it says nothing.
    plan_row : callable
        Takes a row's cells by column, and the table's path.
    """

    dataset: str
    id_column: str
    required: list[str]
    plan_row: Callable[[Mapping[str, str], str], PlannedReading]


def plan_tables(
    files: InputFiles, paths: Sequence[str], metadata: MetadataTable, folders: Collection[str]
) -> Iterator[PlannedReading | Reject]:
    """Plan every row; folders of readings without one are rejects.

    Parameters
    ----------
    paths : sequence of str
        The metadata tables; of one that cannot be read, only the folders tell the readings.
    folders : collection of str
        Names of the readings' folders that there are.
    """
    without_row = set(folders)
    broken: BadInputError | None = None
    read: list[Table] = []
    for path in sorted(paths, key=lambda path: (len(path), path)):  # "x.csv" before "x (1).csv"
        try:
            table = files.table(path, metadata.required)
        except BadInputError as error:
            broken = error
            continue
        if twin := next((one.path for one in read if one.columns == table.columns), None):
            files.remark(path, f"passed over, as {twin} says the same; delete one of them")
            continue
        read.append(table)
        if table.is_cut:
            files.remark(path, MAY_BE_CUT)
        for name in sorted(table.repeated):
            files.remark(path, f"the column {name!r} stands there twice, and is left out")
        listed = {id_key(cell) for cell in table.columns[metadata.id_column]}
        without_row = {name for name in without_row if id_key(name) not in listed}
        for cells in map(table.row, range(len(table))):
            try:
                yield metadata.plan_row(cells, path)
            except BadInputError as error:
                yield Reject.of(error, metadata.dataset, cells[metadata.id_column], "plan")
    for name in sorted(without_row) or [""] * (broken is not None):
        among = paths[0] if len(paths) == 1 else f"none of {', '.join(paths)}"
        what = f"{among} has {'no' if len(paths) == 1 else 'a'} row for {name!r}"
        missing = broken or BadInputError("no_metadata_row", paths[-1], what)
        yield Reject.of(missing, metadata.dataset, name, "plan")


def by_subject(plans: Iterable[PlannedReading | Reject]) -> list[SubjectPlan]:
    """Group readings by patient; rejects come under no patient."""
    subjects: dict[str, SubjectPlan] = {}
    for plan in plans:
        subject_id = "" if isinstance(plan, Reject) else plan.subject_id
        subjects.setdefault(subject_id, SubjectPlan(subject_id)).add(plan)
    return list(subjects.values())


def with_image_facts(
    plans: Iterable[PlannedReading | Reject], tables: ImageTables
) -> Iterator[PlannedReading | Reject]:
    """Add to each reading what MIMIC-CXR-JPG's tables say of its image."""
    for plan in plans:
        if isinstance(plan, Reject):
            yield plan
        else:
            yield replace(plan, facts=tables.facts(plan.dicom_id, plan.study_id))


def one_patient_an_image(
    plans: Iterable[PlannedReading | Reject],
) -> Iterator[PlannedReading | Reject]:
    """Reject readings whose image has an earlier one's id, or another patient there.

    Images are kept by their id, and patients decide the split.
    """
    known: dict[str, PlannedReading] = {}
    for plan in plans:
        if isinstance(plan, Reject):
            yield plan
            continue
        first = known.setdefault(plan.dicom_id, plan)
        if (first.row["image"], first.subject_id) == (plan.row["image"], plan.subject_id):
            yield plan
            continue
        image = plan.row["image"]
        what = f"{image} and {first.row['image']} make one image id"
        if first.row["image"] == image:
            what = f"{image} is of the patients {first.subject_id} and {plan.subject_id}"
        yield Reject.of(BadInputError("duplicate_id", plan.metadata_path, what), *plan.key, "plan")


def remark_misspelt(files: InputFiles, table: Table, known: Collection[str]) -> None:
    """Remark columns that nobody reads and whose names are nearly one that would be."""
    for name in table.columns:
        close = [] if name in known else get_close_matches(name, known, 1, _ALIKE)
        if close and close[0] not in table.columns:
            files.remark(table.path, f"the column {name!r} is not read; is it {close[0]!r}?")
