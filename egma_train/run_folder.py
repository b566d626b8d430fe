"""A run's folder: its record, metrics, checkpoints, final model and card."""

import csv
import hashlib
import io
import json
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from egma_train.errors import BadUsageError, CannotWriteError
from egma_train.losses import TERMS
from egma_train.model.backbones.backbone import Backbone
from egma_train.storage.atomic import (
    append_whole,
    cannot_write,
    discard,
    finish_swaps,
    make_folder,
    whole_folder,
    write_whole,
)
from egma_train.storage.lock import locked
from egma_train.storage.safe_text import csv_text, is_plain_name, markdown

METRICS = (
    "step", "epoch", "learning_rate", "scale", "loss", *TERMS, "gradient_norm", "seconds",
)  # fmt: skip
VALIDATION = ("step", "epoch", "loss", *TERMS, "pointing", "prior_pointing", "sentences")

_CHECKPOINTS_KEPT = 2
_CREDENTIALED = "PhysioNet Credentialed"
_TERMS_OF_USE = """\
Trained on data under the PhysioNet Credentialed Health Data licence unless the readings are
phantoms. Weights may hold traces of patients' data: share them with nobody who has not signed the
data use agreement of MIMIC-CXR, REFLACX and EYE GAZE, and publish them through PhysioNet only. Do
not try to identify patients."""
_OTHERS = "Weights may hold traces of what they were trained on, whose terms hold for them too:"
_NO_DEVICE = "Not a medical device; not for clinical decisions."
_DECLARATIONS = (
    Path(__file__).parents[1] / "egma_prep" / "data_manifests",  # as they are installed
    Path(__file__).parents[1] / "data_manifests",
)


_RECORD = {"status", "preset", "options", "shards_fingerprint", "counts"}


def check_name(name: str) -> None:
    """Refuse a name that would leave ``runs``, hide there or be no name of a folder."""
    if not is_plain_name(name) or name.startswith("-"):
        raise BadUsageError(
            f"--name {name!r:.140}: write letters, digits, '.', '_' and '-', at most 128, no '.' or"
            " '-' at the beginning"
        )


class RunFolder:
    """Paths of one run, and how its files appear whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record_file = root / "run.json"
        self.metrics_file = root / "metrics.csv"
        self.validation_file = root / "validation.csv"
        self.checkpoints = root / "checkpoints"
        self.start = root / "start"
        self.model = root / "model"
        self.card = root / "README.md"
        self.tensorboard = root / "tensorboard"

    def record(self) -> dict[str, Any]:
        """Read the run's record.

        Raises
        ------
        BadUsageError
            If there is none.
        """
        try:
            record = json.loads(self.record_file.read_text())
            if not isinstance(record, dict) or not record.keys() >= _RECORD:
                raise ValueError
            return record
        except FileNotFoundError:
            siblings = sorted(one.parent.name for one in self.root.parent.glob("*/run.json"))
            there = f"; there are: {', '.join(siblings)}" if siblings else ""
            raise BadUsageError(f"no run in {self.root} to resume{there}") from None
        except ValueError:
            raise BadUsageError(f"{self.record_file} is damaged; start anew by --name") from None

    def identity(self) -> str:
        """Name what decides a run: checkpoints of another are no part of it."""
        record = self.record()
        decides = {name: record[name] for name in ("preset", "shards_fingerprint")}
        decides |= {name: one for name, one in record["options"].items() if name != "execution"}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def check_free(self) -> None:
        """Refuse a folder that holds a run already."""
        if self.record_file.exists():
            raise BadUsageError(
                f"there is a run in {self.root}; --resume continues it, --name NAME starts another"
            )

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Keep other processes out of this run, and clean up after those that were killed.

        Yields
        ------
        bool
            False on a file system that knows no locks.

        Raises
        ------
        BadUsageError
            If another process is at work on it.
        """
        with cannot_write(self.root):
            make_folder(self.root.parent)
            make_folder(self.root)
        with locked(self.root / ".lock", f"the run in {self.root} is being trained by") as held:
            if held:
                finish_swaps(self.root)
                finish_swaps(self.checkpoints)
            yield held

    def begin(self, model: Backbone, tokenizer: Any, record: dict[str, Any]) -> None:
        """Write what the run starts from, then the record: now there is a run."""
        with whole_folder(self.start) as folder:
            save_model(folder, model, tokenizer)
        self.write_record(record)

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record."""
        write_whole(self.record_file, json.dumps(record, indent=1, sort_keys=True) + "\n")

    def save_checkpoint(
        self,
        step: int,
        model: Backbone,
        tokenizer: Any,
        training: dict[str, Any],
        weights: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write weights and the optimiser's state aside, rename, drop all but the newest two."""
        place = self.checkpoints / f"step-{step:08d}"
        with whole_folder(place) as folder:
            save_model(folder, model, tokenizer, weights)
            with (folder / "training.pt").open("wb") as file:  # by a path torch hides the reason
                torch.save(training, file)
        for other in self._checkpoints()[:-_CHECKPOINTS_KEPT]:
            discard(other)

    def last_checkpoint(self) -> Path | None:
        """Find the newest whole checkpoint."""
        return max(self._checkpoints(), default=None)

    def without(self, checkpoint: Path) -> str:
        """Say what --resume does once a checkpoint is deleted."""
        others = [one.name for one in self._checkpoints() if one != checkpoint]
        goes_on = f"goes on from {others[-1]}" if others else "begins anew"
        return f"delete it, then --resume {goes_on}"

    def finish(self, model: Backbone, tokenizer: Any, record: dict[str, Any]) -> None:
        """Write the final model and the card; only then is the run complete."""
        with whole_folder(self.model) as folder:
            save_model(folder, model, tokenizer)
        write_whole(self.card, model_card(record))
        self.write_record(record)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*"))


class Rows:
    """A CSV file of one row a step, to which rows are added."""

    def __init__(self, path: Path, columns: Sequence[str], after_step: int) -> None:
        self._path, self._columns = path, columns
        kept = _rows_until(path, len(columns), after_step)
        write_whole(path, csv_text([columns, *kept]))
        self.descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)

    def add(self, row: Mapping[str, Any]) -> None:
        """Write a row; `CannotWriteError` if it cannot be written whole."""
        line = csv_text([[row[name] for name in self._columns]])
        append_whole(self.descriptor, self._path, line.encode())


class Metrics:
    """What is measured, to CSV and, where they are installed, to TensorBoard and W&B.

    Parameters
    ----------
    after_step : int
        Later rows are of an attempt that is not gone on from.
    validated : bool
        Whether there is a held-out split.
    project : str
        Of Weights & Biases; blank: not told.

    """

    def __init__(
        self, run: RunFolder, after_step: int, validated: bool = False, project: str = ""
    ) -> None:
        self._steps = Rows(run.metrics_file, METRICS, after_step)
        held = Rows(run.validation_file, VALIDATION, after_step) if validated else None
        self._validation = held
        self._folder = run.tensorboard
        self._board = _board(run.tensorboard, after_step)
        self._wandb = _wandb_run(project, run) if project else None

    def add(self, row: Mapping[str, Any]) -> None:
        """Write one step's row.

        Raises
        ------
        CannotWriteError
            If it cannot be written whole.
        """
        self._steps.add(row)
        self._show({name: row[name] for name in METRICS[2:]}, row["step"])

    def add_validation(self, row: Mapping[str, Any]) -> None:
        """Write what a look at the held-out readings found; errors as `add`."""
        if self._validation is not None:
            self._validation.add(row)
        self._show({f"validation/{name}": row[name] for name in VALIDATION[2:]}, row["step"])

    def _show(self, values: Mapping[str, float], step: int) -> None:
        if self._board is not None:
            with cannot_write(self._folder):
                for name, value in values.items():
                    self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(values), step=step)

    def __enter__(self) -> "Metrics":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Close the files; what ended the run before is told rather than what this finds."""
        for rows in filter(None, (self._steps, self._validation)):
            os.close(rows.descriptor)
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(kind is not None))
        if self._board is not None:
            told = suppress(CannotWriteError) if kind else nullcontext()
            with told, cannot_write(self._folder):
                self._board.close()


def save_model(
    folder: Path, model: Backbone, tokenizer: Any, weights: Mapping[str, Tensor] | None = None
) -> None:
    """Write a model and its tokenizer; other `weights` than it has now if given."""
    model.save_pretrained(folder, weights)
    tokenizer.save_pretrained(folder)


def model_card(record: dict[str, Any]) -> str:
    """Describe a finished run in Markdown."""
    options, counts = record["options"], record["counts"]
    lines = [
        f"# EGMA, {record['preset']}, objective {options['loss']['objective']}",
        "",
        f"Trained for {record['epochs_done']} epochs on {counts['readings']} readings of"
        f" {counts['images']} images, {counts['readings_with_used_gaze']} of them with gaze"
        f" ({', '.join(map(markdown, counts['datasets']))}).",
        f"Started from: {markdown(record['started_from'])}",
        "",
        "## Terms of use",
        "",
        *_terms_of(record),
        _NO_DEVICE,
        "",
        "## Use",
        "",
        "```python",
        "from egma_train import load_model",
        "",
        'model, tokenizer = load_model("model")',
        "```",
        "",
        "## Options",
        "",
        "| option | value |",
        "|---|---|",
        *(
            f"| {stage}.{name} | {markdown(value)} |"
            for stage, values in options.items()
            for name, value in values.items()
        ),
        "",
        f"Shards: `{record['shards_fingerprint']}`. Software:"
        f" {', '.join(f'{name} {version}' for name, version in record['versions'].items())}.",
    ]
    return "\n".join(lines) + "\n"


def _terms_of(record: dict[str, Any]) -> list[str]:
    """Say under which terms a model is, by its datasets' declarations and by their own files."""
    names = sorted(record["counts"]["datasets"])
    own = record.get("declared", {})
    safe = {one: {key: markdown(text) for key, text in own.get(one, {}).items()} for one in names}
    known = {name: {**_declared(name), **safe[name]} for name in names}
    apart = [name for name in known if not _is_credentialed(known[name])]
    credentialed = [_TERMS_OF_USE] if len(apart) < len(known) or not known else []
    others = [_OTHERS, *(_terms_of_one(name, known[name]) for name in apart)] if apart else []
    return [*credentialed, *others]


def _is_credentialed(declared: Mapping[str, Any]) -> bool:
    return declared.get("licence", "").startswith(_CREDENTIALED)


def _terms_of_one(dataset: str, declared: Mapping[str, Any]) -> str:
    if not declared:
        return f"{markdown(dataset)}: no declaration says under which terms its readings are."
    told = [f"{markdown(dataset)}: {declared['licence']} ({declared['access']})"]
    told += [declared["terms"]] if "terms" in declared else []
    told += [f"Cite: {declared['citation']}"] if "citation" in declared else []
    return f"{'. '.join(told)}."


def _declared(dataset: str) -> dict[str, Any]:
    name = f"{dataset.replace('_', '-')}.toml"
    found = next((home / name for home in _DECLARATIONS if (home / name).is_file()), None)
    return tomllib.loads(found.read_text(encoding="utf-8")) if found else {}


def _rows_until(path: Path, columns: int, step: int) -> list[list[str]]:
    """Keep the whole rows until a step; the last one may be cut."""
    if not path.exists() or step == 0:
        return []
    rows = list(csv.reader(io.StringIO(path.read_text(), newline="")))[1:]
    whole = (row for row in rows if len(row) == columns and row[0].isdigit())
    return [row for row in whole if int(row[0]) <= step]


def _board(folder: Path, after_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    with cannot_write(folder):
        return SummaryWriter(str(folder), purge_step=after_step + 1)


def wandb_module() -> Any:
    """Import Weights & Biases; `BadUsageError` if it is not installed."""
    try:
        return import_module("wandb")
    except ImportError:
        raise BadUsageError(
            "execution.wandb needs wandb: pip install wandb, or leave it out"
        ) from None


def _wandb_run(project: str, run: RunFolder) -> Any:
    with cannot_write(run.root / "wandb"):
        return wandb_module().init(
            project=project,
            name=run.root.name,
            id=f"{run.root.name}-{run.identity()[:12]}",
            resume="allow",
            dir=str(run.root),
            config=run.record()["options"],
        )
