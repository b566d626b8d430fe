"""A written report to the words of its findings and impression (FORMATS, section 4)."""

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import accumulate
from string import ascii_lowercase, ascii_uppercase
from typing import NamedTuple

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.manifests import manifest
from egma_prep.sources.reading import Words
from egma_prep.sources.values import decoded, has_words, unglued

_REPORT = manifest("mimic-cxr")["report"]
_WANTED: list[str] = _REPORT["sections"]
_KIND_OF = {
    name: kind
    for kind in (*_WANTED, "other", "anatomy", "preamble")
    for name in _REPORT["headings"][kind]
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
_PARAGRAPH_ENDS = re.compile(r"\n\s*\n\s*$")
_TITLE = re.compile(r"[^a-z]*")
_RULE = re.compile(r"^[^\S\n]*[_=*-]{10,}[^\S\n]*$", re.MULTILINE)
"""A line across the page, between what was said first and the final report."""
_BULLET = re.compile(
    r"^[^\S\n]*(?:[-\u2013\u2014*\u2022\u00b7]{1,2}|\(?\d{1,2}\))[^\S\n]+(?=\S)", re.MULTILINE
)
_BULLET_AMID = re.compile(
    r"(?<![.\s][A-Za-z]\.)(?<=[.?!])[^\S\n]+(?=[-\u2013\u2014*\u2022\u00b7]{1,2}[^\S\n]+[A-Z_])"
)
"""Where a report has lost its line ends; not "5 p.m. - Stable"."""
_IN_CAPITALS = str.maketrans(ascii_lowercase, ascii_uppercase)
_CLOCK = (
    r"(?:\d{1,2}:\d{2}(?:\s*(?:[AaPp]\.?\s?[Mm]\b\.?|(?i:hours|hrs)))?|\d{1,2}/\d{1,2}/\d{2,4})"
)
_AT = r"(?:(?i:at|on|dated)\s+|___[,.;]?\s*)*"
_TAKEN_AT = re.compile(
    rf"\s*(?:(?>{_AT}{_CLOCK}[,.;]?\s*)(?!(?:___\s+)?(?!{_AT}{_CLOCK})[a-z]))+"
    r"(?:___[,.;]\s*(?![a-z]))?"
)
"""When views were taken, after the heading that names them; "At 10:30 a.m. the tube was advanced."
is a sentence of its own."""


def _any_of(names: Iterable[str]) -> str:
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


_OURS = _any_of(name for name, kind in _KIND_OF.items() if kind in _WANTED)
_ALONE = "|".join([_OURS, _any_of(_REPORT["titles"])])
_OTHERS = _any_of(_REPORT["headings"]["other"])
_KNOWN = _any_of(name for name, kind in _KIND_OF.items() if kind in _NAMED)
_GAP = r"[^\S\n]*"  # no-break spaces too
_LINE = rf"^{_GAP}(?:(?:\*{{1,2}}|\#{{1,6}}|__(?!_)){_GAP})?"  # Markdown's marks are no text
_COLON = rf"(?:\*\*|__)?{_GAP}[:\uff1a](?!\d)(?:\*\*|__(?!_))?"
_STOP = rf"{_GAP}(?:\.|[-\u2013\u2014]{{1,2}})(?=\s)"
_END = rf"(?:\*\*|__)?{_GAP}$"
_OF_VIEWS = (
    rf"(?=[A-Za-z])(?:(?<![A-Za-z])(?i:[ap]\.\s?m\.|(?:{_any_of(_VOCABULARY)})(?![A-Za-z]))"
    r"|[\d_ ,()/&'-]|:(?=\d))+"
)
"""Views and parts of the body, in any capitals, with dates and times: ``CHEST, ___ AT 05:20``."""

_HEADING = re.compile(
    # At a line's start: capitals, or a known heading that begins with one; "AT 3:45 PM" is none.
    rf"{_LINE}(?P<line>[A-Z][A-Z0-9 ()/,'&-]*[A-Z)]"
    rf"|(?=[A-Z])(?i:{_KNOWN}"
    rf"|(?:clinical )?(?:{'|'.join(_REPORT['purposes'])})s?\b[^:\n.]{{0,60}})){_COLON}"
    # Alone in its line it needs no colon.
    rf"|{_LINE}(?P<alone>{_ALONE.upper()}){_END}"
    # These may be words of a sentence that a line's end broke; see _begins_section.
    rf"|{_LINE}(?P<weak>(?i:(?:{_KNOWN})(?={_COLON}|{_STOP})|(?:{_ALONE})(?={_END})))"
    rf"(?:{_COLON}|{_STOP}|{_END})"
    rf"|{_LINE}(?P<view>{_OF_VIEWS}){_COLON}"
    # Amid a line, where a report has lost its line ends; "SEEN IN COMPARISON:" is no other section.
    rf"|(?<=\s)(?P<amid>{_OURS.upper()})[ \t]*:"
    rf"|(?<=[^A-Z]\s)(?P<other>{_OTHERS.upper()})[ \t]*:"
    # A part of the body after a sentence ("COMPARISON: None. HEART: Large."), or any section
    # in a report of one line.
    r"|(?:(?<=[.;?!]\s)|(?<=[.;?!]\s\s))"
    rf"(?:(?P<organ>[A-Z][A-Z /,&-]*[A-Z])|(?P<in_one_line>(?=[A-Z])(?i:{_KNOWN})))[ \t]*:(?!\d)",
    re.MULTILINE,
)


class ReportWords(NamedTuple):
    """Words of a report without times, which begin a paragraph or an item, and what was noted."""

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
    text = _RULE.sub("", decoded(data, path).replace("\r\n", "\n").replace("\r", "\n"))
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
    return ReportWords(*section_words(paragraphs, path), notes)


def section_words(texts: Iterable[str], path: str) -> tuple[Words, tuple[int, ...]]:
    """Take the words of sections that hold findings alone, and which begin a paragraph or an item.

    Raises
    ------
    BadInputError
        If there are none.
    """
    items = [item for paragraph in _paragraphs(texts) for item in _items(paragraph)]
    if not items:
        raise BadInputError("no_report_section", path, f"{path} has no findings or impression")
    begins = tuple(accumulate(map(len, items[:-1]), initial=0))
    tokens = [word for item in items for word in item]
    unknown_s = np.full(len(tokens), np.nan)
    return Words(tokens, unknown_s, unknown_s), begins


class _Section(NamedTuple):
    """A kind of section, its text, and whether its first paragraph may have been findings.

    It is what the heading says, but where the heading stands amid findings, or there is none.
    """

    kind: str
    body: str
    interrupts: bool


def _sections(text: str) -> tuple[list[_Section], int]:
    """Cut a report into sections; count headings that hide their text."""
    found = [("preamble", 0, 0, False)]  # kind, heading's end and begin, whether it interrupts
    unknown = 0
    # Where there are no capitals they cannot tell a heading.
    shown = text if any(map(str.isupper, text)) else text.translate(_IN_CAPITALS)
    for heading in _HEADING.finditer(shown):
        inside = found[-1][0] in _WANTED
        name = " ".join(heading[heading.lastgroup or 0].lower().split())
        kind = _kind(name, inside)
        if kind in (None, "views", "anatomy") and inside:
            continue  # part of the findings' text
        before = text[found[-1][1] : heading.start()]
        if not _begins_section(heading, kind, text, _Section(found[-1][0], before, False)):
            continue
        new_paragraph = bool(_PARAGRAPH_ENDS.search(before))
        if kind is None:
            unknown += found[-1][0] != "preamble"
        elif inside and name in _REPORT["prose"] and not new_paragraph and _goes_on(before):
            continue  # "not seen on the prior\n EXAM: ..."
        elif kind == "anatomy":
            found.append(("findings", heading.start(), heading.start(), False))
        elif kind == "views":
            taken_at = _TAKEN_AT.match(text, heading.end())
            begins = taken_at.end() if taken_at else heading.end()
            found.append(("findings", begins, heading.start(), False))
        else:
            usual = new_paragraph and any(part in name for part in _REPORT["after_findings"])
            found.append((kind, heading.end(), heading.start(), inside and not usual))
    ends = [*(begin for _, _, begin, _ in found[1:]), len(text)]
    sections = [
        _Section(
            kind, text[at:end], interrupts or (kind == "preamble" and not _titled(text[at:end]))
        )
        for (kind, at, _, interrupts), end in zip(found, ends, strict=True)
    ]
    return sections, unknown


def _begins_section(heading: re.Match[str], kind: str | None, text: str, last: _Section) -> bool:
    """Tell a heading, after the last section, from words of a sentence that look like one."""
    group, goes_on = heading.lastgroup, _goes_on(last.body)
    starts_report = last.kind == "preamble" and not last.body.strip()
    opens = starts_report or bool(_PARAGRAPH_ENDS.search(last.body))
    if group == "view":
        # Below COMPARISON a line may begin "Chest CT of ___:".
        sure = text[slice(*heading.span(group))].isupper() and not goes_on
        known = kind in ("views", "anatomy") and (opens or sure)
        return known and not _last_paragraphs(last)  # which may be all that there is
    if group == "weak":
        stopped = heading[0].rstrip()[-1:] in (".", "-", "\u2013", "\u2014")
        if stopped and last.kind in _WANTED and kind not in _WANTED and not last.body.strip():
            return False  # "IMPRESSION:\n\n Comparison - unchanged." says nothing otherwise
        return opens or (kind in _WANTED and not goes_on)
    if group == "in_one_line":
        inside = last.kind in _WANTED
        further = kind in {*_WANTED} - {last.kind} if inside else last.kind != "preamble"
        return further and "\n" not in text.strip()
    # Without capitals, "with the\n following findings:" looks like a heading too.
    sure = group != "amid" and heading[group or 0].lower() in _KIND_OF
    return sure or opens or not goes_on or any(map(str.isupper, text))


def _titled(body: str) -> bool:
    """Tell whether text without a heading begins with nothing or a title."""
    return bool(_TITLE.fullmatch(_BLANK_LINES.split(body)[0]))


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
    parts = _WANTED if in_findings else [*_REPORT["contained"], *purposes]
    for part in [*_REPORT["provisional"], *parts]:
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


def _paragraphs(texts: Iterable[str]) -> list[str]:
    """Cut texts at blank lines; leave out paragraphs of punctuation alone."""
    return [one for text in texts for one in _BLANK_LINES.split(text) if has_words(one)]


def _items(paragraph: str) -> list[list[str]]:
    """Cut a paragraph into the items of its list, if it is one, and these into words."""
    items = [""]
    is_list = len(_BULLET.findall(paragraph)) > 1
    for line in paragraph.split("\n"):
        # A single "\n - 4 cm" may be a range that a line's end broke.
        if _BULLET.match(line) and (is_list or not _goes_on(items[-1])):
            items.append("")
        items[-1] += f"{line}\n"
    cut = (one for item in items for one in _BULLET_AMID.split(item))
    return [unglued(one).split() for one in cut if has_words(one)]


def _last_paragraphs(section: _Section) -> list[str]:
    """Take what may be findings of a section that is not called so.

    Its first paragraph is what its heading says, or the report's title.
    """
    own = section.kind != "preamble" or _titled(section.body)
    return _paragraphs(_BLANK_LINES.split(section.body)[own:])
