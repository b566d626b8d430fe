"""The output contract: every column of every table and shard, and its version."""

import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = "1"
"""Raised when a reader of the old columns would be wrong; new columns alone do not raise it."""

_key = [pa.field("dataset", pa.string()), pa.field("reading_id", pa.string())]
_facts = [
    pa.field("subject_id", pa.string()),
    pa.field("study_id", pa.string()),
    pa.field("dicom_id", pa.string()),
    pa.field("split", pa.string()),
    pa.field("view", pa.string()),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
]
_interval = [pa.field("begin", pa.float64()), pa.field("end", pa.float64())]

SENTENCE = pa.struct(
    [
        pa.field("text", pa.string()),
        *_interval,
        pa.field("words", pa.int32()),
        pa.field("fixations", pa.int32()),
        pa.field("gaze_seconds", pa.float32()),
        pa.field("heatmap", pa.binary()),
        pa.field("peak_seconds", pa.float32()),
        pa.field("grid", pa.list_(pa.float32())),
    ]
)
REGION = pa.struct(
    [
        pa.field("name", pa.string()),
        pa.field("kind", pa.string()),
        *[pa.field(side, pa.float32()) for side in ("x0", "y0", "x1", "y1", "certainty")],
    ]
)
SHARD = pa.schema(
    [
        *_key,
        *_facts,
        pa.field("image", pa.binary()),
        pa.field("heatmap", pa.binary()),
        pa.field("sentences", pa.list_(SENTENCE)),
        pa.field("labels", pa.map_(pa.string(), pa.float32())),
        pa.field("regions", pa.list_(REGION)),
    ]
)
IMAGES = pa.schema(
    [
        pa.field("dicom_id", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("image", pa.binary()),
    ]
)
TABLES = {
    "readings": pa.schema(
        [
            *_key,
            *_facts,
            pa.field("part", pa.int32()),
            pa.field("sentences", pa.int32()),
            pa.field("words", pa.int32()),
            pa.field("fixations", pa.int32()),
            pa.field("fixations_on_image", pa.int32()),
            pa.field("gaze_seconds", pa.float64()),
        ]
    ),
    "words": pa.schema(
        [
            *_key,
            pa.field("word_index", pa.int32()),
            pa.field("text", pa.string()),
            *_interval,
            pa.field("sentence_index", pa.int32()),
            pa.field("gaze_seconds", pa.float64()),
        ]
    ),
    "fixations": pa.schema(
        [
            *_key,
            pa.field("fixation_index", pa.int32()),
            *_interval,
            *[pa.field(name, pa.float64()) for name in ("x", "y", "x_224", "y_224")],
            pa.field("on_image", pa.bool_()),
            *[pa.field(name, pa.float64()) for name in ("px_per_deg_x", "px_per_deg_y")],
        ]
    ),
    "alignment": pa.schema(
        [
            *_key,
            pa.field("word_index", pa.int32()),
            pa.field("fixation_index", pa.int32()),
            pa.field("seconds", pa.float64()),
        ]
    ),
    "sentences": pa.schema(
        [
            *_key,
            pa.field("sentence_index", pa.int32()),
            pa.field("text", pa.string()),
            *_interval,
            pa.field("first_word", pa.int32()),
            pa.field("last_word", pa.int32()),
        ]
    ),
}
REJECTS = pa.schema(
    [
        pa.field(name, pa.string())
        for name in ("dataset", "reading_id", "path", "stage", "reason", "message")
    ]
)


def described(schema: pa.Schema, options: dict[str, Any]) -> pa.Schema:
    """Attach the version and the options that shaped the file.

    Parameters
    ----------
    options : dict
        ``{"sigma": ..., "fit": ...}``; each becomes ``egma.<name>``.
    """
    facts = {"schema_version": SCHEMA_VERSION, "normalisation": "peak", **options}
    return schema.with_metadata(
        {
            f"egma.{name}": value if isinstance(value, str) else json.dumps(value)
            for name, value in facts.items()
        }
    )


def table_of(schema: pa.Schema, rows: Iterable[dict[str, Any]]) -> pa.Table:
    """Build a table from rows by name."""
    return pa.Table.from_pylist(list(rows), schema=schema)
