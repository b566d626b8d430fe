"""Praat's TextGrid, long and short, as the Montreal Forced Aligner and others write it.

Words are the intervals of the tier "words" or "word" ("NAME - words" of MFA), or of the only
interval tier there is; ``tier`` in [words] names another. Empty labels are silence. UTF-16 occurs.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from praatio.utilities.textgrid_io import parseTextgridStr

from egma_prep.errors import BadInputError
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.values import decoded, number

FORMATS = ("textgrid",)
EXPECTED = 'the line Object class = "TextGrid"'
_SILENCES = {"sil", "sp", "spn"}  # how aligners label intervals in which nothing is said
_NEGATIVE = re.compile(r"x(?:min|max) ?= ?-[0.]*[1-9]")  # whose sign the library drops
_ROUNDING_S = 0.01


def looks_like(content: object) -> bool:
    """Tell it by its head."""
    head = content[:200] if isinstance(content, str) else ""
    return "ooTextFile" in head and '"TextGrid"' in head


def words(data: bytes, path: str, words_file: WordsFile) -> Iterator[TimedWord]:
    """Read one tier, which must reach to its own end: the library keeps quiet about a cut file."""
    tier = _tier(_tiers(decoded(data, path), path), words_file.tier, path)
    end_s = 0.0
    for at, (begin, end, label) in enumerate(tier["entries"]):
        place = f"interval {at + 1}"
        begin_s, end_s = (number(edge, path, f"{path}, {place}") for edge in (begin, end))
        if label.strip().lower() not in _SILENCES:
            yield TimedWord(label, begin_s, end_s, place)
    if abs(tier["xmax"] - end_s) > _ROUNDING_S:
        what = f"{path}: the tier {tier['name'][:40]!r} ends at {end_s:g} of {tier['xmax']:g} s"
        raise BadInputError("bad_words_file", path, what)


def _tiers(text: str, path: str) -> list[Mapping[str, Any]]:
    if not looks_like(text):
        raise BadInputError("bad_words_file", path, f"{path} is no TextGrid")
    if _NEGATIVE.search(text):
        raise BadInputError("bad_words_file", path, f"{path} has times below zero")
    try:
        grid = parseTextgridStr(f"{text}\n", includeEmptyIntervals=True)
    except Exception as error:  # the library's own, and whatever else a damaged file makes it raise
        what = f"{path} is no whole TextGrid ({type(error).__name__}, {str(error)[:60]!r})"
        raise BadInputError("bad_words_file", path, what) from None
    return [tier for tier in grid["tiers"] if tier["class"] == "IntervalTier"]


def _tier(tiers: list[Mapping[str, Any]], wanted: str, path: str) -> Mapping[str, Any]:
    named = [tier for tier in tiers if tier["name"] == wanted]
    if not wanted:
        named = [tier for tier in tiers if _is_of_words(tier["name"])]
        if not named and len(tiers) == 1:
            named = tiers
    if len(named) == 1:
        return named[0]
    there = ", ".join(repr(tier["name"][:40]) for tier in tiers[:9]) or "none"
    what = f"{path} has not one tier {wanted or 'words'!r} of intervals, but: {there}"
    raise BadInputError("no_tier", path, what)


def _is_of_words(name: str) -> bool:
    plain = name.lower().rpartition(" - ")[2].strip('" ')
    return plain in ("word", "words")
