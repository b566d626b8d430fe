"""A patch, the gaze on it and the figure of where it points mean one place of the picture."""

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from conftest import egma_prep
from evaluation import write_picture

from egma_train.data.cache import open_cache
from egma_train.data.grids import Grid, area_weights, on_grid
from egma_train.data.loading import BatchLoader, pixels
from egma_train.data.shards import find_shards, read_shard
from egma_train.evaluate.grounding import measured, measured_as_biovil
from egma_train.evaluate.images.frames import read_frame
from egma_train.geometry import FRAME, Geometry

CELLS = (7, 10, 14, 15, 16, 19, 24, 27, 32, 37)
GEOMETRIES = {
    "frame": (FRAME, 224),
    "GLoRIA's": (Geometry("pad", 256, 224, "area"), 224),
    "CLIP's": (Geometry("shorter", 224, 224, "bicubic"), 224),
    "BioViL's": (Geometry("shorter", 512, 480, "bilinear"), 480),
    "SigLIP's": (Geometry("squash", 384, 384, "bilinear"), 384),
}
SIZES = [(400, 400), (400, 300), (250, 400)]  # width, height


def by_many_points(heatmap: np.ndarray, cells: int, share: tuple[float, float]) -> np.ndarray:
    """Average a map over each cell by 64 x 64 points of it."""
    found = []
    for row, column in itertools.product(range(cells), repeat=2):
        y, x = (
            0.5 + one * ((at + (np.arange(64) + 0.5) / 64) / cells - 0.5)
            for at, one in ((row, share[1]), (column, share[0]))
        )
        own = heatmap[np.ix_((y * 224).astype(int), (x * 224).astype(int))]
        found.append(own.mean() / 255)
    return np.array(found)


@pytest.mark.parametrize("cells", CELLS)
def test_gaze_on_any_grid_is_the_mean_of_the_stored_map_over_each_cell(cells: int) -> None:
    heatmap = np.random.default_rng(cells).integers(0, 256, (224, 224), np.uint8)
    grid = on_grid(heatmap, area_weights(cells))
    assert grid.mean() == pytest.approx(heatmap.mean() / 255, abs=1e-6)
    assert grid == pytest.approx(by_many_points(heatmap, cells, (1, 1)), abs=0.02)


def test_the_7_grid_of_a_map_equals_the_stored_grid(clean_out: Path) -> None:
    compared = 0
    for reading in (one for path in find_shards(clean_out) for one in read_shard(path, maps=True)):
        for heatmap, grid in zip(reading.maps, reading.grids, strict=True):
            if heatmap is not None:
                frame = np.frombuffer(heatmap, np.uint8).reshape(224, 224)
                made = on_grid(frame, area_weights(7))
                np.testing.assert_allclose(made, np.asarray(grid, np.float32), atol=1e-6)
                compared += 1
    assert compared > 20


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_what_is_seen_of_a_frame_is_what_the_preparation_shows_of_the_file(
    name: str, size: tuple[int, int], tmp_path: Path
) -> None:
    geometry, side = GEOMETRIES[name]
    x, y = np.meshgrid(np.linspace(40, 220, size[0]), np.linspace(40, 220, size[1]))
    for ramp, values in (("x", x), ("y", y)):  # smooth, so that no interpolation matters
        write_picture(tmp_path / f"{ramp}.png", values.astype(np.uint8))
        of_file = read_frame(tmp_path / f"{ramp}.png", geometry, side) / 255
        frame = read_frame(tmp_path / f"{ramp}.png")
        shares = torch.from_numpy(geometry.shares([size])).float()
        seen = pixels(torch.from_numpy(frame)[None], side, (0.0,), (1.0,), None, shares)[0, 0]
        inside = of_file > 0.1  # not the black around
        apart = np.abs(seen.numpy() - of_file)[inside]
        assert np.quantile(apart, 0.98) < 0.02
        assert (seen.numpy() > 0.1).mean() == pytest.approx(inside.mean(), abs=0.02)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_patch_is_where_its_gaze_and_its_hit_are(name: str, size: tuple[int, int]) -> None:
    geometry, cells = GEOMETRIES[name][0], 14
    share = geometry.shares(size)
    for row, column in ((2, 3), (7, 12), (13, 0)):
        left, right = (112 + 224 * share[0] * ((column + i) / cells - 0.5) for i in (0, 1))
        top, bottom = (112 + 224 * share[1] * ((row + i) / cells - 0.5) for i in (0, 1))
        heatmap = np.zeros((224, 224), np.uint8)
        heatmap[round(top) : round(bottom), round(left) : round(right)] = 255
        gaze = Grid(cells, geometry).of(heatmap[None], np.array([size]))[0]
        assert gaze.argmax() == row * cells + column and gaze.max() > 0.6
        figures = measured(gaze.astype(np.float64), heatmap > 0, share)
        assert figures["pointing"] == 1 and figures["auroc"] > 0.99 and figures["iou"] > 0.3
        smooth = cv2.GaussianBlur(gaze.reshape(cells, cells), (0, 0), 1).ravel()
        assert measured_as_biovil(smooth.astype(np.float64), heatmap > 0, share)["cnr"] > 1


def test_what_a_system_does_not_see_is_no_hit() -> None:
    share = (0.5, 0.5)
    mask = np.zeros((224, 224), bool)
    mask[:30, :30] = True  # outside the middle
    cosines = np.random.default_rng(0).random(49)
    figures = measured(cosines, mask, share)
    assert figures["pointing"] == 0 and figures["auroc"] < 0.5
    assert figures["chance of pointing"] == 0


def test_an_npz_shard_gives_the_same_sizes_and_batches_their_shares(
    clean_out: Path, tmp_path: Path
) -> None:
    assert egma_prep("export", tmp_path / "npz", "--to", "npz", "--out", clean_out).exit_code == 0
    cache = open_cache(clean_out, tmp_path / "a", maps=True)
    other = open_cache(tmp_path / "npz", tmp_path / "b", maps=True)
    np.testing.assert_array_equal(cache.sizes, other.sizes)
    assert (cache.sizes > 0).all() and len(np.unique(cache.sizes, axis=0)) > 1
    geometry = Geometry("shorter", 224, 224, "bicubic")

    def tokenizer(texts: list[str], **_: object) -> dict[str, torch.Tensor]:
        return dict.fromkeys(("input_ids", "attention_mask"), torch.ones(len(texts), 2))

    loader = BatchLoader(cache, tokenizer, cache.readings_with_gaze(), grid=Grid(14, geometry))
    batch = loader.load(np.arange(4))
    assert batch.parts[0].shares is not None
    expected = cache.sizes[:4].min(1) / cache.sizes[:4].max(1)
    np.testing.assert_allclose(
        batch.parts[0].shares.numpy(), np.repeat(expected[:, None], 2, 1), rtol=1e-6
    )
    for reading, sentence in zip(*np.nonzero(batch.grid_mask.numpy()), strict=True):
        at = cache.offsets[reading] + sentence
        by_hand = by_many_points(cache.maps[at], 14, (expected[reading], expected[reading]))  # type: ignore[index]
        np.testing.assert_allclose(batch.grid[reading, sentence], by_hand, atol=0.03)
