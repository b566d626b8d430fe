"""A plain table of words: ``word, begin, end``, or columns that ``dataset.toml`` names."""

from collections.abc import Iterator

from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.recognisers import TimedWord, WordsFile

FORMATS = ("csv",)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_USUAL = {"text": "word", "begin": "begin", "end": "end"}


def words(data: bytes, path: str, words_file: WordsFile) -> Iterator[TimedWord]:
    """Read a row a word."""
    columns = _USUAL | dict(words_file.columns)
    table = parse_csv(data, path, columns.values())
    unit_s = _SECONDS[words_file.time_unit]
    begin_s, end_s = (table.numbers(columns[name]) * unit_s for name in ("begin", "end"))
    for text, begin, end in zip(table.columns[columns["text"]], begin_s, end_s, strict=True):
        yield TimedWord(text, begin, end)
