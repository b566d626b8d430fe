"""Whisper, faster-whisper, whisper-timestamped, OpenAI's API: ``segments[].words[]`` in s.

A segment without words is a phrase. The API tells words beside the segments. Whisper itself begins
a word with a blank; what has none belongs to the word before: "all", "-female"; "1", ".5".
"""

from collections.abc import Iterator

from egma_prep.sources.json_part import JsonPart, has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("whisper",)
EXPECTED = "segments[] with text, start and end, or with words[] of word, start and end"


def looks_like(content: object) -> bool:
    """Tell segments, or the API's words, but for WhisperX's."""
    of_api = has_shape(content, "words[].word") and has_shape(content, "duration")
    segments = has_shape(content, "segments[].text") and has_shape(content, "segments[].start")
    return (segments or of_api) and not has_shape(content, "word_segments")


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read the words, or the phrases of which no words are told."""
    document = json_part(data, path)
    if document.get("words"):
        for word in document.each("words"):
            yield _timed(word, "word")  # AssemblyAI's, in ms, have "text"
        return
    for segment in document.each("segments"):
        if segment.get("words"):
            yield from _joined(
                [
                    _timed(word, "text" if word.get("word") is None else "word")
                    for word in segment.each("words")
                ]
            )
        else:
            yield _timed(segment, "text")


def _timed(part: JsonPart, key: str) -> TimedWord:
    return TimedWord(part.text(key), part.time("start"), part.time("end"), part.where)


def _joined(heard: list[TimedWord]) -> list[TimedWord]:
    """Join what is no word of its own to the word before, where most begin with a blank.

    Few or none do where blanks were stripped, or in a language without.
    """
    if 2 * sum(one.text.startswith(" ") for one in heard) < len(heard):
        return heard
    whole: list[TimedWord] = []
    for one in heard:
        if whole and not one.text.startswith(" ") and one.end_s >= whole[-1].end_s:
            whole[-1] = whole[-1]._replace(text=whole[-1].text + one.text, end_s=one.end_s)
        else:
            whole.append(one)
    return whole
