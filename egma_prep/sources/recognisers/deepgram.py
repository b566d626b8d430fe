"""Deepgram: ``results.channels[].alternatives[0].words[]`` in s, as they are punctuated."""

from collections.abc import Iterator

from egma_prep.sources.json_part import JsonPart, has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("deepgram",)
EXPECTED = "results.channels[].alternatives[].words[] with word, start and end"


def looks_like(content: object) -> bool:
    """Tell the results of channels."""
    return has_shape(content, "results.channels[].alternatives[].words[]")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read the one channel that has words: two may be two people, or one heard twice."""
    results = JsonPart(json_part(data, path).get("results"), path)
    heard = [list(one.first("alternatives").each("words")) for one in results.each("channels")]
    spoken = [channel for channel in heard if channel]
    if len(spoken) > 1:
        raise results.unlike(f"has words on {len(spoken)} channels; keep one")
    for word in (word for channel in spoken for word in channel):
        key = "word" if word.get("punctuated_word") is None else "punctuated_word"
        yield TimedWord(word.text(key), word.time("start"), word.time("end"), word.where)
