"""Heatmaps against a sum pixel by pixel, and oracles that can be done in the head."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from egma_prep.gaze.heatmaps import Heatmap, rendered_maps
from egma_prep.gaze.kernels import gaussian

Floats = NDArray[np.float64]


class Fixation(NamedTuple):
    """Frame pixels and seconds."""

    x: float
    y: float
    sigma_x: float
    sigma_y: float
    seconds: float


def _rendered(fixations: list[Fixation], truncate: float = 3.0) -> Heatmap | None:
    columns = np.array(fixations, dtype=np.float64).reshape(-1, 5).T
    return rendered_maps(gaussian.footprints(*columns[:4], truncate), columns[4][None])[0]


def _map(fixations: list[Fixation], truncate: float = 3.0) -> Heatmap:
    found = _rendered(fixations, truncate)
    assert found is not None
    return found


def _summed(fixations: list[Fixation], truncate: float = 3.0) -> Floats:
    """Sum the formula over fixations and pixels, nothing factored, nothing normalised."""
    total = np.zeros((224, 224))
    for one in fixations:
        for v in range(224):
            if abs(v - one.y) > truncate * one.sigma_y:
                continue
            for u in range(224):
                if abs(u - one.x) <= truncate * one.sigma_x:
                    across = (u - one.x) ** 2 / (2 * one.sigma_x**2)
                    down = (v - one.y) ** 2 / (2 * one.sigma_y**2)
                    total[v, u] += one.seconds * math.exp(-(across + down))
    return total


def _assert_stores(found: Heatmap, total: Floats) -> None:
    expected = np.floor(255 * total / total.max() + 0.5 + 1e-9)
    difference = np.abs(found.values.astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).sum() <= 5  # the last bit of a sum may decide, but not often
    assert found.peak_seconds == pytest.approx(total.max(), rel=1e-12)


def _scan_path(seed: int, count: int, sigma: float | None) -> list[Fixation]:
    rng = np.random.default_rng(seed)
    place = rng.uniform(-0.4, 223.4, (count, 2))
    # One degree of visual angle differs with the zoom, and a little between the axes.
    degree = rng.uniform(4, 14, count)
    sigmas = (
        np.column_stack([degree, degree * 1.07]) if sigma is None else np.full((count, 2), sigma)
    )
    seconds = rng.uniform(0.01, 1.2, count)
    return [
        Fixation(*map(float, (*xy, *sigma_xy, w)))
        for xy, sigma_xy, w in zip(place, sigmas, seconds, strict=True)
    ]


SIGMAS = [pytest.param(16.0, id="16"), pytest.param(8.0, id="8"), pytest.param(None, id="1deg")]


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("count", [1, 2, 9, 25], ids="{} fixations".format)
def test_a_map_is_the_sum_of_the_formula(sigma: float | None, count: int) -> None:
    fixations = _scan_path(count, count, sigma)
    _assert_stores(_map(fixations), _summed(fixations))


@pytest.mark.parametrize("truncate", [1.0, 2.5, 4.0], ids="{} sigma".format)
def test_kernels_reach_as_many_sigma_as_asked(truncate: float) -> None:
    fixations = _scan_path(5, 6, 9.0)
    _assert_stores(_map(fixations, truncate), _summed(fixations, truncate))


@pytest.mark.parametrize("sigma", [16.0, 8.0, 20.0], ids="sigma {}".format)
def test_the_edge_at_three_sigma_is_inside(sigma: float) -> None:
    reach = round(3 * sigma)
    values = _map([Fixation(100.0, 110.0, sigma, sigma, 1.0)]).values
    # exp(-4.5) = 0.0111: 2.8 of 255, stored as 3; next to it 0.
    assert [int(values[110, 100 + s * reach]) for s in (-1, 1)] == [3, 3]
    assert [int(values[110 + s * reach, 100]) for s in (-1, 1)] == [3, 3]
    assert not values[110, : 100 - reach].any() and not values[110, 100 + reach + 1 :].any()
    assert not values[: 110 - reach].any() and not values[110 + reach + 1 :].any()


def test_the_edge_of_each_axis_is_its_own() -> None:
    values = _map([Fixation(100.0, 110.0, 10.0, 5.0, 1.0)]).values
    rows, columns = np.nonzero(values)
    # Where the other axis is at its centre; elsewhere 2.8 shrinks below what is stored.
    assert (columns.min(), columns.max()) == (70, 130)
    assert (rows.min(), rows.max()) == (95, 125)


@pytest.mark.parametrize(
    "place",
    [(0, 0), (223, 0), (0, 223), (223, 223), (100, 37), (37, 100), (112, 112)],
    ids="x {0[0]}, y {0[1]}".format,
)
@pytest.mark.parametrize("sigma", [16.0, 8.0, 1.0, 0.01], ids="sigma {}".format)
def test_one_fixation_peaks_at_its_row_and_column(place: tuple[int, int], sigma: float) -> None:
    x, y = place
    found = _map([Fixation(x, y, sigma, sigma, 0.375)])
    peaks = np.argwhere(found.values == found.values.max())
    assert [y, x] in peaks.tolist()
    assert len(peaks) == 1 or sigma > 11  # 255 exp(-1/2s^2) rounds to 255 next to a wide peak
    assert found.values[y, x] == 255
    assert found.peak_seconds == 0.375


@pytest.mark.parametrize("seconds", [1e-4, 0.3, 40.0], ids="{} s".format)
def test_the_peak_is_stored_as_255_and_remembered_in_seconds(seconds: float) -> None:
    # Two fixations on one spot and a weaker one out of their reach.
    fixations = [
        Fixation(40, 50, 16, 16, seconds),
        Fixation(40, 50, 16, 16, 2 * seconds),
        Fixation(180, 170, 16, 16, 1.5 * seconds),
    ]
    found = _map(fixations)
    assert found.values.max() == found.values[50, 40] == 255
    assert found.peak_seconds == pytest.approx(3 * seconds)
    assert found.values[170, 180] == 128  # half of 255, rounded up


def test_a_sentence_that_nobody_looked_during_has_no_map() -> None:
    assert _rendered([]) is None
    assert _rendered([Fixation(9, 9, 16, 16, 0.0), Fixation(8, 99, 16, 16, 0.0)]) is None


def test_a_fixation_without_weight_leaves_no_trace() -> None:
    path = _scan_path(4, 6, 16.0)
    idle = Fixation(20, 200, 16, 16, 0.0)
    assert (_map([*path, idle]).values == _map(path).values).all()


@pytest.mark.parametrize("sigma", [0.3, 0.15, 0.05, 1e-3, 1e-9], ids="sigma {}".format)
@pytest.mark.parametrize(
    "place",
    [(100.5, 37.5), (100.2, 37.49), (-0.49, 222.6), (223.4, 0.3)],
    ids="x {0[0]}, y {0[1]}".format,
)
def test_a_very_narrow_fixation_does_not_vanish(place: tuple[float, float], sigma: float) -> None:
    x, y = place
    found = _map([Fixation(x, y, sigma, sigma, 1.0)])
    row, column = np.unravel_index(int(found.values.argmax()), (224, 224))
    assert abs(column - x) <= 0.5 and abs(row - y) <= 0.5


@pytest.mark.parametrize("truncate", [3.0, 8.0, 30.0, 100.0, 1e6], ids="cut at {} sigma".format)
@pytest.mark.parametrize("sigma", [0.3, 1e-3, 1e-9, 1e-300], ids="sigma {}".format)
def test_a_narrow_fixation_between_pixels_has_a_map_however_far_it_reaches(
    sigma: float, truncate: float
) -> None:
    one = np.array([1.0])
    kernel = gaussian.footprints(100.5 * one, 37.5 * one, sigma * one, sigma * one, truncate)
    with np.errstate(over="ignore"):
        (found,) = rendered_maps(kernel, 0.01 * one[None])
    assert found is not None and np.isfinite(found.peak_seconds)
    lit = np.argwhere(found.values == 255)
    assert {*map(tuple, lit.tolist())} <= {(r, c) for r in (37, 38) for c in (100, 101)}
    assert len(lit) >= 1


def test_a_very_narrow_fixation_does_not_vanish_beyond_the_last_pixels_centre() -> None:
    # Column 635.75 of 636 is on an image of a quarter of its metadata's size: 223.6 in the frame.
    found = _map([Fixation(223.6, 100.0, 0.05, 0.05, 1.0)])
    assert found.values[100, 223] == 255


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_grid_is_the_area_means_of_the_stored_map(sigma: float | None) -> None:
    found = _map(_scan_path(11, 8, sigma))
    assert found.grid.shape == (49,)
    for row in range(7):
        for column in range(7):
            cells = [
                int(found.values[v, u])
                for v in range(32 * row, 32 * row + 32)
                for u in range(32 * column, 32 * column + 32)
            ]
            assert found.grid[7 * row + column] == pytest.approx(
                sum(cells) / len(cells) / 255, abs=1e-6
            )


PLACES = st.floats(-0.4, 223.4)
PATHS = st.lists(
    st.builds(Fixation, PLACES, PLACES, st.floats(1, 30), st.floats(1, 30), st.floats(1e-3, 3)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(path=PATHS, data=st.data())
def test_the_order_of_fixations_changes_no_byte(path: list[Fixation], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(path))
    assert _map(path).values.tobytes() == _map(shuffled).values.tobytes()


@settings(max_examples=40, deadline=None)
@given(path=PATHS, times=st.sampled_from([0.5, 2.0, 1024.0]))
def test_longer_looks_all_round_change_the_peak_alone(path: list[Fixation], times: float) -> None:
    slower = [one._replace(seconds=one.seconds * times) for one in path]
    assert (_map(slower).values == _map(path).values).all()
    assert _map(slower).peak_seconds == pytest.approx(_map(path).peak_seconds * times)


@settings(max_examples=40, deadline=None)
@given(path=PATHS)
def test_every_map_reaches_255_and_a_mirrored_path_gives_the_mirrored_map(
    path: list[Fixation],
) -> None:
    values = _map(path).values
    assert values.max() == 255
    turned = [Fixation(one.y, one.x, one.sigma_y, one.sigma_x, one.seconds) for one in path]
    assert np.abs(_map(turned).values.astype(int) - values.T).max() <= 1
