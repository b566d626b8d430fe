"""Transcripts of a speech recogniser: JSON phrases with times, to words (FORMATS, section 2.4)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.reading import RowsOfFile, Words
from egma_prep.sources.values import check_intervals, json_document, number, require_words, unglued

_PHRASE = ("phrase", "begin_time", "end_time")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can spell it, no table can hold it


def words(data: bytes, path: str, offset_s: float) -> Words:
    """Read ``transcript.json``; a phrase of several words shares its time by their characters.

    Parameters
    ----------
    data : bytes
        The file.
    offset_s : float
        Added to its times.
    """
    found = timed_words(
        [tuple(phrase[key] for key in _PHRASE) for phrase in _phrases(data, path)], path
    )
    return Words(found.text, found.begin_s + offset_s, found.end_s + offset_s)


def timed_words(phrases: Iterable[Sequence[Any]], path: str) -> Words:
    """Cut timed phrases into words, which share their phrase's time by their characters.

    Parameters
    ----------
    phrases : iterable of sequence
        Text, begin and end in seconds, as a file has them.
    path : str
        For messages.

    Raises
    ------
    BadInputError
        If a text or a time is none, a phrase runs backwards, or there are no words.
    """
    text: list[str] = []
    edges_s: list[tuple[float, float]] = []
    places: list[str] = []
    for index, (said, begin, end) in enumerate(phrases):
        where = f"{path}, phrase {index + 1}"
        if not isinstance(said, str) or HALF_CHARACTER.search(said):
            raise BadInputError("bad_json", path, f"{where} has no text")
        begin_s, end_s = number(begin, path, where), number(end, path, where)
        if end_s < begin_s:
            what = f"{where} runs from {begin_s:g} to {end_s:g} s"
            raise BadInputError("reversed_time", path, what)
        pieces = unglued(said).split()
        text += pieces
        places += [where] * len(pieces)
        edges_s += share_interval(pieces, begin_s, end_s)
    require_words(text, path)
    begin, end = np.array(edges_s, dtype=np.float64).T
    check_intervals(begin, end, path, places.__getitem__)
    return Words(text, begin, end)


def phrases_of(data: bytes, path: str) -> RowsOfFile:
    """Tell of which phrase of the transcript a word is."""

    def place(word: int) -> str:
        ends = np.cumsum([len(_pieces(phrase)) for phrase in _phrases(data, path)])
        return f"phrase {np.searchsorted(ends, word, side='right') + 1}"

    return RowsOfFile(path, place)


def _pieces(phrase: Mapping[str, Any]) -> list[str]:
    return unglued(phrase["phrase"]).split()


def share_interval(
    pieces: Sequence[str], begin_s: float, end_s: float
) -> list[tuple[float, float]]:
    """Divide an interval in proportion to the pieces' characters."""
    characters = np.cumsum([0, *map(len, pieces)])
    share = characters / max(characters[-1], 1)
    edges = [*(begin_s + (end_s - begin_s) * share[:-1]).tolist(), end_s]
    return list(pairwise(edges))


def _phrases(data: bytes, path: str) -> list[dict[str, Any]]:
    document = json_document(data, path)
    phrases = document.get("time_stamped_text") if isinstance(document, dict) else None
    if not isinstance(phrases, list) or not all(map(_is_phrase, phrases)):
        what = f"{path} lacks time_stamped_text with phrase, begin_time and end_time"
        raise BadInputError("bad_json", path, what)
    return phrases


def _is_phrase(item: object) -> bool:
    return (
        isinstance(item, dict)
        and all(key in item for key in _PHRASE)
        and isinstance(item["phrase"], str)
        and not HALF_CHARACTER.search(item["phrase"])
    )
