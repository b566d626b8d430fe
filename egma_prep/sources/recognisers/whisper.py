"""Whisper, faster-whisper, whisper-timestamped, OpenAI's API: ``segments[].words[]`` in s.

A segment without words is a phrase. The API tells words beside the segments. Whisper itself begins
a word with a blank; what has none belongs to the word before: "all", "-female"; "1", ".5".
"""

from collections.abc import Iterator
from itertools import chain

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
        return iter(spelled(map(_timed, document.each("words"))))
    return iter(spelled(chain.from_iterable(map(_of_segment, document.each("segments")))))


def spelled(heard: Iterator[TimedWord]) -> list[TimedWord]:
    """Join what is no word of its own to the word before, where words begin with a blank."""
    all_heard = list(heard)
    if 2 * sum(one.text.startswith(" ") for one in all_heard) < len(all_heard):
        return all_heard
    whole: list[TimedWord] = []
    for one in all_heard:
        if whole and one.text and not one.text.startswith(" ") and one.end_s >= whole[-1].end_s:
            whole[-1] = whole[-1]._replace(text=whole[-1].text + one.text, end_s=one.end_s)
        else:
            whole.append(one)
    return whole


def _of_segment(segment: JsonPart) -> Iterator[TimedWord]:
    if segment.get("words"):
        yield from map(_timed, segment.each("words"))
    else:
        yield TimedWord(
            segment.text("text"), segment.seconds("start"), segment.seconds("end"), segment.where
        )


def _timed(word: JsonPart) -> TimedWord:
    key = "text" if word.get("word") is None else "word"
    return TimedWord(word.text(key), word.seconds("start"), word.seconds("end"), word.where)
