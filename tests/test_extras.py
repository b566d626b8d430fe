"""Only image, gaze and words can reject a reading; all else is an extra, and missed by name."""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import egma_prep, run_etl
from tables import shards

from egma_prep.errors import NOTES
from egma_prep.etl.run import planned_subjects
from egma_prep.options import SourceOptions
from egma_prep.sources.files import InputFiles
from egma_prep.sources.reading import RawReading
from egma_prep.sources.registry import sources
from egma_prep.synth import write_tree

Key = tuple[str, str]
LAYOUTS = ("mimic_eye", "reflacx", "eye_gaze", "mimic_cxr")


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small tree of every layout; that of MIMIC-CXR is the folder of a native one's images."""
    root = tmp_path_factory.mktemp("extras")
    for layout in LAYOUTS[:3]:
        write_tree(root / layout, 12, small=True, seed=3, layout=layout)
    write_tree(root / "cxr", 8, small=True, seed=4, layout="reflacx")
    found = {layout: root / layout for layout in LAYOUTS[:3]}
    return found | {"mimic_cxr": root / "cxr" / "images"}


# -- a tree of nothing but images, gaze and words ------------------------------------------------

KEPT = {
    "fixations.csv", "timestamps_transcription.csv", "transcript.json", "metadata.csv",
    "master_sheet.csv", "metadata_phase_1.csv", "metadata_phase_2.csv", "metadata_phase_3.csv",
}  # fmt: skip
COLUMNS = {
    "metadata": ("id", "eye_tracking_data_discarded", "image", "dicom_id", "subject_id"),
    "master_sheet": (
        "dicom_id", "study_id", "patient_id", "image_top_pad", "image_bottom_pad",
        "image_left_pad", "image_right_pad",
    ),
    "fixations": (
        "timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position",
        "angular_resolution_x_pixels_per_degree", "angular_resolution_y_pixels_per_degree",
        "SESSION_ID", "DICOM_ID", "FPOGS", "FPOGD", "FPOGV", "X_ORIGINAL", "Y_ORIGINAL",
    ),
    "mimic-cxr-2": ("dicom_id", "subject_id", "study_id"),
}  # fmt: skip


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if path.suffix == ".gz" else data


def packed(path: Path, data: bytes) -> bytes:
    return gzip.compress(data) if path.suffix == ".gz" else data


def rows_of(path: Path) -> list[str]:
    return unpacked(path).decode().splitlines()[1:]


def keep_columns(path: Path, names: tuple[str, ...]) -> None:
    header, *rows = csv.reader(io.StringIO(unpacked(path).decode(), newline=""))
    at = [header.index(name) for name in names if name in header]
    text = io.StringIO()
    csv.writer(text).writerows([row[column] for column in at] for row in (header, *rows))
    path.write_bytes(packed(path, text.getvalue().encode()))


def strip(tree: Path, layout: str) -> None:
    """Remove every file, and every column of a table, that no heatmap needs."""
    lists_readings = layout == "mimic_cxr"
    for path in [path for path in tree.rglob("*") if path.is_file()]:
        image = path.suffix in (".jpg", ".txt") and path.name != "transcription.txt"
        is_listing = lists_readings and path.name.endswith("-metadata.csv.gz")
        if not (image or path.name in KEPT or is_listing):
            path.unlink()
            continue
        for beginning, names in COLUMNS.items():
            if path.name.startswith(beginning):
                keep_columns(path, names)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.usefixtures("no_cluster")
def test_a_tree_stripped_of_all_extras_writes_all_its_readings(layout: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    made = "reflacx" if layout == "mimic_cxr" else layout
    planned = json.loads(write_tree(tree, 12, small=True, seed=3, layout=made).read_text())
    truth = {one["reading_id"]: one for one in planned["readings"] if not one["reject"]}
    data = tree / "images" if layout == "mimic_cxr" else tree
    more: tuple[object, ...] = ()
    if layout == "eye_gaze":  # images elsewhere
        (tree / "images").rename(tmp_path / "cxr")
        strip(tmp_path / "cxr", layout)
        more = ("--images", tmp_path / "cxr")
    strip(data, layout)
    scanned = egma_prep("scan", data, *more)
    result = run_etl(data, tmp_path / "out", *more)
    assert result.exit_code == 0, result.output

    found = {reading_id: row for (_, reading_id), row in shards(tmp_path / "out").items()}
    if layout == "mimic_cxr":
        (listing,) = data.glob("*-metadata.csv.gz")
        assert found.keys() == {line.partition(",")[0] for line in rows_of(listing)}
    else:
        assert found.keys() == truth.keys()
        for reading_id, one in truth.items():
            told = [sentence["text"] for sentence in one["sentences"]]
            assert [sentence["text"] for sentence in found[reading_id]["sentences"]] == told
    sizes = {one["dicom_id"]: (one["width"], one["height"]) for one in planned["readings"]}
    for row in found.values():
        assert (row["split"], row["view"], row["labels"], row["regions"]) == (None, None, [], [])
        assert (row["width"], row["height"]) == sizes[row["dicom_id"]]
    notes = json.loads((tmp_path / "out" / "run.json").read_text())["counts"]["notes"]
    for name in ("without_split", "without_view", "without_chexpert", "size_by_image"):
        assert notes[name] == len(found)
        assert result.output.count(f"noted: {len(found)} {NOTES[name]}") == 1
        assert f"noted: {len(found)} {NOTES[name]}" in scanned.output


# -- each extra, each damage ---------------------------------------------------------------------

EXTRAS = [
    *(("mimic_eye", f"patient_*/{path}") for path in (
        "CXR-JPG/cxr_meta.csv", "CXR-JPG/cxr_split.csv", "CXR-JPG/cxr_chexpert.csv",
        "REFLACX/main_data/*/anomaly_location_ellipses.csv",
        "REFLACX/main_data/*/chest_bounding_box.csv", "EyeGaze/bounding_boxes.csv",
    )),
    *(("reflacx", f"images/*-{kind}.csv.gz") for kind in ("metadata", "split", "chexpert")),
    *(("eye_gaze", f"images/*-{kind}.csv.gz") for kind in ("metadata", "split", "chexpert")),
    ("eye_gaze", "bounding_boxes.csv"),
    *(("mimic_cxr", f"*-{kind}.csv.gz") for kind in ("split", "chexpert")),
]  # fmt: skip


def of_rows(change: Callable[[list[list[str]]], list[list[str]]]) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        text = io.StringIO()
        rows = list(csv.reader(io.StringIO(data.decode(), newline="")))
        csv.writer(text).writerows(change(rows))
        return text.getvalue().encode()

    return damage


IDS = ("", "dicom_id", "subject_id", "study_id")


def every_cell(value: str) -> Callable[[bytes], bytes]:
    return of_rows(
        lambda rows: [
            rows[0],
            *(
                [cell if name in IDS else value for name, cell in zip(rows[0], row, strict=True)]
                for row in rows[1:]
            ),
        ]
    )


DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "absent": lambda data: None,
    "empty": lambda data: b"",
    "of blank lines": lambda data: b"\r\n" * 9,
    "a header alone": lambda data: data.splitlines(keepends=True)[0],
    "cut in a row": lambda data: data[:-9],
    "cut in the header": lambda data: data[:9],
    "an HTML page": lambda data: b"<!DOCTYPE html><html>404, not found</html>\n",
    "a workbook": lambda data: b"PK\x03\x04" + bytes(99),
    "with NULs": lambda data: data[:60] + b"\0\0" + data[60:],
    "in Latin-1": lambda data: data + b"\xe9\n",
    "without its last column": of_rows(lambda rows: [row[:-1] for row in rows]),
    "without its ids": of_rows(lambda rows: [row[3:] for row in rows]),
    "each column twice": of_rows(
        lambda rows: [rows[0] * 2, *(row + [f"{cell}0" for cell in row] for row in rows[1:])]
    ),
    "cells of question marks": every_cell("?"),
    "cells of NaN": every_cell("NaN"),
    "cells of 1,5": every_cell("1,5"),
    "cells of 9e99": every_cell("9e99"),
    "rows twice": of_rows(lambda rows: rows + rows[1:]),
}


LEGAL = {
    # No finding was marked, or none was mentioned: nobody can tell it from a lost one.
    ("anomaly_location_ellipses.csv", "a header alone"),
    ("anomaly_location_ellipses.csv", "cells of NaN"),
    ("cxr_chexpert.csv", "cells of NaN"),
    ("*-chexpert.csv.gz", "cells of NaN"),
}


@contextmanager
def damaged(paths: list[Path], damage: Callable[[bytes], bytes | None]) -> Iterator[None]:
    before = {path: path.read_bytes() for path in paths}
    try:
        for path in paths:
            data = damage(unpacked(path))
            if data is None:
                path.unlink()
            else:
                path.write_bytes(packed(path, data))
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


def loaded(tree: Path, layout: str) -> tuple[dict[Key, RawReading], InputFiles, set[Any]]:
    """Plan a tree and read all but the images."""
    files, source = InputFiles(tree), sources()[layout]
    subjects = planned_subjects(source, files)
    readings = [reading for subject in subjects for reading in subject.readings]
    raw = {}
    for planned in readings:
        files.forget_tables()
        raw[planned.key] = source.load(planned, files, SourceOptions())
    rejects = {(one.reading_id, one.reason) for subject in subjects for one in subject.rejects}
    return raw, files, rejects


@pytest.fixture(scope="module")
def clean(trees: dict[str, Path]) -> dict[str, tuple[dict[Key, RawReading], set[Any]]]:
    found = {}
    for layout, tree in trees.items():
        raw, files, rejects = loaded(tree, layout)
        assert not files.remarks
        found[layout] = raw, rejects
    return found


def missed(one: RawReading, clean: RawReading) -> bool:
    """Check that a reading has nothing that is another's or made up, and tell if it lacks some."""
    gaze, wanted = one.fixations, clean.fixations
    for ours, theirs in ((gaze[:6], wanted[:6]), (one.words[1:], clean.words[1:])):
        np.testing.assert_array_equal(np.array(ours), np.array(theirs))
    if wanted.shown_px is not None:
        assert gaze.shown_px is not None
        known = ~np.isnan(gaze.shown_px)
        assert (gaze.shown_px == wanted.shown_px)[known].all()
    assert one.words.text == clean.words.text
    assert (one.width, one.height) == (clean.width, clean.height)
    assert one.image_path == clean.image_path and one.study_id == clean.study_id
    assert one.split in (None, clean.split) and one.view in (None, clean.view)
    assert one.labels.items() <= clean.labels.items()
    assert all(
        region in clean.regions or region._replace(certainty=None) in clean.regions
        for region in one.regions
    )
    return (
        (one.split, one.view) != (clean.split, clean.view)
        or one.labels != clean.labels
        or len(one.regions) < len(clean.regions)
    )


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(("layout", "pattern"), EXTRAS)
def test_an_extra_in_any_state_rejects_nothing_and_is_never_stored_wrongly(
    trees: dict[str, Path],
    clean: dict[str, tuple[dict[Key, RawReading], set[Any]]],
    layout: str,
    pattern: str,
    damage: str,
) -> None:
    tree, (whole, known_rejects) = trees[layout], clean[layout]
    paths = sorted(tree.glob(pattern))
    assert paths
    with damaged(paths, DAMAGE[damage]):
        found, files, rejects = loaded(tree, layout)
    assert found.keys() == whole.keys() and rejects == known_rejects
    lacking = [key for key, one in found.items() if missed(one, whole[key])]
    is_legal = (pattern.rpartition("/")[2], damage) in LEGAL
    for key in lacking if not is_legal else ():  # each is counted
        ours, theirs = (
            sum(number for name, number in raw.notes.items() if name in NOTES)
            for raw in (found[key], whole[key])
        )
        assert ours > theirs, (key, found[key].notes)
    if damage in ("absent", "empty", "an HTML page", "without its ids"):
        is_shared = layout != "mimic_eye"
        assert lacking or "metadata" not in pattern
        assert bool(files.remarks) == is_shared  # and a table of all readings is named
