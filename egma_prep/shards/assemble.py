"""One reading's gaze, words and image to its columns: align, cut, render. Pure; no files."""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.align import overlap_seconds, window_starts
from egma_prep.gaze.frame import Frame
from egma_prep.gaze.heatmaps import Heatmap, Kernels, kernels, rendered_map
from egma_prep.gaze.sentences import SentenceSpan, is_word, join_words, sentence_spans
from egma_prep.options import Options, RenderOptions
from egma_prep.shards.schema import Columns
from egma_prep.sources.reading import FloatArray, RawReading, Region, Words


class FramedImage(NamedTuple):
    """An image in its frame, the size it had, and which of `errors.NOTES` are true of it."""

    frame: Frame
    values: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gaze:
    """Fixations in both frames, ``(n,)`` each."""

    begin_s: FloatArray
    end_s: FloatArray
    x_px: FloatArray
    y_px: FloatArray
    x_224: FloatArray
    y_224: FloatArray
    on_image: NDArray[np.bool_]
    px_per_deg_x: FloatArray
    px_per_deg_y: FloatArray


class Passage(NamedTuple):
    """What gets a map of its own: a sentence, or a word."""

    text: str
    begin_s: float
    end_s: float
    words: int


def reading_columns(raw: RawReading, image: FramedImage, options: Options) -> dict[str, Columns]:
    """Make all that is written of one reading.

    Parameters
    ----------
    raw : RawReading
        In pixels of the image that its metadata describe.
    image : FramedImage
        The image as it is; where its size differs, points are rescaled linearly.

    Returns
    -------
    dict
        Columns by table name, and under ``shard`` the shard's.
    """
    frame = image.frame
    scale = frame.width / raw.width, frame.height / raw.height
    gaze = _gaze_in_frame(raw, frame, scale)
    spans = sentence_spans(
        raw.words.text,
        raw.words.begin_s.tolist(),
        raw.words.end_s.tolist(),
        options.sentences.pause_s,
        raw.paragraphs,
    )
    seconds = overlap_seconds(raw.words.begin_s, raw.words.end_s, gaze.begin_s, gaze.end_s)
    facts = {
        "dataset": raw.dataset,
        "reading_id": raw.reading_id,
        "subject_id": raw.subject_id,
        "study_id": raw.study_id,
        "dicom_id": raw.dicom_id,
        "split": raw.split,
        "view": raw.view,
        "width": frame.width,
        "height": frame.height,
    }
    shard = {
        **facts,
        "image": image.values.tobytes(),
        **rendered(gaze, raw.words, spans, frame, options.render),
        "labels": sorted(raw.labels.items()),
        "regions": [_region_in_frame(region, frame, scale)._asdict() for region in raw.regions],
    }
    tables = {
        "words": _word_columns(raw.words, spans, seconds[:, gaze.on_image].sum(axis=1)),
        "fixations": _fixation_columns(gaze),
        "alignment": _alignment_columns(seconds),
        "sentences": _sentence_columns(raw.words, spans),
    }
    for columns in tables.values():
        rows = len(next(iter(columns.values())))
        columns |= {"dataset": [raw.dataset] * rows, "reading_id": [raw.reading_id] * rows}
    row_of = {"readings": facts | _counts(gaze, raw.words, spans), "shard": shard}
    return tables | {
        name: {column: [value] for column, value in row.items()} for name, row in row_of.items()
    }


def _gaze_in_frame(raw: RawReading, frame: Frame, scale: tuple[float, float]) -> Gaze:
    """Place fixations in the image and in its frame; only 0 <= x < W, 0 <= y < H is on it."""
    fixations = raw.fixations
    x_px, y_px = _rescaled(fixations.x_px, scale[0]), _rescaled(fixations.y_px, scale[1])
    across = (fixations.x_px >= 0) & (fixations.x_px < raw.width)
    down = (fixations.y_px >= 0) & (fixations.y_px < raw.height)
    return Gaze(
        begin_s=fixations.begin_s,
        end_s=fixations.end_s,
        x_px=x_px,
        y_px=y_px,
        x_224=frame.x(x_px),
        y_224=frame.y(y_px),
        on_image=across & down,
        px_per_deg_x=fixations.px_per_deg_x * scale[0],
        px_per_deg_y=fixations.px_per_deg_y * scale[1],
    )


def _rescaled(px: FloatArray, scale: float) -> FloatArray:
    """Move points to an image of another size than the metadata's, pixel centres at integers."""
    return px if scale == 1 else (px + 0.5) * scale - 0.5


def rendered(
    gaze: Gaze, words: Words, spans: list[SentenceSpan], frame: Frame, options: RenderOptions
) -> dict[str, Any]:
    """Render the shard's columns that come from gaze: ``heatmap`` and ``sentences``."""
    seen = gaze.on_image
    begin_s, end_s = gaze.begin_s[seen], gaze.end_s[seen]
    kernel = kernels(
        gaze.x_224[seen], gaze.y_224[seen], *_sigma_px(gaze, seen, frame, options), options.truncate
    )
    whole = rendered_map(kernel, end_s - begin_s)
    passages = _passages(words, spans, options.level)
    ends = np.array([passage.end_s for passage in passages])
    begins = np.array([passage.begin_s for passage in passages])
    starts = window_starts(begins, ends, options.window, options.lead)
    weight_s = overlap_seconds(starts, ends, begin_s, end_s)  # (m, k)
    substitute = whole if options.empty_sentence == "reading" else None
    return {
        "heatmap": whole.values.tobytes() if whole else None,
        "sentences": [
            _shard_sentence(passage, kernel, weight, substitute)
            for passage, weight in zip(passages, weight_s, strict=True)
        ],
    }


def _shard_sentence(
    passage: Passage, kernel: Kernels, weight_s: FloatArray, substitute: Heatmap | None
) -> dict[str, Any]:
    own = rendered_map(kernel, weight_s) or substitute
    return {
        "text": passage.text,
        "begin": _known(passage.begin_s),
        "end": _known(passage.end_s),
        "words": passage.words,
        "fixations": int((weight_s > 0).sum()),
        "gaze_seconds": float(weight_s.sum()),
        "heatmap": own.values.tobytes() if own else None,
        "peak_seconds": own.peak_seconds if own else None,
        "grid": own.grid if own else None,
    }


def _sigma_px(
    gaze: Gaze, seen: NDArray[np.bool_], frame: Frame, options: RenderOptions
) -> tuple[FloatArray, FloatArray]:
    if options.sigma_in_degrees:
        if np.isnan(gaze.px_per_deg_x[seen]).any() or np.isnan(gaze.px_per_deg_y[seen]).any():
            what = f"sigma is {options.sigma}, and pixels a degree are not known of all its gaze"
            raise BadInputError("no_degrees", "", what)
        return (
            options.sigma_value * gaze.px_per_deg_x[seen] * frame.scale_x,
            options.sigma_value * gaze.px_per_deg_y[seen] * frame.scale_y,
        )
    sigma_px = np.full(int(seen.sum()), options.sigma_value)
    return sigma_px, sigma_px


def _passages(words: Words, spans: list[SentenceSpan], level: str) -> list[Passage]:
    if level == "word":
        spans = [SentenceSpan(i, i) for i, text in enumerate(words.text) if is_word(text)]
    return [
        Passage(
            join_words(words.text[first : last + 1]),
            float(words.begin_s[first]),
            float(words.end_s[last]),
            sum(map(is_word, words.text[first : last + 1])),
        )
        for first, last in spans
    ]


def _region_in_frame(region: Region, frame: Frame, scale: tuple[float, float]) -> Region:
    x = frame.x(_rescaled(np.array([region.x0, region.x1]), scale[0]))
    y = frame.y(_rescaled(np.array([region.y0, region.y1]), scale[1]))
    return region._replace(x0=float(x[0]), y0=float(y[0]), x1=float(x[1]), y1=float(y[1]))


def _counts(gaze: Gaze, words: Words, spans: list[SentenceSpan]) -> dict[str, Any]:
    return {
        "sentences": len(spans),
        "words": sum(map(is_word, words.text)),
        "fixations": len(gaze.begin_s),
        "fixations_on_image": int(gaze.on_image.sum()),
        "gaze_seconds": float((gaze.end_s - gaze.begin_s)[gaze.on_image].sum()),
    }


def _word_columns(words: Words, spans: list[SentenceSpan], gaze_seconds: FloatArray) -> Columns:
    sentence = np.repeat(np.arange(len(spans)), [last - first + 1 for first, last in spans])
    return {
        "word_index": list(range(len(words.text))),
        "text": words.text,
        "begin": list(map(_known, words.begin_s.tolist())),
        "end": list(map(_known, words.end_s.tolist())),
        "sentence_index": sentence.tolist(),
        "gaze_seconds": gaze_seconds.tolist(),
    }


def _fixation_columns(gaze: Gaze) -> Columns:
    names = {"begin_s": "begin", "end_s": "end", "x_px": "x", "y_px": "y"}
    columns = {
        names.get(one.name, one.name): getattr(gaze, one.name).tolist() for one in fields(gaze)
    }
    for name in ("px_per_deg_x", "px_per_deg_y"):
        columns[name] = list(map(_known, columns[name]))
    return {"fixation_index": list(range(len(gaze.begin_s))), **columns}


def _alignment_columns(seconds: FloatArray) -> Columns:
    word, fixation = np.nonzero(seconds)
    return {
        "word_index": word.tolist(),
        "fixation_index": fixation.tolist(),
        "seconds": seconds[word, fixation].tolist(),
    }


def _sentence_columns(words: Words, spans: list[SentenceSpan]) -> Columns:
    passages = _passages(words, spans, "sentence")
    return {
        "sentence_index": list(range(len(spans))),
        "text": [passage.text for passage in passages],
        "begin": [_known(passage.begin_s) for passage in passages],
        "end": [_known(passage.end_s) for passage in passages],
        "first_word": [span.first_word for span in spans],
        "last_word": [span.last_word for span in spans],
    }


def _known(value: float) -> float | None:
    """Store as null the times that a written report lacks, and degrees of an unknown screen."""
    return None if math.isnan(value) else value
