"""One invented reading; ``python tests/golden_reading.py`` writes its golden shard again."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from egma_prep.etl.make_part import shard_options
from egma_prep.gaze.frame import frame_of
from egma_prep.options import Options
from egma_prep.shards.assemble import FramedImage, reading_columns
from egma_prep.shards.schema import SCHEMA_VERSION, SHARD, described
from egma_prep.shards.tables import write_table
from egma_prep.sources.reading import Fixations, RawReading, Region, Words

GOLDEN = Path(__file__).parent / "golden" / f"shard-v{SCHEMA_VERSION}.parquet"

_TEXT = ["heart", "size", "normal", ".", "none", "in", "the", "left", "/", "right", "lung"]
_BEGIN_S = np.array([1.0, 1.4, 1.8, 2.3, 3.5, 3.9, 4.0, 4.2, 4.5, 4.5, 4.8])
_END_S = np.array([1.4, 1.8, 2.3, 2.7, 3.9, 4.0, 4.2, 4.5, 4.5, 4.8, 5.2])


def golden_table() -> pa.Table:
    """Make the shard of a reading with a seen sentence and an unseen one."""
    degree = np.full(4, 100.0)
    raw = RawReading(
        dataset="reflacx",
        reading_id="P300R900001",
        subject_id="90000001",
        study_id="99000001",
        dicom_id="-".join(["0badf00d"] * 5),
        split="train",
        view=None,
        image_path="PHANTOM",
        width=301,
        height=400,
        fixations=Fixations(
            begin_s=np.array([0.2, 1.3, 2.0, 3.0]),
            end_s=np.array([0.9, 1.9, 2.5, 3.4]),
            x_px=np.array([150.0, 100.0, 140.0, -40.0]),
            y_px=np.array([200.0, 180.0, 210.0, 90.0]),
            px_per_deg_x=degree,
            px_per_deg_y=degree,
        ),
        words=Words(_TEXT, _BEGIN_S, _END_S),
        labels={"chexpert:Edema": -1.0, "reflacx:Consolidation": 3.0},
        regions=[
            Region("Consolidation", "ellipse", 60.0, 150.0, 130.0, 230.0, 3.0),
            Region("chest", "box", -5.0, 10.0, 290.0, 390.0),
        ],
    )
    image = FramedImage(frame_of(301, 400), np.tile(np.arange(224, dtype=np.uint8), (224, 1)))
    columns = reading_columns(raw, image, Options())["shard"]
    return pa.Table.from_pydict(columns, described(SHARD, shard_options(Options())))


if __name__ == "__main__":
    for suffix in (".parquet", ".npz"):
        write_table(GOLDEN.with_suffix(suffix), golden_table())
