"""The ``egma-train`` command; everything heavy is imported inside it."""

import sys
from pathlib import Path
from typing import Any

import click

from egma_train import __version__

_DONE, _BAD, _INTERRUPTED = 0, 2, 130


class _OwnProcess(click.Command):
    """Tells what it can: a closed terminal must not end a week's training."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command."""
        from egma_train.own_process import own_process

        with own_process():
            return super().main(*args, **kwargs)


@click.command(cls=_OwnProcess, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="egma-train")
@click.option(
    "--out",
    default="out",
    envvar="EGMA_OUT",
    show_default=True,
    show_envvar=True,
    help="Local output folder; the run is in OUT/runs/NAME.",
)
@click.option("--shards", metavar="DIR|URL", help="Shards to read.  [default: OUT]")
@click.option("--name", help="Of the run: letters, digits, ._-  [default: PRESET-OBJECTIVE-seedN]")
@click.option("--preset", help="paper, official-code or tiny; chosen by what weights there are.")
@click.option("--objective", help="clip, mlce, egf, egm or egma (default).")
@click.option(
    "--init",
    multiple=True,
    metavar="PLACE|FAMILY=PLACE|vision=..|text=..",
    help="Weights: a file or folder of MedCLIP, EGMA or any system of docs/models.md, such as"
    " gloria=FILE; Hugging Face folders or hub names by tower; random.",
)
@click.option("--gaze-fraction", type=float, help="Share of the readings whose gaze is used.")
@click.option("--epochs", type=int, help="Times through the readings.")
@click.option("--batch-size", type=int, help="Over all processes.")
@click.option("--seed", type=int, help="Of everything that is drawn.")
@click.option("--resume", is_flag=True, help="Continue the run of that name.")
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="TOML", help="File of options by stage."
)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="STAGE.FIELD=VALUE",
    help="Any other option, such as loss.label_rule=quarter-max.",
)
@click.option(
    "--shared", is_flag=True, help="Let the group read what is written; else only the owner may."
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def main(
    out: str,
    shards: str | None,
    name: str | None,
    preset: str | None,
    init: tuple[str, ...],
    resume: bool,
    shared: bool,
    debug: bool,
    **flags: Any,
) -> None:
    """Pre-train EGMA from shards.

    \b
    Example:
      egma-train --shards out/
      egma-train --shards out/ --init medclip-vit --gaze-fraction 0.5
      egma-train --shards out/ --init gloria=chexpert_resnet50.ckpt
      torchrun --nproc-per-node 2 -m egma_train --shards out/
    """
    from egma_train.errors import BadUsageError, broken_package
    from egma_train.own_process import check_working_folder, tell
    from egma_train.storage.atomic import share

    try:
        check_working_folder()
        share(shared)
        changes = _changes(**flags)
        from egma_train.launch import Request, run_training
        from egma_train.processes import this_process

        for option, place in (("--out", out), ("--shards", shards)):
            if place == "":  # else it would be the working folder, or as if it were not given
                raise BadUsageError(f"{option} is empty, as an unset variable is; give a path")
        if "://" in out:
            raise BadUsageError(f"--out {out} is no local folder; runs are written into one")
        request = Request(shards or out, Path(out), preset, name, init, changes, resume)
        run = run_training(request, tell)
    except Exception as error:
        known = isinstance(error, BadUsageError | OSError)
        told = broken_package(error) or (error if known else None)
        if debug or told is None:
            raise
        if str(told):  # else the first of several processes says it
            tell(f"egma-train: {told}", error=True)
        sys.exit(_BAD)
    except KeyboardInterrupt:
        tell("egma-train: stopped; repeat the same command", error=True)
        sys.exit(_INTERRUPTED)
    if run is None:
        sys.exit(_INTERRUPTED)
    if this_process().first:
        tell(f"model {run.model}, metrics {run.metrics_file}, card {run.card}")
    sys.exit(_DONE)


def _changes(
    config: Path | None, assignments: tuple[str, ...], **flags: Any
) -> list[dict[str, Any]]:
    """Order what the user asked for: file, then ``--set``, then flags."""
    from egma_train.options import parse_assignments, read_config

    homes = {"objective": "loss", "gaze_fraction": "data"}
    stages: dict[str, dict[str, Any]] = {}
    for name, value in flags.items():
        if value is not None:
            stages.setdefault(homes.get(name, "train"), {})[name] = value
    return [*([read_config(config)] if config else []), parse_assignments(assignments), stages]
