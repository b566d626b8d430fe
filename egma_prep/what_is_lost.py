"""Which readings of a finished folder a run would lose: other data, or a half-mounted share."""

import contextlib
from collections.abc import Iterator, Sequence

from egma_prep.errors import BadUsageError
from egma_prep.input_files import InputFiles
from egma_prep.out_folder import OutFolder
from egma_prep.parts import Job, PartPlan
from egma_prep.schema import Key, key_of
from egma_prep.whole_files import read_parquet

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
        If so, naming both counts.
    """
    if not (before := written_before(out)):
        return
    kept = before & {reading.key for plan in plans for reading in plan.readings}
    for plan in stale:
        record = out.record(plan.part)
        inputs = record["inputs"].items() if record else ()
        if any(known["size"] >= 0 and not files.has(path) for path, known in inputs):
            kept -= {*_without_files(plan, job)}
    if len(before) - len(kept) > _MOST_LOST * len(before):
        raise BadUsageError(
            f"{out.root} holds {len(before)} readings, of which {files.root} has {len(kept)}: is it"
            " another dataset, or a share that is not wholly mounted? Choose another --out, or let"
            " the others go by: egma-prep run --replace"
        )


def written_before(out: OutFolder) -> set[Key]:
    """Read the keys of what the last finished run wrote; none where its table is damaged."""
    table = out.table("readings")
    with contextlib.suppress(BadUsageError):
        return set(map(key_of, read_parquet(table).to_pylist())) if table.exists() else set()
    return set()


def _without_files(plan: PartPlan, job: Job) -> Iterator[Key]:
    """Name the readings that cannot be loaded: files may have moved, only their source can tell."""
    files, subject = job.files(), None
    for planned in plan.readings:
        if planned.subject_id != subject:
            files.forget_tables()
            subject = planned.subject_id
        try:
            raw = job.layout.load(planned, files, job.options.source)
        except BadUsageError:
            raise
        except Exception:  # a reject, whatever it is
            yield planned.key
            continue
        if not files.has(files.spelled(raw.image_path)):
            yield planned.key
