"""Overlaps and windows against plain loops and worked examples."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from egma_prep.gaze.align import overlap_seconds, window_starts

Floats = NDArray[np.float64]
Interval = tuple[float, float]

SECONDS = st.floats(-10, 300, allow_nan=False)
INTERVALS = st.lists(st.tuples(SECONDS, SECONDS).map(lambda pair: (min(pair), max(pair))))


def _columns(intervals: list[Interval]) -> tuple[Floats, Floats]:
    return np.array([one[0] for one in intervals]), np.array([one[1] for one in intervals])


def _overlaps(these: list[Interval], those: list[Interval]) -> Floats:
    return overlap_seconds(*_columns(these), *_columns(those))


@given(these=INTERVALS, those=INTERVALS)
def test_overlaps_equal_a_loop_over_all_pairs(these: list[Interval], those: list[Interval]) -> None:
    found = _overlaps(these, those)
    assert found.shape == (len(these), len(those))
    for i, (begin, end) in enumerate(these):
        for j, (other_begin, other_end) in enumerate(those):
            shared = min(end, other_end) - max(begin, other_begin)
            assert found[i, j] == (shared if shared > 0 else 0)


@given(these=INTERVALS, those=INTERVALS)
def test_overlaps_are_mutual_and_no_longer_than_either(
    these: list[Interval], those: list[Interval]
) -> None:
    found = _overlaps(these, those)
    np.testing.assert_array_equal(found, _overlaps(those, these).T)
    for i, (begin, end) in enumerate(these):
        assert (found[i] <= end - begin).all()
    for j, (begin, end) in enumerate(those):
        assert (found[:, j] <= end - begin).all()


@given(cuts=st.lists(SECONDS, min_size=2, max_size=12), fixations=INTERVALS)
def test_adjoining_windows_share_every_fixation_without_loss(
    cuts: list[float], fixations: list[Interval]
) -> None:
    cuts = sorted(cuts)
    windows = list(pairwise(cuts))
    shared = _overlaps(windows, fixations).sum(axis=0)
    np.testing.assert_allclose(shared, _overlaps([(cuts[0], cuts[-1])], fixations)[0], atol=1e-9)


def test_a_fixation_that_spans_two_sentences_serves_both_in_proportion() -> None:
    sentences = [(1.0, 4.0), (4.25, 6.0)]
    found = _overlaps(sentences, [(3.0, 5.0)])
    assert found.tolist() == [[1.0], [0.75]]  # and 0.25 s fall into the silence between


@pytest.mark.parametrize(
    ("fixation", "seconds"),
    [
        pytest.param((0.0, 1.0), 0.0, id="touching the begin"),
        pytest.param((3.0, 4.0), 0.0, id="touching the end"),
        pytest.param((0.0, 0.5), 0.0, id="before"),
        pytest.param((3.5, 9.0), 0.0, id="after"),
        pytest.param((1.5, 1.75), 0.25, id="inside"),
        pytest.param((0.0, 9.0), 2.0, id="around"),
        pytest.param((0.5, 1.5), 0.5, id="reaching in"),
        pytest.param((2.5, 3.5), 0.5, id="reaching out"),
        pytest.param((2.0, 2.0), 0.0, id="of no length"),
    ],
)
def test_only_seconds_inside_the_window_count(fixation: Interval, seconds: float) -> None:
    assert _overlaps([(1.0, 3.0)], [fixation]).tolist() == [[seconds]]


@given(moment=SECONDS, fixations=INTERVALS)
def test_a_word_of_no_length_carries_no_gaze(moment: float, fixations: list[Interval]) -> None:
    assert not _overlaps([(moment, moment)], fixations).any()


def test_nothing_overlaps_nothing() -> None:
    assert _overlaps([], [(0.0, 1.0)]).shape == (0, 1)
    assert _overlaps([(0.0, 1.0)], []).shape == (1, 0)


SENTENCES = [(1.0, 2.0), (2.5, 4.0), (7.0, 8.0), (8.0, 9.5)]


@pytest.mark.parametrize(
    ("window", "lead", "starts"),
    [
        pytest.param("spoken", 0.0, [1.0, 2.5, 7.0, 8.0], id="spoken"),
        pytest.param("pause", 0.0, [0.0, 2.0, 4.0, 8.0], id="pause"),
        pytest.param("spoken", 0.25, [0.75, 2.25, 6.75, 7.75], id="a short lead"),
        # The first not before the recording, the second and last not before the one before them.
        pytest.param("spoken", 1.5, [0.0, 1.0, 5.5, 7.0], id="the authors' lead"),
        pytest.param("spoken", 60.0, [0.0, 1.0, 2.5, 7.0], id="a long lead"),
    ],
)
def test_windows_start_where_the_option_says(window: str, lead: float, starts: list[float]) -> None:
    assert window_starts(*_columns(SENTENCES), window, lead).tolist() == starts


def test_windows_are_spoken_by_default() -> None:
    assert window_starts(*_columns(SENTENCES)).tolist() == [1.0, 2.5, 7.0, 8.0]


GAPS = st.lists(
    st.tuples(st.floats(0, 5), st.floats(0, 8)).map(lambda one: (round(one[0], 3), one[1])),
    min_size=1,
    max_size=10,
)


def _in_order(gaps: list[tuple[float, float]]) -> list[Interval]:
    clock, sentences = 0.0, []
    for silence, length in gaps:
        sentences.append((clock + silence, clock + silence + length))
        clock = sentences[-1][1]
    return sentences


@given(gaps=GAPS, lead=st.floats(0, 20))
def test_a_lead_starts_earlier_but_never_before_the_sentence_before(
    gaps: list[tuple[float, float]], lead: float
) -> None:
    sentences = _in_order(gaps)
    found = window_starts(*_columns(sentences), "spoken", lead)
    earliest = 0.0
    for (begin, _), start in zip(sentences, found, strict=True):
        assert start == max(begin - lead, earliest)
        earliest = begin


@given(gaps=GAPS)
def test_pauses_go_to_the_sentence_after_them(gaps: list[tuple[float, float]]) -> None:
    sentences = _in_order(gaps)
    found = window_starts(*_columns(sentences), "pause")
    ends = [0.0, *(end for _, end in sentences)]
    assert found.tolist() == ends[:-1]


@pytest.mark.parametrize("window", ["spoken", "pause"])
@pytest.mark.parametrize("lead", [0.0, 1.5])
def test_a_window_never_starts_after_its_sentence(window: str, lead: float) -> None:
    # Hand-corrected words can overlap, and an audio offset can make times negative.
    sentences = [(-0.5, 1.0), (0.75, 3.0), (2.0, 2.0), (2.0, 4.0)]
    found = window_starts(*_columns(sentences), window, lead)
    assert (found <= _columns(sentences)[0]).all()
