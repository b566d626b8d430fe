"""Files that differ from the release's ``SHA256SUMS.txt`` are found, by a scan and by a run."""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import egma_prep, run_etl
from PIL import Image
from tables import contents, rejects, shards

from egma_prep.look import checksums
from egma_prep.sources.files import InputFiles
from egma_prep.sources.published import listed_in
from egma_prep.storage.listing import _LocalTree
from egma_prep.synth import write_tree

pytestmark = pytest.mark.usefixtures("no_cluster")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "egma"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("released")
    for layout in ("mimic_eye", "reflacx"):
        write_tree(root / layout, 12, small=True, seed=3, layout=layout, checksums=True)
    return {layout: root / layout for layout in ("mimic_eye", "reflacx")}


@pytest.fixture
def tree(released: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(released["mimic_eye"], tmp_path / "tree")


def compared(data: Path, *more: object) -> Result:
    return egma_prep("scan", data, "--checksums", *more)


def last(result: Result) -> str:
    return result.stdout.splitlines()[-1]


def image_of_a_reading(tree: Path, images: Path | None = None) -> tuple[Path, str]:
    """Choose a gazed-at image, and its reading's id."""
    truth = json.loads((tree / "PHANTOM-truth.json").read_text())["readings"]
    seen = Counter(one["dicom_id"] for one in truth)
    one = next(r for r in truth if seen[r["dicom_id"]] == 1 and not r["reject"])
    (image,) = (images or tree).rglob(f"{one['dicom_id']}.jpg")
    return image, one["reading_id"]


def damage_the_scan(image: Path) -> None:
    """Flip a bit of the entropy-coded data: the file still opens, and shows something else."""
    before = image.read_bytes()
    pixels = Image.open(BytesIO(before)).tobytes()
    for at in range(len(before) * 3 // 4, len(before) - 2):
        data = bytearray(before)
        data[at] ^= 1
        if data[at] in (0xFF, 0x00) or before[at] in (0xFF, 0x00) or before[at - 1] == 0xFF:
            continue  # no marker is made, and none broken
        with Image.open(BytesIO(data)) as opened:
            if opened.tobytes() != pixels:
                image.write_bytes(data)
                return
    raise AssertionError("no bit changes the picture")


# -- what a run does ------------------------------------------------------------------------------


@pytest.mark.fault(
    "a flipped bit in a JPEG's scan",
    "one that still opens, in a tree with PhysioNet's SHA256SUMS.txt; `scan --checksums`, a run",
    "named by the scan, exit 1; the run rejects its reading (`not_as_published`), and makes it when"
    " the file is there again",
)
@pytest.mark.parametrize("layout", ["mimic_eye", "reflacx"])
def test_a_flipped_bit_in_a_jpeg_that_still_opens_is_found(
    layout: str, released: dict[str, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(released[layout], tmp_path / "data")
    images = ()
    if layout == "reflacx":  # a dataset of its own, with a list of its own
        shutil.move(data / "images", tmp_path / "cxr")
        images = ("--images", tmp_path / "cxr")
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert run_etl(data, whole, *images).exit_code == 0
    image, reading = image_of_a_reading(data, tmp_path)
    good = image.read_bytes()
    damage_the_scan(image)

    found = compared(data, *images)
    assert found.exit_code == 1, found.output
    (line,) = (one for one in found.stdout.splitlines() if "not as published; download" in one)
    assert image.name in line and "1 of them not as published" in last(found)
    result = run_etl(data, out, *images)
    rejected = [row for row in rejects(out) if row["reason"] == "not_as_published"]
    assert [row["reading_id"] for row in rejected] == [reading], result.output
    assert "SHA256SUMS.txt" in rejected[0]["message"] and "download" in rejected[0]["message"]
    assert "noted: 1 files that are not as published" in result.stdout
    assert shards(out) == {key: one for key, one in shards(whole).items() if key[1] != reading}
    assert egma_prep("verify", "--out", out, "--against", data, *images).exit_code == 0

    changed = run_etl(data, out, *images, "--set", "source.as_published=false")
    assert changed.exit_code == 0 and reading in {key[1] for key in shards(out)}
    image.write_bytes(good)
    run_etl(data, out, *images, "--set", "source.as_published=true")
    assert contents(out) == contents(whole)
    assert compared(data, *images).exit_code == 0


def test_a_list_is_read_once_and_no_file_twice_for_it(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = _LocalTree.read

    def reads_of_a_run(out: Path) -> Counter[str]:
        seen: Counter[str] = Counter()

        def read(self: Any, path: str) -> bytes:
            seen[path] += 1
            return real(self, path)

        monkeypatch.setattr(_LocalTree, "read", read)
        assert run_etl(tree, out, "--set", "execution.readings_per_part=2").exit_code == 0
        return seen

    with_list = reads_of_a_run(tmp_path / "with")
    (tree / "SHA256SUMS.txt").unlink()
    without = reads_of_a_run(tmp_path / "without")
    assert with_list.pop("SHA256SUMS.txt") == 1
    assert with_list == without


def test_a_list_that_comes_later_or_is_another_counts(tree: Path, tmp_path: Path) -> None:
    sums = tree / "SHA256SUMS.txt"
    text = sums.read_text()
    sums.unlink()
    assert run_etl(tree, tmp_path / "out").exit_code == 0
    image, reading = image_of_a_reading(tree)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    for content, rejected in ((text.replace(digest, "0" * 64), True), (text, False)):
        sums.write_text(content)
        result = run_etl(tree, tmp_path / "out")
        assert "again, an input file is another: SHA256SUMS.txt" in result.stdout
        reasons = {row["reading_id"]: row["reason"] for row in rejects(tmp_path / "out")}
        assert (reasons.get(reading) == "not_as_published") == rejected
    assert "up to date" in run_etl(tree, tmp_path / "out").stdout


def test_a_table_that_was_saved_again_is_refused_and_can_be_used(
    released: dict[str, Path], tmp_path: Path
) -> None:
    data = shutil.copytree(released["reflacx"], tmp_path / "data")
    for path in data.glob("main_data/metadata_phase_*.csv"):
        path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n"))
    refused = run_etl(data, tmp_path / "out")
    assert refused.exit_code == 2
    assert "not_as_published" in refused.stdout
    assert "--set source.as_published=false" in refused.stdout
    chosen = ("--set", "source.as_published=false")
    assert run_etl(data, tmp_path / "out", *chosen).exit_code == 0
    assert "up to date" in run_etl(data, tmp_path / "out").stdout  # kept, as options are


def test_an_extra_that_differs_is_left_out_and_counted(tree: Path, tmp_path: Path) -> None:
    image, reading = image_of_a_reading(tree)
    table = image.parent.parent / "cxr_chexpert.csv"
    table.write_bytes(table.read_bytes().replace(b",1.0", b",0.0"))
    result = run_etl(tree, tmp_path / "out")
    assert result.exit_code == 0 and "noted: 1 files that are not as published" in result.stdout
    (row,) = (row for key, row in shards(tmp_path / "out").items() if key[1] == reading)
    assert not [name for name, _ in row["labels"] if name.startswith("chexpert:")]
    assert f"{table.parent.parent.name}/CXR-JPG/{table.name}: not as" in compared(tree).stdout


# -- lists ----------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[str, str], str]] = {
    "as PhysioNet writes it": lambda digest, path: f"{digest} {path}\n",
    "as sha256sum writes it": lambda digest, path: f"{digest}  {path}\n",
    "of binary files": lambda digest, path: f"{digest} *{path}\n",
    "of find": lambda digest, path: f"{digest}  ./{path}\n",
    "through Windows": lambda digest, path: f"{digest.upper()} {path}\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_however_it_was_written(form: str) -> None:
    listed = {"a b/c.csv": "0a" * 32, "files/p10/\u00e9.jpg": "ff" * 32}
    data = "".join(FORMS[form](digest, path) for path, digest in listed.items()).encode()
    for begin in (b"", b"\xef\xbb\xbf"):
        assert dict(listed_in(begin + data, "a list")) == listed


def test_the_phantoms_list_is_of_every_released_file(released: dict[str, Path]) -> None:
    for root, listed in ((released["mimic_eye"], 1), (released["reflacx"], 2)):
        sums = sorted(root.rglob("SHA256SUMS.txt"))
        assert len(sums) == listed
        found = {}
        for place in sums:
            for line in place.read_text().splitlines():
                assert re.fullmatch("[0-9a-f]{64} [^ ].*", line)
                found[place.parent / line[65:]] = line[:64]
        others = {path for path in root.rglob("*") if path.is_file()} - set(found)
        litter = {"index.html", ".DS_Store", "SHA256SUMS.txt"}
        assert {p.name for p in others} <= litter | {"PHANTOM.txt", "PHANTOM-truth.json"}
        for path, digest in found.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == digest


@pytest.mark.fault(
    "a list of checksums that is none, or hostile",
    "a login page saved as SHA256SUMS.txt; none at all; lines with `../`, `/`, control sequences",
    "one line, exit 2; no file outside DATA is read, no control sequence is printed",
)
def test_a_list_that_is_none_or_hostile_ends_in_one_line_or_in_text(
    tree: Path, tmp_path: Path
) -> None:
    sums = tree / "SHA256SUMS.txt"
    good = sums.read_text()
    (tmp_path / "outside").write_text("secret")
    lines = [f"{'0' * 64} {path}\n" for path in ("../outside", f"{tmp_path}/outside", "a/../../x")]
    (tree / "\x1b[31mred").write_text("")
    sums.write_text(good + "".join(lines) + f"{'0' * 64} \x1b[31mred\n")
    result = compared(tree)
    assert result.exit_code == 1 and "\x1b" not in result.output
    assert "?[31mred: not as published" in result.stdout and "outside" not in result.output
    sums.write_text("<html>Please log in</html>")
    for command in (compared(tree), run_etl(tree, tmp_path / "out")):
        assert command.exit_code == 2
        assert re.fullmatch(
            r"egma-prep: .*SHA256SUMS.txt has no line with a .*; download it again.*\n",
            command.stderr,
        )
    sums.unlink()
    assert compared(tree).exit_code == 2
    assert "has no SHA256SUMS.txt; download it" in compared(tree).stderr


@pytest.mark.fault(
    "a list of checksums that is no ordinary file",
    "a named pipe without a writer, a link to /dev/zero",
    "run and scan end in one line, exit 2; none waits, none fills the memory",
)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_list_that_is_no_ordinary_file_ends_in_one_line(
    tree: Path, tmp_path: Path, kind: str
) -> None:
    sums = tree / "SHA256SUMS.txt"
    sums.unlink()
    if kind == "pipe":
        os.mkfifo(sums)
    else:
        sums.symlink_to("/dev/zero")
    for command in (compared(tree), run_etl(tree, tmp_path / "out")):
        assert command.exit_code == 2
        assert re.fullmatch(
            r"egma-prep: .*SHA256SUMS.txt cannot be read \(it is no ordinary file\).*\n",
            command.stderr,
        )


# -- what a scan does -----------------------------------------------------------------------------


def test_a_partial_download_is_fine_and_what_readings_lack_is_named(tree: Path) -> None:
    image, _ = image_of_a_reading(tree)
    audio = next(tree.rglob("audio.wav"), None) or next(tree.rglob("gaze.csv"), None)
    unneeded = [path for path in tree.glob("patient_*/CXR-DICOM/*.txt")] + (
        [audio] if audio else []
    )
    for path in unneeded:
        path.unlink()
    result = compared(tree)
    assert result.exit_code == 0
    assert f"of the {len(unneeded)} others readings need none" in last(result)
    image.unlink()
    result = compared(tree)
    assert result.exit_code == 0
    assert f"{image.relative_to(tree)}: not here, and a reading needs it" in result.stdout
    assert f"of the {len(unneeded) + 1} others readings need 1" in last(result)


def test_a_list_that_was_cut_vouches_for_no_more_than_it_names(tree: Path) -> None:
    sums = tree / "SHA256SUMS.txt"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(line for line in lines if ".jpg " not in f"{line.strip()} "))
    result = compared(tree)
    assert result.exit_code == 0
    found = re.search(
        r"; (\d+) files that readings need stand in no list: is it whole", last(result)
    )
    assert found and 1 <= int(found[1]) <= len(lines)
    sums.write_text("".join(lines))
    assert "stand in no list" not in last(compared(tree))


def test_of_two_digests_of_one_path_either_is_published_for_scan_and_run(
    tree: Path, tmp_path: Path
) -> None:
    sums = tree / "SHA256SUMS.txt"
    lines = sums.read_text().splitlines(keepends=True)
    sums.write_text("".join(f"{'0' * 64}{line[64:]}" + line for line in lines))
    assert compared(tree).exit_code == 0
    assert run_etl(tree, tmp_path / "out").exit_code == 0


@pytest.mark.fault(
    "Ctrl-C while checksums are compared",
    "at the 40th file; then to the end, and once more",
    "exit 130; what was hashed is kept in the user's cache folder (modes 700 and 600) and not"
    " hashed again, a file that changed meanwhile is; a finished comparison leaves nothing",
)
def test_a_comparison_that_is_cut_goes_on(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, hashed = InputFiles.digest, list[str]()
    cut_after = [40]

    def digest(self: InputFiles, path: str) -> str:
        if len(hashed) >= cut_after[0]:
            raise KeyboardInterrupt
        hashed.append(path)
        return real(self, path)

    monkeypatch.setattr(InputFiles, "digest", digest)
    total = len((tree / "SHA256SUMS.txt").read_text().splitlines())
    assert compared(tree).exit_code == 130
    (log,) = cache.iterdir()
    assert log.stat().st_mode & 0o777 == 0o600 and cache.stat().st_mode & 0o777 == 0o700
    with log.open("a") as file:
        file.write('["half a li')
    kept = {json.loads(line)[0] for line in log.read_text().splitlines()[:-1]}
    assert kept and kept <= set(hashed)
    changed = tree / sorted(kept)[0]
    changed.write_bytes(changed.read_bytes() + b" ")
    hashed.clear()
    cut_after[0] = total
    result = compared(tree)
    assert f"{len(kept)} files were compared before this was cut" in result.stdout
    assert result.exit_code == 1 and f"{sorted(kept)[0]}: not as published" in result.stdout
    assert set(hashed) & kept == {sorted(kept)[0]}
    assert len(hashed) == total - len(kept) + 1 and not [*cache.iterdir()]
    hashed.clear()
    assert compared(tree).exit_code == 1 and len(hashed) == total  # discs err without a stamp


@pytest.mark.fault(
    "a cache folder that is nobody's or another's",
    "a file in its place; a link planted as the log",
    "one line, and the comparison is made; nothing is written through the link",
)
def test_without_a_cache_folder_a_comparison_is_made_all_the_same(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.parent.mkdir()
    cache.write_text("")
    result = compared(tree)
    assert result.exit_code == 0 and "so that a cut comparison begins anew" in result.stdout
    cache.unlink()
    monkeypatch.setattr(InputFiles, "digest", lambda *_: 1 / 0)
    compared(tree)  # leaves its log
    (log,) = cache.iterdir()
    log.unlink()
    log.symlink_to(tree / "target")
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent))
    result = compared(tree)
    assert result.exit_code == 0 and "begins anew" in result.stdout
    assert not (tree / "target").exists()


@pytest.mark.fault(
    "the disk of the cache folder is full",
    "/dev/full in the place of the log, after it was opened",
    "one line names the log, and the comparison is made",
)
def test_a_full_disk_of_the_cache_ends_no_comparison(
    tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return os.open("/dev/full", os.O_RDWR)

    monkeypatch.setattr(checksums, "_own_file", full)
    monkeypatch.setattr(checksums, "_entries_of", lambda _: {})  # /dev/full has no end
    result = compared(tree)
    assert result.exit_code == 0, result.output
    told = [line for line in result.stdout.splitlines() if "No space left on device" in line]
    assert len(told) == 1 and str(cache) in told[0] and "begins anew" in told[0]
