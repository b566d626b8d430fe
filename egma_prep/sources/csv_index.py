"""Where the rows of each id stand in a CSV of any size, found by reading it line by line once."""

import hashlib
from typing import BinaryIO, NamedTuple

from egma_prep.errors import BadInputError


class Span(NamedTuple):
    """Rows of one id that follow each other: where in the file, and which, from 0."""

    begin: int
    size: int
    row: int
    rows: int


class Index(NamedTuple):
    """A table's header line, the rows of each id, and the content's hash."""

    header: bytes
    spans: dict[str, list[Span]]
    sha256: str


def index_of(file: BinaryIO, path: str, column: str) -> Index:
    """Look up the rows of every id of a CSV with commas and no line breaks in its cells.

    Raises
    ------
    BadInputError
        If it has no such column.
    """
    header = file.readline()
    names = [name.strip(b' "\r\n') for name in header.removeprefix(b"\xef\xbb\xbf").split(b",")]
    if column.encode() not in names:
        raise BadInputError("missing_column", path, f"{path} has no column {column!r}")
    at = names.index(column.encode())
    digest = hashlib.sha256(header)
    spans: dict[bytes, list[Span]] = {}
    latest, begin, first, here = b"", len(header), 0, len(header)
    row = -1
    for row, line in enumerate(file):
        digest.update(line)
        cells = line.split(b",", at + 1)
        value = cells[at].strip(b' "\r\n') if len(cells) > at else b""
        if value != latest:
            if row > first:
                spans.setdefault(latest, []).append(Span(begin, here - begin, first, row - first))
            latest, begin, first = value, here, row
        here += len(line)
    if row >= first:
        spans.setdefault(latest, []).append(Span(begin, here - begin, first, row + 1 - first))
    found = {value.decode(errors="replace"): spans[value] for value in spans}
    return Index(header, found, digest.hexdigest())
