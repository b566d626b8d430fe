"""Cells and intervals: numbers, flags, ids, times (FORMATS, section 9)."""

import codecs
import json
import math
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError

_SAFE_ID = re.compile(r"(?!\.)[A-Za-z0-9._-]{1,128}")
MOST_PX = 2**16 - 1
"""No image is wider: DICOM's Rows and Columns have 16 bits."""
_DICOM_ID_LENGTH = 44
LONGEST_S = 3600.0
"""No reading is longer."""
_MOST_XML_BYTES = 4 * 2**20  # a report has 20 kB; parsed, it takes thirty times its size
_FLAGS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_BLANKS = frozenset(["", "nan", "na", "n/a", "#n/a", "<na>", "null", "none"])
"""How spreadsheets, pandas, R and databases write nothing, in small letters."""
_WITH_COMMA = re.compile(r"-?[\d.]*,[\d.,]*")
_ID_SUFFIX = re.compile(r"\.(0|dcm|dicom|jpe?g|png)$", re.IGNORECASE)
_LETTERS = ("p", "s")
_LETTERED_ID = re.compile(r"[pPsS][0-9]+")
_ROUNDED_ID = re.compile(r"\d+([.,]\d+)?[eE][+-]?\d+")
# "normal.there"; ___ stands for what was removed from a report
_GLUED_SENTENCES = re.compile(
    r"(?<=[A-Za-z]{2}[.?!])(?=[A-Za-z]{2}|___)|(?<=___[.?!])(?=[A-Za-z]{2})"
)


def decoded(data: bytes, path: str) -> str:
    """Decode a text file; empty ones, NUL bytes and other encodings are damage.

    UTF-16 counts where its byte order mark says so: it is Excel's "Unicode text".
    """
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if b"\0" in data and not wide:
            raise BadInputError("nul_bytes", path, f"{path} contains NUL bytes") from None
        encoding = "UTF-16" if wide else "UTF-8"
        what = f"{path} is not {encoding} at byte {error.start}"
        raise BadInputError("not_utf8", path, what) from None
    if not text.strip():
        raise BadInputError("empty_file", path, f"{path} is empty")
    if "\0" in text:
        raise BadInputError("nul_bytes", path, f"{path} contains NUL bytes")
    return text.lstrip("\ufeff")  # whoever joins or saves files again may leave a second mark


def json_document(data: bytes, path: str) -> Any:
    """Read a JSON file.

    Raises
    ------
    BadInputError
        If it is none; what it holds is for the caller to check (``bad_json``).
    """
    try:
        return json.loads(decoded(data, path))
    except (ValueError, RecursionError) as error:
        raise BadInputError("bad_json", path, f"{path} is not JSON ({error})") from None


def xml_document(data: bytes, path: str) -> ElementTree.Element:
    """Read an XML file that declares nothing: an entity may be gigabytes, or another file.

    Raises
    ------
    BadInputError
        If it is none, has a document type, or is far too large.
    """
    if len(data) > _MOST_XML_BYTES:
        raise BadInputError("oversized", path, f"{path} has {len(data):,} bytes")
    text = decoded(data, path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise BadInputError("bad_xml", path, f"{path} declares a document type")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise BadInputError("bad_xml", path, f"{path} is not XML ({error})") from None


def is_blank(text: str) -> bool:
    """Tell an empty cell, however it was saved; not for words and ids, where "none" is a value."""
    return not text or text.strip().lower() in _BLANKS


def optional_text(text: str) -> str | None:
    """Take a cell's text; blank is None."""
    return None if is_blank(text) else text.strip()


def unglued(text: str) -> str:
    """Put a blank between sentences that have none."""
    return _GLUED_SENTENCES.sub(" ", text)


def number(text: object, path: str, where: str) -> float:
    """Parse a finite number."""
    try:
        if isinstance(text, bool) or (isinstance(text, str) and "_" in text):
            raise ValueError
        value = float(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        # 1,234 is a thousand here and a little more than one there: nobody can tell.
        why = "a number with a comma" if _has_comma(text) else "not a number"
        raise BadInputError("bad_number", path, f"{where} is {_shown(text)}, {why}")
    return value


def _has_comma(text: object) -> bool:
    return isinstance(text, str) and bool(_WITH_COMMA.fullmatch(text.strip()))


def label(text: str, values: Collection[float], path: str, where: str) -> float:
    """Parse one of a label's values."""
    value = number(text, path, where)
    if value not in values:
        listed = ", ".join(f"{one:g}" for one in values)
        raise BadInputError("bad_number", path, f"{where} is {_shown(text)}, none of {listed}")
    return value


def pixels(text: str, path: str, where: str) -> int:
    """Parse a positive image size; ``2544.0`` occurs."""
    value = number(text, path, where)
    if not 1 <= value <= MOST_PX or value != int(value):
        raise BadInputError("bad_number", path, f"{where} is {_shown(text)}, not a size in pixels")
    return int(value)


def flag(text: str, path: str, where: str) -> bool | None:
    """Parse True or False, however a spreadsheet spelt it; blank is None."""
    known = text.strip().lower()
    if is_blank(known):
        return None
    if known not in _FLAGS:
        raise BadInputError("bad_flag", path, f"{where} is {_shown(text)}")
    return _FLAGS[known]


def has_words(tokens: Iterable[str]) -> bool:
    """Tell whether anything but punctuation is there."""
    return any(character.isalnum() for token in tokens for character in token)


def require_words(tokens: list[str], path: str) -> None:
    """Reject a transcript that has nothing but punctuation."""
    if not has_words(tokens):
        raise BadInputError("empty_transcript", path, f"{path} has no words")


def safe_id(text: str, path: str, what: str) -> str:
    """Accept an id that may become part of a path; drop the ``.0`` of a float column."""
    plain = text.strip()
    if plain.endswith(".0") and plain[:-2].isdigit():
        plain = plain[:-2]
    if _ROUNDED_ID.fullmatch(plain):
        what = f"{what} is {_shown(text)}, a number that a spreadsheet rounded: its digits are lost"
        raise BadInputError("bad_id", path, what)
    if not is_safe_id(plain):
        raise BadInputError("bad_id", path, f"{what} is {_shown(text)}")
    return plain


def is_safe_id(text: object) -> bool:
    """Tell an id that may become part of a path."""
    return isinstance(text, str) and bool(_SAFE_ID.fullmatch(text))


def numbered_id(text: str, path: str, what: str) -> str:
    """Accept a subject's or a study's id, whose letter MIMIC-CXR writes in paths: p90000001."""
    plain = safe_id(text, path, what)
    return plain[1:] if _LETTERED_ID.fullmatch(plain) else plain


def id_key(text: str) -> str:
    """Make one key of an id with and without capitals, suffix, a float's zero, a patient's p."""
    key = text.strip().lower()
    key = _ID_SUFFIX.sub("", key) if "." in key else key
    return key[1:] if key[:1] in _LETTERS and _LETTERED_ID.fullmatch(key) else key


def dicom_id(text: str, path: str) -> str:
    """Accept a whole DICOM id; calibration slides have 39 characters."""
    plain = _ID_SUFFIX.sub("", safe_id(text, path, "the DICOM id"))
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
    far = np.maximum(np.abs(begin_s), np.abs(end_s)) > LONGEST_S
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
