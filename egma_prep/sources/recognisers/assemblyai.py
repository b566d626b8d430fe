"""AssemblyAI: ``words[]`` with text, start and end in ms; punctuation is glued."""

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
        begin_s, end_s = word.seconds("start", _MS), word.seconds("end", _MS)
        yield TimedWord(word.text("text"), begin_s, end_s, word.where)
