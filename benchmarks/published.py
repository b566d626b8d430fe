"""What the comparison with a release's checksums costs: a run with and without a list, in turns.

Run by ``make bench``; prints Markdown. The list is as long as MIMIC-CXR-JPG's; each worker process
reads it once.
"""

import argparse
import hashlib
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path

from safety import run_seconds

from egma_prep.sources.published import release
from egma_prep.synth import write_tree

_LISTED = 377_110


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        write_tree(tree, arguments.readings, small=True, checksums=True)
        sums, aside = tree / "SHA256SUMS.txt", Path(folder) / "aside"
        own = sums.read_text()
        sums.write_text(own + "".join(map(other_line, range(_LISTED - own.count("\n")))))
        run_seconds(tree, out, None)  # files to memory
        pairs = []
        for turn in range(arguments.pairs):
            seconds = {}
            for with_list in (True, False) if turn % 2 else (False, True):
                if not with_list:
                    sums.rename(aside)
                seconds[with_list] = run_seconds(tree, out, None)
                if not with_list:
                    aside.rename(sums)
            pairs.append((seconds[True], seconds[False]))
        before, begin = memory_mb(), time.perf_counter()
        kept = release(str(tree), sums.name, (("size", sums.stat().st_size),))
        read_s = time.perf_counter() - begin
    with_s, without_s = (statistics.median(some) for some in zip(*pairs, strict=True))
    print(f"{arguments.readings} small readings, 2 workers, {arguments.pairs} pairs of runs:\n")
    print("| with a list, s | without, s | least to most of the difference, s | ", end="")
    print("lines | read in, s | kept, MB | more memory while reading, MB |")
    print("|---|---|---|---|---|---|---|")
    more = sorted(one - other for one, other in pairs)
    kept_mb = (kept.keys.nbytes + kept.digests.nbytes) / 1e6
    print(
        f"| {with_s:.1f} | {without_s:.1f} | {more[0]:.1f} to {more[-1]:.1f} | {_LISTED:,}"
        f" | {read_s:.1f} | {kept_mb:.0f} | {memory_mb() - before:.0f} |"
    )


def other_line(number: int) -> str:
    """Invent a line of the length that MIMIC-CXR-JPG's have."""
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    parts = "-".join(digest[at : at + 8] for at in range(0, 40, 8))
    return f"{digest} files/p99/p99{number:06d}/s99{number:06d}/{parts}.jpg\n"


def memory_mb() -> float:
    """Tell the largest memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
