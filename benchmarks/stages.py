"""Where a worker's time goes: parts made in one process, sampled; prints Markdown.

Run by ``make bench``. A thread looks every millisecond at what the others do; a sample weighs the
time since the one before, so that calls which hold the interpreter count in full.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from etl import grow, listed_images

from egma_prep.etl.make_part import make_part
from egma_prep.etl.out_folder import OutFolder
from egma_prep.etl.parts import Job, plan_parts
from egma_prep.etl.run import open_tree, planned_subjects
from egma_prep.options import Options
from egma_prep.sources.registry import choose_source

_EVERY_S = 0.001
_READINGS_PER_PART = 32
_BARE = 200
_STAGES = {  # by file, or file and function: the innermost that is known counts
    "decoding": ["jpeg.py decode_jpeg", "png.py", "dicom.py"],
    "fitting into the frame": ["__init__.py to_frame"],
    "image headers": ["jpeg.py parse_jpeg"],
    "reading and hashing inputs": ["files.py read"],
    "CSV": ["csv_table.py"],
    "readings from tables": ["sources"],
    "sentences": ["sentences.py"],
    "heatmaps": ["heatmaps.py"],
    "alignment and rows": ["assemble.py", "align.py", "frame.py"],
    "rows to Arrow": ["schema.py", "make_part.py _make_part"],
    "Parquet": ["formats"],
    "hashing outputs": ["atomic.py fingerprint_of"],
    "records": ["atomic.py write_json", "parts.py"],
    "syncs and renames": ["atomic.py", "permissions.py", "out_folder.py"],
    "the rest": ["make_part.py"],
}
_STAGE_OF = {place: stage for stage, places in _STAGES.items() for place in places}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--readings", type=int, default=240)
    parser.add_argument("--tree", type=Path, help="made anew where it is not given")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        tree = arguments.tree or Path(folder) / "tree"
        if arguments.tree is None:
            grow(tree, arguments.readings, min(arguments.readings, 120))
        for path in listed_images(tree):
            path.read_bytes()
        seconds, written = sampled(tree.resolve(), Path(folder) / "out")
        alone = bare_seconds(tree, Path(folder) / "out")
    whole = sum(seconds.values())
    print(f"{written} readings in one process, {1000 * whole / written:.1f} ms each:\n")
    print("| stage | ms a reading | share |")
    print("|---|---|---|")
    for stage, spent in seconds.most_common():
        print(f"| {stage} | {1000 * spent / written:.2f} | {spent / whole:.1%} |")
    print("\nBy themselves, ms a reading: ", end="")
    print(", ".join(f"{name} {1000 * spent:.2f}" for name, spent in alone.items()))


def bare_seconds(tree: Path, out: Path) -> dict[str, float]:
    """Time what no way of writing the stages avoids, on the same bytes: seconds a reading."""
    images = [path.read_bytes() for path in listed_images(tree)[:_BARE]]
    begin = time.perf_counter()
    for data in images:
        hashlib.sha256(data)
    hashing = (time.perf_counter() - begin) / len(images)
    shards = [pq.read_table(path).flatten() for path in sorted(out.glob("shards/*.parquet"))]
    maps = [pc.list_flatten(one["sentences"]).combine_chunks().field("heatmap") for one in shards]
    stored = [column.to_pylist() for one in shards for column in (one["image"], one["heatmap"])]
    stored += [column.to_pylist() for column in maps]
    joined = [b"".join(value for value in values if value) for values in stored]
    begin = time.perf_counter()
    for data in joined:
        pa.compress(data, "zstd")
    packing = (time.perf_counter() - begin) / sum(one.num_rows for one in shards)
    return {"SHA-256 of an image": hashing, "zstd of its maps": packing}


def sampled(tree: Path, out: Path) -> tuple[Counter[str], int]:
    """Make every part but the first, which warms up; return seconds by stage, and the readings."""
    files = open_tree(tree, None)
    source = choose_source(files, None)
    subjects = planned_subjects(source, files)
    OutFolder(out).create()
    job = Job(tree, None, out, source.name, Options())
    planned = sum(len(subject.readings) for subject in subjects)
    first, *parts = plan_parts(subjects, -(-planned // _READINGS_PER_PART))
    make_part(first, job)
    sampler = Sampler(threading.get_ident())
    written = sum(make_part(part, job) for part in parts)
    return sampler.stop(), written


class Sampler(threading.Thread):
    """Adds up a thread's time by stage."""

    def __init__(self, watched: int) -> None:
        super().__init__(daemon=True)
        self._watched, self._going, self._seconds = watched, True, Counter[str]()
        sys.setswitchinterval(_EVERY_S / 10)
        self.start()

    def run(self) -> None:
        """Sample until stopped."""
        before = time.perf_counter()
        while self._going:
            time.sleep(_EVERY_S)
            stage = stage_of(sys._current_frames()[self._watched])
            now = time.perf_counter()
            self._seconds[stage] += now - before
            before = now

    def stop(self) -> Counter[str]:
        """Stop sampling."""
        self._going = False
        self.join()
        return self._seconds


def stage_of(frame: FrameType | None) -> str:
    """Find the innermost frame that belongs to a stage."""
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if "egma_prep" in path.parts:
            for place in (f"{path.name} {frame.f_code.co_name}", path.name, path.parent.name):
                if place in _STAGE_OF:
                    return _STAGE_OF[place]
        frame = frame.f_back
    return "the rest"


if __name__ == "__main__":
    main()
