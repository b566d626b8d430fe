"""Trees that are strange rather than damaged, or meant to do harm: the run comes through."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from conftest import IN_THREADS, egma_prep, run_etl
from tables import contents, rejects, shards, table
from test_wounds import EMOJI, FIXATIONS, TRANSCRIPT, WORDS, file_of, rows_of, save

from egma_prep.synth import write_tree

Reading = dict[str, Any]


@pytest.fixture
def tree(phantom: Path, tmp_path: Path) -> Path:
    """A copy of the phantom tree to do things to."""
    shutil.copytree(phantom, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def victim(truth: dict[str, Any]) -> Reading:
    return next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )


@pytest.fixture
def eye_gaze_victim(truth: dict[str, Any]) -> Reading:
    return next(
        one for one in truth["readings"] if one["dataset"] == "eye_gaze" and not one["reject"]
    )


def run_and_verify(data: Path, out: Path, *more: object) -> None:
    result = run_etl(data, out, *more)
    assert result.exit_code == 0, result.output
    verdict = egma_prep("verify", "--out", out, "--against", data, "--sample", 1000)
    assert verdict.exit_code == 0, verdict.output


def own_rows(out: Path, name: str, reading: Reading) -> list[dict[str, Any]]:
    return [row for row in table(out, name) if row["reading_id"] == reading["reading_id"]]


def change_fixations(tree: Path, reading: Reading, change: Callable[[list[Any]], Any]) -> None:
    path = file_of(tree, reading, FIXATIONS)
    header, *rows = rows_of(path)
    begin, end = header.index("timestamp_start_fixation"), header.index("timestamp_end_fixation")
    times = np.array([[row[begin], row[end]] for row in rows], dtype=float)
    for row, (first, last) in zip(rows, change(times), strict=True):
        row[begin], row[end] = repr(float(first)), repr(float(last))
    save(path, [header, *rows])


HARMLESS_TIMES = {
    "fixations that begin before the recording": lambda times: times - 2.0,
    "fixations that last no time": lambda times: times[:, [0, 0]],
    "fixations that all lie after the dictation": lambda times: times + 600.0,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name,
                "one reading's times changed in a tree of 24",
                "the reading is written; every rule of `verify` holds",
            ),
        )
        for name in HARMLESS_TIMES
    ],
)
def test_odd_times_give_a_reading_that_keeps_every_rule(
    tree: Path, tmp_path: Path, victim: Reading, name: str
) -> None:
    change_fixations(tree, victim, HARMLESS_TIMES[name])
    run_and_verify(tree, tmp_path / "out")
    assert ("reflacx", victim["reading_id"]) in shards(tmp_path / "out")


@pytest.mark.fault(
    "100,000 fixations in one reading",
    "20 minutes of rows of 10 ms, in a tree of 24",
    "all are aligned and rendered",
)
def test_a_reading_of_100000_fixations_is_rendered(
    tree: Path, tmp_path: Path, victim: Reading
) -> None:
    path = file_of(tree, victim, FIXATIONS)
    header, *rows = rows_of(path)
    at = header.index("timestamp_start_fixation")
    many = (rows * (100_000 // len(rows) + 1))[:100_000]
    for number, row in enumerate(many):
        times = [f"{number * 0.012:.3f}", f"{number * 0.012 + 0.01:.3f}"]
        many[number] = [*row[:at], *times, *row[at + 2 :]]
    save(path, [header, *many])
    assert run_etl(tree, tmp_path / "out").exit_code == 0
    (reading,) = own_rows(tmp_path / "out", "readings", victim)
    assert reading["fixations"] == 100_000
    assert egma_prep("verify", "--out", tmp_path / "out", "--sample", 3).exit_code == 0


SAYINGS = {
    "HTML in a dictation": "<script>alert(1)</script>",
    "emoji and Arabic in a dictation": f"{EMOJI}\N{ARABIC LETTER ALEF}",
    "combining characters in a dictation": "e\N{COMBINING ACUTE ACCENT}",
    "a formula of a spreadsheet in a dictation": "=cmd|'/C calc'!A0",
    "a line separator in a dictation": "left\N{LINE SEPARATOR}lung",
    "a word of 100,000 letters": "a" * 100_000,
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name,
                "in the words of a REFLACX reading and a phrase of an EYE GAZE reading",
                "stored letter by letter",
            ),
        )
        for name in SAYINGS
    ],
)
def test_text_is_stored_letter_by_letter(
    tree: Path, tmp_path: Path, victim: Reading, eye_gaze_victim: Reading, name: str
) -> None:
    said = SAYINGS[name]
    path = file_of(tree, victim, WORDS)
    header, *rows = rows_of(path)
    rows[0][header.index("word")] = said
    save(path, [header, *rows])
    path = file_of(tree, eye_gaze_victim, TRANSCRIPT)
    document = json.loads(path.read_text())
    document["time_stamped_text"][0]["phrase"] = said
    path.write_text(json.dumps(document))
    run_and_verify(tree, tmp_path / "out")
    assert own_rows(tmp_path / "out", "words", victim)[0]["text"] == said
    stored = own_rows(tmp_path / "out", "words", eye_gaze_victim)
    pieces = said.split()
    assert [row["text"] for row in stored[: len(pieces)]] == pieces


FOLDERS = {
    "a patient's folder with a line end in its name": b"patient_90\n1",
    "a patient's folder that is not UTF-8": b"patient_\xff\xfe",
    "a patient's folder of skulls": f"patient_{EMOJI}".encode(),
    "a patient's folder named by dots": b"patient_..",
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name,
                "a healthy patient's folder renamed",
                "its readings are rejects; the others kept",
            ),
        )
        for name in FOLDERS
    ],
)
def test_a_folder_with_a_strange_name_costs_its_own_readings_only(
    tree: Path, tmp_path: Path, victim: Reading, clean_out: Path, name: str
) -> None:
    healthy = tree / f"patient_{victim['subject_id']}"
    os.rename(os.fsencode(healthy), os.fsencode(tree) + b"/" + FOLDERS[name])
    result = run_etl(tree, tmp_path / "out", "--max-reject-share", 1)
    assert result.exit_code == 0, result.output
    ours, theirs = shards(tmp_path / "out"), shards(clean_out)
    assert ours == {
        one: row for one, row in theirs.items() if row["subject_id"] != victim["subject_id"]
    }
    lost = {one for one in theirs if one not in ours}
    assert lost <= {(row["dataset"], row["reading_id"]) for row in rejects(tmp_path / "out")}
    assert egma_prep("verify", "--out", tmp_path / "out").exit_code == 0


@pytest.mark.fault(
    "links that lead back up the tree",
    "a patient's folder and a folder of readings linked to the root",
    "the run ends; every reading as without them",
)
def test_links_in_a_circle_do_not_hang_a_run(
    tree: Path, tmp_path: Path, victim: Reading, clean_out: Path
) -> None:
    home = tree / f"patient_{victim['subject_id']}"
    (home / "loop").symlink_to(tree)
    (home / "CXR-JPG" / "loop").symlink_to(home / "CXR-JPG")
    (tree / "loop").symlink_to(tree)
    assert run_etl(tree, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(clean_out)


@pytest.mark.fault(
    "a patient's folder that is a link out of the tree",
    "the folder moved elsewhere and linked",
    "read as if it were in the tree; nothing is written there",
)
def test_a_folder_that_lies_elsewhere_is_read_through_its_link(
    tree: Path, tmp_path: Path, victim: Reading, clean_out: Path
) -> None:
    home, elsewhere = tree / f"patient_{victim['subject_id']}", tmp_path / "elsewhere"
    home.rename(elsewhere)
    home.symlink_to(elsewhere)
    before = {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")}
    assert run_etl(tree, tmp_path / "out").exit_code == 0
    assert contents(tmp_path / "out") == contents(clean_out)
    assert {path: path.stat().st_mtime_ns for path in elsewhere.rglob("*")} == before


@pytest.mark.fault(
    "an image by an id that climbs out of OUT",
    "`inspect` asked for `../../evil` and for a DICOM id with slashes",
    "one line, nothing written",
)
@pytest.mark.parametrize("name", ["../../evil", "/etc/passwd", "..", "a\nb"])
def test_inspect_writes_nothing_for_an_id_that_is_a_path(
    clean_out: Path, tmp_path: Path, name: str
) -> None:
    before = sorted(clean_out.parent.rglob("*"))
    result = egma_prep("inspect", name, "--out", clean_out)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) <= 2
    assert sorted(clean_out.parent.rglob("*")) == before


AS_ANYONE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Root, but without the right to read what the mode forbids."""


@pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which(AS_ANYONE[0]) is None, reason="root may read everything"
)
@pytest.mark.fault(
    "a file that may not be read, then may",
    "`chmod 0`, a run, `chmod 600`, a run",
    "rejected as unreadable_file, then written",
)
def test_a_file_that_becomes_readable_is_read_at_the_next_run(
    tree: Path, tmp_path: Path, victim: Reading, clean_out: Path
) -> None:
    path = file_of(tree, victim, FIXATIONS)
    path.chmod(0)
    command = (sys.executable, "-c", "from egma_prep.cli import main; main()", "run", str(tree))
    alike = ("--out", str(tmp_path / "out"), *IN_THREADS)
    prefix = AS_ANYONE if os.geteuid() == 0 else ()
    subprocess.run([*prefix, *command, *alike], check=True, capture_output=True)
    assert "unreadable_file" in {row["reason"] for row in rejects(tmp_path / "out")}
    path.chmod(0o600)
    run_etl(tree, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(clean_out)


# -- bombs ----------------------------------------------------------------------------------------


def native_tree(tmp_path: Path) -> tuple[Path, Path]:
    """A REFLACX tree with DICOM images, and one image of it."""
    write_tree(tmp_path / "data", 8, small=True, layout="reflacx", dicom=True)
    return tmp_path / "data", sorted((tmp_path / "data").rglob("*.dcm"))[0]


def deflated(path: Path) -> None:
    """A kibibyte that inflates to a gibibyte."""
    import zlib

    import pydicom
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path)
    data = path.read_bytes()
    begin = 144 + int.from_bytes(data[140:144], "little")
    squeeze = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    block = bytes(2**20)
    zeros = b"".join(squeeze.compress(block) for _ in range(1024)) + squeeze.flush()
    path.write_bytes(data[:begin] + zeros)


def huge_rows(path: Path) -> None:
    import pydicom

    header = pydicom.dcmread(path)
    header.Rows = header.Columns = 60_000
    header.save_as(path)


def short_pixels(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def jpeg_inside(path: Path) -> None:
    """A JPEG that claims to be far larger than its DICOM header says."""
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import JPEGBaseline8Bit

    header = pydicom.dcmread(path)
    _, coded = cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))
    data = bytearray(coded.tobytes())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = (65_000).to_bytes(2) * 2
    header.PixelData = encapsulate([bytes(data)])
    header["PixelData"].is_undefined_length = True
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit = 7
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.save_as(path)


BOMBS = {
    "a DICOM that inflates to a gibibyte": (deflated, {"oversized_image"}),
    "a DICOM of 60000 x 60000": (huge_rows, {"oversized_image"}),
    "a DICOM with too few pixels": (short_pixels, {"truncated_image", "undecodable_image"}),
    "a JPEG of 65000 x 65000 in a small DICOM": (jpeg_inside, {"undecodable_image"}),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name, "one image of a REFLACX tree replaced", "rejected; the others kept"
            ),
        )
        for name in BOMBS
    ],
)
def test_a_dicom_bomb_is_rejected(tmp_path: Path, name: str) -> None:
    damage, reasons = BOMBS[name]
    data, image = native_tree(tmp_path)
    damage(image)
    run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    rows = [row for row in rejects(tmp_path / "out") if image.name in row["path"]]
    assert rows and {row["reason"] for row in rows} <= reasons
    assert len(shards(tmp_path / "out"))


@pytest.mark.fault(
    "a gzipped table that unpacks to 300 MiB",
    "MIMIC-CXR-JPG's metadata replaced by 300 MiB of zeros, gzipped",
    "one line names the table; the readings go without it",
)
def test_a_gzip_bomb_is_named(tmp_path: Path) -> None:
    import gzip

    data, _ = native_tree(tmp_path)
    (path,) = data.rglob("*metadata.csv.gz")
    with gzip.open(path, "wb") as file:
        for _ in range(300):
            file.write(bytes(2**20))
    result = run_etl(data, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert f"{path.name}: passed over, so that no reading has its view" in result.output
    assert {row["view"] for row in shards(tmp_path / "out").values()} == {None}


# -- the network ----------------------------------------------------------------------------------

_NO_NETWORK = """
import ipaddress, sys

def refuse(event, arguments):
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        if not ipaddress.ip_address(arguments[1][0]).is_loopback:
            raise RuntimeError(f"a connection to {arguments[1]}")

sys.addaudithook(refuse)
"""

_ALL_COMMANDS = """
from egma_prep.cli import main

if __name__ == "__main__":
    for command in {commands}:
        try:
            main(command)
        except SystemExit as end:
            if end.code:
                raise
"""


@pytest.mark.fault(
    "no network",
    "every connect to another address than the loopback raises, in the driver and its workers",
    "run, render-heatmaps, verify, inspect and export work",
)
def test_no_command_opens_a_connection(phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(_NO_NETWORK)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hook")}
    out = ("--out", str(tmp_path / "out"))
    commands = [
        ("run", str(phantom), *out, "--workers", "2"),
        ("render-heatmaps", *out, "--sigma", "8", "--workers", "1"),
        ("verify", *out, "--against", str(phantom)),
        ("inspect", *out),
        ("report", *out),
        ("export", str(tmp_path / "npz"), "--to", "npz", *out),
    ]
    done = subprocess.run(
        [sys.executable, "-c", _ALL_COMMANDS.format(commands=commands)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_hook_that_forbids_connections_forbids_them(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(_NO_NETWORK)
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "a connection to ('192.0.2.1', 80)" in done.stderr
