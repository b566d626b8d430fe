"""The output folder: where everything lies, and how files appear in it whole or not at all."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from egma_prep.errors import BadUsageError
from egma_prep.formats import formats
from egma_prep.input_files import Fingerprint
from egma_prep.schema import SCHEMA_VERSION, TABLES

_OWNER_ONLY = 0o700
_OWNER_ONLY_FILE = 0o600


class OutFolder:
    """Paths below ``out/`` and the records that make parts count as done."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.run_file = root / "run.json"
        self.tables = root / "tables"
        self.images = root / "images"
        self.shards = root / "shards"
        self.rejects = root / "rejects.parquet"
        self.state = root / "state"
        self.next_shards = root / "state" / "shards-next"
        self.old_shards = root / "state" / "shards-old"
        self.swap_file = root / "state" / "swap.json"
        self.scratch = root / "state" / "scratch"

    def create(self) -> None:
        """Make the folder, readable by its owner only, and check that it can be written.

        Raises
        ------
        BadUsageError
            If it cannot.
        """
        try:
            ours = not self.root.exists() or self.run_file.exists() or not any(self.root.iterdir())
            made = (self.tables, self.images, self.shards)
            foreign = [one for folder in made if folder.is_dir() for one in folder.iterdir()]
            if foreign and not self.run_file.exists():
                raise BadUsageError(
                    f"{foreign[0]} is not of egma-prep; choose another folder by --out"
                )
            self.root.mkdir(parents=True, exist_ok=True)
            if ours:
                self.root.chmod(_OWNER_ONLY)
            for folder in (self.tables, self.images, self.shards, self.state):
                folder.mkdir(exist_ok=True)
                folder.chmod(_OWNER_ONLY)  # the root may be a folder that others share
        except OSError as error:
            raise BadUsageError(
                f"cannot write to {self.root} ({error.strerror}); choose another folder by --out"
            ) from None

    def shard(self, part: int, format_name: str, folder: Path | None = None) -> Path:
        """Path of one part's shard in a format."""
        return (folder or self.shards) / f"{part_name(part)}.{format_name}"

    def image_part(self, part: int) -> Path:
        """Path of one part's images."""
        return self.images / f"{part_name(part)}.parquet"

    def part_table(self, part: int, table: str) -> Path:
        """Path of one part's share of a table."""
        return self.state / part_name(part) / f"{table}.parquet"

    def record_file(self, part: int) -> Path:
        """Path of the record whose existence says that a part is done."""
        return self.state / part_name(part) / "record.json"

    def record(self, part: int) -> dict[str, Any] | None:
        """Read a part's record; None if it is not done or was damaged."""
        try:
            return read_json(self.record_file(part))
        except BadUsageError:
            return None

    def parts(self) -> list[int]:
        """List the parts that have a record, sorted."""
        found = self.state.glob("part-*/record.json")
        return sorted(int(path.parent.name.removeprefix("part-")) for path in found)

    def run(self) -> dict[str, Any] | None:
        """Read ``run.json``; None before the first run.

        Raises
        ------
        BadUsageError
            If it is of another schema version, or not ours.
        """
        run = read_json(self.run_file)
        if run is not None and (
            not isinstance(run, dict) or not run.keys() >= {"schema_version", "status", "options"}
        ):
            raise BadUsageError(f"{self.run_file} is not of egma-prep; choose another --out")
        if run is not None and run["schema_version"] != SCHEMA_VERSION:
            raise BadUsageError(
                f"{self.root} has schema {run['schema_version']}, this version knows"
                f" {SCHEMA_VERSION}; choose another --out"
            )
        return run

    def finished_run(self) -> dict[str, Any]:
        """Read ``run.json`` of a complete run, after finishing a swap that was cut.

        Raises
        ------
        BadUsageError
            If there is none.
        """
        self.finish_swap()
        run = self.run()
        if run is None:
            raise BadUsageError(f"{self.root} holds no run; make one with: egma-prep run DATA")
        if run["status"] != "complete":
            again = f"egma-prep run {run.get('data', 'DATA')} --out {self.root}"
            raise BadUsageError(f"the run in {self.root} is not finished; repeat: {again}")
        return run

    def remove_all_but(self, parts: set[int]) -> None:
        """Delete other parts, and what interrupted writers left."""
        for path in [*self.state.glob("part-*"), *self.images.iterdir(), *self.shards.iterdir()]:
            number = path.stem.removeprefix("part-")
            if number.isdigit() and int(number) not in parts:
                self.remove_part(int(number))
        for litter in self.root.rglob(".*.tmp"):
            litter.unlink()

    def remove_part(self, part: int) -> None:
        """Delete everything of a part, its record first."""
        self.record_file(part).unlink(missing_ok=True)
        for name in formats():
            self.shard(part, name).unlink(missing_ok=True)
        self.image_part(part).unlink(missing_ok=True)
        shutil.rmtree(self.record_file(part).parent, ignore_errors=True)

    def finish_swap(self) -> None:
        """Put complete new shards in place, wherever an earlier swap was cut."""
        swap = read_json(self.swap_file)
        if swap is None:
            return
        if self.next_shards.exists():
            if self.shards.exists() and not self.old_shards.exists():
                self.shards.rename(self.old_shards)
            shutil.rmtree(self.shards, ignore_errors=True)
            self.next_shards.rename(self.shards)
        for part, fingerprint in swap["outputs"].items():
            record = self.record(int(part))
            if record is not None:
                record["outputs"]["shard"] = fingerprint
                write_json(self.record_file(int(part)), record)
        run = self.run()
        if run is not None:
            write_json(self.run_file, run | {"options": swap["options"]})
        shutil.rmtree(self.old_shards, ignore_errors=True)
        self.swap_file.unlink()

    def has_tables(self) -> bool:
        """Tell whether the merged tables are there."""
        return self.rejects.exists() and all(
            (self.tables / f"{name}.parquet").exists() for name in TABLES
        )


def part_name(part: int) -> str:
    """Name a part's files."""
    return f"part-{part:05d}"


@contextlib.contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """Offer a temporary name beside `path`; rename on success, delete on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.chmod(_OWNER_ONLY_FILE)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that no reader ever sees half of it."""
    with appearing_whole(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: Path, content: object) -> None:
    """Write JSON, keys sorted."""
    text = json.dumps(content, indent=1, sort_keys=True)
    write_atomically(path, text.encode() + b"\n")


def read_json(path: Path) -> dict[str, Any] | None:
    """Read JSON; None if the file is missing.

    Raises
    ------
    BadUsageError
        If it is damaged.
    """
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise BadUsageError(
            f"{path} is damaged ({error}); delete it and repeat: egma-prep run"
        ) from None


def write_table(path: Path, table: pa.Table) -> Fingerprint:
    """Write a table in the format that the path ends in."""
    with appearing_whole(path) as temporary:
        formats()[path.suffix[1:]].save(table, temporary)
        data = temporary.read_bytes()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_parquet(path: Path) -> pa.Table:
    """Read a file of ours.

    Raises
    ------
    BadUsageError
        If it is missing or damaged.
    """
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise BadUsageError(f"{path} is damaged ({reason}); repeat: egma-prep run DATA") from None


def concatenate(paths: list[Path], target: Path, schema: pa.Schema) -> int:
    """Join the parts of a table, one row group each; return the rows."""
    rows = 0
    with (
        appearing_whole(target) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        for path in paths:
            table = pq.read_table(path, schema=schema)
            writer.write_table(table)
            rows += table.num_rows
    return rows
