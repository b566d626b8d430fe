"""Texts of others where they are shown: on a terminal, in a spreadsheet, in Markdown."""

import csv
import io
import re
from collections.abc import Iterable
from typing import Any

# C0 and C1 but for line ends and tabs, and what turns the direction of a line or ends it.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# A spreadsheet computes a cell that begins so, blanks before it or not.
_FORMULA = re.compile(r"'*\s*[=+\-@\t\r]")
_OWN_FIGURE = re.compile(r"[+-]\d[\d.]*( \[[-+\d., ]+\]| \(too few\))?|-")

_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


def is_plain_name(text: object) -> bool:
    """Tell whether a text is letters, digits, ``.``, ``_``, ``-``, at most 128, no dot first."""
    return isinstance(text, str) and bool(_PLAIN_NAME.fullmatch(text))


def for_terminal(text: str) -> str:
    """Show control characters as their codes: they would move the cursor, colour, or type."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Lay out rows; a text that a spreadsheet would compute gets a ``'`` before it."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows([_cell(one) for one in row] for row in rows)
    return text.getvalue()


def csv_rows(text: str) -> list[list[str]]:
    """Read what `csv_text` made, letter by letter."""
    rows = csv.reader(io.StringIO(text, newline=""))
    return [[one[1:] if one[:1] == "'" and _FORMULA.match(one) else one for one in r] for r in rows]


def markdown(text: object) -> str:
    """Write a text so that Markdown shows it as it is, in a line or a table's cell."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", " ".join(str(text).split()))


def _cell(value: Any) -> Any:
    if not isinstance(value, str) or _OWN_FIGURE.fullmatch(value):
        return value
    return f"'{value}" if _FORMULA.match(value) else value
