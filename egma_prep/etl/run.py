"""The whole ETL: plan, make what is stale, merge, account for every reading."""

import contextlib
import dataclasses
import os
import platform
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from secrets import token_hex
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from egma_prep import __version__
from egma_prep.errors import BadInputError, BadUsageError, Reject, unreadable
from egma_prep.etl.card import summed_up
from egma_prep.etl.cluster import WORKER_DIED, dask_client, each_done
from egma_prep.etl.make_part import make_part, reading_at_work
from egma_prep.etl.out_folder import OutFolder, part_name
from egma_prep.etl.parts import NEW, Job, PartPlan, Stale, plan_parts, why_stale
from egma_prep.etl.render_again import render_parts, written_by_part
from egma_prep.etl.what_is_lost import refuse_loss, written_before
from egma_prep.options import Changes, Options, differences, in_order, with_changes
from egma_prep.shards.schema import INPUTS, REJECTS, SCHEMA_VERSION, TABLES, part_tables, table_of
from egma_prep.shards.tables import concatenate, read_parquet, write_table
from egma_prep.sources.files import InputFiles, told
from egma_prep.sources.reading import PlannedReading
from egma_prep.sources.registry import Source, SubjectPlan, choose_source, with_defaults_of
from egma_prep.storage.atomic import damaged, is_as_written, write_json
from egma_prep.storage.paths import (
    Fingerprint,
    Stamps,
    delete,
    is_remote,
    place_of,
    resolved,
    stamps_below,
    unreachable,
)
from egma_prep.storage.progress import Progress, tell

_SOFTWARE = ("numpy", "scipy", "opencv-python-headless", "pyarrow", "spacy", "distributed")
_TRIAL_GROWTH = 4
_DEATHS = 3
"""So often a worker must die on one reading before the reading is blamed."""
_DEATHS_AT_NOTHING = 10
"""So often in a row may one part's worker die at no reading: of a neighbour's, of the cluster's."""
_DEATHS_IN_A_ROW = 60
"""So often may workers die before any part is done: twenty readings are hardly all to blame."""
_REASONS_SHOWN = 5  # the others stand in rejects.parquet
_LANDMARKS = 20  # names in DATA by which a worker tells that it sees the same folder

Say = Callable[[str], object]


@dataclass(frozen=True)
class Summary:
    """What a run ended with.

    Attributes
    ----------
    counts : dict
        As in ``run.json``.
    did_work : bool
        False where everything was up to date.
    """

    counts: dict[str, Any]
    did_work: bool
    out: Path
    rejects: list[dict[str, Any]] = field(default_factory=list)

    @property
    def faults(self) -> list[dict[str, Any]]:
        """Rejects other than the readings that the authors discarded."""
        return [reject for reject in self.rejects if reject["reason"] != "discarded"]

    @property
    def reject_share(self) -> float:
        """Rejected share of the planned readings, the authors' own discards apart."""
        wanted = self.counts["written"] + len(self.faults)
        return len(self.faults) / wanted if wanted else 0.0


def run_etl(
    data: str | Path,
    out: str | Path = "out",
    options: Changes = (),
    *,
    source: str | None = None,
    images: str | Path | None = None,
    say: Say = tell,
    shared: bool | None = None,
    replace: bool = False,
    again: Collection[int] = (),
) -> Summary:
    """Bring ``out/`` up to date with a raw tree, as ``egma-prep run`` does.

    Its workers are processes: a script calls it below ``if __name__ == "__main__":``.

    Parameters
    ----------
    data : str or Path
        Root of the raw tree, or its URL in an object store.
    out : str or Path
        Output folder, made if missing, or its URL.
    options : mapping, or iterable of them
        By stage, ``{"render": {"sigma": 8}}``, later ones win; what is not named stays as in the
        last run.
    source : str, optional
        Layout; detected if None.
    images : str or Path, optional
        MIMIC-CXR-JPG or MIMIC-CXR, for layouts that have no images of their own.
    say : callable
        Takes lines for the user.
    shared : bool, optional
        The group may read the folder; as it was by default, else the owner alone.
    replace : bool
        Other readings may take the place of those that were written before.
    again : collection of int
        Parts to be made again though they look current.

    Raises
    ------
    BadUsageError
        If nothing can be made of the tree or the folder.
    """
    tree, image_tree = place_of(data), place_of(images) if images else None
    folder = OutFolder(resolved(place_of(out)))
    files = open_tree(tree, image_tree)
    layout = choose_source(files, source)
    for name, place in (("DATA", tree), ("--images", image_tree)):
        if place and resolved(place) == folder.root:
            raise BadUsageError(f"--out {out} is {name} itself; choose another folder")
    folder.refuse_foreign()
    changes = in_order(options)
    asked = _options(folder.run() or {}, changes, layout)  # a wrong one is told before any work
    files.as_published = asked.source.as_published
    subjects = planned_subjects(layout, files)
    for line in told(files.remarks):
        say(line)
    folder.create(shared)
    with folder.locked():
        folder.finish_swap()
        run = folder.run() or {}
        planned = {reading.key for subject in subjects for reading in subject.readings}
        if replace and (before := written_before(folder)) and not before & planned:
            run = {}  # of another dataset, whose options are not this one's
        where = (resolved(tree), image_tree and resolved(image_tree), folder.root)
        names = () if is_remote(tree) else sorted(os.listdir(tree))[:_LANDMARKS]
        chosen = _options(run, changes, layout)
        job = Job(*where, layout.name, chosen, folder.token, tuple(names))
        return _bring_up_to_date(run, job, subjects, files, say, shared, replace, again)


def _options(run: dict[str, Any], changes: list[Mapping[str, Any]], source: Source) -> Options:
    kept = with_changes(Options(), run.get("options", {}))
    return with_defaults_of(source, with_changes(kept, *changes))


def _bring_up_to_date(
    run: dict[str, Any],
    wanted: Job,
    subjects: list[SubjectPlan],
    files: InputFiles,
    say: Say,
    shared: bool | None,
    replacing: bool,
    again: Collection[int],
) -> Summary:
    out, options = wanted.folder, wanted.options
    planned = sum(len(subject.readings) + len(subject.rejects) for subject in subjects)
    # New render options come last, over finished parts, so that shards never mix two; what holds
    # no raw gaze cannot be rendered again.
    renderable = run and not options.output.privacy and not run["options"]["output"]["privacy"]
    job = wanted
    if renderable:
        kept = with_changes(options, {"render": run["options"]["render"]})
        job = dataclasses.replace(wanted, options=kept)
    n_parts = _part_count(run.get("n_parts"), planned, options.execution.readings_per_part)
    plans = plan_parts(subjects, n_parts)
    stamps = stamps_below(out.root)
    with ThreadPoolExecutor() as threads:
        reasons = list(threads.map(lambda plan: why_stale(plan, job, files, stamps), plans))
    parts = {plan.part for plan in plans}
    stale = dict.fromkeys(sorted(parts & {*again}), Stale("faulty as it was written"))
    stale |= {plan.part: why for plan, why in zip(plans, reasons, strict=True) if why}
    if not replacing:
        refuse_loss(out, plans, [plan for plan in plans if plan.part in stale], job, files)
    complete = _is_merged(out, run, stamps) and not stale and set(out.parts()) == parts
    for line in [*out.close(shared), *_notices(run, job, options), *_remade(stale)]:
        say(line)
    header = _header(job, n_parts)
    if complete and any(run.get(name) != header[name] for name in ("data", "images")):
        out.write_run(run | {name: header[name] for name in ("data", "images")})
    if not complete:
        work = f"{len(stale)} of {len(plans)} parts to make"
        say(f"{job.source}: {planned} readings planned, {work}, into {out.root}")
        _make([plan for plan in plans if plan.part in stale], parts, job, options, header)
        out.check_lock()
        why = Counter(reason.why for reason in stale.values())
        _finish(out, plans, header | {"parts_made": why}, files.fingerprints)
    if options.render != job.options.render:
        say(f"rendering again: {differences(job.options, options)}")
        render_parts(out, job.options, options, written_by_part(out))
    did_work = not complete or options.render != job.options.render
    rejects = read_parquet(out.rejects).to_pylist()
    return Summary(out.finished_run()["counts"], did_work, out.root, rejects)


def _is_merged(out: OutFolder, run: dict[str, Any], stamps: Stamps | None) -> bool:
    known = run.get("outputs", {})
    return run.get("status") == "complete" and all(
        is_as_written(path, known.get(out.relative(path)), stamps) for path in out.merged()
    )


def _remade(stale: dict[int, Stale]) -> Iterator[str]:
    """Say why parts are made again that were made before."""
    parts: dict[Stale, list[int]] = defaultdict(list)
    for part, reason in stale.items():
        if reason.why != NEW:
            parts[reason].append(part)
    for reason, found in list(parts.items())[:_REASONS_SHOWN]:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        where = f": {reason.path}" if reason.path else ""
        yield f"making {part_name(found[0])}{more} again, {reason.why}{where}"
    if len(parts) > _REASONS_SHOWN:
        yield f"... and parts again for {len(parts) - _REASONS_SHOWN} more reasons"


def open_tree(data: Path, images: Path | None) -> InputFiles:
    """Open DATA and the folder of images; refuse one that nothing can be read from."""
    files = InputFiles(_folder(data, "DATA"), images and _folder(images, "--images"))
    files.list_whole()
    return files


def _folder(data: Path, name: str) -> Path:
    try:
        there = data.exists()
    except Exception as error:  # each store has its own
        if not is_remote(data) and isinstance(error, OSError):
            raise unreadable(f"{name} {data}", error) from None
        raise unreachable(f"{name} {data}", error) from None
    if not there:
        raise BadUsageError(f"{name} {data} does not exist; give the root of the dataset's folders")
    if not data.is_dir():
        raise BadUsageError(f"{name} {data} is a file; give the folder that holds the dataset")
    if not is_remote(data) and not os.access(data, os.R_OK | os.X_OK):
        raise BadUsageError(f"{name} {data} cannot be read; check its permissions")
    if not any(data.iterdir()):
        raise BadUsageError(f"{name} {data} is empty; give the root of the dataset's folders")
    return data


def planned_subjects(source: Source, files: InputFiles) -> list[SubjectPlan]:
    """Plan every reading of a tree once.

    Raises
    ------
    BadUsageError
        If there is none.
    """
    try:
        subjects = _without_duplicates(list(source.plan(files)))
    except BadInputError as error:  # of a table that all readings need
        raise BadUsageError(str(error)) from None
    if not any(subject.readings or subject.rejects for subject in subjects):
        raise BadUsageError(
            f"{files.root} has the {source.name} layout, but no reading; check that it is the"
            " whole tree"
        )
    return subjects


def _without_duplicates(subjects: list[SubjectPlan]) -> list[SubjectPlan]:
    """Keep one of equal rows of one reading; reject all where they differ."""
    found: dict[tuple[str, str], list[PlannedReading]] = defaultdict(list)
    for reading in (reading for subject in subjects for reading in subject.readings):
        if not any(_says_the_same(reading, other) for other in found[reading.key]):
            found[reading.key].append(reading)
    refused = {
        (one.dataset, one.reading_id, one.path) for subject in subjects for one in subject.rejects
    }
    for subject in subjects:
        kept: dict[tuple[str, str], PlannedReading] = {}
        for reading in subject.readings:
            contradicted = (*reading.key, reading.metadata_path) in refused
            if len(found[reading.key]) == 1 and not contradicted:
                kept.setdefault(reading.key, reading)
            else:
                paths = sorted({one.metadata_path for one in found[reading.key]})
                what = f"{' and '.join(paths)}: several rows of {reading.reading_id}"
                error = BadInputError("duplicate_id", reading.metadata_path, what)
                subject.rejects.append(Reject.of(error, *reading.key, "plan"))
        subject.readings = list(kept.values())
    return subjects


def _says_the_same(one: PlannedReading, other: PlannedReading) -> bool:
    """Compare two rows, wherever they stand: a table may be there twice."""
    return dataclasses.replace(one, metadata_path=other.metadata_path) == other


def _part_count(kept: int | None, planned: int, readings_per_part: int) -> int:
    """Keep the first run's number of parts, unless that was a trial on a few readings."""
    if kept and planned <= _TRIAL_GROWTH * kept * readings_per_part:
        return kept
    return -(-planned // readings_per_part)


def _notices(run: dict[str, Any], job: Job, wanted: Options) -> list[str]:
    found = []
    if run.get("data", str(job.data)) != str(job.data):
        found.append(f"{job.out} holds a run of {run['data']}; bringing it to {job.data}")
    changed = differences(with_defaults_of(job.layout, Options()), wanted)
    return [*found, f"options, default -> given now or kept: {changed}"] if changed else found


def _make(
    stale: list[PartPlan], parts: set[int], job: Job, wanted: Options, header: dict[str, Any]
) -> None:
    out = job.folder
    with contextlib.ExitStack() as stack:
        if stale:
            client = stack.enter_context(dask_client(wanted.execution, out.scratch))
        write_json(out.run_file, header | {"status": "running"})
        out.remove_all_but(parts)
        if stale:
            planned = sum(plan.planned for plan in stale)
            progress = stack.enter_context(Progress("readings", planned))
            for plan in _made(client, stale, job):
                progress.advance(plan.planned)
            out.remove_litter()  # of workers that died


def _made(client: Any, stale: list[PartPlan], job: Job) -> Iterator[PartPlan]:
    """Make parts; readings on which workers die time and again are rejected, their mates kept."""
    out, deaths = job.folder, Counter[tuple[str, str]]()
    at_nothing, in_a_row = Counter[int](), 0
    longest_first = sorted(stale, key=lambda plan: -len(plan.readings))  # all workers end together
    jobs: deque[tuple[Any, ...]] = deque((plan, job, (), token_hex(4)) for plan in longest_first)
    for (plan, _, _, attempt), written in each_done(client, make_part, jobs):
        if written is not WORKER_DIED:
            at_nothing.clear()
            in_a_row = 0
            yield plan
            continue
        in_a_row += 1
        if at_work := reading_at_work(out, plan.part, attempt):
            deaths[at_work] += 1
            at_nothing.clear()
        else:
            at_nothing[plan.part] += 1
        if at_nothing[plan.part] >= _DEATHS_AT_NOTHING or in_a_row >= _DEATHS_IN_A_ROW:
            raise BadUsageError(
                f"workers die time and again as they begin, make or write {part_name(plan.part)};"
                " if memory is short give fewer --workers; the same command goes on from here"
            )
        fatal = frozenset(key for key, times in deaths.items() if times >= _DEATHS)
        jobs.append((plan, job, fatal, token_hex(4)))


def _header(job: Job, n_parts: int) -> dict[str, Any]:
    software = {"egma": __version__, "python": platform.python_version()}
    told = getattr(job.layout, "declaration", None)  # licence and terms that the tree itself tells
    return {
        "schema_version": SCHEMA_VERSION,
        "data": str(job.data),
        "images": job.images and str(job.images),
        "source": job.source,
        "options": job.options.output_half,
        "n_parts": n_parts,
        "software": software | {name: version(name) for name in _SOFTWARE},
        **({"declared": {job.source: told(job.files())}} if told else {}),
    }


def _finish(
    out: OutFolder,
    plans: list[PartPlan],
    header: dict[str, Any],
    shared: dict[str, Fingerprint],
) -> None:
    """Merge tables and rejects, check that nothing vanished, and only then call it complete."""
    parts = [plan.part for plan in plans]
    records, inputs = [], [_inputs_table(shared)]
    for part in parts:
        record = _record_of(out, part)
        # As columns they take a quarter of the memory: some twenty files a reading.
        inputs.append(_inputs_table(record.pop("inputs")))
        records.append(record)
    tables = part_tables(header["options"]["output"]["privacy"])
    for name in set(TABLES) - set(tables):
        delete(out.table(name))
    shares = ([out.part_table(part, name) for part in parts] for name in tables)
    with ThreadPoolExecutor() as threads:
        list(threads.map(concatenate, shares, map(out.table, tables), tables.values()))
    written = sum(record["written"] for record in records)
    rejects = [reject for record in records for reject in record["rejects"]]
    rejects.sort(key=lambda reject: tuple(reject.values()))
    told = [{name: value or None for name, value in reject.items()} for reject in rejects]
    write_table(out.rejects, table_of(REJECTS, told))
    planned = sum(plan.planned for plan in plans)
    if planned != written + len(rejects):
        raise RuntimeError(f"planned {planned}, but wrote {written} and rejected {len(rejects)}")
    counts = counted(out, planned, rejects, records)
    known = pa.concat_tables(inputs).sort_by("path")
    paths = known.column("path")
    # Lists of checksums, and tables of all readings, are inputs of every part.
    once = pc.not_equal(paths.slice(1), paths.slice(0, len(paths) - 1)).to_pylist()
    known = known.filter(pa.array([True, *once]))
    write_table(out.inputs, known)
    summary = summed_up(one for batch in known.to_batches(1024) for one in batch.to_pylist())
    out.write_run(header | {"status": "complete", "counts": counts, "inputs": summary})


def _inputs_table(inputs: Mapping[str, Fingerprint]) -> pa.Table:
    """Make rows of fingerprints; a name that is no UTF-8 is told as in the rejects."""
    rows = (
        {"path": path.encode(errors="backslashreplace").decode(), **known}
        for path, known in inputs.items()
    )
    return table_of(INPUTS, rows)


def _record_of(out: OutFolder, part: int) -> dict[str, Any]:
    """Read the record of a part that was made a moment ago, or that was current."""
    record = out.record(part)
    if record is None:
        path = out.record_file(part)
        raise damaged(path, "its checksum is another" if path.exists() else "it is gone")
    return record


def counted(
    out: OutFolder, planned: int, rejects: list[dict[str, Any]], records: list[dict[str, Any]]
) -> dict[str, Any]:
    """Count what ``run.json`` tells, from the tables and the parts' records."""
    readings = read_parquet(out.table("readings")).to_pylist()
    notes = sum((Counter(record["notes"]) for record in records), Counter[str]())
    return {
        "planned": planned,
        "written": len(readings),
        "rejected": len(rejects),
        "images": len({reading["dicom_id"] for reading in readings}),
        "sentences": sum(reading["sentences"] for reading in readings),
        "written_by_dataset": dict(Counter(reading["dataset"] for reading in readings)),
        "written_by_split": dict(Counter(reading["split"] or "unknown" for reading in readings)),
        "rejected_by_reason": dict(Counter(reject["reason"] for reject in rejects)),
        "notes": dict(notes),
    }
