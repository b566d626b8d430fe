"""What the pages of a Parquet file unpack to, by their own headers: a footer may say less.

Headers are Thrift's compact protocol, of which they need integers, byte strings and structs; see
``PageHeader`` in the format's parquet.thrift.
"""

from mmap import mmap
from typing import Any

_MOST_NESTED = 8
_UNPACKED, _PACKED, _DATA, _DATA_V2 = 2, 3, 5, 8
_VALUES = 1  # of a data page's own header


def pages_of(data: bytes | mmap, begin: int, end: int) -> tuple[int, int]:
    """Add up the values and unpacked bytes of the pages from one place to another, headers too.

    Raises
    ------
    ValueError, IndexError, KeyError
        If there are no pages.
    """
    values = unpacked = 0
    while begin < end:
        header, after = _struct(data, begin)
        if header[_UNPACKED] < 0 or header[_PACKED] < 0:
            raise ValueError("a page of negative size")
        unpacked += header[_UNPACKED] + after - begin
        for kind in (_DATA, _DATA_V2):
            values += header[kind][_VALUES] if kind in header else 0
        begin = after + header[_PACKED]
    return values, unpacked


def _struct(data: bytes | mmap, at: int, nested: int = 0) -> tuple[dict[int, Any], int]:
    """Read fields by number, and where the struct ends."""
    if nested > _MOST_NESTED:
        raise ValueError("a page's header is nested too deep")
    found: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        at += 1
        step, kind = divmod(kind, 16)
        if not step:
            number, at = _integer(data, at)
        number += step
        if kind in (1, 2):  # true and false
            found[number] = kind == 1
        elif kind in (4, 5, 6):
            found[number], at = _integer(data, at)
        elif kind == 8:
            length, at = _varint(data, at)
            at += length
        elif kind == 12:
            found[number], at = _struct(data, at, nested + 1)
        else:
            raise ValueError(f"a page's header with a field of kind {kind}")
    return found, at + 1


def _integer(data: bytes | mmap, at: int) -> tuple[int, int]:
    value, at = _varint(data, at)
    return (value >> 1) ^ -(value & 1), at  # zigzag


def _varint(data: bytes | mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128 or shift > 63:
            return value, at
