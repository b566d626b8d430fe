"""`scan --figures` draws the readings whose clocks or places look wrong."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import egma_prep

from egma_prep.look.odd_readings import fit_of
from egma_prep.look.scan import scan_tree
from egma_prep.sources.reading import Fixations, RawReading, Words
from egma_prep.synth import write_tree

Row = tuple[float, float, float, float]
WRONG: dict[str, Callable[[Row], Row]] = {
    "milliseconds taken for seconds": lambda r: (1000 * r[0], 1000 * r[1], r[2], r[3]),
    "a clock that is off": lambda r: (r[0] + 900, r[1] + 900, r[2], r[3]),
    "a screen that was not mapped": lambda r: (r[0], r[1], 4 * r[2] + 300, 4 * r[3]),
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(
        tmp_path_factory.mktemp("lab") / "data", 6, small=True, layout="recordings"
    ).parent


@pytest.mark.parametrize("what", WRONG)
def test_the_reading_with_a_fault_is_drawn(what: str, lab: Path, tmp_path: Path) -> None:
    path = sorted(lab.glob("*/fixations.csv"))[2]
    sound = path.read_text()
    head, *lines = sound.splitlines()
    rows = [WRONG[what](tuple(map(float, line.split(",")))) for line in lines]  # type: ignore[arg-type]
    path.write_text("\n".join([head, *(",".join(map(repr, row)) for row in rows), ""]))
    try:
        said = list(scan_tree(lab, None, None, figures=tmp_path / "figures"))
    finally:
        path.write_text(sound)
    first = next(line for line in said if line.startswith("drawn"))
    assert path.parent.name in first and "of its gaze is on the image" in first
    assert re.search(r"cannot be true|fits least", first)
    assert len(list((tmp_path / "figures").glob("recordings-*.png"))) == 2


def test_a_picture_of_somebody_else_is_not_replaced_by_a_figure(lab: Path, tmp_path: Path) -> None:
    for path in lab.glob("*/fixations.csv"):
        (tmp_path / f"recordings-{path.parent.name}.png").write_bytes(b"mine")
    result = egma_prep("scan", lab, "--figures", tmp_path)
    assert result.exit_code == 2 and "not" in result.output
    assert {path.read_bytes() for path in tmp_path.glob("*.png")} == {b"mine"}


def test_how_gaze_image_and_words_fit_is_measured_as_defined() -> None:
    gaze = np.array([[1.0, 2, 6], [2, 4, 7], [10, 99, 100], [5, 5, 5], *np.ones((2, 3))])
    words = Words(["heart", "normal"], np.array([3.0, 8]), np.array([4.0, 9]))
    raw = RawReading(
        *("a", "r", "s", "t", "d", None, None, "i.png", 100, 50),  # type: ignore[arg-type]
        fixations=Fixations(*gaze), words=words, labels={}, regions=[],
    )  # fmt: skip
    fit = fit_of(raw)
    assert fit is not None
    assert fit == pytest.approx((3 / 4, 2.0, 2.0, 4 / 6))
    assert fit.oddness == pytest.approx(1 / 4 + 2 / 6)
