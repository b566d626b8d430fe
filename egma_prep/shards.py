"""One part's readings to its shard, images and tables; the record comes last."""

import json
import traceback
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from egma_prep.assemble import FramedImage, Rows, reading_rows
from egma_prep.errors import BadInputError, BadUsageError, Reject, remembered
from egma_prep.geometry import FRAME_PX, frame_of
from egma_prep.images import framed, image_size
from egma_prep.input_files import InputFiles
from egma_prep.options import ImageOptions, Options
from egma_prep.out_folder import OutFolder, write_json, write_tables
from egma_prep.parts import Job, PartPlan
from egma_prep.places import add_line, delete, make_folder
from egma_prep.readings import PlannedReading, RawReading
from egma_prep.schema import (
    IMAGES,
    SHARD,
    TABLES,
    described,
    part_tables,
    table_of,
    without_raw_gaze,
)
from egma_prep.sources import sources


def make_part(plan: PartPlan, job: Job, fatal: Collection[tuple[str, str]] = ()) -> dict[str, Any]:
    """Load, align, render and write one part; its record comes last.

    Parameters
    ----------
    fatal : collection of tuple
        Keys of readings that killed their worker time and again, to be rejected unread.

    Returns
    -------
    dict
        The record: key, counts, rejects, fingerprints of inputs and outputs.
    """
    job.check_sight()
    with OutFolder(job.out, job.token).at_work():
        return _make_part(plan, job, fatal)


def _make_part(plan: PartPlan, job: Job, fatal: Collection[tuple[str, str]]) -> dict[str, Any]:
    out, files = OutFolder(job.out, job.token), job.files()
    out.remove_part(plan.part)
    rows, rejects, notes = _load_all(plan, job, files, fatal)
    tables: dict[str, tuple[Path, pa.Table]] = {}
    if rows["shard"]:
        shard = described(SHARD, shard_options(job.options))
        images = described(IMAGES, {"image_size": FRAME_PX, "fit": job.options.image.fit})
        tables["images"] = out.image_part(plan.part), table_of(images, rows["images"])
        path = out.shard(plan.part, job.options.render.format)
        tables["shard"] = path, table_of(shard, rows["shard"])
    for name, schema in part_tables(job.options.output.privacy).items():
        tables[name] = out.part_table(plan.part, name), table_of(schema, rows[name])
    record = {
        "key": plan.key(job.source, job.options),
        "planned": plan.planned,
        "written": len(rows["shard"]),
        "rejects": [asdict(reject) for reject in sorted(rejects)],
        "notes": dict(notes),
        "inputs": plan.inputs | files.fingerprints,
        "outputs": dict(zip(tables, write_tables(tables.values()), strict=True)),
    }
    delete(out.last_reading_file(plan.part))
    out.check_lock()
    write_json(out.record_file(plan.part), record)
    return record


def reading_at_work(out: OutFolder, part: int) -> tuple[str, str] | None:
    """Read which reading a part was at when its worker died; None if it had not begun."""
    try:
        last = out.last_reading_file(part).read_bytes().splitlines()[-1]
        dataset, reading_id = json.loads(last)
    except (OSError, ValueError, IndexError):
        return None
    return dataset, reading_id


def shard_options(options: Options) -> dict[str, Any]:
    """List what a shard's file metadata say of its making."""
    render = options.render
    return {
        "image_size": FRAME_PX,
        "sigma": render.sigma,
        "truncation": render.truncate,
        "window": render.window,
        "lead": render.lead,
        "level": render.level,
        "empty_sentence": render.empty_sentence,
        "fit": options.image.fit,
    }


def _load_all(
    plan: PartPlan, job: Job, files: InputFiles, fatal: Collection[tuple[str, str]]
) -> tuple[dict[str, Rows], list[Reject], Counter[str]]:
    rows: dict[str, Rows] = {name: [] for name in (*TABLES, "images", "shard")}
    rejects, notes = list(plan.rejects), Counter[str]()
    images: dict[str, FramedImage | BadInputError] = {}  # decoded once for all their readings
    subject = None
    note = OutFolder(job.out).last_reading_file(plan.part)
    make_folder(note.parent)
    for planned in plan.readings:
        add_line(note, json.dumps(planned.key))  # who dies here is found by it
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
        raw, added = made
        for name, more in added.items():
            rows[name] += more
        notes.update(dict(raw.notes) | _noted(raw, added))
    for reading in rows["readings"]:
        reading["part"] = plan.part
    shown = {row["dicom_id"]: row for row in rows["shard"]}
    rows["images"] = [shown[dicom_id] for dicom_id in sorted(shown)]
    return rows, rejects, notes


def load_reading(
    planned: PlannedReading,
    job: Job,
    files: InputFiles,
    images: dict[str, FramedImage | BadInputError],
) -> tuple[RawReading, dict[str, Rows]] | Reject:
    """Make one reading's rows, as `reading_rows` does, from its files.

    Parameters
    ----------
    images : dict
        By path; filled with what was decoded.
    """
    stage = "read"
    try:
        raw = sources()[job.source].load(planned, files, job.options.source)
        stage = "image"
        path = raw.image_path
        image = remembered(images, path, lambda: _framed(path, files, job.options.image))
        stage = "render"
        rows = reading_rows(raw, image, job.options)
        return raw, without_raw_gaze(rows) if job.options.output.privacy else rows
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


def _noted(raw: RawReading, rows: dict[str, Rows]) -> dict[str, int]:
    reading, shard = rows["readings"][0], rows["shard"][0]
    return {
        "fixations_off_image": reading["fixations"] - reading["fixations_on_image"],
        "image_size_differs": (raw.width, raw.height) != (reading["width"], reading["height"]),
        "readings_without_gaze": shard["heatmap"] is None,
    }


def _framed(path: str, files: InputFiles, options: ImageOptions) -> FramedImage:
    data = files.read(path)
    width, height = image_size(data, path)
    if width * height > options.max_megapixels * 1e6:
        what = f"{path} has {width} x {height} pixels"
        raise BadInputError("oversized_image", path, what)
    frame = frame_of(width, height, options.fit)
    return FramedImage(frame, framed(data, path, frame))
