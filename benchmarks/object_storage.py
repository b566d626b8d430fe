"""How many requests a run makes of an object store, on a server that speaks S3 and counts them.

Run by ``make bench``; prints Markdown. Small phantoms; the server is moto's, on this machine, so
that time is told only beside itself: with every request for DATA delayed, and more or fewer made
side by side.
"""

import argparse
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moto.server import ThreadedMotoServer

from egma_prep.etl.run import run_etl
from egma_prep.sources import files
from egma_prep.storage import listing as trees
from egma_prep.storage.paths import place_of
from egma_prep.synth import write_tree

DELAY_S = 0.03


class _Counts(logging.Handler):
    """Counts the lines of the server's log by method and by what they ask for."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"(GET|PUT|HEAD|POST|DELETE) /\S*", record.getMessage())
        if found:
            listing = "list-type=" in found[0]
            self.seen["LIST" if listing else found[1]] += 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=200)
    readings = parser.parse_args().readings
    logging.getLogger("werkzeug").handlers = [counts := _Counts()]
    logging.getLogger("werkzeug").propagate = False
    logging.getLogger("werkzeug").setLevel(logging.INFO)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
    server.start()
    os.environ |= {
        "AWS_ENDPOINT_URL": "http://{}:{}".format(*server.get_host_and_port()),
        "AWS_ACCESS_KEY_ID": "measured",
        "AWS_SECRET_ACCESS_KEY": "measured",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with tempfile.TemporaryDirectory() as folder:
        write_tree(tree := Path(folder) / "tree", readings, small=True, seed=3)
        fs = place_of("s3://bucket").fs  # type: ignore[attr-defined]
        fs.mkdir("bucket")
        fs.put(f"{tree}/", "bucket/data/", recursive=True)
        size = sum(path.is_file() for path in tree.rglob("*"))
    print(
        f"{readings} readings, {size} objects of DATA; requests of each kind, and all a reading:\n"
    )
    methods = ("LIST", "GET", "HEAD", "PUT", "POST", "DELETE")
    print(f"| command | {' | '.join(methods)} | a reading |\n|---|{'---|' * (len(methods) + 1)}")
    data, out = "s3://bucket/data", ("--out", "s3://bucket/out")
    commands = {
        "run, everything new": ("run", data, *out),
        "run, nothing to do": ("run", data, *out),
        "render-heatmaps": ("render-heatmaps", "--sigma", "8", *out),
        "verify": ("verify", *out),
    }
    for name, arguments in commands.items():
        counts.seen.clear()
        command = [sys.executable, "-c", "from egma_prep.cli import main; main()", *arguments]
        subprocess.run(command, check=True, capture_output=True)
        cells = [str(counts.seen[one]) for one in methods]
        print(f"| {name} | {' | '.join(cells)} | {counts.seen.total() / readings:.2f} |")
    print(f"\nOne worker, each request for DATA {DELAY_S * 1e3:.0f} ms later:\n")
    print("| readings side by side | s |\n|---|---|")
    ask = trees._StoreTree._asked
    trees._StoreTree._asked = lambda *given, **named: later(ask, *given, **named)  # type: ignore
    for files._ITEMS_AHEAD in (1, 8):
        begin = time.perf_counter()
        options = {"execution": {"processes": False, "workers": 1}}
        with tempfile.TemporaryDirectory() as folder:
            run_etl(place_of(data), Path(folder) / "out", [options], say=lambda _: None)
        print(f"| {files._ITEMS_AHEAD} | {time.perf_counter() - begin:.0f} |", flush=True)
    server.stop()


def later(ask: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """Ask the store, as if it were farther away."""
    time.sleep(DELAY_S)
    return ask(*given, **named)


if __name__ == "__main__":
    main()
