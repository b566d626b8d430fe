"""What the MIMIC-CXR-JPG tables say of one image (FORMATS, sections 3.2 and 4)."""

from collections.abc import Iterator
from typing import NamedTuple

from egma_prep.input_files import InputFiles
from egma_prep.manifests import manifest
from egma_prep.parse.csv_file import Table
from egma_prep.parse.values import optional_number, pixels


class ImageFacts(NamedTuple):
    """Facts of one image; None or absent where its tables have no row or a blank."""

    metadata_path: str
    width: int | None
    height: int | None
    view: str | None
    split: str | None
    labels: dict[str, float]


def read(files: InputFiles, folder: str, dicom_id: str, study_id: str) -> ImageFacts:
    """Look an image up in the tables of a folder."""
    metadata, names = _table(files, folder, "metadata")
    width = height = view = None
    for row in _matching(metadata, names["dicom_id"], dicom_id):
        view = metadata.columns[names["view"]][row].strip() or None
        width, height = (
            pixels(metadata.columns[names[side]][row], metadata.path, names[side])
            for side in ("width", "height")
        )
    splits, split_names = _table(files, folder, "split")
    split = None
    for row in _matching(splits, split_names["dicom_id"], dicom_id):
        split = splits.columns[split_names["split"]][row].strip() or None
    labels = _chexpert(files, folder, study_id)
    return ImageFacts(metadata.path, width, height, view, split, labels)


def _chexpert(files: InputFiles, folder: str, study_id: str) -> dict[str, float]:
    table, names = _table(files, folder, "chexpert")
    table.require(manifest("mimic-cxr")["labels"]["chexpert"])
    found = {}
    for row in _matching(table, names["study_id"], study_id):
        for label in manifest("mimic-cxr")["labels"]["chexpert"]:
            cell = table.columns[label][row]
            value = optional_number(cell, table.path, table.place(row, label))
            if value is not None:
                found[f"chexpert:{label}"] = value
    return found


def _table(files: InputFiles, folder: str, kind: str) -> tuple[Table, dict[str, str]]:
    declared = manifest("mimic-cxr")["tables"][kind]
    names: dict[str, str] = declared["columns"]
    return files.table(f"{folder}/{declared['file']}", names.values()), names


def _matching(table: Table, column: str, value: str) -> Iterator[int]:
    for row, cell in enumerate(table.columns[column]):
        if cell.strip().removesuffix(".0") == value:
            yield row
