"""One part's readings to its shard, images and tables; the record comes last."""

import contextlib
import json
import socket
import traceback
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from egma_prep.errors import BadInputError, BadUsageError, Reject
from egma_prep.etl.out_folder import OutFolder
from egma_prep.etl.parts import Job, PartPlan
from egma_prep.gaze.frame import FRAME_PX, frame_of
from egma_prep.images import framed, image_size
from egma_prep.options import ImageOptions, Options
from egma_prep.shards.assemble import FramedImage, reading_columns
from egma_prep.shards.schema import (
    IMAGES,
    SHARD,
    TABLES,
    Columns,
    described,
    part_tables,
    without_raw_gaze,
)
from egma_prep.shards.tables import write_tables
from egma_prep.sources.check_reading import check_reading
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import PlannedReading, Size, typed_reading
from egma_prep.storage.atomic import write_json
from egma_prep.storage.paths import add_line, delete, is_of_a_store, make_folder, unreachable


def make_part(
    plan: PartPlan, job: Job, fatal: Collection[tuple[str, str]] = (), attempt: str = ""
) -> int:
    """Load, align, render and write one part, and last its record.

    The record holds the part's key, counts, rejects, fingerprints of inputs and of outputs.

    Parameters
    ----------
    fatal : collection of tuple
        Keys of readings that killed their worker time and again, to be rejected unread.
    attempt : str
        Tells the note of the reading at work from those of other attempts at the part.

    Returns
    -------
    int
        Readings written.
    """
    try:
        job.check_sight()
        with job.folder.at_work():
            return _make_part(plan, job, fatal, attempt)
    except Exception as error:
        if job.options.execution.scheduler and is_of_a_store(error):
            raise unreachable(f"from {socket.gethostname()} the object store", error) from None
        raise


def _make_part(plan: PartPlan, job: Job, fatal: Collection[tuple[str, str]], attempt: str) -> int:
    out, files = job.folder, job.files()
    out.remove_part(plan.part)
    columns, rejects, notes = _load_all(plan, job, files, fatal, attempt)
    written = len(columns["shard"]["image"])
    chosen = _chosen(plan.part, job, out)
    if not written:
        del chosen["shard"], chosen["images"]
    tables = [
        (path, pa.Table.from_pydict(columns[name], schema))
        for name, (path, schema) in chosen.items()
    ]
    record = {
        "key": plan.key(job.source, job.options),
        "planned": plan.planned,
        "written": written,
        "rejects": [asdict(reject) for reject in sorted(rejects)],
        "notes": dict(+notes),
        "inputs": plan.inputs | files.fingerprints,
        "outputs": dict(zip(chosen, write_tables(tables), strict=True)),
    }
    out.check_lock()
    write_json(out.record_file(plan.part), record)
    return written


def _chosen(part: int, job: Job, out: OutFolder) -> dict[str, tuple[Path, pa.Schema]]:
    """Tell where each of a part's tables goes, and what it holds."""
    options = job.options
    shard = described(SHARD, shard_options(options))
    made = {"fit": options.image.fit, "dicom_grey": options.image.dicom_grey}
    images = described(IMAGES, {"image_size": FRAME_PX, **made})
    tables = {
        name: (out.part_table(part, name), schema)
        for name, schema in part_tables(options.output.privacy).items()
    }
    return tables | {
        "shard": (out.shard(part, options.render.format), shard),
        "images": (out.image_part(part), images),
    }


def reading_at_work(out: OutFolder, part: int, attempt: str) -> tuple[str, str] | None:
    """Read which reading an attempt at a part was at when its worker died; None if at none.

    Notes of other attempts, which a worker that was cut off may still write, tell nothing of it.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in reversed(out.last_reading_file(part).read_bytes().splitlines()):
            of_attempt, *key = json.loads(line)
            if of_attempt == attempt:
                dataset, reading_id = key
                return dataset, reading_id
    return None


def shard_options(options: Options) -> dict[str, Any]:
    """List what a shard's file metadata say of its making."""
    render = options.render
    return {
        "image_size": FRAME_PX,
        "sigma": render.sigma,
        "truncation": render.truncate,
        "kernel": render.kernel,
        "border": render.border,
        "weights": render.weights,
        "normalisation": render.normalise,
        "window": render.window,
        "lead": render.lead,
        "level": render.level,
        "empty_sentence": render.empty_sentence,
        "fit": options.image.fit,
        "dicom_grey": options.image.dicom_grey,
    }


def _load_all(
    plan: PartPlan,
    job: Job,
    files: InputFiles,
    fatal: Collection[tuple[str, str]],
    attempt: str,
) -> tuple[dict[str, Columns], list[Reject], Counter[str]]:
    schemas = TABLES | {"shard": SHARD}
    columns: dict[str, Columns] = {
        table: {name: [] for name in schema.names} for table, schema in schemas.items()
    }
    rejects, notes = list(plan.rejects), Counter[str]()
    images: dict[str, FramedImage] = {}  # decoded once for all their readings
    subject = None
    note = job.folder.last_reading_file(plan.part)
    make_folder(note.parent)

    def read(files: InputFiles, planned: PlannedReading) -> None:
        if planned.key in fatal:
            return
        raw = job.layout.load(planned, files, job.options.source)
        if raw.image_path not in images:
            files.read(raw.image_path)

    for planned in files.ahead(plan.readings, read):
        add_line(note, json.dumps([attempt, *planned.key]))  # who dies here is found by it
        if planned.key in fatal:
            error = BadInputError("killed_worker", "", f"reading {planned.reading_id}")
            rejects.append(Reject.of(error, *planned.key, "read"))
            continue
        if planned.subject_id != subject:
            files.forget_tables()
            subject = planned.subject_id
        made = load_reading(planned, job, files, images)
        if isinstance(made, Reject):
            rejects.append(made.without_values() if job.options.output.privacy else made)
            continue
        added, noted = made
        for table, more in added.items():
            for name, values in more.items():
                columns[table][name] += values
        notes.update(noted)
    notes.update(not_as_published=len(files.differing))
    delete(note)  # who dies while writing is no reading's fault
    columns["readings"]["part"] = [plan.part] * len(columns["shard"]["image"])
    columns["images"] = _images_of(columns["shard"])
    return columns, rejects, notes


def _images_of(shard: Columns) -> Columns:
    row_of = {dicom_id: row for row, dicom_id in enumerate(shard["dicom_id"])}
    rows = [row_of[dicom_id] for dicom_id in sorted(row_of)]
    return {name: [shard[name][row] for row in rows] for name in IMAGES.names}


def load_reading(
    planned: PlannedReading,
    job: Job,
    files: InputFiles,
    images: dict[str, FramedImage],
) -> tuple[dict[str, Columns], Counter[str]] | Reject:
    """Make one reading's columns, as `reading_columns` does, from its files; count its notes.

    Parameters
    ----------
    images : dict
        By path; filled with what was decoded.
    """
    stage = "read"
    try:
        raw = typed_reading(job.layout.load(planned, files, job.options.source), planned)
        stage = "image"
        path, options = raw.image_path, job.options.image
        if path not in images:
            data, size = read_image(path, files, options)
            frame = frame_of(*size, options.fit)
            images[path] = FramedImage(frame, *framed(data, path, frame, options))
        image = images[path]
        stage = "check"
        raw = check_reading(raw, (image.frame.width, image.frame.height))
        stage = "render"
        columns = reading_columns(raw, image, job.options)
        notes = Counter({**raw.notes, **dict.fromkeys(image.notes, 1)})
        return without_raw_gaze(columns) if job.options.output.privacy else columns, notes
    except BadInputError as error:
        return Reject.of(error, *planned.key, stage)
    except BadUsageError:  # a store that does not answer is no fault of the reading
        raise
    except MemoryError:
        what = f"no memory left for reading {planned.reading_id}"
        return Reject.of(BadInputError("out_of_memory", "", what), *planned.key, stage)
    except Exception as error:
        # One reading must not stop a night's run; the message says where to look.
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        return Reject.of(BadInputError("unexpected", "", what), *planned.key, stage)


def read_image(path: str, files: InputFiles, options: ImageOptions) -> tuple[bytes, Size]:
    """Read an image file, and its width and height from its header.

    Raises
    ------
    BadInputError
        If it cannot be read, or is too large to be decoded.
    """
    data = files.read(path)
    width, height = image_size(data, path)
    if width * height > options.max_megapixels * 1e6:
        what = f"{path} has {width} x {height} pixels"
        raise BadInputError("oversized_image", path, what)
    return data, (width, height)
