"""The shard on disk is a contract: today's code must write the golden one again."""

import pandas as pd
import pyarrow.parquet as pq
from golden_reading import GOLDEN, golden_table


def test_the_golden_shard_is_written_again_column_by_column() -> None:
    golden, ours = pq.read_table(GOLDEN), golden_table()
    assert ours.schema.equals(golden.schema) and ours.schema.metadata == golden.schema.metadata
    assert ours.to_pylist() == golden.to_pylist()


def test_the_golden_shard_opens_in_pandas_alone() -> None:
    row = pd.read_parquet(GOLDEN).iloc[0]
    assert len(row["image"]) == len(row["heatmap"]) == 224 * 224
    assert [sentence["heatmap"] is None for sentence in row["sentences"]] == [False, True]
    assert [sentence["text"] for sentence in row["sentences"]] == [
        "heart size normal.",
        "none in the left/right lung",
    ]
