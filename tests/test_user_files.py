"""Label tables as other programs re-save them: one reading for all, or one line."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import pandas as pd
import pytest

from egma_train.errors import BadUsageError, UnreadableImageError
from egma_train.evaluate.datasets import user_files
from egma_train.evaluate.datasets.image_lists import ImageList, labelled, subset
from egma_train.evaluate.datasets.prompts import read_prompts
from egma_train.evaluate.datasets.user_files import read_table, read_text
from egma_train.evaluate.images.frames import read_frame

TABLE = pd.DataFrame(
    {"Path": ["a b.jpg", "c,d.jpg", "é.jpg"], "Pleural Effusion": [1.0, None, -1.0]}
)
ROWS = [("a b.jpg", "1.0"), ("c,d.jpg", ""), ("é.jpg", "-1.0")]


def plain_csv() -> str:
    return TABLE.to_csv(index=False)


RESAVED = {
    "as published": plain_csv().encode(),
    "with an index": TABLE.to_csv().encode(),
    "with two indices": pd.read_csv(io.StringIO(TABLE.to_csv())).to_csv().encode(),
    "with a byte order mark": plain_csv().encode("utf-8-sig"),
    "in UTF-16": plain_csv().encode("utf-16"),
    "with the line ends of Windows": plain_csv().replace("\n", "\r\n").encode(),
    "with the line ends of old Macs": plain_csv().replace("\n", "\r").encode(),
    "with semicolons": TABLE.to_csv(index=False, sep=";").encode(),
    "with a line for Excel": b"sep=;\r\n" + TABLE.to_csv(index=False, sep=";").encode(),
    "with tabs": TABLE.to_csv(index=False, sep="\t").encode(),
    "with every value in quotes": TABLE.to_csv(index=False, quoting=1).encode(),
    "with blanks after commas": b'Path, "Pleural Effusion"\na b.jpg, 1.0\n "c,d.jpg", \n'
    + "é.jpg, -1.0\n".encode(),
    "with blanks as NaN": TABLE.to_csv(index=False, na_rep="NaN").encode(),
    "with blanks as nan": TABLE.to_csv(index=False, na_rep="nan").encode(),
    "with blanks as NA": TABLE.to_csv(index=False, na_rep="NA").encode(),
    "with blanks as N/A": TABLE.to_csv(index=False, na_rep="N/A").encode(),
    "with names as R writes them": plain_csv().replace("Pleural E", "Pleural.E").encode(),
    "with names in another case": plain_csv().replace("Path", "path").encode(),
    "with blank rows at the end": (plain_csv() + ",\n,\n\n").encode(),
    "with other columns that stand twice": TABLE.assign(x=1, y=2).rename(columns={"y": "x"})
    .to_csv(index=False).encode(),
    "packed by gzip under its plain name": gzip.compress(plain_csv().encode()),
}  # fmt: skip


@pytest.mark.parametrize("saved", RESAVED)
def test_a_table_reads_the_same_however_it_was_saved(tmp_path: Path, saved: str) -> None:
    (tmp_path / "train.csv").write_bytes(RESAVED[saved])
    rows = read_table(tmp_path / "train.csv", "Path", "Pleural Effusion")
    assert [(row["Path"], row["Pleural Effusion"]) for _, row in rows] == ROWS


def test_kaggles_folder_and_archive_are_looked_into(tmp_path: Path) -> None:
    inside = tmp_path / "train.csv" / "train.csv"
    inside.parent.mkdir()
    inside.write_text(plain_csv())
    with zipfile.ZipFile(tmp_path / "train.csv.zip", "w") as archive:
        archive.writestr("train.csv", plain_csv())
        archive.writestr("__MACOSX/._train.csv", "x")
    assert read_text(tmp_path / "train.csv") == read_text(tmp_path / "train.csv.zip") == plain_csv()


def test_a_row_is_told_by_the_number_that_a_spreadsheet_gives_it(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text('a,b\n1,"x\ny"\n\n,\n5,\n')
    rows = read_table(tmp_path / "own.csv", "a", "b")
    assert [(number, row["a"]) for number, row in rows] == [(2, "1"), (5, "5")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"Path,Path\na,b\n", "has the column Path 2 times; keep one"),
        (b"path,PATH\na,b\n", "has the column Path 2 times; keep one"),
        (b"Path,x,Path.1\na,b,c\n", "has the column Path 2 times; keep one of Path, Path.1"),
        (b"Path,x,Path_right\na,b,c\n", "has the column Path 2 times"),
        (b"Path,x x,x.x,X,x.1\na,b,c,d,e\n", "has the column x 2 times; keep one of X, x.1"),
        (b"Path,x_x,x_y\na,b,c\n", "has the column x 2 times; keep one of x_x, x_y"),
        (b"Path,path \na,b\n", "has the column Path 2 times"),
        (b"Path,x\n1,a,b\n", "row 2: 3 cells for 2 columns"),
        (b"Path,x\na,1\nb", "ends within row 3: it is cut off"),
        (b'Path,x\n"a,1\nb,2\n', "is no CSV table"),
        (b"", "has no column Path; there are: none"),
        (b"Image;x\n", "has no column Path; there are: Image, x"),
        ("Path,x\n".encode("utf-16-le"), "is no UTF-8 text"),
        ("Path,é\n".encode("latin-1"), "is no UTF-8 text"),
        (b"PK\x03\x04and no more", "cannot be unpacked"),
        (b"\x1f\x8b\x08and no more", "cannot be unpacked"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_table_that_may_be_read_two_ways_is_one_line(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "own.csv").write_bytes(content)
    with pytest.raises(BadUsageError) as raised:
        read_table(tmp_path / "own.csv", "Path", maybe=("x",))
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_a_workbook_is_no_table(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "own.csv", "w") as archive:
        archive.writestr("xl/workbook.xml", "")
        archive.writestr("[Content_Types].xml", "")
    with pytest.raises(BadUsageError, match="a ZIP of 2 files; give one table, as CSV"):
        read_text(tmp_path / "own.csv")


def three() -> ImageList:
    return labelled("made", ("A", "B"), {"1": "A", "2/x.JPG": "B", "3.dcm": "A"})


@pytest.mark.parametrize(
    "file",
    [
        "1\n2\\x.jpg\n",
        "\N{ZERO WIDTH NO-BREAK SPACE}1\r2/x.png\r",
        "ImageId;label\n1;B\n2/x;3\n",
        ",ImageId\n0,1\n3,2/x.JPG\n",
        "Unnamed: 0,path\n3,1\n3,./2/x.jpg\n",
        "label,path\n0,1\n0,2/x.jpg\n",
        "\npath\n\n1\n \n2/x\n,\n",
    ],
    ids=["lines", "Mac", "semicolons", "R's index", "pandas' index", "another column", "blanks"],
)
def test_a_subset_is_the_column_that_names_images(tmp_path: Path, file: str) -> None:
    (tmp_path / "some.csv").write_text(file, newline="")
    assert subset(three(), tmp_path / "some.csv").ids == ("1", "2/x.JPG")


def test_folders_of_a_subset_do_not_count_where_ids_have_none(tmp_path: Path) -> None:
    images = labelled("made", ("A", "B"), {"1a": "A", "2b": "B", "3c": "A"})
    (tmp_path / "test.csv").write_text(",Path\n7,/data4/stage_2/1a.dcm\n8,/data4/stage_2/3c.dcm\n")
    assert subset(images, tmp_path / "test.csv").ids == ("1a", "3c")


@pytest.mark.parametrize("line", ["1,3", "1;3\n", "1.png\t3.png\r\n", "'1','3'".replace("'", '"')])
def test_a_subset_may_stand_in_one_line(tmp_path: Path, line: str) -> None:
    images = labelled("made", ("A", "B"), {"1": "A", "2": "B", "3": "A"})
    (tmp_path / "some.txt").write_text(line)
    found = subset(images, tmp_path / "some.txt")
    assert found.ids == ("1", "3") and found.notes == images.notes


def test_images_that_other_columns_of_a_subset_name_are_counted(tmp_path: Path) -> None:
    images = labelled("made", ("A", "B"), {"1": "A", "2": "B", "3": "A", "4": "B"})
    (tmp_path / "some.csv").write_text("1,2\n3,1\n")
    found = subset(images, tmp_path / "some.csv")
    assert found.ids == ("1", "3")
    assert found.notes[-1] == "1 images named in other columns of some.csv are not taken, such as 2"


def test_queries_are_texts_or_one_line_says_so(tmp_path: Path) -> None:
    for name, content in [
        ("nested.json", json.dumps({"Edema": [["edema"]]})),
        ("number.toml", "Edema = [1]"),
        ("part.toml", '[classes.Edema]\nseverity = ["", "mild"]\nsubtype = "edema"\n'),
        ("part.json", json.dumps({"Edema": {"severity": ["", "mild"], "subtype": "edema"}})),
        ("part_of_numbers.json", json.dumps({"Edema": {"severity": [1], "subtype": ["edema"]}})),
        ("part_of_parts.json", json.dumps({"Edema": {"severity": {"mild": 1}}})),
        ("blank.csv", "Variable,Text\nEdema,edema\nEdema,\n"),
    ]:
        (tmp_path / name).write_text(content)
        with pytest.raises(BadUsageError, match="holds no prompts"):
            read_prompts(tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_file_that_never_ends_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    for read in (read_text, read_prompts, lambda path: read_table(path, "a")):
        with pytest.raises(BadUsageError, match=r"own\.csv: it is no ordinary file"):
            read(path)
    with pytest.raises(UnreadableImageError, match="it is no ordinary file"):
        read_frame(path)


@pytest.mark.parametrize("packed", ["gzip", "zip"])
def test_a_bomb_is_one_line_before_it_is_unpacked(
    packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_files, "MOST_TABLE_BYTES", 10**5)
    path, text = tmp_path / "own.csv", b"a,b\n" + b"0" * 10**7
    if packed == "gzip":
        path.write_bytes(gzip.compress(text))
    else:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("own.csv", text)
    with pytest.raises(BadUsageError, match=r"cannot be unpacked \(to more than 100,000 bytes\)"):
        read_table(path, "a")
    path.write_bytes(text)
    with pytest.raises(BadUsageError, match="it has 10,000,004 bytes"):
        read_table(path, "a")
