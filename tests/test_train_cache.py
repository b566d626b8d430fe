"""Shards to the memory-mapped cache: the same content, and one line for what cannot be read."""

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from conftest import egma_prep

from egma_prep import open_shards, render_heatmaps
from egma_train.data.cache import ReadingCache, open_cache, shrunk
from egma_train.data.grids import antialias_weights, area_weights
from egma_train.data.shards import find_shards, fingerprint, read_shard
from egma_train.errors import BadUsageError

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def cache(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> ReadingCache:
    return open_cache(clean_out, tmp_path_factory.mktemp("cache"), maps=True)


def caches(root: Path) -> list[Path]:
    """The folders of arrays, without the lock and notes beside them."""
    return sorted(path for path in root.iterdir() if path.is_dir())


@pytest.fixture
def shards(clean_out: Path, tmp_path: Path) -> Path:
    """A copy of shards that a test may hurt."""
    shutil.copytree(clean_out / "shards", tmp_path / "shards")
    shutil.copy(clean_out / "run.json", tmp_path / "run.json")
    return tmp_path


def test_the_cache_holds_what_pandas_reads(cache: ReadingCache, clean_out: Path) -> None:
    frames = [pd.read_parquet(path) for path in sorted((clean_out / "shards").iterdir())]
    rows = pd.concat(frames, ignore_index=True)
    assert len(cache) == len(rows)
    for i, row in rows.iterrows():
        assert cache.reading_id[i] == row.reading_id and cache.dataset[i] == row.dataset
        assert cache.images[i].tobytes() == row.image
        numbers, counts = cache.sentences_of(np.array([i]))
        assert counts.tolist() == [len(row.sentences)]
        assert cache.texts(numbers) == [sentence["text"] for sentence in row.sentences]
        for j, sentence in zip(numbers, row.sentences, strict=True):
            assert cache.has_grid[j] == (sentence["grid"] is not None)
            expected = np.zeros(49) if sentence["grid"] is None else sentence["grid"]
            np.testing.assert_array_equal(cache.grids[j], expected)
            assert cache.maps is not None
            assert cache.maps[j].any() == (sentence["heatmap"] is not None)
            assert cache.maps[j].tobytes() == (sentence["heatmap"] or bytes(224 * 224))


def test_readings_of_one_image_share_its_number(cache: ReadingCache, clean_out: Path) -> None:
    frames = [pd.read_parquet(path) for path in sorted((clean_out / "shards").iterdir())]
    ids = pd.concat(frames).dicom_id.to_numpy()
    same = cache.image_number[:, None] == cache.image_number
    np.testing.assert_array_equal(same, ids[:, None] == ids)
    assert same.sum() > len(cache)  # there are re-reads


def test_the_whole_readings_grid_is_the_area_mean_of_its_map(
    cache: ReadingCache, clean_out: Path
) -> None:
    row = pd.read_parquet(sorted((clean_out / "shards").iterdir())[0]).iloc[0]
    full = np.frombuffer(row.heatmap, np.uint8).reshape(224, 224) / 255
    expected = [
        full[32 * r : 32 * r + 32, 32 * c : 32 * c + 32].mean() for r in range(7) for c in range(7)
    ]
    np.testing.assert_allclose(cache.reading_grids[0], expected, atol=1e-6)


def shrunk_by_hand(frame: np.ndarray) -> np.ndarray:
    """Shrink to 7 x 7 by triangles of 64 px, cell by cell and pixel by pixel."""
    found = np.zeros((7, 7))
    for row in range(7):
        for column in range(7):
            total = weights = 0.0
            for y in range(max(0, 32 * row - 16), min(224, 32 * row + 48)):
                for x in range(max(0, 32 * column - 16), min(224, 32 * column + 48)):
                    far_y, far_x = abs(y - 32 * row - 15.5) / 32, abs(x - 32 * column - 15.5) / 32
                    weight = (1 - far_y) * (1 - far_x)
                    total, weights = total + weight * frame[y, x], weights + weight
            found[row, column] = total / weights
    return found.ravel() / 255


def test_the_antialiased_grid_is_that_of_triangles_and_of_torch() -> None:
    frame = np.zeros((224, 224), np.uint8)
    frame[33:40, 130:190] = 255
    frame[200:, :3] = 40
    found = shrunk(frame.tobytes(), antialias_weights(7))
    np.testing.assert_allclose(found, shrunk_by_hand(frame), atol=1e-6)
    by_torch = torch.nn.functional.interpolate(
        torch.from_numpy(frame)[None, None] / 255, (7, 7), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(found, by_torch.numpy().ravel(), atol=1e-6)
    # Rows 33 to 39 lie in cell row 1 alone, but the triangle of row 0 reaches down to 47.
    assert (
        shrunk(frame.tobytes(), area_weights(7)).reshape(7, 7)[0].max()
        == 0
        < found.reshape(7, 7)[0].max()
    )


def test_a_cache_of_antialiased_grids_holds_those_of_every_map(
    cache: ReadingCache, clean_out: Path, tmp_path: Path
) -> None:
    other = open_cache(clean_out, tmp_path, antialias=True)
    assert other.maps is None and cache.maps is not None
    np.testing.assert_array_equal(other.has_grid, cache.has_grid)
    for i in np.flatnonzero(cache.has_grid)[:2]:
        np.testing.assert_allclose(other.grids[i], shrunk_by_hand(cache.maps[i]), atol=1e-6)
    positive = (other.grids > 0).mean(1), (cache.grids > 0).mean(1)
    assert (positive[0] >= positive[1]).all()
    wider = positive[0][cache.has_grid].mean() - positive[1][cache.has_grid].mean()
    assert 0.05 < wider < 0.4  # labels reach half a cell further on every side
    known = ~np.isnan(cache.reading_grids[:, 0])
    assert (other.reading_grids[known] != cache.reading_grids[known]).any()
    assert len(caches(tmp_path)) == 1
    open_cache(clean_out, tmp_path)  # of areas lies beside it
    assert len(caches(tmp_path)) == 2


def test_npz_shards_give_the_same_cache(
    cache: ReadingCache, clean_out: Path, tmp_path: Path
) -> None:
    assert egma_prep("export", tmp_path / "npz", "--to", "npz", "--out", clean_out).exit_code == 0
    other = open_cache(tmp_path / "npz", tmp_path / "cache", maps=True)
    for name in ("images", "grids", "has_grid", "reading_grids", "offsets", "reading_id", "maps"):
        np.testing.assert_array_equal(getattr(other, name), getattr(cache, name))
    every = range(len(cache.has_grid))
    assert other.texts(every) == cache.texts(every)
    assert other.split.tolist() == cache.split.tolist()


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_the_golden_shards_are_read(kind: str, version: str) -> None:
    readings = list(read_shard(GOLDEN / f"shard-{version}.{kind}", maps=True))
    told = [one for reading in readings for one in reading.affirms()]
    assert told == ([None, None] if version == "v1" else [False, False])
    assert readings and all(len(reading.image) == 224 * 224 for reading in readings)
    assert any(grid is not None for reading in readings for grid in reading.grids)


def test_the_gaze_of_sentences_that_affirm_a_finding_alone_is_used(shards: Path) -> None:
    cache = open_cache(shards)
    affirming = [
        any(m["kind"] == "finding" and not m["negated"] for m in one.mentions or ())
        for reading in open_shards(shards)
        for one in reading.sentences
    ]
    assert cache.affirms.astype(bool).tolist() == affirming
    left = cache.of_affirmed()
    assert left.has_grid.tolist() == (cache.has_grid & np.array(affirming)).tolist()
    assert 0 < left.has_grid.sum() < cache.has_grid.sum()
    assert left.texts(range(len(affirming))) == cache.texts(range(len(affirming)))


def test_shards_that_do_not_tell_mentions_cannot_be_asked_for_them(tmp_path: Path) -> None:
    shutil.copy(GOLDEN / "shard-v1.parquet", tmp_path / "part-00000.parquet")
    with pytest.raises(BadUsageError, match="schema 1"):
        open_cache(tmp_path).of_affirmed()


def test_grids_of_maps_whose_sum_is_one_are_shares_everywhere(
    clean_out: Path, tmp_path: Path
) -> None:
    shards = tmp_path / "out"
    shutil.copytree(clean_out, shards)
    plain = open_cache(shards)
    render_heatmaps(shards, {"render": {"normalise": "sum"}, "execution": {"processes": False}})
    cache = open_cache(shards)
    sums = cache.grids[cache.has_grid].sum(axis=1)
    assert np.allclose(sums, 1) and not np.allclose(plain.grids[plain.has_grid].sum(axis=1), 1)
    known = ~np.isnan(cache.reading_grids[:, 0])
    assert np.allclose(cache.reading_grids[known].sum(axis=1), 1)
    with pytest.raises(BadUsageError, match="--normalise peak"):
        open_cache(shards, maps=True)


def test_it_is_built_once_and_beside_the_shards(shards: Path) -> None:
    said: list[str] = []
    open_cache(shards, say=said.append)
    open_cache(shards, say=said.append)
    assert len(said) == 1 and str(shards / "cache") in said[0]
    assert {path.stat().st_mode & 0o777 for path in caches(shards / "cache")} == {0o700}


def test_other_shards_get_another_cache(shards: Path) -> None:
    open_cache(shards)
    next((shards / "shards").iterdir()).unlink()
    said: list[str] = []
    smaller = open_cache(shards, say=said.append)
    assert said and len(smaller) > 0
    assert len(caches(shards / "cache")) == 1


def test_a_build_that_fails_leaves_nothing(shards: Path) -> None:
    last = sorted((shards / "shards").iterdir())[-1]
    last.write_bytes(last.read_bytes()[:-300])
    with pytest.raises(BadUsageError):
        open_cache(shards)
    assert caches(shards / "cache") == []


@pytest.mark.parametrize("name", ["index.npz", "images", "grids", "text"])
@pytest.mark.parametrize("keep", [0, 7])
def test_a_damaged_cache_is_built_again(shards: Path, name: str, keep: int) -> None:
    before = open_cache(shards)
    (place,) = caches(shards / "cache")
    images, texts = np.array(before.images), before.texts(range(5))
    del before
    (place / name).unlink()
    (place / name).write_bytes(b"rubbish"[:keep])
    said: list[str] = []
    again = open_cache(shards, say=said.append)
    assert "is damaged: copying the shards again" in said[0]
    np.testing.assert_array_equal(again.images, images)
    assert again.texts(range(5)) == texts


def test_an_index_with_an_array_that_numpy_added_is_built_again(shards: Path) -> None:
    open_cache(shards)
    (place,) = caches(shards / "cache")
    np.save(stray := io.BytesIO(), np.array(False))
    with zipfile.ZipFile(place / "index.npz", "a") as index:
        index.writestr("allow_pickle.npy", stray.getvalue())
    said: list[str] = []
    assert len(open_cache(shards, say=said.append)) and "is damaged" in said[0]
    with np.load(place / "index.npz") as stored:
        assert "allow_pickle" not in stored.files
        assert {array.dtype.kind for array in stored.values()} <= set("biufU"), "no objects"


def refusal(folder: Path) -> str:
    with pytest.raises(BadUsageError) as caught:
        open_cache(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 5000])
def test_a_truncated_shard_is_named(shards: Path, keep: int) -> None:
    first = sorted((shards / "shards").iterdir())[0]
    first.write_bytes(first.read_bytes()[:keep])
    assert f"{first} is damaged" in refusal(shards)


def test_a_truncated_npz_shard_is_named(tmp_path: Path) -> None:
    whole = (GOLDEN / "shard-v1.npz").read_bytes()
    (tmp_path / "part-00000.npz").write_bytes(whole[: len(whole) // 2])
    assert "part-00000.npz is damaged" in refusal(tmp_path)


def test_shards_of_another_schema_are_refused_with_both_versions(shards: Path) -> None:
    path = sorted((shards / "shards").iterdir())[0]
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"egma.schema_version": "7"}), path)
    assert f"{path} has schema 7, this version knows 1" in refusal(shards)


def test_an_empty_folder_says_how_to_make_shards(tmp_path: Path) -> None:
    assert "holds no shards; make them with: egma-prep run" in refusal(tmp_path)


def test_a_folder_that_does_not_exist_says_how_to_make_shards(tmp_path: Path) -> None:
    assert "holds no shards" in refusal(tmp_path / "nowhere")


def test_a_run_in_mid_write_is_refused(shards: Path) -> None:
    run = json.loads((shards / "run.json").read_text())
    (shards / "run.json").write_text(json.dumps(run | {"status": "running"}))
    assert "is not finished" in refusal(shards)
    assert "is not finished" in refusal(shards / "shards")


def test_shards_that_are_being_replaced_are_refused(shards: Path) -> None:
    (shards / "state").mkdir()
    (shards / "state" / "swap.json").write_text("{}")
    assert "are being replaced" in refusal(shards)


def test_a_shard_in_mid_write_is_refused(shards: Path) -> None:
    (shards / "shards" / ".part-00009.parquet.123.tmp").write_bytes(b"PAR1")
    assert "is being written" in refusal(shards)


def test_shards_of_two_formats_are_refused(shards: Path) -> None:
    shutil.copy(GOLDEN / "shard-v1.npz", shards / "shards" / "part-00099.npz")
    assert "keep one kind" in refusal(shards)


def test_a_folder_that_cannot_be_written_says_where_else(shards: Path) -> None:
    (shards / "cache").write_text("in the way")
    assert "execution.cache=DIR" in refusal(shards)


def test_the_fingerprint_is_of_the_content(shards: Path) -> None:
    files = find_shards(shards)
    before = fingerprint(files)
    files[0].touch()
    assert fingerprint(files) == before
    data = bytearray(files[0].read_bytes())
    data[100] ^= 1
    files[0].write_bytes(bytes(data))
    assert fingerprint(files) != before
