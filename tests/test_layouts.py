"""The same readings from every layout, with JPEG and DICOM images, are the same readings."""

from itertools import product
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep, run_etl

GREY_LEVELS, MEAN_GREY_LEVELS = 5, 0.5
"""What a JPEG loses: at most 4 levels and 0.27 on average were seen, windowed DICOMs 63 and 22."""
NATIVE = list(product(("reflacx", "eye_gaze"), ("jpg", "dcm")))


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    """Run the ETL on the same plan in every layout."""
    root, found = tmp_path_factory.mktemp("layouts"), {}
    for layout, suffix in [("mimic_eye", "jpg"), *NATIVE]:
        data, out = root / f"{layout}-{suffix}", root / f"{layout}-{suffix}-out"
        kind = ["--dicom"] if suffix == "dcm" else []
        made = egma_prep(
            "synth", data, "--readings", 24, "--small", "--seed", 5, "--layout", layout, *kind
        )
        assert made.exit_code == 0, made.output
        done = run_etl(data, out)
        assert done.exit_code == 0, done.output
        assert f"{layout}:" in done.output
        found[layout, suffix] = out
    return found


def table(out: Path, name: str, dataset: str) -> list[dict]:
    path = out / "tables" / f"{name}.parquet"
    rows = pq.read_table(path, filters=[("dataset", "=", dataset)]).to_pylist()
    key = ("reading_id", "word_index", "fixation_index", "sentence_index")
    rows = [{name: value for name, value in row.items() if name != "part"} for row in rows]
    return sorted(rows, key=lambda row: [row.get(name, "") for name in key])


def shard(out: Path, dataset: str) -> dict[str, dict]:
    rows = pq.read_table(out / "shards", filters=[("dataset", "=", dataset)]).to_pylist()
    return {row["reading_id"]: row for row in rows}


@pytest.mark.parametrize("name", ["readings", "words", "sentences", "fixations", "alignment"])
@pytest.mark.parametrize("native", NATIVE, ids=" with ".join)
def test_a_native_tree_gives_the_same_table(
    outs: dict[tuple[str, str], Path], native: tuple[str, str], name: str
) -> None:
    merged = table(outs["mimic_eye", "jpg"], name, native[0])
    assert merged
    assert table(outs[native], name, native[0]) == merged


@pytest.mark.parametrize("native", NATIVE, ids=" with ".join)
def test_a_native_tree_gives_the_same_shards_but_for_grey_levels(
    outs: dict[tuple[str, str], Path], native: tuple[str, str]
) -> None:
    merged, ours = shard(outs["mimic_eye", "jpg"], native[0]), shard(outs[native], native[0])
    assert ours.keys() == merged.keys()
    for reading_id, row in ours.items():
        one, other = (
            np.frombuffer(each.pop("image"), np.uint8).astype(int)
            for each in (row, merged[reading_id])
        )
        assert abs(one - other).max() <= GREY_LEVELS
        assert abs(one - other).mean() <= MEAN_GREY_LEVELS
        assert one.std() > 10  # a picture, not a blank
        assert row == merged[reading_id]


@pytest.mark.parametrize("native", NATIVE, ids=" with ".join)
def test_images_may_lie_elsewhere(
    outs: dict[tuple[str, str], Path], native: tuple[str, str], tmp_path: Path
) -> None:
    data = outs[native].with_name("-".join(native))
    elsewhere = tmp_path / "downloads" / "mimic-cxr-jpg" / "2.0.0"
    elsewhere.parent.mkdir(parents=True)
    (data / "images").rename(elsewhere)
    try:
        alone = run_etl(data, tmp_path / "none")
        assert alone.exit_code == 2
        assert "--images DIR" in alone.stderr
        result = run_etl(data, tmp_path / "out", "--images", tmp_path / "downloads")
        assert result.exit_code == 0, result.output
        again = run_etl(data, tmp_path / "out", "--images", elsewhere / "files")
        assert again.exit_code == 0, again.output
    finally:
        elsewhere.rename(data / "images")
    assert shard(tmp_path / "out", native[0]).keys() == shard(outs[native], native[0]).keys()


def test_a_native_tree_without_cxr_tables_still_works(
    outs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    data = outs["eye_gaze", "jpg"].with_name("eye_gaze-jpg")
    for path in (data / "images").glob("*.csv.gz"):
        path.rename(tmp_path / path.name)
    try:
        result = run_etl(data, tmp_path / "out")
        assert result.exit_code == 0, result.output
    finally:
        for path in tmp_path.glob("*.csv.gz"):
            path.rename(data / "images" / path.name)
    merged, ours = shard(outs["eye_gaze", "jpg"], "eye_gaze"), shard(tmp_path / "out", "eye_gaze")
    assert {row["split"] for row in ours.values()} == {None}
    for reading_id, row in ours.items():
        assert row["sentences"] == merged[reading_id]["sentences"]
        assert not any(name.startswith("chexpert:") for name, _ in row["labels"])


@pytest.mark.parametrize("suffix", ["jpg", "dcm"])
def test_mimic_cxr_gives_images_with_reports_and_no_gaze(
    outs: dict[tuple[str, str], Path], suffix: str, tmp_path: Path
) -> None:
    data = outs["reflacx", suffix].with_name(f"reflacx-{suffix}") / "images"
    result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "mimic_cxr:" in result.output
    rows = shard(tmp_path / "out", "mimic_cxr")
    gazed = shard(outs["reflacx", suffix], "reflacx").values()
    assert {row["dicom_id"] for row in gazed} <= rows.keys()
    for row in rows.values():
        texts = [sentence["text"] for sentence in row["sentences"]]
        assert texts[0] == "Single frontal view reviewed."
        assert texts[1].startswith(("Findings compatible", "Unremarkable"))
        assert row["heatmap"] is None
        for sentence in row["sentences"]:
            times = sentence["begin"], sentence["end"]
            assert times == (None, None) and sentence["heatmap"] is None
            assert sentence["gaze_seconds"] == 0
    again = egma_prep("render-heatmaps", "--out", tmp_path / "out", "--sigma", 8,
                      "--set", "execution.processes=false")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert shard(tmp_path / "out", "mimic_cxr") == rows
    report = egma_prep("report", "--out", tmp_path / "out")
    assert report.exit_code == 0, report.output
    assert "Too few readings with gaze" in (tmp_path / "out" / "report.html").read_text()


def test_one_changed_row_of_a_shared_table_redoes_only_its_part(
    outs: dict[tuple[str, str], Path], tmp_path: Path
) -> None:
    data = outs["eye_gaze", "jpg"].with_name("eye_gaze-jpg")
    small = ("--set", "execution.readings_per_part=1")
    assert run_etl(data, tmp_path / "out", *small).exit_code == 0
    sheet = data / "bounding_boxes.csv"
    before = sheet.read_bytes()
    try:
        lines = before.decode().splitlines(keepends=True)
        cells = lines[1].split(",")
        sheet.write_text("".join([lines[0], ",".join([*cells[:2], "1.0", *cells[3:]]), *lines[2:]]))
        result = run_etl(data, tmp_path / "out", *small)
    finally:
        sheet.write_bytes(before)
    assert " 1 of " in result.output, result.output
