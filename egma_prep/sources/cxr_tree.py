"""Where MIMIC-CXR's images, reports and tables lie: shared by the sources that need them."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.images import image_size as size_in_header
from egma_prep.sources.csv_table import Table
from egma_prep.sources.cxr_tables import READ, REQUIRED, ImageTables
from egma_prep.sources.files import IMAGES, MAY_BE_CUT, NOT_UNPACKED, InputFiles
from egma_prep.sources.manifests import manifest
from egma_prep.sources.reading import PlannedReading

_LAYOUT = manifest("mimic-cxr")["layout"]
IMAGE_SUFFIXES = _LAYOUT["image_suffixes"]
"""Of the names that an image's file may have, the likely ones first."""
_PACKED_PATIENTS = re.compile(r"(files|p\d+)\.\w+", re.IGNORECASE)
_ANY_ID = "-".join(["[0-9a-f]" * 8] * 5)  # a DICOM id, as a glob
_TOLD_BY = {"metadata": "view", "split": "split", "chexpert": "CheXpert labels"}


class CxrTree(NamedTuple):
    """MIMIC-CXR-JPG's or MIMIC-CXR's folders: those of ``--images`` first, then DATA's."""

    homes: tuple[str, ...]

    def image(self, files: InputFiles, planned: PlannedReading) -> str:
        """Find an image, a JPEG before a DICOM; where there is none, say where it should be.

        DICOM ids are unique, so that a flat folder of images is as good, but --images alone: a
        DATA that holds images so is nobody's release.
        """
        names = [f"{planned.dicom_id}{suffix}" for suffix in IMAGE_SUFFIXES]
        flat = [f"{IMAGES}{name}" for name in names] if files.images is not None else []
        return self._first(files, planned, [f"/{name}" for name in names], flat)

    def report(self, files: InputFiles, planned: PlannedReading) -> str:
        """Find a study's report, or where it should be."""
        return self._first(files, planned, [_LAYOUT["report_suffix"]])

    def tables(self, files: InputFiles) -> ImageTables:
        """Read the tables that are there; of one that is not, or is damaged, a remark is made."""
        found: dict[str, Table] = {}
        for kind, told in _TOLD_BY.items():
            path = self.table_path(files, kind)
            if path is None:
                self._remark_missing(files, kind, told)
                continue
            try:
                table = files.columns(path, READ[kind], REQUIRED[kind])
            except BadInputError as error:
                files.remark(
                    path, f"passed over, so that no reading has its {told} from there ({error})"
                )
                files.remark_copy(path)
                continue
            found[kind] = table
            if table.is_cut:
                files.remark(path, MAY_BE_CUT)
            for name in sorted(table.repeated & {*READ[kind]}):
                files.remark(path, f"the column {name!r} stands there twice, and is left out")
        return ImageTables(found)

    def table_path(self, files: InputFiles, kind: str) -> str | None:
        """Find one table, the newest version of it; None where there is none."""
        for home in dict.fromkeys([*self.homes, *_roots(files)]):
            for pattern in _LAYOUT["native_tables"]:
                if found := files.matching(home, pattern.format(table=kind)):
                    return found[-1]
        return None

    def _remark_missing(self, files: InputFiles, kind: str, told: str) -> None:
        alike = [one for home in self.homes for one in files.matching(home, f"*{kind}*.csv*")]
        wanted = _LAYOUT["native_tables"][0].format(table=kind)
        files.remark(
            f"{files.images or files.root}",
            f"no table {wanted}, so that no reading has its {told} from there; copy it there"
            f" from MIMIC-CXR-JPG{', or mend the name of ' + alike[0] if alike else ''}",
        )

    def patients(self, files: InputFiles) -> set[str]:
        """List the patients who have a folder; a download may be partial."""
        found: set[str] = set()
        for home in self.homes:
            for pattern in _LAYOUT["prefix_folders"]:
                for prefix in files.matching(home, pattern):
                    try:
                        found |= {one.lower().removeprefix("p") for one in files.folders(prefix)}
                    except BadInputError:
                        files.remark(prefix, "may not be read, so that no patient in it is planned")
        return found

    def _first(
        self,
        files: InputFiles,
        planned: PlannedReading,
        endings: list[str],
        elsewhere: Sequence[str] = (),
    ) -> str:
        subject = planned.subject_id
        ids = {"prefix": subject[:2], "subject": subject, "study": planned.study_id}
        places = [
            f"{home}{study.format(**ids)}{ending}"
            for ending in endings
            for home in self.homes
            for study in _LAYOUT["study"]
        ]
        return files.first([*places, *elsewhere])


@lru_cache(maxsize=4)
def cxr_tree(files: InputFiles) -> CxrTree:
    """Look for the folders that hold ``files/p10`` and so on.

    Raises
    ------
    BadUsageError
        If there are none.
    """
    roots = _roots(files)
    homes = [home for root in roots for home in cxr_homes(files, root)]
    # PhysioNet's archives unpack to folders that are named by the dataset's title.
    homes = homes or [home for root in roots for home in cxr_homes(files, root, ("*",))]
    if (
        not homes
        and files.images
        and any(files.matching(IMAGES, f"{_ANY_ID}{suffix}") for suffix in IMAGE_SUFFIXES)
    ):
        homes = [IMAGES]
    packed = [
        f"{place}{name}"
        for place in [*roots, *homes, *(f"{home}files/" for home in homes)]
        for name in files.packed_in(place)
        if _PACKED_PATIENTS.fullmatch(name) or not homes
    ]
    if not homes:
        archives = f"; unpack {packed[0]}, if they are in there" if packed else ""
        raise BadUsageError(
            f"no MIMIC-CXR images (files/p10/...) in {files.images or files.root}; give the folder"
            f" of MIMIC-CXR-JPG or MIMIC-CXR by --images DIR{archives}"
        )
    for path in packed:
        files.remark(path, NOT_UNPACKED)
    return CxrTree(tuple(homes))


def _roots(files: InputFiles) -> list[str]:
    return [""] if files.images is None else [IMAGES, ""]


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
