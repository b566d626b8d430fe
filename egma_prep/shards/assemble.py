"""One reading's gaze, words and image to its columns: align, cut, render. Pure; no files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from egma_prep.errors import BadInputError
from egma_prep.gaze.align import overlap_seconds, window_starts
from egma_prep.gaze.frame import Frame
from egma_prep.gaze.heatmaps import Heatmap, mirrored, rendered_maps, within
from egma_prep.gaze.kernels import kernel
from egma_prep.gaze.sentences import SentenceSpan, is_word, join_words, sentence_spans
from egma_prep.options import Options, RenderOptions
from egma_prep.shards.schema import Columns
from egma_prep.sources.manifests import vocabulary
from egma_prep.sources.reading import FloatArray, RawReading, Words

_STORED = {"begin_s": "begin", "end_s": "end", "x_px": "x", "y_px": "y"}
"""Names of columns where they are not the field's."""
_SHOWN = ("shown_x0", "shown_y0", "shown_x1", "shown_y1")
_PERHAPS_UNKNOWN = ("px_per_deg_x", "px_per_deg_y", *_SHOWN)


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
    shown_x0: FloatArray
    shown_y0: FloatArray
    shown_x1: FloatArray
    shown_y1: FloatArray

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
        **with_mentions(rendered(gaze, raw.words, spans, frame, options.render), options.render),
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
            **{name: _known(getattr(gaze, name)) for name in _PERHAPS_UNKNOWN},
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
    begin_s, end_s, x_px, y_px, px_per_deg_x, px_per_deg_y, shown_px = raw.fixations
    if shown_px is None:
        shown_px = np.tile([0.0, 0.0, raw.width, raw.height], (len(x_px), 1))
    across, down = frame.width / raw.width, frame.height / raw.height
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
        px_per_deg_x=px_per_deg_x * across,
        px_per_deg_y=px_per_deg_y * down,
        **dict(zip(_SHOWN, (shown_px * [across, down, across, down]).T, strict=True)),
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
    """Render the shard's columns that come from gaze: ``heatmap`` and ``sentences``.

    What sentences mention is not among them (see `with_mentions`): no choice of a map changes it.
    """
    seen = gaze.on_image
    begin_s, end_s = gaze.begin_s[seen], gaze.end_s[seen]
    if options.level == "word":
        spans = [SentenceSpan(i, i) for i, text in enumerate(words.text) if is_word(text)]
    said = _passages(words, spans)
    starts_s = window_starts(said.begin_s, said.end_s, options.window, options.lead)
    weight_s = overlap_seconds(starts_s, said.end_s, begin_s, end_s)  # (m, k)
    weights = np.vstack([end_s - begin_s, weight_s])
    if options.weights == "count":
        weights = (weights > 0).astype(np.float64)
    whole, *maps = _maps(gaze, frame, weights, options)
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


def with_mentions(
    made: dict[str, Any], options: RenderOptions, known: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Add to rendered sentences what they mention; single words tell nothing.

    Parameters
    ----------
    known : mapping, optional
        Mentions by sentence, where a shard tells them already: another version of the vocabulary
        may tell others, and a rendering is to change maps alone.
    """
    for one in made["sentences"]:
        text, is_sentence = one["text"], options.level == "sentence"
        told = (known or {}).get(text) if is_sentence else None
        one["mentions"] = _mentions(text) if is_sentence and told is None else told
    return made


@lru_cache(maxsize=2**14)  # denials repeat
def _mentions(text: str) -> list[dict[str, Any]]:
    return [one._asdict() for one in vocabulary().mentions(text)]


def _maps(
    gaze: Gaze, frame: Frame, weights: FloatArray, options: RenderOptions
) -> list[Heatmap | None]:
    """Render a map for each row of weights, ``(m, k)`` of the k fixations on the image."""
    seen = gaze.on_image
    x_px, y_px = gaze.x_224[seen], gaze.y_224[seen]
    sigma_px = _sigma_px(gaze, frame, options)
    edges_px = frame.x(np.array([0, frame.width]) - 0.5), frame.y(np.array([0, frame.height]) - 0.5)
    if options.border == "mirror":
        x_px, y_px = mirrored(x_px, y_px, *edges_px)
        sigma_px, weights = np.tile(sigma_px, 9), np.tile(weights, 9)
    made = kernel(options.kernel).footprints(x_px, y_px, sigma_px[0], sigma_px[1], options.truncate)
    if options.border == "mirror":
        x_edges_px, y_edges_px = (np.tile(one, (len(x_px), 1)) for one in edges_px)
        made = within(made, x_edges_px, y_edges_px)
    elif options.border == "shown":
        x0, y0, x1, y1 = (getattr(gaze, name)[seen] - 0.5 for name in _SHOWN)  # edges of pixels
        if np.isnan([x0, y0, x1, y1]).any():
            what = "border is shown, and what was on the screen is not known of all its gaze"
            raise BadInputError("no_shown", "", what)
        x_edges_px, y_edges_px = np.stack([x0, x1], axis=1), np.stack([y0, y1], axis=1)
        made = within(made, frame.x(x_edges_px), frame.y(y_edges_px))
    return rendered_maps(made, weights, options.normalise)


def _sigma_px(gaze: Gaze, frame: Frame, options: RenderOptions) -> FloatArray:
    """Bring sigma to frame pixels of each fixation on the image, ``(2, k)``: across, down."""
    sigma, unit = options.sigma_and_unit
    seen = gaze.on_image
    if unit == "":
        return np.full((2, int(seen.sum())), sigma)
    scale = np.array([[frame.scale_x], [frame.scale_y]])
    if unit == "imagepx":
        return np.broadcast_to(sigma * scale, (2, int(seen.sum())))
    per_degree = np.stack([gaze.px_per_deg_x[seen], gaze.px_per_deg_y[seen]])
    if np.isnan(per_degree).any():
        what = f"sigma is {options.sigma}, and pixels a degree are not known of all its gaze"
        raise BadInputError("no_degrees", "", what)
    return sigma * per_degree * scale


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
