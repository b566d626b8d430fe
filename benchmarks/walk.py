"""How far one REFLACX reading walks through the code, from its files to its columns.

Prints how many functions of egma_prep run for one phantom reading, in how many files, and how often
the next call is in another file than the one before; with --steps, the walk itself.
"""

import itertools
import sys
import tempfile
from pathlib import Path
from types import FrameType

import egma_prep
from egma_prep.etl.make_part import load_reading
from egma_prep.etl.parts import Job
from egma_prep.options import Options
from egma_prep.sources.registry import choose_source, with_defaults_of
from egma_prep.synth import write_tree

PACKAGE = str(Path(egma_prep.__file__).parent)


def walk(data: Path) -> list[tuple[str, str]]:
    """Name, in the order of calls, the file and the function of each step."""
    job = Job(data, None, data / "out", "mimic_eye", Options())
    files = job.files()
    source = choose_source(files)
    job = Job(data, None, data / "out", source.name, with_defaults_of(source, Options()))
    planned = next(
        reading
        for subject in source.plan(files)
        for reading in subject.readings
        if reading.dataset == "reflacx"
    )
    load_reading(planned, job, job.files(), {})  # fills what is kept for all readings
    steps: list[tuple[str, str]] = []

    def called(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        is_function = not code.co_name.startswith("<")  # no lambda, no comprehension
        if event == "call" and is_function and code.co_filename.startswith(PACKAGE):
            steps.append((code.co_filename.removeprefix(f"{PACKAGE}/"), code.co_qualname))

    sys.setprofile(called)
    try:
        load_reading(planned, job, files, {})
    finally:
        sys.setprofile(None)
    return steps


def main() -> None:
    """Print the counts."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "phantom"
        write_tree(data, 8, small=True, seed=1)
        steps = walk(data)
    changes = sum(one[0] != after[0] for one, after in itertools.pairwise(steps))
    print(f"functions {len(set(steps))}, files {len({file for file, _ in steps})}, ", end="")
    print(f"changes of file {changes}, calls {len(steps)}")
    if "--steps" in sys.argv:
        for file, function in dict.fromkeys(steps):
            print(f"{steps.count((file, function)):6} {file}: {function}")


if __name__ == "__main__":
    main()
