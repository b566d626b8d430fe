"""Other systems trained further by EGMA: the paper's Table IV."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from egma_train.data.shards import find_shards, fingerprint
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import checkpoint_name
from egma_train.launch import Request, check_start, run_training
from egma_train.model.egma import is_own_model
from egma_train.model.weights import folder_of_own
from egma_train.options import Options, differences, options_of, with_changes
from egma_train.run_folder import RunFolder


def continue_systems(
    checkpoints: Sequence[Path],
    shards: Path,
    out: Path,
    changes: Mapping[str, Any],
    seed: int,
    say: Callable[[str], Any],
) -> list[Path] | None:
    """Train each system on some shards; go on with what began, leave what is complete.

    Parameters
    ----------
    checkpoints : sequence of Path
        As ``--init`` takes them, such as ``gloria=FILE``.
    changes : mapping
        Options of training by stage.

    Returns
    -------
    list of Path or None
        Of each system what training started from and the run; None if stopped.

    Raises
    ------
    BadUsageError
        If two systems have one name, or a run was begun otherwise.
    """
    names = _names(checkpoints, seed)
    for name, place in zip(names, checkpoints, strict=True):
        run = RunFolder(out / "runs" / name)
        began = run.record_file.exists()
        own = [changes, {"train": {"seed": seed}}]
        if began:
            _check_same(run, str(place), own, shards)
            if run.record()["status"] == "complete":
                continue
        say(f"{name}: {'going on' if began else 'training'}")
        request = Request(shards, out, "paper", name, (str(place),), own, began)
        if run_training(request, say) is None:
            return None
    runs = [out / "runs" / name for name in names]
    return [one for run in runs for one in (run / "start", run)]


def _names(checkpoints: Sequence[Path], seed: int) -> list[str]:
    """Name runs by what they continue; two of one family by their files too."""
    families = [checkpoint_name(place) for place in checkpoints]
    names = []
    for family, place in zip(families, checkpoints, strict=True):
        file = re.sub(r"[^A-Za-z0-9._-]", "-", Path(str(place).partition("=")[2] or place).stem)
        own = f"{family}-{file}" if families.count(family) > 1 else family
        names.append(f"continued-{own}-seed{seed}")
    if repeated := {name for name in names if names.count(name) > 1}:
        raise BadUsageError(f"two systems would be {repeated.pop()}; continue them apart")
    return names


def _check_same(run: RunFolder, place: str, changes: Sequence[Any], shards: Path) -> None:
    """Refuse a run that was begun from other weights, shards or options: its figures would lie."""
    record = run.record()
    wanted, began = options_of("paper", *changes), with_changes(Options(), record["options"])
    if is_own_model(folder_of_own(Path(place.partition("=")[2] or place))):
        began = replace(began, model=wanted.model)  # it brought its own options
    other = differences(began, wanted)
    if record["shards_fingerprint"] != fingerprint(find_shards(shards)):
        other = other or "other shards"
    if other:
        raise BadUsageError(f"the run in {run.root} was begun otherwise: {other}; give a new --out")
    check_start(record, [place], run.root)
