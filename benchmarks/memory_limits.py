"""What a run does where a control group limits its memory, as containers and batch systems do.

Run by ``make bench`` as root; prints Markdown. Small phantoms; the limit is that of a group made
for the run (version 2, or 1), swap apart.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES = ((700, 2), (1000, 8), (2000, 6), (450, 2))
"""MB, and the workers asked for."""
_GROUPS = Path("/sys/fs/cgroup")
_MB = 10**6


def main() -> None:
    """Measure and print."""
    home, limit = (
        (_GROUPS / "memory", "memory.limit_in_bytes")
        if (_GROUPS / "memory").is_dir()
        else (_GROUPS, "memory.max")
    )
    if not os.access(home / "cgroup.procs", os.W_OK):
        print("memory_limits.py: needs root and control groups", file=sys.stderr)
        return
    print("| limit, MB | workers asked for | started | exit | readings written | peak, MB | s |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        egma = [sys.executable, "-c", "from egma_prep.cli import main; main()"]
        tree = f"{folder}/tree"
        subprocess.run([*egma, "synth", tree, "--readings", "280", "--small"], check=True)
        for number, (mb, workers) in enumerate(CASES):
            group = home / f"egma-{os.getpid()}-{number}"
            group.mkdir()
            (group / limit).write_text(str(mb * _MB))
            out = f"{folder}/out{number}"
            try:
                row = measured([*egma, "run", tree, "--out", out, "--workers", str(workers)], group)
            finally:
                time.sleep(1)  # the kernel counts processes out of it
                group.rmdir()
            print(f"| {mb} | {workers} | {' | '.join(row)} |", flush=True)


def measured(command: list[str], group: Path) -> tuple[str, ...]:
    """Run in a group; return workers started, exit code, readings, peak and seconds."""
    begin, peak = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as said:
        run = subprocess.Popen(
            command,
            stdout=said,
            stderr=said,
            preexec_fn=lambda: (group / "cgroup.procs").write_text(str(os.getpid())),
        )
        while run.poll() is None:
            time.sleep(0.05)
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            peak = max(peak, int(used.get("rss", used.get("anon", 0))))
        said.seek(0)
        lines = said.read().splitlines()
    seconds = time.perf_counter() - begin
    started = next((line.split()[-1] for line in lines if "here: starting" in line), "as asked")
    written = next((line.split()[4] for line in lines if line.startswith("planned ")), lines[-1])
    return started, str(run.returncode), written, f"{peak / _MB:.0f}", f"{seconds:.0f}"


if __name__ == "__main__":
    main()
