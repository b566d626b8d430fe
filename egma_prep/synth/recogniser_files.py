"""Words as speech recognisers export them (FORMATS 14), in text of our own making."""

from collections.abc import Callable
from typing import NamedTuple

from .dictation import Token


class WordsFile(NamedTuple):
    """A format: the file's name, ``[words]`` of dataset.toml, and who writes one."""

    file: str
    facts: str
    write: Callable[[list[Token]], str | bytes]


def _csv(tokens: list[Token]) -> str:
    lines = [f'"{token.text}",{token.begin!r},{token.end!r}' for token in tokens]
    return "\n".join(["word,begin,end", *lines, ""])


WORDS_FILES = {
    "csv": WordsFile("words.csv", 'file = "words.csv"\nformat = "csv"\ntime_unit = "s"', _csv)
}
