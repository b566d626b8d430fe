"""Cells and intervals: numbers, flags, ids, times (FORMATS, section 9)."""

import codecs
import math
import re
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError

_SAFE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
_DICOM_ID_LENGTH = 44
_LONGEST_S = 3600.0
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": None}


def decoded(data: bytes, path: str) -> str:
    """Decode a text file; empty ones, NUL bytes and other encodings are damage."""
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise BadInputError("empty_file", path, f"{path} is empty")
    if b"\0" in data:
        raise BadInputError("nul_bytes", path, f"{path} contains NUL bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(
            "not_utf8", path, f"{path} is not UTF-8 at byte {error.start}"
        ) from None


def number(text: object, path: str, where: str) -> float:
    """Parse a finite number."""
    try:
        if isinstance(text, bool) or (isinstance(text, str) and "_" in text):
            raise ValueError
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise BadInputError("bad_number", path, f"{where} is {_shown(text)}, not a number")
    return value


def optional_number(text: str, path: str, where: str) -> float | None:
    """Parse a number or a blank."""
    return number(text, path, where) if text.strip() else None


def pixels(text: str, path: str, where: str) -> int:
    """Parse a positive image size; ``2544.0`` occurs."""
    value = number(text, path, where)
    if value < 1 or value != int(value):
        raise BadInputError("bad_number", path, f"{where} is {_shown(text)}, not a size in pixels")
    return int(value)


def flag(text: str, path: str, where: str) -> bool | None:
    """Parse True or False, however a spreadsheet spelt it; blank is None."""
    known = text.strip().lower()
    if known not in _FLAGS:
        raise BadInputError("bad_flag", path, f"{where} is {_shown(text)}")
    return _FLAGS[known]


def require_words(tokens: list[str], path: str) -> None:
    """Reject a transcript that has nothing but punctuation."""
    if not any(any(map(str.isalnum, token)) for token in tokens):
        raise BadInputError("empty_transcript", path, f"{path} has no words")


def safe_id(text: str, path: str, what: str) -> str:
    """Accept an id that may become part of a path; drop the ``.0`` of a float column."""
    plain = text.strip()
    if plain.endswith(".0") and plain[:-2].isdigit():
        plain = plain[:-2]
    if not _SAFE_ID.fullmatch(plain):
        raise BadInputError("bad_id", path, f"{what} is {_shown(text)}")
    return plain


def dicom_id(text: str, path: str) -> str:
    """Accept a whole DICOM id; calibration slides have 39 characters."""
    plain = safe_id(text, path, "the DICOM id")
    if len(plain) != _DICOM_ID_LENGTH:
        raise BadInputError(
            "bad_dicom_id", path, f"the DICOM id {_shown(plain)} has {len(plain)} characters"
        )
    return plain


def check_intervals(
    begin_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    path: str,
    place: Callable[[int], str],
) -> None:
    """Reject an interval that ends before it begins, or lies hours away: milliseconds, a date.

    Parameters
    ----------
    place : callable
        Names the place of the n-th interval in its file, which may hold others.
    """
    far = np.maximum(np.abs(begin_s), np.abs(end_s)) > _LONGEST_S
    backwards = end_s < begin_s
    if not (far | backwards).any():
        return
    at = int((far if far.any() else backwards).argmax())
    what = f"{place(at)} runs from {begin_s[at]:g} to {end_s[at]:g} s"
    if far.any():
        raise BadInputError("implausible_time", path, what)
    raise BadInputError("reversed_time", path, what)


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
