"""What checksums and syncs cost: runs with and without them, in turns.

Run by ``make bench``; prints Markdown. Full-size readings, textured JPEGs, two workers. "Without"
means, in all processes: digests of a megabyte and more, the images', are not computed, fsync does
nothing, pages carry no checksum. The lock stays; it is one system call.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from etl import WORKERS, grow, listed_images

_WITH = """
import hashlib, os
import pyarrow.parquet as pq  # as below, so that start-up is alike
"""
_WITHOUT = f"""{_WITH}
digest, write_table = hashlib.sha256, pq.write_table
hashlib.sha256 = lambda data=b"": digest(data if len(data) < 1_000_000 else b"")
hashlib.file_digest = lambda file, name: digest(b"")
os.fsync = lambda descriptor: None

def plain(table, where, **options):
    write_table(table, where, **options | {{"write_page_checksum": False}})

pq.write_table = plain
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=500)
    parser.add_argument("--pairs", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree, out, hook = Path(folder) / "tree", Path(folder) / "out", Path(folder) / "hook"
        grow(tree, arguments.readings, min(arguments.readings, 125))
        for path in listed_images(tree):
            path.read_bytes()
        alike = Path(folder) / "alike"
        for place, code in ((hook, _WITHOUT), (alike, _WITH)):
            place.mkdir()
            (place / "sitecustomize.py").write_text(code)
        pairs = []
        for turn in range(arguments.pairs):
            first, second = (alike, hook) if turn % 2 else (hook, alike)
            seconds = {place: run_seconds(tree, out, place) for place in (first, second)}
            pairs.append((seconds[alike], seconds[hook]))
        run_seconds(tree, out, None)
        again = run_seconds(tree, out, None, keep=True)
    print(f"{arguments.readings} readings, {WORKERS} workers, {arguments.pairs} pairs of runs:\n")
    print("| with, s | without, s | share of the run, median | least to most | second run, s |")
    print("|---|---|---|---|---|")
    shares = sorted(1 - without / whole for whole, without in pairs)
    print(
        f"| {statistics.median(whole for whole, _ in pairs):.1f}"
        f" | {statistics.median(without for _, without in pairs):.1f}"
        f" | {statistics.median(shares):.1%} | {shares[0]:.1%} to {shares[-1]:.1%} | {again:.1f} |"
    )


def run_seconds(tree: Path, out: Path, hook: Path | None, keep: bool = False) -> float:
    """Time one whole run of the command."""
    if not keep:
        shutil.rmtree(out, ignore_errors=True)
    command = [str(Path(sys.executable).with_name("egma-prep")), "run", str(tree)]
    begin = time.perf_counter()
    subprocess.run(
        [*command, "--out", str(out), "--workers", str(WORKERS)],
        env=os.environ | ({"PYTHONPATH": str(hook)} if hook else {}),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
