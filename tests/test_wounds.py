"""Damaged trees: every wound is a named reject, and nobody else notices."""

import csv
import io
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from click.testing import Result
from conftest import run_etl
from PIL import Image
from tables import TABLES, Key, contents, key, rejects

from egma_prep.errors import NOTES, REASONS
from egma_prep.synth import write_tree

Reading = dict[str, Any]
Damage = Callable[[Path, Reading], object]

READINGS = 280  # enough patients of each kind for every wound to have its own

PER_READING = (*TABLES, "shards")

# Kinds of patients, by what was read of them.
ONE_REFLACX, ONE_EYE_GAZE = "one REFLACX reading", "one EYE GAZE reading"
SHARED_IMAGE, TWO_IMAGES = "several readings of one image", "readings of several images"
BOTH = "readings in both datasets"


# -- files ----------------------------------------------------------------------------------------


def file_of(root: Path, reading: Reading, name: str) -> Path:
    """Name the files of a reading and of its patient."""
    patient = root / f"patient_{reading['subject_id']}"
    if name == "image":
        return root / reading["image"]
    if name.startswith("cxr_"):
        return patient / "CXR-JPG" / f"{name}.csv"
    if reading["dataset"] == "eye_gaze":
        if name == "transcript.json":
            folder = "audio_segmentation_transcripts"
            return patient / "EyeGaze" / folder / reading["reading_id"] / name
        return patient / "EyeGaze" / name
    if name == "metadata.csv":
        return patient / "REFLACX" / name
    return patient / "REFLACX" / "main_data" / reading["reading_id"] / name


def rows_of(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text(), newline="")))


def save(path: Path, rows: list[list[str]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    path.write_text(text.getvalue(), newline="")


def row_number(rows: list[list[str]], reading: Reading) -> int:
    """Find the reading's own row in a patient's table, or any row of the reading's own table."""
    names = {reading["reading_id"], reading["dicom_id"]}
    own = [number for number, row in enumerate(rows) if number and names & set(row)]
    return own[len(own) // 2] if own else len(rows) // 2


# -- wounds ---------------------------------------------------------------------------------------


def remove(path: Path, reading: Reading) -> None:
    path.unlink()


def write(content: bytes) -> Damage:
    return lambda path, reading: path.write_bytes(content)


def cut_in_half(path: Path, reading: Reading) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_in_a_row(path: Path, reading: Reading) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    middle = len(lines) // 2
    path.write_bytes(b"".join(lines[:middle]) + lines[middle][: len(lines[middle]) // 2])


def header_only(path: Path, reading: Reading) -> None:
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])


def insert(content: bytes) -> Damage:
    """Put bytes where the middle row begins."""

    def damage(path: Path, reading: Reading) -> None:
        lines = path.read_bytes().splitlines(keepends=True)
        middle = len(lines) // 2
        path.write_bytes(b"".join([*lines[:middle], content, *lines[middle:]]))

    return damage


def quote_the_last_cell(path: Path, reading: Reading) -> None:
    """Open a quote that the file's end closes, so that every row has its number of cells."""
    before, comma, cell = path.read_bytes().rpartition(b",")
    path.write_bytes(before + comma + b'"' + cell.rstrip())


def drop_column(name: str) -> Damage:
    def damage(path: Path, reading: Reading) -> None:
        rows = rows_of(path)
        at = rows[0].index(name)
        save(path, [row[:at] + row[at + 1 :] for row in rows])

    return damage


def repeat_column(name: str) -> Damage:
    """Put a column of other values behind, as a merge does."""

    def damage(path: Path, reading: Reading) -> None:
        header, *rows = rows_of(path)
        save(path, [[*header, name], *([*row, "1"] for row in rows)])

    return damage


def labels_of_words(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    ids = header.index("study_id") + 1
    save(path, [header, *([*row[:ids], *["yes"] * (len(row) - ids)] for row in rows)])


def set_cell(column: str, value: str) -> Damage:
    def damage(path: Path, reading: Reading) -> None:
        rows = rows_of(path)
        rows[row_number(rows, reading)][rows[0].index(column)] = value
        save(path, rows)

    return damage


def set_column(column: str, value: str) -> Damage:
    def damage(path: Path, reading: Reading) -> None:
        rows = rows_of(path)
        at = rows[0].index(column)
        save(path, [rows[0]] + [[*row[:at], value, *row[at + 1 :]] for row in rows[1:]])

    return damage


def cut_id(path: Path, reading: Reading) -> None:
    set_cell("dicom_id", reading["dicom_id"][:39])(path, reading)


def remove_own_row(path: Path, reading: Reading) -> None:
    rows = rows_of(path)
    del rows[row_number(rows, reading)]
    save(path, rows)


def repeat_own_row(path: Path, reading: Reading) -> None:
    rows = rows_of(path)
    save(path, [*rows, rows[row_number(rows, reading)]])


def contradict_own_row(path: Path, reading: Reading) -> None:
    rows = rows_of(path)
    other = list(rows[row_number(rows, reading)])
    column = "split" if "split" in rows[0] else "gender"
    other[rows[0].index(column)] = "another"
    save(path, [*rows, other])


def folder_instead(path: Path, reading: Reading) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path, reading: Reading) -> None:
    """Leave something that blocks whoever opens it."""
    path.unlink()
    os.mkfifo(path)


def link_to_itself(path: Path, reading: Reading) -> None:
    path.unlink()
    path.symlink_to(path.name)


def link_to_nothing(path: Path, reading: Reading) -> None:
    path.unlink()
    path.symlink_to("nothing")


def forbid(path: Path, reading: Reading) -> None:
    path.chmod(0)


def garbage_in_the_header(path: Path, reading: Reading) -> None:
    data = bytearray(path.read_bytes())
    data[2:400] = np.random.default_rng(0).integers(0, 255, 398, np.uint8).tobytes()
    path.write_bytes(data)


def garbage_in_the_code_tables(path: Path, reading: Reading) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc4") + 4
    data[at : at + 40] = b"\xee" * 40
    path.write_bytes(data)


def claim_60000_by_60000(path: Path, reading: Reading) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (60_000).to_bytes(2) * 2
    path.write_bytes(data)


def phrase(**changes: Any) -> Damage:
    """Change the second phrase of a transcript; ``...`` removes a key."""

    def damage(path: Path, reading: Reading) -> None:
        document = json.loads(path.read_text())
        changed = document["time_stamped_text"][1] | changes
        kept = {name: value for name, value in changed.items() if value is not ...}
        document["time_stamped_text"][1] = kept
        path.write_text(json.dumps(document))

    return damage


def reverse_phrase(path: Path, reading: Reading) -> None:
    phrase(begin_time=9.0, end_time=8.5)(path, reading)


def times(columns: tuple[str, ...], factor: float) -> Damage:
    """Multiply columns of times."""

    def damage(path: Path, reading: Reading) -> None:
        rows = rows_of(path)
        places = [rows[0].index(name) for name in columns]
        for row in rows[1:]:
            for at in places:
                row[at] = repr(float(row[at]) * factor)
        save(path, rows)

    return damage


def phrases_in_milliseconds(path: Path, reading: Reading) -> None:
    document = json.loads(path.read_text())
    for one in document["time_stamped_text"]:
        one["begin_time"] *= 1000
        one["end_time"] *= 1000
    path.write_text(json.dumps(document))


def first_phrase_at(number: bytes) -> Damage:
    """Write a number that Python's own JSON would not write."""

    def damage(path: Path, reading: Reading) -> None:
        phrase(begin_time="here")(path, reading)
        path.write_bytes(path.read_bytes().replace(b'"here"', number))

    return damage


def replace(old: bytes, new: bytes) -> Damage:
    return lambda path, reading: path.write_bytes(path.read_bytes().replace(old, new))


def of_300_mebibytes(path: Path, reading: Reading) -> None:
    os.truncate(path, 300 * 2**20)


def of_500_scans(path: Path, reading: Reading) -> None:
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00"
    path.write_bytes(path.read_bytes()[:-2] + 500 * scan + b"\xff\xd9")


def change_column(column: str, change: Callable[[list[float]], list[float]]) -> Damage:
    """Write other numbers into a column, made of all of its own."""

    def damage(path: Path, reading: Reading) -> None:
        header, *rows = rows_of(path)
        at = header.index(column)
        for row, value in zip(rows, change([float(row[at]) for row in rows]), strict=True):
            row[at] = f"{value:.5f}"
        save(path, [header, *rows])

    return damage


def rows_backwards(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    save(path, [header, *rows[::-1]])


def another_session_pasted(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    save(path, [header, *rows, *([f"{float(r[0]) + 0.035:.3f}", *r[1:]] for r in rows)])


def another_eye(path: Path, reading: Reading) -> None:
    """Write each fixation of two eyes, which see places some pixels apart."""
    header, *rows = rows_of(path)
    at = header.index("x_position")
    eyes = [[row, [*row[:at], str(int(row[at]) + 9), *row[at + 1 :]]] for row in rows]
    save(path, [header, *(row for both in eyes for row in both)])


def phrases(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Damage:
    def damage(path: Path, reading: Reading) -> None:
        document = json.loads(path.read_text())
        document["time_stamped_text"] = change(document["time_stamped_text"])
        path.write_text(json.dumps(document))

    return damage


def words_start_again(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    offset = float(rows[len(rows) // 2][1])
    for row in rows[len(rows) // 2 :]:
        row[1:] = [f"{float(time) - offset:.2f}" for time in row[1:]]
    save(path, [header, *rows])


def cut_off_a_third(path: Path, reading: Reading) -> None:
    with Image.open(path) as image:
        cut = image.crop((0, image.height // 3, image.width, image.height))
    cut.save(path, "JPEG", quality=95)


def pad_a_tenth(path: Path, reading: Reading) -> None:
    with Image.open(path) as image:
        padded = Image.new("L", (image.width + image.width // 10, image.height))
        padded.paste(image, (0, 0))
    padded.save(path, "JPEG", quality=95)


# -- oddities that harm nobody --------------------------------------------------------------------


def add_byte_order_mark(path: Path, reading: Reading) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


def unix_line_ends(path: Path, reading: Reading) -> None:
    path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))


def reverse_columns_and_add_one(path: Path, reading: Reading) -> None:
    rows = rows_of(path)
    save(path, [[*row[::-1], "extra"] for row in rows])


def spaces_in_the_header(path: Path, reading: Reading) -> None:
    rows = rows_of(path)
    save(path, [[f" {name} " for name in rows[0]], *rows[1:]])


def add_blank_rows(path: Path, reading: Reading) -> None:
    commas = b"," * path.read_bytes().splitlines()[0].count(b",")
    path.write_bytes(path.read_bytes() + 3 * (commas + b"\r\n"))


def in_utf_16(path: Path, reading: Reading) -> None:
    path.write_bytes(path.read_bytes().decode().encode("utf-16"))


def suffix(other: str) -> Damage:
    return lambda path, reading: path.rename(path.with_suffix(f".{other}"))


def junk_after_the_end(path: Path, reading: Reading) -> None:
    path.write_bytes(path.read_bytes() + b"\0\r\n")


def every_row_twice(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    save(path, [header, *(row for row in rows for _ in range(2))])


def all_rows_twice(path: Path, reading: Reading) -> None:
    header, *rows = rows_of(path)
    save(path, [header, *rows, *rows])


def a_row_a_sample(path: Path, reading: Reading) -> None:
    """Write each fixation sixty times a second, its duration as it grows."""
    header, *rows = rows_of(path)
    x, duration, time = (header.index(n) for n in ("X_ORIGINAL", "FPOGD", "Time (in secs)"))
    begin, samples = header.index("FPOGS"), []
    for row in rows:
        for so_far in np.arange(1 / 60, float(row[duration]) - 1e-3, 1 / 60):
            sample = list(row)
            sample[duration], sample[x] = f"{so_far:.5f}", str(int(row[x]) + 1)
            sample[time] = f"{float(row[begin]) + so_far:.5f}"
            samples.append(sample)
        samples.append(row)
    save(path, [header, *samples])


def blank_unused_cell(path: Path, reading: Reading) -> None:
    set_cell("pupil_area_normalized", "")(path, reading)


# -- the table ------------------------------------------------------------------------------------


class Wound(NamedTuple):
    """What happens to which file, and what must come of it.

    `reach`: whose readings are lost, the ``reading``'s own, all of its ``image``, of its
    ``dataset`` and patient, or of the ``patient``; `also`: rejects under names of their own;
    `without`: the column of the shard that may have less.
    """

    file: str
    damage: Damage
    reasons: tuple[str, ...]
    patient: str = ONE_REFLACX
    reach: str = "reading"
    also: tuple[tuple[str, str], ...] = ()
    without: str = ""


def wound(
    file: str,
    damage: Damage,
    *reasons: str,
    of: str = ONE_REFLACX,
    reach: str = "reading",
    also: dict[str, str] | None = None,
    without: str = "",
) -> Wound:
    return Wound(file, damage, reasons, of, reach, tuple((also or {}).items()), without)


FIXATIONS, WORDS = "fixations.csv", "timestamps_transcription.csv"
ELLIPSES, CHEST = "anomaly_location_ellipses.csv", "chest_bounding_box.csv"
METADATA, SHEET, TRANSCRIPT = "metadata.csv", "master_sheet.csv", "transcript.json"
BEGIN, END = "timestamp_start_fixation", "timestamp_end_fixation"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n"

WOUNDS = {
    # images
    "a JPEG cut in half": wound("image", cut_in_half, "truncated_image"),
    "a JPEG without its end that five readers saw": wound(
        "image", cut_in_half, "truncated_image", of=SHARED_IMAGE, reach="image"
    ),
    "an empty JPEG": wound("image", write(b""), "empty_file"),
    "a PNG cut off, named jpg": wound("image", write(PNG), "truncated_image"),
    "an HTML page named jpg": wound("image", write(HTML), "not_an_image"),
    "a text named jpg": wound("image", write(b"not here\n"), "not_an_image"),
    "garbage in a JPEG's header": wound("image", garbage_in_the_header, "undecodable_image"),
    "garbage in a JPEG's code tables": wound(
        "image", garbage_in_the_code_tables, "undecodable_image"
    ),
    "a JPEG that claims 60000 x 60000": wound("image", claim_60000_by_60000, "oversized_image"),
    "no image": wound("image", remove, "missing_file"),
    "no image of an EYE GAZE reading": wound("image", remove, "missing_file", of=ONE_EYE_GAZE),
    "a folder named jpg": wound("image", folder_instead, "unreadable_file"),
    # REFLACX fixations
    "fixations with a column twice": wound(
        FIXATIONS, repeat_column("x_position"), "repeated_column"
    ),
    "fixations without a column": wound(FIXATIONS, drop_column("x_position"), "missing_column"),
    "fixations with NULs": wound(FIXATIONS, insert(b"\0\0\0"), "nul_bytes"),
    "fixations cut in a row": wound(FIXATIONS, cut_in_a_row, "bad_csv"),
    "empty fixations": wound(FIXATIONS, write(b""), "empty_file"),
    "fixations with a header only": wound(FIXATIONS, header_only, "no_fixations"),
    "fixations with an unclosed quote": wound(FIXATIONS, insert(b'"'), "bad_csv"),
    "fixations with an unclosed quote in the last cell": wound(
        FIXATIONS, quote_the_last_cell, "bad_csv"
    ),
    "fixations in Latin-1": wound(FIXATIONS, insert("é".encode("latin-1")), "not_utf8"),
    "fixations that are an HTML page": wound(FIXATIONS, write(HTML), "missing_column"),
    "a time of abc": wound(FIXATIONS, set_cell(BEGIN, "abc"), "bad_number"),
    "a time of nan": wound(FIXATIONS, set_cell(BEGIN, "nan"), "bad_number"),
    "a time of inf": wound(FIXATIONS, set_cell(END, "inf"), "bad_number"),
    "a time of 1_0": wound(FIXATIONS, set_cell(END, "1_0"), "bad_number"),
    "a fixation that ends before it begins": wound(FIXATIONS, set_cell(END, "-7"), "reversed_time"),
    "a blank cell": wound(FIXATIONS, set_cell("y_position", ""), "bad_number"),
    "no fixations": wound(FIXATIONS, remove, "missing_file"),
    "a folder in place of fixations": wound(FIXATIONS, folder_instead, "unreadable_file"),
    "a pipe in place of fixations": wound(FIXATIONS, pipe_instead, "unreadable_file"),
    "fixations that link to themselves": wound(FIXATIONS, link_to_itself, "unreadable_file"),
    "fixations that link to nothing": wound(FIXATIONS, link_to_nothing, "missing_file"),
    # REFLACX words
    "no transcription": wound(WORDS, remove, "missing_file"),
    "a transcription without a column": wound(WORDS, drop_column("word"), "missing_column"),
    "a transcription with a header only": wound(WORDS, header_only, "empty_transcript"),
    "a transcription of punctuation": wound(WORDS, set_column("word", "."), "empty_transcript"),
    "a blank word": wound(WORDS, set_cell("word", ""), "bad_csv"),
    "a word that ends before it begins": wound(
        WORDS, set_cell("timestamp_end_word", "-1"), "reversed_time"
    ),
    # tables of a patient
    "no metadata.csv": wound(METADATA, remove, "missing_file", of=TWO_IMAGES, reach="dataset"),
    "metadata with NULs": wound(
        METADATA, insert(b"\0"), "nul_bytes", of=TWO_IMAGES, reach="dataset"
    ),
    "a removed metadata row": wound(METADATA, remove_own_row, "no_metadata_row", of=TWO_IMAGES),
    "metadata rows that contradict each other": wound(
        METADATA, contradict_own_row, "duplicate_id", "duplicate_id"
    ),
    "a reading id that climbs out": wound(
        METADATA, set_cell("id", "../../evil"), "no_metadata_row", also={"../../evil": "bad_id"}
    ),
    "a reading id that is a path": wound(
        METADATA, set_cell("id", "/tmp/evil"), "no_metadata_row", also={"/tmp/evil": "bad_id"}
    ),
    "a reading id of 129 letters": wound(
        METADATA, set_cell("id", "e" * 129), "no_metadata_row", also={"e" * 129: "bad_id"}
    ),
    "a hidden reading id": wound(
        METADATA, set_cell("id", ".evil"), "no_metadata_row", also={".evil": "bad_id"}
    ),
    "a DICOM id that climbs out": wound(
        METADATA, set_cell("dicom_id", "../../../" + "e" * 35), "bad_id"
    ),
    "a DICOM id of 39 characters": wound(METADATA, cut_id, "bad_dicom_id"),
    "a row of another patient": wound(METADATA, set_cell("subject_id", "1"), "other_subject"),
    "an image path without its study": wound(METADATA, set_cell("image", "evil.dcm"), "bad_id"),
    "a flag of maybe": wound(
        METADATA, set_cell("eye_tracking_data_discarded", "maybe"), "bad_flag"
    ),
    # EYE GAZE
    "no EYE GAZE fixations": wound(FIXATIONS, remove, "missing_file", of=BOTH, reach="dataset"),
    "EYE GAZE fixations with a header only": wound(
        FIXATIONS, header_only, "no_gaze_rows", of=ONE_EYE_GAZE
    ),
    "EYE GAZE fixations without a column": wound(
        FIXATIONS, drop_column("Y_ORIGINAL"), "missing_column", of=ONE_EYE_GAZE
    ),
    "EYE GAZE fixations that are all invalid": wound(
        FIXATIONS, set_column("FPOGV", "0"), "no_fixations", of=ONE_EYE_GAZE
    ),
    "a duration of nan": wound(
        FIXATIONS, set_column("FPOGD", "nan"), "bad_number", of=ONE_EYE_GAZE
    ),
    "a negative duration": wound(
        FIXATIONS, set_column("FPOGD", "-0.2"), "reversed_time", of=ONE_EYE_GAZE
    ),
    "an image read in two sessions": wound(
        FIXATIONS, set_cell("SESSION_ID", "38"), "several_sessions", of=ONE_EYE_GAZE
    ),
    "no master sheet": wound(SHEET, remove, "missing_file", of=BOTH, reach="dataset"),
    "a removed master sheet row": wound(SHEET, remove_own_row, "no_metadata_row", of=ONE_EYE_GAZE),
    "master sheet rows that contradict each other": wound(
        SHEET, contradict_own_row, "duplicate_id", "duplicate_id", of=ONE_EYE_GAZE
    ),
    "a master sheet id that climbs out": wound(
        SHEET,
        set_cell("dicom_id", "../../" + "e" * 38),
        "no_metadata_row",
        of=ONE_EYE_GAZE,
        also={"../../" + "e" * 38: "bad_id"},
    ),
    "a study id that climbs out": wound(
        SHEET, set_cell("study_id", "../../evil"), "bad_id", of=ONE_EYE_GAZE
    ),
    "pads that leave no image": wound(
        SHEET, set_cell("image_left_pad", "1920"), "bad_number", of=ONE_EYE_GAZE
    ),
    "no transcript": wound(TRANSCRIPT, remove, "missing_file", of=ONE_EYE_GAZE),
    "an empty transcript": wound(TRANSCRIPT, write(b""), "empty_file", of=ONE_EYE_GAZE),
    "broken JSON": wound(TRANSCRIPT, cut_in_half, "bad_json", of=ONE_EYE_GAZE),
    "JSON without phrases": wound(TRANSCRIPT, write(b"[1, 2]"), "bad_json", of=ONE_EYE_GAZE),
    "JSON ten thousand levels deep": wound(
        TRANSCRIPT, write(b"[" * 10_000), "bad_json", of=ONE_EYE_GAZE
    ),
    "a phrase without its end": wound(
        TRANSCRIPT, phrase(end_time=...), "bad_json", of=ONE_EYE_GAZE
    ),
    "a phrase that is a number": wound(TRANSCRIPT, phrase(phrase=3), "bad_json", of=ONE_EYE_GAZE),
    "a phrase at no time": wound(
        TRANSCRIPT, phrase(begin_time=None), "bad_number", of=ONE_EYE_GAZE
    ),
    "a phrase that ends before it begins": wound(
        TRANSCRIPT, reverse_phrase, "reversed_time", of=ONE_EYE_GAZE
    ),
    "a transcript in Latin-1": wound(
        TRANSCRIPT,
        write('{"full_text": "é", "time_stamped_text": []}'.encode("latin-1")),
        "not_utf8",
        of=ONE_EYE_GAZE,
    ),
}

LONG, EMOJI, LINES = "e" * 300, "\N{SKULL}" * 4, "P300\nR000001"
WOUNDS |= {
    "a file of 300 MiB named jpg": wound("image", of_300_mebibytes, "oversized"),
    "a JPEG of 500 scans": wound("image", of_500_scans, "undecodable_image"),
    "fixations of 300 MiB": wound(FIXATIONS, of_300_mebibytes, "oversized"),
    "fixations with a row too long": wound(FIXATIONS, insert(b"1,"), "bad_csv"),
    "fixation times in milliseconds": wound(
        FIXATIONS, times((BEGIN, END), 1e3), "implausible_time"
    ),
    "fixation times since 1970": wound(FIXATIONS, set_cell(END, "1.7e9"), "implausible_time"),
    "word times in milliseconds": wound(
        WORDS, times(("timestamp_start_word", "timestamp_end_word"), 1e3), "implausible_time"
    ),
    "phrase times in milliseconds": wound(
        TRANSCRIPT, phrases_in_milliseconds, "implausible_time", of=ONE_EYE_GAZE
    ),
    "a phrase at 1e400": wound(
        TRANSCRIPT, first_phrase_at(b"1e400"), "bad_number", of=ONE_EYE_GAZE
    ),
    "a phrase at a number of 5000 digits": wound(
        TRANSCRIPT, first_phrase_at(b"9" * 5000), "bad_json", of=ONE_EYE_GAZE
    ),
    "half a character in a phrase": wound(
        TRANSCRIPT, phrase(phrase="\ud800"), "bad_json", of=ONE_EYE_GAZE
    ),
    "a reading id of 300 letters": wound(
        METADATA, set_cell("id", LONG), "no_metadata_row", also={LONG: "bad_id"}
    ),
    "a reading id of skulls": wound(
        METADATA, set_cell("id", EMOJI), "no_metadata_row", also={EMOJI: "bad_id"}
    ),
    "a reading id of two lines": wound(
        METADATA, set_cell("id", LINES), "no_metadata_row", also={LINES: "bad_id"}
    ),
    "a reading id with a NUL": wound(
        METADATA, replace(b",False,", b"\0,False,"), "nul_bytes", reach="dataset"
    ),
}

REGIONS, LABELS, SPLIT, VIEW = "regions", "labels", "split", "view"
BOXES = "bounding_boxes.csv"
EXTRAS = {
    "no ellipses": wound(ELLIPSES, remove, without=REGIONS),
    "ellipses without a column": wound(ELLIPSES, drop_column("xmin"), without=REGIONS),
    "no chest box": wound(CHEST, remove, without=REGIONS),
    "a chest box of words": wound(CHEST, set_cell("xmin", "left"), without=REGIONS),
    "no cxr_meta": wound("cxr_meta", remove, of=BOTH, reach="patient", without=VIEW),
    "no cxr_split": wound("cxr_split", remove, of=BOTH, reach="patient", without=SPLIT),
    "no cxr_chexpert": wound("cxr_chexpert", remove, of=BOTH, reach="patient", without=LABELS),
    "CheXpert labels of words": wound("cxr_chexpert", labels_of_words, without=LABELS),
    "a certainty of words": wound(METADATA, set_column("Atelectasis", "high"), without=LABELS),
    "no bounding boxes": wound(BOXES, remove, of=BOTH, reach="dataset", without=REGIONS),
    "a bounding box of words": wound(BOXES, set_cell("x1", "?"), of=ONE_EYE_GAZE, without=REGIONS),
    "an image without its cxr_meta row": wound(
        "cxr_meta", remove_own_row, of=ONE_EYE_GAZE, without=VIEW
    ),
    "a split of another name": wound(
        "cxr_split", set_column("split", "tra"), of=ONE_EYE_GAZE, without=SPLIT
    ),
}
"""Damage to what a heatmap does not need: the reading is written without it."""

HARMLESS = {
    "an image of width 0": wound(METADATA, set_cell("image_size_x", "0")),
    "metadata without a split": wound(METADATA, drop_column("split")),
    "metadata with the split twice": wound(METADATA, repeat_column("split")),
    "fixations with semicolons": wound(FIXATIONS, replace(b",", b";")),
    "blank rows at the end": wound(FIXATIONS, add_blank_rows),
    "words in UTF-16": wound(WORDS, in_utf_16),
    "a suffix in capitals": wound("image", suffix("JPG")),
    "a suffix of four letters": wound("image", suffix("jpeg")),
    "a metadata row twice": wound(METADATA, repeat_own_row),
    "a master sheet row twice": wound(SHEET, repeat_own_row, of=ONE_EYE_GAZE),
    "a byte order mark": wound(FIXATIONS, add_byte_order_mark),
    "Unix line ends": wound(WORDS, unix_line_ends),
    "columns in another order": wound(FIXATIONS, reverse_columns_and_add_one),
    "spaces in the header": wound(FIXATIONS, spaces_in_the_header),
    "a blank in a column that nobody needs": wound(FIXATIONS, blank_unused_cell),
    "zeros after a JPEG's end": wound("image", junk_after_the_end),
    "no transcription.txt": wound("transcription.txt", remove),
}

WORD_BEGIN, WORD_END = "timestamp_start_word", "timestamp_end_word"
WOUNDS |= {  # every value may be, the reading cannot
    "fixations that overlap each other": wound(
        FIXATIONS,
        change_column(END, lambda ends: [end + 0.5 for end in ends]),
        "overlapping_fixations",
    ),
    "fixations of both eyes": wound(FIXATIONS, another_eye, "overlapping_fixations"),
    "fixations out of order": wound(FIXATIONS, rows_backwards, "reversed_time"),
    "two sessions of fixations": wound(FIXATIONS, another_session_pasted, "reversed_time"),
    "EYE GAZE fixations out of order": wound(
        FIXATIONS, rows_backwards, "reversed_time", of=ONE_EYE_GAZE
    ),
    "durations in milliseconds": wound(
        FIXATIONS, times(("FPOGD",), 1e3), "implausible_time", of=ONE_EYE_GAZE
    ),
    "durations a thousand times too short": wound(
        FIXATIONS, times(("FPOGD",), 1e-3), "implausible_time", of=ONE_EYE_GAZE
    ),
    "shares of the image in place of pixels": wound(
        FIXATIONS, times(("x_position", "y_position"), 1 / 600), "gaze_in_a_corner"
    ),
    "x in shares beside y in pixels": wound(
        FIXATIONS, times(("X_ORIGINAL",), 1 / 600), "gaze_in_a_corner", of=ONE_EYE_GAZE
    ),
    "words that start again": wound(WORDS, words_start_again, "reversed_time"),
    "words out of order": wound(WORDS, rows_backwards, "reversed_time"),
    "words that last minutes": wound(
        WORDS, change_column(WORD_END, lambda ends: [end + 90 for end in ends]), "implausible_time"
    ),
    "phrases out of order": wound(
        TRANSCRIPT, phrases(lambda found: found[::-1]), "reversed_time", of=ONE_EYE_GAZE
    ),
    "an image cut by a third": wound("image", cut_off_a_third, "other_aspect"),
    "an image padded by a tenth": wound("image", pad_a_tenth, "other_aspect", of=ONE_EYE_GAZE),
}
HARMLESS |= {
    "every fixation twice, one row after the other": wound(FIXATIONS, every_row_twice),
    "all fixations twice, one table after the other": wound(FIXATIONS, all_rows_twice),
    "EYE GAZE fixations twice": wound(FIXATIONS, all_rows_twice, of=ONE_EYE_GAZE),
    "a row a sample": wound(FIXATIONS, a_row_a_sample, of=ONE_EYE_GAZE),
    "every word twice, one row after the other": wound(WORDS, every_row_twice),
    "all words twice, one table after the other": wound(WORDS, all_rows_twice),
    "all phrases twice": wound(TRANSCRIPT, phrases(lambda found: found * 2), of=ONE_EYE_GAZE),
}

if os.geteuid():  # root may read everything
    WOUNDS["fixations that may not be read"] = wound(FIXATIONS, forbid, "unreadable_file")


# -- one run with all of them ---------------------------------------------------------------------


@dataclass(repr=False)  # pytest would print every table of it
class Ward:
    """The clean and the wounded run, and who was wounded how."""

    clean: dict[str, Any]
    wounded: dict[str, Any]
    data: Path
    out: Path
    result: Result
    victims: dict[str, Reading]
    expected: dict[str, dict[Key, tuple[str, ...]]]
    reached: dict[str, list[Key]]
    before: dict[str, tuple[int, int]]
    after: dict[str, tuple[int, int]]

    @property
    def lost(self) -> set[Key]:
        return {one for expected in self.expected.values() for one in expected}

    @property
    def touched(self) -> set[Key]:
        return self.lost | {one for name in EXTRAS for one in self.reached[name]}

    def path(self, name: str, cause: Wound) -> str:
        return str(file_of(Path(), self.victims[name], cause.file))


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Ward:
    place = tmp_path_factory.mktemp("ward")
    healthy, data = place / "healthy", place / "parent" / "data" / "mimic-eye"
    readings = json.loads(write_tree(healthy, READINGS, small=True).read_text())["readings"]
    shutil.copytree(healthy, data)
    assert run_etl(healthy, place / "clean").exit_code == 0
    free = defaultdict(list)
    for patient in patients_of(readings):
        if not any(reading["reject"] for reading in patient):
            free[kind_of(patient)].append(patient)
    victims, expected, reached = {}, {}, {}
    for name, cause in (WOUNDS | EXTRAS | HARMLESS).items():
        patients = free[cause.patient]
        # Many readings have no ellipse that could be lost.
        fit = (one for one in patients if cause.file != ELLIPSES or has_ellipse(healthy, one[0]))
        patients.remove(patient := next(fit))
        only_eye_gaze = cause.file in (FIXATIONS, SHEET, "bounding_boxes.csv")
        wanted = "eye_gaze" if cause.patient == BOTH and only_eye_gaze else None
        victim = next(one for one in patient if wanted in (None, one["dataset"]))
        cause.damage(file_of(data, victim, cause.file), victim)
        victims[name] = victim
        reached[name] = [key(one) for one in patient if reaches(cause, victim, one)]
        lost = dict.fromkeys(reached[name], cause.reasons)
        named = {(victim["dataset"], other): (reason,) for other, reason in cause.also}
        expected[name] = {**lost, **named} if cause.reasons else {}
    out = place / "parent" / "out"
    before = listing(place / "parent", out)
    result = run_etl(data, out)
    after = listing(place / "parent", out)
    clean, wounded = contents(place / "clean"), contents(out)
    return Ward(clean, wounded, data, out, result, victims, expected, reached, before, after)


def patients_of(readings: list[Reading]) -> list[list[Reading]]:
    found = defaultdict(list)
    for reading in readings:
        found[reading["subject_id"]].append(reading)
    return list(found.values())


def kind_of(patient: list[Reading]) -> str:
    datasets = {reading["dataset"] for reading in patient}
    if len(datasets) == 2:
        return BOTH
    if len(patient) == 1:
        return ONE_EYE_GAZE if datasets == {"eye_gaze"} else ONE_REFLACX
    return SHARED_IMAGE if len({one["dicom_id"] for one in patient}) == 1 else TWO_IMAGES


def has_ellipse(root: Path, reading: Reading) -> bool:
    return len(rows_of(file_of(root, reading, ELLIPSES))) > 1


def reaches(cause: Wound, victim: Reading, other: Reading) -> bool:
    return {
        "reading": key(other) == key(victim),
        "image": other["dicom_id"] == victim["dicom_id"],
        "dataset": other["dataset"] == victim["dataset"],
        "patient": True,
    }[cause.reach]


def listing(root: Path, out: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in sorted(root.rglob("*")):
        if path != out and out not in path.parents:
            status = path.lstat()
            found[str(path)] = status.st_size, status.st_mtime_ns
    return found


def reasons_by_reading(out: dict[str, Any]) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = defaultdict(list)
    for row in out["rejects"]:
        found[key(row)].append(row["reason"])
    return found


def faults(table: dict[str, Wound]) -> list[Any]:
    """Mark each as a row of docs/reliability.md."""
    injected = "done to one reading's {} in a tree of 280, then the whole command"
    return [
        pytest.param(
            name, marks=pytest.mark.fault(name, injected.format(cause.file), promise(cause))
        )
        for name, cause in table.items()
    ]


def promise(cause: Wound) -> str:
    if cause.without:
        return f"the reading is written, with less or nothing as its {cause.without}; counted"
    if not cause.reasons:
        return "the reading comes out as if nothing were"
    reasons = {*cause.reasons, *(reason for _, reason in cause.also)}
    return f"rejected as {', '.join(sorted(reasons))}; every other reading unchanged"


# -- tests ----------------------------------------------------------------------------------------


def test_there_are_wounds_of_every_sort() -> None:
    assert len(WOUNDS) >= 25
    assert {reason for cause in WOUNDS.values() for reason in cause.reasons} <= set(REASONS)


@pytest.mark.parametrize("name", faults(WOUNDS))
def test_a_wounded_reading_is_rejected_by_name_with_its_reason(ward: Ward, name: str) -> None:
    found = reasons_by_reading(ward.wounded)
    expected = ward.expected[name]
    assert {one: tuple(found[one]) for one in expected} == expected


@pytest.mark.parametrize("name", WOUNDS)
def test_nothing_of_a_wounded_reading_is_written(ward: Ward, name: str) -> None:
    for table in PER_READING:
        assert not set(ward.expected[name]) & set(ward.wounded[table]), table


@pytest.mark.parametrize("name", WOUNDS)
def test_a_reject_points_to_the_damaged_file(ward: Ward, name: str) -> None:
    rows = [row for row in ward.wounded["rejects"] if key(row) in ward.expected[name]]
    assert [row["path"] for row in rows] == [ward.path(name, WOUNDS[name])] * len(rows)


@pytest.mark.parametrize("name", WOUNDS)
def test_a_message_names_the_file_and_says_what_to_do(ward: Ward, name: str) -> None:
    for row in ward.wounded["rejects"]:
        if key(row) in ward.expected[name]:
            assert ward.path(name, WOUNDS[name]) in row["message"]
            assert row["message"].endswith(REASONS[row["reason"]])


@pytest.mark.parametrize("name", faults(HARMLESS))
def test_a_harmless_oddity_changes_nothing(ward: Ward, name: str) -> None:
    one = key(ward.victims[name])
    assert one not in reasons_by_reading(ward.wounded)
    for table in PER_READING:
        assert ward.wounded[table][one] == ward.clean[table][one]


@pytest.mark.parametrize("name", faults(EXTRAS))
def test_a_reading_goes_without_a_damaged_extra(ward: Ward, name: str) -> None:
    column, changed = EXTRAS[name].without, 0
    for one in ward.reached[name]:
        assert one not in reasons_by_reading(ward.wounded)
        ours, theirs = (dict(out["shards"][one]) for out in (ward.wounded, ward.clean))
        less, full = ours.pop(column), theirs.pop(column)
        assert ours == theirs
        assert less is None or less == full or all(item in full for item in less)
        changed += less != full
        for table in ("words", "sentences", "fixations", "alignment"):
            assert ward.wounded[table][one] == ward.clean[table][one]
    assert changed


def test_what_was_left_out_is_counted_and_said_once(ward: Ward) -> None:
    run = json.loads((ward.out / "run.json").read_text())
    for name in ("without_split", "without_view", "without_chexpert", "labels_left_out",
                 "regions_left_out", "region_tables_left_out", "size_by_image"):  # fmt: skip
        assert run["counts"]["notes"][name]
        assert ward.result.output.count(NOTES[name]) == 1


def test_every_other_reading_is_as_in_the_clean_run(ward: Ward) -> None:
    for table in PER_READING:
        expected = {one: rows for one, rows in ward.clean[table].items() if one not in ward.touched}
        differing = {
            one
            for one in (expected | ward.wounded[table]).keys() - ward.touched
            if expected.get(one) != ward.wounded[table].get(one)
        }
        assert not differing, table


def test_every_other_image_is_as_in_the_clean_run(ward: Ward) -> None:
    shown = {row["dicom_id"] for row in ward.wounded["shards"].values()}
    assert ward.wounded["images"] == {one: ward.clean["images"][one] for one in shown}


def test_every_other_reject_is_as_in_the_clean_run(ward: Ward) -> None:
    others = [row for row in ward.wounded["rejects"] if key(row) not in ward.lost]
    assert sorted(others, key=key) == sorted(ward.clean["rejects"], key=key)


def test_planned_is_written_plus_rejected_in_run_json(ward: Ward) -> None:
    counts = json.loads((ward.out / "run.json").read_text())["counts"]
    rejected = [reason for found in reasons_by_reading(ward.wounded).values() for reason in found]
    assert counts["planned"] == counts["written"] + counts["rejected"]
    assert counts["written"] == len(ward.wounded["readings"])
    assert counts["rejected"] == len(rejected)
    assert counts["rejected_by_reason"] == Counter(rejected)
    # Two names for one reading, or two rows of it, are two things to account for.
    more = sum(len(cause.also) + len(cause.reasons[1:]) for cause in WOUNDS.values())
    assert counts["planned"] == READINGS + more


def test_many_wounds_end_with_exit_code_1_and_no_traceback(ward: Ward) -> None:
    assert ward.result.exit_code == 1
    assert isinstance(ward.result.exception, SystemExit)
    assert "Traceback" not in ward.result.output
    assert "--max-reject-share" in ward.result.stderr


def test_nothing_outside_the_output_folder_is_touched(ward: Ward) -> None:
    assert ward.after == ward.before


def test_a_second_run_over_the_same_wounds_has_nothing_to_do(ward: Ward) -> None:
    assert "nothing to do" in run_etl(ward.data, ward.out).stdout


@pytest.mark.parametrize(("more", "exit_code"), [(0.001, 0), (-0.001, 1)])
def test_the_exit_code_follows_the_share_of_rejects(
    ward: Ward, more: float, exit_code: int
) -> None:
    counts = json.loads((ward.out / "run.json").read_text())["counts"]
    discarded = counts["rejected_by_reason"]["discarded"]
    share = (counts["rejected"] - discarded) / (counts["planned"] - discarded)
    result = run_etl(ward.data, ward.out, "--max-reject-share", share + more)
    assert result.exit_code == exit_code, result.output


def test_readings_that_the_authors_discarded_do_not_count_as_rejects(
    phantom: Path, clean_out: Path
) -> None:
    reasons = Counter(row["reason"] for row in rejects(clean_out))
    planned = json.loads((clean_out / "run.json").read_text())["counts"]["planned"]
    discarded = reasons.pop("discarded")
    share = reasons.total() / (planned - discarded)
    assert run_etl(phantom, clean_out, "--max-reject-share", share).exit_code == 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("eye_tracking_data_discarded", "True"), ("eye_tracking_data_discarded", "maybe")],
)
def test_a_reading_is_never_both_written_and_rejected(
    phantom: Path, tmp_path: Path, truth: dict[str, Any], column: str, value: str
) -> None:
    victim = next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )
    patient = f"patient_{victim['subject_id']}"
    shutil.copytree(phantom / patient, tmp_path / "data" / patient)
    path = file_of(tmp_path / "data", victim, METADATA)
    rows = rows_of(path)
    other = list(rows[row_number(rows, victim)])
    other[rows[0].index(column)] = value
    save(path, [*rows, other])
    run_etl(tmp_path / "data", tmp_path / "out")
    found = contents(tmp_path / "out")
    assert not {key(row) for row in found["rejects"]} & set(found["readings"])


def test_a_mended_file_is_read_at_the_next_run(
    phantom: Path, clean_out: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)
    victim = next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )
    names = ("image", FIXATIONS, METADATA)
    files = [file_of(data, victim, name) for name in names]
    kept = [file.read_bytes() for file in files]
    cut_in_half(files[0], victim)
    files[1].unlink()
    remove_own_row(files[2], victim)
    assert run_etl(data, out).exit_code == 0
    assert "no_metadata_row" in {row["reason"] for row in rejects(out)}
    for file, content in zip(files, kept, strict=True):
        file.write_bytes(content)
    assert run_etl(data, out).exit_code == 0
    assert contents(out) == contents(clean_out)
