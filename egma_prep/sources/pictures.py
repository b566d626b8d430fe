"""Where pictures lie that have names of their own in folders as they were unpacked."""

import re
from collections.abc import Mapping
from typing import Any

from egma_prep.errors import BadInputError
from egma_prep.sources.files import IMAGES, NOT_UNPACKED, InputFiles

_NO_FILE_NAME = re.compile(r"\.|.{201}|.*[/\\\0-\x1f\ud800-\udfff]", re.DOTALL)


def image_path(files: InputFiles, row: Mapping[str, str], layout: Mapping[str, Any]) -> str:
    """Find a picture by its dataset's names for it, or say where it should be.

    Parameters
    ----------
    row : mapping
        What the names are made of; nothing in it is to lead elsewhere.
    layout : mapping
        ``names``, such as ``{image}.png``, and ``folders`` below that of the images.
    """
    used = [field for field in row if any(f"{{{field}" in name for name in layout["names"])]
    for field in used:
        if _NO_FILE_NAME.match(row[field]):
            raise BadInputError("bad_id", "", f"the {field} {row[field][:60]!r}")
    root = "" if files.images is None else IMAGES
    folders = [one for one in layout["folders"] if not one or files.has(root + one)]
    names = [name.format(**row) for name in layout["names"]]
    path = files.first([f"{root}{folder}{name}" for folder in folders for name in names])
    if files.images is None and not files.has(path):
        what = f"{path} is missing: give the folder of the pictures by --images DIR"
        raise BadInputError("missing_file", path, what)
    return path


def remark_archives(files: InputFiles) -> None:
    """Tell of archives beside DATA's files or the pictures, in which they may still be."""
    for root in ("",) if files.images is None else ("", IMAGES):
        for name in files.packed_in(root):
            files.remark(f"{root}{name}", NOT_UNPACKED)
