"""Render other heatmaps from what ``out/`` holds; the raw data are not read again."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.etl.cluster import WORKER_DIED, dask_client, each_done
from egma_prep.etl.make_part import shard_options
from egma_prep.etl.out_folder import OutFolder
from egma_prep.gaze.frame import frame_of
from egma_prep.gaze.sentences import SentenceSpan
from egma_prep.options import Changes, Options, differences, in_order, with_changes
from egma_prep.shards.assemble import Gaze, rendered, with_mentions
from egma_prep.shards.formats import load_shard
from egma_prep.shards.schema import SHARD, described, key_of
from egma_prep.shards.tables import write_table
from egma_prep.sources.reading import Words
from egma_prep.sources.registry import check_degrees, sources
from egma_prep.storage.atomic import write_json
from egma_prep.storage.paths import Fingerprint, delete_folder, make_folder, place_of, resolved
from egma_prep.storage.progress import Progress, tell

Say = Callable[[str], object]

FROM_GAZE = ("heatmap", "sentences")
RENDERED_FROM = ("words", "fixations", "sentences")


def render_heatmaps(out: str | Path = "out", options: Changes = (), *, say: Say = tell) -> int:
    """Bring the shards to other render options, as ``egma-prep render-heatmaps`` does.

    Parameters
    ----------
    out : str or Path
        Holds a complete run.
    options : mapping, or iterable of them
        Render options by stage, later ones win; the others stay as last rendered.
    say : callable
        Takes lines for the user.

    Returns
    -------
    int
        Readings rendered.

    Raises
    ------
    BadUsageError
        If there is no complete run, or another stage's options are to change.
    """
    folder = OutFolder(resolved(place_of(out)))
    folder.finished_run()
    with folder.locked():
        return _render_again(folder, folder.finished_run(), in_order(options), say)


def _render_again(
    out: OutFolder, run: dict[str, Any], changes: list[Mapping[str, Any]], say: Say
) -> int:
    kept = with_changes(Options(), run["options"])
    wanted = with_changes(kept, *changes)
    if wanted.data_half != kept.data_half:
        stages = [name for name in kept.data_half if kept.data_half[name] != wanted.data_half[name]]
        raise BadUsageError(
            f"{', '.join(stages)} options change more than heatmaps; use: egma-prep run DATA"
        )
    if source := sources().get(run["source"]):
        check_degrees(source, wanted)
    if kept.output.privacy:
        raise BadUsageError(
            f"{out.root} was made with --privacy and holds no fixations; render by: egma-prep run"
        )
    written = written_by_part(out)
    if sum(written.values()) != run["counts"]["written"]:
        again = f"egma-prep run {run['data']} --out {out.root}"
        raise BadUsageError(
            f"records of parts in {out.state} are damaged or missing; mend them first: {again}"
        )
    changed = differences(kept, wanted) or "as before"
    say(f"rendering {run['counts']['written']} readings again: {changed}")
    render_parts(out, kept, wanted, written)
    return run["counts"]["written"]


def render_parts(out: OutFolder, kept: Options, options: Options, written: dict[int, int]) -> None:
    """Build all shards anew beside the old ones, then swap the folders.

    Parameters
    ----------
    kept : Options
        Those of the last run.
    options : Options
        The same, with other render options.
    written : dict
        Readings of each part that has any; the shards of other parts go.
    """
    delete_folder(out.next_shards)
    make_folder(out.next_shards)
    outputs = {}
    with (
        dask_client(options.execution, out.scratch) as client,
        Progress("readings", sum(written.values())) as progress,
    ):
        jobs = deque((part, out, kept.render.format, options) for part in written)
        for (part, *_), fingerprint in each_done(client, render_part, jobs):
            if fingerprint is WORKER_DIED:
                raise BadUsageError(
                    "a worker died while rendering; if memory is short give fewer --workers, then"
                    " repeat the same command"
                )
            outputs[str(part)] = fingerprint
            progress.advance(written[part])
    out.check_lock()
    write_json(out.swap_file, {"options": options.output_half, "outputs": outputs})
    out.finish_swap()


def written_by_part(out: OutFolder) -> dict[int, int]:
    """Read how many readings each part has, of those that have any."""
    records = {part: record for part in out.parts() if (record := out.record(part))}
    return {part: record["written"] for part, record in records.items() if record["written"]}


def render_part(part: int, out: OutFolder, old_format: str, options: Options) -> Fingerprint:
    """Render one part's shard into the folder of new shards."""
    old = load_shard(out.shard(part, old_format))
    tables = out.part_rows(part, RENDERED_FROM)
    made = [
        with_mentions(
            render_reading(facts, {name: tables[name][key_of(facts)] for name in tables}, options),
            options.render,
            dict(zip(said["text"], said["mentions"], strict=True)),
        )
        for facts, said in zip(
            old.select(["dataset", "reading_id", "width", "height"]).to_pylist(),
            _texts_and_mentions(old),
            strict=True,
        )
    ]
    schema = described(SHARD, shard_options(options))
    columns = [
        pa.array([one[name] for one in made], schema.field(name).type)
        if name in FROM_GAZE
        else old.column(name)
        for name in schema.names
    ]
    table = pa.Table.from_arrays(columns, schema=schema)
    with out.at_work():
        return write_table(out.shard(part, options.render.format, out.next_shards), table)


def _texts_and_mentions(shard: pa.Table) -> Iterator[dict[str, list[Any]]]:
    for own in shard["sentences"]:
        yield {name: own.values.field(name).to_pylist() for name in ("text", "mentions")}


def render_reading(
    facts: Mapping[str, Any], tables: Mapping[str, pa.Table], options: Options
) -> dict[str, Any]:
    """Render one reading's maps from its rows of the tables, in the frame of its image."""
    words, sentences = tables["words"], tables["sentences"]
    spans = zip(
        sentences["first_word"].to_pylist(), sentences["last_word"].to_pylist(), strict=True
    )
    try:
        return rendered(
            Gaze.of(tables["fixations"]),
            Words(words["text"].to_pylist(), words["begin"].to_numpy(), words["end"].to_numpy()),
            [SentenceSpan(*span) for span in spans],
            frame_of(facts["width"], facts["height"], options.image.fit),
            options.render,
        )
    except BadInputError as error:  # it would be lost, though it is written
        raise BadUsageError(f"{facts['reading_id']} cannot be rendered so: {error}") from None
