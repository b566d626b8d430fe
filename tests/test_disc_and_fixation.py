"""A bright disc and one fixation on its centre: picture and heatmap must point to one place."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
from conftest import run_etl
from tables import parts

REFLACX_LABELS = ["Atelectasis", "Consolidation", "Other", "Pneumothorax", "Support devices"]
CHEXPERT_LABELS = [
    "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
    "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion",
    "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
]  # fmt: skip


class Case(NamedTuple):
    """An image by its metadata, where the fixation is, and how much larger the JPEG is."""

    width: int
    height: int
    x: int
    y: int
    jpeg_width: int = 0
    jpeg_height: int = 0

    @property
    def stored(self) -> tuple[int, int]:
        return self.jpeg_width or self.width, self.jpeg_height or self.height

    @property
    def on_jpeg(self) -> tuple[float, float]:
        """The fixation in JPEG pixels: a pixel's centre stays the centre of what it becomes."""
        width, height = self.stored
        return (self.x + 0.5) * width / self.width - 0.5, (
            self.y + 0.5
        ) * height / self.height - 0.5


# The kernel reaches 48 frame pixels: fixations keep away from the frame's edges.
CASES = {
    "portrait": Case(424, 509, 201, 190),
    "landscape": Case(509, 424, 301, 170),
    "square": Case(341, 341, 150, 201),
    "odd portrait": Case(425, 512, 220, 333),
    "odd landscape": Case(511, 424, 190, 133),
    "odd both ways": Case(337, 289, 131, 140),
    "smaller than the frame": Case(181, 211, 88, 101),
    "full-size portrait": Case(2544, 3056, 1011, 1802),
    "full-size landscape": Case(3056, 2544, 1011, 902),
    "full-size square": Case(2048, 2048, 1200, 700),
    "full-size odd portrait": Case(2545, 3057, 1611, 1202),
    "full-size odd padding": Case(2545, 3056, 1200, 1333),
    "full-size odd landscape": Case(3057, 2545, 1402, 1502),
}
RESIZED = {
    "a JPEG of a third of its metadata's size": Case(2544, 3054, 1090, 1501, 848, 1018),
    "a JPEG of three times its metadata's size": Case(848, 1018, 363, 500, 2544, 3054),
}
RESIZED_SMALL = {
    "a small JPEG of a third of its metadata's size": Case(900, 720, 430, 301, 300, 240),
    "a JPEG of three times its small metadata's size": Case(240, 300, 101, 160, 720, 900),
}
ALL = CASES | RESIZED | RESIZED_SMALL


def write_reading(root: Path, number: int, case: Case) -> str:
    """Write all files of one patient with one REFLACX reading; return the reading's id."""
    subject, study = str(10_000_000 + number), str(50_000_000 + number)
    reading = f"P300R{number:06d}"
    dicom = "-".join([f"{number:08x}"] * 5)
    patient = root / f"patient_{subject}"
    image = f"physionet.org/files/mimic-cxr/2.0.0/files/p10/p{subject}/s{study}/{dicom}.dcm"
    _csv(
        patient / "REFLACX" / "metadata.csv",
        ["", "id", "split", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id",
         "image_size_x", "image_size_y", *REFLACX_LABELS],
        [[7, reading, "train", "False", image, dicom, subject, case.width, case.height,
          "0", "3", "", "0", "False"]],
    )  # fmt: skip
    main = patient / "REFLACX" / "main_data" / reading
    _csv(
        main / "fixations.csv",
        ["timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position",
         "pupil_area_normalized", "angular_resolution_x_pixels_per_degree",
         "angular_resolution_y_pixels_per_degree", "window_width", "window_level"],
        [["0.900", "1.400", case.x, case.y, "0.984", 101, 102, "0.85012", "0.49801"]],
    )  # fmt: skip
    _csv(
        main / "timestamps_transcription.csv",
        ["word", "timestamp_start_word", "timestamp_end_word"],
        [["bright", "0.80", "1.10"], ["disc", "1.10", "1.40"], [".", "1.40", "1.70"]],
    )
    ellipse = [case.x - 40, case.y - 40, case.x + 40, case.y + 40, 3]
    _csv(
        main / "anomaly_location_ellipses.csv",
        ["xmin", "ymin", "xmax", "ymax", "certainty", *REFLACX_LABELS],
        [[*ellipse, "False", "True", "False", "False", "False"]],
    )
    _csv(
        main / "chest_bounding_box.csv",
        ["xmin", "ymin", "xmax", "ymax"],
        [[0, 0, case.width, case.height]],
    )
    cxr = patient / "CXR-JPG"
    _csv(
        cxr / "cxr_meta.csv",
        ["", "dicom_id", "subject_id", "study_id", "ViewPosition", "Rows", "Columns"],
        [[3, dicom, subject, study, "PA", case.height, case.width]],
    )
    _csv(
        cxr / "cxr_split.csv",
        ["", "dicom_id", "study_id", "subject_id", "split"],
        [[4, dicom, study, subject, "train"]],
    )
    _csv(
        cxr / "cxr_chexpert.csv",
        ["", "subject_id", "study_id", *CHEXPERT_LABELS],
        [[5, subject, study, "1.0", "-1.0", *[""] * 12]],
    )
    jpeg = cxr / f"s{study}" / f"{dicom}.jpg"
    jpeg.parent.mkdir()
    jpeg.write_bytes(_disc(*case.stored, *case.on_jpeg))
    return reading


def _csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [",".join(map(str, row)) for row in [header, *rows]]
    path.write_text("\r\n".join(lines) + "\r\n", newline="")


def _disc(width: int, height: int, x: float, y: float) -> bytes:
    columns, rows = np.arange(width)[None, :], np.arange(height)[:, None]
    radius = max(width, height) * 0.07
    inside = (columns - x) ** 2 + (rows - y) ** 2 <= radius**2
    pixels = np.where(inside, 255, 0).astype(np.uint8)
    done, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


Outputs = dict[str, dict[str, Any]]


def _run(folder: Path, fit: str) -> tuple[Outputs, dict[str, Any]]:
    """Run the whole command over every case at once; return shard rows by case, and run.json."""
    names = {
        write_reading(folder / "data", number, case): name
        for number, (name, case) in enumerate(ALL.items())
    }
    result = run_etl(folder / "data", folder / "out", "--set", f"image.fit={fit}")
    assert result.exit_code == 0, result.output
    rows = {names[row["reading_id"]]: row for row in parts(folder / "out" / "shards")}
    return rows, json.loads((folder / "out" / "run.json").read_text())


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outputs, dict[str, Any]]:
    return _run(tmp_path_factory.mktemp("padded"), "pad")


@pytest.fixture(scope="module")
def stretched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outputs, dict[str, Any]]:
    return _run(tmp_path_factory.mktemp("stretched"), "stretch")


def _centroid(stored: bytes) -> tuple[float, float]:
    values = np.frombuffer(stored, np.uint8).reshape(224, 224).astype(float)
    # JPEG leaves a little noise on the black around the disc.
    values[values < 2] = 0
    pixels = np.arange(224)
    total = values.sum()
    return float(values.sum(axis=0) @ pixels / total), float(values.sum(axis=1) @ pixels / total)


def _assert_same_place(row: dict[str, Any]) -> None:
    (sentence,) = row["sentences"]
    disc = _centroid(row["image"])
    assert all(60 < place < 164 for place in disc)
    for heatmap in (sentence["heatmap"], row["heatmap"]):
        assert _centroid(heatmap) == pytest.approx(disc, abs=0.1)


@pytest.mark.parametrize("name", CASES)
def test_disc_and_heatmap_have_one_centre(
    padded: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    _assert_same_place(padded[0][name])


@pytest.mark.parametrize("name", CASES)
def test_disc_and_heatmap_have_one_centre_when_stretched(
    stretched: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    _assert_same_place(stretched[0][name])


@pytest.mark.parametrize("name", [*RESIZED, *RESIZED_SMALL])
def test_disc_and_heatmap_have_one_centre_where_the_jpeg_has_another_size(
    padded: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    _assert_same_place(padded[0][name])


def test_images_of_another_size_than_the_metadatas_are_counted(
    padded: tuple[Outputs, dict[str, Any]],
) -> None:
    notes = padded[1]["counts"]["notes"]
    assert notes["image_size_differs"] == len(RESIZED) + len(RESIZED_SMALL)


@pytest.mark.parametrize("name", CASES)
def test_the_disc_is_where_the_padded_frame_puts_the_fixation(
    padded: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    # Both could be wrong together: so also against the transform, done here.
    case = CASES[name]
    side = max(case.width, case.height)
    x = (case.x + (side - case.width) // 2 + 0.5) * 224 / side - 0.5
    y = (case.y + (side - case.height) // 2 + 0.5) * 224 / side - 0.5
    assert _centroid(padded[0][name]["image"]) == pytest.approx((x, y), abs=0.1)


@pytest.mark.parametrize("name", ALL)
def test_the_ellipse_around_the_disc_has_its_centre_too(
    padded: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    row = padded[0][name]
    (ellipse,) = [region for region in row["regions"] if region["kind"] == "ellipse"]
    centre = (ellipse["x0"] + ellipse["x1"]) / 2, (ellipse["y0"] + ellipse["y1"]) / 2
    assert centre == pytest.approx(_centroid(row["image"]), abs=0.1)


@pytest.mark.parametrize("name", ["portrait", "full-size odd portrait"])
def test_a_kernel_of_sixteen_is_about_as_wide_as_it_says(
    padded: tuple[Outputs, dict[str, Any]], name: str
) -> None:
    (sentence,) = padded[0][name]["sentences"]
    values = np.frombuffer(sentence["heatmap"], np.uint8).reshape(224, 224).astype(float)
    x, _ = _centroid(sentence["heatmap"])
    spread = np.sqrt(values.sum(axis=0) @ (np.arange(224) - x) ** 2 / values.sum())
    assert spread == pytest.approx(16, abs=0.5)  # less the tails beyond three sigma
    assert sentence["gaze_seconds"] == pytest.approx(0.5)
    assert sentence["peak_seconds"] == pytest.approx(0.5, rel=1e-2)
    assert (sentence["text"], sentence["words"], sentence["fixations"]) == ("bright disc.", 2, 1)


def test_labels_of_a_handmade_reading_are_its_cells(
    padded: tuple[Outputs, dict[str, Any]],
) -> None:
    assert dict(padded[0]["portrait"]["labels"]) == {
        "chexpert:Atelectasis": 1, "chexpert:Cardiomegaly": -1, "reflacx:Atelectasis": 0,
        "reflacx:Consolidation": 3, "reflacx:Pneumothorax": 0, "reflacx:Support devices": 0,
    }  # fmt: skip
