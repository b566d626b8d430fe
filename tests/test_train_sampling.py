"""Epochs, fractions, batches and augmentation: each reading once, nothing by accident."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from egma_train.data.augment import Draws, apply, draw
from egma_train.data.cache import ReadingCache, open_cache
from egma_train.data.loading import BatchLoader, iterate, pixels
from egma_train.data.sampling import (
    Batches,
    chosen_readings,
    readings_with_used_gaze,
)
from egma_train.errors import BadUsageError
from egma_train.launch import _notes
from egma_train.model.tokenizer import make_tokenizer
from egma_train.options import DataOptions, Options


@pytest.fixture(scope="module")
def cache(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> ReadingCache:
    return open_cache(clean_out, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def tokenizer(cache: ReadingCache) -> Any:
    return make_tokenizer(cache.texts(range(len(cache.has_grid))), 500, 77)


class Invented:
    """As much of a cache as sampling looks at."""

    def __init__(self, images: list[int], gaze: list[bool] | None = None) -> None:
        n = len(images)
        self.image_number = np.array(images)
        self.reading_id = np.array([f"P{i:05d}" for i in range(n)])
        self.dataset = np.array(["reflacx"] * n)
        self.split = np.array(["train", "test"] * n)[:n]
        self._gaze = np.array(gaze or [True] * n)

    def __len__(self) -> int:
        return len(self.image_number)

    def readings_with_gaze(self) -> Any:
        return self._gaze


@given(
    images=st.lists(st.integers(0, 15), min_size=1, max_size=80),
    batch_size=st.integers(1, 40),
    epoch=st.integers(0, 3),
)
def test_an_epoch_has_each_reading_once_and_no_batch_two_of_an_image(
    images: list[int], batch_size: int, epoch: int
) -> None:
    numbers = np.array(images)
    batches = Batches(np.arange(len(images)), numbers, batch_size, 5).of(epoch)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(images)))
    for batch in batches:
        assert len(set(numbers[batch].tolist())) == len(batch) <= batch_size
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1
    counted = len(Batches(np.arange(len(images)), numbers, batch_size, 5))
    assert counted == len(batches) and min(sizes) == len(images) // counted


def test_epochs_and_seeds_differ_and_repeat_themselves() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return np.concatenate(Batches(np.arange(50), np.arange(50), 8, seed).of(epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9


def test_every_pair_of_readings_can_meet() -> None:
    met = np.zeros((12, 12), bool)
    for epoch in range(200):
        for batch in Batches(np.arange(12), np.arange(12), 4, 0).of(epoch):
            met[np.ix_(batch, batch)] = True
    assert met.all()


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 37), (0.05, 185), (0.1, 370), (0.3, 1108), (0.5, 1848)]
)
def test_gaze_fractions_give_the_papers_counts(fraction: float, count: int) -> None:
    cache: Any = Invented(list(range(3695)))
    options = DataOptions(gaze_fraction=fraction)
    assert readings_with_used_gaze(cache, np.arange(3695), options, 0).sum() == count


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 36), (0.05, 184), (0.1, 369), (0.3, 1108), (0.5, 1847)]
)
def test_the_published_rounding_gives_the_published_counts(fraction: float, count: int) -> None:
    cache: Any = Invented(list(range(3695)))
    options = DataOptions(gaze_fraction=fraction, gaze_rounding="floor")
    assert readings_with_used_gaze(cache, np.arange(3695), options, 0).sum() == count


@pytest.mark.parametrize(
    ("fraction", "count"), [(0.01, 37), (0.05, 184), (0.1, 369), (0.3, 1107), (0.5, 1844)]
)
def test_the_readings_of_one_an_image_are_six_fewer_and_so_are_some_counts(
    fraction: float, count: int
) -> None:
    images = [*range(3689), *range(6)]
    cache: Any = Invented(images)
    options = DataOptions(gaze_fraction=fraction)
    readings = chosen_readings(cache, options)
    assert len(images) == 3695 and len(readings) == 3689
    assert readings_with_used_gaze(cache, readings, options, 0).sum() == count
    of_all = round(3695 * fraction)
    told = [note for note in _notes(cache, Options(data=options)) if "gaze_fraction" in note]
    assert told == [] if of_all == count else f"is {count} of the 3689 readings" in told[0]
    assert of_all == count or f"of all 3695, as the paper counts, {of_all}" in told[0]


def test_smaller_gaze_fractions_are_nested_in_larger_ones_and_depend_on_the_seed() -> None:
    cache: Any = Invented(list(range(200)), [i % 3 > 0 for i in range(200)])
    used = [
        readings_with_used_gaze(cache, np.arange(200), DataOptions(gaze_fraction=f / 10), 7)
        for f in range(11)
    ]
    assert all((small <= large).all() for small, large in pairwise(used))
    assert used[0].sum() == 0
    np.testing.assert_array_equal(used[10], cache.readings_with_gaze())
    other = readings_with_used_gaze(cache, np.arange(200), DataOptions(gaze_fraction=0.5), 8)
    assert (other != used[5]).any()


def test_of_an_image_the_first_reading_with_gaze_is_taken() -> None:
    cache: Any = Invented([0, 0, 1, 1, 2], [False, True, True, True, False])
    assert chosen_readings(cache, DataOptions()).tolist() == [1, 2, 4]
    every = DataOptions(one_reading_per_image=False)
    assert chosen_readings(cache, every).tolist() == [0, 1, 2, 3, 4]


def test_a_split_can_be_chosen_and_an_unknown_one_lists_the_known() -> None:
    cache: Any = Invented([0, 1, 2, 3, 4])
    assert chosen_readings(cache, DataOptions(splits=("test",))).tolist() == [1, 3]
    with pytest.raises(BadUsageError, match="there are: test, train"):
        chosen_readings(cache, DataOptions(splits=("tran",)))


@pytest.mark.parametrize("splits", [("train", "val"), ("val", "train"), ("train", "")])
def test_each_named_split_must_be_there(splits: tuple[str, ...]) -> None:
    cache: Any = Invented([0, 1, 2])
    with pytest.raises(BadUsageError, match=r"data\.splits\) '(val)?'; there are: test, train$"):
        chosen_readings(cache, DataOptions(splits=splits))


def test_readings_without_a_split_are_named_unknown() -> None:
    cache: Any = Invented([0, 1, 2])
    cache.split = np.array(["", "test", ""])
    assert chosen_readings(cache, DataOptions(splits=("unknown",))).tolist() == [0, 2]
    with pytest.raises(BadUsageError, match="there are: test, unknown"):
        chosen_readings(cache, DataOptions(splits=("train",)))


# -- batches ---------------------------------------------------------------------------------------


def loader_of(cache: ReadingCache, tokenizer: Any, **options: Any) -> BatchLoader:
    return BatchLoader(cache, tokenizer, **({"used_gaze": np.ones(len(cache), bool)} | options))


def test_a_batch_holds_what_the_cache_holds(cache: ReadingCache, tokenizer: Any) -> None:
    readings = np.array([3, 0, 7, 5])
    batch = loader_of(cache, tokenizer).load(readings)
    (part,) = batch.parts
    images, (texts,) = part.images, part.texts
    decoded = tokenizer.batch_decode(texts.input_ids, skip_special_tokens=True)
    at = 0
    for row, i in enumerate(readings):
        np.testing.assert_array_equal(images[row], cache.images[i])
        first, end = cache.offsets[i : i + 2].tolist()
        assert batch.sentence_mask[row].sum() == end - first
        for column, j in enumerate(range(first, end)):
            assert batch.grid_mask[row, column] == cache.has_grid[j]
            np.testing.assert_array_equal(batch.grid[row, column], cache.grids[j])
            told, text = decoded[at].replace(" ", ""), cache.texts([j])[0]
            assert told == text.replace(" ", "").lower()
            assert texts.places[at] == row * batch.sentence_mask.shape[1] + column
            at += 1
    assert at == len(texts.input_ids)


def test_readings_whose_gaze_is_not_used_have_none(cache: ReadingCache, tokenizer: Any) -> None:
    used = np.zeros(len(cache), bool)
    used[4] = True
    batch = loader_of(cache, tokenizer, used_gaze=used).load(np.array([3, 4]))
    assert not batch.grid_mask[0].any() and not batch.grid[0].any()
    assert batch.grid_mask[1].any()


def test_the_whole_readings_gaze_fills_in_where_asked(cache: ReadingCache, tokenizer: Any) -> None:
    lacking = np.flatnonzero(~cache.has_grid)
    reading_of = np.searchsorted(cache.offsets, lacking, side="right") - 1
    chosen = [
        (int(i), int(j - cache.offsets[i]))
        for i, j in zip(reading_of, lacking, strict=True)
        if not np.isnan(cache.reading_grids[i]).any()
    ]
    assert chosen, "the phantoms have a sentence without gaze in a reading with gaze"
    i, column = chosen[0]
    plain = loader_of(cache, tokenizer).load(np.array([i]))
    filled = loader_of(cache, tokenizer, whole_reading_fills_in=True).load(np.array([i]))
    assert not plain.grid_mask[0, column] and filled.grid_mask[0, column]
    np.testing.assert_array_equal(filled.grid[0, column], cache.reading_grids[i])
    others = plain.grid_mask[0]
    np.testing.assert_array_equal(filled.grid[0][others], plain.grid[0][others])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_without_loss(
    cache: ReadingCache, tokenizer: Any, world: int
) -> None:
    readings = np.array([1, 4, 2, 9, 6, 0, 11])
    whole = loader_of(cache, tokenizer).load(readings)
    parts = [
        loader_of(cache, tokenizer, rank=rank, world=world).load(readings) for rank in range(world)
    ]
    shares = [share.parts[0] for share in parts]
    assert torch.equal(torch.cat([one.images for one in shares]), whole.parts[0].images)
    ids = [row for one in shares for row in one.texts[0].input_ids]
    assert len(ids) == len(whole.parts[0].texts[0].input_ids)
    for rank, part in enumerate(parts):
        assert torch.equal(part.grid, whole.grid)
        assert part.readings.tolist() == whole.readings.tolist()
        assert part.images_by_rank[rank] == len(part.parts[0].images)
        assert part.images_by_rank == tuple(map(len, np.array_split(readings, world)))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_change_nothing(cache: ReadingCache, tokenizer: Any, workers: int) -> None:
    loader = loader_of(cache, tokenizer)
    batches = Batches(np.arange(len(cache)), cache.image_number, 5, 0).of(0)
    seen = list(iterate(loader, batches, workers))
    assert [batch.readings.tolist() for batch in seen] == [one.tolist() for one in batches]
    for batch, expected in zip(seen, map(loader.load, batches), strict=True):
        assert torch.equal(batch.grid, expected.grid)
        for part, other in zip(batch.parts, expected.parts, strict=True):
            assert torch.equal(part.images, other.images)
            assert torch.equal(part.texts[0].input_ids, other.texts[0].input_ids)


# -- augmentation ----------------------------------------------------------------------------------


def still(n: int, **changes: Any) -> Draws:
    values: dict[str, Any] = {"brightness": torch.ones(n), "contrast": torch.ones(n)}
    values |= dict.fromkeys(("sharpen", "autocontrast", "contrast_first"))
    return Draws(**(values | {name: torch.tensor(value) for name, value in changes.items()}))


def test_nothing_drawn_changes_nothing() -> None:
    images = torch.rand(3, 8, 8)
    torch.testing.assert_close(apply(images, still(3)), images)


def test_each_change_is_what_can_be_told_by_head() -> None:
    image = torch.tensor([[[0.25, 0.5], [0.5, 0.75]]])
    bright = apply(image, still(1, brightness=[1.2]))
    torch.testing.assert_close(bright, image * 1.2)
    flat = apply(image, still(1, contrast=[0.8]))
    torch.testing.assert_close(flat, torch.tensor([[[0.3, 0.5], [0.5, 0.7]]]))
    stretched = apply(image, still(1, autocontrast=[True]))
    torch.testing.assert_close(stretched, torch.tensor([[[0.0, 0.5], [0.5, 1.0]]]))


def test_contrast_before_brightness_differs_where_a_grey_value_is_clipped() -> None:
    """By head: of 0.1 and 0.9, contrast 1.2 makes 0.02 and 0.98, brightness 1.2 then 0.024 and 1;
    the other way round 0.12 and 1 (clipped from 1.08) become 0.032 and 1."""
    image = torch.tensor([[[0.1, 0.9]]]).repeat(2, 1, 1)
    draws = still(2, brightness=[1.2] * 2, contrast=[1.2] * 2, contrast_first=[True, False])
    found = apply(image, draws)
    torch.testing.assert_close(found, torch.tensor([[[0.024, 1.0]], [[0.032, 1.0]]]))
    darker = still(2, brightness=[0.9] * 2, contrast=[1.1] * 2, contrast_first=[True, False])
    found = apply(image, darker)  # 0.5 -+ 0.44, then 0.9 of it; nothing is clipped
    torch.testing.assert_close(found, torch.tensor([[[0.054, 0.846]]]).repeat(2, 1, 1))


def test_the_drawn_order_is_half_and_half_and_moves_no_other_draw() -> None:
    plain = draw(DataOptions(), 4000, 3, 1)
    drawn = draw(DataOptions(jitter_order="drawn"), 4000, 3, 1)
    assert plain.contrast_first is None and drawn.contrast_first is not None
    assert drawn.contrast_first.double().mean() == pytest.approx(0.5, abs=0.04)
    for name in ("brightness", "contrast", "autocontrast"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(drawn, name))


def test_sharpening_lifts_a_bright_point_and_leaves_flat_areas_and_the_border() -> None:
    image = torch.full((1, 5, 5), 0.3)
    torch.testing.assert_close(apply(image, still(1, sharpen=[True])), image)
    image[0, 2, 2] = 0.43
    sharp = apply(image, still(1, sharpen=[True]))
    assert sharp[0, 2, 2] == pytest.approx(0.43 + 0.13 * 8 / 13)  # away from 5/13 of the point
    assert sharp[0, 1, 1] == pytest.approx(0.3 - 0.13 / 13)
    torch.testing.assert_close(sharp[0, 0], image[0, 0])


def test_flat_images_survive_autocontrast() -> None:
    flat = torch.full((1, 4, 4), 0.5)
    torch.testing.assert_close(apply(flat, still(1, autocontrast=[True])), flat)


def test_draws_stay_in_their_range_and_belong_to_readings_not_batches() -> None:
    options = DataOptions()
    draws = draw(options, 5000, 3, 1)
    assert draws.brightness.min() >= 0.8 and draws.brightness.max() <= 1.2
    assert draws.autocontrast is not None and draws.sharpen is None
    assert draws.autocontrast.double().mean() == pytest.approx(0.5, abs=0.03)
    again = draw(options, 5000, 3, 1).of(np.array([7, 2]))
    assert again.contrast.tolist() == [draws.contrast[7], draws.contrast[2]]
    assert (draw(options, 5000, 3, 2).contrast != draws.contrast).all()


def test_pixels_are_area_means_normalised_three_times() -> None:
    stored = torch.randint(0, 256, (2, 224, 224), dtype=torch.uint8)
    made = pixels(stored, 112, (0.5,), (0.25,), None)
    assert made.shape == (2, 3, 112, 112)
    block = stored[1, 10:12, 20:22].double().mean() / 255
    assert made[1, 0, 5, 10].item() == pytest.approx((block.item() - 0.5) / 0.25, abs=1e-5)
    assert torch.equal(made[:, 0], made[:, 2])
