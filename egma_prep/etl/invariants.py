"""What must hold of every written reading, computed anew from its rows. Pure; no files."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import NOTES, BadInputError
from egma_prep.gaze.align import window_starts
from egma_prep.gaze.frame import FRAME_PX
from egma_prep.gaze.heatmaps import GRID_CELLS
from egma_prep.options import Options
from egma_prep.shards.schema import Rows
from egma_prep.sources.check_reading import MENDED, check_reading
from egma_prep.sources.reading import Fixations, RawReading, RowsOfFile, Words

FloatArray = NDArray[np.float64]

_PEAK = 255
_SECONDS = 1e-5  # gaze_seconds is float32
_GRID = 1e-6
_WINDOW_S = 1e-4  # float32, and a sum over fixations
_FIXATION = ("begin", "end", "x", "y", "px_per_deg_x", "px_per_deg_y")
_CELL_PX = FRAME_PX // GRID_CELLS


def broken_rules(shard: dict[str, Any], rows: dict[str, Rows], options: Options) -> Iterator[str]:
    """Say what does not hold of one reading.

    Parameters
    ----------
    shard : dict
        Its shard row.
    rows : dict
        Its rows of each table.
    options : Options
        It was made with.
    """
    yield from _times(rows)
    yield from _truth(shard, rows)
    yield from _windows(shard, options)
    yield from _sentences(shard, rows, options)
    yield from _maps(shard, options)
    if options.output.privacy:
        if any(word["gaze_seconds"] is not None for word in rows["words"]):
            yield "words have gaze in spite of --privacy"
        return
    yield from _alignment(rows)
    yield from _gaze(shard, rows, options)


def _times(rows: dict[str, Rows]) -> Iterator[str]:
    for name in ("words", "fixations", "sentences"):
        begin_s, end_s = _seconds(rows.get(name, []), "begin"), _seconds(rows.get(name, []), "end")
        if (end_s < begin_s).any():
            yield f"an interval of {name} ends before it begins"
    begin_s, end_s = _seconds(rows["words"], "begin"), _seconds(rows["words"], "end")
    known = np.isfinite(begin_s)
    for sentence in rows["sentences"] if known.all() else []:
        if sentence["begin"] < begin_s.min() or sentence["end"] > end_s.max():
            yield f"sentence {sentence['sentence_index']} lies outside the recording"


def _truth(shard: dict[str, Any], rows: dict[str, Rows]) -> Iterator[str]:
    """Ask whether the reading can be true, as the run did; it must leave nothing to mend."""
    fixations, words = rows.get("fixations", []), rows["words"]
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
        words=Words(
            [word["text"] for word in words], _seconds(words, "begin"), _seconds(words, "end")
        ),
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


def _windows(shard: dict[str, Any], options: Options) -> Iterator[str]:
    """Compare each window's gaze with its length: the eye rests at one place at a time."""
    begin_s, end_s = _seconds(shard["sentences"], "begin"), _seconds(shard["sentences"], "end")
    start_s = window_starts(begin_s, end_s, options.render.window, options.render.lead)
    gaze_s = _seconds(shard["sentences"], "gaze_seconds")
    for index in np.flatnonzero(gaze_s > end_s - start_s + _WINDOW_S):
        yield (
            f"sentence {index} has {gaze_s[index]:.3f} s of gaze in a window of"
            f" {end_s[index] - start_s[index]:.3f} s"
        )


def _sentences(shard: dict[str, Any], rows: dict[str, Rows], options: Options) -> Iterator[str]:
    words, sentences = rows["words"], rows["sentences"]
    if [word["word_index"] for word in words] != [*range(len(words))]:
        yield "the words are not numbered from 0"
    covered = [
        index
        for sentence in sentences
        for index in range(sentence["first_word"], sentence["last_word"] + 1)
    ]
    if covered != [*range(len(words))]:
        yield "a word belongs to no sentence or to two"
        return
    for sentence in sentences:
        first, last = words[sentence["first_word"]], words[sentence["last_word"]]
        if (sentence["begin"], sentence["end"]) != (first["begin"], last["end"]):
            yield f"sentence {sentence['sentence_index']} has other times than its words"
    if options.render.level == "sentence":
        facts = ("text", "begin", "end")
        theirs = [[one[name] for name in facts] for one in shard["sentences"]]
        if theirs != [[one[name] for name in facts] for one in sentences]:
            yield "the shard's sentences are not the table's"


def _maps(shard: dict[str, Any], options: Options) -> Iterator[str]:
    if len(shard["image"]) != FRAME_PX**2:
        yield "the image has another size"
    if shard["heatmap"] is not None and _peak(shard["heatmap"]) != _PEAK:
        yield "the reading's heatmap has another peak than 255"
    substituted = options.render.empty_sentence == "reading" and shard["heatmap"] is not None
    for index, sentence in enumerate(shard["sentences"]):
        has_map = sentence["heatmap"] is not None
        if has_map != (sentence["gaze_seconds"] > 0 or substituted):
            yield f"sentence {index} has {'a' if has_map else 'no'} heatmap"
        if has_map != (sentence["grid"] is not None):
            yield f"sentence {index} has a heatmap without a grid, or a grid without"
        elif has_map:
            yield from _map(index, sentence)


def _map(index: int, sentence: dict[str, Any]) -> Iterator[str]:
    if _peak(sentence["heatmap"]) != _PEAK:
        yield f"the heatmap of sentence {index} has another peak than 255"
        return
    values = np.frombuffer(sentence["heatmap"], np.uint8).astype(np.float64)
    cells = values.reshape(GRID_CELLS, _CELL_PX, GRID_CELLS, _CELL_PX).mean(axis=(1, 3)) / _PEAK
    if not np.allclose(cells.ravel(), sentence["grid"], rtol=0, atol=_GRID):
        yield f"the grid of sentence {index} is not its heatmap's"


def _alignment(rows: dict[str, Rows]) -> Iterator[str]:
    words, fixations = rows["words"], rows["fixations"]
    overlap_s = _overlaps(words, fixations)  # (words, fixations)
    stored_s = np.zeros_like(overlap_s)
    pairs = [(pair["word_index"], pair["fixation_index"]) for pair in rows["alignment"]]
    if any(not (0 <= i < len(words) and 0 <= k < len(fixations)) for i, k in pairs):
        yield "the alignment has words or fixations that are not there"
        return
    for at, pair in zip(pairs, rows["alignment"], strict=True):
        stored_s[at] += pair["seconds"]
    if (stored_s > 0).sum() != len(rows["alignment"]):
        yield "the alignment has a pair twice, or one without an overlap"
    if not np.allclose(stored_s, overlap_s, rtol=0, atol=_SECONDS):
        yield "the alignment is not the overlap of words and fixations"
    on_image = np.array([one["on_image"] for one in fixations], dtype=np.bool_)
    if not np.allclose(
        overlap_s[:, on_image].sum(axis=1), _seconds(words, "gaze_seconds"), atol=_SECONDS
    ):
        yield "gaze_seconds of words are not those of the alignment"


def _gaze(shard: dict[str, Any], rows: dict[str, Rows], options: Options) -> Iterator[str]:
    """Compare gaze seconds; of windows with a lead or pauses only the sample rendered again."""
    on_image = [one for one in rows["fixations"] if one["on_image"]]
    looked_s = (_seconds(on_image, "end") - _seconds(on_image, "begin")).sum()
    if (shard["heatmap"] is not None) != (looked_s > 0):
        yield "a reading without gaze has a heatmap, or one with gaze has none"
    if options.render.window != "spoken" or options.render.lead:
        return
    wanted_s = _overlaps(shard["sentences"], on_image).sum(axis=1)
    if not np.allclose(wanted_s, _seconds(shard["sentences"], "gaze_seconds"), atol=1e-4):
        yield "gaze_seconds of sentences are not those of their fixations"


def _overlaps(intervals: Rows, fixations: Rows) -> FloatArray:
    """Seconds that intervals and fixations share, ``(n, k)``; none of unknown times."""
    begin_s = np.maximum.outer(_seconds(intervals, "begin"), _seconds(fixations, "begin"))
    end_s = np.minimum.outer(_seconds(intervals, "end"), _seconds(fixations, "end"))
    return np.nan_to_num(np.maximum(end_s - begin_s, 0))


def _seconds(rows: Rows, name: str) -> FloatArray:
    return np.array([row[name] for row in rows], dtype=np.float64)  # None becomes NaN


def _peak(heatmap: bytes) -> int:
    return max(heatmap) if len(heatmap) == FRAME_PX**2 else -1
