"""A written report to the words of its findings and impression (FORMATS, section 4)."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import accumulate, starmap
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.manifests import manifest
from egma_prep.parse.values import decoded, has_words, unglued
from egma_prep.readings import Words

_REPORT = manifest("mimic-cxr")["report"]
_WANTED: list[str] = _REPORT["sections"]
_KIND_OF = {
    name: kind for kind in (*_WANTED, "other", "anatomy") for name in _REPORT["headings"][kind]
}
_LIKENESS, _MISSPELT_LETTERS = 0.87, 6
"""The least like of the misspelt headings that MIT-LCP's parser lists is 0.875 like its own; short
words are too near each other ("dated" to "date")."""
_BLANK_LINES = re.compile(r"\n\s*\n")
_TITLE = re.compile(r"[^a-z]*")


def _any_of(kinds: Iterable[str]) -> str:
    names = [name for name, kind in _KIND_OF.items() if kind in kinds]
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


_HEADING = re.compile(
    # At a line's start: capitals, or a known heading that begins with one; "AT 3:45 PM" is none.
    r"^[ \t]*(?P<line>[A-Z][A-Z0-9 ()/,'&-]*[A-Z)]"
    rf"|(?=[A-Z])(?i:{_any_of([*_WANTED, 'other'])}))[ \t]*:(?!\d)"
    # Alone in its line it needs no colon.
    rf"|^[ \t]*(?P<alone>{_any_of(_WANTED).upper()})[ \t]*$"
    # Amid a line, where a report has lost its line ends; "SEEN IN COMPARISON:" is no other section.
    rf"|(?<=\s)(?P<amid>{_any_of(_WANTED).upper()})[ \t]*:"
    rf"|(?<=[^A-Z]\s)(?P<other>{_any_of(['other']).upper()})[ \t]*:",
    re.MULTILINE,
)


class ReportWords(NamedTuple):
    """Words of a report without times, which of them begin a paragraph, and what was noted."""

    words: Words
    paragraphs: tuple[int, ...]
    notes: Mapping[str, int]


def report_words(data: bytes, path: str) -> ReportWords:
    """Take the words of a report's findings, then of its impression.

    Where there is neither, the last section's paragraphs after its first are taken, as by MIT-LCP's
    section parser of MIMIC-CXR, and that is noted.

    Parameters
    ----------
    data : bytes
        The file.

    Raises
    ------
    BadInputError
        If no words of the report may be findings.
    """
    text = decoded(data, path).replace("\r\n", "\n").replace("\r", "\n")
    sections, unknown = _sections(text)
    wanted = [body for kind in _WANTED for of, body in sections if of == kind]
    paragraphs = _paragraphs(wanted)
    notes = {"report_headings_unknown": unknown}
    if paragraphs:
        others = (body for kind, body in sections if kind not in _WANTED)
        further = [one for body in others for one in _BLANK_LINES.split(body)[1:]]
        notes["report_paragraphs_left_out"] = len(_paragraphs(further))
    else:
        notes["reports_without_sections"] = 1
        paragraphs = next(filter(None, starmap(_last_paragraphs, reversed(sections))), [])
    if not paragraphs:
        raise BadInputError("no_report_section", path, f"{path} has no findings or impression")
    begins = tuple(accumulate(map(len, paragraphs[:-1]), initial=0))
    tokens = [word for paragraph in paragraphs for word in paragraph]
    unknown_s = np.full(len(tokens), np.nan)
    return ReportWords(Words(tokens, unknown_s, unknown_s), begins, notes)


def _sections(text: str) -> tuple[list[tuple[str, str]], int]:
    """Cut a report into kinds of sections and their texts; count headings that hide their text."""
    sections = [("preamble", 0, 0)]  # kind, where its heading ends, where its heading begins
    unknown = 0
    for heading in _HEADING.finditer(text):
        inside = sections[-1][0]
        kind = _kind(heading[heading.lastgroup or 0], inside in _WANTED)
        if kind in (None, "views", "anatomy") and inside in _WANTED:
            continue  # part of the findings' text
        if kind is None:
            unknown += inside != "preamble"
        elif kind == "anatomy":
            sections.append(("findings", heading.start(), heading.start()))
        else:
            named = "findings" if kind == "views" else kind
            sections.append((named, heading.end(), heading.start()))
    ends = [*(begin for _, _, begin in sections[1:]), len(text)]
    return [
        (kind, text[at:end]) for (kind, at, _), end in zip(sections, ends, strict=True)
    ], unknown


def _kind(heading: str, in_findings: bool) -> str | None:
    """Tell a heading's kind of section; None where it is not known.

    Inside findings nothing ends them that only looks like another section's: radiologists write
    ``SINCE PRIOR EXAM:`` and ``LUNGS:`` there.
    """
    name = " ".join(heading.lower().split())
    if name in _KIND_OF:
        return _KIND_OF[name]
    for part in _WANTED if in_findings else _REPORT["contained"]:
        if part in name:
            return _KIND_OF[part]
    long = len(name) >= _MISSPELT_LETTERS
    if long and (close := get_close_matches(name, _KIND_OF, 1, _LIKENESS)):
        return _KIND_OF[close[0]]
    if in_findings:
        return None
    if any(view in name for view in _REPORT["headings"]["views"]):
        return "views"
    if set(re.findall(r"[a-z]+", name)) & set(_REPORT["headings"]["anatomy"]):
        return "anatomy"
    # "FINAL REPORT INDICATION", of a report that has lost its line ends
    return next((_KIND_OF[known] for known in _KIND_OF if name.endswith(f" {known}")), None)


def _paragraphs(texts: Iterable[str]) -> list[list[str]]:
    """Cut texts at blank lines into words; leave out paragraphs of punctuation alone."""
    split = (unglued(one).split() for text in texts for one in _BLANK_LINES.split(text))
    return [words for words in split if has_words(words)]


def _last_paragraphs(kind: str, text: str) -> list[list[str]]:
    """Take what may be findings of a section that is not called so.

    Its first paragraph is what its heading says, or the report's title.
    """
    paragraphs = _BLANK_LINES.split(text)
    own = kind != "preamble" or bool(_TITLE.fullmatch(paragraphs[0]))
    return _paragraphs(paragraphs[own:])
