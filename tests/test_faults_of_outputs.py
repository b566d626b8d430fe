"""Damage done to ``out/`` is found and named by ``verify``, and mended by ``--repair`` or a run."""

import csv
import json
import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from conftest import egma_prep, run_etl
from tables import contents, rejects, shards, write_sealed
from test_wounds import file_of

from egma_prep import open_shards
from egma_prep.errors import BadUsageError
from egma_prep.etl import run as run_module
from egma_prep.storage.atomic import fingerprint_of
from egma_train.data.shards import find_shards, read_shard
from egma_train.errors import BadUsageError as BadTrainingUsageError

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture
def out(clean_out: Path, tmp_path: Path) -> Path:
    shutil.copytree(clean_out, tmp_path / "out")
    return tmp_path / "out"


def verify(out: Path, *more: object) -> Result:
    result = egma_prep("verify", "--out", out, *more)
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, SystemExit)
    return result


def assert_found(out: Path, name: str, problem: str = "") -> None:
    result = verify(out, "--sample", 1000)
    assert result.exit_code in (1, 2), result.output
    assert re.search(f"{re.escape(name)}.*{problem}", result.output), result.output


def assert_repaired(out: Path, clean_out: Path) -> None:
    result = verify(out, "--sample", 1000, "--repair")
    assert result.exit_code == 0, result.output
    assert contents(out) == contents(clean_out)
    assert verify(out, "--sample", 1000).exit_code == 0


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


KINDS = {
    "a shard": "shards/part-00001.parquet",
    "an images file": "images/part-00001.parquet",
    "a table": "tables/alignment.parquet",
    "a part's share of a table": "state/part-00001/fixations.parquet",
    "a part's record": "state/part-00001/record.json",
    "the list of rejects": "rejects.parquet",
    "the data card": "README.md",
    "the record that may be shown": "shareable.json",
}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def swap_with_another(path: Path) -> None:
    """Put the right kind of file there, but another's."""
    other = next(one for one in sorted(path.parent.iterdir()) if one != path and one.is_file())
    path.write_bytes(other.read_bytes())


DAMAGES: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a flipped bit in": (
        "a bit flipped",
        lambda path: flip(path, random.Random(str(path.name)).randrange(8 * path.stat().st_size)),
    ),
    "half of": ("the second half cut off", truncate),
    "nothing left of": ("emptied", lambda path: path.write_bytes(b"")),
    "the loss of": ("removed", lambda path: path.unlink()),
    "zeros in": ("512 zeros", lambda path: zeros(path)),
}


def zeros(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 :][:512] = b""
    data[len(data) // 2 : len(data) // 2 + 512] = bytes(min(512, len(data) - len(data) // 2))
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(
            kind,
            name,
            marks=pytest.mark.fault(
                f"damage to {kind}",
                f"{', '.join(how for how, _ in DAMAGES.values())}; each by itself",
                "`verify` names the file, exit 1 or 2; `--repair` restores the content",
            ),
        )
        for kind, name in KINDS.items()
    ],
)
def test_damage_to_a_file_is_named_and_repaired(
    out: Path, clean_out: Path, kind: str, name: str
) -> None:
    kept = (out / name).read_bytes()
    for _, damage in DAMAGES.values():
        (out / name).write_bytes(kept)
        damage(out / name)
        assert_found(out, name)
    assert_repaired(out, clean_out)


class Killed(BaseException):
    """As abrupt as a kill: nothing in the code catches it."""


@pytest.mark.fault(
    "`verify --repair` is killed",
    "before a record, a file of no run, run.json, a shard, a record, a table, the card and"
    " shareable.json is deleted or renamed, in a repair of a damaged shard and a lost table",
    "the same command, repeated, restores the content",
)
def test_a_repair_that_was_killed_is_finished_by_the_same_command(
    out: Path, clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(out / KINDS["a shard"], 5000)
    (out / KINDS["a table"]).unlink()
    shutil.copy(out / "shards" / "part-00000.parquet", out / "shards" / "part-00077.parquet")
    damaged = tmp_path / "damaged"
    out.rename(damaged)
    real, one_at_a_time, dies_at = {"replace": os.replace, "unlink": os.unlink}, Lock(), [""]
    seen: dict[str, None] = {}

    def watched(name: str) -> Callable[..., object]:
        def step(*arguments: Any, **named: Any) -> object:
            what = f"{name} {Path(arguments[-1]).name}"
            if ".tmp" not in what:
                with one_at_a_time:  # dead, no thread goes on
                    if dies_at[0] in (what, "all"):
                        dies_at[0] = "all"
                        raise Killed
                    seen[what] = None
            return real[name](*arguments, **named)

        return step

    def repaired() -> Result:
        return verify(out, "--repair", "--sample", 0)

    for name in real:
        monkeypatch.setattr(os, name, watched(name))
    shutil.copytree(damaged, out)
    assert repaired().exit_code == 0
    moments = (
        *("unlink record.json", "unlink part-00077.parquet", "replace run.json"),
        *("replace part-00001.parquet", "replace record.json", "replace alignment.parquet"),
        *("replace README.md", "replace shareable.json"),
    )
    assert set(moments) <= set(seen)
    for what in moments:
        shutil.rmtree(out)
        shutil.copytree(damaged, out)
        dies_at[0] = what
        with pytest.raises(Killed):
            repaired()
        dies_at[0] = ""
        assert repaired().exit_code == 0, what
        assert contents(out) == contents(clean_out), what
        assert not list(out.rglob(".*.tmp"))


@pytest.mark.fault(
    "damage to run.json",
    "a bit flipped, the second half cut off, 512 zeros; then removed",
    "one line says what to do, exit 2; after that the next run restores the content",
)
def test_a_damaged_run_record_says_what_to_do(phantom: Path, out: Path, clean_out: Path) -> None:
    path = out / "run.json"
    kept = path.read_bytes()
    for name in ("a flipped bit in", "half of", "zeros in"):
        path.write_bytes(kept)
        DAMAGES[name][1](path)
        for result in (verify(out), run_etl(phantom, out)):
            assert result.exit_code == 2
            assert "delete it and repeat egma-prep run with the same options" in result.stderr
    path.unlink()
    assert run_etl(phantom, out).exit_code == 0
    assert contents(out) == contents(clean_out)


@pytest.mark.fault(
    "damaged files and no `verify`",
    "a bit flipped in a shard, a table and a record",
    "the next run says which and makes only those again",
)
@pytest.mark.parametrize("name", KINDS.values())
def test_the_next_run_mends_what_is_damaged(
    phantom: Path, out: Path, clean_out: Path, name: str
) -> None:
    flip(out / name, 4 * (out / name).stat().st_size)
    result = run_etl(phantom, out)
    assert result.exit_code == 0, result.output
    parts = int(name.startswith(("shards", "images", "state")))
    assert f"{parts} of 3 parts to make" in result.stdout
    if parts:
        assert "making part-00001 again" in result.stdout
    assert contents(out) == contents(clean_out)
    assert verify(out).exit_code == 0


@pytest.mark.fault(
    "run.json lost",
    "removed, after a run with another sigma; then a run with and without that option",
    "parts of other options are made again, never mixed",
)
@pytest.mark.parametrize("sigma", [8, 16])
def test_a_lost_record_never_mixes_options(
    phantom: Path, clean_out: Path, tmp_path: Path, sigma: int
) -> None:
    out = tmp_path / "out"
    run_etl(phantom, out, "--sigma", 8)
    (out / "run.json").unlink()
    run_etl(phantom, out, "--sigma", sigma)
    assert verify(out, "--sample", 1000).exit_code == 0
    assert {open_shards(out).metadata["sigma"]} == {f"{sigma}.0"}


@pytest.mark.fault(
    "files of nobody",
    "a part of no run, a half-written file of a dead process, a foreign table",
    "`verify` names them; `--repair` removes what is ours and nothing else",
)
def test_files_that_do_not_belong_are_named_and_only_ours_removed(
    out: Path, clean_out: Path
) -> None:
    ours = ["shards/part-00099.parquet", "images/.part-00001.parquet.1234.tmp"]
    theirs = ["notes.txt", "runs/model.txt", "tables/my.csv"]
    (out / "runs").mkdir()
    for name in ours + theirs:
        (out / name).write_bytes(b"stray")
    for name in ours:
        assert_found(out, name, "not of this run")
    assert_found(out, "tables/my.csv", "not of egma-prep; move it away")
    assert verify(out, "--repair").exit_code == 1
    assert not any((out / name).exists() for name in ours)
    assert all((out / name).read_bytes() == b"stray" for name in theirs)
    (out / "tables" / "my.csv").unlink()
    assert verify(out).exit_code == 0
    assert contents(out) == contents(clean_out)


STRAYS = [
    "state/part-00000.bak/record.json",
    "state/part-/record.json",
    "state/part-²/record.json",
    "state/part-00000 (1)/words.parquet",
    "state/notes.txt",
    "shards/part-00000 (1).parquet",
    "shards/part-00000.bak",
    "images/part-x.parquet",
    "tables/readings (1).parquet",
]


@pytest.mark.parametrize("command", ["run", "render-heatmaps", "verify", "report", "inspect"])
def test_names_that_others_laid_there_stop_no_command(
    command: str, out: Path, phantom: Path, clean_out: Path
) -> None:
    for name in STRAYS:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(b"stray")
    if command == "run":
        sorted(out.glob("state/part-?????/record.json"))[0].unlink()
        result = run_etl(phantom, out)
    else:
        result = egma_prep(command, "--out", out)
    assert "Traceback" not in result.output and not isinstance(result.exception, ValueError)
    assert result.exit_code == (command == "verify"), result.output
    if command == "verify":
        for name in STRAYS:
            assert f"{name}: not of egma-prep; move it away" in result.output
    if command != "render-heatmaps":  # which puts another folder of shards in the place of the old
        assert all((out / name).read_bytes() == b"stray" for name in STRAYS)
    assert len(open_shards(out)) == len(open_shards(clean_out))


def test_a_copy_of_a_shard_counts_its_readings_once(out: Path, clean_out: Path) -> None:
    first = sorted((out / "shards").iterdir())[0]
    shutil.copy(first, first.with_name(f"{first.stem} (1).parquet"))
    assert len(open_shards(out)) == len(open_shards(clean_out))
    assert find_shards(out) == sorted((out / "shards").glob("part-?????.parquet"))


@pytest.mark.fault(
    "a share of a table that is damaged while it is merged",
    "cut, swapped with another or gone after its part was made",
    "told as damaged with how to mend it; the same command goes on",
)
@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "Parquet"),
        (lambda path: shutil.copy(path.with_name("sentences.parquet"), path), "columns are others"),
        (Path.unlink, "No such file"),
    ],
    ids=["cut", "swapped", "gone"],
)
def test_a_share_damaged_while_it_is_merged_is_told_as_damaged(
    harm: Callable[[Path], object], why: str, phantom: Path, out: Path, clean_out: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    share = sorted(out.glob("state/part-*/words.parquet"))[1]
    sorted(out.glob("state/part-*/record.json"))[0].unlink()
    real = run_module.concatenate

    def concatenate(paths: list[Path], target: Path, schema: pa.Schema) -> None:
        if target.stem == "words":
            harm(share)
        real(paths, target, schema)

    with monkeypatch.context() as patched:
        patched.setattr(run_module, "concatenate", concatenate)
        result = run_etl(phantom, out)
    assert result.exit_code == 2
    told = result.stderr.splitlines()[-1]
    assert f"{share} is damaged (" in told and why in told and "repeat" in told
    assert "cannot write" not in result.output
    assert run_etl(phantom, out).exit_code == 0
    assert contents(out) == contents(clean_out)


@pytest.mark.parametrize("text", ["1", "true", "null", '"seal"', '["seal"]', '{"seal": 1}', "{}"])
def test_a_record_that_is_other_json_is_found_and_mended(
    text: str, out: Path, clean_out: Path, phantom: Path
) -> None:
    record = sorted(out.glob("state/part-*/record.json"))[0]
    record.write_text(text)
    assert verify(out).exit_code == 1
    assert run_etl(phantom, out).exit_code == 0
    assert contents(out) == contents(clean_out)


@pytest.mark.parametrize("text", ["1", "null", "[]", "without its seal"])
@pytest.mark.parametrize("command", ["verify", "report", "inspect", "render-heatmaps", "run"])
def test_a_run_record_that_is_other_json_is_told_in_one_line(
    command: str, text: str, out: Path, phantom: Path
) -> None:
    record = json.loads((out / "run.json").read_text())
    record.pop("seal")
    (out / "run.json").write_text(json.dumps(record) if text == "without its seal" else text)
    where = [phantom] if command == "run" else []
    result = egma_prep(command, *where, "--out", out)
    assert result.exit_code == 2
    assert "run.json is damaged" in result.output and "delete it and repeat" in result.output


# -- contents that are wrong although the checksums fit -------------------------------------------


def rewrite(out: Path, name: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
    """Change rows, and the checksums with them, as a fault of the program would."""
    path = out / name
    table = pq.read_table(path)
    rows = table.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    part = re.search(r"part-\d+", name)
    assert part
    record_file = out / "state" / part[0] / "record.json"
    record = json.loads(record_file.read_text())
    kind = {"shards": "shard", "images": "images"}.get(path.parent.name, path.stem)
    record["outputs"][kind] = fingerprint_of(path)
    write_sealed(record_file, record)


def first_map(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return next(s for row in rows for s in row["sentences"] if s["heatmap"])


def dim_a_peak(rows: list[dict[str, Any]]) -> None:
    sentence = first_map(rows)
    values = np.frombuffer(sentence["heatmap"], np.uint8)
    sentence["heatmap"] = np.minimum(values, 200).tobytes()


def change_a_pixel(rows: list[dict[str, Any]]) -> None:
    sentence = first_map(rows)
    values = np.frombuffer(sentence["heatmap"], np.uint8).copy()
    values[int(np.argmin(values))] += 1
    sentence["heatmap"] = values.tobytes()
    cells = values.reshape(7, 32, 7, 32).mean(axis=(1, 3)) / 255
    sentence["grid"] = cells.astype(np.float32).ravel().tolist()


def set_first(name: str, value: Any) -> Callable[[list[dict[str, Any]]], None]:
    def change(rows: list[dict[str, Any]]) -> None:
        first_map(rows)[name] = value

    return change


def in_rows(name: str, change: Callable[[Any], Any]) -> Callable[[list[dict[str, Any]]], None]:
    def changed(rows: list[dict[str, Any]]) -> None:
        rows[3][name] = change(rows[3][name])

    return changed


def repeat_first(rows: list[dict[str, Any]]) -> None:
    rows.append(dict(rows[0]))


def drop_last(rows: list[dict[str, Any]]) -> None:
    rows.pop()


SHARD, WORDS = "shards/part-00001.parquet", "state/part-00001/words.parquet"
SENTENCES, ALIGNMENT = "state/part-00001/sentences.parquet", "state/part-00001/alignment.parquet"
FIXATIONS = "state/part-00001/fixations.parquet"
WRONG: dict[str, tuple[str, Callable[[list[dict[str, Any]]], object], str]] = {
    "a heatmap without its peak": (SHARD, dim_a_peak, "another peak than 255"),
    "a heatmap with one other pixel": (SHARD, change_a_pixel, "the tables render to other maps"),
    "a grid that is not its heatmap's": (SHARD, set_first("grid", [0.5] * 49), "grid of sentence"),
    "a heatmap lost": (SHARD, set_first("heatmap", None), "has no heatmap"),
    "gaze seconds made up": (SHARD, set_first("gaze_seconds", 99.0), "gaze_seconds of sentences"),
    "a sentence's text changed": (SHARD, set_first("text", "Normal."), "sentences are not"),
    "a reading twice": (SHARD, repeat_first, "twice"),
    "a reading lost from a shard": (SHARD, drop_last, "not those of the readings|not written"),
    "a sentence that begins late": (SENTENCES, in_rows("begin", lambda b: b + 0.5), "times"),
    "a sentence lost": (SENTENCES, drop_last, "no sentence or to two|not the table's"),
    "a word that ends before it begins": (
        WORDS,
        in_rows("end", lambda end: end - 99),
        "ends before",
    ),
    "a word lost": (WORDS, drop_last, "no sentence or to two"),
    "an overlap lost": (ALIGNMENT, drop_last, "the alignment is not the overlap"),
    "an overlap twice": (ALIGNMENT, repeat_first, "pair twice|not the overlap"),
    "an overlap too long": (ALIGNMENT, in_rows("seconds", lambda s: s + 1), "not the overlap"),
    "a fixation moved in time": (FIXATIONS, in_rows("end", lambda end: end + 5), "alignment|gaze"),
    "a fixation moved on the image": (FIXATIONS, in_rows("x_224", lambda x: x / 2), "other maps"),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name,
            marks=pytest.mark.fault(
                name,
                f"{where.split('/')[0]} rewritten with checksums that fit",
                "`verify` names the reading or file and the broken rule; `--repair` restores it",
            ),
        )
        for name, (where, _, _) in WRONG.items()
    ],
)
def test_wrong_content_is_found_though_its_checksum_fits(
    out: Path, clean_out: Path, name: str
) -> None:
    where, change, problem = WRONG[name]
    rewrite(out, where, change)
    assert_found(out, "part-00001", problem)
    assert_repaired(out, clean_out)


@pytest.mark.fault(
    "counts that do not add up",
    "run.json resealed with other counts",
    "`verify` says so; the next repair counts anew",
)
def test_counts_that_do_not_add_up_are_found(out: Path) -> None:
    run = json.loads((out / "run.json").read_text())
    run["counts"]["written"] += 1
    write_sealed(out / "run.json", run)
    assert_found(out, "run.json", "counts")


@pytest.mark.fault(
    "raw files that changed after the run",
    "a reading's first fixation removed; then its patient's folder",
    "`verify --against DATA` names the reading and the tables that differ",
)
def test_verify_against_the_raw_tree_finds_what_changed_there(
    phantom: Path, out: Path, tmp_path: Path, truth: dict[str, Any]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    victim = next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )
    assert verify(out, "--against", data, "--sample", 1000).exit_code == 0
    path = file_of(data, victim, "fixations.csv")
    rows = path.read_text().splitlines()
    path.write_text("\r\n".join([rows[0], *rows[2:]]) + "\r\n")
    result = verify(out, "--against", data, "--sample", 1000)
    assert result.exit_code == 1
    assert re.search(rf"{victim['reading_id']}: DATA gives other fixations", result.stdout)
    with_damage = tmp_path / "damaged"
    shutil.copytree(out, with_damage)
    shard = next((with_damage / "shards").glob("*.parquet"))
    shard.write_bytes(shard.read_bytes()[:-1])
    found = verify(with_damage, "--against", phantom).stdout.splitlines()
    assert [line.partition(":")[0] for line in found[:-1]] == [f"shards/{shard.name}"]
    shutil.rmtree(data / f"patient_{victim['subject_id']}")
    assert "has other readings" in verify(out, "--against", data).stdout


@pytest.mark.fault(
    "a metadata row without an id",
    "a blank id appended to a patient's table, a run, `verify --against`",
    "a reject; `verify` finds nothing else",
)
def test_a_reject_without_an_id_is_accounted_for(phantom: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(phantom, data)
    table = sorted(data.glob("*/REFLACX/metadata.csv"))[0]
    header, *rows = list(csv.reader(table.read_text().splitlines()))
    rows[-1][header.index("id")] = ""
    with table.open("a", newline="") as file:
        csv.writer(file).writerow(rows[-1])
    assert run_etl(data, out).exit_code == 0
    result = verify(out, "--against", data)
    assert result.exit_code == 0, result.output


# -- readers --------------------------------------------------------------------------------------


@pytest.mark.fault(
    "a flipped bit in a shard that is being trained from",
    "single bits in the data of a shard, Parquet and NPZ",
    "egma-train and open_shards refuse it by name, never hand on other pixels",
)
@pytest.mark.parametrize("kind", ["parquet", "npz"])
def test_readers_refuse_a_flipped_bit_or_read_the_same(
    clean_out: Path, tmp_path: Path, kind: str
) -> None:
    egma_prep("export", tmp_path / "shards", "--to", kind, "--out", clean_out)
    path = next((tmp_path / "shards").glob(f"part-*.{kind}"))
    kept, expected = path.read_bytes(), [one.image for one in read_shard(path)]
    rng, refused = random.Random(kind), 0
    for _ in range(40):
        flip(path, rng.randrange(8 * len(kept)))
        try:
            assert [one.image for one in read_shard(path)] == expected
        except BadTrainingUsageError as error:
            refused += 1
            assert path.name in str(error)
        try:
            assert [one.image.tobytes() for one in open_shards(path)] == expected
        except (BadUsageError, ValueError) as error:
            assert path.name in str(error)
        path.write_bytes(kept)
    assert refused > 10


@pytest.mark.fault(
    "an NPZ of pickled objects",
    "an object array that runs code when it is unpickled, in a shard's place",
    "refused by name; the code does not run",
)
def test_an_npz_with_pickled_objects_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "evil",))

    path = tmp_path / "part-00000.npz"
    np.savez(path, width=np.array([Evil()], dtype=object))
    with pytest.raises(BadUsageError, match=path.name):
        open_shards(path)[0]
    with pytest.raises(BadTrainingUsageError, match=path.name):
        list(read_shard(path))
    assert not (tmp_path / "evil").exists()


@pytest.mark.fault(
    "an NPZ that unpacks to many GiB",
    "three deflated arrays whose headers say 4 GiB each",
    "refused by name without unpacking it",
)
def test_an_npz_bomb_is_refused(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "part-00000.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("width.npy", "height.npy", "image.npy"):
            archive.writestr(name, b"\0" * 1000)
    data = bytearray(path.read_bytes())
    for entry in re.finditer(rb"PK\x01\x02", bytes(data)):
        data[entry.start() + 24 : entry.start() + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(BadUsageError, match="unpacks to"):
        open_shards(path)[0]


# -- privacy --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def private(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("private") / "out"
    assert run_etl(phantom, out, "--privacy").exit_code == 0
    return out


def test_without_raw_gaze_the_shards_are_the_same(private: Path, clean_out: Path) -> None:
    assert shards(private) == shards(clean_out)
    assert verify(private, "--sample", 1000).exit_code == 0


def test_no_file_of_a_private_run_holds_a_fixation(private: Path, clean_out: Path) -> None:
    assert not [p for p in private.rglob("*") if p.stem in ("fixations", "alignment")]
    words = pq.read_table(private / "tables" / "words.parquet")
    assert words.column("gaze_seconds").null_count == words.num_rows > 0
    columns = {name for path in private.rglob("*.parquet") for name in pq.read_schema(path).names}
    assert not columns & {"x", "y", "x_224", "fixation_index", "px_per_deg_x"}
    assert "no raw gaze; still credentialed data" in (private / "README.md").read_text()


@pytest.mark.fault(
    "raw gaze in a private folder",
    "a table of fixations put back; gaze of words put back with checksums that fit",
    "`verify` names it",
)
@pytest.mark.parametrize("what", ["table", "words"])
def test_raw_gaze_in_a_private_folder_is_found(
    private: Path, clean_out: Path, tmp_path: Path, what: str
) -> None:
    out = tmp_path / "out"
    shutil.copytree(private, out)
    if what == "table":
        shutil.copy(clean_out / "tables" / "fixations.parquet", out / "tables")
        assert_found(out, "tables/fixations.parquet")
    else:
        rewrite(out, WORDS, in_rows("gaze_seconds", lambda _: 1.0))
        assert_found(out, "part-00001", "in spite of --privacy")


@pytest.mark.fault(
    "a folder made private later",
    "a run, the same with --privacy, a run with --no-privacy",
    "nothing raw is left; then all is back",
)
def test_a_folder_that_becomes_private_keeps_no_raw_gaze(
    phantom: Path, out: Path, clean_out: Path, private: Path
) -> None:
    assert run_etl(phantom, out, "--privacy").exit_code == 0
    assert shards(out) == shards(clean_out)
    assert not [p for p in out.rglob("*") if p.stem in ("fixations", "alignment")]
    assert verify(out).exit_code == 0
    assert "nothing to do" in run_etl(phantom, out).output
    assert run_etl(phantom, out, "--sigma", 8).exit_code == 0  # from the raw data again
    assert open_shards(out).metadata["sigma"] == "8.0"
    assert run_etl(phantom, out, "--no-privacy", "--sigma", 16).exit_code == 0
    assert contents(out) == contents(clean_out)


@pytest.mark.fault(
    "files from before a folder became private",
    "a figure and an export in OUT, then a run with --privacy",
    "`verify` names them; models in runs/ are left alone",
)
def test_older_files_in_a_private_folder_are_named(phantom: Path, out: Path) -> None:
    egma_prep("inspect", "--out", out)
    egma_prep("export", out / "npz", "--to", "npz", "--out", out)
    (out / "runs").mkdir()
    (out / "runs" / "model.txt").write_text("mine")
    assert run_etl(phantom, out, "--privacy").exit_code == 0
    found = verify(out)
    assert found.exit_code == 1 and "runs/" not in found.stdout
    assert re.search(r"\.png: older than this private run", found.stdout)
    assert re.search(r"npz/part-\d+\.npz: older than", found.stdout)


@pytest.mark.fault(
    "raw gaze in a message",
    "a fixation that ends before it begins, and a letter in a position; a run with --privacy",
    "the reject names file and reason, not the values",
)
@pytest.mark.parametrize("cell", [("timestamp_end_fixation", "0.125"), ("x_position", "107q")])
def test_a_private_run_tells_no_gaze_in_its_rejects(
    phantom: Path, tmp_path: Path, truth: dict[str, Any], cell: tuple[str, str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(phantom, data)
    victim = next(
        one for one in truth["readings"] if one["dataset"] == "reflacx" and not one["reject"]
    )
    path = file_of(data, victim, "fixations.csv")
    header, *rows = list(csv.reader(path.read_text().splitlines()))
    rows[-1][header.index(cell[0])] = cell[1]
    path.write_text("\n".join(map(",".join, [header, *rows])))
    for more, told in (((), True), (("--privacy",), False)):
        out = tmp_path / f"out-{told}"
        assert run_etl(data, out, *more).exit_code == 0
        (message,) = [r["message"] for r in rejects(out) if r["reading_id"] == victim["reading_id"]]
        assert (cell[1] in message) == told and "fixations.csv" in message


def test_private_outputs_are_not_rendered_again_nor_by_word(private: Path, phantom: Path) -> None:
    result = egma_prep("render-heatmaps", "--out", private, "--sigma", 8)
    assert result.exit_code == 2 and "egma-prep run" in result.stderr
    result = run_etl(phantom, private.parent / "words", "--privacy", "--level", "word")
    assert result.exit_code == 2 and "raw gaze" in result.stderr


# -- what may be shown ----------------------------------------------------------------------------


@pytest.mark.fault(
    "a record pasted into an issue",
    "`shareable.json` searched for every id, path and word of the tree",
    "none is in it",
)
def test_the_shareable_record_names_nobody(clean_out: Path, truth: dict[str, Any]) -> None:
    text = (clean_out / "shareable.json").read_text()
    for reading in truth["readings"]:
        for secret in ("reading_id", "subject_id", "study_id", "dicom_id"):
            assert reading[secret] not in text
    assert str(clean_out) not in text and "/tmp" not in text and "patient_" not in text
    shown = json.loads(text)
    assert set(shown["counts"]) == set(json.loads((clean_out / "run.json").read_text())["counts"])
    assert {"options", "software", "inputs", "rejected_by_stage"} <= set(shown)


def test_the_data_card_repeats_the_terms_of_use(clean_out: Path, tmp_path: Path) -> None:
    card = (clean_out / "README.md").read_text()
    assert "PhysioNet Credentialed Health Data License" in card
    assert "Do not share it with anyone else" in card and "raw gaze" in card
    egma_prep("export", tmp_path / "npz", "--to", "npz", "--out", clean_out)
    assert "Do not share it with anyone else" in (tmp_path / "npz" / "README.md").read_text()


def test_no_code_pickles_a_file() -> None:
    root = Path(__file__).parent.parent
    for path in [*root.glob("egma_*/**/*.py")]:
        text = path.read_text()
        if path.name == "tensor_files.py":  # all that it unpickles is inert: test_tensor_files.py
            assert re.findall(r"pickle\.\w+", text) == ["pickle.Unpickler"]
            continue
        assert not re.search(r"^\s*(import|from) (c?[Pp]ickle|joblib|dill|shelve)", text, re.M)
        assert "allow_pickle=True" not in text and "weights_only=False" not in text
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "True" in call, f"{path}: {call}"
