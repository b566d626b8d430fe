"""Training straight from the shards: their order, what is held at once, resumed runs."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import egma_prep, run_etl
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_train import (
    DIES_AT_A_STEP,
    SMALL,
    assert_same_run,
    begun_like,
    command,
    egma_train,
    metrics_of,
)

from egma_train.data.cache import open_cache
from egma_train.data.loading import BatchLoader
from egma_train.data.sampling import Batches
from egma_train.data.shards import find_shards, read_images, read_shard
from egma_train.data.streaming import ShardImages
from egma_train.errors import BadUsageError

WINDOWS = ("--set", "data.stream=true", "--set", "data.shuffle_buffer=8")


@pytest.fixture(scope="module")
def many(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of a reading or two."""
    out = tmp_path_factory.mktemp("many") / "out"
    result = run_etl(phantom, out, "--set", "execution.readings_per_part=1")
    assert result.exit_code == 0, result.output
    return out


def open_at_each(batches: list[NDArray[Any]], shard_of: NDArray[Any]) -> list[int]:
    """Count the shards that were asked for and will be again, at each batch."""
    needed = [set(shard_of[one].tolist()) for one in batches]
    first, last = {}, {}
    for at, own in enumerate(needed):
        for shard in own:
            first.setdefault(shard, at)
            last[shard] = at
    return [sum(first[s] <= at <= last[s] for s in first) for at in range(len(needed))]


# -- order -----------------------------------------------------------------------------------------


@given(
    shards=st.lists(st.integers(1, 6), min_size=1, max_size=60),
    repeats=st.integers(1, 3),
    batch_size=st.integers(1, 12),
    window=st.integers(1, 40),
)
def test_an_epoch_of_windows_has_each_reading_once_in_batches_like_the_copys(
    shards: list[int], repeats: int, batch_size: int, window: int
) -> None:
    shard_of = np.repeat(np.arange(len(shards)), shards)
    readings = np.arange(len(shard_of))
    images = readings // repeats
    dealt = Batches(readings, images, batch_size, 5, shard_of, window)
    copied = Batches(readings, images, batch_size, 5)
    for epoch in range(3):
        batches = dealt.of(epoch)
        assert len(batches) == len(dealt) == len(copied)  # a schedule of as many steps
        assert sorted(np.concatenate(batches).tolist()) == readings.tolist()
        sizes = {len(batch) for batch in batches}
        assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
        for batch in batches:
            assert len(set(images[batch].tolist())) == len(batch)
        if repeats == 1:
            # Twice a window, the batch between two, and the shards that its edges cut.
            held = max(open_at_each(batches, shard_of))
            assert held <= 2 * window + 2 * max(shards) + batch_size


def test_windows_are_of_other_shards_in_each_epoch_and_epochs_repeat_themselves() -> None:
    shard_of = np.repeat(np.arange(40), 5)
    dealt = Batches(np.arange(200), np.arange(200), 10, 3, shard_of, 40)
    first = [frozenset(shard_of[np.concatenate(dealt.of(epoch)[:5])].tolist()) for epoch in (0, 1)]
    assert first[0] != first[1] and max(map(len, first)) < 15
    again = Batches(np.arange(200), np.arange(200), 10, 3, shard_of, 40)
    for one, other in zip(dealt.of(1), again.of(1), strict=True):
        np.testing.assert_array_equal(one, other)


# -- images ----------------------------------------------------------------------------------------


def test_streamed_images_are_the_copys_and_each_shard_is_read_once(
    many: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copied = open_cache(many, tmp_path)
    streamed = open_cache(many, tmp_path, images=False)
    assert streamed.fingerprint == copied.fingerprint
    assert not list(tmp_path.glob("*-index-*/images"))
    read: list[int] = []
    real = ShardImages.read
    monkeypatch.setattr(ShardImages, "read", lambda own, i: (read.append(i), real(own, i))[1])
    images: Any = streamed.images
    everyone = np.arange(len(copied))
    batches = Batches(everyone, copied.image_number, 4, 0, copied.shard_of, 8).of(0)
    most = 2 * max(open_at_each(batches, copied.shard_of))
    with images.in_order(batches) as ordered:
        for batch in batches:
            np.testing.assert_array_equal(ordered.take(batch), copied.images.take(batch, axis=0))
            assert len(ordered._read) <= most + 1
        assert not ordered._read  # nothing is held that nobody will ask for
    assert sorted(read) == sorted(set(copied.shard_of.tolist()))
    assert most < len(read)  # else nothing was shown


def test_of_several_processes_each_holds_its_own_window_alone(many: Path, tmp_path: Path) -> None:
    """Of a shard that nobody asks all readings of, the rest would stay for ever."""
    cache = open_cache(many, tmp_path, images=False)
    images: Any = cache.images
    batches = Batches(np.arange(len(cache)), cache.image_number, 4, 0, cache.shard_of, 8).of(0)
    for rank in (0, 1):
        loader = BatchLoader(cache, words, cache.has_grid, rank=rank, world=2)
        own = [loader.share(one) for one in batches]
        assert np.concatenate([*own]).size < len(cache)
        with images.in_order(own) as ordered:
            for batch, share in zip(batches, own, strict=True):
                taken = replace(loader, images=ordered).load(batch).parts[0].images
                np.testing.assert_array_equal(taken, images.take(share))
            assert not ordered._read


def words(texts: list[str], **_: Any) -> dict[str, torch.Tensor]:
    return {name: torch.ones(len(texts), 1) for name in ("input_ids", "attention_mask")}


def test_a_shard_that_was_written_anew_or_is_gone_meanwhile_is_told(
    many: Path, tmp_path: Path
) -> None:
    """The same readings with other pictures, as another run into the folder makes them."""
    shutil.copytree(many / "shards", tmp_path / "shards")
    images: Any = open_cache(tmp_path / "shards", tmp_path / "cache", images=False).images
    one = min((tmp_path / "shards").glob("part-*"))
    table = pq.read_table(one)
    dark = pa.array([bytes(224 * 224)] * len(table), table.schema.field("image").type)
    at = table.schema.get_field_index("image")
    pq.write_table(table.set_column(at, table.schema.field("image"), dark), one)
    with pytest.raises(BadUsageError, match="was written anew since this run began: its readings"):
        images.take(np.array([0]))
    one.unlink()
    with pytest.raises(BadUsageError, match=r"cannot be read \(No such file .* put it back"):
        images.take(np.array([0]))


# -- training --------------------------------------------------------------------------------------


def test_a_streamed_run_of_one_window_equals_one_from_the_copy(
    shards: Path, tmp_path: Path
) -> None:
    words = ("--shards", shards, "--out", tmp_path, *SMALL, "--epochs", 2)
    for name, stream in (("copied", "false"), ("streamed", "true")):
        result = egma_train(*words, "--name", name, "--set", f"data.stream={stream}")
        assert result.exit_code == 0, result.output
    assert_same_run(tmp_path / "runs" / "copied", tmp_path / "runs" / "streamed")


@pytest.mark.fault(
    "training that reads straight from the shards is killed",
    "SIGKILL in the second window of an epoch, with a checkpoint in the first",
    "resumed to the same end bit for bit, validation on held-out readings included",
)
def test_a_streamed_run_killed_in_mid_epoch_and_resumed_equals_an_undisturbed_one(
    many: Path, tmp_path: Path
) -> None:
    held = ("--set", "data.validation_split=validate")
    words = ("--shards", many, "--out", tmp_path, *SMALL, *WINDOWS, *held, "--epochs", 1)
    made = egma_train(*words, "--batch-size", 2, "--name", "begun")
    assert made.exit_code == 0, made.output
    begun = tmp_path / "runs" / "begun"
    calm, hurt = (begun_like(begun, tmp_path, name, epochs=2) for name in ("calm", "hurt"))
    every = ("--set", "execution.checkpoint_steps=3")
    assert egma_train(*command(many, tmp_path, "calm", *every)[2:]).exit_code == 0
    words = [
        sys.executable,
        "-c",
        DIES_AT_A_STEP.format(step=8),
        *command(many, tmp_path, "hurt", *every)[2:],
    ]
    assert subprocess.run(words).returncode == -signal.SIGKILL
    assert 0 < len(metrics_of(hurt)) < len(metrics_of(calm)) / 2
    assert egma_train(*command(many, tmp_path, "hurt", *every)[2:]).exit_code == 0
    assert_same_run(calm, hurt)
    assert (calm / "validation.csv").read_text() == (hurt / "validation.csv").read_text()


def test_other_grids_are_not_streamed(shards: Path, tmp_path: Path) -> None:
    words = ("--shards", shards, "--out", tmp_path, *SMALL, "--set", "data.stream=true")
    result = egma_train(*words, "--set", "model.patch_grid=14")
    assert result.exit_code == 2
    assert "data.stream=true is for 7 x 7 patches on the frame" in result.stderr


@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_images_alone_are_those_of_whole_readings(many: Path, tmp_path: Path, kind: str) -> None:
    source = many / "shards"
    if kind == "npz":
        source = tmp_path / "npz"
        assert egma_prep("export", source, "--to", "npz", "--out", many).exit_code == 0
    for path in find_shards(source):
        whole = [one.image for one in read_shard(path) if one.texts]
        assert read_images(path).tobytes() == b"".join(whole)
    cut = tmp_path / f"part-00000.{kind}"
    cut.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(BadUsageError, match="is damaged"):
        read_images(cut)
