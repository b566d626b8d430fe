"""Other systems trained further by EGMA: the paper's Table IV."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from egma_train.errors import BadUsageError
from egma_train.evaluate.encoder import checkpoint_name
from egma_train.launch import Request, run_training
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
    names = [f"continued-{checkpoint_name(place)}-seed{seed}" for place in checkpoints]
    if repeated := {name for name in names if names.count(name) > 1}:
        raise BadUsageError(f"two systems would be {repeated.pop()}; continue them apart")
    for name, place in zip(names, checkpoints, strict=True):
        run = RunFolder(out / "runs" / name)
        began = run.record_file.exists()
        if began and run.record()["status"] == "complete":
            continue
        say(f"{name}: {'going on' if began else 'training'}")
        own = [changes, {"train": {"seed": seed}}]
        request = Request(shards, out, "paper", name, (str(place),), own, began)
        if run_training(request, say) is None:
            return None
    runs = [out / "runs" / name for name in names]
    return [one for run in runs for one in (run / "start", run)]
