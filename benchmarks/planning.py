"""What readings cost before and after they are read, up to MIMIC-CXR and beyond; prints Markdown.

The trees are MIMIC-CXR-JPG's tables and patients' folders with nothing in them: every reading is
planned, looked for, rejected and accounted for. Then an epoch of as many is shuffled.
"""

import argparse
import gzip
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.etl import WORKERS, Watch
from egma_prep.sources.manifests import manifest
from egma_train.data.sampling import Batches

IMAGES_OF_A_PATIENT, IMAGES_OF_A_STUDY = 6, 2
MIMIC_CXR = manifest("mimic-cxr")["counts"]["images"]
SHUFFLED = (10_000, MIMIC_CXR, 10 * MIMIC_CXR)


def main() -> None:
    """Measure two sizes, tell what they foretell, shuffle."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, nargs=2, default=[10_000, 50_000])
    arguments = parser.parse_args()
    names = ("planning, s", "parts and merge, s", "driver's peak, MB", "run.json, MB", "again, s")
    rows = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        for number in arguments.readings:
            tree = Path(folder) / "tree"
            write_tables(tree, number)
            rows.append(accounted(tree, Path(folder) / "out"))
            shutil.rmtree(tree)
    print(f"| readings | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}")
    for number, row in zip(arguments.readings, rows, strict=True):
        print(f"| {number:,} | {' | '.join(f'{value:.1f}' for value in row)} |")
    slope, start = np.polyfit(arguments.readings, rows, 1)
    for number in (MIMIC_CXR, 10 * MIMIC_CXR):
        foretold = start + slope * number
        print(f"| {number:,}, foretold | {' | '.join(f'{value:,.0f}' for value in foretold)} |")
    print("\n| readings | shuffling an epoch into batches of 100, s |\n|---|---|")
    for number in SHUFFLED:
        begin = time.perf_counter()
        Batches(np.arange(number), np.arange(number), 100, 0).of(0)
        print(f"| {number:,} | {time.perf_counter() - begin:.2f} |")


def write_tables(root: Path, images: int) -> None:
    """Write MIMIC-CXR-JPG's tables of invented images, and the patients' empty folders."""
    labels = manifest("mimic-cxr")["labels"]["chexpert"]
    drawn = random.Random(0)
    lines = {
        "metadata": ["dicom_id,subject_id,study_id,ViewPosition,Rows,Columns"],
        "split": ["dicom_id,study_id,subject_id,split"],
        "chexpert": [f"subject_id,study_id,{','.join(labels)}"],
    }
    for i in range(images):
        subject = 90_000_000 + i // IMAGES_OF_A_PATIENT
        study = 90_000_000 + i // IMAGES_OF_A_STUDY
        image = "-".join(f"{drawn.getrandbits(32):08x}" for _ in range(5))
        lines["metadata"].append(f"{image},{subject},{study},PA,3056,2544")
        lines["split"].append(f"{image},{study},{subject},train")
        if i % IMAGES_OF_A_STUDY == 0:
            lines["chexpert"].append(f"{subject},{study},1.0{',' * (len(labels) - 1)}")
        if i % IMAGES_OF_A_PATIENT == 0:
            (root / f"files/p{str(subject)[:2]}/p{subject}").mkdir(parents=True)
    for name, own in lines.items():
        table = root / f"mimic-cxr-2.0.0-{name}.csv.gz"
        table.write_bytes(gzip.compress("\n".join(own).encode(), compresslevel=1))


def accounted(tree: Path, out: Path) -> list[float]:
    """Run twice: seconds of planning and of the rest, peak and record in MB, the second run."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("egma-prep")), "run", str(tree), "--out"]
    command += [str(out), "--workers", str(WORKERS)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    watch = Watch(process.pid, alone=True)
    assert process.stdout is not None
    planned = next(time.perf_counter() for line in process.stdout if "readings planned" in line)
    rest, _ = process.communicate()
    end = time.perf_counter()
    watch.stop()
    assert "written 0" in rest, rest
    record = (out / "run.json").stat().st_size / 1e6
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return [planned - begin, end - planned, watch.peak / 1e6, record, time.perf_counter() - end]


if __name__ == "__main__":
    main()
