"""The ETL beside merely decoding its images, in one run: speed, start-up, memory.

Run by ``make bench``; prints Markdown. Every image is full size and textured, about 2 MB as a JPEG.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil

from egma_prep.gaze.frame import frame_of
from egma_prep.images import framed, image_size
from egma_prep.synth import write_tree

WORKERS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=2000)
    parser.add_argument("--drawn", type=int, default=125, help="different readings; the rest copy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        whole = Path(folder) / "whole"
        grow(whole, arguments.readings, arguments.drawn)
        images = listed_images(whole)
        megabytes = sum(path.stat().st_size for path in images) / len(images) / 1e6
        print(
            f"{WORKERS} processes; JPEGs of {megabytes:.1f} MB; start-up is a run on 2 patients\n"
        )
        print("| readings | images | decoding alone, s | ETL, s | start-up, s | ", end="")
        print("(ETL - start-up) / decoding | readings/s | decoding share | peak memory, MB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for share in (8, 4, 2, 1):
            number = arguments.readings // share
            tree = Path(folder) / f"tree-{number}"
            part_of(whole, tree, number, arguments.readings)
            few = Path(folder) / "few"
            part_of(whole, few, 2, len(list(whole.glob("patient_*"))))
            print(row(tree, few, Path(folder) / "out"), flush=True)
            shutil.rmtree(few)
            shutil.rmtree(tree)


def grow(
    tree: Path,
    readings: int,
    drawn: int,
    *,
    small: bool = False,
    copy_file: Callable[[str, str], str] = shutil.copy2,
) -> None:
    """Draw some readings, and copy them under other patients' numbers.

    Of patients who are not `small` those stay whose images are all of the usual 2544 x 3056 pixels
    or so, 2 MB: about half, so twice as many are drawn.
    """
    write_tree(tree, drawn if small else 2 * drawn, small=small, seed=11)
    shutil.rmtree(tree / "spreadsheets")
    if not small:
        for patient in tree.glob("patient_*"):
            if min(map(megapixels, listed_images(tree, patient.name)), default=0) < 7:
                shutil.rmtree(patient)
    patients = sorted(tree.glob("patient_*"))
    for copy in range(1, readings // drawn):
        for patient in patients:
            before = patient.name.removeprefix("patient_")
            after = str(int(before) + copy * 1_000_000)
            made = patient.with_name(f"patient_{after}")
            shutil.copytree(patient, made, copy_function=copy_file)
            for path in made.rglob("*"):
                rename(path, before, after, copy)
            for path in sorted(made.rglob("*"), reverse=True):
                if renamed(path.name, copy) != path.name:
                    path.rename(path.with_name(renamed(path.name, copy)))


def megapixels(image: Path) -> float:
    """Read a JPEG's size."""
    width, height = image_size(image.read_bytes(), image.name)
    return width * height / 1e6


def rename(path: Path, before: str, after: str, copy: int) -> None:
    """Give a copied table the copy's ids."""
    if path.suffix == ".csv":
        text = path.read_text().replace(before, after)
        path.write_text(renamed(text, copy))


def renamed(text: str, copy: int) -> str:
    """Change reading ids and DICOM ids; both keep their form."""
    text = re.sub(r"\bP(\d)\d\dR", lambda found: f"P{found[1]}{copy:02d}R", text)
    return re.sub(r"\b[0-9a-f]{2}([0-9a-f]{6}(?:-[0-9a-f]{8}){3,4})", rf"{copy:02x}\1", text)


def part_of(whole: Path, tree: Path, number: int, readings: int) -> None:
    """Link a share of the patients."""
    patients = sorted(whole.glob("patient_*"))
    tree.mkdir()
    for patient in patients[: len(patients) * number // readings]:
        (tree / patient.name).symlink_to(patient)


def row(tree: Path, few: Path, out: Path) -> str:
    """Time start-up, decoding, the ETL, and decoding again, with warm files."""
    images = listed_images(tree)
    for path in images:
        path.read_bytes()
    startup = startup_seconds(few, out)
    first = decoding_seconds(images)
    seconds, memory, written = etl_seconds(tree, out)
    decode = (first + decoding_seconds(images)) / 2
    steady = seconds - startup
    return (
        f"| {written} | {len(images)} | {decode:.1f} | {seconds:.1f} | {startup:.1f}"
        f" | {steady / decode:.2f} | {written / steady:.1f} | {decode / steady:.0%}"
        f" | {memory / 1e6:.0f} |"
    )


def listed_images(tree: Path, patient: str = "patient_*") -> list[Path]:
    """List the images that the metadata have; laterals are not among them."""
    tables = tree.glob(f"{patient}/CXR-JPG/cxr_meta.csv")
    ids = {line.split(",")[1] for path in tables for line in path.read_text().splitlines()[1:]}
    return sorted(path for path in tree.glob(f"{patient}/CXR-JPG/s*/*.jpg") if path.stem in ids)


def decoding_seconds(images: list[Path]) -> float:
    """Decode every image into the frame in two processes, nothing else."""
    with ProcessPoolExecutor(WORKERS) as pool:
        list(pool.map(decode, images[:WORKERS]))
        begin = time.perf_counter()
        list(pool.map(decode, images, chunksize=8))
        return time.perf_counter() - begin


def decode(path: Path) -> int:
    """Decode one image as the ETL does."""
    data = path.read_bytes()
    width, height = image_size(data, path.name)
    return int(framed(data, path.name, frame_of(width, height, "pad"))[0][0, 0])


def startup_seconds(few: Path, out: Path) -> float:
    """Run the ETL on hardly anything; the faster of two, since the first may read from disk."""
    return min(etl_seconds(few, out)[0] for _ in range(2))


def etl_seconds(tree: Path, out: Path) -> tuple[float, float, int]:
    """Run the ETL; return seconds, peak bytes of its processes, readings written."""
    shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("egma-prep")), "run", str(tree)]
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(out), "--workers", str(WORKERS)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    watch = Watch(process.pid)
    text, _ = process.communicate()
    seconds = time.perf_counter() - begin
    watch.stop()
    found = re.search(r"= written (\d+)", text)
    assert process.returncode == 0 and found, text
    return seconds, watch.peak, int(found[1])


class Watch(threading.Thread):
    """Samples the memory of a process, and of those that it started unless it is watched alone.

    Asking for shares of shared pages takes the watched processes' time too, so it is done seldom;
    a process alone knows its own peak.
    """

    def __init__(self, pid: int, *, alone: bool = False) -> None:
        super().__init__(daemon=True)
        self.peak, self._alone = 0.0, alone
        self._process, self._over = psutil.Process(pid), threading.Event()
        self.start()

    def run(self) -> None:
        """Sample until stopped."""
        while not self._over.wait(0.1 if self._alone else 1.0):
            self.peak = max(self.peak, self._own_peak() if self._alone else sum(self._memory()))

    def _own_peak(self) -> float:
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                return 1024 * float(found[1])
        return 0.0

    def _memory(self) -> Iterator[float]:
        try:
            for process in [self._process, *self._process.children(recursive=True)]:
                yield process.memory_full_info().pss
        except psutil.Error:
            return

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self.join()


if __name__ == "__main__":
    main()
