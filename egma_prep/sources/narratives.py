"""What narratives of pictures and of videos share: lines, ids, traces.

A sample of the pointer stands for a fixation until the next sample.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.images import image_size
from egma_prep.sources.files import InputFiles, Line
from egma_prep.sources.manifests import manifest
from egma_prep.sources.pictures import remark_archives
from egma_prep.sources.reading import (
    Fixations,
    FloatArray,
    PlannedReading,
    RawReading,
    RowsOfFile,
    Words,
)
from egma_prep.sources.values import check_intervals, is_safe_id, json_document, number

_DECLARED = manifest("localized-narratives")
_SPLIT = re.compile(rf"_({'|'.join(_DECLARED['splits'])})(?![a-z])", re.IGNORECASE)
_MOST_SHARES = 10.0  # the pointer was followed in a small band around the image


def lines_of(files: InputFiles, paths: Iterable[str]) -> Iterator[tuple[Line, bytes]]:
    """Read the lines of several files; archives beside them are told of."""
    remark_archives(files)
    for path in paths:
        yield from files.lines(path)


def parsed(line: Line, text: bytes) -> Any:
    """Read a line's JSON."""
    if not text:
        raise BadInputError("oversized", str(line), f"{line} has {line.size:,} bytes")
    return json_document(text.strip(), str(line))


def record_of(planned: PlannedReading, files: InputFiles) -> tuple[Any, str]:
    """Read a planned line again; tell where it stands, too."""
    assert planned.line is not None
    return parsed(planned.line, files.line(planned.line)), str(planned.line)


def value(record: object, name: str, kind: Any, where: str) -> Any:
    """Take a value of a record; `BadInputError` if there is none of the kind."""
    found = record.get(name) if isinstance(record, dict) else None
    if found is None or isinstance(found, bool) or not isinstance(found, kind):
        raise BadInputError("bad_json", where, f"{where} lacks {name}, or has it in another type")
    return found


def safe(*parts: str) -> str:
    """Make an id of parts; where they cannot be told from it alone, a digest does."""
    text = "-".join(parts)
    if is_safe_id(text) and not any("-" in part for part in parts[:-1]):
        return text
    digest = hashlib.sha256("\n".join(parts).encode(errors="backslashreplace")).hexdigest()[:8]
    return f"{re.sub('[^A-Za-z0-9._-]', '_', text).lstrip('.')[:100]}-{digest}"


def trace(entries: list[Any], names: tuple[str, ...], where: str) -> FloatArray:
    """Read the pointer's samples, ``(n, 1 + names)``; each lasts until the next one of its entry.

    An entry lists the samples from when the pointer came onto the image until it left: its last one
    has no length. The columns are a sample's time, its end, and the other names.
    """
    rows: list[list[float]] = []
    for entry in entries:
        if not isinstance(entry, list):
            raise BadInputError("bad_json", where, f"{where} has a trace that lists no samples")
        own = [
            [number(value(one, name, object, where), where, f"{where}, {name}") for name in names]
            for one in entry
        ]
        ends_s = [one[0] for one in [*own[1:], *own[-1:]]]
        rows += [[one[0], end_s, *one[1:]] for one, end_s in zip(own, ends_s, strict=True)]
    if not rows:
        raise BadInputError("no_fixations", where, f"{where} has no trace")
    return np.array(rows)


def raw_reading(
    planned: PlannedReading, files: InputFiles, words: Words, samples: FloatArray, path: str
) -> RawReading:
    """Make a reading of words and of the pointer's samples, in shares of the picture."""
    where = str(planned.line)
    width, height = image_size(files.read(path), path)
    begin_s, end_s, x, y = samples.T
    check_intervals(begin_s, end_s, where, lambda at: f"{where}, sample {at + 1}")
    if np.abs(samples[:, 2:]).max() > _MOST_SHARES:
        raise BadInputError("bad_number", where, f"{where} has a trace that is not in shares")
    degree_px = np.full(len(x), np.nan)  # nobody tells the annotators' screens
    split = _SPLIT.search(planned.row["dataset"])
    return RawReading(
        *planned.key,
        subject_id=planned.subject_id,
        study_id=planned.study_id,
        dicom_id=planned.dicom_id,
        split=_DECLARED["splits"][split[1].lower()] if split else None,
        view=None,  # photographs have none
        image_path=path,
        width=width,
        height=height,
        fixations=Fixations(
            begin_s, end_s, x * width - 0.5, y * height - 0.5, degree_px, degree_px
        ),
        words=words,
        labels={},
        regions=[],
        notes={} if split else {"without_split": 1},
        fixation_rows=RowsOfFile(where, lambda at: f"sample {at + 1}"),
        word_rows=RowsOfFile(where, lambda at: f"word {at + 1}"),
    )
