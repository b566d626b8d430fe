"""One reading's gaze, words and image to its columns: align, cut, render. Pure; no files."""

import math
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.align import overlap_seconds, window_starts
from egma_prep.gaze.frame import Frame
from egma_prep.gaze.heatmaps import kernels, rendered_maps
from egma_prep.gaze.sentences import SentenceSpan, is_word, join_words, sentence_spans
from egma_prep.options import Options, RenderOptions
from egma_prep.shards.schema import Columns
from egma_prep.sources.reading import FloatArray, RawReading, Words

_STORED = {"begin_s": "begin", "end_s": "end", "x_px": "x", "y_px": "y"}
"""Names of columns where they are not the field's."""


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

    @classmethod
    def of(cls, fixations: pa.Table) -> "Gaze":
        """Take it from a reading's rows of the table of fixations."""
        names = {one.name: _STORED.get(one.name, one.name) for one in fields(cls)}
        return cls(**{name: fixations[stored].to_numpy() for name, stored in names.items()})


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
    gaze = _gaze_in_frame(raw, frame)
    spans = sentence_spans(
        raw.words.text,
        raw.words.begin_s.tolist(),
        raw.words.end_s.tolist(),
        options.sentences.pause_s,
        raw.paragraphs,
    )
    seconds = overlap_seconds(raw.words.begin_s, raw.words.end_s, gaze.begin_s, gaze.end_s)
    word, fixation = np.nonzero(seconds)
    sentences = _passages(raw.words, spans)
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
        "regions": _regions_in_frame(raw, frame),
    }
    reading = {
        **facts,
        "sentences": len(spans),
        "words": sum(map(is_word, raw.words.text)),
        "fixations": len(gaze.begin_s),
        "fixations_on_image": int(gaze.on_image.sum()),
        "gaze_seconds": float((gaze.end_s - gaze.begin_s)[gaze.on_image].sum()),
    }
    tables: dict[str, Columns] = {
        "words": {
            "word_index": list(range(len(raw.words.text))),
            "text": raw.words.text,
            "begin": _known(raw.words.begin_s),
            "end": _known(raw.words.end_s),
            "sentence_index": [
                at for at, (first, last) in enumerate(spans) for _ in range(first, last + 1)
            ],
            "gaze_seconds": seconds[:, gaze.on_image].sum(axis=1).tolist(),
        },
        "fixations": {
            "fixation_index": list(range(len(gaze.begin_s))),
            **{_STORED.get(name, name): column.tolist() for name, column in vars(gaze).items()},
            "px_per_deg_x": _known(gaze.px_per_deg_x),
            "px_per_deg_y": _known(gaze.px_per_deg_y),
        },
        "alignment": {
            "word_index": word.tolist(),
            "fixation_index": fixation.tolist(),
            "seconds": seconds[word, fixation].tolist(),
        },
        "sentences": {
            "sentence_index": list(range(len(spans))),
            "text": sentences.text,
            "begin": _known(sentences.begin_s),
            "end": _known(sentences.end_s),
            "first_word": [span.first_word for span in spans],
            "last_word": [span.last_word for span in spans],
        },
    }
    for columns in tables.values():
        rows = len(next(iter(columns.values())))
        columns |= {"dataset": [raw.dataset] * rows, "reading_id": [raw.reading_id] * rows}
    return tables | {
        name: {column: [value] for column, value in row.items()}
        for name, row in (("readings", reading), ("shard", shard))
    }


def _gaze_in_frame(raw: RawReading, frame: Frame) -> Gaze:
    """Place fixations in the image and in its frame; only 0 <= x < W, 0 <= y < H is on it."""
    begin_s, end_s, x_px, y_px, px_per_deg_x, px_per_deg_y = raw.fixations
    on_image = (x_px >= 0) & (x_px < raw.width) & (y_px >= 0) & (y_px < raw.height)
    x_px, y_px = _rescaled(raw, frame, x_px, y_px)
    return Gaze(
        begin_s=begin_s,
        end_s=end_s,
        x_px=x_px,
        y_px=y_px,
        x_224=frame.x(x_px),
        y_224=frame.y(y_px),
        on_image=on_image,
        px_per_deg_x=px_per_deg_x * (frame.width / raw.width),
        px_per_deg_y=px_per_deg_y * (frame.height / raw.height),
    )


def _rescaled(
    raw: RawReading, frame: Frame, x_px: FloatArray, y_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Move points to an image of another size than the metadata's, pixel centres at integers."""
    across, down = frame.width / raw.width, frame.height / raw.height
    return (
        x_px if across == 1 else (x_px + 0.5) * across - 0.5,
        y_px if down == 1 else (y_px + 0.5) * down - 0.5,
    )


def _regions_in_frame(raw: RawReading, frame: Frame) -> list[dict[str, Any]]:
    corners = np.array([one[2:6] for one in raw.regions], dtype=np.float64).reshape(-1, 2, 2)
    x_px, y_px = _rescaled(raw, frame, corners[..., 0], corners[..., 1])  # (n, 2) each
    placed = np.stack([frame.x(x_px), frame.y(y_px)], axis=-1).reshape(-1, 4)
    sides = [dict(zip(("x0", "y0", "x1", "y1"), one, strict=True)) for one in placed.tolist()]
    return [one._asdict() | at for one, at in zip(raw.regions, sides, strict=True)]


def rendered(
    gaze: Gaze, words: Words, spans: list[SentenceSpan], frame: Frame, options: RenderOptions
) -> dict[str, Any]:
    """Render the shard's columns that come from gaze: ``heatmap`` and ``sentences``."""
    seen = gaze.on_image
    begin_s, end_s = gaze.begin_s[seen], gaze.end_s[seen]
    sigma, in_degrees = options.sigma_and_unit
    sigma_x, sigma_y = np.full((2, len(begin_s)), sigma)  # frame pixels
    if in_degrees:
        if np.isnan([gaze.px_per_deg_x[seen], gaze.px_per_deg_y[seen]]).any():
            what = f"sigma is {options.sigma}, and pixels a degree are not known of all its gaze"
            raise BadInputError("no_degrees", "", what)
        sigma_x = sigma * gaze.px_per_deg_x[seen] * frame.scale_x
        sigma_y = sigma * gaze.px_per_deg_y[seen] * frame.scale_y
    if options.level == "word":
        spans = [SentenceSpan(i, i) for i, text in enumerate(words.text) if is_word(text)]
    said = _passages(words, spans)
    starts_s = window_starts(said.begin_s, said.end_s, options.window, options.lead)
    weight_s = overlap_seconds(starts_s, said.end_s, begin_s, end_s)  # (m, k)
    kernel = kernels(gaze.x_224[seen], gaze.y_224[seen], sigma_x, sigma_y, options.truncate)
    whole, *maps = rendered_maps(kernel, np.vstack([end_s - begin_s, weight_s]))
    if options.empty_sentence == "reading":
        maps = [own or whole for own in maps]
    sentences = {
        "text": said.text,
        "begin": _known(said.begin_s),
        "end": _known(said.end_s),
        "words": [sum(map(is_word, words.text[first : last + 1])) for first, last in spans],
        "fixations": (weight_s > 0).sum(axis=1).tolist(),
        "gaze_seconds": [float(one.sum()) for one in weight_s],
        "heatmap": [own and own.values.tobytes() for own in maps],
        "peak_seconds": [own and own.peak_seconds for own in maps],
        "grid": [own and own.grid for own in maps],
    }
    return {
        "heatmap": whole and whole.values.tobytes(),
        "sentences": [
            dict(zip(sentences, one, strict=True)) for one in zip(*sentences.values(), strict=True)
        ],
    }


class _Passages(NamedTuple):
    """What gets a map of its own, ``(m,)``: sentences, or words."""

    text: list[str]
    begin_s: FloatArray
    end_s: FloatArray


def _passages(words: Words, spans: list[SentenceSpan]) -> _Passages:
    first, last = np.array(spans, dtype=np.intp).reshape(-1, 2).T
    text = [join_words(words.text[begin : end + 1]) for begin, end in spans]
    return _Passages(text, words.begin_s[first], words.end_s[last])


def _known(values: FloatArray) -> list[float | None]:
    """Store as nulls the times that a written report lacks, and degrees of an unknown screen."""
    return [None if math.isnan(value) else value for value in values.tolist()]
