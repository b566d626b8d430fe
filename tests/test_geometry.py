"""The frame's offsets, points and area weights against loops over pixel edges."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from egma_prep.gaze.frame import FRAME_PX, area_weights, frame_of

SIDES = st.integers(1, 4000)


@pytest.mark.parametrize(
    ("width", "height", "offset_x", "offset_y"),
    [
        pytest.param(2544, 3056, 256, 0, id="portrait"),
        pytest.param(3056, 2544, 0, 256, id="landscape"),
        pytest.param(2048, 2048, 0, 0, id="square"),
        pytest.param(2545, 3058, 256, 0, id="an odd difference rounds down"),
        pytest.param(3058, 2545, 0, 256, id="an odd difference rounds down for rows too"),
        pytest.param(7, 8, 0, 0, id="one pixel more on the right"),
        pytest.param(1, 4, 1, 0, id="a single column"),
    ],
)
def test_an_image_is_centred_in_its_square(
    width: int, height: int, offset_x: int, offset_y: int
) -> None:
    frame = frame_of(width, height)
    assert (frame.offset_x, frame.offset_y) == (offset_x, offset_y)
    assert frame.scale_x == frame.scale_y == pytest.approx(224 / max(width, height))


@given(width=SIDES, height=SIDES)
def test_offsets_are_half_the_missing_pixels_rounded_down(width: int, height: int) -> None:
    frame = frame_of(width, height)
    side = max(width, height)
    assert frame.offset_x == math.floor((side - width) / 2)
    assert frame.offset_y == math.floor((side - height) / 2)


@given(width=SIDES, height=SIDES, x_px=st.floats(-5000, 5000), y_px=st.floats(-5000, 5000))
def test_a_point_moves_by_the_padded_squares_transform(
    width: int, height: int, x_px: float, y_px: float
) -> None:
    frame, side = frame_of(width, height), max(width, height)
    x = (x_px + (side - width) // 2 + 0.5) * 224 / side - 0.5
    y = (y_px + (side - height) // 2 + 0.5) * 224 / side - 0.5
    assert float(frame.x(np.array([x_px]))[0]) == pytest.approx(x, abs=1e-9, rel=1e-12)
    assert float(frame.y(np.array([y_px]))[0]) == pytest.approx(y, abs=1e-9, rel=1e-12)


def test_the_corners_of_a_square_image_are_the_corners_of_the_frame() -> None:
    # Outer edges lie half a pixel beyond the centres of the outer pixels.
    frame = frame_of(2048, 2048)
    np.testing.assert_allclose(frame.x(np.array([-0.5, 1023.5, 2047.5])), [-0.5, 111.5, 223.5])


def test_stretching_scales_each_axis_by_itself_and_pads_nothing() -> None:
    frame = frame_of(448, 112, "stretch")
    assert (frame.offset_x, frame.offset_y) == (0, 0)
    np.testing.assert_allclose(frame.x(np.array([-0.5, 0, 447.5])), [-0.5, -0.25, 223.5])
    np.testing.assert_allclose(frame.y(np.array([-0.5, 0, 111.5])), [-0.5, 0.5, 223.5])


@given(width=SIDES, height=SIDES, fit=st.sampled_from(["pad", "stretch"]))
def test_every_pixel_of_the_image_lands_in_the_frame(width: int, height: int, fit: str) -> None:
    frame = frame_of(width, height, fit)
    x, y = frame.x(np.array([0.0, width - 1])), frame.y(np.array([0.0, height - 1]))
    for first, last in (x, y):
        assert -0.5 < first <= last < 223.5


def _shares(length: int, reduction: int, offset: int, scale: float) -> list[list[float]]:
    """Overlap every frame pixel with every stored pixel, one pair at a time."""
    stored = math.ceil(length / reduction)
    shares = []
    for cell in range(224):
        row = []
        for pixel in range(stored):
            begin = (pixel * reduction + offset) * scale
            end = (min((pixel + 1) * reduction, length) + offset) * scale
            row.append(max(0.0, min(end, cell + 1) - max(begin, cell)))
        shares.append(row)
    return shares


AXES = [
    pytest.param(424, 1, 42, 224 / 509, id="padded"),
    pytest.param(509, 1, 0, 224 / 509, id="odd and full"),
    pytest.param(511, 2, 0, 224 / 511, id="odd, halved"),
    pytest.param(425, 2, 43, 224 / 511, id="odd, halved, odd padding"),
    pytest.param(337, 4, 87, 224 / 511, id="quartered, last pixel of one"),
    pytest.param(339, 8, 5, 224 / 349, id="last pixel of three"),
    pytest.param(448, 2, 0, 0.5, id="each stored pixel is one frame pixel"),
    pytest.param(100, 1, 62, 1.0, id="no scaling"),
    pytest.param(150, 1, 25, 224 / 200, id="enlarged"),
    pytest.param(3, 1, 1, 224 / 5, id="tiny"),
    pytest.param(1, 1, 0, 224.0, id="one pixel"),
]


@pytest.mark.parametrize(("length", "reduction", "offset", "scale"), AXES)
def test_weights_are_the_overlaps_of_frame_and_stored_pixels(
    length: int, reduction: int, offset: int, scale: float
) -> None:
    weights = area_weights(length, reduction, offset, scale)
    np.testing.assert_allclose(
        weights.toarray(), _shares(length, reduction, offset, scale), atol=2e-6
    )


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 3500), extra=st.integers(0, 1500), reduction=st.sampled_from([1, 2, 4, 8])
)
def test_a_frame_pixel_is_weighed_by_how_much_of_it_the_image_covers(
    length: int, extra: int, reduction: int
) -> None:
    side, offset = length + extra, extra // 2
    sums = area_weights(length, reduction, offset, 224 / side).sum(axis=1)
    begin, end = offset * 224 / side, (offset + length) * 224 / side
    for cell, found in enumerate(sums):
        covered = max(0.0, min(end, cell + 1) - max(begin, cell))
        assert found == pytest.approx(covered, abs=1e-4)  # thousands of float32 weights
    inside = [cell for cell in range(224) if begin <= cell and cell + 1 <= end]
    np.testing.assert_allclose(sums[inside], 1, atol=1e-4)


@pytest.mark.parametrize(
    "size",
    [(2544, 3056), (2545, 3057), (2049, 2500), (509, 424), (181, 211), (3, 5)],
    ids="{0[0]} x {0[1]}".format,
)
@pytest.mark.parametrize("reduction", [1, 2, 4], ids="reduced by {}".format)
def test_padding_weighs_nothing(size: tuple[int, int], reduction: int) -> None:
    width, height = size
    frame = frame_of(width, height)
    for length, offset, scale in (
        (width, frame.offset_x, frame.scale_x),
        (height, frame.offset_y, frame.scale_y),
    ):
        sums = area_weights(length, reduction, offset, scale).sum(axis=1)
        for cell in range(FRAME_PX):
            if cell + 1 <= offset * scale or cell >= (offset + length) * scale:
                assert sums[cell] < 1e-6


def test_weights_agree_with_counting_ever_finer_samples() -> None:
    # Sixty-four samples to an original pixel, each counted where its middle falls.
    length, reduction, offset, side = 51, 2, 6, 63
    counted = np.zeros((224, 26))
    fine = 64 * 4
    for sample in range(length * fine):
        original = (sample + 0.5) / fine
        cell = int((original + offset) * 224 / side)
        counted[cell, int(original) // reduction] += 224 / side / fine
    weights = area_weights(length, reduction, offset, 224 / side).toarray()
    np.testing.assert_allclose(weights, counted, atol=2 * 224 / side / fine)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 3500), extra=st.integers(0, 1500), reduction=st.sampled_from([1, 2, 4])
)
def test_every_original_pixel_is_counted_once(length: int, extra: int, reduction: int) -> None:
    scale = 224 / (length + extra)
    counted = area_weights(length, reduction, extra // 2, scale).sum(axis=0)
    pixels = [min(reduction, length - first) for first in range(0, length, reduction)]
    np.testing.assert_allclose(counted, np.array(pixels) * scale, rtol=1e-4)
