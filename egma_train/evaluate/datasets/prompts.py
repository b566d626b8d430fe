"""Text queries by class, from data files; classes are bound by name, never by place."""

import hashlib
import json
import random
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.shipped import shipped_file
from egma_train.evaluate.datasets.user_files import read_table, read_text

PUBLISHED_SAMPLE = 50
"""Prompts that the published code draws of each class."""


@dataclass(frozen=True)
class Prompts:
    """Queries of each class.

    Attributes
    ----------
    name : str
        Of the file, in words.
    queries : dict of str to tuple of str
        By class.
    """

    name: str
    queries: dict[str, tuple[str, ...]]

    @property
    def sha256(self) -> str:
        """Hash of the queries, whatever the classes' order."""
        lines = sorted(
            f"{name}\t{text}\n" for name, texts in self.queries.items() for text in texts
        )
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def of(self, classes: Iterable[str]) -> "Prompts":
        """Keep some classes, in their order.

        Raises
        ------
        BadUsageError
            If a class has no prompts.
        """
        chosen = tuple(classes)
        lacking = [name for name in chosen if name not in self.queries]
        if lacking:
            there = ", ".join(sorted(self.queries))
            raise BadUsageError(f"{self.name} has no prompts for {lacking}; there are: {there}")
        return Prompts(self.name, {name: self.queries[name] for name in chosen})

    def sampled(self, seed: int) -> "Prompts":
        """Draw at most 50 of each class, as the published code; from an own generator."""
        drawn = {
            name: tuple(random.Random(seed).sample(texts, PUBLISHED_SAMPLE))
            if len(texts) > PUBLISHED_SAMPLE
            else texts
            for name, texts in self.queries.items()
        }
        return Prompts(f"{self.name}, {PUBLISHED_SAMPLE} drawn by seed {seed}", drawn)

    def told(self) -> dict[str, Any]:
        """Describe for a report."""
        counts = {name: len(texts) for name, texts in self.queries.items()}
        return {"name": self.name, "sha256": self.sha256, "counts": counts}


def shipped_prompts(name: str) -> Prompts:
    """Read ``prompts-NAME.toml`` of the package."""
    return read_prompts(shipped_file(f"prompts-{name}.toml"))


def read_prompts(path: Path) -> Prompts:
    """Read prompts.

    Parameters
    ----------
    path : Path
        TOML or JSON: a table of classes (or one named ``classes``), each a list of queries or a
        table of parts whose every combination is a query, joined by spaces in the written order. Or
        a CSV with the columns ``Variable`` and ``Text``, as ConVIRT's ``query.csv``.

    Raises
    ------
    BadUsageError
        If it cannot be read as that.
    """
    try:
        suffix = path.suffix.lower()
        loads = json.loads if suffix == ".json" else tomllib.loads
        stored: Any = _from_csv(path) if suffix == ".csv" else loads(read_text(path))
        classes = stored.get("classes", stored)
        queries = {str(name): _queries(value) for name, value in classes.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadUsageError(
            f"{path} holds no prompts ({error}); write [classes] with a list of queries each, or"
            " of each part"
        ) from None
    blank = any(not query.strip() for given in queries.values() for query in given)
    if blank or not queries or not all(queries.values()):
        raise BadUsageError(f"{path}: every class needs a query, and a query is no blank text")
    name = stored.get("name", path.name) if classes is not stored else path.name
    return Prompts(str(name), queries)


def _queries(value: Any) -> tuple[str, ...]:
    """Join every combination of parts; a blank part leaves no space behind."""
    if isinstance(value, Mapping):
        combined = product(*map(_texts, value.values()))
        return tuple(" ".join(part for part in parts if part) for parts in combined)
    return _texts(value)


def _texts(value: Any) -> tuple[str, ...]:
    """Take a list of texts; one text alone would be spelled letter by letter."""
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{value!r} is no list of texts")
    return tuple(value)


def _from_csv(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for number, row in read_table(path, "Variable", "Text"):
        if not row["Variable"] or not row["Text"]:
            raise ValueError(f"row {number} has a blank")
        found.setdefault(row["Variable"], []).append(row["Text"])
    return found
