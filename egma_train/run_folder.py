"""A run's folder: its record, metrics, checkpoints, final model and card."""

import csv
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from egma_train.errors import BadUsageError
from egma_train.model import EgmaModel

METRICS = (
    "step", "epoch", "learning_rate", "scale", "loss", "mlce", "contrastive", "mapping",
    "gradient_norm", "seconds",
)  # fmt: skip

_TERMS_OF_USE = """\
Trained on data under the PhysioNet Credentialed Health Data licence unless the readings are
phantoms. Weights may hold traces of patients' data: share them with nobody who has not signed the
data use agreement of MIMIC-CXR, REFLACX and EYE GAZE, and publish them through PhysioNet only. Do
not try to identify patients. Not a medical device; not for clinical decisions."""


_RECORD = {"status", "preset", "options", "shards_fingerprint", "counts"}


class RunFolder:
    """Paths of one run, and how its files appear whole or not at all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.record_file = root / "run.json"
        self.metrics_file = root / "metrics.csv"
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

    def check_free(self) -> None:
        """Refuse a folder that holds a run already."""
        if self.record_file.exists():
            raise BadUsageError(
                f"there is a run in {self.root}; --resume continues it, --name NAME starts another"
            )

    def begin(self, model: EgmaModel, tokenizer: Any, record: dict[str, Any]) -> None:
        """Write what the run starts from, then the record: now there is a run."""
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _aside(self.start) as folder:
            save_model(folder, model, tokenizer)
        self.write_record(record)

    def write_record(self, record: dict[str, Any]) -> None:
        """Replace the record."""
        write_whole(self.record_file, json.dumps(record, indent=1, sort_keys=True) + "\n")

    def save_checkpoint(
        self, step: int, model: EgmaModel, tokenizer: Any, training: dict[str, Any]
    ) -> None:
        """Write weights and the optimiser's state aside, rename, drop the older ones."""
        place = self.checkpoints / f"step-{step:08d}"
        with _aside(place) as folder:
            save_model(folder, model, tokenizer)
            torch.save(training, folder / "training.pt")
        for other in self._checkpoints():
            if other != place:
                shutil.rmtree(other, ignore_errors=True)

    def last_checkpoint(self) -> Path | None:
        """Find the newest whole checkpoint."""
        return max(self._checkpoints(), default=None)

    def finish(self, model: EgmaModel, tokenizer: Any, record: dict[str, Any]) -> None:
        """Write the final model and the card; only then is the run complete."""
        shutil.rmtree(self.model, ignore_errors=True)
        with _aside(self.model) as folder:
            save_model(folder, model, tokenizer)
        write_whole(self.card, model_card(record))
        self.write_record(record)

    def _checkpoints(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*"))


class Metrics:
    """One row a step, to CSV and, where it is installed, TensorBoard."""

    def __init__(self, run: RunFolder, after_step: int) -> None:
        rows = _rows_until(run.metrics_file, after_step)
        self._file = run.metrics_file.open("w", newline="")
        self._csv = csv.DictWriter(self._file, METRICS)
        self._csv.writeheader()
        self._csv.writerows(rows)
        self._board = _board(run.tensorboard, after_step)

    def add(self, row: dict[str, Any]) -> None:
        """Write one step's row."""
        self._csv.writerow(row)
        self._file.flush()
        if self._board is not None:
            for name in METRICS[2:]:
                self._board.add_scalar(name, row[name], row["step"])

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()


def save_model(folder: Path, model: EgmaModel, tokenizer: Any) -> None:
    """Write a model and its tokenizer."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def model_card(record: dict[str, Any]) -> str:
    """Describe a finished run in Markdown."""
    options, counts = record["options"], record["counts"]
    lines = [
        f"# EGMA, {record['preset']}, objective {options['loss']['objective']}",
        "",
        f"Trained for {record['epochs_done']} epochs on {counts['readings']} readings of"
        f" {counts['images']} images, {counts['readings_with_used_gaze']} of them with gaze"
        f" ({', '.join(counts['datasets'])}).",
        f"Started from: {record['started_from']}",
        "",
        "## Terms of use",
        "",
        _TERMS_OF_USE,
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
            f"| {stage}.{name} | {value} |"
            for stage, values in options.items()
            for name, value in values.items()
        ),
        "",
        f"Shards: `{record['shards_fingerprint']}`. Software:"
        f" {', '.join(f'{name} {version}' for name, version in record['versions'].items())}.",
    ]
    return "\n".join(lines) + "\n"


def _rows_until(path: Path, step: int) -> list[dict[str, str]]:
    if not path.exists() or step == 0:
        return []
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [row for row in rows if row["step"].isdigit() and int(row["step"]) <= step]


def _board(folder: Path, after_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=after_step + 1)


@contextmanager
def _aside(place: Path) -> Iterator[Path]:
    """Give a folder that becomes `place` when all of it is on disk."""
    aside = place.parent / f".{place.name}.tmp"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True, mode=0o700)
    yield aside
    for path in aside.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(place, ignore_errors=True)
    os.rename(aside, place)


def write_whole(path: Path, text: str) -> None:
    """Write a text aside, then rename: it is there whole or not at all."""
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
