"""What decoding JPEGs at half size changes in the frame, over a folder of them; prints Markdown.

Run by ``make bench`` over phantoms brought to several sizes; over your own JPEGs by
``python benchmarks/half_size.py FOLDER``, which looks below it too. Colour JPEGs are judged by
their luma, though they are never read at half size.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.frame import frame_of
from egma_prep.images import to_frame
from egma_prep.images.jpeg import HALF_SIZE_FROM_PX, START, parse_jpeg
from egma_prep.synth import write_tree

NEAR, PROMISED = 2, 0.999
SIDES = (1792, 2000, 2250, 2500, HALF_SIZE_FROM_PX, 3056)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="phantoms where it is not given")
    folder = parser.parse_args().folder
    found: dict[int, list[tuple[float, int, str]]] = defaultdict(list)
    for name, data in pictures_below(folder) if folder else phantoms():
        try:
            width, height, _ = parse_jpeg(data, name)
            apart = grey_levels_apart(data, name, width, height)
        except (BadInputError, cv2.error) as error:
            print(error, file=sys.stderr)
            continue
        if max(width, height) >= 4 * 224:  # fewer stored pixels than frame pixels by half size
            side = next((one for one in reversed(SIDES) if max(width, height) >= one), 0)
            found[side].append((float(np.mean(apart <= NEAR)), int(apart.max()), name))
    print(
        f"| long side, px | read at | files | {PROMISED:.1%} of pixels within {NEAR} levels", end=""
    )
    print(" | worst share | largest difference | of |")
    print("|---|---|---|---|---|---|---|")
    for side, rows in sorted(found.items()):
        kept = sum(share >= PROMISED for share, _, _ in rows)
        share, _, name = min(rows)
        size = "half size" if side >= HALF_SIZE_FROM_PX else "full size"
        most = max(row[1] for row in rows)
        print(f"| from {side:,} | {size} | {len(rows)} | {kept} | {share:.2%} | {most} | {name} |")


def pictures_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Read every JPEG below a folder, told by its content."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with path.open("rb") as file:
            data = file.read(2)
            if data == START:
                yield str(path.relative_to(folder)), data + file.read()


def phantoms() -> Iterator[tuple[str, bytes]]:
    """Draw a few phantoms, and bring each to every size."""
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), 6, seed=11)
        for number, path in enumerate(sorted(Path(folder).rglob("*.jpg"))):
            grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            assert grey is not None
            for side in SIDES:
                size = [round(length * side / max(grey.shape)) for length in reversed(grey.shape)]
                made = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
                yield f"phantom {number}", cv2.imencode(".jpg", made)[1].tobytes()


def grey_levels_apart(data: bytes, name: str, width: int, height: int) -> NDArray[np.int64]:
    """Compare the frame of a half-size decode with that of a full one."""
    frame, stored = frame_of(width, height), np.frombuffer(data, np.uint8)
    frames = []
    for reduction, flag in ((1, cv2.IMREAD_GRAYSCALE), (2, cv2.IMREAD_REDUCED_GRAYSCALE_2)):
        pixels = cv2.imdecode(stored, flag | cv2.IMREAD_IGNORE_ORIENTATION)
        if pixels is None:
            raise BadInputError("undecodable_image", name, f"{name} cannot be decoded")
        frames.append(to_frame(pixels.astype(np.uint8), reduction, frame).astype(np.int64))
    return np.abs(frames[0] - frames[1])


if __name__ == "__main__":
    main()
