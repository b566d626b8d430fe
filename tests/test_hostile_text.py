"""Text and files of others end as text or in one line: in terminals, pages, spreadsheets, cards."""

import csv
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from conftest import egma_prep, run_etl
from hypothesis import example, given
from hypothesis import strategies as st
from tables import shards, table, write_sealed
from test_wounds import FIXATIONS, WORDS, file_of, rows_of, save

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.etl.card import data_card
from egma_prep.exports.official_egma import as_text
from egma_prep.shards import bounds
from egma_prep.shards.formats import load_shard, parquet
from egma_prep.shards.tables import read_parquet
from egma_prep.storage.atomic import fingerprint_of

pytestmark = pytest.mark.usefixtures("no_cluster")

CLEAR, RED = "\x1b[2J", "\x9b31m"
DICTATED = (
    "=cmd|' /C calc'!A0",
    "</script><img src=x onerror=alert(1)>",
    f"{CLEAR}gone",
    "| a | b",
)


def assert_text(result: Result) -> None:
    """Check that nothing which steers a terminal was printed, and no traceback."""
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", result.output)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def assert_one_line(result: Result, *parts: str) -> None:
    assert_text(result)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.startswith("egma-prep: ")]
    assert len(lines) == 1 and all(part in lines[0] for part in parts), result.stderr


# -- what was dictated, and how things are named --------------------------------------------------


@pytest.fixture(scope="module")
def evil(phantom: Path, truth: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree of a few patients with signs that mean something elsewhere, and its run."""
    place = tmp_path_factory.mktemp("evil")
    victims = [r for r in truth["readings"] if r["dataset"] == "reflacx" and not r["reject"]][:3]
    for one in victims:
        name = f"patient_{one['subject_id']}"
        shutil.copytree(phantom / name, place / "data" / name, dirs_exist_ok=True)
    path = file_of(place / "data", victims[0], WORDS)
    header, *rows = rows_of(path)
    for row, word in zip(rows, DICTATED, strict=False):
        row[0] = word
    save(path, [header, *rows])
    (place / "data" / f"patient_{CLEAR}.zip").write_bytes(b"PK")
    nameless = file_of(place / "data", victims[1], FIXATIONS)
    header, *rows = rows_of(nameless)
    save(nameless, [[f"{RED}{one}" for one in header], *rows])
    return place


@pytest.mark.fault(
    "hostile text in a tree of others",
    "control sequences, `</script>`, a formula, Markdown's bars in dictated words, column names and"
    " file names; a run, scan, report, export, inspect, verify",
    "no control sequence reaches the terminal; pages, tables, the card and readings.csv have text",
)
def test_hostile_text_stays_text(evil: Path, truth: dict[str, Any], tmp_path: Path) -> None:
    data, out = evil / "data", tmp_path / "out"
    done = [run_etl(data, out), egma_prep("scan", data)]
    assert "?[2J" in done[0].stdout and "?31m" in done[0].stdout  # told, and as text
    for command in (["report"], ["inspect"], ["verify"]):
        done.append(egma_prep(*command, "--out", out))
    done.append(egma_prep("export", tmp_path / "csv", "--to", "official-egma", "--out", out))
    for result in done:
        assert_text(result)
    assert [result.exit_code for result in done[2:]] == [0, 0, 0, 0]
    words = {row["text"] for row in table(out, "words")}
    assert set(DICTATED) <= words  # as it was dictated
    page = (out / "report.html").read_text()
    assert "onerror" in page and "<img src=x" not in page and "</script><img" not in page
    with (tmp_path / "csv" / "readings.csv").open(newline="", encoding="utf-8") as file:
        reports = [row["report"] for row in csv.DictReader(file)]
    assert any(one.startswith("'=cmd|") for one in reports)
    assert not [one for one in reports if one[:1] in tuple("=+-@\t\r")]


@example("=1")
@example("'=1")
@example("''")
@given(st.text(st.sampled_from("=+-@\t\r' a1"), max_size=4))
def test_a_cell_that_was_made_text_is_had_again(text: str) -> None:
    cell = str(as_text(text))
    assert cell[:1] not in tuple("=+-@\t\r") or not cell
    written = io.StringIO()
    csv.writer(written).writerow([cell, as_text(-1.0)])
    (read, number) = next(csv.reader(io.StringIO(written.getvalue(), newline="")))
    assert number == "-1.0"
    assert re.sub(r"\A'(?='*[=+\-@\t\r])", "", read) == text  # docs/exports.md


def test_a_card_takes_what_a_record_says_for_text(clean_out: Path) -> None:
    run = json.loads((clean_out / "run.json").read_text())
    evil = "x |\n# Terms of use\n<script>[a](javascript:b)`\x1b[2J"
    run["options"]["render"] = {evil: evil}
    run["source"] = run["software"]["egma"] = evil
    run["counts"]["written_by_dataset"] = {evil: 3}
    card = data_card(run)
    assert not re.search(r"\x1b|(?<!\\)[<\[`]script|^# Terms", card, re.MULTILINE)
    assert not re.search(r"(?<!\\)\[a", card)
    (row,) = (line for line in card.splitlines() if line.startswith("| render.x"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 3


def test_a_path_of_the_command_line_is_told_as_text(tmp_path: Path) -> None:
    for arguments in (("run", f"/{CLEAR}"), (f"{CLEAR}",), ("inspect", "--png", f"{RED}.txt")):
        assert_one_line(egma_prep(*arguments))


# -- files that others made -----------------------------------------------------------------------


def rows(path: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    found = pq.read_table(path)
    made = found.to_pylist()
    change(made)
    pq.write_table(pa.Table.from_pylist(made, schema=found.schema), path, compression="zstd")


def long_texts(path: Path) -> None:
    """A megabyte of text that stands in every row, by a dictionary."""
    found = pq.read_table(path)
    one = found.slice(0, 1).to_pylist()[0] | {"view": "x" * 2**20}
    many = pa.concat_tables([pa.Table.from_pylist([one], schema=found.schema)] * 200)
    pq.write_table(many, path, compression="zstd", use_dictionary=True)


def many_nulls(path: Path) -> None:
    found = pq.read_table(path).slice(0, 1)
    kind = found.schema.field("sentences").type
    sentences = pa.ListArray.from_arrays([0, 10**6], pa.nulls(10**6, kind.value_type), kind)
    at = found.schema.names.index("sentences")
    made = found.set_column(at, found.schema.field(at), sentences)
    pq.write_table(made, path, compression="zstd")


def short_image(path: Path) -> None:
    rows(path, lambda made: made[0].update(image=made[0]["image"][:-1]))


def swapped_lengths(path: Path) -> None:
    """Lengths that are wrong, and right together."""

    def change(made: list[dict[str, Any]]) -> None:
        both = made[0]["image"] + made[1]["image"]
        made[0]["image"], made[1]["image"] = both[:100], both[100:]

    rows(path, change)


def long_grid(path: Path) -> None:
    def change(made: list[dict[str, Any]]) -> None:
        next(s for row in made for s in row["sentences"] if s["grid"])["grid"] += [0.0]

    rows(path, change)


def no_sentences(path: Path) -> None:
    rows(path, lambda made: made[0].update(sentences=None))


def other_types(path: Path) -> None:
    found = pq.read_table(path)
    at = found.schema.names.index("image")
    numbers = pa.array([1.0] * len(found))
    made = found.set_column(at, "image", numbers)
    pq.write_table(made.replace_schema_metadata(found.schema.metadata), path)


CRAFTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "text that a dictionary repeats": (long_texts, "unpacks to"),
    "millions of nulls": (many_nulls, "unpacks to"),
    "an image cut by a byte": (short_image, "224 x 224"),
    "lengths that fit together only": (swapped_lengths, "224 x 224"),
    "a grid of 50 cells": (long_grid, "7 x 7"),
    "a row without sentences": (no_sentences, "missing in a row"),
    "numbers for images": (other_types, "no shard of egma-prep"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                f"a shard of others: {name}",
                "written into OUT with a checksum that fits; report, inspect, export, verify",
                "one line, exit 2; `verify` names it, exit 1",
            ),
        )
        for name in CRAFTED
    ],
)
def test_a_crafted_shard_ends_in_one_line(
    name: str, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "_ALWAYS_BYTES", 2**24)  # for smaller bombs
    monkeypatch.setattr(bounds, "_TIMES_ITS_SIZE", 20)
    make, why = CRAFTED[name]
    shutil.copytree(clean_out, out := tmp_path / "out")
    path = sorted((out / "shards").iterdir())[0]
    make(path)
    record_file = out / "state" / path.stem / "record.json"
    record = json.loads(record_file.read_text())
    record["outputs"]["shard"] = fingerprint_of(path)
    write_sealed(record_file, record)
    assert path.stat().st_size < 2**22
    export = ("export", tmp_path / "png", "--to", "png")
    for command in (["report"], ["inspect"], export):
        assert_one_line(egma_prep(*command, "--out", out), str(path), why)
    verdict = egma_prep("verify", "--out", out, "--sample", 0)
    assert verdict.exit_code == 1 and f"shards/{path.name}: " in verdict.stdout
    assert why in verdict.stdout
    with pytest.raises(BadUsageError, match=why):
        open_shards(path)[0]


@pytest.mark.fault(
    "a bomb in NPZ, in a table",
    "zeros of 45 MB in 45 kB; a table of one text in 100,000 rows; limits of a tenth",
    "one line; what is unpacked until then is within the limit and a few rows",
)
def test_a_bomb_is_refused_before_it_fills_the_memory(
    clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "_ALWAYS_BYTES", 2**25)
    bomb = tmp_path / "part-00000.npz"
    header = {"descr": "|u1", "fortran_order": False, "shape": (45 * 2**20,)}
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("width.npy", "w") as file,
    ):
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(45):
            file.write(bytes(2**20))
    for opened in (load_shard, open_shards):
        with pytest.raises(BadUsageError, match="unpacks to"):
            opened(bomb)
    words = tmp_path / "words.parquet"
    some = pa.table({"text": ["x" * 4000] * 1000})
    small = {"compression": "zstd", "write_statistics": False}
    with pq.ParquetWriter(words, some.schema, **small) as writer:
        for _ in range(100):
            writer.write_table(some)
    asked = []

    def watched(unpacked: int, most: int) -> None:
        asked.append(unpacked)
        bounds.check_unpacked(unpacked, most)

    monkeypatch.setattr(parquet, "check_unpacked", watched)
    with pytest.raises(BadUsageError, match=r"is damaged \(it unpacks to"):
        read_parquet(words)
    most = bounds.most_unpacked(words)
    assert most < max(asked) < most + 2**20 < 4000 * 100_000 and len(asked) > 50
    whole = read_parquet(clean_out / "tables" / "words.parquet")
    assert whole.num_rows == len(table(clean_out, "words"))


@pytest.mark.parametrize("name", ["readings", "words"])
def test_a_table_of_others_with_other_columns_is_told_in_one_line(
    name: str, clean_out: Path, tmp_path: Path
) -> None:
    shutil.copytree(clean_out, out := tmp_path / "out")
    path = out / "tables" / f"{name}.parquet"
    pq.write_table(pa.table({"dataset": ["x"]}), path)
    assert_one_line(egma_prep("report", "--out", out), str(path), "its columns are others")
    assert shards(out)
