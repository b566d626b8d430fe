"""The output folder: where everything lies, and the records that make parts count as done."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from egma_prep.errors import BadUsageError
from egma_prep.etl.card import REPORTS, data_card, shareable
from egma_prep.shards.formats import formats
from egma_prep.shards.schema import READABLE, SCHEMA_VERSION, TABLES, Key, by_reading
from egma_prep.shards.tables import read_parquet, read_table
from egma_prep.storage.atomic import (
    TEMPORARY,
    damaged,
    fingerprint_of,
    read_json,
    write_atomically,
    write_json,
)
from egma_prep.storage.lock import at_work, check_token, locked, wait_for_workers
from egma_prep.storage.paths import (
    children,
    delete,
    delete_folder,
    is_of_a_store,
    is_remote,
    stamp,
    store_of,
)
from egma_prep.storage.permissions import (
    ALONE,
    GITIGNORE,
    SHARED,
    complaints,
    keep_out_of_git,
    make_own_folder,
    mode_of,
    set_mode,
)

_RUN = {"schema_version", "status", "options"}
_COMPLETE = {"counts", "data", "images", "inputs", "n_parts", "outputs", "software", "source"}
_FULL = (errno.ENOSPC, errno.EDQUOT)
_SHOWN_OF = ["subject_id", "dataset", "split"]


class OutFolder:
    """Paths below ``out/`` and the records that make parts count as done.

    Attributes
    ----------
    token : str
        Of the lock object that the run holds in an object store.
    """

    def __init__(self, root: Path, token: str = "") -> None:
        self.root = root
        self.token = token
        self.run_file = root / "run.json"
        self.tables = root / "tables"
        self.images = root / "images"
        self.shards = root / "shards"
        self.rejects = root / "rejects.parquet"
        self.inputs = root / "inputs.parquet"
        self.card = root / "README.md"
        self.shareable = root / "shareable.json"
        self.state = root / "state"
        self.next_shards = root / "state" / "shards-next"
        self.old_shards = root / "state" / "shards-old"
        self.swap_file = root / "state" / "swap.json"
        self.scratch = root / "state" / "scratch"
        self.lock_file = root / "state" / "lock"
        self.workers_file = root / "state" / "workers"

    def refuse_foreign(self) -> None:
        """Refuse a folder that is neither new, nor empty, nor ours: nothing in it is replaced.

        A run that was killed before its ``run.json`` leaves folders of ours, with a lock or empty.

        Raises
        ------
        BadUsageError
            If it is one, or cannot be looked into.
        """
        try:
            for folder in () if is_remote(self.root) else self._folders():
                if folder.is_symlink() and folder.lstat().st_uid != os.geteuid():
                    raise BadUsageError(f"{folder} is a link of another user; remove {self.root}")
            if self.run_file.exists() or self.parts():
                return
            begun = (
                self.lock_file.exists()
                or self.workers_file.exists()
                or not any(map(children, self._folders()))
            )
            ours = {GITIGNORE} | ({one.name for one in self._folders()} if begun else set())
            foreign = sorted(one for one in children(self.root) if one.name not in ours)
        except OSError as error:
            if is_of_a_store(error):
                raise
            raise self._not_writable(error) from None
        if foreign:
            raise BadUsageError(
                f"{foreign[0]} is not of egma-prep; choose another folder, a new or an empty one,"
                " by --out"
            )

    def create(self, shared: bool | None = None) -> None:
        """Make the folder, its owner's alone unless `shared`; what is there stays as it is.

        Raises
        ------
        BadUsageError
            If it cannot be made.
        """
        self.refuse_foreign()
        if is_remote(self.root):
            return
        with self._told_if_not_writable():
            for folder in (self.root, *self._folders()):
                make_own_folder(folder, shared)

    def close(self, shared: bool | None = None) -> Iterator[str]:
        """Close the folder to others, `shared` to all but its group, and check that it took.

        Parameters
        ----------
        shared : bool, optional
            Its group may read it; as it was by default.

        Yields
        ------
        str
            Lines for the user: who could read it before, what its file system does not keep.

        Raises
        ------
        BadUsageError
            If it cannot be written.
        """
        if is_remote(self.root):
            return
        with self._told_if_not_writable():
            was = mode_of(self.root)
            if shared is None:
                shared = was == SHARED and (self.run_file.exists() or bool(self.parts()))
            mode = SHARED if shared else ALONE
            for folder in (self.root, *self._folders()):
                set_mode(folder, mode)
            keep_out_of_git(self.root)
            if was != mode:
                for path in self._all_files():
                    with contextlib.suppress(FileNotFoundError):  # of a run at work
                        set_mode(path, mode)
            lines = [*complaints(self.state, mode)]
        if was & ~mode:
            if mode_of(self.root) == mode:
                whose = "its group" if shared else "you alone; --shared lets its group read it"
                yield f"{self.root} was open to others (mode {was:o}), now to {whose}"
            elif mode_of(self.state) == mode:
                yield (
                    f"{self.root} is not yours to close (its mode stays {was:o}): who may write"
                    " there can replace what is in it; better choose a folder of your own"
                )
        yield from lines

    @contextlib.contextmanager
    def _told_if_not_writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._not_writable(error) from None

    def _all_files(self) -> Iterator[Path]:
        """List all in our folders, and our files beside them."""
        # Training keeps its cache and its runs here by default.
        others = (self.root / "cache", self.root / "runs")
        yield from (one for one in others if one.is_dir())
        yield from (path for folder in (*self._folders(), *others) for path in folder.rglob("*"))
        names = (GITIGNORE, *REPORTS.values())
        for path in (self.run_file, *self.merged(), *(self.root / name for name in names)):
            if path.exists():
                yield path

    def _folders(self) -> tuple[Path, ...]:
        return self.state, self.tables, self.images, self.shards

    def _not_writable(self, error: OSError) -> BadUsageError:
        theirs = isinstance(error, PermissionError) and self.root.exists()
        if theirs and self.root.stat().st_uid != os.geteuid():
            return BadUsageError(
                f"cannot write to {self.root} ({error.strerror}): it is another user's, for you to"
                " read only; read it by verify, inspect or export, or make an own one: egma-prep"
                " run DATA --out OWN"
            )
        return BadUsageError(
            f"cannot write to {self.root} ({error.strerror}); choose another folder by --out"
        )

    def shard(self, part: int, format_name: str, folder: Path | None = None) -> Path:
        """Path of one part's shard in a format."""
        return (folder or self.shards) / f"{part_name(part)}.{format_name}"

    def shards_of(self, run: dict[str, Any]) -> list[Path]:
        """List the shards of a complete run.

        Raises
        ------
        BadUsageError
            If one is missing, or there is none.
        """
        parts = sorted(set(self.read("readings").column("part").to_pylist()))
        if not parts:
            raise BadUsageError(f"{self.root} has no readings; see rejects.parquet")
        files = [self.shard(part, run["options"]["render"]["format"]) for part in parts]
        for path in files:
            if not path.exists():
                raise BadUsageError(f"{path} is missing; repeat: egma-prep run DATA")
        return files

    def image_part(self, part: int) -> Path:
        """Path of one part's images."""
        return self.images / f"{part_name(part)}.parquet"

    def table(self, table: str) -> Path:
        """Path of a table of all parts."""
        return self.tables / f"{table}.parquet"

    def part_table(self, part: int, table: str) -> Path:
        """Path of one part's share of a table."""
        return self.state / part_name(part) / f"{table}.parquet"

    def part_rows(self, part: int, tables: Iterable[str]) -> dict[str, dict[Key, pa.Table]]:
        """Read one part's share of some tables, sliced by reading."""
        paths = {name: self.part_table(part, name) for name in tables}
        return {name: by_reading(read_table(paths[name], TABLES[name])) for name in paths}

    def read(self, table: str) -> pa.Table:
        """Read a table of all parts."""
        return read_table(self.table(table), TABLES[table])

    def record_file(self, part: int) -> Path:
        """Path of the record whose existence says that a part is done."""
        return self.state / part_name(part) / "record.json"

    def record(self, part: int) -> dict[str, Any] | None:
        """Read a part's record; None if it is not done or was damaged."""
        try:
            record = read_json(self.record_file(part))
        except BadUsageError:
            return None
        return record if record and "seal" in record else None

    def last_reading_file(self, part: int) -> Path:
        """Path of the note that names the reading on which a part is at work."""
        return self.state / part_name(part) / "reading.json"

    def parts(self) -> list[int]:
        """List the parts that have a record, sorted."""
        found = (path.parent.name for path in self.state.glob("part-*/record.json"))
        return sorted(part for name in found if (part := part_number(name)) is not None)

    def run(self) -> dict[str, Any] | None:
        """Read ``run.json``; None before the first run.

        Raises
        ------
        BadUsageError
            If it is of another schema version, or not ours.
        """
        run = read_json(self.run_file)
        if run is not None and not run.keys() >= _RUN:
            raise BadUsageError(f"{self.run_file} is not of egma-prep; choose another --out")
        if run is not None and "seal" not in run:
            raise damaged(self.run_file, "its seal is gone")
        if run is not None and run["schema_version"] not in READABLE:
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
        if self.swap_file.exists():
            with self.locked():
                self.finish_swap()
        run = self.run()
        if run is None:
            raise BadUsageError(f"{self.root} holds no run; make one with: egma-prep run DATA")
        if run["status"] == "complete" and not run.keys() >= _COMPLETE:
            raise damaged(self.run_file, "it lacks what a complete run has")
        if run["status"] != "complete":
            again = f"egma-prep run {run.get('data', 'DATA')} --out {self.root}"
            raise BadUsageError(f"the run in {self.root} is not finished; repeat: {again}")
        return run

    def remove_all_but(self, parts: set[int]) -> None:
        """Delete other parts, and what interrupted writers and their clusters left."""
        names = [one.name for one in self.state.glob("part-*")]
        names += [one.stem for one in (*children(self.images), *children(self.shards))]
        for part in map(part_number, set(names)):
            if part is not None and part not in parts:
                self.remove_part(part)
        self.remove_litter()
        for folder in (self.scratch, self.next_shards, self.old_shards):
            delete_folder(folder)

    def litter(self) -> list[Path]:
        """Find what interrupted writers left."""
        if is_remote(self.root):
            return []
        ours = (self.tables, self.images, self.shards, self.state)
        found = [*self.root.glob(TEMPORARY), *(p for one in ours for p in one.rglob(TEMPORARY))]
        return sorted(found)

    def remove_litter(self) -> None:
        """Delete what interrupted writers left; no writer may be at work."""
        for litter in self.litter():
            litter.unlink(missing_ok=True)

    def remove_part(self, part: int) -> None:
        """Delete everything of a part, its record first."""
        delete(self.record_file(part))
        for name in formats():
            delete(self.shard(part, name))
        delete(self.image_part(part))
        delete_folder(self.record_file(part).parent)

    def finish_swap(self) -> None:
        """Put complete new shards in place, wherever an earlier swap was cut."""
        swap = read_json(self.swap_file)
        if swap is None:
            return
        if is_remote(self.root):
            self._copy_next_shards(swap)
        elif self.next_shards.exists():
            if self.shards.exists() and not self.old_shards.exists():
                self.shards.rename(self.old_shards)
            shutil.rmtree(self.shards, ignore_errors=True)
            self.next_shards.rename(self.shards)
        for part, fingerprint in swap["outputs"].items():
            record = self.record(int(part))
            if record is not None:
                record["outputs"]["shard"] = fingerprint
                record["key"]["render"] = swap["options"]["render"]
                write_json(self.record_file(int(part)), record)
        run = self.run()
        if run is not None:
            self.write_run(run | {"options": swap["options"]})
        delete_folder(self.old_shards)
        delete_folder(self.next_shards)
        self.swap_file.unlink()

    def _copy_next_shards(self, swap: dict[str, Any]) -> None:
        """Copy, as often as it is cut, for a store renames nothing; then delete the old shards."""
        fs, _ = store_of(self.root)
        wanted = set()
        for part in map(int, swap["outputs"]):
            target = self.shard(part, swap["options"]["render"]["format"])
            source = self.next_shards / target.name
            if source.exists():
                fs.copy(store_of(source)[1], store_of(target)[1])
            swap["outputs"][str(part)] |= stamp(target)
            wanted.add(target)
        for path in set(children(self.shards)) - wanted:
            delete(path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out, and wait for workers that outlived theirs; see `storage.lock`."""
        with contextlib.ExitStack() as stack:
            try:
                self.token = stack.enter_context(locked(self.lock_file))
                wait_for_workers(self.workers_file)
            except PermissionError as error:
                if is_of_a_store(error):
                    raise
                raise self._not_writable(error) from None
            try:
                yield
            except OSError as error:
                if error.errno not in _FULL or is_of_a_store(error):
                    raise
                raise BadUsageError(  # where it was is in few of them
                    f"cannot write below {self.root} ({error.strerror}); mend that and repeat the"
                    " same command"
                ) from None

    def at_work(self) -> contextlib.AbstractContextManager[None]:
        """Let the next run wait until this worker has written what it is writing."""
        self.check_lock()
        return at_work(self.workers_file)

    def check_lock(self) -> None:
        """Stop where another run has taken over, for nobody can be made to wait in a store."""
        if self.token:
            check_token(self.lock_file, self.token)

    def merged(self) -> list[Path]:
        """Name the files that hold something of every part."""
        tables = [self.table(name) for name in TABLES]
        return [*tables, self.rejects, self.inputs, self.card, self.shareable]

    def write_run(self, run: dict[str, Any]) -> None:
        """Write the data card, the record that may be shown and, last, ``run.json``."""
        write_atomically(self.card, data_card(run).encode())
        readings = self.read("readings").select(_SHOWN_OF).to_pylist()
        rejects = read_parquet(self.rejects).to_pylist()
        write_json(self.shareable, shareable(run, readings, rejects))
        outputs = {self.relative(p): fingerprint_of(p) for p in self.merged() if p.exists()}
        write_json(self.run_file, run | {"outputs": outputs})

    def relative(self, path: Path) -> str:
        """Name a file of the folder as messages and ``run.json`` do."""
        return path.relative_to(self.root).as_posix()


def part_name(part: int) -> str:
    """Name a part's files."""
    return f"part-{part:05d}"


def part_number(name: str) -> int | None:
    """Tell whose such a name is; None of what others laid there, such as ``part-00000.bak``."""
    digits = name.removeprefix("part-")
    is_number = digits.isascii() and digits.isdigit()
    return int(digits) if is_number and name == part_name(int(digits)) else None
