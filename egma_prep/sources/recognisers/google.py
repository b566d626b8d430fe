"""Google Speech-to-Text, v1 and v2: ``results[].alternatives[0].words[]``.

Times are ``"12.900s"`` or ``{seconds: "12", nanos: 900000000}``, and what is zero may be left out.
Punctuation is glued. Some words have no length. With speakers told apart, the last result repeats
all words of the others.
"""

import math
from collections.abc import Iterator

from egma_prep.sources.json_part import JsonPart, has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.values import number

FORMATS = ("google",)
EXPECTED = (
    "results[].alternatives[].words[] with word, startTime and endTime (enableWordTimeOffsets)"
)
_BEGIN = ("startTime", "startOffset", "start_time", "start_offset")
_END = ("endTime", "endOffset", "end_time", "end_offset")


def looks_like(content: object) -> bool:
    """Tell the results of v1 and v2."""
    whole = "results[].alternatives[].words[].word"
    return has_shape(content, whole) or has_shape(content, f"response.{whole}")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read the best alternative of each result."""
    document = json_part(data, path)
    if document.get("response") is not None:  # of an operation that took long
        document = document._replace(value=document.get("response"))
    results = [list(_words(result)) for result in document.each("results")]
    if results and _tagged(results[-1]) and not any(map(_tagged, results[:-1])):
        results = results[-1:]
    for word in (word for result in results for word in result):
        begin_s, end_s = _seconds(word, _BEGIN), _seconds(word, _END)
        yield TimedWord(word.text("word"), begin_s, end_s, word.where)


def _words(result: JsonPart) -> Iterator[JsonPart]:
    """Take a result's words; nothing was heard where it has no alternatives, or a blank one."""
    if not result.get("alternatives"):
        return
    best = result.first("alternatives")
    if best.get("words") is not None or best.get("transcript"):
        yield from best.each("words")


def _tagged(words_: list[JsonPart]) -> bool:
    return any(word.get("speakerTag") or word.get("speaker_tag") for word in words_)


def _seconds(word: JsonPart, names: tuple[str, ...]) -> float:
    """Read a duration as Protocol Buffers write it; NaN where the word has no times."""
    told = [name for name in (*_BEGIN, *_END) if word.get(name) is not None]
    name = next((one for one in told if one in names), None)
    if name is None:
        return 0.0 if told else math.nan  # zero is left out
    found = word.get(name)
    if isinstance(found, str) and found.endswith("s"):
        return number(found[:-1], word.path, f"{word.path}, {word.where}, {name}")
    if not isinstance(found, dict):
        return word.time(name)
    parts = JsonPart({"seconds": 0, "nanos": 0, **found}, word.path, f"{word.where}, {name}")
    return parts.time("seconds") + parts.time("nanos", 1e-9)
