"""``dataset.toml``: the facts of a set of one's own recordings (FORMATS, section 11)."""

import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TypeVar

from egma_prep.errors import BadUsageError, unknown_name
from egma_prep.options import GAZE_FROM
from egma_prep.sources.recognisers import WordsFile, recognisers
from egma_prep.sources.screens import Screen
from egma_prep.sources.trackers import EYES, FRAMES, SECONDS, GazeFile, trackers

DATASET_TOML = "dataset.toml"
_GAZE_COLUMNS = ("begin", "end", "duration", "t", "x", "y")
Table = TypeVar("Table", GazeFile, Screen, WordsFile)


class DatasetFacts(NamedTuple):
    """What a ``dataset.toml`` says.

    Attributes
    ----------
    terms, citation : str
        What cards must repeat.
    """

    name: str
    version: str
    licence: str
    terms: str
    citation: str
    gaze: GazeFile
    screen: Screen
    words: WordsFile


def dataset_facts(data: bytes) -> DatasetFacts:
    """Read a ``dataset.toml``; what it does not say has the defaults of the tables' classes.

    Raises
    ------
    BadUsageError
        If it is no TOML, or says something that is unknown or impossible.
    """
    try:
        document = tomllib.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise BadUsageError(f"{DATASET_TOML} is no TOML ({error}); mend it there") from None
    tables = {"gaze": GazeFile, "screen": Screen, "words": WordsFile}
    texts = [name for name in DatasetFacts._fields if name not in tables]
    for name in document:
        if name not in DatasetFacts._fields:
            raise unknown_name(f"entry of {DATASET_TOML}", name, DatasetFacts._fields)
    facts = DatasetFacts(
        **{name: _text(document.get(name, ""), name) for name in texts},
        gaze=_table(document, "gaze", GazeFile),
        screen=_table(document, "screen", Screen),
        words=_table(document, "words", WordsFile),
    )
    for name, file in (("gaze", facts.gaze.file), ("words", facts.words.file)):
        if not file or file != PurePosixPath(file).name:
            raise BadUsageError(
                f"{DATASET_TOML}: {name}.file is {file!r}; give the name that the file has in each"
                " reading's folder"
            )
    _check_known("gaze.format", facts.gaze.format, trackers())
    _check_known("words.format", facts.words.format, recognisers())
    for name, unit in (("gaze", facts.gaze.time_unit), ("words", facts.words.time_unit)):
        _check_known(f"{name}.time_unit", unit, SECONDS)
    _check_columns("gaze.columns", facts.gaze.columns, _GAZE_COLUMNS)
    _check_columns("words.columns", facts.words.columns, ("text", "begin", "end", "duration"))
    _check_known("gaze.from", facts.gaze.from_, GAZE_FROM)
    if facts.gaze.eye:
        _check_known("gaze.eye", facts.gaze.eye, EYES)
    if facts.gaze.frame:
        _check_known("gaze.frame", facts.gaze.frame, FRAMES)
    return facts


def _table(document: dict[str, Any], name: str, kind: type[Table]) -> Table:
    """Make one table's class of it, each value of the type of its default."""
    entries = document.get(name, {})
    if not isinstance(entries, dict):
        raise BadUsageError(f"{DATASET_TOML}: {name} is no table; write [{name}] and its entries")
    made: dict[str, Any] = {}
    known = {field.rstrip("_"): field for field in kind._fields}  # `from` is Python's own word
    for key, value in entries.items():
        if key not in known:
            raise unknown_name(f"entry of [{name}] in {DATASET_TOML}", key, known)
        key = known[key]
        default = kind._field_defaults[key]
        if default is None:
            made[key] = _size(value, f"{name}.{key}")
        elif isinstance(default, str):
            made[key] = _text(value, f"{name}.{key}")
        elif isinstance(value, type(default)):
            made[key] = value
        else:
            raise BadUsageError(
                f"{DATASET_TOML}: {name}.{key} is {value!r}; give {default!r}'s kind"
            )
    return kind(**made)


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise BadUsageError(f'{DATASET_TOML}: {name} is {value!r}; give text, {name} = "..."')
    return value


def _size(value: object, name: str) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value < math.inf:  # type: ignore[operator]
        raise BadUsageError(f"{DATASET_TOML}: {name} is {value!r}; give a number above 0")
    return float(value)  # type: ignore[arg-type]


def _check_columns(name: str, columns: Mapping[str, object], known: Collection[str]) -> None:
    for ours, theirs in columns.items():
        _check_known(name, ours, known)
        _text(theirs, f"{name}.{ours}")


def _check_known(name: str, value: str, known: Any) -> None:
    if value not in known:
        raise unknown_name(f"{name} in {DATASET_TOML}", value, known)
