"""Speechmatics: ``words[]`` with name, time and duration (v1), or ``results[]`` (v2); in s.

Signs are words of their own.
"""

from collections.abc import Iterator

from egma_prep.sources.json_part import has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("speechmatics",)
EXPECTED = (
    "words[] with name, time and duration, or results[] with start_time, end_time and content"
)


def looks_like(content: object) -> bool:
    """Tell either version."""
    return has_shape(content, "words[].name") or has_shape(
        content, "results[].alternatives[].content"
    )


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read either version."""
    document = json_part(data, path)
    if document.get("results") is None:
        for word in document.each("words"):
            begin_s, length_s = word.time("time"), word.time("duration")
            yield TimedWord(word.text("name"), begin_s, begin_s + length_s, word.where)
        return
    for result in document.each("results"):
        text = result.first("alternatives").text("content")
        begin_s, end_s = result.time("start_time"), result.time("end_time")
        yield TimedWord(text, begin_s, end_s, result.where)
