"""Dictated words to sentences, one spaCy token a word (DESIGN, "Words" and "Sentences")."""

import re
import threading
import unicodedata
import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from spacy.tokens import Doc

_CLOSING = "\"')]}"
_ASCII_STOPS = str.maketrans({"\u3002": ".", "\u061f": "?", "\u06d4": ".", "\u0964": "."})
"""Full stops and a question mark of other scripts that NFKC leaves as they are."""
_CLOSING_KINDS = ("Pe", "Pf", "Pi")  # brackets, quotes; German closes with what English opens with
_ENUMERATOR = re.compile(r"\d{1,2}")
_INITIALS = re.compile(r"([a-z]\.)+[a-z]")  # e.g, i.e, a.p
_ABBREVIATIONS = frozenset(
    ["approx", "cf", "dr", "eg", "fig", "ie", "mr", "mrs", "ms", "prof", "vs"]
)
_NUMBERED = frozenset(
    ["about", "and", "approximately", "by", "figure", "grade", "image", "in", "level", "of", "or",
     "phase", "rib", "ribs", "segment", "segments", "series", "stage", "than", "to", "type", "x",
     "zone"]
)  # fmt: skip

_REMOVED = "__"
"""Reports write ``___`` for a name or a date that was taken out: no word, but it begins as one."""

_ONE_THREAD = threading.Lock()


class SentenceSpan(NamedTuple):
    """Indices of a sentence's first and last word, both included."""

    first_word: int
    last_word: int


@lru_cache(maxsize=2**16)
def plain_punctuation(token: str) -> str:
    """Spell a token's punctuation in ASCII, to decide by: curly quotes, ellipses, wide stops."""
    if token.isascii():
        return token
    folded = unicodedata.normalize("NFKC", token).translate(_ASCII_STOPS)
    kinds = map(unicodedata.category, folded)
    return "".join(
        '"' if kind in _CLOSING_KINDS and one not in _CLOSING else one
        for one, kind in zip(folded, kinds, strict=True)
    )


@lru_cache(maxsize=2**16)
def is_word(token: str) -> bool:
    """Tell words from dictated punctuation."""
    return any(character.isalnum() for character in token)


def join_words(tokens: Sequence[str]) -> str:
    """Write tokens as text: ``.`` and ``,`` attached to the word before, ``/`` to both sides."""
    text = ""
    for token in tokens:
        begins = plain_punctuation(token)[0]
        attached = not text or text.endswith("/") or token == "/" or begins in ".,"
        text += token if attached else f" {token}"
    return text


def sentence_spans(
    tokens: Sequence[str],
    begin_s: Sequence[float],
    end_s: Sequence[float],
    pause_s: float = 0.7,
    paragraphs: Sequence[int] = (),
) -> list[SentenceSpan]:
    """Cut a transcript into sentences; every token belongs to exactly one.

    Parameters
    ----------
    tokens : sequence of str
        Dictated words and punctuation, in spoken order, none empty.
    begin_s, end_s : sequence of float
        Their intervals, seconds.
    pause_s : float
        Where no sentence punctuation was dictated at all, a silence of this length cuts.
    paragraphs : sequence of int
        Tokens that begin a paragraph of a written report; no sentence runs across.
    """
    spans: list[SentenceSpan] = []
    for first, end in pairwise(sorted({0, *paragraphs, len(tokens)})):
        starts = _starts_at_punctuation([plain_punctuation(token) for token in tokens[first:end]])
        if starts is None:
            pauses = zip(begin_s[first + 1 : end], end_s[first : end - 1], strict=True)
            starts = [True, *(after - before >= pause_s - 1e-9 for after, before in pauses)]
        doc = _document()(words=list(tokens[first:end]), sent_starts=[*starts])
        spans += [SentenceSpan(first + one.start, first + one.end - 1) for one in doc.sents]
    return spans


@cache
def _document() -> "Callable[..., Doc]":
    """Import spaCy where sentences are cut: who cuts none need not wait for it."""
    with _ONE_THREAD, warnings.catch_warnings():  # spaCy adds filters, which are the user's
        from spacy.tokens import Doc
        from spacy.vocab import Vocab

    return partial(Doc, Vocab())


def _starts_at_punctuation(tokens: list[str]) -> list[bool] | None:
    """Flag each sentence's first token; None where no token ends a sentence."""
    starts: list[bool] = []
    sentence: list[str] = []
    worded, ended, ends = False, True, 0
    items = _run_on_items(tokens)
    last_word = max((at for at, token in enumerate(tokens) if is_word(token)), default=0)
    for at, (token, following) in enumerate(zip(tokens, [*tokens[1:], None], strict=True)):
        # Punctuation after an end ("normal . .") stays with the sentence it follows.
        begins = is_word(token) or (_REMOVED in token and at < last_word)
        starts.append(not starts or (at in items and worded) or (ended and begins))
        if starts[-1]:
            ends += at in items and not ended
            sentence, worded, ended = [], False, False
        sentence.append(token)
        worded = worded or is_word(token)
        if worded and not ended and _ends_sentence(sentence, following):
            ended, ends = True, ends + 1
    return starts if ends else None


def _ends_sentence(sentence: list[str], following: str | None) -> bool:
    last = sentence[-1].rstrip(_CLOSING)
    if last.endswith(("?", "!")):
        return True
    if not last.endswith("."):
        return False
    stem = join_words(sentence[-4:]).rstrip(_CLOSING).rsplit(" ")[-1].removesuffix(".").lower()
    if following is None:
        return True
    if stem.isdigit() and following[0].isdigit():  # a decimal, dictated as 1 . 5
        return False
    if _ENUMERATOR.fullmatch(stem) and _opens_list(sentence):
        return False
    return stem not in _ABBREVIATIONS and not _INITIALS.fullmatch(stem)


def _run_on_items(tokens: list[str]) -> set[int]:
    """Find where a numbered list's next item begins though nothing ends the one before it.

    "1. No edema 2. Small effusion": the second number follows the first, in one sentence.
    """
    found: set[int] = set()
    number, own_period = 0, -1
    for at, token in enumerate(tokens):
        here = _item_number(tokens, at)
        opens = at == 0 or tokens[at - 1].rstrip(_CLOSING)[-1:] in (*".:?!",)
        stem, end = token.rstrip(_CLOSING)[:-1].lower(), token.rstrip(_CLOSING)[-1:]
        if here and (opens or (number and here == number + 1)):
            found |= set() if opens else {at}
            number, own_period = here, at + 1
        elif end in ("?", "!") or (end == "." and at != own_period and stem not in _ABBREVIATIONS):
            number = 0
    return found


def _item_number(tokens: list[str], at: int) -> int:
    """Take the number of a list's item: ``2.``, or ``2`` and a period, then a word; 0 if none.

    After a word that takes numbers ("segment 2.") there is none.
    """
    token, *rest = tokens[at : at + 3]
    number = token.removesuffix(".")
    if token == number:
        if rest[:1] != ["."]:
            return 0
        rest = rest[1:]
    else:
        rest = rest[:1]
    word = bool(rest) and (rest[0][0].isalpha() or rest[0].startswith(_REMOVED))
    if not (word and _ENUMERATOR.fullmatch(number)):
        return 0
    return 0 if at and tokens[at - 1].lower() in _NUMBERED else int(number)


def _opens_list(sentence: list[str]) -> bool:
    """Tell whether a number, the last word so far, is the sentence's first or follows a colon."""
    words = [at for at, token in enumerate(sentence) if is_word(token)]
    return len(words) == 1 or ":" in "".join(sentence[words[-2] : words[-1]])
