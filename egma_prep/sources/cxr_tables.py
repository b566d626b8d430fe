"""What MIMIC-CXR-JPG's tables say of an image (FORMATS, section 4)."""

from collections.abc import Mapping

from egma_prep.sources import extras
from egma_prep.sources.csv_table import Table
from egma_prep.sources.manifests import columns_of, manifest, required_columns
from egma_prep.sources.reading import ImageFacts
from egma_prep.sources.values import id_key

_KEYS = {"metadata": "dicom_id", "split": "dicom_id", "chexpert": "study_id"}
_LABELS = manifest("mimic-cxr")["labels"]
COLUMNS = {table: columns_of("mimic-cxr", table) for table in _KEYS}
REQUIRED = {table: required_columns("mimic-cxr", table) for table in _KEYS}
READ = {table: [*COLUMNS[table].values(), *_LABELS.get(table, [])] for table in _KEYS}
"""The columns that are read of each table."""


class ImageTables:
    """The metadata, split and CheXpert tables, indexed by image and study; any may be missing."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = tables
        self._rows: dict[str, dict[str, int | None]] = {}

    def facts(self, dicom_id: str, study_id: str) -> ImageFacts:
        """Look up one image; what is missing or damaged is None, and counted."""
        ids = {"dicom_id": id_key(dicom_id), "study_id": id_key(study_id)}
        told = {table: self._row(table, ids[key]) for table, key in _KEYS.items()}
        metadata, split, chexpert = (row or {} for row in told.values())
        labels, notes = extras.labels(chexpert, _LABELS["chexpert"], tuple(_LABELS["values"]))
        if chexpert:
            notes["labels_left_out"] += sum(name not in chexpert for name in _LABELS["chexpert"])
        notes["without_chexpert"] = told["chexpert"] == {}
        notes["contradicted_rows"] = sum(row is None for row in told.values())
        return ImageFacts(
            extras.known_size(metadata, COLUMNS["metadata"]),
            extras.known_view(metadata.get(COLUMNS["metadata"]["view"], "")),
            extras.known_split(split.get(COLUMNS["split"]["split"], "")),
            {f"chexpert:{name}": value for name, value in labels.items()},
            dict(+notes),
        )

    def _row(self, name: str, key: str) -> Mapping[str, str] | None:
        """Find an id's row: empty if there is none, None if two contradict each other."""
        if name not in self._tables:
            return {}
        if name not in self._rows:
            self._rows[name] = _rows_by_id(self._tables[name], COLUMNS[name][_KEYS[name]])
        row = self._rows[name].get(key, -1)
        if row is None:
            return None
        return {} if row < 0 else self._tables[name].row(row)


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
