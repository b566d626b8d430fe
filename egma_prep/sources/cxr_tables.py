"""What MIMIC-CXR-JPG's tables say of an image (FORMATS, section 4)."""

from collections import Counter
from collections.abc import Mapping
from functools import partial

from egma_prep.errors import BadInputError
from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.manifests import columns_of, manifest, required_columns
from egma_prep.sources.reading import ImageFacts
from egma_prep.sources.values import id_key, pixels

columns, required = partial(columns_of, "mimic-cxr"), partial(required_columns, "mimic-cxr")


def read_columns(table: str) -> list[str]:
    """List the columns that are read of one table."""
    labels = manifest("mimic-cxr")["labels"].get(table, [])
    return [*columns(table).values(), *labels]


class ImageTables:
    """The metadata, split and CheXpert tables, indexed by image and study; any may be missing."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._rows: dict[str, dict[str, int | None]] = {}

    def facts(self, dicom_id: str, study_id: str) -> ImageFacts:
        """Look up one image; what is missing or damaged is None, and counted."""
        labels, notes = self._labels(study_id)
        view, split = (
            self._cell(kind, kind_of, dicom_id)
            for kind, kind_of in (("metadata", "view"), ("split", "split"))
        )
        notes["contradicted_rows"] = sum(
            self._is_contradicted(kind, one)
            for kind, one in (("metadata", dicom_id), ("split", dicom_id), ("chexpert", study_id))
        )
        return ImageFacts(
            self._size(dicom_id),
            extras.known_view(view),
            extras.known_split(split),
            labels,
            dict(+notes),
        )

    def _row(self, kind: str, key: str, value: str) -> tuple[Table, int] | None:
        table = self._tables.get(kind)
        if table is None:
            return None
        if kind not in self._rows:
            self._rows[kind] = _rows_by_id(table, columns(kind)[key])
        row = self._rows[kind].get(id_key(value))
        return None if row is None else (table, row)

    def _is_contradicted(self, kind: str, value: str) -> bool:
        return id_key(value) in (rows := self._rows.get(kind, {})) and rows[id_key(value)] is None

    def _size(self, dicom_id: str) -> tuple[int, int] | None:
        names, path = columns("metadata"), "the metadata"
        try:
            width, height = (
                pixels(self._cell("metadata", side, dicom_id), path, names[side])
                for side in ("width", "height")
            )
        except BadInputError:  # the image tells it
            return None
        return width, height

    def _cell(self, kind: str, name: str, dicom_id: str) -> str:
        found = self._row(kind, "dicom_id", dicom_id)
        if found is None:
            return ""
        table, row = found
        cells = table.columns.get(columns(kind)[name])
        return cells[row] if cells else ""

    def _labels(self, study_id: str) -> tuple[dict[str, float], Counter[str]]:
        declared = manifest("mimic-cxr")["labels"]
        found = self._row("chexpert", "study_id", study_id)
        if found is None:
            told = self._is_contradicted("chexpert", study_id)
            return {}, Counter(without_chexpert=int(not told))
        table, row = found
        there = [name for name in declared["chexpert"] if name in table.columns]
        cells = {name: table.columns[name][row] for name in there}
        labels, notes = extras.labels(cells, there, tuple(declared["values"]), table.path)
        notes["labels_left_out"] += len(declared["chexpert"]) - len(there)
        return {f"chexpert:{name}": value for name, value in labels.items()}, notes


def _rows_by_id(table: Table, key: str) -> dict[str, int | None]:
    """Map ids to their rows; an id whose rows contradict each other has None."""
    numbered = [(id_key(cell), row) for row, cell in enumerate(table.columns[key])]
    first = dict(reversed(numbered))
    rows: dict[str, int | None] = {**first}
    said = [name for name in table.columns if name != key]
    for one, row in numbered if len(rows) < len(numbered) else ():
        if row != first[one] and len(table.distinct([first[one], row], said)) > 1:
            rows[one] = None
    return rows
