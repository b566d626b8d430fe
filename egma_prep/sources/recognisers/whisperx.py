"""WhisperX: Whisper's segments, aligned, and ``word_segments[]``; numbers may have no times."""

from collections.abc import Iterator

from egma_prep.sources.json_part import has_shape, json_part
from egma_prep.sources.recognisers import TimedWord, WordsFile, whisper

FORMATS = ("whisperx",)
EXPECTED = "segments[] with words[] of word, start and end, and word_segments[]"


def looks_like(content: object) -> bool:
    """Tell it from Whisper's by what it adds."""
    return has_shape(content, "word_segments[]")


def words(data: bytes, path: str, words_file: WordsFile) -> Iterator[TimedWord]:
    """Read the segments' words, or the list of all words where no segments were kept."""
    document = json_part(data, path)
    if document.get("segments") is not None:
        yield from whisper.words(data, path, words_file)
        return
    for word in document.each("word_segments"):
        yield TimedWord(word.text("word"), word.time("start"), word.time("end"), word.where)
