"""Files that are there under another name, or packed: found by content or without case, or told."""

import gzip
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import egma_prep

from egma_prep.errors import BadInputError, BadUsageError
from egma_prep.etl.run import planned_subjects
from egma_prep.options import SourceOptions
from egma_prep.sources.csv_table import parse_csv
from egma_prep.sources.files import A_COPY, InputFiles, Remark, told
from egma_prep.sources.registry import choose_source
from egma_prep.storage import listing as trees_module
from egma_prep.synth import write_tree


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("names")
    for layout in ("mimic_eye", "reflacx", "eye_gaze"):
        write_tree(root / layout, 12, small=True, seed=3, layout=layout)
    return {layout: root / layout for layout in ("mimic_eye", "reflacx", "eye_gaze")}


@pytest.fixture
def mimic_eye(originals: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(originals["mimic_eye"], tmp_path / "data")


@pytest.fixture
def reflacx(originals: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(originals["reflacx"], tmp_path / "data")


def readings(data: Path, images: Path | None = None) -> tuple[dict[str, Any], InputFiles]:
    """Load every reading with its image; what a reading says but for its paths, or its reason."""
    files = InputFiles(data, images)
    source, found = choose_source(files), {}
    for subject in planned_subjects(source, files):
        found |= {one.reading_id: one.reason for one in subject.rejects}
        files.forget_tables()
        for planned in subject.readings:
            try:
                raw = source.load(planned, files, SourceOptions())
                files.read(raw.image_path)
            except BadInputError as error:
                found[planned.reading_id] = f"{error.reason}: {error}"
            else:
                facts = raw.split, raw.view, raw.width, raw.height, raw.labels, raw.regions
                found[planned.reading_id] = *facts, raw.words.text, raw.fixations.x_px.tolist()
    return found, files


def lines(files: InputFiles) -> str:
    return "\n".join(told(files.remarks))


def rename_all(root: Path, pattern: str, new: Callable[[str], str]) -> None:
    paths = sorted(root.glob(pattern), reverse=True)
    assert paths
    for path in paths:
        path.rename(path.with_name(new(path.name)))


# -- other capitals, other suffixes --------------------------------------------------------------

FOLDERS = ["*/REFLACX", "*/EyeGaze", "patient_*", "*/CXR-JPG", "*/REFLACX/main_data",
           "*/CXR-JPG/s*", "*/EyeGaze/audio_segmentation_transcripts"]  # fmt: skip
FILES = ["*/REFLACX/metadata.csv", "*/REFLACX/main_data/*/fixations.csv", "*/CXR-JPG/cxr_*.csv",
         "*/EyeGaze/*.csv", "*/EyeGaze/*/*/transcript.json", "*/CXR-JPG/s*/*.jpg"]  # fmt: skip


@pytest.mark.parametrize("pattern", FOLDERS + FILES)
def test_other_capitals_are_read_all_the_same(
    originals: dict[str, Path], mimic_eye: Path, pattern: str
) -> None:
    rename_all(mimic_eye, pattern, str.swapcase)
    found, files = readings(mimic_eye)
    assert found == readings(originals["mimic_eye"])[0]
    if pattern in FOLDERS[:2]:
        assert f"{Path(pattern).name.swapcase()}/" in lines(files)


def test_a_native_tree_in_other_capitals_is_the_same(
    originals: dict[str, Path], reflacx: Path
) -> None:
    for pattern in ("images/files/p*/*/*/*", "images/files/p*", "images/files", "images/*.gz",
                    "main_data/metadata*", "main_data"):  # fmt: skip
        rename_all(reflacx, pattern, str.upper)
    assert readings(reflacx)[0] == readings(originals["reflacx"])[0]


@pytest.mark.parametrize("change", [str.title, str.upper])
def test_one_of_several_tables_in_other_capitals_is_read_beside_the_rest(
    originals: dict[str, Path], reflacx: Path, change: Callable[[str], str]
) -> None:
    rename_all(reflacx, "main_data/metadata_phase_3.csv", change)
    assert readings(reflacx)[0] == readings(originals["reflacx"])[0]


def test_names_match_a_pattern_in_any_capitals_but_not_in_two_spellings(tmp_path: Path) -> None:
    for name in ("b.csv", "A.CSV", "c.csv", "C.csv", "D.csv", "d.CSV", "e.txt"):
        (tmp_path / name).touch()
    assert InputFiles(tmp_path).matching("", "*.csv") == [
        "A.CSV",
        "b.csv",
        "C.csv",
        "c.csv",
        "D.csv",
    ]


def rewrite_tables(data: Path, change: Callable[[str], str], pattern: str = "*.csv*") -> None:
    paths = [path for path in data.rglob(pattern) if path.is_file()]
    assert paths
    for path in paths:
        packed = path.suffix == ".gz"
        text = (gzip.decompress if packed else bytes)(path.read_bytes()).decode()
        changed = change(text).encode()
        path.write_bytes((gzip.compress if packed else bytes)(changed))


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx", "eye_gaze"])
@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
def test_columns_in_other_capitals_are_read_as_released(
    originals: dict[str, Path], tmp_path: Path, layout: str, change: Callable[[str], str]
) -> None:
    data = shutil.copytree(originals[layout], tmp_path / "data")

    def of_header(text: str) -> str:
        header, _, rows = text.partition("\n")
        return f"{change(header)}\n{rows}"

    rewrite_tables(data, of_header)
    assert readings(data)[0] == readings(originals[layout])[0]


def test_a_column_in_two_spellings_counts_as_missing() -> None:
    with pytest.raises(BadInputError) as caught:
        parse_csv(b"DICOM_ID,Dicom_Id,SPLIT\na,b,train\n", "t.csv", ["dicom_id", "split"])
    assert caught.value.reason == "repeated_column"
    own = parse_csv(b"ID,Split,Mine\n1,2,3\n", "t.csv", ["ID", "Split"])
    assert list(own.columns) == ["ID", "Split", "Mine"]


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx", "eye_gaze"])
def test_subjects_and_studies_with_their_letters_are_the_same(
    originals: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    """MIMIC-CXR writes p90000001 and s95000001 in paths, its tables and the others the digits."""
    data = shutil.copytree(originals[layout], tmp_path / "data")
    subject, study = (
        re.compile(rf"(?:(?<=,)|(?<=\n)){digits}\d{{6}}(?=,)") for digits in ("9[01]", "9[5-7]")
    )
    rewrite_tables(data, lambda text: study.sub(r"s\g<0>", subject.sub(r"p\g<0>", text)))
    assert readings(data)[0] == readings(originals[layout])[0]


def test_two_spellings_of_one_name_are_not_chosen_between(
    mimic_eye: Path, originals: dict[str, Path]
) -> None:
    path = sorted(mimic_eye.glob("*/REFLACX/main_data/*/fixations.csv"))[0]
    shutil.copy(path, path.with_name("FIXATIONS.csv"))
    path.rename(path.with_name("Fixations.csv"))
    found, _ = readings(mimic_eye)
    assert found[path.parent.name].startswith("missing_file")
    whole = readings(originals["mimic_eye"])[0]
    assert {key for key in whole if found[key] != whole[key]} == {path.parent.name}


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".JPEG", ".png", ".dcm", ".DCM", ".dicom"])
@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx"])
def test_an_image_is_found_under_any_suffix(
    originals: dict[str, Path], layout: str, suffix: str, tmp_path: Path
) -> None:
    data = shutil.copytree(originals[layout], tmp_path / "data")
    rename_all(data, "**/s*/*.jpg", lambda name: name.replace(".jpg", suffix))
    assert readings(data)[0] == readings(originals[layout])[0]


def test_no_folder_is_listed_twice_and_none_where_every_name_is_as_released(
    originals: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: Counter[str] = Counter()
    names = trees_module._LocalTree.names

    def counting(self: Any, path: str) -> list[str]:
        asked[path] += 1
        return names(self, path)

    monkeypatch.setattr(trees_module._LocalTree, "names", counting)
    readings(originals["mimic_eye"])
    assert max(asked.values()) == 1
    # Of a patient who is in one of the two datasets, to see that the other's folder is not there.
    assert all(path == "." or path.startswith("patient_") for path in asked)
    assert not any("/" in path for path in asked)


# -- tables ----------------------------------------------------------------------------------------


def plain(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes()))


def gzip_named_csv(path: Path) -> None:
    path.rename(path.with_suffix(""))


def plain_named_csv(path: Path) -> None:
    plain(path)
    gzip_named_csv(path)


def in_a_folder_of_its_name(path: Path) -> None:
    data = gzip.decompress(path.read_bytes())
    path.unlink()
    path.with_suffix("").mkdir()
    (path.with_suffix("") / path.with_suffix("").name).write_bytes(data)


def in_a_folder_named_gz(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / path.with_suffix("").name).write_bytes(data)


@pytest.mark.parametrize(
    "change",
    [plain, gzip_named_csv, plain_named_csv, in_a_folder_of_its_name, in_a_folder_named_gz],
)
def test_a_table_is_read_by_its_content(
    originals: dict[str, Path], reflacx: Path, change: Callable[[Path], None]
) -> None:
    for path in list(reflacx.glob("images/*.csv.gz")):
        change(path)
    found, files = readings(reflacx)
    assert found == readings(originals["reflacx"])[0] and not files.remarks


def test_a_readings_own_table_may_be_gzipped(originals: dict[str, Path], reflacx: Path) -> None:
    for path in list(reflacx.glob("main_data/*/fixations.csv")):
        path.with_name("fixations.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert readings(reflacx)[0] == readings(originals["reflacx"])[0]


@pytest.mark.parametrize(
    ("layout", "pattern"),
    [("reflacx", "metadata_phase_*.csv"), ("eye_gaze", "master_sheet.csv")],
)
def test_a_native_tree_is_known_by_its_gzipped_table(
    tmp_path: Path, layout: str, pattern: str
) -> None:
    write_tree(tmp_path, 6, small=True, seed=3, layout=layout)
    expected = readings(tmp_path)[0]
    for path in tmp_path.rglob(pattern):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert readings(tmp_path)[0].keys() == expected.keys() and expected


def as_it_is(data: bytes) -> bytes:
    return data


def renamed_as_a_copy(path: Path) -> Path:
    stem, dot, suffix = path.name.partition(".csv")
    return path.rename(path.with_name(f"{stem} (1){dot}{suffix}"))


@pytest.mark.parametrize("file", ["cxr_meta.csv", "cxr_split.csv", "cxr_chexpert.csv"])
def test_a_copy_of_a_patients_missing_table_is_named_when_planned(
    mimic_eye: Path, file: str
) -> None:
    copy = renamed_as_a_copy(sorted(mimic_eye.glob(f"*/CXR-JPG/{file}"))[0])
    files = InputFiles(mimic_eye)
    planned_subjects(choose_source(files), files)
    assert lines(files) == f"{copy.relative_to(mimic_eye)}: {A_COPY}"


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx"])
def test_a_whole_copy_beside_a_damaged_table_is_named(
    originals: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    data = shutil.copytree(originals[layout], tmp_path / "data")
    path = sorted(data.rglob("*chexpert.csv*"))[0]
    copy = renamed_as_a_copy(path)
    path.write_bytes(copy.read_bytes()[:9])
    assert f"{copy.relative_to(data)}: {A_COPY}" in lines(readings(data)[1])


def test_a_copy_of_a_readings_missing_table_is_named_in_its_message(reflacx: Path) -> None:
    copy = renamed_as_a_copy(sorted(reflacx.glob("main_data/*/fixations.csv"))[0])
    told_of = readings(reflacx)[0][copy.parent.name]
    assert "fixations.csv is missing; " in told_of and "/fixations (1).csv lies there" in told_of


@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx"])
def test_images_in_one_flat_folder_are_found_by_their_ids(
    originals: dict[str, Path], tmp_path: Path, layout: str
) -> None:
    data, flat = shutil.copytree(originals[layout], tmp_path / "data"), tmp_path / "flat"
    flat.mkdir()
    for path in sorted(data.rglob("*.jpg")):
        path.rename(flat / path.name)
    assert readings(data, flat)[0] == readings(originals[layout])[0]


@pytest.mark.parametrize("name", ["metadata_phase_3 (1).csv", "metadata_phase_3 - Copy.csv"])
@pytest.mark.parametrize("change", [as_it_is, lambda data: data.replace(b"\r\n", b"\n")])
def test_a_table_that_was_downloaded_twice_counts_once_and_is_named(
    originals: dict[str, Path], reflacx: Path, name: str, change: Callable[[bytes], bytes]
) -> None:
    first = reflacx / "main_data" / "metadata_phase_3.csv"
    first.with_name(name).write_bytes(change(first.read_bytes()))
    found, files = readings(reflacx)
    assert found == readings(originals["reflacx"])[0]
    assert f"main_data/{name}: passed over" in lines(files)
    assert "metadata_phase_3.csv says the same" in lines(files)


def test_rows_of_two_tables_count_once_where_equal_and_contradict_by_name_where_not(
    originals: dict[str, Path], reflacx: Path
) -> None:
    first = reflacx / "main_data" / "metadata_phase_3.csv"
    header, row, *rest = first.read_bytes().decode().splitlines(keepends=True)
    cells = row.split(",")
    cells[5] = "90000001"  # another subject
    text = "".join([header, ",".join(cells), *rest])
    first.with_name("metadata_phase_3 (1).csv").write_bytes(text.encode())
    found, _ = readings(reflacx)
    whole = readings(originals["reflacx"])[0]
    assert {key for key in whole if found[key] != whole[key]} == {cells[0]}
    assert found[cells[0]] == "duplicate_id"


# -- where images lie ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["reflacx", "eye_gaze"])
@pytest.mark.parametrize(
    ("lies", "given"),
    [
        pytest.param("mimic-cxr-jpg/2.0.0", "mimic-cxr-jpg/2.0.0/files", id="one level too low"),
        pytest.param("mimic-cxr-jpg/2.0.0", "mimic-cxr-jpg", id="one level too high"),
        pytest.param("mimic-cxr-jpg/2.0.0", ".", id="two levels too high"),
        pytest.param("a-long-title-2.0.0", ".", id="in a folder that PhysioNet's archive names"),
    ],
)
def test_the_tables_of_images_that_lie_elsewhere_are_found(
    originals: dict[str, Path], tmp_path: Path, layout: str, lies: str, given: str
) -> None:
    data = shutil.copytree(originals[layout], tmp_path / "data")
    (tmp_path / "cxr" / lies).parent.mkdir(parents=True)
    (data / "images").rename(tmp_path / "cxr" / lies)
    found, files = readings(data, tmp_path / "cxr" / given)
    assert found == readings(originals[layout])[0] and not files.remarks


def test_data_may_be_the_folder_files_itself(originals: dict[str, Path]) -> None:
    images = originals["reflacx"] / "images"
    assert readings(images / "files")[0] == readings(images)[0]


def test_a_table_of_all_images_that_is_missing_is_named_with_what_stays_empty(
    reflacx: Path,
) -> None:
    for path in list(reflacx.glob("images/*-split.csv.gz")):
        path.rename(path.with_name("mimic-cxr-2.0.0-split (1).csv.gz"))
    for path in list(reflacx.glob("images/*-metadata.csv.gz")):
        path.unlink()
    said = lines(readings(reflacx)[1])
    assert "no table mimic-cxr-2.*-split.csv.gz, so that no reading has its split" in said
    assert "mimic-cxr-2.0.0-split (1).csv.gz" in said
    assert "no table mimic-cxr-2.*-metadata.csv.gz, so that no reading has its view" in said
    assert "chexpert" not in said


def test_ids_with_a_suffix_in_the_master_sheet_are_the_folders(
    originals: dict[str, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(originals["eye_gaze"], tmp_path / "data")
    expected, sheet = readings(data)[0], data / "master_sheet.csv"
    text = sheet.read_text()
    for dicom_id in expected:
        text = text.replace(f"\n{dicom_id},", f"\n{dicom_id}.dcm,")
    sheet.write_text(text)
    assert text.count(".dcm,") >= len(expected) and readings(data)[0] == expected


# -- what stands for a file ---------------------------------------------------------------------


def test_a_pointer_of_git_lfs_is_called_one(reflacx: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    image = sorted(reflacx.glob("images/files/*/*/*/*.jpg"))[0]
    gaze = sorted(reflacx.glob("main_data/*/fixations.csv"))[0]
    for path in (image, gaze):
        path.write_bytes(pointer)
    found, _ = readings(reflacx)
    assert found[gaze.parent.name].startswith("git_lfs_pointer")
    said = [one for one in found.values() if isinstance(one, str) and image.name in one]
    assert said and all("git lfs pull" in one for one in said)


def test_a_file_that_is_there_in_another_format_is_named(tmp_path: Path) -> None:
    for name in ("PHANTOM.webp", "fixations.xlsx", "Words.csv", "WORDS.csv"):
        (tmp_path / name).touch()
    files = InputFiles(tmp_path)
    for missing, other in (("PHANTOM.jpg", "PHANTOM.webp"), ("fixations.csv", "fixations.xlsx")):
        with pytest.raises(BadInputError, match=f"is missing; {other} lies there") as caught:
            files.read(missing)
        assert caught.value.reason == "missing_file"
    for missing in ("words.csv", "other.jpg"):
        with pytest.raises(BadInputError, match="is missing; put it there, or download"):
            files.read(missing)


# -- archives --------------------------------------------------------------------------------------


def pack(path: Path) -> None:
    shutil.make_archive(str(path), "zip", path)
    shutil.rmtree(path)


def test_a_patient_who_is_still_packed_is_named_by_a_run_and_counted_by_a_scan(
    mimic_eye: Path,
) -> None:
    patients = sorted(mimic_eye.glob("patient_*"))
    for patient in patients[:2]:
        pack(patient)
    said = lines(readings(mimic_eye)[1])
    assert said.startswith(f"{patients[0].name}.zip and 1 more: still packed")
    scanned = egma_prep("scan", mimic_eye)
    assert "2 x still packed" in scanned.stdout
    assert patients[0].name not in scanned.stdout


def test_an_archive_beside_what_was_in_it_is_not_spoken_of(mimic_eye: Path) -> None:
    patient = sorted(mimic_eye.glob("patient_*"))[0]
    shutil.make_archive(str(patient), "zip", patient)
    assert not readings(mimic_eye)[1].remarks


def test_a_dataset_of_a_patient_that_is_still_packed_is_named(mimic_eye: Path) -> None:
    home = sorted(mimic_eye.glob("patient_*/REFLACX"))[0]
    pack(home)
    said = lines(readings(mimic_eye)[1])
    assert f"{home.relative_to(mimic_eye)}.zip: still packed" in said


def test_a_reading_whose_folder_is_still_packed_says_so(reflacx: Path) -> None:
    home = sorted(path.parent for path in reflacx.glob("main_data/*/fixations.csv"))[0]
    pack(home)
    found, _ = readings(reflacx)
    assert found[home.name].startswith("missing_file: ")
    assert f"still in main_data/{home.name}.zip" in found[home.name]


@pytest.mark.parametrize("what", ["main_data", "images"])
def test_a_tree_whose_main_folder_is_still_packed_says_so(reflacx: Path, what: str) -> None:
    pack(reflacx / what)
    with pytest.raises(BadUsageError) as caught:
        readings(reflacx)
    assert f"unpack {what}.zip" in str(caught.value)


@pytest.mark.parametrize("part", ["files/p90"])
def test_patients_of_mimic_cxr_who_are_still_packed_are_named(reflacx: Path, part: str) -> None:
    home = reflacx / "images" / part
    (home.parent / "p91").mkdir()  # another prefix is there
    pack(home)
    said = lines(readings(reflacx)[1])
    assert f"images/{part}.zip: still packed" in said


# -- how it is said --------------------------------------------------------------------------------


def test_remarks_are_said_once_for_all_files_of_a_kind() -> None:
    remarks = [Remark("a.zip", "still packed"), Remark("b", "odd"), Remark("c.zip", "still packed")]
    assert list(told(remarks)) == ["a.zip and 1 more: still packed", "b: odd"]
    assert list(told(remarks, with_paths=False)) == [
        "2 x still packed",
        "1 x odd",
    ]
