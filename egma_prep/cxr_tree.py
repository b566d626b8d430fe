"""Where MIMIC-CXR's images, reports and tables lie: shared by the sources that need them."""

from functools import lru_cache
from typing import NamedTuple

from egma_prep.errors import BadUsageError
from egma_prep.images import image_size as size_in_header
from egma_prep.input_files import IMAGES, InputFiles
from egma_prep.manifests import manifest
from egma_prep.parse.mimic_cxr import ImageTables, needed_columns

_LAYOUT = manifest("mimic-cxr")["layout"]


class CxrTree(NamedTuple):
    """MIMIC-CXR-JPG's or MIMIC-CXR's folders: those of ``--images`` first, then DATA's."""

    homes: tuple[str, ...]

    def image(self, files: InputFiles, subject_id: str, study_id: str, dicom_id: str) -> str:
        """Find an image, a JPEG before a DICOM; where there is none, say where it should be."""
        names = [f"{dicom_id}{suffix}" for suffix in _LAYOUT["image_suffixes"]]
        return self._first(files, subject_id, study_id, [f"/{name}" for name in names])

    def report(self, files: InputFiles, subject_id: str, study_id: str) -> str:
        """Find a study's report, or where it should be."""
        return self._first(files, subject_id, study_id, [_LAYOUT["report_suffix"]])

    def tables(self, files: InputFiles) -> ImageTables:
        """Read the tables that are there."""
        paths = {kind: self.table_path(files, kind) for kind in manifest("mimic-cxr")["tables"]}
        return ImageTables(
            {
                kind: files.columns(path, needed_columns(kind))
                for kind, path in paths.items()
                if path is not None
            }
        )

    def table_path(self, files: InputFiles, kind: str) -> str | None:
        """Find one table, the newest version of it; None where there is none."""
        for home in self.homes:
            for pattern in _LAYOUT["native_tables"]:
                if found := files.matching(home, pattern.format(table=kind)):
                    return found[-1]
        return None

    def patients(self, files: InputFiles) -> set[str]:
        """List the patients who have a folder; a download may be partial."""
        return {
            patient.removeprefix("p")
            for home in self.homes
            for pattern in _LAYOUT["prefix_folders"]
            for prefix in files.matching(home, pattern)
            for patient in files.folders(prefix)
        }

    def _first(self, files: InputFiles, subject_id: str, study_id: str, endings: list[str]) -> str:
        ids = {"prefix": subject_id[:2], "subject": subject_id, "study": study_id}
        places = [
            f"{home}{study.format(**ids)}{ending}"
            for ending in endings
            for home in self.homes
            for study in _LAYOUT["study"]
        ]
        return next((place for place in places if files.has(place)), places[0])


@lru_cache(maxsize=4)
def cxr_tree(files: InputFiles) -> CxrTree:
    """Look for the folders that hold ``files/p10`` and so on.

    Raises
    ------
    BadUsageError
        If there are none.
    """
    roots = ["", IMAGES] if files.images is None else [IMAGES, ""]
    homes = [home for root in roots for home in cxr_homes(files, root)]
    if not homes:
        raise BadUsageError(
            f"no MIMIC-CXR images (files/p10/...) in {files.images or files.root}; give the folder"
            " of MIMIC-CXR-JPG or MIMIC-CXR by --images DIR"
        )
    return CxrTree(tuple(homes))


def image_size(files: InputFiles, path: str) -> tuple[int, int]:
    """Read width and height from an image's header, where no table has them."""
    return size_in_header(files.read(path), path)


def cxr_homes(files: InputFiles, root: str = "", homes: tuple[str, ...] = ()) -> list[str]:
    """List the folders that hold patients' images, as beginnings of paths, newest first."""
    places = [
        place if place == root else f"{place}/"
        for home in homes or _LAYOUT["homes"]
        for place in reversed(files.matching(root, home))
    ]
    return [
        place
        for place in places
        if any(files.matching(place, folder) for folder in _LAYOUT["prefix_folders"])
    ]
