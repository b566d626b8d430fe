"""Words as speech recognisers export them (FORMATS 14), in text of our own making."""

import json
from collections.abc import Callable
from itertools import groupby, pairwise
from typing import Any, NamedTuple

from .dictation import Token


class WordsFile(NamedTuple):
    """A format: the file's name, ``[words]`` of dataset.toml, and who writes one."""

    file: str
    facts: str
    write: Callable[[list[Token]], str | bytes]


# -- what a recogniser makes of the words ---------------------------------------------------------


def _glued(tokens: list[Token]) -> list[Token]:
    """Attach a sentence's signs to the word before, as most recognisers write them."""
    glued: list[Token] = []
    for token in tokens:
        before = glued[-1] if glued else None
        if before and token.text in (".", ",") and token.sentence == before.sentence:
            glued[-1] = before._replace(text=before.text + token.text, end=token.end)
        else:
            glued.append(token)
    return glued


def _spelled_out(tokens: list[Token]) -> list[Token]:
    """Write signs as the words that were said for them."""
    said: list[Token] = []
    names = {".": "period", ",": "comma", "/": "slash"}
    for token in tokens:
        words = [names.get(word, word) for word in token.text.split()]
        last = words[-1]
        if last != "vs." and last[-1] in ".,":  # EYE GAZE's are glued
            words[-1:] = [last[:-1], names[last[-1]]]
        said.append(token._replace(text=" ".join(words)))
    return said


def _with_length(tokens: list[Token]) -> list[Token]:
    """Join words of no length to the one before: an interval cannot be empty."""
    joined: list[Token] = []
    for token in tokens:
        if joined and token.end <= token.begin:
            joined[-1] = joined[-1]._replace(text=f"{joined[-1].text} {token.text}")
        else:
            joined.append(token)
    return joined


def _json(document: object) -> str:
    return json.dumps({"note": "PHANTOM", **document} if isinstance(document, dict) else document)


def _spans(tokens: list[Token], text: str, begin: str, end: str) -> list[dict[str, Any]]:
    return [{text: one.text, begin: one.begin, end: one.end} for one in tokens]


def _sentences(tokens: list[Token]) -> list[list[Token]]:
    return [list(same) for _, same in groupby(tokens, key=lambda token: token.sentence)]


# -- formats --------------------------------------------------------------------------------------


def _csv(tokens: list[Token]) -> str:
    lines = [f'"{token.text}",{token.begin!r},{token.end!r}' for token in tokens]
    return "\n".join(["word,begin,end", *lines, ""])


def _whisper(tokens: list[Token]) -> str:
    spoken = [one._replace(text=f" {one.text}") for one in _glued(tokens)]
    return _json({"segments": [_segment(sentence) for sentence in _sentences(spoken)]})


def _segment(sentence: list[Token]) -> dict[str, Any]:
    return {
        "start": sentence[0].begin,
        "end": sentence[-1].end,
        "text": "".join(one.text for one in sentence),
        "words": _spans(sentence, "word", "start", "end"),
    }


def _whisperx(tokens: list[Token]) -> str:
    segments = [_segment(sentence) for sentence in _sentences(_glued(tokens))]
    for segment in segments:  # numbers are not aligned
        for word in segment["words"][1:-1]:
            if any(map(str.isdigit, word["word"])):
                del word["start"], word["end"]
    words = [word for segment in segments for word in segment["words"]]
    return _json({"segments": segments, "word_segments": words})


def _google(tokens: list[Token]) -> str:
    results = []
    for number, sentence in enumerate(_sentences(_glued(tokens))):
        words = [
            {
                "word": one.text,
                "startTime": _duration(one.begin, number),
                "endTime": _duration(one.end, number),
            }
            for one in sentence
        ]
        transcript = " ".join(one.text for one in sentence)
        results.append({"alternatives": [{"transcript": transcript, "words": words}]})
    return _json({"results": results})


def _duration(time_s: float, number: int) -> str | dict[str, str | int]:
    """Write a time in either way that Google has; what is zero is left out."""
    seconds, ms = divmod(round(time_s * 1000), 1000)
    if number % 2:
        return f"{time_s:.3f}s"
    return {"seconds": str(seconds), **({"nanos": ms * 1_000_000} if ms else {})}


def _watson(tokens: list[Token]) -> str:
    """Write nested results, the first word followed by a hesitation."""
    sentences = [
        [[one.text, one.begin, one.end] for one in sentence]
        for sentence in _sentences(_spelled_out(tokens))
    ]
    for sentence in sentences[:1]:
        sentence.insert(1, ["%HESITATION", sentence[0][2], sentence[0][2]])
    results = [{"final": True, "alternatives": [{"timestamps": one}]} for one in sentences]
    return _json({"results": [{"results": results}]})


def _aws(tokens: list[Token]) -> str:
    items: list[dict[str, Any]] = []
    for one in _glued(tokens):
        word = one.text.rstrip(".,") if one.text != "vs." else one.text
        signs = one.text[len(word) :]
        times = {"start_time": f"{one.begin:.3f}", "end_time": f"{one.end:.3f}"}
        items.append({"type": "pronunciation", **times, "alternatives": [{"content": word}]})
        items += [{"type": "punctuation", "alternatives": [{"content": sign}]} for sign in signs]
    return _json({"results": {"transcripts": [], "items": items}})


def _deepgram(tokens: list[Token]) -> str:
    words = _spans(_glued(tokens), "punctuated_word", "start", "end")
    for word in words:
        word["word"] = word["punctuated_word"].lower().rstrip(".,")
    return _json({"results": {"channels": [{"alternatives": [{"words": words}]}]}})


def _assemblyai(tokens: list[Token]) -> str:
    words = _spans(_glued(tokens), "text", "start", "end")
    for word in words:
        word |= {edge: round(word[edge] * 1000) for edge in ("start", "end")}
    return _json({"status": "completed", "words": words})


def _speechmatics(tokens: list[Token]) -> str:
    words = [
        {"name": one.text, "time": f"{one.begin:.3f}", "duration": f"{one.end - one.begin:.3f}"}
        for one in tokens
    ]
    return _json({"words": words})


def _vosk(tokens: list[Token]) -> str:
    """Print a document a sentence, as Vosk does after each pause."""
    sentences = [_spans(one, "word", "start", "end") for one in _sentences(_spelled_out(tokens))]
    documents: list[object] = [{"result": one} for one in sentences]
    return "\n".join(map(_json, documents or [{"text": ""}]))


def _textgrid(tokens: list[Token]) -> bytes:
    """Write the long form in UTF-16; silence is an empty interval."""
    end_s = tokens[-1].end + 1 if tokens else 1.0
    spoken = _with_length(tokens)
    edges = [Token("", 0, 0, 0), *spoken, Token("", end_s, end_s, 0)]
    intervals: list[tuple[float, float, str]] = []
    for before, one in pairwise(edges):
        if one.begin > before.end:
            intervals.append((before.end, one.begin, ""))
        if one.text:
            intervals.append((max(one.begin, before.end), one.end, one.text))
    lines = [
        'File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {end_s}",
        "tiers? <exists>", "size = 1", "item []:", "    item [1]:",
        '        class = "IntervalTier"', '        name = "words"', "        xmin = 0",
        f"        xmax = {end_s}", f"        intervals: size = {len(intervals)}",
    ]  # fmt: skip
    for number, (begin, end, text) in enumerate(intervals, 1):
        lines.append(f"        intervals [{number}]:")
        lines += [f"            xmin = {begin}", f"            xmax = {end}"]
        lines.append(f'            text = "{text}"')
    return "\n".join([*lines, ""]).encode("utf-16")


def _vtt(tokens: list[Token]) -> str:
    cues = [
        f"{_clock(one.begin)} --> {_clock(one.end)}\n{one.text}\n" for one in _with_length(tokens)
    ]
    return "\n".join(["WEBVTT - PHANTOM", "", *cues])


def _clock(time_s: float) -> str:
    minutes, ms = divmod(round(time_s * 1000), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{ms // 1000:02d}.{ms % 1000:03d}"


def _file(
    name: str, form: str, write: Callable[[list[Token]], str | bytes], more: str = ""
) -> WordsFile:
    return WordsFile(name, f'file = "{name}"\nformat = "{form}"\n{more}'.strip(), write)


_SPOKEN = "spoken_punctuation = true"
WORDS_FILES = {
    "csv": _file("words.csv", "csv", _csv, 'time_unit = "s"'),
    "whisper": _file("words.json", "whisper", _whisper),
    "whisperx": _file("words.json", "whisperx", _whisperx),
    "google": _file("words.json", "google", _google),
    "watson": _file("words.json", "watson", _watson, _SPOKEN),
    "aws": _file("words.json", "aws", _aws),
    "deepgram": _file("words.json", "deepgram", _deepgram),
    "assemblyai": _file("words.json", "assemblyai", _assemblyai),
    "speechmatics": _file("words.json", "speechmatics", _speechmatics),
    "vosk": _file("words.json", "vosk", _vosk, _SPOKEN),
    "textgrid": _file("words.TextGrid", "textgrid", _textgrid),
    "vtt": _file("words.vtt", "vtt", _vtt),
}
