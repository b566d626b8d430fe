"""Metadata tables to planned readings, patient by patient: shared by the sources."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from egma_prep.errors import BadInputError, Reject
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tables import ImageTables
from egma_prep.sources.files import MAY_BE_CUT, InputFiles
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.values import id_key


class RowParser(Protocol):
    """What a dataset's module in `parse` knows of its metadata's rows."""

    DATASET: str
    METADATA: str
    ID: str

    def columns(self, table: str, /) -> dict[str, str]:
        """Map our names to the released column names of one table."""

    def required(self, table: str, /) -> list[str]:
        """List the columns without which a table says nothing."""

    def plan_row(self, row: Mapping[str, str], path: str, /) -> PlannedReading:
        """Plan the reading of one metadata row."""

    def image_and_study(self, row: Mapping[str, str], path: str, /) -> tuple[str, str]:
        """Take the DICOM id and the study id from a metadata row."""


def plan_tables(
    files: InputFiles, paths: Sequence[str], parser: RowParser, folders: Collection[str]
) -> Iterator[PlannedReading | Reject]:
    """Plan every row; folders of readings without one are rejects.

    Parameters
    ----------
    paths : sequence of str
        The metadata tables; of one that cannot be read, only the folders tell the readings.
    folders : collection of str
        Names of the readings' folders that there are.
    """
    names = parser.columns(parser.METADATA)
    without_row = set(folders)
    broken: BadInputError | None = None
    read: list[Table] = []
    for path in sorted(paths, key=lambda path: (len(path), path)):  # "x.csv" before "x (1).csv"
        try:
            table = files.table(path, parser.required(parser.METADATA))
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
        listed = {id_key(cell) for cell in table.columns[names[parser.ID]]}
        without_row = {name for name in without_row if id_key(name) not in listed}
        for cells in map(table.row, range(len(table))):
            try:
                yield parser.plan_row(cells, path)
            except BadInputError as error:
                yield Reject.of(error, parser.DATASET, cells[names[parser.ID]], "plan")
    for name in sorted(without_row) or [""] * (broken is not None):
        among = paths[0] if len(paths) == 1 else f"none of {', '.join(paths)}"
        what = f"{among} has {'no' if len(paths) == 1 else 'a'} row for {name!r}"
        missing = broken or BadInputError("no_metadata_row", paths[-1], what)
        yield Reject.of(missing, parser.DATASET, name, "plan")


def by_subject(plans: Iterable[PlannedReading | Reject]) -> list[SubjectPlan]:
    """Group readings by patient; rejects come under no patient."""
    subjects: dict[str, SubjectPlan] = {}
    for plan in plans:
        subject_id = "" if isinstance(plan, Reject) else plan.subject_id
        subjects.setdefault(subject_id, SubjectPlan(subject_id)).add(plan)
    return list(subjects.values())


def with_image_facts(
    plans: Iterable[PlannedReading | Reject], parser: RowParser, tables: ImageTables
) -> Iterator[PlannedReading | Reject]:
    """Add to each reading what MIMIC-CXR-JPG's tables say of its image."""
    for plan in plans:
        if isinstance(plan, Reject):
            yield plan
            continue
        try:
            image, study = parser.image_and_study(plan.row, plan.metadata_path)
            yield replace(plan, facts=tables.facts(image, study))
        except BadInputError as error:
            yield Reject.of(error, *plan.key, "plan")
