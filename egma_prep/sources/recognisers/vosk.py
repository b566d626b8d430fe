"""Vosk and Kaldi: ``result[]`` or ``words[]`` with word, start and end in s; no punctuation.

Vosk prints one document after each pause, ``vosk-transcriber`` gathers them in ``monologues[]``;
BBC's Kaldi has ``retval.words[]``, whose ``punct`` is the word as it is written.
"""

import contextlib
from collections.abc import Iterator

from egma_prep.errors import BadInputError
from egma_prep.sources.json_part import JsonPart, has_shape, json_parts
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.values import decoded

FORMATS = ("vosk",)
EXPECTED = "result[] or words[] with word, start and end (SetWords)"
_SHAPES = ("result[].word", "words[].word", "retval.words[].word", "monologues[].terms[].text")
_WHISPER = ("segments", "task", "duration")  # OpenAI's answers have words[].word, too


def looks_like(content: object) -> bool:
    """Tell any of the shapes; printed documents by any."""
    if isinstance(content, str):
        printed, content = content if content.lstrip().startswith("{") else "", []
        with contextlib.suppress(BadInputError):
            content = [one.value for one in json_parts(printed, "")]
    documents = content if isinstance(content, list) else [content]
    return any(
        has_shape(one, shape) and not any(has_shape(one, name) for name in _WHISPER)
        for one in documents
        for shape in _SHAPES
    )


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read one document, several that follow each other, or a list of them."""
    for document in json_parts(decoded(data, path), path):
        if isinstance(document.value, list):
            listed = document._replace(value={"documents": document.value}, where="")
            for one in listed.each("documents"):
                yield from _words(one)
        else:
            yield from _words(document)


def _words(document: JsonPart) -> Iterator[TimedWord]:
    if document.get("monologues") is not None:
        for monologue in document.each("monologues"):
            for term in monologue.each("terms"):
                yield _timed(term, "text")
        return
    if isinstance(document.get("retval"), dict):
        document = document._replace(value=document.get("retval"))
    key = "result" if document.get("result") is not None else "words"
    is_silent = document.get("text") == "" or document.get("partial") is not None
    if document.get(key) is None and is_silent:
        return
    for word in document.each(key):
        yield _timed(word, "word" if word.get("punct") is None else "punct")


def _timed(word: JsonPart, key: str) -> TimedWord:
    return TimedWord(word.text(key), word.time("start"), word.time("end"), word.where)
