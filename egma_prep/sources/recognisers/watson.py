"""IBM Watson: ``results[].alternatives[0].timestamps[]``, each ``[word, begin, end]`` in s.

Results of several answers are nested, ``results[].results[]``. No punctuation; hesitations are
``%HESITATION``. Interim results are said again by final ones.
"""

from collections.abc import Iterator

from egma_prep.sources.json_part import JsonPart, has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("watson",)
EXPECTED = "results[].alternatives[].timestamps[] with word, begin and end (timestamps=true)"


def looks_like(content: object) -> bool:
    """Tell results with timestamps, nested or not."""
    whole = "results[].alternatives[].timestamps[]"
    return has_shape(content, whole) or has_shape(content, f"results[].{whole}")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read the best alternative of each final result."""
    for result in _final(json_part(data, path)):
        for word in result.first("alternatives").each("timestamps"):
            yield TimedWord(word.text(0), word.time(1), word.time(2), word.where)


def _final(document: JsonPart) -> Iterator[JsonPart]:
    for result in document.each("results"):
        inner = [result] if result.get("results") is None else result.each("results")
        yield from (one for one in inner if one.get("final") is not False)
