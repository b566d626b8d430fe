"""AssemblyAI: ``words[]`` with text, start and end in whole ms; punctuation is glued."""

import math
from collections.abc import Iterator

from egma_prep.sources.json_part import has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("assemblyai",)
EXPECTED = "words[] with text, start and end"
_MS = 1e-3


def looks_like(content: object) -> bool:
    """Tell a transcript by its words' names."""
    return has_shape(content, "words[].text") and not has_shape(content, "segments")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read a transcript."""
    for word in json_part(data, path).each("words"):
        begin_ms, end_ms = word.time("start"), word.time("end")
        if any(math.isfinite(edge) and edge % 1 for edge in (begin_ms, end_ms)):
            raise word.unlike(f"runs from {begin_ms:g} to {end_ms:g}, which are no whole ms")
        yield TimedWord(word.text("text"), begin_ms * _MS, end_ms * _MS, word.where)
