"""Features to Parquet and their figure, by the command."""

from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from evaluation import egma_eval, picture, save_tiny_model, write_picture, written


def test_the_command_writes_unit_features_and_a_figure(tmp_path: Path) -> None:
    rows = ["path,label"]
    for i in range(12):
        write_picture(tmp_path / f"{i}.jpg", picture(i % 3))
        rows.append(f"{i}.jpg,class {i % 3}")
    (tmp_path / "own.csv").write_text("\n".join([*rows, "none.jpg,class 0"]))
    model = save_tiny_model(tmp_path / "untrained")
    result = egma_eval(
        "embed", "--task", "csv", "--images", tmp_path, "--labels", tmp_path / "own.csv",
        "--out", tmp_path / "out", "--batch-size", 5, model,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "12 of 13 images" in result.output and "without none.jpg: not found" in result.output
    table = pq.read_table(written(tmp_path / "out", "embed-csv", ".parquet"))
    assert table["path"].to_pylist() == [f"{i}.jpg" for i in range(12)]
    assert table["label"][4].as_py() == "class 1"
    vectors = np.array(table["embedding"].to_pylist())
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(12), abs=1e-5)
    assert vectors[0] == pytest.approx(vectors[3], abs=1e-5)  # one picture, in two batches
    figure = written(tmp_path / "out", "embed-csv", "-tsne.png")
    assert figure.read_bytes().startswith(b"\x89PNG")


def test_several_models_are_drawn_side_by_side(tmp_path: Path) -> None:
    rows = ["path,label"]
    for i in range(6):
        write_picture(tmp_path / f"{i}.jpg", picture(i % 3))
        rows.append(f"{i}.jpg,class {i % 3}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    models = [save_tiny_model(tmp_path / name, seed) for seed, name in enumerate(("a", "b", "c"))]
    result = egma_eval(
        "embed", "--task", "csv", "--images", tmp_path, "--labels", tmp_path / "own.csv",
        "--out", tmp_path / "out", *models,
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (figure,) = (tmp_path / "out/evaluation/embed-csv").glob("*-side-by-side.png")
    height, width = cv2.imread(str(figure)).shape[:2]
    assert width > 2.5 * height  # a panel each
    assert str(figure) in result.output
