"""From shards to the finished table: train every arm, or go on where it stopped."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from egma_train.data.shards import find_shards, fingerprint
from egma_train.errors import BadUsageError, unknown_name
from egma_train.evaluate.compare import SCORES
from egma_train.evaluate.datasets.shipped import shipped_file
from egma_train.evaluate.datasets.tasks import TASKS
from egma_train.evaluate.zero_shot import PROTOCOLS
from egma_train.launch import Request, run_training
from egma_train.options import PRESETS, Options, read_config, with_changes
from egma_train.run_folder import RunFolder
from egma_train.storage.atomic import make_folder, write_whole

_PARTS = {"arms", "start", "options", "tests"}
_ARMS: dict[str, Any] = {"objectives": str, "gaze_fractions": int | float, "seeds": int}
_FILES = {"task", "images", "labels"}
_HOW = {"list", "split", "prompts", "protocol", "score"}

Say = Callable[[str], Any]
Plan = Mapping[str, Any]


def read_plan(path: Path | None) -> Plan:
    """Read ``pipelines/ablation.toml``, or a copy of it.

    Raises
    ------
    BadUsageError
        If it could not be trained and measured as it is.
    """
    path = path or shipped_file("ablation.toml")
    plan = read_config(path)
    try:
        _check(plan)
    except BadUsageError as error:
        raise BadUsageError(f"{path}: {error}") from None
    return plan


def _check(plan: Plan) -> None:
    _check_entries("the plan", plan, _PARTS)
    _check_entries("[arms]", plan["arms"], _ARMS, _ARMS)
    _check_entries("[start]", plan["start"], (), ("preset", "init"))
    if (preset := plan["start"].get("preset")) and preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    for name, kind in _ARMS.items():
        given = plan["arms"][name]
        right = isinstance(given, list) and all(isinstance(one, kind) for one in given)
        if not right or len(set(given)) < len(given) or not (given or name == "gaze_fractions"):
            raise BadUsageError(f"arms.{name} is {given!r}; list what differs, as the shipped plan")
    made = arms(plan)
    kinds = len(plan["arms"]["objectives"]) + len(set(plan["arms"]["gaze_fractions"]) - {1})
    if len(made) < kinds * len(plan["arms"]["seeds"]):
        raise BadUsageError("two arms have one name; gaze_fractions may have six digits")
    for changes in made.values():
        with_changes(Options(), *changes)
    decided = [("loss", "objective"), ("data", "gaze_fraction"), ("train", "seed")]
    for stage, name in decided:
        if name in plan["options"].get(stage, {}):
            raise BadUsageError(f"options.{stage}.{name} is decided by [arms]; leave it out")
    if not isinstance(plan["tests"], list):
        raise BadUsageError("tests is no list; write each as [[tests]]")
    for test in plan["tests"]:
        _check_test(test)
    tasks = [test["task"] for test in plan["tests"]]
    if repeated := {task for task in tasks if tasks.count(task) > 1}:
        raise BadUsageError(f"two tests of {repeated.pop()}: a table has one cell for it; keep one")


def _check_entries(
    where: str, given: Mapping[str, Any], wanted: Iterable[str], known: Collection[str] = ()
) -> None:
    if not isinstance(given, Mapping):
        raise BadUsageError(f"{where} is {given!r}; write it as the shipped plan does")
    if lacking := set(wanted) - given.keys():
        raise BadUsageError(f"{where} lacks {', '.join(sorted(lacking))}")
    if strange := [name for name in given if known and name not in known]:
        raise unknown_name(f"entry of {where}", strange[0], known)


def _check_test(test: Mapping[str, str]) -> None:
    _check_entries("a test", test, _FILES, _FILES | _HOW)
    choices: dict[str, Collection[str]] = {
        "task": TASKS.keys() - {"csv"},  # the tables have no cell for one's own lists
        "protocol": PROTOCOLS,
        "score": SCORES,
        "split": TASKS[test["task"]].splits or ["none of this task"]
        if test["task"] in TASKS
        else [],
    }
    if test["task"] == "chexpert8x200" and "protocol" in test:
        raise BadUsageError("chexpert8x200 is ranked, which has no protocol; leave it out")
    for name, value in test.items():
        if not isinstance(value, str) or value not in choices.get(name, [value]):
            raise unknown_name(name, value, choices.get(name, ["a text"]))


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
                "data": {"gaze_fraction": share},
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
    _check_same(out / "runs" / "ablation.json", plan, shards)
    for name, changes in made.items():
        run = RunFolder(out / "runs" / name)
        began = run.record_file.exists()
        if began and run.record()["status"] == "complete":
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


def _check_same(path: Path, plan: Plan, shards: Path) -> None:
    """Note what all arms have in common; refuse to go on with something else."""
    own = {
        "start": {name: value for name, value in plan["start"].items() if value},
        "options": plan["options"],
        "shards": fingerprint(find_shards(shards)),
    }
    if not path.exists():
        make_folder(path.parent)
        write_whole(path, json.dumps(own, indent=1) + "\n")
    known = json.loads(path.read_text())
    if changed := [part for part in own if own[part] != known.get(part)]:
        raise BadUsageError(
            f"the runs in {path.parent} are another plan's: other {' and '.join(changed)}; give a"
            " new --out"
        )
