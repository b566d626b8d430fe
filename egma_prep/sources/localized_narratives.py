"""Localized Narratives: pictures described aloud, with a pointer's trace (FORMATS, section 12)."""

import re
from collections.abc import Iterable

from egma_prep.errors import BadInputError, Reject
from egma_prep.options import SourceOptions
from egma_prep.sources.files import InputFiles, Line
from egma_prep.sources.manifests import manifest
from egma_prep.sources.narratives import (
    lines_of,
    parsed,
    raw_reading,
    record_of,
    safe,
    trace,
    value,
)
from egma_prep.sources.pictures import image_path
from egma_prep.sources.planning import by_subject
from egma_prep.sources.reading import PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.transcripts import timed_words

NAME = "localized_narratives"
_LAYOUT = manifest("localized-narratives")["layout"]
_IDS = ("dataset_id", "image_id", "annotator_id")
# How a released line begins. Parsing all of a million lines to list them would take ten minutes.
_BEGIN = re.compile(
    rb'\s*\{\s*"dataset_id":\s*"([\w.-]+)",\s*"image_id":\s*"([\w.-]+)",\s*"annotator_id":\s*(\d+),'
)


class LocalizedNarratives:
    """A narrative a line, and the pictures of its dataset."""

    name = NAME
    looks_like = _LAYOUT["narratives"]
    colour = "luma"  # photographs

    def recognises(self, files: InputFiles) -> bool:
        """Look for a file of narratives."""
        return bool(files.matching("", _LAYOUT["narratives"]))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read the ids of every line; what it says is read again for its reading."""
        paths = files.matching("", _LAYOUT["narratives"])
        return by_subject(_plan(*line) for line in lines_of(files, paths))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read a line's words and trace."""
        record, where = record_of(planned, files)
        if safe(*_ids(record, where)) != planned.reading_id:
            raise BadInputError("bad_json", where, f"{where} has other ids further on")
        said = value(record, "timed_caption", list, where)
        times = ("utterance", "start_time", "end_time")
        phrases = [[value(one, name, object, where) for name in times] for one in said]
        samples = trace(value(record, "traces", list, where), ("t", "x", "y"), where)
        path = image_path(files, planned.row, _LAYOUT)
        return raw_reading(planned, files, timed_words(phrases, where), samples, path)


SOURCE = LocalizedNarratives()


def _plan(line: Line, text: bytes) -> PlannedReading | Reject:
    try:
        begin = _BEGIN.match(text)
        dataset, image, annotator = (
            [one.decode() for one in begin.groups()]
            if begin
            else _ids(parsed(line, text), str(line))
        )
    except BadInputError as error:
        return Reject.of(error, NAME, "", "plan")
    row = {"dataset": dataset, "image": image, "sha256": line.sha256}
    shown, reading = safe(dataset, image), safe(dataset, image, annotator)
    # All that is known of an image's origin is the image: what it shows stays in one split.
    return PlannedReading(NAME, reading, shown, reading, shown, line.path, row, line=line)


def _ids(record: object, where: str) -> list[str]:
    return [str(value(record, name, str | int, where)) for name in _IDS]
