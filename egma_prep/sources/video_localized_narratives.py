"""Video Localized Narratives: an actor's story told on key frames of a video (FORMATS, section 12).

The pointer goes to and fro between the frames. Each that it was on is a reading of its own: the
samples on it, and all words of the story, of which those said elsewhere have no gaze there.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any

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
from egma_prep.sources.reading import FloatArray, PlannedReading, RawReading
from egma_prep.sources.registry import SubjectPlan
from egma_prep.sources.transcripts import timed_words
from egma_prep.sources.values import number

NAME = "video_localized_narratives"
_LAYOUT = manifest("video-localized-narratives")["layout"]

_TIMES = ("start_ms", "end_ms")


class VideoLocalizedNarratives:
    """A video a line with its actors' stories, and the frames of its dataset."""

    name = NAME
    looks_like = '*.jsonl of lines with "actor_narratives"'
    colour = "luma"  # photographs

    def recognises(self, files: InputFiles) -> bool:
        """Look for a file of stories."""
        return bool(_paths(files))

    def plan(self, files: InputFiles) -> Iterable[SubjectPlan]:
        """Read on which frames every story was told."""
        lines = lines_of(files, _paths(files))
        return by_subject(plan for line, text in lines for plan in _plans(line, text))

    def load(
        self, planned: PlannedReading, files: InputFiles, options: SourceOptions
    ) -> RawReading:
        """Read a story's words, and its pointer on one frame."""
        record, where = record_of(planned, files)
        story = record["actor_narratives"][int(planned.row["story"])]
        pointer = _pointer(story, where)
        samples = pointer[pointer[:, 4] == int(planned.row["frame"]), :4]
        path = image_path(files, planned.row, _LAYOUT)
        return raw_reading(planned, files, timed_words(_said(story, where), where), samples, path)


SOURCE = VideoLocalizedNarratives()


def _paths(files: InputFiles) -> list[str]:
    def begins_so(path: str) -> bool:
        with suppress(BadInputError):
            return any(b'"actor_narratives"' in text for _, text in islice(files.lines(path), 1))
        return False

    return [path for path in files.matching("", _LAYOUT["narratives"]) if begins_so(path)]


def _plans(line: Line, text: bytes) -> Iterator[PlannedReading | Reject]:
    where = str(line)
    try:
        record = parsed(line, text)
        names = ("dataset_id", "video_id", "annotator_id")
        dataset, video, annotator = (str(value(record, one, str | int, where)) for one in names)
        frames = value(record, "keyframe_names", list, where)
        stories = value(record, "actor_narratives", list, where)
        if not stories:
            raise BadInputError("empty_transcript", where, f"{where} has no story")
    except BadInputError as error:
        yield Reject.of(error, NAME, "", "plan")
        return
    row = {"dataset": dataset, "video": video, "sha256": line.sha256}
    for at, story in enumerate(stories):
        told = (dataset, video, annotator, str(at))
        try:
            shown = sorted({*_pointer(story, where)[:, 4].tolist()})
            if unknown := [frame for frame in shown if frame not in range(len(frames))]:
                raise BadInputError("bad_number", where, f"{where} has no frame {unknown[0]:g}")
        except BadInputError as error:
            yield Reject.of(error, NAME, safe(*told), "plan")
            continue
        for frame in map(int, shown):
            image = str(frames[frame])
            yield PlannedReading(
                NAME,
                safe(dataset, video, image, annotator, str(at)),
                subject_id=safe(dataset, video),  # no split parts a video's frames
                study_id=safe(*told),
                dicom_id=safe(dataset, video, image),
                metadata_path=line.path,
                row=row | {"image": image, "story": str(at), "frame": str(frame)},
                line=line,
            )


def _pointer(story: object, where: str) -> FloatArray:
    """Read the samples of all frames, ``(n, 5)``: begin and end (s), x and y (shares), frame."""
    names = ("time_ms_since_epoch", "x", "y", "kf_idx")
    samples = trace(value(story, "traces", list, where), names, where)
    start = "recording_start_time_ms_since_epoch"
    start_ms = number(value(story, start, object, where), where, f"{where}, {start}")
    samples[:, :2] = (samples[:, :2] - start_ms) / 1000
    return samples


def _said(story: dict[str, Any], where: str) -> list[tuple[Any, float, float]]:
    """Give each word the caption up to the next: the words that have times lack punctuation."""
    timed = value(story, "time_alignment", list, where)
    words = [value(one, "referenced_word", str, where) for one in timed]
    caption, begins = story.get("caption"), [one.get("referenced_word_start_idx") for one in timed]
    if isinstance(caption, str) and all(isinstance(at, int) for at in begins):
        found = [caption[at : at + len(word)] for at, word in zip(begins, words, strict=True)]
        if words and found == words and all(a < b for a, b in pairwise([-1, *begins])):
            words = [caption[a:b] for a, b in pairwise([0, *begins[1:], len(caption)])]
    times_s = [
        [number(value(one, name, object, where), where, where) / 1000 for name in _TIMES]
        for one in timed
    ]
    return [(word, *times) for word, times in zip(words, times_s, strict=True)]
