"""Parts of a JSON document that another program wrote, each with its place for messages."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from egma_prep.errors import BadInputError
from egma_prep.sources.values import json_document, number

_NO_BLANK = re.compile(r"\S")


class JsonPart(NamedTuple):
    """A value, the file it is of, and where it lies there: ``segment 3, word 2``."""

    value: Any
    path: str
    where: str = ""

    def get(self, key: str | int) -> Any:
        """Take what is under a key or at a place of a list; None if there is nothing."""
        if isinstance(key, int):
            is_there = isinstance(self.value, list) and key < len(self.value)
        else:
            is_there = isinstance(self.value, dict) and key in self.value
        return self.value[key] if is_there else None

    def each(self, key: str) -> "Iterator[JsonPart]":
        """Take the members of a list, which must be there."""
        members = self.get(key)
        if not isinstance(members, list):
            raise self.unlike(f"has no list {key!r}")
        for at, member in enumerate(members):
            yield JsonPart(member, self.path, self._below(f"{key.removesuffix('s')} {at + 1}"))

    def first(self, key: str) -> "JsonPart":
        """Take the first member of a list; the best of a recogniser's alternatives."""
        for member in self.each(key):
            return member._replace(where=self.where)
        raise self.unlike(f"has nothing in {key!r}")

    def text(self, key: str | int) -> str:
        """Take a text, which must be there."""
        found = self.get(key)
        if not isinstance(found, str):
            raise self.unlike(f"has no text {key!r}")
        return found

    def time(self, key: str | int, unit_s: float = 1.0) -> float:
        """Take a time; NaN where there is none."""
        found = self.get(key)
        if found is None or found != found:  # Python's json writes and reads NaN
            return math.nan
        return number(found, self.path, f"{self.path}, {self._below(str(key))}") * unit_s

    def unlike(self, what: str) -> BadInputError:
        """Say what is wrong with this part."""
        place = f"{self.path}, {self.where}" if self.where else self.path
        return BadInputError("bad_words_file", self.path, f"{place} {what}")

    def _below(self, name: str) -> str:
        return f"{self.where}, {name}" if self.where else name


def json_part(data: bytes, path: str) -> JsonPart:
    """Read a whole JSON document."""
    return JsonPart(json_document(data, path), path)


def json_parts(text: str, path: str) -> Iterator[JsonPart]:
    """Read JSON documents that stand one after the other, as programs print them."""
    decoder, count, at = json.JSONDecoder(), 0, _next(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise BadInputError("bad_json", path, f"{path} is not JSON ({error})") from None
        count, at = count + 1, _next(text, end)
        yield JsonPart(value, path, f"document {count}")


def _next(text: str, at: int) -> int:
    """Skip blanks."""
    found = _NO_BLANK.search(text, at)
    return found.start() if found else len(text)


def has_shape(value: object, shape: str) -> bool:
    """Tell whether a document has such a part: ``results[].alternatives[].words[].word``."""
    key, _, rest = shape.partition(".")
    name = key.removesuffix("[]")
    if not isinstance(value, dict) or name not in value:
        return False
    part = value[name]
    if not key.endswith("[]"):
        return not rest or has_shape(part, rest)
    return isinstance(part, list) and (not rest or any(has_shape(one, rest) for one in part))
