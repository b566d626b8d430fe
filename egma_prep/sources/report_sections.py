"""A written report to the words of its findings and impression (FORMATS, section 4)."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.manifests import manifest
from egma_prep.sources.reading import Words
from egma_prep.sources.values import decoded, has_words, unglued

_REPORT = manifest("mimic-cxr")["report"]
_WANTED: list[str] = _REPORT["sections"]
_KIND_OF = {
    name: kind for kind in (*_WANTED, "other", "anatomy") for name in _REPORT["headings"][kind]
}
_NAMED = {*_WANTED, "other"}
_VOCABULARY = {
    word
    for kind in ("views", "anatomy", "companions")
    for name in _REPORT["headings"][kind]
    for word in re.findall("[a-z]+", name)
}
_LIKENESS, _MISSPELT_LETTERS = 0.87, 6
"""The least like of the misspelt headings that MIT-LCP's parser lists is 0.875 like its own; short
words are too near each other ("dated" to "date")."""
_BLANK_LINES = re.compile(r"\n\s*\n")
_TITLE = re.compile(r"[^a-z]*")
_CLOCK = (
    r"(?:\d{1,2}:\d{2}(?:\s*(?:[AaPp]\.?\s?[Mm]\b\.?|(?i:hours|hrs)))?|\d{1,2}/\d{1,2}/\d{2,4})"
)
_AT = r"(?:(?i:at|on|dated)\s+|___[,.;]?\s*)*"
_TAKEN_AT = re.compile(rf"\s*(?:{_AT}{_CLOCK}[,.;]?\s*)+")
"""When views were taken, after the heading that names them."""


def _any_of(kinds: Iterable[str]) -> str:
    names = [name for name, kind in _KIND_OF.items() if kind in kinds]
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


_HEADING = re.compile(
    # At a line's start: capitals, or a known heading that begins with one; "AT 3:45 PM" is none.
    r"^[ \t]*(?P<line>[A-Z][A-Z0-9 ()/,'&-]*[A-Z)]"
    rf"|(?=[A-Z])(?i:{_any_of([*_WANTED, 'other'])}"
    rf"|(?:clinical )?(?:{'|'.join(_REPORT['purposes'])})s?\b[^:\n.]{{0,60}}))[ \t]*:(?!\d)"
    # Alone in its line it needs no colon.
    rf"|^[ \t]*(?P<alone>{_any_of(_WANTED).upper()})[ \t]*$"
    # Amid a line, where a report has lost its line ends; "SEEN IN COMPARISON:" is no other section.
    rf"|(?<=\s)(?P<amid>{_any_of(_WANTED).upper()})[ \t]*:"
    rf"|(?<=[^A-Z]\s)(?P<other>{_any_of(['other']).upper()})[ \t]*:"
    # A part of the body after a sentence ("COMPARISON: None. HEART: Large.").
    r"|(?:(?<=[.;?!]\s)|(?<=[.;?!]\s\s))(?P<organ>[A-Z][A-Z /,&-]*[A-Z])[ \t]*:(?!\d)",
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
    wanted = [one.body for kind in _WANTED for one in sections if one.kind == kind]
    paragraphs = _paragraphs(wanted)
    notes = {"report_headings_unknown": unknown}
    if paragraphs:
        others = (one for one in sections if one.kind not in _WANTED)
        further = [
            text for one in others for text in _BLANK_LINES.split(one.body)[not one.interrupts :]
        ]
        notes["report_paragraphs_left_out"] = len(_paragraphs(further))
    else:
        notes["reports_without_sections"] = 1
        paragraphs = next(filter(None, map(_last_paragraphs, reversed(sections))), [])
    if not paragraphs:
        raise BadInputError("no_report_section", path, f"{path} has no findings or impression")
    begins = tuple(accumulate(map(len, paragraphs[:-1]), initial=0))
    tokens = [word for paragraph in paragraphs for word in paragraph]
    unknown_s = np.full(len(tokens), np.nan)
    return ReportWords(Words(tokens, unknown_s, unknown_s), begins, notes)


class _Section(NamedTuple):
    """A kind of section, its text, and whether its first paragraph may have been findings.

    It is what the heading says, but where the heading stands amid findings, or there is none.
    """

    kind: str
    body: str
    interrupts: bool


def _sections(text: str) -> tuple[list[_Section], int]:
    """Cut a report into sections; count headings that hide their text."""
    titled = bool(_TITLE.fullmatch(_BLANK_LINES.split(text)[0]))
    # Each with its kind, its heading's end and begin, and whether it interrupts.
    found = [("preamble", 0, 0, not titled)]
    unknown = 0
    for heading in _HEADING.finditer(text):
        inside = found[-1][0] in _WANTED
        name = " ".join(heading[heading.lastgroup or 0].lower().split())
        kind = _kind(name, inside)
        if kind in (None, "views", "anatomy") and inside:
            continue  # part of the findings' text
        before = text[found[-1][1] : heading.start()]
        new_paragraph = bool(re.search(r"\n\s*\n\s*$", before))
        if kind is None:
            unknown += found[-1][0] != "preamble"
        elif inside and name in _REPORT["prose"] and not new_paragraph and _goes_on(before):
            continue  # "not seen on the prior\n EXAM: ..."
        elif kind == "anatomy":
            found.append(("findings", heading.start(), heading.start(), False))
        elif kind == "views":
            taken_at = _TAKEN_AT.match(text, heading.end())
            found.append(
                ("findings", taken_at.end() if taken_at else heading.end(), heading.start(), False)
            )
        else:
            usual = new_paragraph and any(part in name for part in _REPORT["after_findings"])
            found.append((kind, heading.end(), heading.start(), inside and not usual))
    ends = [*(begin for _, _, begin, _ in found[1:]), len(text)]
    sections = [
        _Section(kind, text[at:end], interrupts)
        for (kind, at, _, interrupts), end in zip(found, ends, strict=True)
    ]
    return sections, unknown


def _goes_on(before: str) -> bool:
    """Tell whether text has begun and ends amid a sentence."""
    said = before.rstrip()
    return bool(said) and said[-1] not in ".:;?!"


def _kind(name: str, in_findings: bool) -> str | None:
    """Tell the kind of section of a heading in small letters; None where it is not known.

    Inside findings nothing ends them that only looks like another section's: radiologists write
    ``SINCE PRIOR EXAM:`` and ``LUNGS:`` there.
    """
    if name in _KIND_OF:
        return _KIND_OF[name]
    purposes = tuple(_REPORT["purposes"])
    if name.removeprefix("clinical ").startswith(purposes):
        return "other"
    for part in _WANTED if in_findings else [*_REPORT["contained"], *purposes]:
        if part in name:
            return _KIND_OF.get(part, "other")
    long = len(name) >= _MISSPELT_LETTERS
    if long and (close := get_close_matches(name, _KIND_OF, 1, _LIKENESS)):
        return _KIND_OF[close[0]]
    if in_findings:
        return None
    words = set(re.findall("[a-z]+", name))
    if words <= _VOCABULARY:
        if any(view in name for view in _REPORT["headings"]["views"]):
            return "views"
        if words & set(_REPORT["headings"]["anatomy"]):
            return "anatomy"
    # "FINAL REPORT TECHNIQUE", of a report that has lost its line ends
    ends = (kind for known, kind in _KIND_OF.items() if name.endswith(f" {known}"))
    return next((kind for kind in ends if kind in _NAMED), None)


def _paragraphs(texts: Iterable[str]) -> list[list[str]]:
    """Cut texts at blank lines into words; leave out paragraphs of punctuation alone."""
    split = (unglued(one).split() for text in texts for one in _BLANK_LINES.split(text))
    return [words for words in split if has_words(words)]


def _last_paragraphs(section: _Section) -> list[list[str]]:
    """Take what may be findings of a section that is not called so.

    Its first paragraph is what its heading says, or the report's title.
    """
    paragraphs = _BLANK_LINES.split(section.body)
    own = section.kind != "preamble" or bool(_TITLE.fullmatch(paragraphs[0]))
    return _paragraphs(paragraphs[own:])
