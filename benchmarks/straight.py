"""REFLACX readings by a straight script, beside the ETL; prints Markdown.

The script reads with pandas, sums the REFLACX authors' density (scipy's bivariate normal, sigma one
degree) of each fixation on the whole image, shrinks the map to 224 and stores it as PNG; it aligns
fixations with sentences as our ETL does, row by row.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from scipy.stats import multivariate_normal

from benchmarks.etl import etl_seconds, grow, part_of, startup_seconds


def main() -> None:
    """Time both on the same tree; the script on its first readings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=480)
    parser.add_argument("--sample", type=int, default=3, help="readings for the script")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree = Path(folder) / "tree"
        grow(tree, arguments.readings, arguments.readings // 4)
        few = Path(folder) / "few"
        part_of(tree, few, 2, len(list(tree.glob("patient_*"))))
        startup = startup_seconds(few, Path(folder) / "out")
        seconds, _, written = etl_seconds(tree, Path(folder) / "out")
        ours = (seconds - startup) / written
        homes = sorted(tree.glob("patient_*/REFLACX/main_data/*"))
        usable = [home for home in homes if image_of(home)][: arguments.sample]
        spent = [straight(home, Path(folder)) for home in usable]
    print("| | seconds a reading | times ours |\n|---|---|---|")
    print(f"| the ETL, two workers, {written} readings | {ours:.4f} | 1 |")
    script = float(np.mean(spent))
    print(f"| a straight script, {len(spent)} readings | {script:.1f} | {script / ours:,.0f} |")


def straight(home: Path, target: Path) -> float:
    """Make one reading's image and maps; return the seconds."""
    begin = time.perf_counter()
    image = cv2.imread(str(image_of(home)), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    cv2.imwrite(str(target / "image.png"), shrunk(image))
    words = pd.read_csv(home / "timestamps_transcription.csv")
    fixations = pd.read_csv(home / "fixations.csv")
    ends = words["word"].isin([".", "?", "!"])
    grid = np.stack(np.mgrid[: image.shape[0], : image.shape[1]], axis=-1)
    for number, sentence in words.groupby(ends.cumsum().shift(fill_value=0)):
        first, last = sentence["timestamp_start_word"].min(), sentence["timestamp_end_word"].max()
        total = np.zeros(image.shape)
        for _, row in fixations.iterrows():
            seconds = min(row["timestamp_end_fixation"], last)
            seconds -= max(row["timestamp_start_fixation"], first)
            if seconds > 0:
                sigma_y = row["angular_resolution_y_pixels_per_degree"]
                sigma_x = row["angular_resolution_x_pixels_per_degree"]
                at = [row["y_position"], row["x_position"]]
                total += seconds * multivariate_normal(at, [sigma_y**2, sigma_x**2]).pdf(grid)
        if total.any():
            map_ = shrunk(total / total.max())
            cv2.imwrite(str(target / f"{number}.png"), np.round(255 * map_).astype(np.uint8))
    return time.perf_counter() - begin


def image_of(home: Path) -> Path | None:
    """Look up a reading's image."""
    metadata = pd.read_csv(home.parents[1] / "metadata.csv")
    for image_id in metadata.loc[metadata["id"] == home.name, "dicom_id"]:
        return next(home.parents[2].glob(f"CXR-JPG/s*/{image_id}.jpg"), None)
    return None


def shrunk(image: np.ndarray) -> np.ndarray:
    """Pad to a square and average to 224 x 224."""
    rows, columns = image.shape
    side = max(rows, columns)
    margins = [((side - rows) // 2, (side - rows + 1) // 2)]
    margins.append(((side - columns) // 2, (side - columns + 1) // 2))
    return cv2.resize(np.pad(image, margins), (224, 224), interpolation=cv2.INTER_AREA)


if __name__ == "__main__":
    main()
