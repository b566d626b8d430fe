"""Whether a reading can be true as a whole: rows once, times forward, gaze that fits its image.

Every value of a file may be fine and the reading still impossible: rows that stand twice double the
gaze, times in other units stretch it, an image that was padded moves it. What cannot be is rejected
by name; what is merely odd is counted (`errors.NOTES`). Pure; no files.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, groupby, pairwise

import numpy as np

from egma_prep.errors import BadInputError
from egma_prep.sources.reading import (
    Fixations,
    FloatArray,
    RawReading,
    Region,
    RowsOfFile,
    Size,
    Words,
)
from egma_prep.sources.values import LONGEST_S

# A tracker of 60 Hz (EYE GAZE's) sees every 17 ms, REFLACX rounds to 1 ms, EYE GAZE's sum of a
# rounded start and a rounded duration to 0.02 ms: fixations that share less are neighbours, cut
# where the next begins. Nothing between that and a blink (100 ms) is known to make them overlap.
_SAMPLE_S = 0.02
_ROUNDING_S = 0.001
# Times of two decimals, an end the sum of two such: no two fixations of a place share both ends.
_COPY_S, _COPY_PX = 0.01 + 1e-9, 1 + 1e-9
# EYE GAZE's word times are multiples of 0.1 s, REFLACX's of 0.01 s; no syllable is shorter.
_WORD_STEP_S = 0.1
# Words of a recording overlap by that step at most, and few are said twice ("the the"). Of a table
# that stands twice nearly all words have a twin; a few lose theirs to rounding. One pair is chance.
_TWINNED, _ONE_PAIR = 0.8, 2
# The eye moves or blinks several times a minute and no word lasts one; milliseconds taken as
# seconds make minutes of everything.
_LONGEST_S = 60.0

# A fixation lasts 50 ms and more, a word 100: ten of a twentieth of that are another unit.
_SHORTEST_MEAN_S, _ENOUGH = 0.005, 10
# Shares and coordinates of a frame of some hundred pixels lie in the corner at the origin. Ten
# looks into a sixty-fourth of a chest X-ray that shows an arm at most, or into its outermost
# hundredth, are nobody's reading of it; a single finding looked at, or zoomed, lies further in.
_CORNER, _EDGE, _FEW = 1 / 8 - 1e-9, 1 / 100 - 1e-9, 3
# Odd: all gaze in a quarter of the image, or in a patch of it; words or gaze far longer.
_QUARTER, _PATCH, _TIMES_LONGER = 1 / 2, 1 / 4, 5.0
# Times count from the recording's start, or from when the image was shown: earlier gaze is rounding
# at most, or a clock that was shifted.
_EARLY_S = 1.0
_REGION_PX = 1.0
_CANVAS_ERROR = 0.02  # of EYE GAZE's pads, whose rounding is known from code alone

MENDED = (
    "fixation_rows_twice",
    "rows_of_growing_fixations",
    "fixations_cut",
    "words_twice",
    "words_moved_forward",
)
"""Notes of what was mended: of a reading that is written, none is left to be made."""


def check_reading(raw: RawReading, image_px: Size) -> RawReading:
    """Leave out of a reading what stands twice and note what is odd; reject what cannot be.

    What is returned passes again as it is, and so do the rows that are written of it, which is how
    `verify` calls this. Sentence windows cut from it hold no more gaze than their seconds.

    Parameters
    ----------
    raw : RawReading
        Made by any source.
    image_px : tuple of int
        Width and height of the image file.

    Raises
    ------
    BadInputError
        If it cannot be true, naming the file, the row and the numbers.
    """
    fixations, fixation_notes = _fixations_in_order(raw.fixations, raw.fixation_rows)
    words, word_notes = _words_in_order(raw.words, raw.word_rows)
    regions, region_notes = _regions_once(raw)
    checked = replace(raw, fixations=fixations, words=words, regions=regions)
    _check_whole(checked)
    # Shares of pixel areas, -0.5 to W - 0.5, are the same after an image was resized.
    x = (fixations.x_px + 0.5) / raw.width
    y = (fixations.y_px + 0.5) / raw.height
    on_image = (x >= 0) & (x < 1) & (y >= 0) & (y < 1)
    if len(fixations.begin_s):  # an image without gaze needs no place for it
        _check_aspect(checked, image_px)
        _check_corner(checked, x[on_image], y[on_image])
    odd = _odd(checked, image_px, x[on_image], y[on_image])
    found = fixation_notes | word_notes | odd
    region_notes |= {"tables_perhaps_cut": raw.fixation_rows.is_cut + raw.word_rows.is_cut}
    told = {name: raw.notes.get(name, 0) + more for name, more in region_notes.items()}
    return replace(checked, notes={**raw.notes, **found, **told})


# -- fixations ------------------------------------------------------------------------------------


def _fixations_in_order(fixations: Fixations, rows: RowsOfFile) -> tuple[Fixations, dict[str, int]]:
    """Keep one row a fixation, and end each where the next begins."""
    if not len(fixations.begin_s):
        return fixations, {}
    repeats, last = _once(fixations)
    kept = fixations.take(last)
    begin_s, end_s = kept.begin_s, kept.end_s
    _check_lengths(begin_s, end_s, rows, last)
    until_s = np.maximum.accumulate(end_s)
    early = np.flatnonzero(begin_s[1:] < until_s[:-1] - _SAMPLE_S) + 1
    if early.size:
        at = int(early[0])
        before = int(np.argmax(end_s[:at]))
        what = (
            f"{rows.place(last[at])} begins at {begin_s[at]:g} s, but"
            f" {rows.place(last[before])} runs from {begin_s[before]:g} to {end_s[before]:g} s"
        )
        if begin_s[at] < begin_s[at - 1] - _SAMPLE_S:
            raise BadInputError("reversed_time", rows.path, what)
        raise BadInputError("overlapping_fixations", rows.path, what)
    begin_s = np.maximum.accumulate(begin_s)
    end_s = np.minimum(np.maximum(end_s, begin_s), np.append(begin_s[1:], np.inf))
    _check_mean_length(begin_s, end_s, rows, "fixations")
    moved = np.maximum(np.abs(begin_s - kept.begin_s), np.abs(end_s - kept.end_s)) > _ROUNDING_S
    cut = kept._replace(begin_s=begin_s, end_s=end_s)
    _, again = _once(cut)  # two rows within a sample may have become one
    notes = {
        "fixation_rows_twice": repeats,
        "rows_of_growing_fixations": len(fixations.begin_s) - repeats - len(again),
        "fixations_cut": int(moved.sum()),
    }
    return cut.take(again), notes


def _once(fixations: Fixations) -> tuple[int, list[int]]:
    """Count the rows that repeat another, and find the last of each fixation of the rest.

    An export with a row a sample repeats a fixation with the same start, to a rounding, while it
    lasts. A copy that was saved with fewer digits is a repeat, too.
    """
    _, first = np.unique(np.array(fixations[:6]).T, axis=0, return_index=True)
    begin_s, end_s = fixations.begin_s, fixations.end_s
    last: list[int] = []
    for row in sorted(first.tolist()):
        while last and end_s[last[-1]] < end_s[row]:
            drift_s = abs(begin_s[row] - begin_s[last[-1]])
            is_neighbour = drift_s > _ROUNDING_S + 1e-9 or begin_s[row] >= end_s[last[-1]]
            if drift_s and is_neighbour:  # begins later by more than a rounding
                break
            last.pop()
        last.append(row)
    copies: set[int] = set()
    by_begin = sorted(last, key=begin_s.__getitem__)
    for at, row in enumerate(by_begin):
        for after in range(at + 1, len(by_begin)):
            other = by_begin[after]
            if begin_s[other] - begin_s[row] > _COPY_S:
                break
            if row not in copies and other not in copies and _is_copy(fixations, row, other):
                copies.add(max(row, other))
    repeats = len(begin_s) - len(first) + len(copies)
    return repeats, [row for row in last if row not in copies]


def _is_copy(fixations: Fixations, row: int, after: int) -> bool:
    """Tell whether a row, which begins first, and another are one, but for rounding."""
    begin_s, end_s, x_px, y_px = fixations[:4]
    return bool(
        begin_s[after] < end_s[row]
        and abs(end_s[after] - end_s[row]) <= _COPY_S
        and max(abs(x_px[after] - x_px[row]), abs(y_px[after] - y_px[row])) <= _COPY_PX
    )


# -- words ----------------------------------------------------------------------------------------


def _words_in_order(words: Words, rows: RowsOfFile) -> tuple[Words, dict[str, int]]:
    """Keep each word once, and none before the one that was said before it."""
    if not words.text or np.isnan(words.begin_s).any():  # a written report
        return words, {}
    kept = _said_once(words)
    once = _taken(words, kept)
    _check_lengths(once.begin_s, once.end_s, rows, kept)
    latest_s = np.maximum.accumulate(once.begin_s)
    back = np.flatnonzero(once.begin_s < latest_s - _WORD_STEP_S - 1e-9)
    if back.size:
        at = int(back[0])
        before = int(np.argmax(once.begin_s[:at]))
        what = (
            f"{rows.place(kept[at])} begins at {once.begin_s[at]:g} s, but"
            f" {rows.place(kept[before])} before it at {once.begin_s[before]:g} s"
        )
        raise BadInputError("reversed_time", rows.path, what)
    forward = Words(once.text, latest_s, np.maximum(once.end_s, latest_s))
    _check_mean_length(forward.begin_s, forward.end_s, rows, "words")
    last = _said_once(forward)
    again = _taken(forward, last)
    _check_no_copy(words, again, rows, [kept[at] for at in last])
    overlap_s = again.end_s[:-1] - again.begin_s[1:]
    notes = {
        "words_twice": len(words.text) - len(again.text),
        "words_moved_forward": int((once.begin_s < latest_s).sum()),
        "words_overlapping": int((overlap_s > _WORD_STEP_S + 1e-9).sum()),
    }
    return again, notes


def _said_once(words: Words) -> list[int]:
    """Choose the words that are no exact repeats.

    Nobody says a word twice in one interval. Words of no length are corrections, several may share
    a time (FORMATS 1.4), and so may the words of a phrase: they repeat where the whole table does,
    or where another interval came between.
    """
    rows = list(zip(words.text, words.begin_s.tolist(), words.end_s.tolist(), strict=True))
    number = Counter(rows)
    texts = Counter((begin, end) for _, begin, end in number)  # different ones in an interval
    alone = {row for row in number if row[2] > row[1] and texts[row[1:]] == 1}
    copies = min((number[row] for row in alone), default=1)
    runs = [len(list(run)) for _, run in groupby(rows)]
    if copies > 1 and not any(length % copies for length in runs):  # each row is followed by itself
        begins = accumulate(runs, initial=0)
        some = zip(begins, runs, strict=False)
        return [at for begin, length in some for at in range(begin, begin + length // copies)]
    kept, spoken, latest = [], 0, (0.0, 0.0)
    first: dict[tuple[str, float, float], int] = {}  # how many intervals were spoken before a row
    seen = Counter[tuple[str, float, float]]()
    for index, row in enumerate(rows):
        _, begin_s, end_s = row
        if end_s > begin_s and (begin_s, end_s) != latest:
            spoken, latest = spoken + 1, (begin_s, end_s)
        once = row in alone or first.setdefault(row, spoken) != spoken
        if seen[row] < (1 if once else -(-number[row] // copies)):
            kept.append(index)
        seen[row] += 1
    return kept


def _check_no_copy(words: Words, once: Words, rows: RowsOfFile, numbers: Sequence[int]) -> None:
    """Reject a table that stands twice, once of them rounded, shifted or in other capitals.

    Exact repeats count once, and fixations within 10 ms and a pixel too, as either will do. Of
    words that differ nobody can tell whose times, order and spelling are true.
    Words of no length, corrections of which several may share a time, count for nothing.
    """
    said = np.flatnonzero(once.end_s > once.begin_s).tolist()
    letters = ["".join(filter(str.isalnum, text.casefold())) or text for text in once.text]
    said.sort(key=lambda at: (letters[at], once.begin_s[at], once.end_s[at]))
    pairs = [
        (one, other)
        for one, other in pairwise(said)
        if letters[one] == letters[other] and _are_twins(once, one, other)
    ]
    twins = {at for two in pairs for at in two}
    repeats = int((words.end_s > words.begin_s).sum()) - len(said)  # left out, each with a twin
    if len(twins) <= _ONE_PAIR or len(twins) + 2 * repeats < _TWINNED * (len(said) + repeats):
        return
    first, second = sorted(numbers[at] for at in min(pairs))
    what = (
        f"{len(twins) + 2 * repeats} of {len(said) + repeats} words stand twice at nearly one time,"
        f" as in {rows.place(first)} and {rows.place(second)}"
    )
    raise BadInputError("repeated_words", rows.path, what)


def _are_twins(words: Words, one: int, other: int) -> bool:
    """Tell whether two words of the same letters, the later one second, are copies of one."""
    (begin_s, end_s), (after_s, until_s) = (
        (words.begin_s[at], words.end_s[at]) for at in (one, other)
    )
    if (words.text[one], begin_s, end_s) == (words.text[other], after_s, until_s):
        return False  # a phrase may say a word twice
    shorter_s = min(end_s - begin_s, until_s - after_s)
    return bool(min(end_s, until_s) - after_s > min(_WORD_STEP_S + 1e-9, shorter_s / 2))


def _taken(words: Words, rows: list[int]) -> Words:
    return Words([words.text[row] for row in rows], words.begin_s[rows], words.end_s[rows])


# -- boxes and ellipses ---------------------------------------------------------------------------


def _regions_once(raw: RawReading) -> tuple[list[Region], dict[str, int]]:
    """Keep each region once, and none of less than a pixel: shares of the image are such."""
    once = list(dict.fromkeys(raw.regions))
    kept = [one for one in once if max(one.x1 - one.x0, one.y1 - one.y0) >= _REGION_PX]
    cornered = 0
    for kind in sorted({one.kind for one in kept}):
        alike = [one for one in kept if one.kind == kind]
        across = max(one.x1 for one in alike) / raw.width
        down = max(one.y1 for one in alike) / raw.height
        cornered += len(alike) if max(across, down) < _CORNER else 0
    notes = {
        "regions_twice": len(raw.regions) - len(once),
        "regions_left_out": len(once) - len(kept),
        "regions_in_a_corner": cornered,
    }
    return kept, {name: number for name, number in notes.items() if number}


# -- intervals ------------------------------------------------------------------------------------


def _check_lengths(
    begin_s: FloatArray, end_s: FloatArray, rows: RowsOfFile, numbers: Sequence[int]
) -> None:
    """Reject an interval that runs backwards, over a minute, or lies hours away."""
    length_s = end_s - begin_s
    far = np.maximum(np.abs(begin_s), np.abs(end_s)) > LONGEST_S
    wrong = np.flatnonzero(far | ~((length_s >= 0) & (length_s <= _LONGEST_S)))
    if not wrong.size:
        return
    at = int(wrong[0])
    what = f"{rows.place(numbers[at])} runs from {begin_s[at]:g} to {end_s[at]:g} s"
    if length_s[at] < 0:
        raise BadInputError("reversed_time", rows.path, what)
    raise BadInputError("implausible_time", rows.path, f"{what}, {length_s[at]:g} s long")


def _check_mean_length(begin_s: FloatArray, end_s: FloatArray, rows: RowsOfFile, what: str) -> None:
    length_s = (end_s - begin_s)[end_s > begin_s]
    if len(length_s) >= _ENOUGH and (mean_s := float(length_s.mean())) < _SHORTEST_MEAN_S:
        found = f"the {what} of {rows.path or 'the reading'} last {mean_s:.2g} s on average"
        raise BadInputError("implausible_time", rows.path, found)


def _check_whole(raw: RawReading) -> None:
    """Reject gaze that ends before the last word where its file ends amid a line."""
    gaze, words = raw.fixations, raw.words
    if not raw.fixation_rows.is_cut or not len(gaze.end_s) or np.isnan(words.begin_s).any():
        return
    last_s, said_s = float(gaze.end_s.max()), float(words.begin_s.max())
    if last_s < said_s:
        path = raw.fixation_rows.path
        what = f"{path} ends amid a line, its gaze at {last_s:g} s, the words after {said_s:g} s"
        raise BadInputError("bad_csv", path, what)


# -- gaze and its image ---------------------------------------------------------------------------


def _check_aspect(raw: RawReading, image_px: Size) -> None:
    """Reject an image that was padded, cropped or turned: gaze would be stretched onto it.

    An image that was made smaller or larger is fine; each side is then off by up to a pixel.
    """
    original: tuple[float, float] = raw.width, raw.height
    known, error = "the metadata say", 0.0
    if raw.shown_px is not None:
        original, known, error = raw.shown_px, "the screen showed it as", _CANVAS_ERROR
    (width, height), (w, h) = image_px, original
    error *= max(width * h, height * w)
    if abs(width * h - height * w) <= width + height + w + h + error:
        return
    turned = abs(height * h - width * w) <= width + height + w + h + error
    guess = "turned by 90 degrees" if turned else "padded, cropped or stretched"
    what = (
        f"{raw.image_path} has {width} x {height} pixels, {known} {w:g} x {h:g}:"
        f" it seems to have been {guess}"
    )
    raise BadInputError("other_aspect", raw.image_path, what)


def _check_corner(raw: RawReading, x: FloatArray, y: FloatArray) -> None:
    """Reject gaze of which all on the image, in shares of it ``(k,)``, is near one corner."""
    if not x.size:
        return
    strips = [_strip(x), _strip(y)]
    in_corner = max(strips) < _CORNER or min(strips) < _EDGE
    if not (len(x) >= _ENOUGH and in_corner) and not (len(x) >= _FEW and max(strips) < _EDGE):
        return
    rows = raw.fixation_rows
    across, down = (f"{one.min():.2%} to {one.max():.2%}" for one in (x, y))
    what = (
        f"all {len(x)} fixations of {rows.path or 'the reading'} on the image lie at {across} of"
        f" its width and {down} of its height ({raw.width} x {raw.height} pixels)"
    )
    raise BadInputError("gaze_in_a_corner", rows.path, what)


def _strip(share: FloatArray) -> float:
    """Measure the strip along the nearer edge that holds all gaze, as a share of the image."""
    return float(min(share.max(), 1 - share.min()))


def _odd(raw: RawReading, image_px: Size, x: FloatArray, y: FloatArray) -> dict[str, int]:
    """Count what a true reading may have, but few do."""
    gaze, words = raw.fixations, raw.words
    on_image = (gaze.x_px >= 0) & (gaze.x_px < raw.width)
    on_image &= (gaze.y_px >= 0) & (gaze.y_px < raw.height)
    length_s = gaze.end_s - gaze.begin_s
    seen_s, all_s = float(length_s[on_image].sum()), float(length_s.sum())
    small = len(x) >= _ENOUGH and (
        max(np.ptp(x), np.ptp(y)) < _PATCH or max(_strip(x), _strip(y)) < _QUARTER
    )
    notes = {
        "image_size_differs": image_px != (raw.width, raw.height),
        "fixations_off_image": int((~on_image).sum()),
        "readings_without_gaze": seen_s == 0,
        "gaze_mostly_off_image": 0 < seen_s < all_s / 2,
        "gaze_in_a_small_part": small,
    }
    if gaze.begin_s.size and words.text and not np.isnan(words.begin_s).any():
        first, last = gaze.begin_s.min(), gaze.end_s.max()
        said, silent = words.begin_s.min(), words.end_s.max()
        lengths = sorted([last - first, silent - said])
        notes["gaze_before_the_recording"] = bool(first < -_EARLY_S)
        notes["words_and_gaze_apart"] = bool(silent < first or said > last)
        notes["words_and_gaze_lengths"] = bool(lengths[1] > _TIMES_LONGER * lengths[0])
    return {name: int(value) for name, value in notes.items()}
