"""Words of a speech recogniser's export: each module here with ``FORMATS`` and ``words``."""

import importlib
import pkgutil
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import numpy as np

from egma_prep.sources.reading import Words
from egma_prep.sources.values import require_words


class WordsFile(NamedTuple):
    """How the words of a dataset are stored: ``[words]`` of its ``dataset.toml``.

    Attributes
    ----------
    time_unit : str
        ``s``, ``ms`` or ``us``, where a format leaves it open.
    columns : mapping
        Our names (``text``, ``begin``, ``end``) to a table's columns.
    """

    file: str = "words.csv"
    format: str = "csv"
    time_unit: str = "s"
    columns: Mapping[str, str] = {}


class TimedWord(NamedTuple):
    """What a recogniser heard, one word or a phrase; times are NaN where it gave none."""

    text: str
    begin_s: float
    end_s: float


Reader = Callable[[bytes, str, WordsFile], Iterable[TimedWord]]


def recognisers() -> dict[str, Reader]:
    """Find the reader of every format, by the name that ``dataset.toml`` has for it."""
    modules = [
        importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
    ]
    return {name: module.words for module in modules for name in module.FORMATS}


def dictated(data: bytes, path: str, words_file: WordsFile) -> Words:
    """Read a recogniser's export to words with times, in seconds of its own clock.

    Raises
    ------
    BadInputError
        If it is no such file, or has no words.
    """
    heard = list(recognisers()[words_file.format](data, path, words_file))
    text = [word.text.strip() for word in heard]
    require_words(text, path)
    begin_s = np.array([word.begin_s for word in heard])
    end_s = np.array([word.end_s for word in heard])
    return Words(text, begin_s, end_s)
