"""A plain table, a row a word or a phrase: ``word, begin, end``, or columns of other names.

Whisper's and other programs' TSV is such a table: ``time_unit = "ms"`` and
``columns = { text = "text", begin = "start" }``. Blank times are times that are not known.
"""

import math
from collections.abc import Iterator

from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.trackers import SECONDS
from egma_prep.sources.values import is_blank, number

FORMATS = ("csv",)
EXPECTED = "the columns word, begin and end, or those of [words.columns] in dataset.toml"
_USUAL = {"text": "word", "begin": "begin", "end": "end"}


def looks_like(content: object) -> bool:
    """Tell a table whose header names words and times."""
    header = content.strip().partition("\n")[0].lower() if isinstance(content, str) else ""
    named = {name.strip(' "') for name in header.replace(";", ",").replace("\t", ",").split(",")}
    return bool(named & {"word", "words", "text"} and named & {"begin", "start", "onset"})


def words(data: bytes, path: str, words_file: WordsFile) -> Iterator[TimedWord]:
    """Read a row a word."""
    columns = _USUAL | dict(words_file.columns)
    table = parse_csv(data, path, columns.values())
    unit_s = SECONDS[words_file.time_unit]
    for row, text in enumerate(table.columns[columns["text"]]):
        begin, end = (_time(table, row, columns[name]) * unit_s for name in ("begin", "end"))
        yield TimedWord(text, begin, end, f"row {table.row_in_file(row)}")


def _time(table: Table, row: int, column: str) -> float:
    cell = table.columns[column][row]
    return math.nan if is_blank(cell) else number(cell, table.path, table.place(row, column))
