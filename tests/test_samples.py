"""Fixations that are found in samples of gaze: known ones come out of every format again."""

import csv
import hashlib
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import Campaign, egma_prep, run_etl
from hypothesis import HealthCheck, example, given, settings
from numpy.typing import NDArray
from tables import contents, rejects
from test_fuzz import MUTATIONS, mutated

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.gaze.detect import DETECTORS, Detector, fixations_in, require_detectors
from egma_prep.options import SourceOptions
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import Fixations, RowsOfFile
from egma_prep.sources.samples import detected
from egma_prep.sources.trackers import GazeFile, tracked_gaze
from egma_prep.synth import write_tree

Samples = NDArray[np.float64]

KNOWN = [
    (0.5, 1.0, 400, 300), (1.05, 1.5, 900, 250), (1.6, 2.0, 500, 800),
    (3.0, 4.2, 1000, 700), (4.25, 4.6, 640, 640),
]  # fmt: skip
"""Begin and end (s), x and y (px of a screen of 1920 x 1080); the eye is lost from 2.0 to 3.0 s."""
PX_PER_DEGREE = 40.0


def sampled(hz: float, noise_px: float = 0.1) -> Samples:
    """Make samples (n, 3) of the known fixations: time, x, y; saccades go straight."""
    time = np.arange(0, 5, 1 / hz)
    x, y = np.full((2, len(time)), np.nan)
    for at, (begin, end, across, down) in enumerate(KNOWN):
        inside = (time >= begin) & (time < end)
        x[inside], y[inside] = across, down
        before = KNOWN[at - 1]
        if at and begin - before[1] < 0.5:
            way = (time >= before[1]) & (time < begin)
            share = (time[way] - before[1]) / (begin - before[1])
            x[way] = before[2] + share * (across - before[2])
            y[way] = before[3] + share * (down - before[3])
    noise = np.random.default_rng(0).normal(0, noise_px, (2, len(time)))
    return np.stack([time, x + noise[0], y + noise[1]], axis=1)


def check(begin: Samples, end: Samples, x: Samples, y: Samples, hz: float) -> None:
    """Compare with the known ones: a saccade of 50 ms blurs a fixation's ends."""
    times, places = np.array(KNOWN)[:, :2], np.array(KNOWN)[:, 2:]
    assert len(begin) == len(KNOWN)
    np.testing.assert_allclose(np.stack([begin, end], axis=1), times, atol=1 / hz + 0.02)
    np.testing.assert_allclose(np.stack([x, y], axis=1), places, atol=5)


@pytest.mark.parametrize("kind", DETECTORS)
@pytest.mark.parametrize("hz", [60, 300, 1000])
def test_known_fixations_are_found_within_a_sample(hz: float, kind: str) -> None:
    time, x, y = sampled(hz).T
    options = SourceOptions(detector=kind, dispersion_deg=0.8)
    samples = Fixations(time, time, x, y, *np.full((2, len(time)), PX_PER_DEGREE))
    found, rows, notes = detected(samples, RowsOfFile("gaze.csv"), options)
    check(*found[:4], hz)
    assert np.all(found.px_per_deg_x == PX_PER_DEGREE)
    assert rows.place(0) == f"row {int(np.searchsorted(time, found.begin_s[0])) + 1}"
    inside = sum(
        np.sum((time >= begin) & (time <= end)) for begin, end in zip(*found[:2], strict=True)
    )
    assert notes == {"samples_outside_fixations": len(time) - inside}


@pytest.mark.parametrize("kind", DETECTORS)
def test_no_fixation_goes_on_across_a_gap_or_a_lost_sample(kind: str) -> None:
    time = np.arange(0, 1, 0.01)
    still = np.zeros(100)
    lost = still.copy()
    lost[50] = np.nan
    detector = Detector(kind, 1.0, 30.0, 0.1)
    assert fixations_in(time, still, still, detector).tolist() == [[0, 99]]
    assert fixations_in(time, lost, still, detector).tolist() == [[0, 49], [51, 99]]
    later = np.where(np.arange(100) < 50, time, time + 0.2)
    assert fixations_in(later, still, still, detector).tolist() == [[0, 49], [50, 99]]
    assert fixations_in(time[:5], still[:5], still[:5], detector).size == 0
    assert fixations_in(time, np.full(100, np.nan), still, detector).size == 0
    assert fixations_in(time[:0], still[:0], still[:0], detector).size == 0


@pytest.mark.parametrize("kind", DETECTORS)
def test_thresholds_decide_what_a_fixation_is(kind: str) -> None:
    time = np.arange(0, 1, 0.01)
    drift = 8 * time  # degrees
    loose, strict = Detector(kind, 9.0, 10.0, 0.1), Detector(kind, 0.5, 5.0, 0.1)
    still = np.zeros(100)
    assert len(fixations_in(time, drift, still, loose)) == 1
    assert len(fixations_in(time, drift, still, strict)) == 0
    assert len(fixations_in(time, drift, still, loose._replace(shortest_s=1.5))) == 0


def test_samples_without_degrees_ask_for_the_screen() -> None:
    time, x, y = sampled(60).T
    nobody = np.full(len(time), np.nan)
    samples = Fixations(time, time, x, y, nobody, nobody)
    with pytest.raises(BadInputError, match="width_mm"):
        detected(samples, RowsOfFile("gaze.csv"), SourceOptions())


def test_a_detector_comes_where_torch_is_hidden_and_leaves_it_hidden() -> None:
    program = (
        "import sys; sys.modules['torch'] = None; import numpy as np\n"
        "from egma_prep.gaze.detect import Detector, fixations_in\n"
        "assert 'pymovements' not in sys.modules\n"
        "still = np.zeros(50)\n"
        "print(fixations_in(still.cumsum() + np.arange(50) / 60, still, still,"
        " Detector('idt', 1.0, 30.0, 0.1)), sys.modules['torch'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[[ 0 49]] None", done.stderr


def test_a_missing_detector_is_asked_for_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymovements", None)
    with pytest.raises(BadUsageError, match=r"pip install 'egma\[gaze\]'"):
        require_detectors()


# -- of every format ------------------------------------------------------------------------------


def text(cell: float, decimals: int = 2) -> str:
    return "" if np.isnan(cell) else f"{cell:.{decimals}f}"


def plain(samples: Samples) -> str:
    rows = [f"{time:.5f},{text(x)},{text(y)}" for time, x, y in samples]
    return "\n".join(["t,x,y", *rows, ""])


def eyelink(samples: Samples) -> str:
    lines = ["** CONVERTED FROM PHANTOM", "MSG\t0 DISPLAY_COORDS 0 0 1919 1079",
             "START\t0 \tLEFT\tRIGHT\tSAMPLES", "SAMPLES\tGAZE\tLEFT\tRIGHT"]  # fmt: skip
    for time, x, y in samples:
        right = f"{text(x) or '.'}\t{text(y) or '.'}"
        lines.append(f"{time * 1000:.1f}\t.\t.\t0.0\t{right}\t300.0\t.....")
    return "\n".join([*lines, ""])


def pro_lab(samples: Samples) -> str:
    lines = ["PHANTOM", "Recording timestamp\tSensor\tGaze point X\tGaze point Y"]
    for time, x, y in samples:
        x_cell, y_cell = (text(cell).replace(".", ",") for cell in (x, y))
        lines += [f"{time * 1e6:.0f}\tEye Tracker\t{x_cell}\t{y_cell}",
                  f"{time * 1e6 + 5:.0f}\tMouse\t\t"]  # fmt: skip
    return "\n".join([*lines, ""])


def matlab(samples: Samples) -> str:
    sides = [f"{side}{name}" for side in "LR" for name in ("GazePos2dx", "GazePos2dy", "Validity")]
    lines = ["\t".join(["Time", *sides])]
    for time, x, y in samples:
        lost = 4 * int(np.isnan(x))
        across, down = (0, 0) if lost else ((x + 0.5) / 1920, (y + 0.5) / 1080)
        left, right = f"{across - 0.002:.5f}\t{down:.5f}", f"{across + 0.002:.5f}\t{down:.5f}"
        lines.append(f"{time * 1e6:.0f}\t{left}\t{lost}\t{right}\t{lost}")
    return "\n".join([*lines, ""])


def gazepoint(samples: Samples) -> str:
    lines = ["CNT,TIME(PHANTOM),TIMETICK(f=10000000),FPOGX,BPOGX,BPOGY,BPOGV,"]
    for time, x, y in samples:
        seen = int(not np.isnan(x))
        across, down = ((x + 0.5) / 1920, (y + 0.5) / 1080) if seen else (0.3, 0.3)
        lines.append(f"1,{time:.5f},9,0.5,{across:.5f},{down:.5f},{seen},")
    return "\n".join([*lines, ""])


def pupil(samples: Samples) -> str:
    lines = ["world_timestamp,world_index,gaze_timestamp,x_norm,y_norm,on_surf,confidence"]
    for time, x, y in samples:
        lost = np.isnan(x)
        across, up = (0.7, 0.7) if lost else ((x + 0.5) / 1920, 1 - (y + 0.5) / 1080)
        lines.append(f"0,0,{time:.5f},{across:.5f},{up:.5f},True,{0.3 if lost else 0.9}")
    return "\n".join([*lines, ""])


def begaze(samples: Samples) -> str:
    lines = ["## [BeGaze]", "Time\tType\tTrial\tL POR X [px]\tL POR Y [px]"]
    for time, x, y in samples:
        place = f"{text(x) or '0.00'}\t{text(y) or '0.00'}"
        lines.append(f"{time * 1e6:.0f}\tSMP\t1\t{place}")
    return "\n".join([*lines[:3], "5\tMSG\t1\t# Message: PHANTOM", *lines[3:], ""])


FORMATS: dict[str, tuple[str, Callable[[Samples], str], dict[str, str]]] = {
    "a plain table": ("csv", plain, {"frame": "screen_px"}),
    "EyeLink": ("eyelink", eyelink, {}),
    "Tobii Pro Lab": ("tobii", pro_lab, {}),
    "Tobii's SDK for Matlab": ("tobii", matlab, {}),
    "Gazepoint": ("gazepoint", gazepoint, {}),
    "Pupil Labs Core": ("pupil", pupil, {}),
    "SMI BeGaze": ("begaze", begaze, {}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_samples_of_every_format_are_read_where_they_were(name: str) -> None:
    format_, write, told = FORMATS[name]
    samples = sampled(120)
    gaze = tracked_gaze(
        write(samples).encode(), "gaze", GazeFile(format=format_, from_="samples", **told)
    )
    assert gaze.begin_s == pytest.approx(samples[:, 0], abs=1e-4)
    x, y = gaze.x, gaze.y
    if gaze.frame == "screen_share":
        x, y = x * 1920 - 0.5, y * 1080 - 0.5
    np.testing.assert_allclose(np.stack([x, y], axis=1), samples[:, 1:], atol=0.02)


@pytest.mark.parametrize("name", FORMATS)
def test_any_damage_to_samples_gives_samples_or_a_named_reject(
    name: str, campaign: Campaign
) -> None:
    format_, write, told = FORMATS[name]
    whole = write(sampled(60)[::9]).encode()
    seen = Counter[str]()

    @settings(
        max_examples=campaign.inputs // 3, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @example([])
    @given(MUTATIONS)
    def holds(mutations: list[tuple[str, float, Any]]) -> None:
        data = mutated(whole, mutations)
        for kind in ("samples", "fixations"):
            try:
                tracked_gaze(data, "gaze", GazeFile(format=format_, from_=kind, **told))
                seen["read"] += 1
            except BadInputError as error:
                seen[error.reason] += 1
                assert "\n" not in str(error)

    holds()
    assert seen["read"] and len(seen) > 1


# -- whole runs -----------------------------------------------------------------------------------

FACTS = """name = "PHANTOM"
[gaze]
file = "gaze.txt"
format = "{format}"
from = "samples"
{more}
[screen]
width_px = 1920
height_px = 1080
width_mm = 531
distance_mm = 650
"""


def lab(root: Path, name: str) -> Path:
    """Write one reading of a blank image, which the screen shows pixel by pixel."""
    format_, write, told = FORMATS[name]
    more = "\n".join(f'{key} = "{value}"' for key, value in told.items())
    (root / "r1").mkdir(parents=True)
    (root / "dataset.toml").write_text(FACTS.format(format=format_, more=more))
    edges = "image_x0_px,image_y0_px,image_x1_px,image_y1_px"
    (root / "readings.csv").write_text(f"reading_id,image,{edges}\nr1,a.png,100,40,1300,1040\n")
    picture = np.tile(np.linspace(20, 220, 1200), (1000, 1)).astype(np.uint8)
    cv2.imwrite(str(root / "a.png"), picture)
    (root / "r1" / "gaze.txt").write_text(write(sampled(120)))
    words = "word,begin,end\nheart,0.4,1.2\nnormal.,1.2,2.1\nlungs,3.1,3.9\nclear.,4.0,4.6\n"
    (root / "r1" / "words.csv").write_text(words)
    return root


@pytest.mark.parametrize("name", FORMATS)
def test_a_recording_of_samples_becomes_heatmaps(name: str, tmp_path: Path) -> None:
    data = lab(tmp_path / "lab", name)
    result = run_etl(data, tmp_path / "out", "--set", "source.detector=ivt")
    assert result.exit_code == 0, result.output
    rows = contents(tmp_path / "out")["fixations"]["recordings", "r1"]
    begin, end, x, y = (np.array([row[key] for row in rows]) for key in ("begin", "end", "x", "y"))
    check(begin, end, x + 100, y + 40, 120)
    assert "samples of gaze that are in no fixation" in result.output


def test_the_command_line_asks_for_samples(tmp_path: Path) -> None:
    data = lab(tmp_path / "lab", "Gazepoint")
    toml = (data / "dataset.toml").read_text()
    (data / "dataset.toml").write_text(toml.replace('from = "samples"\n', ""))
    refused = run_etl(data, tmp_path / "without", "--set", "source.detector=ivt")
    assert refused.exit_code == 2
    assert run_etl(data, tmp_path / "out", "--from", "samples").exit_code == 0
    scanned = egma_prep("scan", data, "--from", "samples")
    assert "samples of gaze that are in no fixation" in scanned.output


def test_an_unknown_kind_of_gaze_lists_the_known_ones(tmp_path: Path) -> None:
    data = lab(tmp_path / "lab", "Gazepoint")
    toml = (data / "dataset.toml").read_text()
    (data / "dataset.toml").write_text(toml.replace('"samples"', '"sample"'))
    result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 2
    assert "there are: fixations, samples" in result.output


# -- of the published datasets --------------------------------------------------------------------

HZ = {"reflacx": 250, "eye_gaze": 60}


def cells_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def save(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def sample_reflacx(folder: Path, reading_id: str) -> None:
    """Write a reading's samples as its fixations are; between them the eye is lost."""
    looks = cells_of(folder / "main_data" / reading_id / "fixations.csv")
    eye = [name for name in looks[0] if not name.startswith("timestamp")]
    lost = {**{name: looks[0][name] for name in eye}, **dict.fromkeys(eye[:5], "")}
    spans = [tuple(float(look[name]) for name in list(look)[:2]) for look in looks]
    rows, at = [], 0
    for time in np.arange(0, spans[-1][1] + 0.1, 1 / HZ["reflacx"]):
        while at < len(spans) - 1 and spans[at][1] <= time:
            at += 1
        inside = spans[at][0] <= time < spans[at][1]
        cells = {name: looks[at][name] for name in eye} if inside else lost
        rows.append({"timestamp_sample": f"{time:.3f}", **cells})
    save(folder / "gaze_data" / reading_id / "gaze.csv", rows)


def sample_eye_gaze(folder: Path) -> None:
    """Write all readings' samples as their fixations are; between them the eye is lost."""
    looks = cells_of(folder / "fixations.csv")
    rows = []
    for image in dict.fromkeys(look["DICOM_ID"] for look in looks):
        own = [one for one in looks if one["DICOM_ID"] == image and one["FPOGV"].startswith("1")]
        spans = [(float(one["FPOGS"]), float(one["FPOGS"]) + float(one["FPOGD"])) for one in own]
        at = 0
        for time in np.arange(0, spans[-1][1] + 0.1, 1 / HZ["eye_gaze"]):
            while at < len(spans) - 1 and spans[at][1] <= time:
                at += 1
            seen = int(spans[at][0] <= time < spans[at][1])
            place = {"BPOGX": own[at]["FPOGX"], "BPOGY": own[at]["FPOGY"], "BPOGV": str(seen)}
            rows.append({**own[at], "Time (in secs)": f"{time:.5f}", **place})
    save(folder / "eye_gaze.csv", rows)


def sample_all(root: Path) -> None:
    """Give every reading of a tree whole samples."""
    for path in [*root.rglob("main_data/*/fixations.csv")]:
        sample_reflacx(path.parents[2], path.parent.name)
    for path in [*root.rglob("eye_gaze.csv")]:
        if path.parent.name != "EyeGaze" or "patient" in path.parent.parent.name:
            sample_eye_gaze(path.parent)


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx", "eye_gaze"])
def test_fixations_found_in_published_samples_are_those_that_were_sampled(
    layout: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_tree(data, 8, small=True, layout=layout)
    sample_all(data)
    images = () if layout == "mimic_eye" else ("--images", data / "images")
    for out, more in (("told", ()), ("found", ("--from", "samples"))):
        result = run_etl(data, tmp_path / out, *images, *more, "--set", "source.detector=ivt")
        assert result.exit_code in (0, 1), result.output
    told, found = (contents(tmp_path / out)["fixations"] for out in ("told", "found"))
    assert found.keys() == told.keys()
    assert {dataset for dataset, _ in found} == ({*HZ} if layout == "mimic_eye" else {layout})
    compared = 0
    for one, rows in found.items():
        step = 1 / HZ[one[0]]
        begins = np.array([row["begin"] for row in rows])
        for look in told[one]:
            if look["end"] - look["begin"] < 0.1 + 3 * step or not look["on_image"]:
                continue
            row = rows[int(np.abs(begins - look["begin"]).argmin())]
            assert row["begin"] == pytest.approx(look["begin"], abs=step)
            assert row["end"] == pytest.approx(look["end"], abs=1.01 * step)
            assert (row["x"], row["y"]) == pytest.approx((look["x"], look["y"]), abs=1)
            assert row["px_per_deg_x"] == pytest.approx(look["px_per_deg_x"])
            compared += 1
    assert compared > 50


def test_a_table_of_samples_is_read_row_by_row_where_its_ids_are(tmp_path: Path) -> None:
    rows = [("a", 1), ("b", 2), ("b", 3), ("a", 4), ("c", "x")]
    text = "\ufeffid,value,other\r\n" + "".join(f"{one},{number},9\r\n" for one, number in rows)
    (tmp_path / "t.csv").write_text(text, newline="")
    files = InputFiles(tmp_path)
    table = files.excerpt("t.csv", "id", "a", ["value"])
    assert table.columns["value"] == ["1", "4"]
    assert [table.row_in_file(row) for row in range(2)] == [1, 4]
    assert files.fingerprints["t.csv"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    with pytest.raises(BadInputError, match="row 5, value"):
        files.excerpt("t.csv", "id", "c", ["value"]).numbers("value")
    for name, column, value, reason in (
        ("t.csv", "id", "d", "no_gaze_rows"),
        ("t.csv", "ID", "a", "missing_column"),
        ("u.csv", "id", "a", "missing_file"),
    ):
        with pytest.raises(BadInputError) as refusal:
            files.excerpt(name, column, value, ["value"])
        assert refusal.value.reason == reason


def test_without_samples_a_reading_is_rejected_by_the_missing_file(tmp_path: Path) -> None:
    write_tree(tmp_path / "data", 4, small=True, layout="reflacx")
    for path in (tmp_path / "data").rglob("gaze.csv"):
        path.unlink()
    images = ("--images", tmp_path / "data" / "images")
    result = run_etl(tmp_path / "data", tmp_path / "out", *images, "--from", "samples")
    assert result.exit_code == 2
    assert {row["reason"] for row in rejects(tmp_path / "out")} <= {"missing_file", "discarded"}
