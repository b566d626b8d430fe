"""Readings for models of one's own: the dataset over the shards, beside pandas' reading of them."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

import egma_train
from egma_train import BadUsageError, ReadingDataset, collate_readings, egma_loss


@pytest.fixture(scope="module")
def rows(shards: Path) -> list[dict[str, Any]]:
    """The shards' rows as pandas reads them, without those that have no sentence."""
    frames = [pd.read_parquet(path) for path in sorted((shards / "shards").glob("*.parquet"))]
    return [row for row in pd.concat(frames).to_dict("records") if len(row["sentences"])]


@pytest.fixture(scope="module")
def dataset(shards: Path) -> ReadingDataset:
    return ReadingDataset(shards, maps=True)


def test_every_name_that_training_hands_on_is_there_and_listed() -> None:
    assert set(egma_train.__all__) < set(dir(egma_train))
    assert all(callable(getattr(egma_train, name)) for name in egma_train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'clap_loss'"):
        egma_train.clap_loss  # noqa: B018


def test_an_item_is_what_pandas_reads_of_its_row(
    dataset: ReadingDataset, rows: list[dict[str, Any]]
) -> None:
    assert len(dataset) == len(rows)
    for item, row in zip(dataset, rows, strict=True):  # type: ignore[arg-type]
        assert (item["dataset"], item["reading_id"]) == (row["dataset"], row["reading_id"])
        assert item["image"].numpy().tobytes() == row["image"]
        assert item["texts"] == [one["text"] for one in row["sentences"]]
        assert item["has_gaze"].tolist() == [one["grid"] is not None for one in row["sentences"]]
        for grid, heatmap, one in zip(item["grid"], item["maps"], row["sentences"], strict=True):
            stored = np.zeros(49) if one["grid"] is None else one["grid"]
            np.testing.assert_array_almost_equal(grid, stored, 6)
            assert heatmap.numpy().tobytes() == (one["heatmap"] or bytes(224 * 224))


def test_several_items_at_once_are_those_one_by_one(dataset: ReadingDataset) -> None:
    chosen = [3, 0, len(dataset) - 1, 3]
    for item, number in zip(dataset.__getitems__(chosen), chosen, strict=True):
        alone = dataset[number]
        assert item.keys() == alone.keys()
        assert all(torch.equal(item[n], alone[n]) for n in ("image", "grid", "has_gaze", "maps"))
        assert item["texts"] == alone["texts"]
    assert dataset[-1]["reading_id"] == dataset[len(dataset) - 1]["reading_id"]
    with pytest.raises(IndexError, match=f"of {len(dataset)}"):
        dataset[len(dataset)]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_in_this_process_or_in_others_gives_padded_batches(
    dataset: ReadingDataset, workers: int
) -> None:
    loader = DataLoader(
        dataset, batch_size=5, collate_fn=collate_readings, num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )  # fmt: skip
    at = 0
    for batch in loader:
        b, m = batch["sentence_mask"].shape
        assert batch["grid"].shape == (b, m, 49) and batch["maps"].shape == (b, m, 224, 224)
        for row in range(b):
            item = dataset[at]
            count = len(item["texts"])
            assert torch.equal(batch["images"][row], item["image"])
            assert batch["texts"][row] == item["texts"]
            assert batch["sentence_mask"][row].tolist() == [True] * count + [False] * (m - count)
            assert torch.equal(batch["grid"][row, :count], item["grid"])
            assert torch.equal(batch["grid_mask"][row, :count], item["has_gaze"])
            assert (
                not batch["grid_mask"][row, count:].any() and not batch["grid"][row, count:].any()
            )
            at += 1
    assert at == len(dataset)


def test_a_dataset_that_is_handed_to_a_process_brings_no_arrays(dataset: ReadingDataset) -> None:
    sent = pickle.dumps(dataset)
    assert len(sent) < 1000
    assert torch.equal(pickle.loads(sent)[2]["image"], dataset[2]["image"])


def test_a_split_has_its_readings_alone(shards: Path, rows: list[dict[str, Any]]) -> None:
    for split in {row["split"] or "unknown" for row in rows}:
        wanted = [row["reading_id"] for row in rows if (row["split"] or "unknown") == split]
        chosen = ReadingDataset(shards, split=split)
        assert [chosen[at]["reading_id"] for at in range(len(chosen))] == wanted
    with pytest.raises(BadUsageError, match="trian"):
        ReadingDataset(shards, split="trian")


def test_a_model_of_ones_own_learns_by_the_loss(shards: Path) -> None:
    torch.manual_seed(0)
    images = torch.nn.Linear(32 * 32, 8)
    words = torch.nn.EmbeddingBag(256, 8)
    loader = DataLoader(ReadingDataset(shards), batch_size=6, collate_fn=collate_readings)
    batch = next(iter(loader))
    steps = torch.optim.Adam([*images.parameters(), *words.parameters()], lr=0.05)
    losses = []
    for _ in range(20):
        cells = batch["images"].float().div(255).unfold(1, 32, 32).unfold(2, 32, 32)
        patches = images(cells.reshape(len(cells), 49, 32 * 32))
        mask = batch["sentence_mask"]
        sentences = torch.zeros(*mask.shape, 8)
        texts = [text for reading in batch["texts"] for text in reading]
        letters = [torch.tensor(list(text.encode())) for text in texts]
        sentences[mask] = torch.cat([words(one[None]) for one in letters])
        loss = egma_loss(patches, sentences, mask, batch["grid"], batch["grid_mask"], 10.0)
        steps.zero_grad()
        loss.total.backward()
        steps.step()
        losses.append(loss.total.item())
    assert losses[-1] < losses[0] - 1, losses


def test_the_readmes_lines_for_a_model_of_ones_own_run(
    shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (code,) = (
        one for one in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "my_m" in one
    )

    def my_model(images: torch.Tensor, texts: list[list[str]]) -> tuple[torch.Tensor, torch.Tensor]:
        assert images.shape == (len(texts), 224, 224)
        longest = max(map(len, texts))
        shapes = (len(texts), 49, 4), (len(texts), longest, 4)
        return tuple(torch.rand(shape, requires_grad=True) for shape in shapes)  # type: ignore[return-value]

    code = code.replace('ReadingDataset("out"', f"ReadingDataset({str(shards)!r}")
    given: dict[str, Any] = {"my_model": my_model}
    exec(code, given)
    assert torch.isfinite(given["loss"].total)
