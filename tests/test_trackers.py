"""Eye trackers' exports: real ones where ../shared/real lies beside the checkout, and wounded ones.

What is expected of a real file was read from it by eye, in its own units.
"""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import pytest
from conftest import run_etl
from tables import contents

from egma_prep.errors import BadInputError
from egma_prep.sources.trackers import GazeFile, TrackedGaze, tracked_gaze, trackers
from egma_prep.synth import write_tree
from egma_prep.synth.tracker_files import GAZE_FILES

HOMES = [above / "shared" / "real" for above in Path(__file__).parents]
REAL = next((home for home in HOMES if home.is_dir()), HOMES[0])
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real beside the checkout")

LOOKS = {
    "emdat/4Ctest.csv": "tobii",
    "emdat/P61-Fixation-Data.tsv": "tobii",
    "emdat/SMI_Events_head60.txt": "begaze",
    "gp3_far_chinrest.csv": None,
    "pupil-core/fixations.csv": "pupil",
    "pymovements/18sat_fixfinal.csv": "csv",
    "pymovements/eyelink_binocular_example.asc": "eyelink",
    "pymovements/eyelink_monocular_example.asc": "eyelink",
    "pymovements/raccoons.asc": "eyelink",
    "tobii-tx300-i2mc.tsv": "tobii",
}
"""Which format a real file is of."""


class Expected(NamedTuple):
    """What a file says; `rows` are number, begin, end (s), x, y."""

    count: int
    rows: list[tuple[int, float, float, float, float]]
    frame: str = "screen_px"
    screen_px: tuple[float, float] | None = None
    zero_s: float | None = None
    notes: Mapping[str, int] = MappingProxyType({})


PUPIL = [
    (0, 329367.8728605, 0.20276449999, 0.5006076206214289, 0.489283007793768),
    (8, 329369.637661, 0.09512399998, 0.4782910299494852, 0.3458243675539427),
    (18, 329371.1396185, 0.08260799996, 0.5007450679537242, 0.4921933755598194),
    (28, 329373.0921635, 0.09011699997, 0.43273372250221415, 0.39729481442262743),
    (35, 329374.691748, 0.21277750004, 0.437284628676584, 0.3067389365846124),
]
FILES = {
    "emdat/P61-Fixation-Data.tsv": Expected(
        4664,
        [
            (0, 0.026, 0.659, 513, 518),
            (980, 371.143, 371.243, 602, 443),
            (2480, 970.507, 970.857, 568, 364),
            (4660, 1833.827, 1833.993, 333, 163),
            (4663, 1840.173, 1840.823, 1277, 91),
        ],
        screen_px=(1280, 1024),
    ),
    "emdat/SMI_Events_head60.txt": Expected(
        10,
        [
            (0, 167531.377718, 167531.619504, 951.83, 791.40),
            (1, 167531.627759, 167531.931233, 940.24, 751.16),
            (5, 167532.954041, 167533.537935, 634.82, 1058.25),
            (8, 167535.990483, 167536.090565, 563.02, 1111.01),
            (9, 167536.415966, 167536.549318, 994.56, 1093.76),
        ],
        zero_s=167531.284088,  # its message has the name of the stimulus
        notes={"fixations_of_the_other_eye": 10},
    ),
    "pupil-core/fixations.csv": Expected(
        36,
        [(at, begin, begin + lasted, x, 1 - y) for at, begin, lasted, x, y in PUPIL],
        "screen_share",
        notes={"gaze_of_the_scene": 1},
    ),
    "pymovements/eyelink_binocular_example.asc": Expected(
        2,
        [(0, 1408.667, 1408.777, 956.3, 541.9), (1, 1408.899, 1409.027, 945.6, 539.6)],
        screen_px=(1920, 1080),
        notes={"fixations_of_the_other_eye": 2},
    ),
    "pymovements/eyelink_monocular_example.asc": Expected(
        2,
        [(0, 2154.563, 2154.695, 141.0, 132.2), (1, 2339.246, 2339.290, 638.5, 531.8)],
        screen_px=(1280, 1024),
        zero_s=2096.371,  # 2096367 -4 SYNCTIME
        notes={"several_trials": 4},
    ),
    "pymovements/raccoons.asc": Expected(
        1, [(0, 147.953, 148.207, 1008.6, 1190.4)], screen_px=(1920, 1080)
    ),
}


def read(name: str, **told: str) -> TrackedGaze:
    data = (REAL / "gaze" / name).read_bytes()
    return tracked_gaze(data, name, GazeFile(format=told.pop("format", LOOKS[name]), **told))


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_fixations_of_a_real_file_are_what_it_says(name: str) -> None:
    expected, gaze = FILES[name], read(name)
    assert {len(column) for column in gaze[:4]} == {expected.count}
    for at, *row in expected.rows:
        assert [float(column[at]) for column in gaze[:4]] == pytest.approx(row, abs=1e-6)
    assert gaze.frame == expected.frame
    assert gaze.screen_px == expected.screen_px
    assert gaze.zero_s == pytest.approx(expected.zero_s)
    assert {name: count for name, count in gaze.notes.items() if count} == expected.notes


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_rows_of_a_real_file_are_named_as_an_editor_counts_them(name: str) -> None:
    gaze = read(name)
    kind, number = gaze.rows.place(0).split()
    lines = (REAL / "gaze" / name).read_text().splitlines()
    header = next((at for at, line in enumerate(lines) if "imestamp" in line), 0)
    line = lines[int(number) - 1 if kind == "line" else header + int(number)]
    assert f"{gaze.x[0]:g}"[:5] in line


@needs_real
def test_the_other_eye_is_taken_where_it_is_asked_for() -> None:
    gaze = read("pymovements/eyelink_binocular_example.asc", eye="left")
    assert gaze.x.tolist() == [961.2, 959.6]
    with pytest.raises(BadInputError, match="no fixation of the right eye"):
        read("pymovements/raccoons.asc", eye="right")


@needs_real
def test_every_real_file_looks_like_one_format_at_most() -> None:
    found = {path.relative_to(REAL / "gaze"): path for path in (REAL / "gaze").rglob("*.*")}
    names = {str(name): path for name, path in found.items() if name.parts[0] != "vidln"}
    assert {*names} == {*LOOKS}
    for name, path in names.items():
        data = path.read_bytes()
        says = [one for one, tracker in trackers().items() if tracker.looks_like(data)]
        assert says == [LOOKS[name]] * (LOOKS[name] is not None), name


@needs_real
@pytest.mark.parametrize("name", FILES)
def test_a_real_file_under_another_formats_name_is_refused_by_its_own(name: str) -> None:
    for other in {*trackers()} - {LOOKS[name]}:
        with pytest.raises(BadInputError) as refusal:
            read(name, format=other)
        assert refusal.value.reason == "wrong_format"
        assert f"no {other!r} file" in str(refusal.value)
        assert f"looks like {LOOKS[name]!r}" in str(refusal.value)


@needs_real
def test_a_table_of_calibration_targets_is_no_gaze() -> None:
    for name in trackers():
        with pytest.raises(BadInputError):
            read("gp3_far_chinrest.csv", format=name)


@needs_real
def test_a_report_of_data_viewer_without_times_lacks_a_column() -> None:
    columns = {"begin": "CURRENT_FIX_START", "duration": "CURRENT_FIX_DURATION",
               "x": "CURRENT_FIX_X", "y": "CURRENT_FIX_Y"}  # fmt: skip
    path = REAL / "gaze" / "pymovements/18sat_fixfinal.csv"
    with pytest.raises(BadInputError, match="no column 'CURRENT_FIX_START'"):
        tracked_gaze(path.read_bytes(), path.name, GazeFile(columns=columns))


def test_a_report_of_data_viewer_with_times_is_read_by_its_columns() -> None:
    table = b"CURRENT_FIX_START,CURRENT_FIX_DURATION,CURRENT_FIX_X,CURRENT_FIX_Y\n1500,250,60.5,7\n"
    columns = {"begin": "CURRENT_FIX_START", "duration": "CURRENT_FIX_DURATION",
               "x": "CURRENT_FIX_X", "y": "CURRENT_FIX_Y"}  # fmt: skip
    told = GazeFile(time_unit="ms", frame="screen_px", columns=columns)
    gaze = tracked_gaze(table, "report.csv", told)
    assert [column.tolist() for column in gaze[:4]] == [[1.5], [1.75], [60.5], [7.0]]


# -- Tobii's many names and units -----------------------------------------------------------------

STUDIO = (
    "Timestamp;GazeEventType;GazeEventDuration;FixationIndex;FixationPointX (MCSpx);"
    "FixationPointY (MCSpx)\n"
    "100;Fixation;200;1;10,5;20\n117;Fixation;200;1;10,5;20\n300;Saccade;33;2;;\n"
    "333;Fixation;100;3;30;40,25\n350;Unclassified;17;;;\n"
)


def tobii(text: str, encoding: str = "utf-8") -> TrackedGaze:
    return tracked_gaze(text.encode(encoding), "gaze.tsv", GazeFile(format="tobii"))


def test_studios_rows_of_samples_become_fixations_in_pixels_of_the_media() -> None:
    gaze = tobii("PHANTOM prose; of a study\nParticipant;A\n\n" + STUDIO)
    np.testing.assert_allclose(gaze[:4], [[0.1, 0.333], [0.3, 0.433], [10.5, 30], [20, 40.25]])
    assert gaze.frame == "image_px"
    assert gaze.notes["fixation_rows_twice"] == 1


def test_rows_without_an_index_are_one_fixation_while_nothing_else_comes_between() -> None:
    rows = "100\tFixation\t50\t5\t6\n150\tSaccade\t20\t\t\n170\tFixation\t50\t5\t6\n"
    header = "Recording timestamp\tEye movement type\tGaze event duration\tFixation point X\t"
    gaze = tobii(f"{header}Fixation point Y\n{rows}")
    assert gaze.begin_s == pytest.approx([0.1, 0.17])


@pytest.mark.parametrize("thousandth", [1, 1000])
def test_a_clock_without_a_unit_is_told_by_the_durations(thousandth: int) -> None:
    header = "Recording timestamp\tGaze event duration\tFixation point X\tFixation point Y\n"
    rows = [f"{at * thousandth}\t200\t{at}\t6\n" for at in (1000, 1250, 1500, 3000)]
    assert tobii(header + "".join(rows)).begin_s.tolist() == pytest.approx([1, 1.25, 1.5, 3])


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_a_header_in_another_encoding_is_read(encoding: str) -> None:
    header = "Recording timestamp [µs]\tGaze event duration [ms]\tFixation point X [DACS px]\t"
    rows = "1000000\t200\t5\t6\n1300000\t200\t7\t8\n"
    gaze = tobii(f"Prüfling\n{header}Fixation point Y [DACS px]\n{rows}", encoding)
    assert gaze.begin_s.tolist() == pytest.approx([1.0, 1.3])


def test_mapped_fixations_on_a_media_give_way_to_those_of_the_screen() -> None:
    header = "Recording timestamp [ms]\tGaze event duration [ms]\t"
    names = [f"Fixation point {axis} [{frame}]" for frame in ("MCS px", "DACS px") for axis in "XY"]
    gaze = tobii(header + "\t".join(names) + "\n0\t100\t1\t2\t3\t4\n")
    assert (gaze.x[0], gaze.y[0], gaze.frame) == (3, 4, "screen_px")


# -- EyeLink's screens and frames -----------------------------------------------------------------


def asc(*lines: str) -> bytes:
    preamble = ["** CONVERTED FROM PHANTOM.edf", "** TYPE: EDF_FILE", "MSG\t1 PHANTOM"]
    return "\n".join([*preamble, *lines, "EFIX L 1000 1200 201 100.0 50.0 300", ""]).encode()


@pytest.mark.parametrize(
    ("told", "size"),
    [
        ("DISPLAY_COORDS 0 0 1919 1079", (1920, 1080)),
        ("DISPLAY_COORDS = 0 0 1365 767", (1366, 768)),
        ("GAZE_COORDS 0.00 0.00 1920.00 1080.00", (1920, 1080)),
        ("DISPLAY_COORDS 0 0 0 0", None),
        ("DISPLAY_COORDS 0 0 1.2.3 4", None),
    ],
)
def test_the_screen_is_what_the_messages_say(told: str, size: tuple[int, int] | None) -> None:
    gaze = tracked_gaze(asc(f"MSG\t5 {told}"), "a.asc", GazeFile(format="eyelink"))
    assert gaze.screen_px == size


def test_a_screen_right_of_another_begins_at_its_own_corner() -> None:
    data = asc("MSG\t5 DISPLAY_COORDS 80 0 1999 1079")
    gaze = tracked_gaze(data, "a.asc", GazeFile(format="eyelink"))
    assert (gaze.x[0], gaze.screen_px) == (20, (1920, 1080))


def test_angles_of_the_head_are_not_taken_for_pixels() -> None:
    with pytest.raises(BadInputError, match="HREF"):
        tracked_gaze(asc("EVENTS\tHREF\tLEFT"), "a.asc", GazeFile(format="eyelink"))


def test_a_fixation_whose_place_was_lost_is_left_out_and_counted() -> None:
    data = asc("EFIX L 500 700 201 . . 0")
    gaze = tracked_gaze(data, "a.asc", GazeFile(format="eyelink"))
    assert (gaze.begin_s.tolist(), gaze.notes["rows_that_are_no_fixations"]) == ([1.0], 1)


# -- BeGaze's samples -----------------------------------------------------------------------------


def test_samples_that_say_of_which_event_they_are_become_fixations() -> None:
    header = "## [BeGaze]\n## Sample Rate:\t250\n## Calibration Area:\t1680\t1050\n"
    names = "Time\tType\tTrial\tL POR X [px]\tL POR Y [px]\tL Event Info\n"
    kinds = ["Fixation"] * 3 + ["Saccade", "Fixation", "Blink"]
    rows = [f"{at * 4000}\tSMP\t1\t{at}.0\t9.0\t{kind}\n" for at, kind in enumerate(kinds)]
    rows.insert(2, "7999\tMSG\t1\t# Message: PHANTOM.png\n")
    data = (header + names + "".join(rows)).encode()
    gaze = tracked_gaze(data, "raw.txt", GazeFile(format="begaze"))
    np.testing.assert_allclose(gaze[:4], [[0, 0.016], [0.008, 0.016], [1, 4], [9, 9]])
    assert gaze.screen_px == (1680, 1050)


# -- damage ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", ["1e300", "-1e9", "9" * 400])
def test_a_place_on_no_screen_is_named_by_its_row(x: str) -> None:
    table = f"begin,end,x,y\n0,1,5,5\n1,2,{x},5\n".encode()
    with pytest.raises(BadInputError, match="row 2"):
        tracked_gaze(table, "fixations.csv", GazeFile())


# -- samples --------------------------------------------------------------------------------------

REAL_SAMPLES = {
    "tobii-tx300-i2mc.tsv": (
        1206,
        39,  # of which both eyes were lost
        [
            (0, 2640.808332, (0.4735 + 0.4699) / 2, (0.4912 + 0.4629) / 2),
            (1, 2640.811685, (0.4807 + 0.4630) / 2, (0.4849 + 0.4867) / 2),
            (598, 2642.801378, (0.7459 + 0.7433) / 2, (0.7894 + 0.8230) / 2),
            (1205, 2644.824448, (0.3496 + 0.3323) / 2, (0.8109 + 0.8153) / 2),
        ],
    ),
    "pymovements/eyelink_binocular_example.asc": (
        368,
        80,
        [(0, 1408.660, 960.5, 538.8), (1, 1408.661, 960.4, 539.5)],
    ),
    "pymovements/eyelink_monocular_example.asc": (
        16,
        0,
        [(2, 2154.560, 137.9, 131.6), (4, 2154.596, 139.6, 132.1), (7, 2154.695, 147.2, 134.4)],
    ),
    "pymovements/raccoons.asc": (
        433,
        85,
        [(7, 147.953, 1004.7, 1187.6), (10, 147.956, 1009.1, 1187.1)],
    ),
}


@needs_real
@pytest.mark.parametrize("name", REAL_SAMPLES)
def test_samples_of_a_real_file_are_what_it_says(name: str) -> None:
    count, lost, rows = REAL_SAMPLES[name]
    gaze = read(name, from_="samples")
    assert len(gaze.begin_s) == count
    assert int(np.isnan(gaze.x).sum()) == lost
    for at, *row in rows:
        assert [gaze.begin_s[at], gaze.x[at], gaze.y[at]] == pytest.approx(row, abs=1e-6)


@needs_real
def test_pairs_of_tobiis_sdk_are_read_until_the_row_in_which_the_file_was_cut() -> None:
    with pytest.raises(BadInputError, match="row 454 has 11 cells"):
        read("emdat/4Ctest.csv", from_="samples")
    whole = (REAL / "gaze" / "emdat/4Ctest.csv").read_bytes().rpartition(b"\r\n")[0]
    gaze = tracked_gaze(whole, "4C.csv", GazeFile(format="tobii", from_="samples"))
    assert (len(gaze.x), gaze.frame) == (453, "screen_share")
    expected = [
        (0, 491.999899, (0.10997918 + 0.13755353) / 2, (0.64418060 + 0.63654298) / 2),
        (1, 492.011002, (0.10899146 + 0.13900353) / 2, (0.64836454 + 0.63598228) / 2),
        (199, 494.209420, (0.39053982 + 0.41722929) / 2, (1.87245405 + 2.15999269) / 2),
        (451, 497.007408, (0.08000418 + 0.11039071) / 2, (0.76242590 + 0.76259850) / 2),
    ]
    for at, *row in expected:
        assert [gaze.begin_s[at], gaze.x[at], gaze.y[at]] == pytest.approx(row, abs=1e-6)


@needs_real
@pytest.mark.parametrize("name", ["emdat/4Ctest.csv", "tobii-tx300-i2mc.tsv"])
def test_a_file_of_samples_alone_asks_for_them(name: str) -> None:
    with pytest.raises(BadInputError, match='from = "samples"'):
        read(name)


def test_the_wanted_eye_of_samples_is_taken() -> None:
    header = "\t".join(f"{eye}{name}" for eye in "LR" for name in ("GazePos2dx", "GazePos2dy"))
    data = f"Time\t{header}\n1000\t0.1\t0.2\t0.3\t0.4\n2000\t0.1\t0.2\t0.3\t0.4\n".encode()
    told = GazeFile(format="tobii", from_="samples")
    found = [tracked_gaze(data, "a", told._replace(eye=eye)).x[0] for eye in ("left", "right", "")]
    assert found == pytest.approx([0.1, 0.3, 0.2])


def test_two_samples_of_one_millisecond_are_half_a_millisecond_apart() -> None:
    lines = [f"{at // 2}\t100.0\t50.0\t300.0" for at in range(2000, 2006)]
    data = asc("START\t1000 \tRIGHT\tSAMPLES\tEVENTS", *lines)
    gaze = tracked_gaze(data, "a.asc", GazeFile(format="eyelink", from_="samples"))
    np.testing.assert_allclose(np.diff(gaze.begin_s), 0.0005)


# -- to the heatmap -------------------------------------------------------------------------------

SCREENS = {
    "emdat/P61-Fixation-Data.tsv": (1280, 1024),
    "emdat/SMI_Events_head60.txt": (2048, 1152),
    "emdat/4Ctest.csv": (1920, 1080),
}
"""Of a laboratory that says it itself."""


def real_lab(root: Path, name: str, kind: str, facts: str = "") -> Path:
    """Make a recording of a real tracker's file, a recogniser's words and an X-ray."""
    (root / "r1").mkdir(parents=True)
    shutil.copy(REAL / "images" / "nih-00000001_000.png", root / "xray.png")
    data = (REAL / "gaze" / name).read_bytes()
    if name == "emdat/4Ctest.csv":
        data = data.rpartition(b"\r\n")[0]  # its last row is cut
    (root / "r1" / Path(name).name).write_bytes(data)
    heard = json.loads((REAL / "asr" / "dg_transcription.json").read_text())
    said = heard["results"]["channels"][0]["alternatives"][0]["words"][:40]
    with (root / "r1" / "words.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["word", "begin", "end"])
        writer.writerows([one["punctuated_word"], one["start"], one["end"]] for one in said)
    told = GazeFile(format=LOOKS[name], from_=kind)
    begin_s = float(tracked_gaze(data, name, told).begin_s[0])
    (root / "readings.csv").write_text(f"reading_id,image,audio_offset_s\nr1,xray.png,{begin_s}\n")
    width, height = SCREENS.get(name, (1920, 1080))
    gaze = f'[gaze]\nfile = "{Path(name).name}"\nformat = "{LOOKS[name]}"\nfrom = "{kind}"\n{facts}'
    screen = f"[screen]\nwidth_px = {width}\nheight_px = {height}\nwidth_mm = 510\n"
    (root / "dataset.toml").write_text(f"{gaze}\n{screen}distance_mm = 600\n")
    return root


@needs_real
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "fixations") for name in FILES if "monocular" not in name),
        ("emdat/4Ctest.csv", "samples"),
        ("tobii-tx300-i2mc.tsv", "samples"),
        ("pymovements/eyelink_binocular_example.asc", "samples"),
    ],
)
def test_a_real_recording_becomes_heatmaps(name: str, kind: str, tmp_path: Path) -> None:
    data = real_lab(tmp_path / "lab", name, kind)
    result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = contents(tmp_path / "out")
    rows, shard = found["fixations"]["recordings", "r1"], found["shards"]["recordings", "r1"]
    assert len(rows) == FILES[name].count if kind == "fixations" else rows
    assert 0 <= rows[0]["begin"] < (0.001 if kind == "fixations" else 1)
    # The image of 512 x 512 pixels was fitted to the middle of the screen, as is noted.
    assert "taken as fitted to its middle" in result.output
    width, height = SCREENS.get(name, (1920, 1080))
    if kind == "fixations" and FILES[name].frame == "screen_px":
        x, y = FILES[name].rows[0][3:]
        assert rows[0]["x"] == pytest.approx((x + 0.5 - width / 2) * 512 / height + 255.5)
        assert rows[0]["y"] == pytest.approx((y + 0.5) * 512 / height - 0.5)
    on_image = [row for row in rows if 0 <= row["x"] < 512 and 0 <= row["y"] < 512]
    assert [row["on_image"] for row in rows].count(True) == len(on_image)
    assert bool(shard["heatmap"]) == bool(on_image)
    assert len(shard["sentences"]) >= 2


@needs_real
def test_a_clock_of_its_own_asks_where_the_audio_began(tmp_path: Path) -> None:
    data = real_lab(tmp_path / "lab", "pupil-core/fixations.csv", "fixations")
    (data / "readings.csv").write_text("reading_id,image\nr1,xray.png\n")
    result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 2
    assert "begins at 329,368 s of a clock of its own; give audio_offset_s" in result.output


# -- what would look right and be wrong -----------------------------------------------------------


def test_numbers_that_begin_again_are_other_fixations() -> None:
    tsv = "Recording timestamp [ms]\tEye movement type\tGaze event duration [ms]\t"
    tsv += "Eye movement type index\tFixation point X\tFixation point Y\n"
    rows = [(0, 1, 10), (16, 1, 10), (200, 2, 20), (500, 1, 30)]
    tsv += "".join(f"{begin}\tFixation\t100\t{number}\t{x}\t5\n" for begin, number, x in rows)
    assert tobii(tsv).x.tolist() == [10, 20, 30]
    table = "FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV\n"
    table += "".join(f"0.{x},0.5,{begin},10,{number},1\n" for begin, number, x in rows)
    gaze = tracked_gaze(table.encode(), "a.csv", GazeFile(format="gazepoint"))
    assert gaze.x.tolist() == [0.10, 0.20, 0.30]
    table = "fixation_id,start_timestamp,duration,norm_pos_x,norm_pos_y,on_surf\n"
    table += "".join(f"{number},{begin},90,0.{x},0.25,True\n" for begin, number, x in rows[1:])
    gaze = tracked_gaze(table.encode(), "a.csv", GazeFile(format="pupil"))
    assert (gaze.x.tolist(), gaze.y.tolist()) == ([0.10, 0.20, 0.30], [0.75] * 3)


@pytest.mark.parametrize("frame", ["screen_px", "image_px"])
def test_shares_are_not_taken_for_pixels_by_what_a_laboratory_says(frame: str) -> None:
    table = b"FPOGX,FPOGY,FPOGS,FPOGD,FPOGID,FPOGV\n0.5,0.5,1,0.2,1,1\n"
    told = GazeFile(format="gazepoint", frame=frame)
    with pytest.raises(BadInputError, match=f"has screen_share, .* {frame}"):
        tracked_gaze(table, "a.csv", told)
    gaze = tracked_gaze(table, "a.csv", told._replace(frame="image_share"))
    assert gaze.frame == "image_share"


def test_the_scene_of_a_camera_is_noted_unless_a_laboratory_says_what_it_is() -> None:
    table = b"id,start_timestamp,duration,norm_pos_x,norm_pos_y\n1,2.0,100,0.5,0.25\n"
    gaze = tracked_gaze(table, "a.csv", GazeFile(format="pupil"))
    assert gaze.notes["gaze_of_the_scene"] == 1
    gaze = tracked_gaze(table, "a.csv", GazeFile(format="pupil", frame="image_share"))
    assert gaze.notes["gaze_of_the_scene"] == 0


@pytest.mark.parametrize("name", [name for name in GAZE_FILES if name != "csv"])
def test_a_file_that_was_cut_anywhere_never_gives_another_fixation(
    name: str, tmp_path: Path
) -> None:
    write_tree(tmp_path, 2, small=True, layout="recordings", gaze=name)
    path = sorted(tmp_path.glob(f"*/{GAZE_FILES[name].file}"))[0]
    lines = path.read_bytes().splitlines(keepends=True)
    data = b"".join(lines[: len(lines) - len(lines) % 4][-60:])
    data = b"".join(lines[:12]) + data if name in ("eyelink", "begaze") else lines[0] + data
    whole = {row[:1] + row[2:] for row in zip(*columns(data, name), strict=True)}
    for cut in range(len(data) - 120, len(data)):
        try:
            gaze = tracked_gaze(data[:cut], path.name, GazeFile(format=name))
        except BadInputError:
            continue
        told = {row[:1] + row[2:] for row in zip(*columns(data[:cut], name), strict=True)}
        assert told <= whole or gaze.rows.is_cut  # as is counted, and said
        assert len(told - whole) <= 1


def columns(data: bytes, name: str) -> list[list[float]]:
    gaze = tracked_gaze(data, "gaze", GazeFile(format=name))
    return [np.round(column, 6).tolist() for column in gaze[:4]]


@pytest.mark.parametrize(("frame", "scale"), [("screen_px", 1), ("image_share", 1000)])
def test_places_in_another_unit_than_told_are_refused(frame: str, scale: float) -> None:
    rows = [f"{at},{at + 0.5},{scale * 0.2 * at},{scale * 0.5}" for at in range(1, 5)]
    data = "\n".join(["begin,end,x,y", *rows, ""]).encode()
    with pytest.raises(BadInputError, match=f"told to have {frame}, but"):
        tracked_gaze(data, "a.csv", GazeFile(frame=frame))
