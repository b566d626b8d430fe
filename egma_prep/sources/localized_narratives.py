"""Localized Narratives: pictures described aloud, with a pointer's trace (FORMATS, section 12)."""

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
        said = value(record, "timed_caption", list, where)
        times = ("utterance", "start_time", "end_time")
        phrases = [[value(one, name, object, where) for name in times] for one in said]
        samples = trace(value(record, "traces", list, where), ("t", "x", "y"), where)
        path = image_path(files, planned.row, _LAYOUT)
        return raw_reading(planned, files, timed_words(phrases, where), samples, path)


SOURCE = LocalizedNarratives()


def _plan(line: Line, text: bytes) -> PlannedReading | Reject:
    where = str(line)
    try:
        record = parsed(line, text)
        names = ("dataset_id", "image_id", "annotator_id")
        dataset, image, annotator = (str(value(record, one, str | int, where)) for one in names)
        row = {"dataset": dataset, "image": image, "sha256": line.sha256}
        shown, reading = safe(dataset, image), safe(dataset, image, annotator)
        # All that is known of an image's origin is the image: what it shows stays in one split.
        return PlannedReading(NAME, reading, shown, reading, shown, line.path, row, line=line)
    except BadInputError as error:
        return Reject.of(error, NAME, "", "plan")
