"""Whether everything in ``out/`` is as it was written, complete, and as the rules demand."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from egma_prep.errors import BadUsageError, Reject
from egma_prep.etl.invariants import broken_rules
from egma_prep.etl.make_part import load_reading, shard_options
from egma_prep.etl.out_folder import OutFolder, part_number
from egma_prep.etl.parts import Job, damaged_files, part_of
from egma_prep.etl.render_again import FROM_GAZE, RENDERED_FROM, render_reading
from egma_prep.etl.run import counted, open_tree, planned_subjects, run_etl
from egma_prep.options import Options, with_changes
from egma_prep.shards.formats import formats, load_shard
from egma_prep.shards.schema import (
    IMAGES,
    LATER,
    SHARD,
    TABLES,
    Key,
    by_reading,
    described,
    key_of,
    part_tables,
    up_to_date,
)
from egma_prep.shards.tables import read_parquet
from egma_prep.sources.registry import choose_source
from egma_prep.storage.atomic import is_as_written
from egma_prep.storage.paths import delete, files_below, is_remote, place_of, resolved
from egma_prep.storage.permissions import GITIGNORE
from egma_prep.storage.progress import Progress

Say = Callable[[str], object]

_OURS = re.compile(
    rf"part-[0-9]+\.({'|'.join(formats())})|record\.json|\..*\.tmp|({'|'.join(TABLES)})\.parquet"
)
_OF_OTHER_COMMANDS = ("runs/", "evaluation/", "state/")
_LEFT_BEHIND = "not of this run"


class Finding(NamedTuple):
    """What is wrong, with which file, and the part to be made again for it, if it is one's."""

    path: str
    problem: str
    part: int | None = None


@dataclass
class Verdict:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    files: int = 0
    readings: int = 0
    rendered: int = 0
    derived: int = 0

    @property
    def spoilt(self) -> set[int | None]:
        """Parts in which something was found."""
        return {finding.part for finding in self.findings}


def verify(
    out_root: Path, sample: int = 20, against: Path | None = None, images: Path | None = None
) -> Verdict:
    """Check a complete run without changing it.

    Parameters
    ----------
    out_root : Path
        Its folder.
    sample : int
        Readings to be rendered again from the tables and, with `against`, derived again.
    against : Path, optional
        The raw tree, to compare with.
    images : Path, optional
        As for a run.

    Raises
    ------
    BadUsageError
        If there is no complete run.
    """
    out = OutFolder(resolved(out_root))
    run = out.finished_run()
    options = with_changes(Options(), run["options"])
    verdict = Verdict()
    records = _files(out, run, options, verdict)
    sound = {part: record for part, record in records.items() if part not in verdict.spoilt}
    stored: dict[Key, int] = {}
    with Progress("readings", sum(record["written"] for record in sound.values())) as progress:
        for part in sound:
            verdict.findings += _part(out, part, options, stored)
            progress.advance(sound[part]["written"])
    verdict.readings = len(stored)
    all_sound = not verdict.findings
    if not verdict.findings:
        verdict.findings += _accounts(out, run, records)
    intact = sorted(key for key, part in stored.items() if part not in verdict.spoilt)
    own_draws = random.Random()  # the user may count on theirs
    chosen = own_draws.sample(intact, min(sample, len(intact)))
    verdict.rendered = 0 if options.output.privacy else len(chosen)
    if not options.output.privacy:
        verdict.findings += _rendered_again(out, options, chosen, stored)
    if against is not None:
        job = Job(resolved(against), images and resolved(images), out.root, run["source"], options)
        verdict.findings += _derived_again(out, job, chosen, stored, all_sound)
        verdict.derived = len(chosen)
    return verdict


def finish(out_root: Path, data: Path | None, images: Path | None, say: Say) -> None:
    """Finish a run, or the run of a repair, that was cut: half of one cannot be checked.

    Parameters
    ----------
    data : Path, optional
        The raw tree; by default the one of the run.
    """
    run = OutFolder(resolved(out_root)).run()
    if run is not None and run["status"] != "complete":
        _run_again(out_root, run, data, images, say)


def repair(
    out_root: Path, verdict: Verdict, data: Path | None, images: Path | None, say: Say
) -> None:
    """Make again what was found broken, and readings that were lost for want of memory.

    Parameters
    ----------
    data : Path, optional
        The raw tree; by default the one of the run.
    """
    out = OutFolder(resolved(out_root))
    run = out.finished_run()
    broken = {part for part in verdict.spoilt if part is not None}
    for part in out.parts():
        record = out.record(part)
        # Any run tries those again that are `OF_THE_MACHINE`.
        if record and "unexpected" in {reject["reason"] for reject in record["rejects"]}:
            broken.add(part)
    _run_again(out_root, run, data, images, say, broken)  # refuses what would lose readings
    with out.locked():
        for finding in verdict.findings:
            if finding.problem == _LEFT_BEHIND:
                delete(out.root / finding.path)


def _run_again(
    out_root: Path,
    run: dict[str, Any],
    data: Path | None,
    images: Path | None,
    say: Say,
    parts: Collection[int] = (),
) -> None:
    where = images or (place_of(run["images"]) if run["images"] and data is None else None)
    if data is None:
        data = place_of(run["data"])
        if not is_remote(data) and not data.exists():
            raise BadUsageError(
                f"DATA {data} is not there any more; say where it is now: egma-prep verify --out"
                f" {out_root} --repair --against DATA"
            )
    run_etl(data, out_root, source=run["source"], images=where, say=say, again=parts)


# -- files ----------------------------------------------------------------------------------------


def _files(
    out: OutFolder, run: dict[str, Any], options: Options, verdict: Verdict
) -> dict[int, dict[str, Any]]:
    """Compare every file with its checksum; return the records of all parts."""
    records: dict[int, dict[str, Any]] = {}
    expected = {out.run_file}
    numbers = (part_number(path.name) for path in out.state.glob("part-*"))
    for part in sorted(number for number in numbers if number is not None):
        record, record_file = out.record(part), out.record_file(part)
        expected |= {out.part_table(part, name) for name in part_tables(options.output.privacy)}
        expected |= {record_file, out.shard(part, options.render.format), out.image_part(part)}
        if record is None:
            verdict.findings.append(Finding(out.relative(record_file), _damage(record_file), part))
            continue
        records[part] = record
        for name in damaged_files(out, part, record, options.output.privacy):
            verdict.findings.append(Finding(name, _damage(out.root / name), part))
    for path in out.merged():
        known = run["outputs"].get(out.relative(path))
        expected |= {path} if known else set()
        if not is_as_written(path, known):
            verdict.findings.append(Finding(out.relative(path), _damage(path)))
    for path in _orphans(out, expected):
        problem = _LEFT_BEHIND if _is_ours(out, path) else "not of egma-prep; move it away"
        verdict.findings.append(Finding(out.relative(path), problem))
    if options.output.privacy:
        verdict.findings += _older(out, expected)
    verdict.files = sum(path.exists() for path in expected)
    return records


def _is_ours(out: OutFolder, path: Path) -> bool:
    """Tell what a run left from what others laid there: a copy, ``part-00000.bak/record.json``."""
    homes = (out.root, out.tables, out.images, out.shards, out.next_shards, out.old_shards)
    of_a_part = part_number(path.parent.name) is not None
    return bool(_OURS.fullmatch(path.name)) and (of_a_part or path.parent in (*homes, out.state))


def _damage(path: Path) -> str:
    return "not as it was written" if path.exists() else "missing"


def _orphans(out: OutFolder, expected: set[Path]) -> list[Path]:
    """List files where only ours belong."""
    folders = (out.tables, out.images, out.shards, out.state)
    found = {path for one in folders for path in files_below(one)}
    return sorted((found | set(out.litter())) - expected - {out.lock_file, out.workers_file})


def _older(out: OutFolder, expected: set[Path]) -> Iterator[Finding]:
    """Find figures, reports and exports from before; a run may have become private since."""
    made_s = out.run_file.stat().st_mtime
    for path in sorted(out.root.rglob("*")):
        ours = (
            path in expected
            or path.name == GITIGNORE
            or out.relative(path).startswith(_OF_OTHER_COMMANDS)
        )
        if not ours and path.is_file() and path.stat().st_mtime < made_s:
            what = "older than this private run and may hold raw gaze; remove it or make it again"
            yield Finding(out.relative(path), what)


# -- contents -------------------------------------------------------------------------------------


def _part(out: OutFolder, part: int, options: Options, stored: dict[Key, int]) -> Iterator[Finding]:
    """Check schemas, keys and every reading of a part; add its readings to `stored`."""
    names = part_tables(options.output.privacy)
    schemas = {out.part_table(part, name): schema for name, schema in names.items()}
    shard_path, image_path = out.shard(part, options.render.format), out.image_part(part)
    if shard_path.exists():
        schemas |= {shard_path: described(SHARD, shard_options(options)), image_path: IMAGES}
    contents = {}
    for path in schemas:
        try:
            table = load_shard(path) if path == shard_path else read_parquet(path)
            contents[path] = up_to_date(table, schemas[path])
        except BadUsageError as error:  # its checksum fits: whoever wrote it meant it so
            yield Finding(out.relative(path), str(error).removeprefix(f"{path} "), part)
            return
    others = [
        path
        for path, table in contents.items()
        if not table.schema.equals(schemas[path])
        or not _told_alike(table.schema.metadata, schemas[path].metadata)
    ]
    for path in others:
        yield Finding(out.relative(path), "columns or file metadata are others", part)
    if others:
        return
    rows = contents[shard_path].to_pylist() if shard_path in contents else []
    tables = {name: by_reading(contents[out.part_table(part, name)]) for name in names}
    for row in rows:
        own = {name: found[key_of(row)] for name, found in tables.items()}
        for problem in broken_rules(row, own, options):
            yield Finding(f"{out.relative(shard_path)}, {row['reading_id']}", problem, part)
    for row in rows:
        if key_of(row) in stored:
            yield Finding(out.relative(shard_path), f"{row['reading_id']} is there twice", part)
        stored[key_of(row)] = part
    for name, found in tables.items():
        if strays := set(found) - {key_of(row) for row in rows}:
            what = f"has rows of {len(strays)} readings that are not written"
            yield Finding(out.relative(out.part_table(part, name)), what, part)
    shown = sorted({row["dicom_id"] for row in rows})
    if rows and contents[image_path].column("dicom_id").to_pylist() != shown:
        what = "the images are not those of the readings"
        yield Finding(out.relative(image_path), what, part)


def _told_alike(stored: dict[bytes, bytes] | None, wanted: dict[bytes, bytes] | None) -> bool:
    """Compare a file's metadata with what its run would write; an earlier version wrote less."""
    if wanted is None or stored is None:
        return wanted is None
    version = b"egma.schema_version"
    if stored.get(version) == wanted[version]:
        return stored == wanted
    return {*stored.items()} - {*wanted.items()} == {(version, stored.get(version))}


def _accounts(
    out: OutFolder, run: dict[str, Any], records: dict[int, dict[str, Any]]
) -> Iterator[Finding]:
    """Check that planned = written + rejected, part by part and in ``run.json``."""
    for name in part_tables(run["options"]["output"]["privacy"]):
        rows = sum(read_parquet(out.part_table(part, name)).num_rows for part in records)
        if read_parquet(out.table(name)).num_rows != rows:
            yield Finding(out.relative(out.table(name)), f"the parts have {rows} rows together")
    rejects = read_parquet(out.rejects).to_pylist()
    readings = read_parquet(out.table("readings")).to_pylist()
    twice = [key for key, n in Counter(map(key_of, readings)).items() if n > 1]
    both = {key_of(row) for row in rejects} & {key_of(row) for row in readings}
    for key in [*twice, *sorted(both)]:
        yield Finding(f"tables/readings.parquet, {key[1]}", "written twice, or rejected too")
    for row in readings:
        if row["part"] != part_of(row["subject_id"], run["n_parts"]):
            yield Finding(
                f"tables/readings.parquet, {row['reading_id']}", "in a part of other patients"
            )
    planned = sum(record["planned"] for record in records.values())
    counts = counted(out, planned, rejects, [*records.values()])
    if counts != run["counts"] or planned != counts["written"] + counts["rejected"]:
        yield Finding("run.json", "its counts are not those of the files")


# -- samples --------------------------------------------------------------------------------------


def _rendered_again(
    out: OutFolder, options: Options, chosen: list[Key], stored: dict[Key, int]
) -> Iterator[Finding]:
    """Compare stored maps with maps made anew from the tables."""
    for part, keys in _by_part(chosen, stored).items():
        path = out.shard(part, options.render.format)
        shard, tables = by_reading(load_shard(path)), out.part_rows(part, RENDERED_FROM)
        for key in keys:
            own = {name: found[key] for name, found in tables.items()}
            (facts,) = shard[key].select(["width", "height"]).to_pylist()
            made = render_reading(facts, own, options)
            kept = shard[key].select(FROM_GAZE)
            for one, told in zip(made["sentences"], kept["sentences"][0].as_py(), strict=False):
                one["mentions"] = told["mentions"]  # of the words, not of gaze
            anew = [pa.array([made[name]], SHARD.field(name).type) for name in FROM_GAZE]
            if pa.Table.from_arrays(anew, FROM_GAZE) != kept:
                yield Finding(
                    f"{out.relative(path)}, {key[1]}", "the tables render to other maps", part
                )


def _derived_again(
    out: OutFolder, job: Job, chosen: list[Key], stored: dict[Key, int], all_sound: bool
) -> Iterator[Finding]:
    """Compare stored rows with rows made anew from the raw tree.

    Which readings there should be can be told only where all parts are sound.
    """
    files = open_tree(job.data, job.images)
    files.as_published = job.options.source.as_published
    subjects = planned_subjects(choose_source(files, job.source), files)
    planned = {one.key: one for subject in subjects for one in subject.readings}
    promised = [*planned, *(key_of(vars(reject)) for s in subjects for reject in s.rejects)]
    accounted = [*stored, *(key_of(row) for row in read_parquet(out.rejects).to_pylist())]
    if all_sound and _nameable(promised) != _nameable(accounted):
        yield Finding("tables/readings.parquet", f"{job.data} has other readings; run it again")
    for part, keys in _by_part(chosen, stored).items():
        path = out.shard(part, job.options.render.format)
        kept = out.part_rows(part, part_tables(job.options.output.privacy))
        kept["shard"] = by_reading(load_shard(path))
        for key in keys:
            made = load_reading(planned[key], job, files, {}) if key in planned else None
            if made is None or isinstance(made, Reject):
                yield Finding(f"{out.relative(path)}, {key[1]}", "DATA rejects it now", part)
                continue
            tables, _ = made
            tables["readings"]["part"] = [part]
            for name, columns in tables.items():
                schema = SHARD if name == "shard" else TABLES[name]
                if not _same(pa.Table.from_pydict(columns, schema), kept[name][key]):
                    yield Finding(
                        f"{out.relative(path)}, {key[1]}", f"DATA gives other {name}", part
                    )


def _same(made: pa.Table, kept: pa.Table) -> bool:
    """Compare rows; what an earlier version did not tell, null in all of them, is passed over."""
    if made == kept:
        return True
    rows, others = made.to_pylist(), kept.to_pylist()
    for row, other in zip(rows, others, strict=False):
        _forget(row, other)
    return rows == others


def _forget(row: dict[str, Any], kept: dict[str, Any]) -> None:
    """Set to null what an earlier version did not tell."""
    row |= {name: None for name in LATER if name in row and kept[name] is None}
    if isinstance(row.get("sentences"), list):  # a shard's; the table of readings counts them
        for one, other in zip(row["sentences"], kept["sentences"], strict=False):
            _forget(one, other)


def _nameable(keys: list[Key]) -> list[Key]:
    """Sort; a reject may have no id."""
    return sorted((dataset or "", reading_id or "") for dataset, reading_id in keys)


def _by_part(chosen: list[Key], stored: dict[Key, int]) -> dict[int, list[Key]]:
    parts: dict[int, list[Key]] = defaultdict(list)
    for key in chosen:
        parts[stored[key]].append(key)
    return parts
