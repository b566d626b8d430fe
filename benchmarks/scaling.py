"""What a reading costs by stage, and whether that foretells a run of 10,000; prints Markdown.

Every reading is full size; beyond 125 drawn ones, images are links to theirs, so that they are read
from memory: what remains is the work.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.etl import WORKERS, Watch, grow, part_of

DRAWN = 125
STAGES = ("start and plan", "parts", "merge", "run again")
FILES = ("shards", "images", "tables", "state", "run.json")


class Run(NamedTuple):
    """Seconds by stage, bytes by kind of output, and peaks of memory in bytes."""

    readings: int
    seconds: dict[str, float]
    bytes: dict[str, int]
    peak: float
    driver_peak: float


def main() -> None:
    """Measure small runs, fit a line to each stage, foretell the largest run, measure it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--large", type=int, nargs="+", default=[5000, 10_000])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        whole = Path(folder) / "whole"
        largest = max(arguments.large)
        grow(whole, largest, DRAWN, copy_file=linked)
        runs = []
        for size in (*arguments.sizes, *sorted(arguments.large)):
            tree = Path(folder) / "tree"
            part_of(whole, tree, size, largest)
            runs.append(measured(tree, Path(folder) / "out"))
            shutil.rmtree(tree)
            print(f"{runs[-1]}", file=sys.stderr, flush=True)
    tell(runs, len(arguments.sizes))


def linked(source: str, target: str) -> str:
    """Link an image, copy what will be changed."""
    if source.endswith(".jpg"):
        os.link(source, target)
        return target
    return shutil.copy2(source, target)


def measured(tree: Path, out: Path) -> Run:
    """Run the ETL twice into a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    begin, times = time.time(), []
    process = egma_prep(tree, out)
    everyone, driver = Watch(process.pid), Watch(process.pid, alone=True)
    assert process.stdout is not None
    for line in process.stdout:
        times.append((time.time(), line))
    assert process.wait() == 0, times
    end = time.time()
    for watch in (everyone, driver):
        watch.stop()
    planned = next(at for at, line in times if "readings planned" in line)
    last_part = max(path.stat().st_mtime for path in out.glob("state/part-*/record.json"))
    again = time.time()
    assert egma_prep(tree, out).wait() == 0
    seconds = (planned - begin, last_part - planned, end - last_part, time.time() - again)
    sizes = {name: size_of(out / name) for name in FILES}
    written = next(line for _, line in times if "= written" in line)
    number = int(written.split("= written ")[1].split()[0])
    return Run(number, dict(zip(STAGES, seconds, strict=True)), sizes, everyone.peak, driver.peak)


def egma_prep(tree: Path, out: Path) -> subprocess.Popen[str]:
    """Start the command."""
    command = [str(Path(sys.executable).with_name("egma-prep")), "run", str(tree)]
    return subprocess.Popen(
        [*command, "--out", str(out), "--workers", str(WORKERS)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def size_of(path: Path) -> int:
    """Sum the bytes of a file or of all files below a folder."""
    return sum(one.stat().st_size for one in (path, *path.rglob("*")) if one.is_file())


def line_of(runs: list[Run], values: list[float]) -> tuple[float, float]:
    """Fit a constant and a cost of a reading."""
    slope, start = np.polyfit([run.readings for run in runs], values, 1)
    return float(start), float(slope)


def tell(runs: list[Run], n_small: int) -> None:
    """Print the runs, the model and how well it foretold the last one."""
    small, large = runs[:n_small], runs[-1]
    print("| readings | " + " | ".join(f"{name}, s" for name in STAGES), end="")
    print(" | readings/s in parts | peak of all, MB | peak of the driver, MB |")
    print("|---|" + "---|" * (len(STAGES) + 3))
    for run in runs:
        cells = [f"{run.seconds[name]:.1f}" for name in STAGES]
        rate = run.readings / run.seconds["parts"]
        cells += [f"{rate:.0f}", f"{run.peak / 1e6:.0f}", f"{run.driver_peak / 1e6:.0f}"]
        print(f"| {run.readings} | {' | '.join(cells)} |")
    print(f"\nFrom the runs of {', '.join(str(run.readings) for run in small)}:\n")
    print(f"| | once | a reading | foretold for {large.readings} | measured |")
    print("|---|---|---|---|---|")
    for name in STAGES:
        once, each = line_of(small, [run.seconds[name] for run in small])
        foretold = once + each * large.readings
        print(f"| {name} | {once:.1f} s | {each * 1e3:.2f} ms ", end="")
        print(f"| {foretold:.0f} s | {large.seconds[name]:.0f} s |")
    for name in FILES:
        once, each = line_of(small, [run.bytes[name] for run in small])
        foretold = once + each * large.readings
        print(f"| {name} | {once / 1e3:.0f} kB | {each / 1e3:.2f} kB ", end="")
        print(f"| {foretold / 1e6:.0f} MB | {large.bytes[name] / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
