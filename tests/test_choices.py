"""The phantoms that judge choices of a heatmap, and their measures, on maps made by hand."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from benchmarks.choices.__main__ import BEGIN, CHOICES, END, main
from benchmarks.choices.measure import FRAME, mask_of, rows_of
from benchmarks.choices.phantoms import HEIGHT, WIDTH, Eyes, Reading, Sentence, make_readings
from egma_prep.gaze.lag import SHIFTS_S, estimated_lag_s, spread_by_shift
from egma_prep.options import RenderOptions

PAGE = Path(__file__).parent.parent / "docs" / "gaze.md"
FAULTLESS = {"stray_share": 0.0, "error_deg": 0.0, "scatter_deg": 0.0, "blink_share": 0.0}
ELLIPSE = (1200.0, 1500.0, 1500.0, 1900.0)


def one_look(x: float, y: float) -> Reading:
    """A reading of one sentence and one fixation in it."""
    whole = np.array([[0.0, 0.0, WIDTH, HEIGHT]])
    columns = (np.array([value]) for value in (1.2, 1.8, x, y, 100.0))
    return Reading(0, [Sentence(1.0, 2.0, ELLIPSE)], *columns, whole)


def test_gaze_on_a_finding_recovers_it_and_gaze_elsewhere_does_not() -> None:
    (there,) = rows_of([one_look(1350, 1700)], RenderOptions())
    (elsewhere,) = rows_of([one_look(300, 300)], RenderOptions())
    assert (there.figures["pointing"], elsewhere.figures["pointing"]) == (1, 0)
    assert there.figures["AUROC"] > 0.99 > 0.6 > elsewhere.figures["AUROC"]
    assert there.figures["IoU"] > 0.2 and elsewhere.figures["IoU"] == 0
    assert elsewhere.figures["recall, quarter-max"] == 0


def test_figures_are_those_of_a_map_made_by_hand() -> None:
    (row,) = rows_of([one_look(1350, 1700)], RenderOptions(sigma=12.0))
    v, u = np.mgrid[:224, :224]
    x, y = FRAME.x(np.array([1350.0]))[0], FRAME.y(np.array([1700.0]))[0]
    square = np.maximum(abs(u - x), abs(v - y)) <= 36
    heat = np.floor(255 * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 288) * square + 0.5)
    heat = np.minimum(255, np.round(heat * 255 / heat.max()))
    mask = mask_of(ELLIPSE)
    above = heat > heat.max() / 4
    assert row.figures["IoU"] == pytest.approx(
        (above & mask).sum() / (above | mask).sum(), abs=0.02
    )
    means = heat.reshape(56, 4, 56, 4).mean(axis=(1, 3)).ravel()
    inside = mask.reshape(56, 4, 56, 4).mean(axis=(1, 3)).ravel() >= 0.5
    assert row.figures["AUROC"] == pytest.approx(roc_auc_score(inside, means), abs=0.002)
    cells = heat.reshape(7, 32, 7, 32).mean(axis=(1, 3))
    covered = mask.reshape(7, 32, 7, 32).mean(axis=(1, 3))
    truth, label = covered >= min(0.25, covered.max()), cells > cells.max() / 4
    assert row.figures["precision, quarter-max"] == pytest.approx(
        (truth & label).sum() / label.sum()
    )
    assert row.figures["recall, nonzero"] == pytest.approx(
        (truth & (cells > 0)).sum() / truth.sum()
    )


def test_faultless_eyes_without_a_lag_are_always_on_what_is_said() -> None:
    readings = make_readings(20, Eyes(0.0, zoom_share=0.0, **FAULTLESS), 1)
    rows = rows_of(readings, RenderOptions(sigma=8.0))
    # A fixation that began before the sentence may hold on into it.
    assert np.mean([row.figures["pointing"] for row in rows]) > 0.97
    assert all(row.figures["with a map"] == 1 for row in rows)


def test_phantoms_are_drawn_as_they_are_described() -> None:
    readings = make_readings(200, Eyes(1.0), 3)
    gaps = np.concatenate([one.begin[1:] - one.end[:-1] for one in readings])
    assert (gaps >= 0).all() and 0.03 < (gaps > 0.15).mean() < 0.12  # blinks
    zoomed = np.mean([one.px_per_deg.min() < 100 for one in readings])
    assert 0.1 < zoomed < 0.3
    for one in readings:
        x0, y0, x1, y1 = one.shown.T
        assert ((x0 >= 0) & (y0 >= 0) & (x1 <= WIDTH) & (y1 <= HEIGHT)).all()
        assert ((x1 - x0 < WIDTH) == (one.px_per_deg < 100)).all()
    again = make_readings(200, Eyes(1.0), 3)
    assert all(np.array_equal(a.x, b.x) for a, b in zip(readings, again, strict=True))


@pytest.mark.parametrize("lag_s", [0.0, 0.5, 1.0, 2.0], ids="{} s".format)
def test_the_lag_is_estimated_without_the_truth(lag_s: float) -> None:
    spreads = [
        spread_by_shift(
            one.begin, one.end, one.x, one.y, np.array([said.begin for said in one.sentences])
        )
        for one in make_readings(120, Eyes(lag_s), 4)
    ]
    assert abs(estimated_lag_s(np.array(spreads)) - lag_s) <= 0.3


def test_without_gaze_there_is_no_lag() -> None:
    nothing = np.empty(0)
    spreads = spread_by_shift(nothing, nothing, nothing, nothing, np.array([1.0, 2.0]))
    assert np.isnan(spreads).all() and len(spreads) == len(SHIFTS_S)
    assert np.isnan(estimated_lag_s(spreads[None]))


def test_one_command_writes_the_tables_into_the_page_and_draws(tmp_path: Path) -> None:
    page, picture = tmp_path / "gaze.md", tmp_path / "choices.png"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    flags = ["--readings", "3", "--workers", "1", "--page", str(page), "--picture", str(picture)]
    result = CliRunner().invoke(main, flags)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n") and "old" not in text
    assert all(f"| {name} |" in text for name in CHOICES)
    assert picture.stat().st_size > 10_000


def test_the_pages_tables_name_every_choice_that_is_measured() -> None:
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert all(f"| {name} |" in table for name in CHOICES)
