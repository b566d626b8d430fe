"""Every map, number, label and region of a whole run, worked out again from truth and raw files."""

import csv
import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep
from numpy.typing import NDArray
from tables import Key, by_reading, key, shards, table

Row = dict[str, Any]
Truth = dict[str, Any]


class Window(NamedTuple):
    """What should get a map, and from when to when gaze counts for it."""

    text: str
    begin: float
    end: float
    start: float
    words: int


def _readings(truth: Truth) -> Iterator[Row]:
    yield from (one for one in truth["readings"] if one["reject"] is None)


def _words(tokens: list[Row]) -> int:
    return sum(any(character.isalnum() for character in token["text"]) for token in tokens)


def _sentence_windows(reading: Row, start: Callable[[Row, Row | None], float]) -> list[Window]:
    windows, before = [], None
    for one in reading["sentences"]:
        tokens = reading["tokens"][one["first_token"] : one["last_token"] + 1]
        windows.append(
            Window(one["text"], one["begin"], one["end"], start(one, before), _words(tokens))
        )
        before = one
    return windows


def _spoken(reading: Row) -> list[Window]:
    return _sentence_windows(reading, lambda one, before: one["begin"])


def _led_by(lead_s: float) -> Callable[[Row], list[Window]]:
    def start(one: Row, before: Row | None) -> float:
        return max(one["begin"] - lead_s, before["begin"] if before else 0.0)

    return lambda reading: _sentence_windows(reading, start)


def _with_pause(reading: Row) -> list[Window]:
    return _sentence_windows(reading, lambda one, before: before["end"] if before else 0.0)


def _word_by_word(reading: Row) -> list[Window]:
    return [
        Window(token["text"], token["begin"], token["end"], token["begin"], 1)
        for token in reading["tokens"]
        if _words([token])
    ]


class Case(NamedTuple):
    """Flags of ``render-heatmaps``, and what they should mean."""

    flags: tuple[str, ...]
    sigma: float | None
    windows: Callable[[Row], list[Window]]


CASES = {
    "sigma 16, as run": Case((), 16.0, _spoken),
    "sigma 8": Case(("--sigma", "8"), 8.0, _spoken),
    "one degree": Case(("--sigma", "1deg"), None, _spoken),
    "lead of 1.5 s": Case(("--lead", "1.5"), 16.0, _led_by(1.5)),
    # Longer than many sentences, so that the begin of the one before comes first.
    "lead of 6 s": Case(("--lead", "6"), 16.0, _led_by(6)),
    "with the pause before": Case(("--window", "pause"), 16.0, _with_pause),
    "word by word": Case(("--level", "word"), 16.0, _word_by_word),
}


class Rendered(NamedTuple):
    """A case and the shards that came out of it."""

    case: Case
    rows: dict[Key, Row]


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def rendered(
    request: pytest.FixtureRequest, clean_out: Path, tmp_path_factory: pytest.TempPathFactory
) -> Rendered:
    case: Case = request.param
    if not case.flags:
        return Rendered(case, shards(clean_out))
    copy = tmp_path_factory.mktemp("rendered") / "out"
    shutil.copytree(clean_out, copy)
    in_threads = ("--set", "execution.processes=false")
    result = egma_prep("render-heatmaps", "--out", copy, *case.flags, *in_threads)
    assert result.exit_code == 0, result.output
    return Rendered(case, shards(copy))


@pytest.fixture(scope="module")
def degrees(clean_out: Path) -> dict[Key, list[tuple[float, float]]]:
    """Original pixels per degree of every fixation."""
    rows = by_reading(table(clean_out, "fixations"))
    return {
        one: [(row["px_per_deg_x"], row["px_per_deg_y"]) for row in found]
        for one, found in rows.items()
    }


class Kernel(NamedTuple):
    """A fixation on the image, in frame pixels."""

    begin: float
    end: float
    x: float
    y: float
    sigma_x: float
    sigma_y: float


def _kernels(reading: Row, sigma: float | None, degrees: list[tuple[float, float]]) -> list[Kernel]:
    width, height = reading["width"], reading["height"]
    side = max(width, height)
    found = []
    for one, (degree_x, degree_y) in zip(reading["fixations"], degrees, strict=True):
        if one["on_image"]:
            x = (one["x"] + (side - width) // 2 + 0.5) * 224 / side - 0.5
            y = (one["y"] + (side - height) // 2 + 0.5) * 224 / side - 0.5
            sigma_x = degree_x * 224 / side if sigma is None else sigma
            sigma_y = degree_y * 224 / side if sigma is None else sigma
            found.append(Kernel(one["begin"], one["end"], x, y, sigma_x, sigma_y))
    return found


def _summed(kernels: list[Kernel], seconds: list[float]) -> NDArray[np.float64]:
    """Add each fixation's Gaussian, seconds high, to the pixels within three sigma."""
    total = np.zeros((224, 224))
    for one, weight in zip(kernels, seconds, strict=True):
        if weight <= 0:
            continue
        rows = [v for v in range(224) if abs(v - one.y) <= 3 * one.sigma_y]
        columns = [u for u in range(224) if abs(u - one.x) <= 3 * one.sigma_x]
        down = (np.array(rows)[:, None] - one.y) ** 2 / (2 * one.sigma_y**2)
        across = (np.array(columns)[None, :] - one.x) ** 2 / (2 * one.sigma_x**2)
        total[np.ix_(rows, columns)] += weight * np.exp(-(across + down))
    return total


def _assert_map(stored: bytes | None, total: NDArray[np.float64]) -> None:
    if not total.any():
        assert stored is None
        return
    assert stored is not None
    values = np.frombuffer(stored, np.uint8).reshape(224, 224)
    assert values.max() == 255
    expected = np.floor(255 * total / total.max() + 0.5 + 1e-9)
    assert np.abs(values - expected).max() <= 1


def _seconds_in(window: Window, kernels: list[Kernel]) -> list[float]:
    shared = [min(window.end, one.end) - max(window.start, one.begin) for one in kernels]
    return [max(0.0, seconds) for seconds in shared]


def test_every_map_is_the_direct_sum_over_the_true_fixations(
    rendered: Rendered, truth: Truth, degrees: dict[Key, list[tuple[float, float]]]
) -> None:
    maps = empty = 0
    for reading in _readings(truth):
        row = rendered.rows[key(reading)]
        kernels = _kernels(reading, rendered.case.sigma, degrees[key(reading)])
        _assert_map(row["heatmap"], _summed(kernels, [one.end - one.begin for one in kernels]))
        windows = rendered.case.windows(reading)
        for window, sentence in zip(windows, row["sentences"], strict=True):
            total = _summed(kernels, _seconds_in(window, kernels))
            _assert_map(sentence["heatmap"], total)
            if sentence["heatmap"] is None:
                assert sentence["peak_seconds"] is None and sentence["grid"] is None
                empty += 1
            else:
                assert sentence["peak_seconds"] == pytest.approx(total.max(), rel=1e-5)
                maps += 1
    assert maps > 80 and empty  # or the phantom has lost what this is about


def test_every_grid_is_the_area_means_of_its_map(rendered: Rendered) -> None:
    for row in rendered.rows.values():
        for sentence in row["sentences"]:
            if sentence["heatmap"] is None:
                continue
            values = np.frombuffer(sentence["heatmap"], np.uint8).reshape(224, 224)
            means = [
                values[32 * v : 32 * v + 32, 32 * u : 32 * u + 32].mean() / 255
                for v in range(7)
                for u in range(7)
            ]
            assert sentence["grid"] == pytest.approx(means, abs=1e-6)


def test_every_window_has_the_gaze_of_the_truth(rendered: Rendered, truth: Truth) -> None:
    for reading in _readings(truth):
        seen = [
            Kernel(one["begin"], one["end"], 0, 0, 1, 1)
            for one in reading["fixations"]
            if one["on_image"]
        ]
        windows = rendered.case.windows(reading)
        for window, found in zip(windows, rendered.rows[key(reading)]["sentences"], strict=True):
            seconds = _seconds_in(window, seen)
            assert found["gaze_seconds"] == pytest.approx(sum(seconds), abs=1e-5)
            assert found["fixations"] == sum(one > 1e-9 for one in seconds)
            assert (found["text"], found["words"]) == (window.text, window.words)
            assert found["begin"] == pytest.approx(window.begin, abs=1e-9)
            assert found["end"] == pytest.approx(window.end, abs=1e-9)


def test_rendering_again_leaves_everything_else(rendered: Rendered, clean_out: Path) -> None:
    def rest(row: Row) -> Row:
        return {name: row[name] for name in row if name not in ("heatmap", "sentences")}

    before = shards(clean_out)
    assert {one: rest(row) for one, row in rendered.rows.items()} == {
        one: rest(row) for one, row in before.items()
    }


@pytest.mark.parametrize("rendered", [CASES["word by word"]], indirect=True, ids=["word by word"])
def test_words_of_no_length_get_no_map(truth: Truth, rendered: Rendered) -> None:
    found = 0
    for reading in _readings(truth):
        for sentence in rendered.rows[key(reading)]["sentences"]:
            if sentence["begin"] == sentence["end"]:
                assert sentence["heatmap"] is None
                assert (sentence["fixations"], sentence["gaze_seconds"]) == (0, 0)
                found += 1
    assert found


def test_pixels_per_degree_are_the_raw_files(
    phantom: Path, truth: Truth, degrees: dict[Key, list[tuple[float, float]]]
) -> None:
    for reading in _readings(truth):
        found = degrees[key(reading)]
        if reading["dataset"] == "reflacx":
            raw = _csv(_reflacx_folder(phantom, reading) / "fixations.csv")
            name = "angular_resolution_{}_pixels_per_degree".format
            assert found == [(float(row[name("x")]), float(row[name("y")])) for row in raw]
        else:
            sheet = _eye_gaze_row(phantom, reading)
            top, bottom, left, right = (
                int(sheet[f"image_{side}_pad"]) for side in ("top", "bottom", "left", "right")
            )
            expected = (
                39.9 * reading["width"] / (1920 - left - right),
                39.9 * reading["height"] / (1024 - top - bottom),
            )
            assert all(one == pytest.approx(expected) for one in found)


# Raw files, read by nothing but csv.


def _csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _patient(phantom: Path, reading: Row) -> Path:
    return phantom / f"patient_{reading['subject_id']}"


def _reflacx_folder(phantom: Path, reading: Row) -> Path:
    return _patient(phantom, reading) / "REFLACX" / "main_data" / reading["reading_id"]


def _eye_gaze_row(phantom: Path, reading: Row) -> dict[str, str]:
    rows = _csv(_patient(phantom, reading) / "EyeGaze" / "master_sheet.csv")
    (row,) = [row for row in rows if row["dicom_id"] == reading["dicom_id"]]
    return row


def _number(cell: str) -> float:
    return {"True": 1.0, "False": 0.0}[cell] if cell in ("True", "False") else float(cell)


def _filled(cells: dict[str, str], prefix: str) -> dict[str, float]:
    return {f"{prefix}:{name}": _number(cell) for name, cell in cells.items() if cell.strip()}


def _expected_labels(phantom: Path, reading: Row) -> dict[str, float]:
    studies = _csv(_patient(phantom, reading) / "CXR-JPG" / "cxr_chexpert.csv")
    (study,) = [row for row in studies if row["study_id"] == reading["study_id"]]
    chexpert = {
        name: cell for name, cell in study.items() if name not in ("", "subject_id", "study_id")
    }
    if reading["dataset"] == "reflacx":
        rows = _csv(_patient(phantom, reading) / "REFLACX" / "metadata.csv")
        (row,) = [row for row in rows if row["id"] == reading["reading_id"]]
        names = list(row)[list(row).index("image_size_y") + 1 :]
        own = _filled({name: row[name] for name in names if name != "Other"}, "reflacx")
    else:
        row = _eye_gaze_row(phantom, reading)
        names = list(row)
        names = names[names.index("Normal") : names.index("support_devices__chx") + 1]
        own = _filled({name: row[name] for name in names}, "eye_gaze")
    return _filled(chexpert, "chexpert") | own


def test_labels_are_the_filled_cells_of_the_raw_tables(
    clean_out: Path, phantom: Path, truth: Truth
) -> None:
    found = shards(clean_out)
    kinds = set()
    for reading in _readings(truth):
        labels = found[key(reading)]["labels"]
        assert dict(labels) == pytest.approx(_expected_labels(phantom, reading))
        assert len(dict(labels)) == len(labels)
        kinds |= {(name.partition(":")[0], value) for name, value in labels}
    assert {("chexpert", 1.0), ("reflacx", 5.0), ("reflacx", 0.0), ("eye_gaze", 1.0)} <= kinds


def test_free_text_is_no_label(clean_out: Path, phantom: Path) -> None:
    said = [row["Other"] for path in phantom.glob("*/REFLACX/metadata.csv") for row in _csv(path)]
    assert any(said)
    for row in shards(clean_out).values():
        assert "reflacx:Other" not in dict(row["labels"])


def _corners(reading: Row, x: list[float], y: list[float]) -> tuple[float, float, float, float]:
    width, height = reading["width"], reading["height"]
    side = max(width, height)
    x0, x1 = ((v + (side - width) // 2 + 0.5) * 224 / side - 0.5 for v in sorted(x))
    y0, y1 = ((v + (side - height) // 2 + 0.5) * 224 / side - 0.5 for v in sorted(y))
    return x0, y0, x1, y1


Place = tuple[str, str, tuple[float, float, float, float], float | None]


def _expected_regions(phantom: Path, reading: Row) -> list[Place]:
    if reading["dataset"] == "eye_gaze":
        rows = _csv(_patient(phantom, reading) / "EyeGaze" / "bounding_boxes.csv")
        return [
            (
                row["bbox_name"],
                "box",
                _corners(
                    reading,
                    [float(row["x1"]), float(row["x2"])],
                    [float(row["y1"]), float(row["y2"])],
                ),
                None,
            )
            for row in rows
            if row["dicom_id"] == reading["dicom_id"]
        ]
    folder = _reflacx_folder(phantom, reading)

    def place(row: dict[str, str]) -> tuple[float, float, float, float]:
        x = [float(row["xmin"]), float(row["xmax"])]
        return _corners(reading, x, [float(row["ymin"]), float(row["ymax"])])

    ellipses = [
        (name, "ellipse", place(row), float(row["certainty"]))
        for row in _csv(folder / "anomaly_location_ellipses.csv")
        for name, cell in row.items()
        if cell == "True"
    ]
    (chest,) = _csv(folder / "chest_bounding_box.csv")
    return [*ellipses, ("chest", "box", place(chest), None)]


def test_regions_are_the_raw_ellipses_and_boxes_in_the_frame(
    clean_out: Path, phantom: Path, truth: Truth
) -> None:
    found = shards(clean_out)
    shared = 0
    for reading in _readings(truth):
        ours = [
            (one["name"], one["kind"], *(one[side] for side in ("x0", "y0", "x1", "y1")),
             one["certainty"] if one["certainty"] is not None else math.nan)
            for one in found[key(reading)]["regions"]
        ]  # fmt: skip
        theirs = [
            (name, kind, *corners, math.nan if certainty is None else certainty)
            for name, kind, corners, certainty in _expected_regions(phantom, reading)
        ]
        # One ellipse with two labels is two regions at one place.
        ellipses = [one for one in theirs if one[1] == "ellipse"]
        shared += len(ellipses) - len({one[2:6] for one in ellipses})
        assert [one[:2] for one in sorted(ours)] == [one[:2] for one in sorted(theirs)]
        for mine, other in zip(sorted(ours), sorted(theirs), strict=True):
            np.testing.assert_allclose(mine[2:], other[2:], rtol=1e-5, atol=1e-4)
    assert shared


def test_the_shards_say_how_they_were_rendered(clean_out: Path, tmp_path: Path) -> None:
    copy = tmp_path / "out"
    shutil.copytree(clean_out, copy)
    done = egma_prep(
        "render-heatmaps", "--out", copy, "--sigma", "1deg", "--lead", "1.5", "--window", "pause",
        "--set", "execution.processes=false", "--set", "render.truncate=2.5",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    expected = {
        "sigma": "1deg", "truncation": "2.5", "window": "pause", "lead": "1.5", "fit": "pad",
        "image_size": "224", "level": "sentence",
    }  # fmt: skip
    for path in (copy / "shards").glob("*.parquet"):
        facts = pq.read_schema(path).metadata
        for name, value in expected.items():
            assert facts[f"egma.{name}".encode()].decode() == value
    options = json.loads((copy / "run.json").read_text())["options"]
    assert options["render"]["sigma"] == "1deg"
