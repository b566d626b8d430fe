"""Shards as a Python sequence."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.shards.formats import formats
from egma_prep.shards.reader import Shards


@pytest.fixture(scope="module", params=list(formats()))
def shards(request, clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp(request.param) / "shards"
    assert egma_prep("export", folder, "--to", request.param, "--out", clean_out).exit_code == 0
    return open_shards(folder)


@pytest.fixture(scope="module")
def rows(clean_out: Path) -> list[dict]:
    return pq.read_table(clean_out / "shards").to_pylist()


def test_every_reading_is_there_in_order(shards: Shards, rows: list[dict]) -> None:
    assert len(shards) == len(rows) > 10
    assert [one.reading_id for one in shards] == [row["reading_id"] for row in rows]
    assert [shards[at].reading_id for at in range(len(rows))] == [r["reading_id"] for r in rows]
    assert shards[-1].reading_id == rows[-1]["reading_id"]
    assert [one.reading_id for one in shards[2:5]] == [row["reading_id"] for row in rows[2:5]]
    assert shards.find(rows[3]["reading_id"]).reading_id == rows[3]["reading_id"]
    for beyond in (len(rows), -len(rows) - 1):
        with pytest.raises(IndexError, match=str(len(rows))):
            shards[beyond]
    with pytest.raises(KeyError):
        shards.find("nobody")


def test_a_reading_has_the_columns_as_arrays(shards: Shards, rows: list[dict]) -> None:
    for reading, row in zip(shards, rows, strict=True):
        assert reading.image.shape == (224, 224) and reading.image.tobytes() == row["image"]
        assert (reading.heatmap is None) == (row["heatmap"] is None)
        assert reading.labels == dict(row["labels"]) and reading.regions == row["regions"]
        for sentence, stored in zip(reading.sentences, row["sentences"], strict=True):
            assert sentence.text == stored["text"] and sentence.begin == stored["begin"]
            if stored["heatmap"] is None:
                assert sentence.heatmap is None and sentence.grid is None
            else:
                assert sentence.heatmap.tobytes() == stored["heatmap"]
                assert sentence.grid.shape == (7, 7)
                assert sentence.grid.ravel().tolist() == stored["grid"]
                blocks = sentence.heatmap.reshape(7, 32, 7, 32).mean(axis=(1, 3)) / 255
                np.testing.assert_allclose(sentence.grid, blocks, atol=1e-6)


def test_arrays_cannot_be_changed_by_mistake(shards: Shards) -> None:
    with pytest.raises(ValueError, match="read-only"):
        shards[0].image[0, 0] = 1


def test_few_parts_are_kept_in_memory(clean_out: Path, tmp_path: Path) -> None:
    for number in range(9):
        source = next((clean_out / "shards").glob("*.parquet"))
        shutil.copy(source, tmp_path / f"part-{number:05d}.parquet")
    many = open_shards(tmp_path)
    assert len(list(many)) == len(many)
    assert len(many._tables) < 9


def test_frames_hold_every_row(shards: Shards, rows: list[dict]) -> None:
    ids = [row["reading_id"] for row in rows]
    assert shards.to_pandas()["reading_id"].tolist() == ids
    frame = shards.to_polars()
    assert frame["reading_id"].to_list() == ids
    assert frame["sentences"][0][0]["text"] == rows[0]["sentences"][0]["text"]


def test_metadata_tell_how_the_maps_were_made(shards: Shards) -> None:
    assert shards.metadata["sigma"] == "16.0" and shards.metadata["schema_version"] == "2"
    assert "16.0" in repr(shards)


def test_a_plot_has_a_panel_for_each_map(shards: Shards, tmp_path: Path) -> None:
    figure = shards[0].plot()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles[:2] == ["image", "whole reading"]
    assert len(titles) == 2 + len(shards[0].sentences)
    figure.savefig(tmp_path / "figure.png")


def test_an_output_folder_its_shards_or_one_file_open_alike(clean_out: Path) -> None:
    whole, folder = open_shards(clean_out), open_shards(str(clean_out / "shards"))
    assert [one.reading_id for one in whole] == [one.reading_id for one in folder]
    assert open_shards(folder.paths[0])[0].reading_id == folder[0].reading_id


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_a_folder_without_shards_is_refused(place: str, tmp_path: Path) -> None:
    with pytest.raises(BadUsageError, match="egma-prep run DATA"):
        open_shards(tmp_path / place)


def test_importing_the_package_is_light() -> None:
    code = "import sys, egma_prep; print({'numpy', 'pandas', 'pyarrow', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
