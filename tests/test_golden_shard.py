"""The shard on disk is a contract: today's code must write the golden one again."""

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from golden_reading import GOLDEN, golden_table

from egma_prep import open_shards


def test_the_golden_shard_is_written_again_column_by_column() -> None:
    golden, ours = pq.read_table(GOLDEN), golden_table()
    assert ours.schema.equals(golden.schema) and ours.schema.metadata == golden.schema.metadata
    assert ours.to_pylist() == golden.to_pylist()


@pytest.mark.parametrize("suffix", [".parquet", ".npz"])
def test_a_shard_of_the_first_schema_still_reads_without_mentions(suffix: str) -> None:
    (old,) = open_shards(GOLDEN.with_name("shard-v1").with_suffix(suffix))
    (new,) = open_shards(GOLDEN.with_suffix(suffix))
    assert [one.mentions for one in old.sentences] == [None, None]
    assert [len(one.mentions or ()) for one in new.sentences] == [2, 1]
    for one, other in zip(old.sentences, new.sentences, strict=True):
        for name in ("text", "begin", "end", "words", "fixations", "gaze_seconds", "peak_seconds"):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.heatmap, other.heatmap)
        np.testing.assert_array_equal(one.grid, other.grid)


def test_the_golden_shard_opens_in_pandas_alone() -> None:
    row = pd.read_parquet(GOLDEN).iloc[0]
    assert len(row["image"]) == len(row["heatmap"]) == 224 * 224
    assert [sentence["heatmap"] is None for sentence in row["sentences"]] == [False, True]
    assert [sentence["text"] for sentence in row["sentences"]] == [
        "heart size normal.",
        "none in the left/right lung",
    ]
