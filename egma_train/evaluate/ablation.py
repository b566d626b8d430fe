"""From shards to the finished table: train every arm, or go on where it stopped."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from egma_train.errors import BadUsageError
from egma_train.evaluate.shipped import shipped_file
from egma_train.options import Options, differences, read_config, with_changes
from egma_train.run_folder import RunFolder
from egma_train.start import Request, run_training

_PARTS = {"arms", "start", "options", "tests"}

Say = Callable[[str], Any]
Plan = Mapping[str, Any]


def read_plan(path: Path | None) -> Plan:
    """Read ``pipelines/ablation.toml``, or a copy of it.

    Raises
    ------
    BadUsageError
        If it lacks a part.
    """
    plan = read_config(path or shipped_file("ablation.toml"))
    lacking = _PARTS - plan.keys()
    if lacking or not {"objectives", "gaze_fractions", "seeds"} <= plan["arms"].keys():
        raise BadUsageError(f"{path} lacks {', '.join(sorted(lacking)) or 'an entry of arms'}")
    return plan


def arms(plan: Plan) -> dict[str, list[Mapping[str, Any]]]:
    """Name every run and the options that it changes."""
    declared = plan["arms"]
    kinds = [(objective, 1.0) for objective in declared["objectives"]]
    kinds += [(declared["objectives"][-1], share) for share in declared["gaze_fractions"]]
    return {
        f"ablation-{objective}-gaze{share:g}-seed{seed}": [
            plan["options"],
            {
                "loss": {"objective": objective},
                "data": {"gaze_fraction": float(share)},
                "train": {"seed": seed},
            },
        ]
        for seed in declared["seeds"]
        for objective, share in kinds
    }


def train_arms(plan: Plan, shards: Path, out: Path, say: Say) -> list[Path] | None:
    """Train what is not complete; resume what began.

    Returns
    -------
    list of Path or None
        Checkpoints: what the first arm of each seed started from, then all runs; None if stopped.

    Raises
    ------
    BadUsageError
        If a run was made by another plan.
    """
    start, made = plan["start"], arms(plan)
    for name, changes in made.items():
        run = RunFolder(out / "runs" / name)
        began = run.record_file.exists()
        if began and run.record()["status"] == "complete":
            _check_same(run, changes)
            continue
        say(f"{name}: {'going on' if began else 'training'}")
        preset, init = start.get("preset") or None, tuple(start.get("init", ()))
        if began:
            preset = run.record()["preset"]
        request = Request(shards, out, preset, name, init, changes, began)
        if run_training(request, say) is None:
            return None
    runs = [out / "runs" / name for name in made]
    return [*(one / "start" for one in runs[:: len(runs) // len(plan["arms"]["seeds"])]), *runs]


def _check_same(run: RunFolder, changes: list[Mapping[str, Any]]) -> None:
    own = with_changes(Options(), run.record()["options"])
    changed = differences(own, with_changes(own, *changes))
    if changed:
        raise BadUsageError(f"the run in {run.root} is another plan's: {changed}; give a new --out")
