"""Pictures for evaluation land in the frame as `egma_prep` puts them into shards."""

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil
import pydicom
import pytest
from evaluation import write_dicom, write_picture
from numpy.typing import NDArray
from pydicom.data import get_testdata_files

import egma_prep.images
from egma_prep.errors import BadInputError
from egma_prep.gaze.frame import frame_of
from egma_train.errors import BadUsageError, UnreadableImageError
from egma_train.evaluate.images import ahead as reading
from egma_train.evaluate.images.ahead import read_ahead
from egma_train.evaluate.images.dicom import looks_like_dicom
from egma_train.evaluate.images.frames import is_nearly_one_grey, read_frame, to_frame

SIZES = [(301, 400), (400, 301), (224, 224), (223, 97), (100, 60), (1023, 769), (2751, 2303)]


def shadows(width: int, height: int) -> NDArray[np.float64]:
    """Draw something like an X-ray: soft shadows, edges and noise, 0 to 1."""
    rng = np.random.default_rng(width)
    soft = cv2.resize(rng.random((6, 6)), (width, height), interpolation=cv2.INTER_CUBIC)
    soft[height // 3 : height // 2, width // 4 : width // 2] += 0.3
    return np.clip(soft + rng.normal(0, 0.01, (height, width)), 0, 1)


def prepared(path: Path) -> NDArray[np.uint8]:
    data = path.read_bytes()
    size = egma_prep.images.image_size(data, str(path))
    return egma_prep.images.framed(data, str(path), frame_of(*size))[0]


def grey_levels_apart(path: Path) -> NDArray[np.int64]:
    return np.abs(read_frame(path).astype(np.int64) - prepared(path))


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_jpeg_lands_as_in_the_shards(tmp_path: Path, width: int, height: int) -> None:
    write_picture(tmp_path / "x.jpg", (255 * shadows(width, height)).astype(np.uint8))
    apart = grey_levels_apart(tmp_path / "x.jpg")
    assert np.mean(apart <= 2) >= 0.999  # the shards' reduced decoding
    if max(width, height) < 2750:
        assert apart.max() <= 1


DICOMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "8 bits": (np.uint8, {}),
    "16 bits": (np.uint16, {}),
    "window": (np.uint16, {"WindowCenter": 2000, "WindowWidth": 1500}),
    "rescaled window": (
        np.uint16,
        {"WindowCenter": 500, "WindowWidth": 900, "RescaleSlope": 0.5, "RescaleIntercept": -200},
    ),
    "inverted": (np.uint16, {"PhotometricInterpretation": "MONOCHROME1"}),
}


@pytest.mark.parametrize("kind", DICOMS)
def test_a_dicom_lands_as_in_the_shards(tmp_path: Path, kind: str) -> None:
    dtype, tags = DICOMS[kind]
    peak = 250 if dtype == np.uint8 else 4000
    write_dicom(tmp_path / "x.dcm", (peak * shadows(301, 400)).astype(dtype), **tags)
    assert grey_levels_apart(tmp_path / "x.dcm").max() <= 1
    assert read_frame(tmp_path / "x.dcm").std() > 20


def test_a_dicom_with_a_lookup_table_lands_as_in_the_shards(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4096, 0, 8]
    table.LUTData = (255 * np.linspace(0, 1, 4096) ** 2).astype("<u2").tobytes()
    tags = {"VOILUTSequence": pydicom.Sequence([table])}
    write_dicom(tmp_path / "x.dcm", (4000 * shadows(301, 400)).astype(np.uint16), **tags)
    assert grey_levels_apart(tmp_path / "x.dcm").max() <= 1


def test_a_png_lands_as_its_pixels_would(tmp_path: Path) -> None:
    pixels = np.zeros((448, 224), np.uint8)
    pixels[:224] = 100
    write_picture(tmp_path / "x.png", pixels)
    expected = np.zeros((224, 224), np.uint8)
    expected[:112, 56:168] = 100
    assert (read_frame(tmp_path / "x.png") == expected).all()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "neither a JPEG"),
        (b"<html>", "neither a JPEG"),
        (b"\xff\xd8" + bytes(200), "cut off"),
        (b"\xff\xd8" + bytes(200) + b"\xff\xd9", "cannot be decoded"),
        (bytes(128) + b"DICM" + bytes(200), "DICOM of no image"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=told):
        read_frame(tmp_path / "x")


@pytest.mark.parametrize("shape", [(90, 90), (40, 300), (300, 200)])
def test_a_blank_picture_is_told_from_a_faint_one(shape: tuple[int, int]) -> None:
    """As `egma_prep` counts them, whatever the padding around."""
    rng = np.random.default_rng(0)
    for low, high, blank in [(0, 1, True), (9, 10, True), (255, 256, True), (100, 120, True),
                             (100, 200, False), (0, 256, False)]:  # fmt: skip
        pixels = np.repeat(rng.integers(low, high, (shape[0] // 10, shape[1])), 10, 0)
        assert is_nearly_one_grey(to_frame(pixels.astype(np.uint8))) == blank, (low, high)
    marked = np.full(shape, 30, np.uint8)
    marked[:5, :5] = 255  # the letter of a side
    assert is_nearly_one_grey(to_frame(marked))


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_images_read_in_the_background_come_in_order(tmp_path: Path, ahead: int) -> None:
    paths: list[Path | None] = []
    for i in range(9):
        paths.append(tmp_path / f"{i}.png")
        write_picture(tmp_path / f"{i}.png", np.full((8, 8), i, np.uint8))
    paths[4] = None
    found = list(read_ahead(paths, ahead))
    assert found[4] == "not found"
    assert [int(one[0, 0]) for one in found if not isinstance(one, str)] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_where_cores_are_many_processes_read_images_and_one_that_is_killed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths: list[Path | None] = []
    for i in range(40):
        paths.append(tmp_path / f"{i}.png")
        write_picture(tmp_path / f"{i}.png", np.full((8, 8), i, np.uint8))
    paths[4] = None
    (tmp_path / "7.png").write_bytes(b"cut")
    expected = list(read_ahead(paths, 3))
    monkeypatch.setattr(reading, "_WORTH_PROCESSES", 40)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    before = psutil.Process().children(recursive=True)
    found = read_ahead(paths, 3)
    read = [next(found)]
    readers = [one for one in psutil.Process().children(recursive=True) if one not in before]
    assert len(readers) >= 3
    read += found
    assert [*map(str, read)] == [*map(str, expected)]
    found = read_ahead(paths, 1)
    next(found)
    for one in psutil.Process().children(recursive=True):
        if one not in before:
            one.kill()
    with pytest.raises(BadUsageError, match="a process that reads images was killed"):
        list(found)
    assert len(list(read_ahead(paths, 3))) == 40  # with new ones
    assert [one for one in psutil.Process().children(recursive=True) if one not in before] == []


CORPUS = [path for path in get_testdata_files() if Path(path).is_file()]
HOMES = [above / "shared" / "real" / "images" for above in Path(__file__).parents]
REAL = next((home for home in HOMES if home.is_dir()), HOMES[0])


def ours_and_theirs(path: Path) -> tuple[NDArray[np.int64] | str, NDArray[np.int64] | str]:
    """Read a file by both packages: the frame, or why not."""
    ours: NDArray[np.int64] | str
    theirs: NDArray[np.int64] | str
    try:
        ours = prepared(path).astype(np.int64)
    except BadInputError as error:
        ours = error.reason
    try:
        theirs = read_frame(path).astype(np.int64)
    except UnreadableImageError as error:
        theirs = str(error)
    return ours, theirs


def agree(ours: NDArray[np.int64] | str, theirs: NDArray[np.int64] | str) -> bool:
    """Tell whether both open a file to the same frame, or neither opens it."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return isinstance(ours, str) and isinstance(theirs, str)
    return bool(np.abs(ours - theirs).max() <= 1)


def test_both_packages_agree_on_every_dicom_file_of_pydicoms() -> None:
    dicom = [path for path in map(Path, CORPUS) if looks_like_dicom(path.read_bytes())]
    found = {path.name: ours_and_theirs(path) for path in dicom}
    assert len(dicom) > 100
    assert not [name for name, pair in found.items() if not agree(*pair)]
    assert sum(not isinstance(theirs, str) for _, theirs in found.values()) > 40


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/real beside the checkout")
def test_both_packages_agree_on_real_dicom_files() -> None:
    dicom = [path for path in sorted(REAL.iterdir()) if looks_like_dicom(path.read_bytes())]
    found = {path.name: ours_and_theirs(path) for path in dicom}
    assert len(dicom) >= 12
    assert not [name for name, pair in found.items() if not agree(*pair)]
    assert not [name for name, (_, theirs) in found.items() if isinstance(theirs, str)]
