"""Images are found under the paths of other systems, releases and folders, or nobody's."""

from pathlib import Path

import pytest

from egma_train.errors import BadUsageError
from egma_train.evaluate.datasets.image_files import locate, told_absent
from egma_train.evaluate.datasets.tasks import read_test

RELEASE = "CheXpert-v1.0-small/train"
KAGGLE = {"images": "jpg", "masks": "png"}
IMAGES = [f"{RELEASE}/patient{i:05}/study1/view1_frontal.jpg" for i in range(4)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    touch(tmp_path, *IMAGES)
    return tmp_path


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


WRITTEN = {
    "as released": lambda one: one,
    "with backslashes": lambda one: one.replace("/", "\\"),
    "below the working folder": lambda one: f"./{one}",
    "absolute, elsewhere": lambda one: f"/home/me/data/{one}",
    "absolute, of Windows": lambda one: "D:\\me\\" + one.replace("/", "\\"),
    "of the full-size release": lambda one: one.replace("-small", ""),
    "in another case": lambda one: one.replace("CheXpert", "chexpert").replace("view", "VIEW"),
    "with another case of suffix": lambda one: one.replace(".jpg", ".JPG"),
    "with another suffix": lambda one: one.replace(".jpg", ".png"),
    "without suffix": lambda one: one.replace(".jpg", ""),
    "without the release": lambda one: one.partition("/")[2],
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("below", ["CheXpert-v1.0-small", RELEASE])
def test_paths_lead_to_the_same_files_however_they_are_written(
    root: Path, written: str, below: str
) -> None:
    ids = [WRITTEN[written](one) for one in IMAGES]
    assert locate(root / below, ids) == [root / one for one in IMAGES]


def test_one_patients_folder_holds_no_images_of_another(tmp_path: Path) -> None:
    ids = [f"train/patient{i}/study{i}/view1_frontal.jpg" for i in (1, 2)]
    touch(tmp_path / "patient1", "study1/view1_frontal.jpg", "study2/view1_frontal.jpg")
    assert locate(tmp_path / "patient1", ids) == [None, None]
    mine = [ids[0], "train/patient1/study2/view1_frontal.jpg"]
    expected = [tmp_path / "patient1" / one.removeprefix("train/patient1/") for one in mine]
    assert locate(tmp_path / "patient1", mine) == expected


def test_a_flat_copy_of_many_patients_is_found_by_names_of_their_own(tmp_path: Path) -> None:
    ids = [f"files/p10/p1000000{i}/s5000000{i}/{i}a2b.jpg" for i in range(3)]
    touch(tmp_path, "0a2b.jpg", "1a2b.jpg", "2a2b.jpg")
    assert locate(tmp_path, ids) == [tmp_path / f"{i}a2b.jpg" for i in range(3)]


def test_paths_of_two_releases_lead_below_the_folder_of_one(root: Path) -> None:
    ids = [one.replace("-small", "") if i % 2 else one for i, one in enumerate(IMAGES)]
    assert locate(root / "CheXpert-v1.0-small", ids) == [root / one for one in IMAGES]


@pytest.mark.parametrize("deeper", ["archive", "kaggle/archive"])
def test_images_may_lie_a_folder_or_two_further_down(tmp_path: Path, deeper: str) -> None:
    touch(tmp_path / deeper, *IMAGES)
    assert locate(tmp_path, IMAGES) == [tmp_path / deeper / one for one in IMAGES]


def test_paths_of_several_depths_lose_as_many_folders_and_long_ones_are_not_there(
    tmp_path: Path,
) -> None:
    touch(tmp_path, "x/1.png", "2.png")
    ids = ["/home/me/x/1.png", "me/2.png", "a/b/2.png", f"{'n' * 300}/3.png", "n" * 5000]
    assert locate(tmp_path, ids) == [tmp_path / "x/1.png", None, tmp_path / "2.png", None, None]


def test_two_folders_that_may_be_meant_are_not_chosen_among(tmp_path: Path) -> None:
    for deeper in ("first", "second"):
        touch(tmp_path / deeper, *IMAGES)
    assert locate(tmp_path, IMAGES) == [None] * 4


def test_what_is_missing_is_not_replaced_by_a_file_elsewhere(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "2.png", "b/c/1.png")
    assert locate(tmp_path, ["a/1.png", "a/2.png", "b/1.png"]) == [tmp_path / "a/1.png", None, None]


def test_nothing_outside_the_folder_of_images_is_read(tmp_path: Path) -> None:
    touch(tmp_path, "outside.png", "images/a/b.png")
    ids = [
        "../outside.png",
        str(tmp_path / "outside.png"),
        "a/../../outside.png",
        "..\\outside.png",
    ]
    assert locate(tmp_path / "images", ids) == [None] * 4


def test_a_file_is_not_guessed_where_two_may_be_meant(tmp_path: Path) -> None:
    touch(tmp_path, "root.png", "a/dup.png", "b/DUP.PNG", "c/one.JPG")
    found = locate(tmp_path, ["x/root.png", "y/root.png", "dup", "one", "root"])
    assert found == [None, None, None, tmp_path / "c/one.JPG", tmp_path / "root.png"]


def test_a_file_goes_to_the_first_of_two_spellings(tmp_path: Path) -> None:
    touch(tmp_path, "x.png", "a/y.jpg")
    found = locate(tmp_path, ["x.png", "./x.png", "X.PNG", "a\\y.jpg", "a/y.jpg"])
    assert found == [tmp_path / "x.png", None, None, tmp_path / "a/y.jpg", None]


def test_names_alone_are_found_anywhere_with_or_without_their_suffix(tmp_path: Path) -> None:
    uid = "1.2.276.0.7230010.3.1.4.8323329.1000.1517875201.850000"
    touch(tmp_path, f"{uid}.1/{uid}.2/{uid}.dcm", "stage_2_train_images/0A-b.dcm")
    dicom, other = tmp_path / f"{uid}.1/{uid}.2/{uid}.dcm", "stage_2_train_images/0A-b.dcm"
    assert locate(tmp_path, [uid, "0a-b"]) == [dicom, tmp_path / other]
    assert locate(tmp_path, [f"{uid}.dcm", "0A-b.png"]) == [dicom, tmp_path / other]


@pytest.mark.parametrize(
    ("one", "files", "meant"),
    [
        ("a.jpg", ["annotations/a.png", "images/a.jpg"], "images/a.jpg"),
        ("a.dcm", ["masks/a.png", "siim/a.dcm"], "siim/a.dcm"),
        ("a.dcm", ["masks/a.png", "siim/a.dicom"], "siim/a.dicom"),
        ("a.jpg", ["masks/a.png", "x/a.JPEG"], "x/a.JPEG"),
        ("a.jpg", ["a.png", "x/a.jpg"], "x/a.jpg"),
        ("x/a.jpg", ["x/a.png", "x/a.jpeg"], "x/a.jpeg"),
        ("a", ["masks/a.png", "stage_2_train_images/a.jpg"], None),
        ("a", ["a.png", "x/a.dcm"], None),
        ("a.dcm", ["masks/a.png", "x/a.jpg"], None),
        ("a.jpg", ["a.png", "x/a.jpg", "y/a.jpg"], None),
        ("x/a", ["x/a.png", "x/a.jpg"], None),
        ("a.jpg", ["x/a.png"], "x/a.png"),
        ("a", ["a.png", "small/a.png"], "a.png"),
        ("a.jpg", ["a.png", "small/a.png"], "a.png"),
    ],
)
def test_a_mask_beside_an_image_is_not_taken_for_it(
    tmp_path: Path, one: str, files: list[str], meant: str | None
) -> None:
    touch(tmp_path, *files)
    assert locate(tmp_path, [one]) == [tmp_path / meant if meant else None]


def test_where_masks_have_the_names_of_images_the_line_says_which_folder_to_give(
    tmp_path: Path,
) -> None:
    touch(tmp_path, *(f"{folder}/{i}.{end}" for i in "ab" for folder, end in KAGGLE.items()))
    (tmp_path / "own.csv").write_text("path,label\na,Edema\nb,Pneumonia\n")
    with pytest.raises(BadUsageError, match=r"a may be images/a.jpg or masks/a.png; give as"):
        read_test("csv", tmp_path, tmp_path / "own.csv", seed=0)
    _, paths, _ = read_test("csv", tmp_path / "images", tmp_path / "own.csv", seed=0)
    assert paths == [tmp_path / "images/a.jpg", tmp_path / "images/b.jpg"]


@pytest.mark.parametrize(
    ("one", "told"),
    [
        ("../a", "paths with '..', such as ../a, are not"),
        ("a.dcm", "is there an image named a.dcm"),
    ],
)
def test_the_line_tells_names_and_paths_upwards_too(tmp_path: Path, one: str, told: str) -> None:
    assert locate(tmp_path, [one]) == [None] and told in told_absent(tmp_path, [one])


def test_where_nothing_is_found_a_line_names_a_path_and_what_to_try(root: Path) -> None:
    labels = root / "own.csv"
    labels.write_text("path,label\nimages/a.jpg,Edema\nimages/b.jpg,Pneumonia\n")
    with pytest.raises(BadUsageError) as raised:
        read_test("csv", root, labels, seed=0)
    told = str(raised.value)
    assert told.startswith(f"none of 2 images can be read: there is no {root}/images/a.jpg")
    assert "give as --images the folder that" in told and "\n" not in told
