"""SIIM-ACR's run-length table to a list: Pneumothorax or No Finding."""

import re
from pathlib import Path

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.image_files import stem
from egma_train.evaluate.datasets.image_lists import ImageList, labelled
from egma_train.evaluate.datasets.shipped import shipped_toml
from egma_train.evaluate.datasets.user_files import number, read_table

_CLASSES = ("No Finding", "Pneumothorax")
_NO_MASK = -1.0


def read_siim(path: Path, seed: int) -> ImageList:
    """Read one or more rows an image; any mask is a pneumothorax, a blank one is unknown."""
    columns = shipped_toml("siim-acr")["columns"]
    by_id: dict[str, str] = {}
    blank = set()
    for row_number, row in read_table(path, columns["id"], columns["mask"]):
        one, mask = stem(row[columns["id"]]), row[columns["mask"]]
        if not row[columns["id"]]:
            raise BadUsageError(f"{path}, row {row_number}: no {columns['id']}")
        if not mask:
            blank.add(one)
            continue
        found = _class_of(mask)
        if found is None:
            raise BadUsageError(
                f"{path}, row {row_number}: {columns['mask']} of {one} is {mask[:40]!r}, neither"
                " pairs of numbers that mark something nor -1"
            )
        if by_id.setdefault(one, found) != found:
            raise BadUsageError(f"{path}, row {row_number}: {one} has a mask and -1")
    unknown = len(blank - by_id.keys())
    notes = [f"{unknown} images with a blank mask left out"] * bool(unknown)
    return labelled(f"SIIM-ACR by {path.name}", _CLASSES, by_id, notes)


def _class_of(mask: str) -> str | None:
    """Tell runs (start and length, in pairs) from -1 as re-saved; None if it is neither.

    Runs that are all 0 long mark nothing: no mask, or a mask that was lost? -1 says the former.
    """
    bare = mask.strip("[]()'\" ")
    if number(bare) == _NO_MASK:
        return "No Finding"
    # A comma within what blanks part is a decimal one: "1,0 5,0", but "1, 5" and "1,5".
    decimal = " " in bare and not re.search(r",(\s|$)", bare)
    values = [number(value) for value in re.findall(r"[^\s;]+" if decimal else r"[^\s,;]+", bare)]
    whole = all(value is not None and value >= 0 and value.is_integer() for value in values)
    pairs = values and len(values) % 2 == 0 and whole
    return "Pneumothorax" if pairs and any(values[1::2]) else None
