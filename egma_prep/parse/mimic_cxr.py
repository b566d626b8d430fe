"""What the MIMIC-CXR-JPG tables say of one image (FORMATS, sections 3.2 and 4)."""

from collections.abc import Iterator

from egma_prep.manifests import manifest
from egma_prep.parse.csv_file import Table
from egma_prep.parse.values import optional_number, pixels


def columns(table: str) -> dict[str, str]:
    """Map our names to the released column names of one table."""
    return manifest("mimic-cxr")["tables"][table]["columns"]


def size(metadata: Table, dicom_id: str) -> tuple[int, int] | None:
    """Look up an image's width and height in pixels; None without a row."""
    names = columns("metadata")
    for row in _rows(metadata, names["dicom_id"], dicom_id):
        width, height = (
            pixels(metadata.columns[names[side]][row], metadata.path, names[side])
            for side in ("width", "height")
        )
        return width, height
    return None


def view(metadata: Table, dicom_id: str) -> str | None:
    """Look up an image's ViewPosition; None without a row or where blank."""
    return _cell(metadata, columns("metadata"), dicom_id, "view")


def split(splits: Table, dicom_id: str) -> str | None:
    """Look up the split that MIMIC-CXR-JPG puts an image in; None without a row."""
    return _cell(splits, columns("split"), dicom_id, "split")


def labels(chexpert: Table, study_id: str) -> dict[str, float]:
    """Read a study's CheXpert labels; blanks are left out."""
    found = {}
    for row in _rows(chexpert, columns("chexpert")["study_id"], study_id):
        for name in manifest("mimic-cxr")["labels"]["chexpert"]:
            cell, where = chexpert.columns[name][row], chexpert.place(row, name)
            value = optional_number(cell, chexpert.path, where)
            if value is not None:
                found[f"chexpert:{name}"] = value
    return found


def _cell(table: Table, names: dict[str, str], dicom_id: str, ours: str) -> str | None:
    for row in _rows(table, names["dicom_id"], dicom_id):
        return table.columns[names[ours]][row].strip() or None
    return None


def _rows(table: Table, column: str, value: str) -> Iterator[int]:
    for row, cell in enumerate(table.columns[column]):
        if cell.strip().removesuffix(".0") == value:
            yield row
