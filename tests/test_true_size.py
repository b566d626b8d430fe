"""Images and tables of copies, smaller or larger than the release: no peak moves unsaid."""

import csv
import gzip
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import egma_prep, run_etl
from PIL import Image
from tables import by_reading, rejects, table

from egma_prep.errors import BadInputError
from egma_prep.sources import eye_gaze
from egma_prep.sources.csv_table import parse_csv
from egma_prep.synth import write_tree

Trees = dict[str, tuple[Path, dict[tuple[str, str], list[tuple[float, float]]]]]


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Trees:
    """Each layout as released, and where its truth puts each fixation in the frame."""
    root = tmp_path_factory.mktemp("true-size")
    found = {}
    for layout in ("mimic_eye", "eye_gaze"):
        written = write_tree(root / layout, 12, small=True, seed=3, layout=layout)
        truth = json.loads(written.read_text())["readings"]
        found[layout] = (
            root / layout,
            {
                (one["dataset"], one["reading_id"]): [
                    framed(look["x"], look["y"], one["width"], one["height"])
                    for look in one["fixations"]
                    if look.get("valid", True)
                ]
                for one in truth
                if not one["reject"]
            },
        )
    return found


def framed(x: float, y: float, width: int, height: int) -> tuple[float, float]:
    side = max(width, height)
    left, above = (side - width) // 2, (side - height) // 2
    return (x + left + 0.5) * 224 / side - 0.5, (y + above + 0.5) * 224 / side - 0.5


def scale_images(data: Path, factor: float) -> None:
    for path in data.rglob("*.jpg"):
        with Image.open(path) as image:
            size = round(image.width * factor), round(image.height * factor)
            image.convert("L").resize(size).save(path, "JPEG", quality=95)


def change_columns(path: Path, names: set[str], change: Callable[[str], str]) -> None:
    packed = path.suffix == ".gz"
    text = (gzip.decompress if packed else bytes)(path.read_bytes()).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    made = io.StringIO()
    csv.writer(made).writerows(
        [header]
        + [
            [
                change(cell) if name in names else cell
                for name, cell in zip(header, row, strict=True)
            ]
            for row in rows
        ]
    )
    path.write_bytes((gzip.compress if packed else bytes)(made.getvalue().encode()))


SIZES = {"Rows", "Columns", "image_size_x", "image_size_y"}


def scale_tables(data: Path, factor: float) -> None:
    for path in (*data.rglob("cxr_meta.csv"), *data.rglob("metadata.csv")):
        change_columns(path, SIZES, lambda cell: str(round(int(cell) * factor)))


def remove_sizes(data: Path) -> None:
    for path in (*data.rglob("cxr_meta.csv"), *data.rglob("mimic-cxr-*-metadata.csv.gz")):
        path.unlink()
    for path in data.rglob("metadata.csv"):
        change_columns(path, SIZES, lambda _: "")


def farthest_px(out: Path, truth: dict[tuple[str, str], list[tuple[float, float]]]) -> float:
    """How far the worst fixation on the image lies from the truth, in frame pixels."""
    worst = 0.0
    written = by_reading(table(out, "fixations"))
    assert written.keys() == truth.keys()
    for key, rows in written.items():
        for row, told in zip(rows, truth[key], strict=True):
            if row["on_image"]:
                worst = max(worst, abs(row["x_224"] - told[0]), abs(row["y_224"] - told[1]))
    return worst


COPIES = {
    "tables and images smaller": ("mimic_eye", 0.8, True),
    "tables and images larger": ("mimic_eye", 1.5, True),
    "images a little smaller, no table": ("mimic_eye", 0.85, False),
    "images larger, no table": ("mimic_eye", 2.0, False),
    "native, images smaller, no table": ("eye_gaze", 0.9, False),
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.usefixtures("no_cluster")
def test_no_peak_moves_in_a_copy_of_another_size(trees: Trees, tmp_path: Path, name: str) -> None:
    layout, factor, has_tables = COPIES[name]
    source, truth = trees[layout]
    data, out = shutil.copytree(source, tmp_path / "data"), tmp_path / "out"
    scale_images(data, factor)
    if has_tables:
        scale_tables(data, factor)
    else:
        remove_sizes(data)
    done = run_etl(data, out)
    assert done.exit_code == 0, done.output
    assert farthest_px(out, truth) < 1
    notes = json.loads((out / "run.json").read_text())["counts"]["notes"]
    assert notes["size_by_shown"] == len(truth)
    assert notes.get("size_told_contradicted", 0) == (len(truth) if has_tables else 0)
    assert egma_prep("verify", "--out", out, "--against", data).exit_code == 0


@pytest.mark.usefixtures("no_cluster")
def test_a_smaller_copy_without_screen_positions_is_refused_where_gaze_reaches_beyond_it(
    trees: Trees, tmp_path: Path
) -> None:
    data, out = shutil.copytree(trees["eye_gaze"][0], tmp_path / "data"), tmp_path / "out"
    scale_images(data, 0.5)
    remove_sizes(data)
    change_columns(data / "fixations.csv", {"FPOGX", "FPOGY"}, lambda _: "")
    run_etl(data, out, "--max-reject-share", 1)
    found = rejects(out)
    assert {row["reason"] for row in found} == {"no_metadata_row"}
    assert (
        "pixels high" in "".join(row["message"] for row in found) or "wide" in found[0]["message"]
    )


# -- the rule by itself ---------------------------------------------------------------------------

DICOM = "-".join(["0a1b2c3d"] * 5)
BORDER = eye_gaze.Pads(0, 0, 534, 534)
TRUE = 2544, 3056


def gaze(size: tuple[int, int], points: list[tuple[float, float]]) -> "eye_gaze.Table":
    """Write screen positions, and what the release's code makes of them (FORMATS 2.1)."""
    rows = []
    for x, y in points:
        across, down = x * 1920 - 534, y * 1080
        px = int(size[0] / 852 * across), int(size[1] / 1080 * down)
        rows.append(f"7,{DICOM},1,0.1,1,{px[0]},{px[1]},{x:.5f},{y:.5f}\n")
    header = "SESSION_ID,DICOM_ID,FPOGS,FPOGD,FPOGV,X_ORIGINAL,Y_ORIGINAL,FPOGX,FPOGY\n"
    return parse_csv((header + "".join(rows)).encode(), "fixations.csv", ())


def chosen(
    told: tuple[int, int] | None, own: tuple[int, int], points: list[tuple[float, float]]
) -> tuple[tuple[int, int], set[str]]:
    notes: Counter[str] = Counter()
    seen = eye_gaze.seen_size(gaze(TRUE, points), DICOM, BORDER)
    return eye_gaze._size(told, seen, "a.jpg", lambda: own, notes), set(+notes)


LOOKS = [(0.3 + 0.03 * k, 0.1 + 0.05 * k) for k in range(12)]


@pytest.mark.parametrize("factor", [0.98, 1.0, 1.02])
@pytest.mark.parametrize("sides", [(1, 1), (1, 0), (0, 1)])
def test_a_size_that_gaze_contradicts_on_either_side_is_passed_over(
    factor: float, sides: tuple[int, int]
) -> None:
    told = tuple(round(px * factor**on) for px, on in zip(TRUE, sides, strict=True))
    found, notes = chosen(told, TRUE, LOOKS)
    assert found == TRUE
    assert notes == (set() if factor == 1 else {"size_told_contradicted", "size_by_image"})


def test_the_size_that_gaze_tells_is_right_within_a_two_hundredth() -> None:
    (width, height), notes = chosen(None, (1272, 1528), LOOKS)
    assert width == pytest.approx(TRUE[0], rel=0.005)
    assert height == pytest.approx(TRUE[1], rel=0.005)
    assert notes == {"size_by_shown"}


def test_two_looks_or_contradicting_ones_tell_no_size() -> None:
    assert chosen((99, 99), TRUE, LOOKS[:2]) == ((99, 99), set())
    mixed = gaze(TRUE, LOOKS)
    mixed.columns["X_ORIGINAL"][::2] = ["40"] * 6
    mixed.columns["X_ORIGINAL"][1::2] = ["2400"] * 6
    assert eye_gaze.seen_size(mixed, DICOM, BORDER) is None


def test_where_pads_and_gaze_tell_two_heights_either_may_be_the_tables() -> None:
    # Were the mapping down over 1024 lines, which no document rules out, Y would be 5 % larger.
    rows = gaze((2544, 3223), LOOKS)
    seen = eye_gaze.seen_size(rows, DICOM, BORDER)
    for told in (TRUE, (2544, 3223)):
        assert eye_gaze._size(told, seen, "a.jpg", lambda: TRUE, Counter()) == told
    doubted: Counter[str] = Counter()
    assert eye_gaze._size((1272, 1528), seen, "a.jpg", lambda: TRUE, doubted) == (1272, 1528)
    assert doubted == {"size_doubted": 1}
    with pytest.raises(BadInputError, match=r"3223 or 305\d"):
        eye_gaze._size(None, seen, "a.jpg", lambda: (1272, 1528), Counter())
