"""Which readings of a finished folder a run would lose: other data, or a half-mounted share."""

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from egma_prep.errors import BadInputError, BadUsageError, Reject
from egma_prep.etl.make_part import read_image
from egma_prep.etl.out_folder import OutFolder, part_number
from egma_prep.etl.parts import Job, PartPlan
from egma_prep.shards.formats import formats, load_shard
from egma_prep.shards.schema import Key, key_of
from egma_prep.shards.tables import read_parquet
from egma_prep.sources.check_reading import check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import PlannedReading, Size, typed_reading
from egma_prep.storage.atomic import is_as_written

_KEY = ["dataset", "reading_id"]
_MOST_LOST = 0.1
"""Of the readings written before: a share that is half mounted lacks more, a correction less."""


def refuse_loss(
    out: OutFolder,
    plans: Sequence[PartPlan],
    stale: Sequence[PartPlan],
    job: Job,
    files: InputFiles,
) -> None:
    """Refuse to go on where more than a tenth of the readings written before would be lost.

    Parameters
    ----------
    plans : sequence of PartPlan
        All that DATA promises now.
    stale : sequence of PartPlan
        Those to be made again; the files of the others are as they were.

    Raises
    ------
    BadUsageError
        If so, naming both counts and the most frequent reason.
    """
    before = written_before(out)
    told = (out.run() or {}).get("counts", {}).get("written", 0)
    total = max(len(before), int(told))
    fewest = total - _MOST_LOST * total
    planned = _keys_of(plans)
    # Readings that are known by their number alone may be any that are planned.
    wanted = before if len(before) == total else before | planned
    if len((planned & wanted) - _keys_of(stale)) >= fewest:
        return
    in_doubt = [plan for plan in stale if _may_lose(out, plan, job, files)]
    left = _keys_of(in_doubt) & wanted
    kept = len((planned & wanted) - left)
    reasons: list[Reject] = [
        reject
        for plan in plans
        for reject in plan.rejects
        if not reject.reading_id or (reject.dataset, reject.reading_id) in before
    ]
    for reject in _loaded(in_doubt, left, job):
        if kept >= fewest:
            return
        if reject is None:
            kept += 1
        else:
            reasons.append(reject)
    if min(kept, total) < fewest:
        where = f"{out.root} holds {total} readings, of which {files.root} has {kept}"
        raise BadUsageError(f"{where}: {_why(reasons, total - kept, job)}")


def _keys_of(plans: Sequence[PartPlan]) -> set[Key]:
    return {reading.key for plan in plans for reading in plan.readings}


def written_before(out: OutFolder) -> set[Key]:
    """Read the keys of what was written: from the parts where the table of all is damaged."""
    table, run = out.table("readings"), out.run() or {}
    known = run.get("outputs", {}).get(out.relative(table))
    if known and is_as_written(table, known):
        return _keys(read_parquet(table).to_pylist())
    numbers = (part_number(path.name) for path in out.state.glob("part-*"))
    found = {key for part in numbers if part is not None for key in _written_in(out, part)}
    if not known and table.exists():  # of the run before one that was cut
        with contextlib.suppress(BadUsageError):
            found |= _keys(read_parquet(table).to_pylist())
    return found


def _keys(rows: Iterable[Mapping[str, str]]) -> set[Key]:
    return {key_of(dict(row)) for row in rows}


def _written_in(out: OutFolder, part: int) -> set[Key]:
    """Read the keys of a part, from its shard where its table is damaged."""
    record, table = out.record(part), out.part_table(part, "readings")
    with contextlib.suppress(BadUsageError):
        if record is None or is_as_written(table, record["outputs"].get("readings")):
            return _keys(read_parquet(table).to_pylist())
    for name in formats():
        with contextlib.suppress(BadUsageError):
            return _keys(load_shard(out.shard(part, name)).select(_KEY).to_pylist())
    return set()


def _may_lose(out: OutFolder, plan: PartPlan, job: Job, files: InputFiles) -> bool:
    """Tell whether a part's readings may fail now: its inputs are others, or nobody can tell."""
    record = out.record(plan.part)
    if record is None:
        return True
    key = plan.key(job.source, job.options)
    if any(record["key"].get(name) != key[name] for name in ("metadata", "layout")):
        return True
    return not all(files.unchanged(path, known) for path, known in record["inputs"].items())


def _loaded(plans: Sequence[PartPlan], wanted: set[Key], job: Job) -> Iterator[Reject | None]:
    """Load readings as far as is cheap, images to their header; yield why each fails, or None."""
    files, subject = job.files(), None
    sizes: dict[str, Size] = {}

    def read(files: InputFiles, planned: PlannedReading) -> None:
        files.read(job.layout.load(planned, files, job.options.source).image_path)

    readings = [one for plan in plans for one in plan.readings if one.key in wanted]
    for planned in files.ahead(readings, read):
        if planned.subject_id != subject:
            files.forget_tables()
            subject = planned.subject_id
        yield _fault(planned, job, files, sizes)


def _fault(
    planned: PlannedReading,
    job: Job,
    files: InputFiles,
    sizes: dict[str, Size],
) -> Reject | None:
    try:
        raw = typed_reading(job.layout.load(planned, files, job.options.source), planned)
        path = raw.image_path
        if path not in sizes:
            _, sizes[path] = read_image(path, files, job.options.image)
        check_reading(raw, sizes[path])
    except BadInputError as error:
        return Reject.of(error, *planned.key, "read")
    except BadUsageError:  # a store that does not answer is no fault of the reading
        raise
    except MemoryError:  # nor is that; the next run tries it again
        return None
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        return Reject.of(BadInputError("unexpected", "", what), *planned.key, "read")
    return None


def _why(reasons: Sequence[Reject], lost: int, job: Job) -> str:
    """Say what most readings are lost by, and how to mend it."""
    ask = (
        "is it another dataset, or a share that is not wholly mounted? Choose another --out, or"
        " let the others go by: egma-prep run --replace"
    )
    if not reasons:
        return ask
    ((reason, times),) = Counter(reject.reason for reject in reasons).most_common(1)
    example = next(reject for reject in reasons if reject.reason == reason)
    if job.options.output.privacy:
        example = example.without_values()
    found = f"{times} x {reason}, such as: {example.message}"
    if 2 * times < lost:  # most are not there at all
        return f"{ask}; {found}"
    return (
        f"{found}. Mend that and repeat the command, or choose another --out; egma-prep run"
        f" --replace would let {lost} readings go"
    )
