"""Raw files as the releases have them, and as damage leaves them."""

import contextlib
import gzip
import json
from collections import Counter
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from egma_prep.errors import REASONS, BadInputError
from egma_prep.sources import cxr_tables, eye_gaze, reflacx, transcripts
from egma_prep.sources.csv_table import Table, parse_csv
from egma_prep.sources.reading import Fixations, ImageFacts, Region, Words
from egma_prep.sources.values import (
    dicom_id,
    flag,
    is_blank,
    number,
    optional_text,
    pixels,
    safe_id,
)

PATH = "folder/file.csv"
DICOM = "-".join(["0a1b2c3d"] * 5)
OTHER_DICOM = "-".join(["ffffffff"] * 5)


def _table(text: str, *required: str) -> Table:
    return parse_csv(text.encode(), PATH, required)


@contextlib.contextmanager
def _rejected(*reasons: str) -> Any:
    with pytest.raises(BadInputError) as caught:
        yield caught
    assert caught.value.reason in reasons
    assert caught.value.path == PATH  # where
    assert REASONS[caught.value.reason] in str(caught.value)  # and what to do


# Any CSV file.


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("word,begin\nheart,1\nnormal,2\n", id="plain"),
        pytest.param("word,begin\r\nheart,1\r\nnormal,2\r\n", id="CRLF"),
        pytest.param("word,begin\nheart,1\nnormal,2", id="no last line end"),
        pytest.param("\ufeffword,begin\nheart,1\nnormal,2\n", id="byte order mark"),
        pytest.param("\ufeff\ufeffword,begin\nheart,1\nnormal,2\n", id="two byte order marks"),
        pytest.param('\ufeff"word",begin\nheart,1\nnormal,2\n', id="mark and quotes"),
        pytest.param(" word , begin\nheart,1\nnormal,2\n", id="spaces in the header"),
        pytest.param(",word,begin\n17,heart,1\n40,normal,2\n", id="index column"),
        pytest.param(
            "Unnamed: 0,word,begin\n17,heart,1\n40,normal,2\n", id="re-saved index column"
        ),
        pytest.param(",Unnamed: 0,word,begin\n0,7,heart,1\n1,8,normal,2\n", id="two index columns"),
        pytest.param("word,begin\n\nheart,1\n\nnormal,2\n\n", id="blank lines"),
        pytest.param('"word","begin"\n"heart","1"\n"normal","2"\n', id="all quoted"),
        pytest.param("word,begin\rheart,1\rnormal,2\r", id="line ends of old Macs"),
        pytest.param("word,begin\r\r\nheart,1\r\r\nnormal,2\r\r\n", id="line ends twice"),
        pytest.param("word,begin\r\nheart,1\nnormal,2\r", id="mixed line ends"),
        pytest.param("word;begin\nheart;1\nnormal;2\n", id="semicolons"),
        pytest.param("word\tbegin\nheart\t1\nnormal\t2\n", id="tabs"),
        pytest.param("sep=;\r\nword;begin\r\nheart;1\r\nnormal;2\r\n", id="Excel's own line"),
        pytest.param('"sep=\t"\nword\tbegin\nheart\t1\nnormal\t2\n', id="the same, quoted"),
        pytest.param("\nword;begin\nheart;1\nnormal;2\n", id="a blank line before semicolons"),
        pytest.param("word,begin\nheart,1\nnormal,2\n,\n,\n", id="blank rows at the end"),
        pytest.param("word,begin\n,\nheart,1\n , \nnormal,2\n", id="blank rows between"),
        pytest.param("word,begin\nheart,1\nnormal,2\n,,,,\n\t\n", id="blank rows, longer, shorter"),
        pytest.param(",word,begin\n0,heart,1\n1,,\n2,normal,2\n", id="a blank row with an index"),
        pytest.param("word,begin\nheart,1\nNaN,NaN\nnormal,2\nNA,NA\n", id="pandas' blank rows"),
        pytest.param("word,begin,,\nheart,1,,\nnormal,2,,\n", id="columns without a name"),
        pytest.param("word,begin,\nheart,1\nnormal,2\n", id="a last comma in the header"),
        pytest.param("word,begin\nheart,1,\nnormal,2,\n", id="a last comma in the rows"),
        pytest.param('"word","begin"\n"1","heart",1\n"2","normal",2\n', id="R's row names"),
        pytest.param("word,begin\nheart,1\nword,begin\nnormal,2\n", id="the header again"),
        pytest.param("word,begin\nheart,1\n\ufeffword,begin\nnormal,2\n", id="again, marked"),
    ],
)
@pytest.mark.parametrize("as_bytes", ["UTF-8", "UTF-16", "gzip"])
def test_releases_spellings_of_a_table_read_alike(text: str, as_bytes: str) -> None:
    data = text.removeprefix("\ufeff").encode("utf-16") if as_bytes == "UTF-16" else text.encode()
    data = gzip.compress(data) if as_bytes == "gzip" else data
    for path in (PATH, f"{PATH}.gz"):  # the bytes tell, not the name
        table = parse_csv(data, path, ("word", "begin"))
        assert table.columns == {"word": ["heart", "normal"], "begin": ["1", "2"]}
        assert len(table) == 2


def test_a_row_is_named_by_its_place_in_the_file_though_blank_ones_stand_before() -> None:
    table = _table("word,begin\n,\nheart,1\n,\nnormal,x\n")
    with _rejected("bad_number") as caught:
        table.numbers("begin")
    assert "row 4, begin" in str(caught.value)
    with _rejected("bad_number") as caught:
        table.excerpts("word", ["normal"])["normal"].numbers("begin")
    assert "row 4, begin" in str(caught.value)


def test_a_word_without_times_is_no_blank_row() -> None:
    table = _table("word,timestamp_start_word,timestamp_end_word\nheart,1,2\nnone,,\n")
    assert table.columns["word"] == ["heart", "none"]
    with _rejected("bad_number"):
        reflacx.words(table)


@pytest.mark.parametrize("header", ["a,b,a", "a, a ,b", "0,a,a", "a,a,a"])
def test_a_column_that_stands_twice_is_refused_where_it_is_needed(header: str) -> None:
    table = _table(f"{header}\n1,2,3\n")
    assert "a" not in table.columns and table.repeated == {"a"}
    with _rejected("repeated_column") as caught:
        table.require(["a"])
    assert "'a' more than once" in str(caught.value)


@pytest.mark.parametrize("copy", ["a.1", "A.1", "a:1", "a_duplicated_0", "a"])
def test_a_second_column_that_was_renamed_is_one_that_stands_twice(copy: str) -> None:
    table = _table(f"word,a,{copy}\nheart,1,1\nnormal,2,3\n")
    assert table.columns == {"word": ["heart", "normal"]} and table.repeated == {"a"}
    with _rejected("repeated_column") as caught:
        table.require(["a"])
    assert copy == "a" or f"'a' more than once (also as {copy})" in str(caught.value)
    same = _table(f"word,a,{copy}\nheart,1,1\nnormal,2,2\n")
    assert same.columns == {"word": ["heart", "normal"], "a": ["1", "2"]}
    assert (same.repeated, same.copied) == (set(), {"a"})


@pytest.mark.parametrize("name", ["b.1", "a1", "a_x", "aright"])
def test_a_column_is_a_copy_of_none_that_is_not_there(name: str) -> None:
    assert list(_table(f"a,{name}\n1,2\n").columns) == ["a", name]


def test_index_columns_may_stand_twice() -> None:
    assert _table(",,Unnamed: 0,Unnamed: 0,a\n1,2,3,4,5\n").columns == {"a": ["5"]}


@pytest.mark.parametrize("data", [b"PK\x03\x04" + bytes(60)], ids=["a workbook"])
def test_a_workbook_is_called_one(data: bytes) -> None:
    with _rejected("bad_csv") as caught:
        parse_csv(data, PATH, ())
    assert "Excel workbook" in str(caught.value)


def test_columns_are_found_by_name_in_any_order() -> None:
    table = _table("end,extra,word\n2,?,heart\n", "word", "end")
    assert (table.columns["word"], table.columns["end"]) == (["heart"], ["2"])


def test_quoted_cells_may_hold_newlines_commas_and_quotes() -> None:
    table = _table('id,why\r\n1,"cough,\nfever ""high""\r\n"\r\n2,","\r\n')
    assert table.columns["why"] == ['cough,\nfever "high"\r\n', ","]


@pytest.mark.parametrize("word", ["none", "None", "null", "nan", "NaN", "na", "NA", "n/a", "true"])
def test_words_that_look_like_blanks_stay_words(word: str) -> None:
    table = _table(f"word,timestamp_start_word,timestamp_end_word\n{word},0.5,0.7\n")
    assert table.columns["word"] == [word]
    assert reflacx.words(table).text == [word]


def test_a_header_alone_is_an_empty_table() -> None:
    assert len(_table("xmin,ymin\r\n", "xmin")) == 0


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param("7,1,2\n", id="a row that may not be R's first"),
        pytest.param("1,10,\n2,20,\n", id="row names or a last comma"),
        pytest.param("5,1,2\n5,3,4\n", id="row names that stand twice"),
        pytest.param("0.5,1,2\n0.7,3,4\n", id="times"),
    ],
)
def test_a_header_a_name_short_of_rows_that_say_not_which_is_refused(rows: str) -> None:
    with _rejected("short_header") as caught:
        _table(f"a,b\n{rows}")
    assert "2 names, each row 3 cells" in str(caught.value)


@pytest.mark.parametrize("row", ["1", "1,2,3", "1,2,", '"1,2"'])
def test_ragged_rows_are_refused_by_their_number(row: str) -> None:
    with _rejected("bad_csv") as caught:
        _table(f"a,b\n1,2\n{row}\n")
    assert "row 2" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('a,b\n1,"2\n3,4\n', id="unclosed"),
        pytest.param('a,b\n"1"x,2\n', id="text after a quote"),
        pytest.param('a,"b\n1,2\n', id="unclosed in the header"),
    ],
)
def test_broken_quotes_are_refused(text: str) -> None:
    with _rejected("bad_csv"):
        _table(text)


@pytest.mark.parametrize(
    "data",
    [b"a,b\n1,\x00\n", b"\0" * 512, "a,b\n1,2\n".encode("utf-16-le")],
    ids=["in a cell", "alone", "UTF-16 without its mark"],
)
def test_nul_bytes_are_refused(data: bytes) -> None:
    with _rejected("nul_bytes"):
        parse_csv(data, PATH, ())


@pytest.mark.parametrize(
    "data", ["a,b\n1,größe\n".encode("latin-1"), b"\xff\xfea", b"a,b\n1,\x80\n"]
)
def test_other_encodings_are_refused(data: bytes) -> None:
    with _rejected("not_utf8"):
        parse_csv(data, PATH, ())


@pytest.mark.parametrize("data", [b"", b"\n", b"\r\n\r\n", b"  \n\t\n"])
def test_files_without_content_are_refused(data: bytes) -> None:
    with _rejected("empty_file"):
        parse_csv(data, PATH, ("word",))


@pytest.mark.parametrize(
    "data",
    [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"\xef\xbb\xbf\n\n\n", b"\xff\xfe"],
    ids=["alone", "and a line end", "and line ends", "of UTF-16"],
)
def test_a_byte_order_mark_alone_is_no_content(data: bytes) -> None:
    with _rejected("empty_file", "bad_csv"):
        parse_csv(data, PATH, ("word",))


def test_a_missing_column_is_named_with_those_there() -> None:
    with _rejected("missing_column") as caught:
        _table("word,begin\nheart,1\n", "word", "end")
    assert "'end'" in str(caught.value) and "word, begin" in str(caught.value)
    with _rejected("missing_column") as caught:
        parse_csv(b"word,begin\nheart,1\n", PATH, ["end"], ["end"])  # and if none is kept
    assert "word, begin" in str(caught.value)


CELLS = st.text(st.sampled_from('a1,"\n\r .;é\ufeff\0'), max_size=40).map(str.encode)


@settings(max_examples=300)
@given(data=st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode), CELLS))
@example(data=b"\xef\xbb\xbf")
@example(data=b",\n1,2\n")
def test_any_bytes_are_a_table_or_a_reject(data: bytes) -> None:
    try:
        table = parse_csv(data, PATH, ("a",))
    except BadInputError as error:
        assert error.reason in REASONS
    else:
        assert {len(cells) for cells in table.columns.values()} == {len(table)}


@given(
    rows=st.lists(
        st.lists(st.text(st.sampled_from('ab,"\n\r é1.'), max_size=8), min_size=3, max_size=3),
        max_size=6,
    )
)
def test_every_cell_survives_quoting(rows: list[list[str]]) -> None:
    lines = [["x", "y", "z"], *rows]
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in lines]
    table = _table("\r\n".join(quoted) + "\r\n", "x")
    told = [row for row in rows if any(map(str.strip, row))]  # not of nothing but blanks
    assert [list(row) for row in zip(*table.columns.values(), strict=True)] == told


# Cells.


@pytest.mark.parametrize(
    ("text", "value"),
    [("4.127", 4.127), ("101", 101), ("101.0", 101), (" -3 ", -3), ("1e-3", 0.001), ("-0.0", 0)],
)
def test_numbers_are_read_in_any_format(text: str, value: float) -> None:
    assert number(text, PATH, "x") == value


@pytest.mark.parametrize(
    "text", ["", " ", "nan", "inf", "-inf", "1e999", "None", "1,5", "1_0", "0x10", "4.1.2", "x"]
)
def test_what_is_no_finite_number_is_refused(text: str) -> None:
    with _rejected("bad_number"):
        number(text, PATH, f"{PATH}, row 3, x")


@pytest.mark.parametrize("text", ["1,5", "1,234", "-0,25", "1.234,5", "1,234.5"])
def test_a_number_with_a_comma_is_called_one(text: str) -> None:
    with _rejected("bad_number") as caught:
        number(text, PATH, "x")
    assert "a number with a comma" in str(caught.value)


BLANKS = ["", "  ", "NaN", "nan", "NA", "N/A", "#N/A", "null", "NULL", "None", "<NA>", " nan "]


@pytest.mark.parametrize("text", BLANKS)
def test_a_blank_is_a_blank_however_it_was_saved(text: str) -> None:
    assert is_blank(text)
    assert flag(text, PATH, "x") is None
    assert optional_text(text) is None


@pytest.mark.parametrize(("text", "size"), [("2544", 2544), ("2544.0", 2544), (" 1 ", 1)])
def test_sizes_may_be_written_as_floats(text: str, size: int) -> None:
    assert pixels(text, PATH, "width") == size


@pytest.mark.parametrize("text", ["", "0", "-5", "2544.5", "nan", "wide", "9e9", "65536"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with _rejected("bad_number"):
        pixels(text, PATH, f"{PATH}, width")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *((text, True) for text in ("True", "TRUE", "true", "1", "1.0", " True ")),
        *((text, False) for text in ("False", "FALSE", "false", "0", "0.0", "fAlSe")),
        *((text, None) for text in ("", " ")),
    ],
)
def test_flags_are_read_in_any_spelling(text: str, value: bool | None) -> None:
    assert flag(text, PATH, "x") is value


@pytest.mark.parametrize("text", ["yes", "2", "-1", "inf", "T", "Truee"])
def test_other_flags_are_refused(text: str) -> None:
    with _rejected("bad_flag"):
        flag(text, PATH, f"{PATH}, x")


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("P300R012345", "P300R012345"),
        (" P300R012345 ", "P300R012345"),
        ("90000032", "90000032"),
        ("90000032.0", "90000032"),
        ("a.b_c-d", "a.b_c-d"),
        ("x.0", "x.0"),
        ("a" * 128, "a" * 128),
    ],
)
def test_ids_are_read_as_text(text: str, plain: str) -> None:
    assert safe_id(text, PATH, "the id") == plain


BAD_IDS = {
    "parent folder": "../x", "hidden": ".hidden", "dots": "..", "blank": "", "space": "a b",
    "129 characters": "a" * 129, "emoji": "P300R🫁", "folder": "a/b", "backslash": "a\\b",
    "accent": "é", "newline inside": "a\nb", "NUL": "a\0b", "full-width digits": "１２３",
    "root": "/etc/passwd", "wildcard": "*", "dollar": "$HOME",
}  # fmt: skip


@pytest.mark.parametrize("text", [pytest.param(t, id=name) for name, t in BAD_IDS.items()])
def test_ids_that_are_no_safe_file_name_are_refused(text: str) -> None:
    with _rejected("bad_id"):
        safe_id(text, PATH, f"{PATH}: the id")


@pytest.mark.parametrize("text", ["1.23457E+7", "1.234568e+07", "1E7", "1,23457E+07", "1e-5"])
def test_an_id_that_a_spreadsheet_rounded_is_called_so(text: str) -> None:
    with _rejected("bad_id") as caught:
        safe_id(text, PATH, f"{PATH}: the id")
    assert "a spreadsheet rounded" in str(caught.value)


@given(text=st.text(max_size=140))
def test_an_accepted_id_is_always_a_safe_file_name(text: str) -> None:
    with contextlib.suppress(BadInputError):
        plain = safe_id(text, PATH, "the id")
        assert 1 <= len(plain) <= 128 and plain[0] != "."
        assert all(character.isascii() for character in plain)
        assert all(character.isalnum() or character in "._-" for character in plain)


def test_a_whole_dicom_id_has_44_characters() -> None:
    assert dicom_id(f" {DICOM} ", PATH) == DICOM


@pytest.mark.parametrize("text", [DICOM[:-5], DICOM + "0", "90000032"])
def test_calibration_slides_and_cut_ids_are_no_images(text: str) -> None:
    with _rejected("bad_dicom_id"):
        dicom_id(text, PATH)


# REFLACX.

FIXATIONS = ",".join(
    ["timestamp_start_fixation", "timestamp_end_fixation", "x_position", "y_position",
     "pupil_area_normalized", "angular_resolution_x_pixels_per_degree",
     "angular_resolution_y_pixels_per_degree"]
)  # fmt: skip
WORDS = "word,timestamp_start_word,timestamp_end_word"


def _list(values: Fixations | Words) -> list[list[Any]]:
    return [list(column) for column in values[:6]]  # without what was on the screen


def test_reflacx_fixations_keep_their_order_and_off_image_places() -> None:
    found = reflacx.fixations(
        _table(f"{FIXATIONS}\r\n0.1,0.4,-77,702,0.98,101,102\r\n0.5,0.8,9000.0,3,0.9,99.0,98\r\n")
    )
    assert _list(found) == [[0.1, 0.5], [0.4, 0.8], [-77, 9000], [702, 3], [101, 99], [102, 98]]


def test_reflacx_without_fixation_rows_is_refused() -> None:
    with _rejected("no_fixations"):
        reflacx.fixations(_table(f"{FIXATIONS}\r\n"))


@pytest.mark.parametrize("cell", ["", "nan", "inf", "left"])
@pytest.mark.parametrize("column", [0, 1, 2, 3, 5, 6])
def test_a_fixation_that_cannot_be_read_is_refused_by_row_and_column(
    column: int, cell: str
) -> None:
    row = ["0.5", "0.8", "10", "20", "0.9", "99", "98"]
    row[column] = cell
    with _rejected("bad_number") as caught:
        reflacx.fixations(_table(f"{FIXATIONS}\n0.1,0.4,1,2,0.9,99,98\n{','.join(row)}\n"))
    assert "row 2" in str(caught.value) and FIXATIONS.split(",")[column] in str(caught.value)


def test_a_fixation_that_ends_before_it_begins_is_refused() -> None:
    with _rejected("reversed_time"):
        reflacx.fixations(_table(f"{FIXATIONS}\n0.8,0.5,10,20,0.9,99,98\n"))


SHOWN = (
    f"{FIXATIONS},xmin_shown_from_image,ymin_shown_from_image,xmax_shown_from_image,"
    "ymax_shown_from_image"
)
ZOOMED = "0.5,0.8,1300,700,0.9,50,50,600,600,1900,2100"


def _sized(
    *shown: str, told: tuple[str, str] = ("", ""), image: tuple[int, int] = (1000, 1000)
) -> tuple[int, int, set[str]]:
    """Plan and load a reading; its size, and the notes that tell where it comes from."""
    row = {
        "id": "P300R912345", "eye_tracking_data_discarded": "False", "subject_id": "90000001",
        "image": f"files/p90/p90000001/s95000001/{DICOM}.dcm", "dicom_id": DICOM,
        "image_size_x": told[0], "image_size_y": told[1],
    }  # fmt: skip
    texts = {
        "fixations.csv": "\n".join([SHOWN, *shown]) + "\n",
        "timestamps_transcription.csv": f"{WORDS}\nheart,1,2\n",
    }

    def read_table(file: str, required: list[str]) -> Table:
        if file not in texts:
            raise BadInputError("missing_file", file, f"{file} is missing")
        return parse_csv(texts[file].encode(), file, required)

    planned = reflacx.plan_row(row, PATH)
    raw = reflacx.raw_reading(planned, read_table, ImageFacts(), PATH, lambda: image)
    return raw.width, raw.height, {name for name in +Counter(raw.notes) if "size" in name}


def _shown(*sides: object) -> str:
    return f"0.1,0.4,9,9,0.9,99,99,{','.join(map(str, sides))}"


@pytest.mark.parametrize("image", [(3056, 3056), (1272, 1528), (5088, 6112)])
def test_where_no_table_tells_the_size_it_is_what_the_reader_was_first_shown(
    image: tuple[int, int],
) -> None:
    whole = _shown(0, 0, 2544, 3056)
    assert _sized(whole, ZOOMED, image=image) == (2544, 3056, {"size_by_shown"})


@pytest.mark.parametrize(
    "told_nothing", [ZOOMED, _shown("", "", "", ""), _shown(0, 0, 2544, "wide"), _shown(0, 0, 0, 0)]
)
def test_where_a_part_or_nothing_was_shown_the_image_tells_its_size(told_nothing: str) -> None:
    found = _sized(told_nothing, image=(2544, 3056))
    assert found == (2544, 3056, {"size_by_image"})


def test_an_image_smaller_than_a_part_that_was_shown_is_refused() -> None:
    with _rejected("no_metadata_row") as caught:
        _sized(ZOOMED, image=(1272, 1528))
    assert "1272 x 1528" in str(caught.value) and "1900 x 2100" in str(caught.value)


def test_a_tables_size_counts_unless_more_was_shown() -> None:
    whole = _shown(0, 0, 2544, 3056)
    assert _sized(whole, told=("2544", "3056")) == (2544, 3056, set())
    assert _sized(_shown(0, 0, 1900, 2100), told=("2544", "3056")) == (2544, 3056, set())
    of_a_copy = _sized(whole, told=("1272", "1528"), image=(1272, 1528))
    assert of_a_copy == (2544, 3056, {"size_told_contradicted", "size_by_shown"})


def test_a_tables_size_of_an_enlarged_copy_gives_way_to_the_whole_that_was_shown() -> None:
    whole = _shown(0, 0, 2544, 3056)
    of_a_copy = _sized(whole, ZOOMED, told=("5088", "6112"), image=(5088, 6112))
    assert of_a_copy == (2544, 3056, {"size_told_contradicted", "size_by_shown"})
    assert _sized(ZOOMED, told=("5088", "6112"))[:2] == (5088, 6112)


@pytest.mark.parametrize("pixels", ["0", "-15", "1e300", "5000"])
@pytest.mark.parametrize("column", [5, 6])
def test_pixels_a_degree_that_no_screen_has_are_refused_by_row(column: int, pixels: str) -> None:
    row = ["0.5", "0.8", "10", "20", "0.9", "99", "98"]
    row[column] = pixels
    with _rejected("bad_number") as caught:
        reflacx.fixations(_table(f"{FIXATIONS}\n0.1,0.4,1,2,0.9,1,167\n{','.join(row)}\n"))
    assert f"row 2, {FIXATIONS.split(',')[column]}" in str(caught.value)


def test_reflacx_words_keep_punctuation_and_zero_lengths() -> None:
    found = reflacx.words(
        _table(f'{WORDS}\r\nno,1,1.2\r\n",",1.2,1.5\r\nmass,1.5,1.5\r\n.,1.5,2\r\n')
    )
    assert _list(found) == [["no", ",", "mass", "."], [1, 1.2, 1.5, 1.5], [1.2, 1.5, 1.5, 2]]


@pytest.mark.parametrize("rows", ["", ".,1,2\n", ".,1,2\n/,2,3\n"])
def test_a_transcript_without_words_is_refused(rows: str) -> None:
    with _rejected("empty_transcript"):
        reflacx.words(_table(f"{WORDS}\n{rows}"))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (",1,2", "bad_csv"),
        (" ,1,2", "bad_csv"),
        ("heart,,2", "bad_number"),
        ("heart,1,x", "bad_number"),
        ("heart,2,1", "reversed_time"),
    ],
)
def test_a_word_that_cannot_be_read_refuses_its_reading(row: str, reason: str) -> None:
    with _rejected(reason):
        reflacx.words(_table(f"{WORDS}\nno,0,0.5\n{row}\n"))


def test_reflacx_labels_are_the_filled_cells() -> None:
    row = {
        "id": "P300R012345", "Consolidation": "3.0", "Fracture": "0", "Mass": "", "Nodule": " ",
        "Quality issue": "FALSE", "Support devices": "True", "Other": "azygos fissure|scoliosis",
    }  # fmt: skip
    found, notes = reflacx.labels(row)
    assert found == {
        "reflacx:Consolidation": 3, "reflacx:Fracture": 0, "reflacx:Quality issue": 0,
        "reflacx:Support devices": 1,
    }  # fmt: skip
    assert not +notes


@pytest.mark.parametrize(
    ("name", "cell"),
    [("Consolidation", "high"), ("Consolidation", "6"), ("Consolidation", "2.5"),
     ("Consolidation", "-1"), ("Consolidation", "1,5"), ("Support devices", "maybe")],
)  # fmt: skip
def test_a_label_that_cannot_be_read_is_left_out_and_counted(name: str, cell: str) -> None:
    found, notes = reflacx.labels({name: cell, "Fracture": "4"})
    assert found == {"reflacx:Fracture": 4}
    assert +notes == Counter(labels_left_out=1)


def test_metadata_without_a_column_of_labels_are_counted() -> None:
    assert reflacx.labels({"id": "P300R012345"}) == ({}, Counter(without_labels=1))


def _regions(ellipses: Table, chest_box: Table) -> tuple[list[Region], Counter[str]]:
    notes: Counter[str] = Counter()
    tables = {"ellipses": ellipses, "chest_box": chest_box}
    return reflacx.regions(tables.__getitem__, notes), notes


def test_an_ellipse_is_a_region_for_each_of_its_labels() -> None:
    ellipses = _table(
        "xmin,ymin,xmax,ymax,certainty,Consolidation,Pulmonary edema,Other,Support devices\n"
        "500,20,300,80,4,True,TRUE,False,False\n7,8,9,10,1.0,False,1,False,False\n"
    )
    found, notes = _regions(ellipses, _table("xmin,ymin,xmax,ymax\n-12,30,2600.0,2900\n"))
    assert not +notes
    assert [tuple(one) for one in found] == [
        ("Consolidation", "ellipse", 300, 20, 500, 80, 4),
        ("Pulmonary edema", "ellipse", 300, 20, 500, 80, 4),
        ("Pulmonary edema", "ellipse", 7, 8, 9, 10, 1),
        ("chest", "box", -12, 30, 2600, 2900, None),
    ]


def test_no_ellipses_leave_the_chest_box() -> None:
    ellipses = _table("xmin,ymin,xmax,ymax,certainty,Consolidation\r\n")
    found, notes = _regions(ellipses, _table("xmin,ymin,xmax,ymax\r\n1,2,3,4\r\n"))
    assert [one.name for one in found] == ["chest"] and not +notes


@pytest.mark.parametrize(
    ("row", "left"),
    [
        pytest.param("1,2,wide,4,5,True,False", [], id="a corner of words"),
        pytest.param("1,2,,4,5,True,False", [], id="no corner"),
        pytest.param("1,2,3,inf,5,True,False", [], id="an endless corner"),
        pytest.param("1,2,3,4,9,True,False", [], id="a certainty of 9"),
        pytest.param("1,2,3,4,5,perhaps,True", ["Mass"], id="a label of perhaps"),
    ],
)
def test_a_damaged_ellipse_is_left_out_alone_and_counted(row: str, left: list[str]) -> None:
    ellipses = _table(
        f"xmin,ymin,xmax,ymax,certainty,Consolidation,Mass\n{row}\n5,6,7,8,1,False,True\n"
    )
    found, notes = _regions(ellipses, _table("xmin,ymin,xmax,ymax\n1,2,3,4\n"))
    assert [one.name for one in found] == [*left, "Mass", "chest"]
    assert +notes == Counter(regions_left_out=1)


CHEST = "xmin,ymin,xmax,ymax\n1,2,3,4\n"


@pytest.mark.parametrize(
    ("text", "left_out"),
    [
        pytest.param("xmin,ymin,xmax,ymax,certainty\n1,2,3,4,5\n5,6,7,8,1\n", 2, id="no labels"),
        pytest.param("xmin,ymin,xmax,ymax,Lump,Mass\n1,2,3,4,True,False\n", 1, id="renamed"),
        pytest.param("xmin,ymin,xmax,ymax,Other,Mass\n1,2,3,4,True,False\n", 0, id="another"),
        pytest.param("xmin,ymin,xmax,ymax,Mass\n1,2,3,4,True\n1,2,3,4,False\n", 1, id="one of two"),
    ],
)
def test_an_ellipse_whose_label_has_no_column_is_counted(text: str, left_out: int) -> None:
    assert _regions(_table(text), _table(CHEST))[1]["regions_left_out"] == left_out


def test_names_that_r_changed_are_read_as_released() -> None:
    ellipses = _table("xmin,ymin,xmax,ymax,certainty,Pulmonary.edema\n1,2,3,4,5,TRUE\n")
    found, notes = _regions(ellipses, _table(CHEST))
    assert [one.name for one in found] == ["Pulmonary edema", "chest"] and not +notes
    name = "High.lung.volume...emphysema"
    labels, _ = reflacx.labels(_table(f"id,{name}\nP300R912345,3\n").row(0))
    assert labels == {"reflacx:High lung volume / emphysema": 3}
    assert set(_table("Time..in.secs.,X_ORIGINAL\n1,2\n").columns) == {
        "Time (in secs)",
        "X_ORIGINAL",
    }
    assert _table("Lung.Lesion,Lung Lesion\n1,0\n").repeated == {"Lung Lesion"}


def test_an_ellipse_without_certainty_keeps_its_place() -> None:
    ellipses = _table("xmin,ymin,xmax,ymax,Mass\n1,2,3,4,True\n")
    found, _ = _regions(ellipses, _table("xmin,ymin,xmax,ymax\n1,2,3,4\n"))
    assert tuple(found[0]) == ("Mass", "ellipse", 1, 2, 3, 4, None)


@pytest.mark.parametrize(
    "path",
    [
        f"physionet.org/files/mimic-cxr/2.0.0/files/p90/p90000001/s99000001/{DICOM}.dcm",
        f"files\\p90\\p90000001\\s99000001\\{DICOM}.dcm",
        f"D:\\s3\\files\\p90\\p90000001\\s99000001\\{DICOM}.dcm",
        f"/data/s3/s1/files/p90/p90000001/s99000001/{DICOM}.dcm",
    ],
    ids=["as released", "from Windows", "absolute, from Windows", "absolute, below other studies"],
)
def test_the_study_is_taken_from_the_image_path(path: str) -> None:
    assert reflacx.study_id(path, PATH) == "99000001"


def test_an_image_path_without_study_is_refused() -> None:
    with _rejected("bad_id"):
        reflacx.study_id(f"{PATH}/x.dcm", PATH)


# MIMIC-CXR-JPG.


def test_chexpert_labels_are_the_studys_filled_cells() -> None:
    names = [
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Enlarged Cardiomediastinum",
        "Fracture", "Lung Lesion", "Lung Opacity", "No Finding", "Pleural Effusion",
        "Pleural Other", "Pneumonia", "Pneumothorax", "Support Devices",
    ]  # fmt: skip
    blanks = "," * 11
    table = _table(
        f",subject_id,study_id,{','.join(names)}\n"
        f"4,1,7,1.0,1.0,1.0{blanks}\n9,1,99000001.0,1.0,-1.0,0.0{blanks}\n"
    )
    tables = cxr_tables.ImageTables({"chexpert": table})
    assert tables.facts("an image", "99000001").labels == {
        "chexpert:Atelectasis": 1, "chexpert:Cardiomegaly": -1, "chexpert:Consolidation": 0,
    }  # fmt: skip
    assert tables.facts("an image", "8").labels == {}
    assert tables.facts("an image", "8").notes == {"without_chexpert": 1}


def _facts(**texts: str) -> ImageFacts:
    tables = {kind: parse_csv(text.encode(), PATH, ()) for kind, text in texts.items()}
    return cxr_tables.ImageTables(tables).facts(DICOM, "7")


def test_labels_that_are_none_of_1_0_and_minus_1_are_left_out_and_counted() -> None:
    facts = _facts(chexpert="study_id,Edema,Fracture,Pneumonia\n7,yes,2,-1\n")
    assert facts.labels == {"chexpert:Pneumonia": -1}
    assert facts.notes == {"labels_left_out": 2 + 11}  # and those without a column


@pytest.mark.parametrize(
    ("cell", "split"),
    [("train", "train"), (" Validate ", "validate"), ("TEST", "test"),
     ("", None), ("NaN", None), ("tra", None), ("2", None)],
)  # fmt: skip
def test_a_split_is_one_of_three_or_unknown(cell: str, split: str | None) -> None:
    assert _facts(split=f"dicom_id,split\n{DICOM},{cell}\n").split == split


@pytest.mark.parametrize("cell", ["", "NaN", " ", "?", "<td>PA</td>", "A" * 17])
def test_a_blank_or_damaged_view_is_none(cell: str) -> None:
    assert _facts(metadata=f"dicom_id,ViewPosition\n{DICOM},{cell}\n").view is None


@pytest.mark.parametrize(
    ("cell", "view"),
    [("AP", "AP"), ("ap", "AP"), (" Pa", "PA"), ("Lateral", "LATERAL"), ("ap axial", "AP AXIAL")],
)
def test_a_view_is_in_capitals_as_dicom_has_it(cell: str, view: str) -> None:
    assert _facts(metadata=f"dicom_id,ViewPosition\n{DICOM},{cell}\n").view == view


@pytest.mark.parametrize("size", ["0,5", "wide,5", ",5", "NaN,5"])
def test_a_damaged_size_is_unknown(size: str) -> None:
    facts = _facts(metadata=f"dicom_id,ViewPosition,Rows,Columns\n{DICOM},PA,{size}\n")
    assert (facts.size, facts.view) == (None, "PA")


def test_rows_that_contradict_each_other_tell_nothing() -> None:
    rows = f"{DICOM},train\n{OTHER_DICOM},test\n{OTHER_DICOM},test\n"
    assert _facts(split=f"dicom_id,split\n{rows}").split == "train"
    contradicted = _facts(split=f"dicom_id,split\n{rows}{DICOM},test\n")
    assert contradicted.split is None and contradicted.notes["contradicted_rows"] == 1


def test_labels_whose_rows_contradict_each_other_are_not_called_absent() -> None:
    head, rows = "study_id,Edema,Fracture", ["7,1,0", "7,1.0,0.0", "s7,1,0"]
    once = _facts(chexpert="\n".join([head, *rows]) + "\n")
    assert once.labels == {"chexpert:Edema": 1, "chexpert:Fracture": 0}
    facts = _facts(chexpert="\n".join([head, *rows, "7,0,0"]) + "\n")
    assert facts.labels == {} and facts.notes == {"contradicted_rows": 1}
    assert _facts(chexpert=f"{head}\n8,1,0\n").notes == {"without_chexpert": 1}


def test_a_table_that_has_a_column_twice_does_not_tell_it() -> None:
    assert _facts(split=f"dicom_id,split,split\n{DICOM},train,test\n").split is None


# EYE GAZE: fixations.

PORTRAIT = 2544, 3056, eye_gaze.Pads(top=0, bottom=0, left=534, right=534)
LANDSCAPE = 3056, 2544, eye_gaze.Pads(top=86, bottom=86, left=448, right=448)
GAZE = ",".join(
    ["", "SESSION_ID", "DICOM_ID", "Time (in secs)", "FPOGS", "FPOGD", "FPOGV", "X_ORIGINAL",
     "Y_ORIGINAL", "TIMETICK(f=10000000)"]
)  # fmt: skip


def _gaze_row(
    x: float = 100, y: float = 200, *, begin: str = "1.00000", end: str = "1.50000",
    session: str = "7", dicom: str = DICOM, valid: str = "1",
) -> str:  # fmt: skip
    length = f"{float(end) - float(begin):.5f}"
    return f"9,{session},{dicom},{end},{begin},{length},{valid},{x},{y},123456789012.0"


def _eye_gaze(
    *rows: str,
    image: tuple[int, int, eye_gaze.Pads] = PORTRAIT,
    vertical: str = "released",
) -> tuple[Fixations, dict[str, int]]:
    table = _table("\n".join([GAZE, *rows]) + "\n")
    return eye_gaze.fixations(table, DICOM, *image, vertical)


def test_an_eye_gaze_fixation_lasts_from_its_start_for_its_duration() -> None:
    found, _ = _eye_gaze(_gaze_row(begin="1.90300", end="2.43155"))
    assert _list(found)[:4] == [[1.903], [pytest.approx(2.43155)], [100], [200]]


def test_rows_of_other_images_and_calibration_slides_are_left_out() -> None:
    found, _ = _eye_gaze(
        _gaze_row(1), _gaze_row(2, dicom=OTHER_DICOM), _gaze_row(3, dicom=DICOM[:-5]), _gaze_row(4)
    )
    assert found.x_px.tolist() == [1, 4]


@pytest.mark.parametrize("invalid", ["0", "0.0"])
def test_rows_without_a_valid_fixation_are_dropped(invalid: str) -> None:
    found, _ = _eye_gaze(_gaze_row(1), _gaze_row(2, valid=invalid), _gaze_row(3, valid="1.0"))
    assert found.x_px.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no_gaze_rows"),
        ([_gaze_row(valid="0")], "no_fixations"),
        ([_gaze_row(dicom=OTHER_DICOM)], "no_gaze_rows"),
    ],
)
def test_an_image_without_a_fixation_row_is_refused(rows: list[str], reason: str) -> None:
    with _rejected(reason):
        _eye_gaze(*rows)


@pytest.mark.parametrize("written", [DICOM.upper(), f" {DICOM}.dcm", f"{DICOM}.JPG"])
def test_an_id_is_the_same_in_capitals_and_with_a_suffix(written: str) -> None:
    table = _table("\n".join([GAZE, _gaze_row(1, dicom=written)]) + "\n")
    for given_rows in (table, table.excerpts("DICOM_ID", [DICOM])[DICOM]):
        found, _ = eye_gaze.fixations(given_rows, DICOM, *PORTRAIT, "released")
        assert found.x_px.tolist() == [1]
    assert _facts(split=f"dicom_id,split\n{written},train\n").split == "train"
    assert dicom_id(written, PATH).lower() == DICOM


@pytest.mark.parametrize("excerpted", [False, True], ids=["the whole table", "its excerpt"])
@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (_gaze_row(begin="2.0", end="1.0"), "reversed_time"),
        (_gaze_row(begin="1000", end="900000"), "implausible_time"),
        (_gaze_row("?"), "bad_number"),  # type: ignore[arg-type]
    ],
    ids=["ends before it begins", "in milliseconds", "no number"],
)
def test_a_row_in_a_message_is_the_row_of_the_file(
    broken: str, reason: str, excerpted: bool
) -> None:
    other, blink = _gaze_row(dicom=OTHER_DICOM), _gaze_row(valid="0")
    table = _table("\n".join([GAZE, other, other, blink, _gaze_row(), other, broken]) + "\n")
    if excerpted:
        table = table.excerpts("DICOM_ID", [DICOM])[DICOM]
        table = table.excerpts("FPOGV", ["1"])["1"]  # once more
    with _rejected(reason) as caught:
        eye_gaze.fixations(table, DICOM, *PORTRAIT, "released")
    assert f"{PATH}, row 6" in str(caught.value)


def test_a_time_in_a_message_about_a_transcript_is_of_its_phrase() -> None:
    phrases = [
        {"phrase": "The heart is normal.", "begin_time": 1.0, "end_time": 2.0},
        {"phrase": "No effusion.", "begin_time": 3000.0, "end_time": 4000.0},
    ]
    with _rejected("implausible_time") as caught:
        transcripts.words(json.dumps({"time_stamped_text": phrases}).encode(), PATH, 0.0)
    assert f"{PATH}, phrase 2 runs from" in str(caught.value)


def test_the_column_and_row_that_odd_sizes_are_padded_with_are_pulled_in() -> None:
    pads = eye_gaze.Pads(0, 0, 534, 534)
    found, notes = _eye_gaze(
        _gaze_row(2545, 9), _gaze_row(9, 3057), _gaze_row(2544, 3056), _gaze_row(2546, 3058),
        image=(2545, 3057, pads),
    )  # fmt: skip
    assert found.x_px.tolist() == [2544, 9, 2544, 2546]  # what lies farther out stays out
    assert found.y_px.tolist() == [9, 3056, 3056, 3058]
    assert notes["rounded_to_edge"] == 2


def test_the_off_image_sentinel_stays_off_the_image() -> None:
    found, _ = _eye_gaze(_gaze_row(-2, -3))
    assert (found.x_px.tolist(), found.y_px.tolist()) == ([-2], [-3])


def test_rows_whose_time_is_not_the_fixations_end_are_counted() -> None:
    late = _gaze_row(1, end="1.50000").replace(",1.50000,", ",1.56000,")
    near = _gaze_row(2, end="1.50000").replace(",1.50000,", ",1.54000,")
    _, notes = _eye_gaze(late, near, _gaze_row(3))
    assert notes["time_is_not_fixation_end"] == 1


def test_two_sessions_of_one_image_are_refused() -> None:
    with _rejected("several_sessions"):
        _eye_gaze(_gaze_row(session="7"), _gaze_row(session="8"))


def test_a_session_is_the_same_however_its_number_is_written() -> None:
    found, _ = _eye_gaze(*(_gaze_row(x, session=s) for x, s in ((1, "7"), (2, "7.0"), (3, " 7"))))
    assert found.x_px.tolist() == [1, 2, 3]


@pytest.mark.parametrize("time", ["", "NaN", "?"])
def test_the_time_of_writing_rejects_nothing(time: str) -> None:
    damaged = _gaze_row(2).replace(",1.50000,", f",{time},")
    late = _gaze_row(1, end="1.50000").replace(",1.50000,", ",1.56000,")
    found, notes = _eye_gaze(damaged, late)
    assert found.x_px.tolist() == [2, 1] and notes["time_is_not_fixation_end"] == 1
    rows = "SESSION_ID,DICOM_ID,FPOGS,FPOGD,FPOGV,X_ORIGINAL,Y_ORIGINAL"
    table = _table(f"{rows}\n7,{DICOM},1,0.5,1,3,4\n", *eye_gaze.REQUIRED["fixations"])
    assert eye_gaze.fixations(table, DICOM, *PORTRAIT, "released")[0].end_s.tolist() == [1.5]


def test_sessions_of_other_images_do_not_matter() -> None:
    found, _ = _eye_gaze(_gaze_row(session="7"), _gaze_row(session="8", dicom=OTHER_DICOM))
    assert len(found.x_px) == 1


@pytest.mark.parametrize("column", ["FPOGS", "FPOGD", "X_ORIGINAL", "Y_ORIGINAL", "FPOGV"])
def test_an_eye_gaze_row_that_cannot_be_read_is_refused(column: str) -> None:
    cells = _gaze_row().split(",")
    cells[GAZE.split(",").index(column)] = "?"
    with _rejected("bad_number"):
        _eye_gaze(_gaze_row(), ",".join(cells))


def test_an_unreadable_row_of_another_image_does_no_harm() -> None:
    broken = _gaze_row(dicom=OTHER_DICOM).replace("1.00000", "?")
    assert len(_eye_gaze(_gaze_row(), broken)[0].x_px) == 1


@pytest.mark.parametrize(
    ("image", "across", "down"),
    [
        # 852 x 1024 screen pixels show the portrait, 1024 x 852 the landscape: FORMATS 5.2.
        pytest.param(PORTRAIT, 39.9 * 2544 / 852, 39.9 * 3056 / 1024, id="portrait"),
        pytest.param(LANDSCAPE, 39.9 * 3056 / 1024, 39.9 * 2544 / 852, id="landscape"),
    ],
)
@pytest.mark.parametrize("vertical", ["released", "stretched", "letterboxed"])
def test_a_degree_is_39_9_screen_pixels(
    image: tuple[int, int, eye_gaze.Pads], across: float, down: float, vertical: str
) -> None:
    found, _ = _eye_gaze(_gaze_row(), image=image, vertical=vertical)
    assert found.px_per_deg_x.tolist() == [pytest.approx(across)]
    assert found.px_per_deg_y.tolist() == [pytest.approx(down)]
    assert across == pytest.approx(119.1, abs=0.1)


# Worked from FORMATS 5.2. The release took screen line L to row
# (L - top) H / (1080 - top - bottom). The canvas line is L 1024/1080 if stretched, L - 28 if
# letterboxed, and belongs to image row (canvas line - top) H / (1024 - top - bottom).
VERTICAL = [
    pytest.param(PORTRAIT, "stretched", 0, 0, id="portrait, stretched: the top is right"),
    pytest.param(PORTRAIT, "stretched", 1000, 1000, id="portrait, stretched: all of it is"),
    pytest.param(PORTRAIT, "stretched", 3000, 3000, id="portrait, stretched: to the bottom"),
    pytest.param(PORTRAIT, "letterboxed", 1528, 1528, id="portrait, letterboxed: the middle stays"),
    # Line 0 is 28 above the canvas: 28 * 3056/1024.
    pytest.param(PORTRAIT, "letterboxed", 0, -83.5625, id="portrait, letterboxed: top"),
    # Line 270 is canvas line 242, a 1024th of 3056 each.
    pytest.param(PORTRAIT, "letterboxed", 764, 722.21875, id="portrait, letterboxed: a quarter"),
    pytest.param(PORTRAIT, "letterboxed", 3000, 3080.5, id="portrait, letterboxed: below"),
    # 908 screen lines for 2544 rows: row 0 is line 86, canvas line 81.5407, 4.4593 above the image.
    pytest.param(LANDSCAPE, "stretched", 0, -13.3150, id="landscape, stretched: top"),
    pytest.param(LANDSCAPE, "stretched", 1272, 1272, id="landscape, stretched: the middle stays"),
    # Row 636 is line 313, canvas line 296.7704, 210.7704 into the image, 2544/852 rows each.
    pytest.param(LANDSCAPE, "stretched", 636, 629.3426, id="landscape, stretched: a quarter"),
    # Line 86 is canvas line 58, 28 above the image: 28 * 2544/852.
    pytest.param(LANDSCAPE, "letterboxed", 0, -83.6056, id="landscape, letterboxed: top"),
    pytest.param(LANDSCAPE, "letterboxed", 1272, 1272, id="landscape, letterboxed: the middle"),
    # Row 636 is line 313, canvas line 285, 199 into the image.
    pytest.param(LANDSCAPE, "letterboxed", 636, 594.1972, id="landscape, letterboxed: a quarter"),
]


@pytest.mark.parametrize(("image", "vertical", "released", "mapped"), VERTICAL)
def test_rows_can_be_mapped_again_for_another_display(
    image: tuple[int, int, eye_gaze.Pads], vertical: str, released: int, mapped: float
) -> None:
    found, _ = _eye_gaze(_gaze_row(100, released), image=image, vertical=vertical)
    assert found.y_px.tolist() == [pytest.approx(mapped, abs=1e-3)]
    assert found.x_px.tolist() == [100]


@pytest.mark.parametrize("image", [PORTRAIT, LANDSCAPE], ids=["portrait", "landscape"])
def test_rows_stay_as_released_by_default(image: tuple[int, int, eye_gaze.Pads]) -> None:
    found, _ = _eye_gaze(_gaze_row(1, 0), _gaze_row(2, 636), _gaze_row(3, 2000), image=image)
    assert found.y_px.tolist() == [0, 636, 2000]


@pytest.mark.parametrize("vertical", ["stretched", "letterboxed"])
def test_the_off_image_sentinel_is_not_mapped_onto_the_image(vertical: str) -> None:
    found, _ = _eye_gaze(_gaze_row(-2, -2), image=LANDSCAPE, vertical=vertical)
    assert found.y_px[0] < 0 and found.x_px[0] < 0


def test_pads_are_the_master_sheets() -> None:
    row = {f"image_{side}_pad": str(k) for k, side in enumerate(["top", "bottom", "left", "right"])}
    assert eye_gaze.pads(row, PATH) == (0, 1, 2, 3)


@pytest.mark.parametrize("pad", ["", "x", "-1", "1920", "nan"])
def test_pads_that_leave_no_image_are_refused(pad: str) -> None:
    row = {f"image_{side}_pad": "0" for side in ("top", "bottom", "left", "right")}
    with _rejected("bad_number"):
        eye_gaze.pads(row | {"image_left_pad": pad}, PATH)


def test_eye_gaze_labels_are_the_filled_cells() -> None:
    row = {"Normal": "0", "CHF": "1.0", "pneumonia": "", "edema__chx": "-1.0", "dx1": "Phantom"}
    found, notes = eye_gaze.labels(row)
    assert found == {"eye_gaze:Normal": 0, "eye_gaze:CHF": 1, "eye_gaze:edema__chx": -1}
    assert +notes == Counter(labels_left_out=28 - 4)  # those without a column
    assert eye_gaze.labels({"Normal": "2"})[0] == {}
    assert eye_gaze.labels({"dx1": "Phantom"}) == ({}, Counter(without_labels=1))


def test_boxes_are_read_in_the_files_order_of_corners() -> None:
    table = _table(
        ",dicom_id,bbox_name,x1,x2,y1,y2\n"
        f"3,{DICOM},left lung,10.0,400.0,20.0,900.0\n5,{OTHER_DICOM},spine,1,2,3,4\n"
        f"8,{DICOM}, trachea ,90,80,70,60\n"
    )
    notes: Counter[str] = Counter()
    assert [tuple(one) for one in eye_gaze.boxes(table, DICOM, notes)] == [
        ("left lung", "box", 10, 20, 400, 900, None),
        ("trachea", "box", 80, 60, 90, 70, None),
    ]
    assert not +notes


@pytest.mark.parametrize("rows", [None, "", f"{OTHER_DICOM},spine,1,2,3,4\n"])
def test_an_image_without_boxes_is_counted(rows: str | None) -> None:
    notes: Counter[str] = Counter()
    table = None if rows is None else _table(f"dicom_id,bbox_name,x1,x2,y1,y2\n{rows}")
    assert eye_gaze.boxes(table, DICOM, notes) == []
    assert notes == Counter(region_tables_left_out=1)


def test_a_damaged_box_is_left_out_alone_and_counted() -> None:
    notes: Counter[str] = Counter()
    rows = f"{DICOM},spine,1,2,3,?\n{DICOM},left lung,1,2,3,4\n{DICOM},?,1,2,3,4\n"
    table = _table(f"dicom_id,bbox_name,x1,x2,y1,y2\n{rows}")
    assert [one.name for one in eye_gaze.boxes(table, DICOM, notes)] == ["left lung"]
    assert notes == Counter(regions_left_out=2)


# EYE GAZE: transcripts.


def _json(*phrases: tuple[object, object, object]) -> bytes:
    timed = [dict(zip(("phrase", "begin_time", "end_time"), one, strict=True)) for one in phrases]
    return json.dumps({"full_text": "", "time_stamped_text": timed}).encode()


def _words(*phrases: tuple[object, object, object], offset_s: float = 0.0) -> Words:
    return transcripts.words(_json(*phrases), PATH, offset_s)


def test_a_phrase_of_one_word_keeps_its_time() -> None:
    found = _words(("heart", 1.1, 1.4), ("normal.", 1.7000000000000002, 2.2))
    assert _list(found) == [["heart", "normal."], [1.1, 1.7000000000000002], [1.4, 2.2]]


@pytest.mark.parametrize(
    ("phrase", "words", "edges"),
    [
        # Characters without spaces: 2 + 7 + 9 share 1.8 s, 0.1 s each.
        ("no pleural effusion.", ["no", "pleural", "effusion."], [1.0, 1.2, 1.9, 2.8]),
        ("normal. the", ["normal.", "the"], [1.0, 2.26, 2.8]),
        ("  a   b ", ["a", "b"], [1.0, 1.9, 2.8]),
        ("1.5 cm", ["1.5", "cm"], [1.0, 2.08, 2.8]),
        ("normal.there is", ["normal.", "there", "is"], [1.0, 1.9, 2.542857, 2.8]),
        ("größe", ["größe"], [1.0, 2.8]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_words_of_a_phrase_share_its_time_by_their_characters(
    phrase: str, words: list[str], edges: list[float]
) -> None:
    found = _words((phrase, 1.0, 2.8))
    assert found.text == words
    assert found.begin_s.tolist() == pytest.approx(edges[:-1])
    assert found.end_s.tolist() == pytest.approx(edges[1:])


@given(
    words=st.lists(st.text(st.sampled_from("abcü1"), min_size=1, max_size=9), min_size=1),
    begin=st.integers(0, 3000),
    length=st.integers(0, 100),
)
def test_shares_adjoin_and_fill_the_phrase(words: list[str], begin: int, length: int) -> None:
    begin_s, end_s = begin / 10, (begin + length) / 10
    found = _words((" ".join(words), begin_s, end_s))
    assert found.text == words
    assert (found.begin_s[0], found.end_s[-1]) == (begin_s, end_s)
    assert all(end == after for end, after in zip(found.end_s[:-1], found.begin_s[1:], strict=True))
    assert all(a <= b for a, b in pairwise(found.begin_s))
    seconds = found.end_s - found.begin_s
    each = (end_s - begin_s) / sum(map(len, words))
    np.testing.assert_allclose(seconds, [each * len(word) for word in words], atol=1e-9)


def test_the_audio_offset_moves_every_word() -> None:
    found = _words(("heart", 1.0, 1.5), ("is normal.", 2.0, 2.9), offset_s=-0.25)
    assert found.begin_s.tolist() == pytest.approx([0.75, 1.75, 1.95])
    assert found.end_s.tolist() == pytest.approx([1.25, 1.95, 2.65])


def test_blank_phrases_add_no_words() -> None:
    assert _words(("", 0.0, 1.0), ("heart", 1.0, 1.5), ("  ", 1.5, 2.0)).text == ["heart"]


def test_a_byte_order_mark_before_json_is_fine() -> None:
    assert transcripts.words(b"\xef\xbb\xbf" + _json(("heart", 1, 2)), PATH, 0).text == ["heart"]


@pytest.mark.parametrize("data", [b"", b" \r\n"])
def test_an_empty_transcript_file_is_refused(data: bytes) -> None:
    with _rejected("empty_file"):
        transcripts.words(data, PATH, 0)


@pytest.mark.parametrize("data", [_json(), _json((".", 0, 1)), _json(("", 0, 1), (", .", 1, 2))])
def test_a_json_transcript_without_words_is_refused(data: bytes) -> None:
    with _rejected("empty_transcript"):
        transcripts.words(data, PATH, 0)


def test_json_in_another_encoding_is_refused() -> None:
    data = _json(("heart", 1, 2)).replace(b"heart", "größe".encode("latin-1"))
    with _rejected("not_utf8"):
        transcripts.words(data, PATH, 0)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"{", id="cut"),
        pytest.param(_json(("heart", 1, 2))[:-20], id="cut later"),
        pytest.param(b"<html></html>", id="html"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"null", id="null"),
        pytest.param(b"3", id="a number"),
        pytest.param(b"{}", id="no phrases"),
        pytest.param(b'{"full_text": "heart."}', id="full text alone"),
        pytest.param(b'{"time_stamped_text": null}', id="phrases null"),
        pytest.param(b'{"time_stamped_text": {"phrase": "heart"}}', id="phrases no list"),
        pytest.param(b'{"time_stamped_text": ["heart"]}', id="phrases of text alone"),
        pytest.param(b'{"time_stamped_text": [{"phrase": "heart"}]}', id="no times"),
        pytest.param(_json((3, 1, 2)), id="phrase a number"),
        pytest.param(_json((None, 1, 2)), id="phrase null"),
        pytest.param(b"[" * 100_000, id="nested beyond depth"),
        pytest.param(b'{"a": ' * 100_000, id="nested objects beyond depth"),
        pytest.param(b'{"time_stamped_text": ' + b"9" * 5000 + b"}", id="an endless integer"),
    ],
)
def test_json_that_is_no_transcript_is_refused(data: bytes) -> None:
    with _rejected("bad_json"):
        transcripts.words(data, PATH, 0)


@pytest.mark.parametrize(
    "time",
    [None, "soon", True, [], {}, float("nan"), float("inf"), 10**400],
    ids=lambda t: str(t)[:9],
)
def test_a_phrase_without_a_time_is_refused(time: object) -> None:
    for phrase in (("heart", time, 2.0), ("heart", 1.0, time)):
        with _rejected("bad_number"):
            _words(phrase)


def test_a_phrase_that_ends_before_it_begins_is_refused() -> None:
    with _rejected("reversed_time"):
        _words(("heart", 1.0, 1.5), ("normal.", 2.5, 2.0))


def test_half_a_surrogate_pair_is_no_text() -> None:
    # JSON can spell it, but no table can hold it.
    with _rejected("bad_json", "not_utf8"):
        _words(("heart\ud83e", 1.0, 1.5))


TIMES = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3))
PHRASES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"phrase": st.text(max_size=9), "begin_time": TIMES, "end_time": TIMES}
        ),
        st.dictionaries(st.sampled_from(["phrase", "begin_time", "end_time"]), TIMES),
        TIMES,
    ),
    max_size=4,
)
DOCUMENTS = st.one_of(
    st.fixed_dictionaries({"time_stamped_text": PHRASES}),
    st.recursive(TIMES, lambda inner: st.lists(inner, max_size=3), max_leaves=5),
)


@settings(max_examples=300)
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text(max_size=80).map(str.encode),
        DOCUMENTS.map(lambda document: json.dumps(document).encode()),
    )
)
def test_any_bytes_are_a_transcript_or_a_reject(data: bytes) -> None:
    try:
        found = transcripts.words(data, PATH, 0.0)
    except BadInputError as error:
        assert error.reason in REASONS
    else:
        assert len(found.text) == len(found.begin_s) == len(found.end_s) > 0


def test_polars_copy_of_a_released_column_is_one_and_the_right_eye_of_ones_own_is_none() -> None:
    name = "timestamp_start_word"
    assert _table(f"word,{name},{name}_right\nheart,1,2\n").repeated == {name}
    table = parse_csv(b"t,x,x_right\n0,1,2\n", PATH, ["t", "x", "x_right"])
    assert (table.columns["x"], table.columns["x_right"]) == (["1"], ["2"])
