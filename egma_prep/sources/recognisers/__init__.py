"""Words of a speech recogniser's export, to words with times in spoken order.

Each module here is a format or a family: ``FORMATS``, ``EXPECTED`` (what such a file has,
for messages), ``looks_like`` (of a JSON document, or of another file's text) and ``words``.
"""

import contextlib
import importlib
import math
import pkgutil
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple, Protocol

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.reading import RowsOfFile, Words
from egma_prep.sources.transcripts import HALF_CHARACTER, share_interval
from egma_prep.sources.values import decoded, json_document, require_words


class WordsFile(NamedTuple):
    """How the words of a dataset are stored: ``[words]`` of its ``dataset.toml``.

    Attributes
    ----------
    time_unit : str
        ``s``, ``ms`` or ``us``, where a format leaves it open.
    columns : mapping
        Our names (``text``, ``begin``, ``end``) to a table's columns.
    tier : str
        The tier of a TextGrid; that of the words if empty.
    fillers : bool
        Whether to keep "uh", ``%HESITATION``, ``[noise]`` and the like.
    spoken_punctuation : bool
        Whether "period", "comma" and the like were said for signs.
    """

    file: str = "words.csv"
    format: str = "csv"
    time_unit: str = "s"
    columns: Mapping[str, str] = {}
    tier: str = ""
    fillers: bool = False
    spoken_punctuation: bool = False


class TimedWord(NamedTuple):
    """What a recogniser heard, one word or a phrase; times are NaN where it gave none."""

    text: str
    begin_s: float
    end_s: float
    place: str


class Dictation(NamedTuple):
    """Words, what to call each in messages, and counts by `errors.NOTES`."""

    words: Words
    rows: RowsOfFile
    notes: Mapping[str, int]


class Recogniser(Protocol):
    """What a module here has."""

    FORMATS: Sequence[str]
    EXPECTED: str
    looks_like: Callable[[object], bool]
    words: Callable[[bytes, str, WordsFile], Iterable[TimedWord]]


# Not "er" and "mm": emergency room, millimetre.
_HESITATIONS = frozenset(["uh", "uhh", "uhm", "um", "umm", "erm", "hm", "hmm", "eh"])
_NOISE = re.compile(r"%\w+|\[\w+\]|<\w+>|\{\w+\}")  # Watson's, Kaldi's, Vosk's, aligners' marks
# Not "colon", which is an organ, too.
_SIGNS = {
    "period": ".", "full stop": ".", "comma": ",", "semicolon": ";", "question mark": "?",
    "slash": "/", "new line": "", "new paragraph": "",
}  # fmt: skip
_ENDS = ".?!"


@cache
def recognisers() -> dict[str, Recogniser]:
    """Find the module of every format, by the name that ``dataset.toml`` has for it."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {name: module for module in modules for name in module.FORMATS}


def recognised(data: bytes) -> str | None:
    """Tell the format of a file by its content; None where none, or several, are like it."""
    content = _content(data)
    likely = [name for name, module in recognisers().items() if module.looks_like(content)]
    return likely[0] if len(likely) == 1 else None


def dictated(data: bytes, path: str, words_file: WordsFile) -> Dictation:
    """Read a recogniser's export to words with times, in seconds of its own clock.

    Phrases share their time among their words by characters; signs without times belong to the
    word before; other words without times share the gap between their neighbours.

    Raises
    ------
    BadInputError
        If it is no such file, or has no words, or no times.
    """
    heard = _heard(data, path, words_file)
    pieces = _with_signs(piece for one in heard for piece in _pieces(one, path))
    require_words([one.text for one in pieces], path)
    timed = _between_neighbours(pieces, path)
    notes = Counter(words_without_times=sum(math.isnan(one.begin_s) for one in pieces))
    if not words_file.fillers:
        timed, left_out = _without_fillers(timed)
        notes["fillers_left_out"] = left_out
    if words_file.spoken_punctuation:
        timed = _with_spoken_signs(timed)
    text = [one.text for one in timed]
    require_words(text, path)
    begin_s = np.array([one.begin_s for one in timed])
    end_s = np.array([one.end_s for one in timed])
    places = [one.place for one in timed]
    return Dictation(Words(text, begin_s, end_s), RowsOfFile(path, places.__getitem__), notes)


# -- the file -------------------------------------------------------------------------------------


def _content(data: bytes) -> object:
    """Take a file's JSON document, or else its text; None of what is neither."""
    with contextlib.suppress(BadInputError):
        document = json_document(data, "")
        if isinstance(document, dict | list):
            return document
    with contextlib.suppress(BadInputError):
        return decoded(data, "")
    return None


def _heard(data: bytes, path: str, words_file: WordsFile) -> list[TimedWord]:
    """Read a file in its format; where that fails or finds nothing, say what it looks like."""
    name = words_file.format
    reader = recognisers()[name]
    heard: list[TimedWord] = []
    failed = None
    try:
        heard = list(reader.words(data, path, words_file))
    except BadInputError as error:
        failed = error
    if heard:
        return heard
    seems = recognised(data)
    is_shapeless = failed is not None and failed.reason == "bad_words_file" and seems is None
    if is_shapeless or seems not in (None, name):
        like = f"looks like {seems!r}" if seems else "looks like no known format"
        what = f"{path} is no {name!r} file ({reader.EXPECTED}), but {like}"
        raise BadInputError("wrong_format", path, what)
    if failed:
        raise failed
    return heard


# -- words ----------------------------------------------------------------------------------------


def _pieces(heard: TimedWord, path: str) -> list[TimedWord]:
    """Divide a phrase into its words; nothing where it is blank."""
    if HALF_CHARACTER.search(heard.text) or "\0" in heard.text:
        what = f"{path}, {heard.place} has a character that is none"
        raise BadInputError("bad_words_file", path, what)
    if math.isnan(heard.begin_s) != math.isnan(heard.end_s):
        what = f"{path}, {heard.place} has only one of its two times"
        raise BadInputError("bad_number", path, what)
    texts = heard.text.split()
    edges = share_interval(texts, heard.begin_s, heard.end_s)
    return [TimedWord(text, *edge, heard.place) for text, edge in zip(texts, edges, strict=True)]


def _with_signs(pieces: Iterable[TimedWord]) -> list[TimedWord]:
    """Attach signs that have no time of their own to the word before."""
    whole: list[TimedWord] = []
    for one in pieces:
        is_sign = math.isnan(one.begin_s) and not any(map(str.isalnum, one.text))
        if is_sign and whole:
            whole[-1] = whole[-1]._replace(text=whole[-1].text + one.text)
        else:
            whole.append(one)
    return whole


def _between_neighbours(pieces: list[TimedWord], path: str) -> list[TimedWord]:
    """Give words without times the gap between their neighbours, by characters.

    Those at either end have no gap: they are put beside their one neighbour, without length.
    """
    timed_at = [at for at, one in enumerate(pieces) if not math.isnan(one.begin_s)]
    if not timed_at:
        what = f"{path} has {len(pieces)} words and no times"
        raise BadInputError("no_word_times", path, what)
    timed = list(pieces)
    for before, after in zip([-1, *timed_at], [*timed_at, len(pieces)], strict=True):
        run = pieces[before + 1 : after]
        if not run:
            continue
        begin_s = pieces[before].end_s if before >= 0 else pieces[after].begin_s
        end_s = pieces[after].begin_s if after < len(pieces) else begin_s
        edges = share_interval([one.text for one in run], begin_s, max(begin_s, end_s))
        timed[before + 1 : after] = [
            one._replace(begin_s=edge[0], end_s=edge[1])
            for one, edge in zip(run, edges, strict=True)
        ]
    return timed


def _without_fillers(words: list[TimedWord]) -> tuple[list[TimedWord], int]:
    """Leave fillers out; a sentence that ended with one ends with the word before."""
    kept: list[TimedWord] = []
    for one in words:
        plain = one.text.strip(".,?!;:-")
        if plain.lower() not in _HESITATIONS and not _NOISE.fullmatch(plain):
            kept.append(one)
        elif one.text[-1] in _ENDS and kept and kept[-1].text[-1] not in _ENDS:
            kept[-1] = kept[-1]._replace(text=kept[-1].text.rstrip(",;:") + one.text[-1])
    return kept, len(words) - len(kept)


def _with_spoken_signs(words: list[TimedWord]) -> list[TimedWord]:
    """Write the signs that were said; "new line" and "new paragraph" were said for none."""
    plain = [one.text.strip(".,?!;:-").lower() for one in words]
    signed: list[TimedWord] = []
    at = 0
    while at < len(words):
        said = [
            n for n in (2, 1) if at + n <= len(words) and " ".join(plain[at : at + n]) in _SIGNS
        ]
        if not said:
            signed.append(words[at])
            at += 1
            continue
        sign = _SIGNS[" ".join(plain[at : at + said[0]])]
        if sign:
            end_s = words[at + said[0] - 1].end_s
            signed.append(words[at]._replace(text=sign, end_s=end_s))
        at += said[0]
    return signed
