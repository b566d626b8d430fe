"""``SHA256SUMS.txt`` at a dataset's root, as PhysioNet's server writes it: digest, blank, path."""

import hashlib
from pathlib import Path

_NOT_RELEASED = (
    "index.html", ".DS_Store", "PHANTOM.txt", "PHANTOM-truth.json", "PHANTOM-unfinished",
    "SHA256SUMS.txt",
)  # fmt: skip


def write_checksums(root: Path) -> None:
    """List every released file of a tree; MIMIC-CXR's below ``images`` have a list of their own."""
    images = root / "images"
    found = sorted(path for path in root.rglob("*") if path.is_file())
    for home in (root, images) if images.is_dir() else (root,):
        lines = [
            f"{hashlib.sha256(path.read_bytes()).hexdigest()} {path.relative_to(home).as_posix()}\n"
            for path in found
            if path.name not in _NOT_RELEASED and path.is_relative_to(images) == (home == images)
        ]
        (home / "SHA256SUMS.txt").write_text("".join(lines), encoding="utf-8", newline="\n")
