"""The report of many readings: its size, what writing it takes, how soon Chromium shows it.

Run by ``make bench``; prints Markdown. Small images in the tree, which the report shows no smaller.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from etl import WORKERS, grow

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browser import DRIVER, chromium

_LOADS = 5
_SHOWN = "return document.querySelectorAll('.card').length"
_READY_MS = "return performance.getEntriesByType('navigation')[0].domComplete"
_HEAP = "return performance.memory.usedJSHeapSize / 1e6"
_SEARCH = """
const begin = performance.now(), field = document.getElementById("search");
const done = arguments[0], found = document.getElementById("found");
new MutationObserver(() => requestAnimationFrame(
  () => done(performance.now() - begin))).observe(found, {childList: true});
field.value = "heart"; field.dispatchEvent(new Event("input"));
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=4125, help="a few are not written")
    parser.add_argument("--drawn", type=int, default=125, help="different readings; the rest copy")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "out"
        grow(tree, arguments.readings, arguments.drawn, small=True)
        egma_prep("run", str(tree), "--out", str(out), "--workers", str(WORKERS))
        print("| report | readings | MB | kB a reading | written in, s | peak memory, MB |")
        print("|---|---|---|---|---|---|")
        for flags in ((), ("--shareable",)):
            print(written(out, *flags), flush=True)
        if DRIVER:
            print(shown(out / "report.html"))


def egma_prep(*arguments: str) -> int:
    """Run the command; return its peak memory in bytes."""
    code = (
        "import resource, sys\nfrom egma_prep.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, check=False,
    )  # fmt: skip
    return int(done.stdout.split()[-1]) * 1024


def written(out: Path, *flags: str) -> str:
    """Time the writing of one report."""
    begin = time.perf_counter()
    memory = egma_prep("report", "--out", str(out), *flags)
    seconds = time.perf_counter() - begin
    page = out / ("report-shareable.html" if flags else "report.html")
    megabytes = page.stat().st_size / 1e6
    readings = page.read_text().count('"fixations":[')
    each = f"{1000 * megabytes / readings:.1f}" if readings else ""
    return (
        f"| {page.name} | {readings or ''} | {megabytes:.1f} | {each} | {seconds:.0f}"
        f" | {memory / 1e6:.0f} |"
    )


def shown(page: Path) -> str:
    """Time loading and searching in a headless Chromium, several times."""
    seen: list[dict[str, Any]] = []
    for _ in range(_LOADS):
        with chromium() as browser:
            begin = time.perf_counter()
            browser.get(page.as_uri())
            loaded = time.perf_counter() - begin
            ready = browser.execute_script(_READY_MS) / 1000
            heap = browser.execute_script(_HEAP)
            browser.execute_script("document.getElementById('gallery').scrollIntoView()")
            while not browser.execute_script(_SHOWN):
                pass
            search = browser.execute_async_script(_SEARCH)
            one = {"loaded, s": loaded, "complete, s": ready, "heap, MB": heap}
            seen.append(one | {"search, ms (150 of them waiting)": search})
    middle = {name: statistics.median(one[name] for one in seen) for name in seen[0]}
    cells = " | ".join(f"{value:.1f}" for value in middle.values())
    head = f"\n| {' | '.join(middle)} |\n|{'---|' * len(middle)}\n"
    return f"\nIn Chromium, median of {_LOADS} loads:\n{head}| {cells} |"


if __name__ == "__main__":
    main()
