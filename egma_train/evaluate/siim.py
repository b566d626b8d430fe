"""SIIM-ACR's run-length table to a list: Pneumothorax or No Finding."""

from pathlib import Path

from egma_train.evaluate.image_lists import ImageList, labelled, read_table
from egma_train.evaluate.shipped import shipped_toml

_CLASSES = ("No Finding", "Pneumothorax")
_NO_MASK = "-1"


def read_siim(path: Path, seed: int) -> ImageList:
    """Read one or more rows an image; any mask is a pneumothorax, a blank one is unknown."""
    columns = shipped_toml("siim-acr")["columns"]
    by_id: dict[str, str] = {}
    blank = set()
    for row in read_table(path, columns["id"], columns["mask"]):
        one, mask = row[columns["id"]], row.get(columns["mask"], "")
        if not mask:
            blank.add(one)
        elif by_id.get(one) != "Pneumothorax":
            by_id[one] = "No Finding" if mask == _NO_MASK else "Pneumothorax"
    unknown = len(blank - by_id.keys())
    notes = [f"{unknown} images with a blank mask left out"] * bool(unknown)
    return labelled(f"SIIM-ACR by {path.name}", _CLASSES, by_id, notes)
