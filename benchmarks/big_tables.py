"""What the large tables of raw samples cost, which hardly anything reads; prints Markdown.

Run by ``make bench``. EYE GAZE's ``eye_gaze.csv`` is grown to its released 400 MB, in a phantom
tree of its own layout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq

from benchmarks.etl import Watch
from egma_prep.synth import write_tree


def main() -> None:
    """Measure both commands before and after the table has grown, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=400)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        write_tree(tree, 40, small=True, seed=5, layout="eye_gaze")
        samples = next(tree.rglob("eye_gaze.csv"))
        print("| `eye_gaze.csv`, MB | command | s | peak of all, MB | reads the table |")
        print("|---|---|---|---|---|")
        for number in (0, 1):
            if number:
                grow(samples, arguments.megabytes * 10**6)
            place = out.with_name(f"out-{number}")
            for command in ("run", "scan"):
                options = ["--out", str(place), "--workers", "2"] if command == "run" else []
                seconds, peak = measured([command, str(tree), *options])
                inputs = pq.read_table(place / "inputs.parquet").column("path").to_pylist()
                read = command == "scan" or any(path.endswith(samples.name) for path in inputs)
                size, answer = samples.stat().st_size, "yes" if read else "no"
                print(f"| {size / 1e6:.1f} | `{command}` | {seconds:.1f} ", end="")
                print(f"| {peak / 1e6:.0f} | {answer} |", flush=True)


def grow(table: Path, size: int) -> None:
    """Repeat a table's rows until it has so many bytes."""
    header, _, rows = table.read_bytes().partition(b"\n")
    with table.open("wb") as file:
        file.write(header + b"\n")
        while file.tell() < size:
            file.write(rows)


def measured(words: list[str]) -> tuple[float, float]:
    """Run a command; return seconds and the peak bytes of its processes."""
    begin = time.perf_counter()
    command = [str(Path(sys.executable).with_name("egma-prep")), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    watch = Watch(process.pid)
    assert process.wait() == 0, words
    watch.stop()
    return time.perf_counter() - begin, watch.peak


if __name__ == "__main__":
    main()
