"""A plain table, a row a word or a phrase: ``word, begin, end``, or columns of other names.

A ``duration`` may stand for the end. Whisper's TSV is such a table, too: ``time_unit = "ms"`` and
``columns = { text = "text", begin = "start" }``. Blank times are times that are not known.
"""

import math
from collections.abc import Iterator

from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.recognisers import TimedWord, WordsFile
from egma_prep.sources.trackers import SECONDS
from egma_prep.sources.values import is_blank, number

FORMATS = ("csv",)
EXPECTED = "columns word, begin and end, or as [words] columns names them"


def looks_like(content: object) -> bool:
    """Tell a table whose header names words and times."""
    header = content.strip().partition("\n")[0].lower() if isinstance(content, str) else ""
    named = {name.strip(' "') for name in header.replace(";", ",").replace("\t", ",").split(",")}
    return bool(named & {"word", "words", "text"} and named & {"begin", "start", "onset"})


def words(data: bytes, path: str, words_file: WordsFile) -> Iterator[TimedWord]:
    """Read a row a word, which ends where its column says or after its duration."""
    named = dict(words_file.columns)
    last = named.get("duration") or named.get("end", "end")
    text, begin = named.get("text", "word"), named.get("begin", "begin")
    table = parse_csv(data, path, (text, begin, last))
    unit_s = SECONDS[words_file.time_unit]
    for row, word in enumerate(table.columns[text]):
        begin_s, end_s = (_time(table, row, column) * unit_s for column in (begin, last))
        end_s += begin_s if "duration" in named else 0
        yield TimedWord(word, begin_s, end_s, f"row {table.row_in_file(row)}")


def _time(table: Table, row: int, column: str) -> float:
    cell = table.columns[column][row]
    return math.nan if is_blank(cell) else number(cell, table.path, table.place(row, column))
