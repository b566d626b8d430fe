"""Image files reach each system as its authors' code brings them there."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from evaluation import write_picture
from numpy.typing import NDArray
from PIL import Image

from egma_train.evaluate.images.frames import read_frame
from egma_train.geometry import FRAME, Geometry

Frame = NDArray[np.uint8]
SHAPES = [(300, 411), (411, 300), (97, 64), (224, 224), (640, 641)]


def centre(pixels: Frame, side: int) -> Frame:
    """Cut as torchvision's CenterCrop."""
    rows, columns = pixels.shape
    top, left = round((rows - side) / 2.0), round((columns - side) / 2.0)
    return pixels[top : top + side, left : left + side]


def as_gloria(pixels: Frame) -> Frame:
    """Long side 256 by areas, zeros around, the centre's 224; as MGCA."""
    rows, columns = pixels.shape
    if rows >= columns:
        size = (int(columns * (256 / rows)), 256)
    else:
        size = (256, int(rows * (256 / columns)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    above, beside = 256 - small.shape[0], 256 - small.shape[1]
    edges = ((above // 2, above - above // 2), (beside // 2, beside - beside // 2))
    return centre(np.pad(small, edges), 224)


def shorter_side(pixels: Frame, side: int, how: Image.Resampling) -> Frame:
    rows, columns = pixels.shape
    short, long = sorted((rows, columns))
    longer = int(side * long / short)
    size = (side, longer) if columns <= rows else (longer, side)
    return np.asarray(Image.fromarray(pixels).resize(size, how))


def as_clip(pixels: Frame) -> Frame:
    return centre(shorter_side(pixels, 224, Image.Resampling.BICUBIC), 224)


def as_biovil(pixels: Frame) -> Frame:
    stretched = pixels.astype(float) - pixels.min()
    stretched = (stretched / stretched.max() * 255).astype(np.uint8)
    return centre(shorter_side(stretched, 512, Image.Resampling.BILINEAR), 480)


def as_chexzero(pixels: Frame) -> Frame:
    rows, columns = pixels.shape
    times = 320 / max(rows, columns)
    size = (int(columns * times), int(rows * times))
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    square = Image.new("L", (320, 320))
    square.paste(small, ((320 - size[0]) // 2, (320 - size[1]) // 2))
    return np.asarray(square.resize((224, 224), Image.Resampling.BICUBIC))


def as_siglip(pixels: Frame) -> Frame:
    return np.asarray(Image.fromarray(pixels).resize((384, 384), Image.Resampling.BILINEAR))


WAYS = {
    "GLoRIA and MGCA": (Geometry("pad", 256, 224, "area"), 224, as_gloria),
    "CLIP": (Geometry("shorter", 224, 224, "bicubic"), 224, as_clip),
    "BioViL": (Geometry("shorter", 512, 480, "bilinear", stretch=True), 480, as_biovil),
    "CheXzero": (Geometry("pad", 320, 320, "lanczos"), 224, as_chexzero),
    "SigLIP": (Geometry("squash", 384, 384, "bilinear"), 384, as_siglip),
}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", WAYS)
def test_a_picture_is_prepared_as_the_systems_own_code_does(
    name: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    geometry, side, by_its_authors = WAYS[name]
    drawn = np.random.default_rng(shape[0]).integers(20, 200, (12, 9), np.uint8)
    pixels = cv2.resize(drawn, shape[::-1], interpolation=cv2.INTER_CUBIC).astype(np.uint8)
    write_picture(tmp_path / "x.png", pixels)
    made = read_frame(tmp_path / "x.png", geometry, side)
    assert made.shape == (side, side) and made.dtype == np.uint8
    np.testing.assert_array_equal(made, by_its_authors(pixels))


def test_the_shards_frame_is_what_everything_else_is_told_by(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (448, 448), np.uint8)
    write_picture(tmp_path / "x.png", pixels)
    made = read_frame(tmp_path / "x.png", FRAME)
    means = pixels.reshape(224, 2, 224, 2).mean((1, 3))
    assert np.abs(made - means).max() <= 0.75
