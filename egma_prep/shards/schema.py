"""The output contract: every column of every table and shard, and its version."""

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

Key = tuple[str, str]
Columns = dict[str, list[Any]]

SCHEMA_VERSION = "2"
"""Raised when a reader of the old columns would be wrong; new columns alone do not raise it.

2: by `render.weights`, `kernel` and `normalise` a peak and a grid may be other than seconds and
means; sentences tell what they mention.
"""

READABLE = ("1", SCHEMA_VERSION)
"""Versions of which nothing is read otherwise: what they lack is null."""

RULES_VERSION = "4"
"""Raised when the same files and options give other values: parts made before are made again."""

_TYPES = {
    "text": pa.string(),
    "int": pa.int32(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "flag": pa.bool_(),
    "grid": pa.list_(pa.float32()),
}


def _fields(described: str) -> list[pa.Field]:
    """Read ``"text: name other, int: width"``."""
    groups = (group.split(":") for group in described.split(","))
    return [
        pa.field(name, _TYPES[kind.strip()]) for kind, names in groups for name in names.split()
    ]


_KEY = "text: dataset reading_id"
_FACTS = f"{_KEY} subject_id study_id dicom_id split view, int: width height"

MENTION = pa.struct(_fields("text: name kind side, flag: negated uncertain"))
# Times are null in a written report; heatmap, peak and grid where nobody looked; mentions in single
# words, and in shards of schema 1.
SENTENCE = pa.struct(
    [
        *_fields(
            "text: text, double: begin end, int: words fixations, float: gaze_seconds,"
            " bytes: heatmap, float: peak_seconds, grid: grid"
        ),
        pa.field("mentions", pa.list_(MENTION)),
    ]
)
# In the 224 frame; REFLACX alone gives certainties.
REGION = pa.struct(_fields("text: name kind, float: x0 y0 x1 y1 certainty"))
SHARD = pa.schema(
    [
        *_fields(f"{_FACTS}, bytes: image heatmap"),
        pa.field("sentences", pa.list_(SENTENCE)),
        pa.field("labels", pa.map_(pa.string(), pa.float32())),
        pa.field("regions", pa.list_(REGION)),
    ]
)
# Several radiologists read one image: each is stored once.
IMAGES = pa.schema(_fields("text: dicom_id, int: width height, bytes: image"))
# In pixels of the original image, and in the 224 frame where a name says so; seconds from the
# recording's start. Double, so that what was read is what is written.
TABLES = {
    name: pa.schema(_fields(columns))
    for name, columns in {
        "readings": f"{_FACTS} part sentences words fixations fixations_on_image,"
        " double: gaze_seconds",
        "words": f"{_KEY}, int: word_index, text: text, double: begin end, int: sentence_index,"
        " double: gaze_seconds",
        "fixations": f"{_KEY}, int: fixation_index, double: begin end x y x_224 y_224,"
        " flag: on_image, double: px_per_deg_x px_per_deg_y shown_x0 shown_y0 shown_x1 shown_y1",
        "alignment": f"{_KEY}, int: word_index fixation_index, double: seconds",
        "sentences": f"{_KEY}, int: sentence_index, text: text, double: begin end,"
        " int: first_word last_word",
    }.items()
}
# Columns that files of an earlier version lack.
LATER = ("shown_x0", "shown_y0", "shown_x1", "shown_y1", "mentions")
# Who has these can draw one radiologist's scanpath; --privacy leaves them out.
_RAW_GAZE = ("fixations", "alignment")
# A size of -1: it was looked for and is not there, which decides as much as its content.
INPUTS = pa.schema(
    [
        pa.field("path", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("sha256", pa.string()),
    ]
)
REJECTS = pa.schema(_fields(f"{_KEY} path stage reason message"))


def part_tables(privacy: bool) -> dict[str, pa.Schema]:
    """List the tables that are written; with privacy none that holds raw gaze."""
    return {name: one for name, one in TABLES.items() if not (privacy and name in _RAW_GAZE)}


def without_raw_gaze(tables: dict[str, Columns]) -> dict[str, Columns]:
    """Leave out a reading's fixations, alignment and gaze of single words (paper, Appendix E)."""
    kept = {name: columns for name, columns in tables.items() if name not in _RAW_GAZE}
    words = tables["words"]
    return kept | {"words": words | {"gaze_seconds": [None] * len(words["text"])}}


def described(schema: pa.Schema, options: dict[str, Any]) -> pa.Schema:
    """Attach the version and the options that shaped the file.

    Parameters
    ----------
    options : dict
        ``{"sigma": ..., "fit": ...}``; each becomes ``egma.<name>``.
    """
    facts = {"schema_version": SCHEMA_VERSION, **options}
    return schema.with_metadata(
        {
            f"egma.{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in facts.items()
        }
    )


def up_to_date(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Add the columns that a file of an earlier version lacks, as nulls."""
    if not {*schema.names} - {*table.schema.names} <= {*LATER}:
        return table  # of another kind; who reads it says so
    for at, field in enumerate(schema):
        if field.name not in table.schema.names:
            table = table.add_column(at, field, pa.nulls(len(table), field.type))
    return table


def sentences_up_to_date(shard: pa.Table) -> pa.Table:
    """Add nulls for what the sentences of an earlier version do not tell."""
    at = shard.schema.get_field_index("sentences")
    kind = SHARD.field("sentences")
    if "mentions" in {one.name for one in shard.schema.field(at).type.value_type}:
        return shard
    return shard.set_column(at, kind, pa.array(shard["sentences"].to_pylist(), kind.type))


def table_of(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Build a table from rows by name."""
    return pa.Table.from_pylist(list(rows), schema=schema)


def key_of(row: dict[str, Any]) -> Key:
    """Take the key of a row of any output."""
    return row["dataset"], row["reading_id"]


def by_reading(table: pa.Table) -> dict[Key, pa.Table]:
    """Slice a table by reading; a reading without rows has an empty slice."""
    rows: dict[Key, list[int]] = defaultdict(list)
    keys = (table[name].to_pylist() for name in ("dataset", "reading_id"))
    for at, key in enumerate(zip(*keys, strict=True)):
        rows[key].append(at)
    found: dict[Key, pa.Table] = defaultdict(lambda: table.slice(0, 0))
    for key, own in rows.items():
        is_run = own[-1] - own[0] + 1 == len(own)  # as in any table that was not changed
        found[key] = table.slice(own[0], len(own)) if is_run else table.take(own)
    return found
