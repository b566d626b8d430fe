"""What tells that bytes are DICOM, with or without preamble; needs no DICOM library."""

import struct

_PREAMBLE, _MAGIC = 128, b"DICM"
_META_GROUP, _SYNTAX = 0x0002, 0x0010
_FIRST_GROUPS = (_META_GROUP, 0x0008)
_NEXT_GROUPS = (*_FIRST_GROUPS, 0x0010)
_SHORT = b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
_LONG = b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()


def looks_like_dicom(data: bytes) -> bool:
    """Tell whether bytes are a DICOM file, by content."""
    return elements_begin(data) is not None


def elements_begin(data: bytes) -> int | None:
    """Find the first element: after the preamble, or at the start of a file that has none.

    Old archives and scanners write the bare data set. Two elements in a row of the groups that
    come first are asked for, so that no other kind of file is taken for one. A single stray byte
    before them (the padding of a file meta group that was cut off) is passed over.
    """
    if data[_PREAMBLE : _PREAMBLE + len(_MAGIC)] == _MAGIC:
        return _PREAMBLE + len(_MAGIC)
    for begin in (0, 1):
        for order in "<>":
            first = _element(data, begin, order)
            if first is None or first[0] not in _FIRST_GROUPS:
                continue
            second = _element(data, first[2], order)
            if second is not None and second[0] in _NEXT_GROUPS:
                return begin
    return None


def file_meta(data: bytes) -> tuple[str, int]:
    """Read the transfer syntax ("" where none is said) and where the data set begins."""
    at, syntax = elements_begin(data) or 0, ""
    while (found := _element(data, at, "<")) is not None and found[0] == _META_GROUP:
        _, number, end = found
        if number == _SYNTAX:
            syntax = data[at + 8 : end].decode("ascii", "replace").strip("\0 ")
        at = end
    return syntax, at


def _element(data: bytes, at: int, order: str) -> tuple[int, int, int] | None:
    """Read an element's group, number and end; None if there is no whole one."""
    if at + 12 > len(data):
        return None
    group, number = struct.unpack_from(f"{order}HH", data, at)
    kind = data[at + 4 : at + 6]
    if kind in _SHORT:
        end = at + 8 + struct.unpack_from(f"{order}H", data, at + 6)[0]
    elif kind in _LONG:
        end = at + 12 + struct.unpack_from(f"{order}I", data, at + 8)[0]
    elif order == "<":  # implicit, which is never big-endian
        end = at + 8 + struct.unpack_from("<I", data, at + 4)[0]
    else:
        return None
    return (group, number, end) if end <= len(data) else None
