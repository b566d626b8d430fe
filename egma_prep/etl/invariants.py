"""What must hold of every written reading, computed anew from its rows. Pure; no files."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.errors import NOTES, BadInputError
from egma_prep.gaze.align import window_starts
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.options import Options
from egma_prep.shards.schema import SENTENCE, TABLES
from egma_prep.sources.check_reading import MENDED, check_reading
from egma_prep.sources.reading import Fixations, RawReading, RowsOfFile, Words

FloatArray = NDArray[np.float64]

_PEAK = 255
_SECONDS = 1e-5  # gaze_seconds is float32
_GRID = 1e-6
_WINDOW_S = 1e-4  # float32, and a sum over fixations
_FIXATION = ("begin", "end", "x", "y", "px_per_deg_x", "px_per_deg_y")
_CELL_PX = FRAME_PX // GRID_CELLS
_NO_FIXATIONS = TABLES["fixations"].empty_table()


def broken_rules(
    shard: dict[str, Any], tables: Mapping[str, pa.Table], options: Options
) -> Iterator[str]:
    """Say what does not hold of one reading.

    Parameters
    ----------
    shard : dict
        Its shard row.
    tables : mapping
        Its rows of each table.
    options : Options
        It was made with.
    """
    said = pa.Table.from_pylist(shard["sentences"], pa.schema(SENTENCE))
    yield from _times(tables)
    yield from _truth(shard, tables)
    yield from _windows(said, options)
    yield from _sentences(said, tables, options)
    yield from _maps(shard, options)
    if options.output.privacy:
        if tables["words"]["gaze_seconds"].null_count < len(tables["words"]):
            yield "words have gaze in spite of --privacy"
        return
    yield from _alignment(tables)
    yield from _gaze(shard, said, tables["fixations"], options)


def _times(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    for name in ("words", "fixations", "sentences"):
        if (
            name in tables
            and (_seconds(tables[name], "end") < _seconds(tables[name], "begin")).any()
        ):
            yield f"an interval of {name} ends before it begins"
    begin_s, end_s = _seconds(tables["words"], "begin"), _seconds(tables["words"], "end")
    if not begin_s.size or np.isnan(begin_s).any():  # a written report
        return
    first_s, last_s = (_seconds(tables["sentences"], name) for name in ("begin", "end"))
    numbers = tables["sentences"]["sentence_index"].to_numpy()
    for number in numbers[(first_s < begin_s.min()) | (last_s > end_s.max())]:
        yield f"sentence {number} lies outside the recording"


def _truth(shard: dict[str, Any], tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Ask whether the reading can be true, as the run did; it must leave nothing to mend."""
    fixations, words = tables.get("fixations", _NO_FIXATIONS), tables["words"]
    width, height = shard["width"], shard["height"]
    raw = RawReading(
        dataset=shard["dataset"],
        reading_id=shard["reading_id"],
        subject_id=shard["subject_id"],
        study_id=shard["study_id"],
        dicom_id=shard["dicom_id"],
        split=None,
        view=None,
        image_path="",
        width=width,
        height=height,
        fixations=Fixations(*(_seconds(fixations, name) for name in _FIXATION)),
        words=Words(words["text"].to_pylist(), _seconds(words, "begin"), _seconds(words, "end")),
        labels={},
        regions=[],
        fixation_rows=RowsOfFile("the fixations", "fixation {}".format),
        word_rows=RowsOfFile("the words", "word {}".format),
    )
    try:
        checked = check_reading(raw, (width, height))
    except BadInputError as error:
        yield str(error)
        return
    for name in MENDED:
        if checked.notes.get(name):
            yield f"{checked.notes[name]} {NOTES[name]}"


def _windows(said: pa.Table, options: Options) -> Iterator[str]:
    """Compare each window's gaze with its length: the eye rests at one place at a time."""
    begin_s, end_s = _seconds(said, "begin"), _seconds(said, "end")
    start_s = window_starts(begin_s, end_s, options.render.window, options.render.lead)
    gaze_s = _seconds(said, "gaze_seconds")
    for index in np.flatnonzero(gaze_s > end_s - start_s + _WINDOW_S):
        yield (
            f"sentence {index} has {gaze_s[index]:.3f} s of gaze in a window of"
            f" {end_s[index] - start_s[index]:.3f} s"
        )


def _sentences(said: pa.Table, tables: Mapping[str, pa.Table], options: Options) -> Iterator[str]:
    words, sentences = tables["words"], tables["sentences"]
    if words["word_index"].to_pylist() != [*range(len(words))]:
        yield "the words are not numbered from 0"
    first, last = sentences["first_word"].to_pylist(), sentences["last_word"].to_pylist()
    covered = [at for one, other in zip(first, last, strict=True) for at in range(one, other + 1)]
    if covered != [*range(len(words))]:
        yield "a word belongs to no sentence or to two"
        return
    begin, end = words["begin"].to_pylist(), words["end"].to_pylist()
    for index, theirs, one, other in zip(
        sentences["sentence_index"].to_pylist(),
        zip(sentences["begin"].to_pylist(), sentences["end"].to_pylist(), strict=True),
        first,
        last,
        strict=True,
    ):
        if theirs != (begin[one], end[other]):
            yield f"sentence {index} has other times than its words"
    if options.render.level == "sentence":
        facts = ["text", "begin", "end"]
        if not said.select(facts).equals(sentences.select(facts)):
            yield "the shard's sentences are not the table's"


def _maps(shard: dict[str, Any], options: Options) -> Iterator[str]:
    if len(shard["image"]) != FRAME_PX**2:
        yield "the image has another size"
    if shard["heatmap"] is not None and _peak(shard["heatmap"]) != _PEAK:
        yield "the reading's heatmap has another peak than 255"
    substituted = options.render.empty_sentence == "reading" and shard["heatmap"] is not None
    for index, sentence in enumerate(shard["sentences"]):
        has_map = sentence["heatmap"] is not None
        # Gaze beside what was shown, cut off there, leaves no map.
        may_lack = options.render.border == "shown" and not has_map
        if has_map != (sentence["gaze_seconds"] > 0 or substituted) and not may_lack:
            yield f"sentence {index} has {'a' if has_map else 'no'} heatmap"
        if has_map != (sentence["grid"] is not None):
            yield f"sentence {index} has a heatmap without a grid, or a grid without"
        elif has_map:
            yield from _map(index, sentence, options.render.normalise)


def _map(index: int, sentence: dict[str, Any], normalise: str) -> Iterator[str]:
    if _peak(sentence["heatmap"]) != _PEAK:
        yield f"the heatmap of sentence {index} has another peak than 255"
        return
    values = np.frombuffer(sentence["heatmap"], np.uint8).astype(np.float64)
    cells = values.reshape(GRID_CELLS, _CELL_PX, GRID_CELLS, _CELL_PX).mean(axis=(1, 3)) / _PEAK
    if normalise == "sum":
        cells /= cells.sum()
    if not np.allclose(cells.ravel(), sentence["grid"], rtol=0, atol=_GRID):
        yield f"the grid of sentence {index} is not its heatmap's"


def _alignment(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    words, fixations, pairs = tables["words"], tables["fixations"], tables["alignment"]
    overlap_s = _overlaps(words, fixations)  # (words, fixations)
    stored_s = np.zeros_like(overlap_s)
    word, fixation = pairs["word_index"].to_numpy(), pairs["fixation_index"].to_numpy()
    if not (
        (word >= 0) & (word < len(words)) & (fixation >= 0) & (fixation < len(fixations))
    ).all():
        yield "the alignment has words or fixations that are not there"
        return
    np.add.at(stored_s, (word, fixation), _seconds(pairs, "seconds"))
    if (stored_s > 0).sum() != len(pairs):
        yield "the alignment has a pair twice, or one without an overlap"
    if not np.allclose(stored_s, overlap_s, rtol=0, atol=_SECONDS):
        yield "the alignment is not the overlap of words and fixations"
    on_image = fixations["on_image"].fill_null(False).to_numpy()
    if not np.allclose(
        overlap_s[:, on_image].sum(axis=1), _seconds(words, "gaze_seconds"), atol=_SECONDS
    ):
        yield "gaze_seconds of words are not those of the alignment"


def _gaze(
    shard: dict[str, Any], said: pa.Table, fixations: pa.Table, options: Options
) -> Iterator[str]:
    """Compare gaze seconds; of windows with a lead or pauses only the sample rendered again."""
    on_image = fixations.filter(fixations["on_image"])
    looked_s = (_seconds(on_image, "end") - _seconds(on_image, "begin")).sum()
    may_lack = options.render.border == "shown" and shard["heatmap"] is None
    if (shard["heatmap"] is not None) != (looked_s > 0) and not may_lack:
        yield "a reading without gaze has a heatmap, or one with gaze has none"
    if options.render.window != "spoken" or options.render.lead:
        return
    wanted_s = _overlaps(said, on_image).sum(axis=1)
    if not np.allclose(wanted_s, _seconds(said, "gaze_seconds"), atol=1e-4):
        yield "gaze_seconds of sentences are not those of their fixations"


def _overlaps(intervals: pa.Table, fixations: pa.Table) -> FloatArray:
    """Seconds that intervals and fixations share, ``(n, k)``; none of unknown times."""
    begin_s = np.maximum.outer(_seconds(intervals, "begin"), _seconds(fixations, "begin"))
    end_s = np.minimum.outer(_seconds(intervals, "end"), _seconds(fixations, "end"))
    return np.nan_to_num(np.maximum(end_s - begin_s, 0))


def _seconds(table: pa.Table, name: str) -> FloatArray:
    return table[name].to_numpy().astype(np.float64, copy=False)  # null becomes NaN


def _peak(heatmap: bytes) -> int:
    return max(heatmap) if len(heatmap) == FRAME_PX**2 else -1
