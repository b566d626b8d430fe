"""Do the runs that are missing; one JSON line each, the file replaced as a whole."""

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.study.arms import Arm, Run, Study
from benchmarks.study.measure import measure
from benchmarks.study.phantoms import (
    Readings,
    make_readings,
    with_gaze_of_others,
    with_gaze_of_some,
)
from benchmarks.study.training import train

TRAIN, HELD_OUT, TEST = 0, 1, 2  # streams of readings of one seed


def do_run(run: Run) -> dict[str, Any]:
    """Train and measure one arm with one seed."""
    torch.set_num_threads(1)  # the same sums everywhere
    begin, share = time.monotonic(), run.study.shortcut_share * run.arm.shortcut

    def readings(stream: int, share: float) -> Readings:
        return _readings(run.study, run.seed, stream, share, run.arm.beside)

    train_set = as_seen(run.arm, readings(TRAIN, share), (run.seed, TRAIN))
    held_out = as_seen(run.arm, readings(HELD_OUT, share), (run.seed, HELD_OUT))
    recipe = run.study.recipe
    if run.arm.fixed_steps:
        recipe = replace(recipe, most_steps=run.arm.fixed_steps, patience=recipe.most_steps)
    model, course = train(train_set, held_out, run.arm.loss, recipe, run.seed)
    tests = {"in_distribution": share, "broken": 0.0}
    name, seed, options = run.key
    return (
        {"arm": name, "seed": seed, "options": options}
        | {k: round(v, 4) if isinstance(v, float) else v for k, v in course.items()}
        | {
            test: {k: round(v, 4) for k, v in measure(model, readings(TEST, shown)).items()}
            for test, shown in tests.items()
        }
        | {"seconds": round(time.monotonic() - begin, 1)}
    )


def as_seen(arm: Arm, readings: Readings, seed: tuple[int, ...]) -> Readings:
    """Give the readings the gaze that the arm is trained with."""
    if arm.gaze_of_others:
        readings = with_gaze_of_others(readings, seed)
    return with_gaze_of_some(readings, arm.gaze_share, seed)


@lru_cache(6)
def _readings(study: Study, seed: int, stream: int, share: float, beside: bool) -> Readings:
    number = (study.train_readings, study.held_out_readings, study.test_readings)[stream]
    return make_readings(number, (seed, stream), share, study.look, beside)


def read_results(path: Path) -> dict[tuple[str, int, str], dict[str, Any]]:
    """Read finished runs by their keys."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = [json.loads(line) for line in lines]
    return {(one["arm"], one["seed"], one["options"]): one for one in found}


def do_missing(
    runs: Sequence[Run],
    path: Path,
    processes: int,
    say: Callable[[str], Any],
    work: Callable[[Run], dict[str, Any]] = do_run,
) -> None:
    """Do what `path` does not hold yet, and add each run as soon as it is done."""
    done = read_results(path)
    missing = [run for run in runs if run.key not in done]
    say(f"{len(runs) - len(missing)} of {len(runs)} runs are done, {len(missing)} to do")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        for i, future in enumerate(as_completed([pool.submit(work, run) for run in missing]), 1):
            result = future.result()
            done[result["arm"], result["seed"], result["options"]] = result
            _write(path, list(done.values()))
            say(f"{i}/{len(missing)} {result['arm']}, seed {result['seed']}: {result['seconds']} s")


def _write(path: Path, results: list[dict[str, Any]]) -> None:
    """Replace the file, so that a cut leaves the old or the new one."""
    aside = path.with_suffix(".writing")
    aside.write_text("".join(f"{json.dumps(one)}\n" for one in results))
    os.replace(aside, path)
