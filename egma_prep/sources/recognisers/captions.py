"""WebVTT and SRT: cues are phrases, whose words share their time.

YouTube's cues have the time of each word inside, ``<00:05:04.199><c> will</c>``, and repeat the
lines that are still on the screen. Whisper's and WhisperX's ``--highlight_words`` repeats a phrase
for each of its words, underlined.
"""

import html
import io
import re
from collections.abc import Iterator
from itertools import groupby, pairwise
from typing import NamedTuple

import webvtt

from egma_prep.errors import BadInputError
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.values import decoded

FORMATS = ("vtt",)
EXPECTED = "WEBVTT as its first line, or the numbered cues of SRT, hh:mm:ss,mmm --> hh:mm:ss,mmm"
_TIME = re.compile(r"<((?:\d+:)?\d\d:\d\d\.\d{3})>")
_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")
_UNDERLINED = re.compile(r"<u>([^<]*)</u>")
_SRT = re.compile(r"\d+\s*\n\s*\d+:\d+:\d+[,.]\d+\s*-->")


class _Cue(NamedTuple):
    lines: list[str]
    begin_s: float
    end_s: float
    place: str

    @property
    def text(self) -> str:
        return _plain(" ".join(self.lines))


def looks_like(content: object) -> bool:
    """Tell it by its first line or first cue."""
    text = content.strip() if isinstance(content, str) else ""
    return text.startswith("WEBVTT") or bool(_SRT.match(text))


def words(data: bytes, path: str, _: WordsFile) -> Iterator[TimedWord]:
    """Read each cue once, its words at their own times where they have some."""
    cues = _cues(decoded(data, path), path)
    if any(_TIME.search(line) for cue in cues for line in cue.lines):
        cues = _unrolled(cues)
    for _text, same in groupby(cues, key=lambda cue: cue.text):
        repeated = list(same)
        heard = _highlighted(repeated)
        yield from heard or (word for cue in repeated for word in _timed(cue))


def _cues(text: str, path: str) -> list[_Cue]:
    text = "\n".join(text.strip().splitlines())
    if not looks_like(text):
        raise BadInputError("bad_words_file", path, f"{path} is neither WebVTT nor SRT")
    kind = "vtt" if text.startswith("WEBVTT") else "srt"
    try:
        read = webvtt.from_buffer(io.StringIO(text), format=kind)
        cues = [
            _Cue(one.raw_text.split("\n"), _seconds(one.start), _seconds(one.end), f"cue {at + 1}")
            for at, one in enumerate(read.captions)
        ]
    except Exception as error:  # the library's own, and whatever else a damaged file makes it raise
        what = f"{path} cannot be read ({type(error).__name__}, {str(error)[:60]!r})"
        raise BadInputError("bad_words_file", path, what) from None
    lines = [*text.split("\n"), ""]
    there = sum("-->" in line and bool(after.strip()) for line, after in pairwise(lines))
    read_there = sum(bool(cue.text) for cue in cues)
    if read_there < there:  # the library leaves out what it cannot read
        what = f"{path} has {there} cues, of which {read_there} can be read"
        raise BadInputError("bad_words_file", path, what)
    return cues


def _unrolled(cues: list[_Cue]) -> list[_Cue]:
    """Leave out the lines that a cue begins with because the one before ended with them."""
    fresh: list[_Cue] = []
    before: list[str] = []
    for cue in cues:
        lines = [line for line in cue.lines if _plain(line)]
        shown = [_plain(line) for line in lines]
        same = [n for n in range(len(shown), 0, -1) if shown[:n] == before[-n:]]
        fresh.append(cue._replace(lines=lines[same[0] :] if same else lines))
        before = shown or before
    return [cue for cue in fresh if cue.lines]


def _highlighted(cues: list[_Cue]) -> list[TimedWord]:
    """Read a phrase that is shown again for each word; nothing where it is no such."""
    said = [
        TimedWord(_plain(word), cue.begin_s, cue.end_s, cue.place)
        for cue in cues
        for word in _UNDERLINED.findall(" ".join(cue.lines))
    ]
    if len(cues) == 1 or not said:
        return []
    if " ".join(one.text for one in said).split() == cues[0].text.split():
        return said
    return [TimedWord(cues[0].text, cues[0].begin_s, cues[-1].end_s, cues[0].place)]


def _timed(cue: _Cue) -> Iterator[TimedWord]:
    """Cut a cue where times stand in it: each is when what follows begins."""
    parts = _TIME.split(" ".join(cue.lines))
    begins = [cue.begin_s, *map(_seconds, parts[1::2])]
    last_s = max(cue.end_s, begins[-1]) if len(begins) > 1 else cue.end_s
    ends = [*begins[1:], last_s]
    for text, begin_s, end_s in zip(parts[::2], begins, ends, strict=True):
        yield TimedWord(_plain(text), begin_s, end_s, cue.place)


def _plain(text: str) -> str:
    return html.unescape(_TAG.sub("", _TIME.sub("", text))).strip()


def _seconds(time: str) -> float:
    """Read ``hh:mm:ss.mmm``, hours left out or not."""
    return sum(float(part) * 60**power for power, part in enumerate(reversed(time.split(":"))))
