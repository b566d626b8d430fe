"""Exports for other programs, read back as those programs would."""

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import egma_prep
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from egma_prep import open_shards
from egma_prep.etl.card import TERMS
from egma_prep.exports import Rows, export, exporter, kinds, official_egma
from egma_prep.shards.reader import Reading, Shards
from egma_prep.storage.lock import locked

Key = tuple[str, str]
PAGE = (Path(__file__).parent.parent / "docs" / "exports.md").read_text()


@pytest.fixture(scope="module")
def ours(clean_out: Path) -> dict[Key, Reading]:
    return {(one.dataset, one.reading_id): one for one in open_shards(clean_out)}


@pytest.fixture(scope="module")
def exported(clean_out: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every kind of export, made once."""
    place = tmp_path_factory.mktemp("exports")
    for kind in kinds():
        result = egma_prep("export", place / kind, "--to", kind, "--out", clean_out)
        assert result.exit_code == 0, result.output
        assert result.stdout == f"22 readings in {place / kind}\n"
    return {kind: place / kind for kind in kinds()}


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


# -- every kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", kinds())
def test_an_export_repeats_the_terms_of_use_and_is_its_owners_alone(
    kind: str, exported: dict[str, Path]
) -> None:
    card = (exported[kind] / "README.md").read_text()
    assert TERMS in card and f"--to {kind}" in card and "| render.sigma | 16.0 |" in card
    told = re.sub(r"^\| \w+\.\w+ \|.*$", "", card.replace(TERMS, ""), flags=re.MULTILINE)
    assert not re.search("rejects|fixations|shareable|verify", told)  # options apart
    for path in (exported[kind], *exported[kind].rglob("*")):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert [path.name for path in exported[kind].parent.glob(".*")] == []


@pytest.mark.parametrize("kind", kinds())
def test_a_cut_export_leaves_nothing_at_its_place_and_goes_on(
    kind: str,
    exported: dict[str, Path],
    clean_out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen, written = exporter(kind), []

    class Cut:
        """The same kind, interrupted once, after the third part's files."""

        CARD_HEAD, finish = chosen.CARD_HEAD, staticmethod(chosen.finish)

        @staticmethod
        def write_part(shard: Shards, folder: Path, part: str) -> Rows:
            rows = chosen.write_part(shard, folder, part)
            written.append(part)
            if len(written) == 3:
                raise KeyboardInterrupt
            return rows

    monkeypatch.setattr(export, "exporter", lambda _: Cut)
    cut = egma_prep("export", tmp_path / "there", "--to", kind, "--out", clean_out)
    assert cut.exit_code == 130 and not (tmp_path / "there").exists()
    again = egma_prep("export", tmp_path / "there", "--to", kind, "--out", clean_out)
    assert again.exit_code == 0, again.output
    assert written.pop(2) == written[2]  # the cut one again, the others once
    assert written == [path.stem for path in sorted((clean_out / "shards").iterdir())]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    whole, went_on = files(exported[kind]), files(tmp_path / "there")
    assert went_on.keys() == whole.keys()
    if kind != "hf-dataset":  # its state has a fingerprint of its own
        assert went_on == whole


@pytest.mark.parametrize("kind", kinds())
def test_an_export_that_is_there_is_up_to_date_for_its_kind_and_run_alone(
    kind: str, exported: dict[str, Path], clean_out: Path, tmp_path: Path
) -> None:
    again = egma_prep("export", exported[kind], "--to", kind, "--out", clean_out)
    assert (again.exit_code, again.stderr) == (0, "")
    assert again.stdout.startswith("up to date: ")
    other = "webdataset" if kind == "png" else "png"
    assert egma_prep("export", exported[kind], "--to", other, "--out", clean_out).exit_code == 2
    if kind == "png":
        shutil.copytree(clean_out, out := tmp_path / "out")
        egma_prep("render-heatmaps", "--out", out, "--sigma", 8, "--workers", 1)
        result = egma_prep("export", exported[kind], "--to", kind, "--out", out)
        assert result.exit_code == 2 and "is not an empty folder" in result.stderr


def test_a_killed_export_leaves_nothing_of_itself_when_it_is_repeated(
    exported: dict[str, Path], clean_out: Path, tmp_path: Path
) -> None:
    script = """if True:
        import os, signal, sys
        from egma_prep.cli import main

        def replace(source, target, real=os.replace):
            if str(target).endswith("part-00001.tar"):
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, target)

        os.replace = replace
        main(sys.argv[1:])
    """
    arguments = ("export", tmp_path / "there", "--to", "webdataset", "--out", clean_out)
    killed = subprocess.run([sys.executable, "-c", script, *map(str, arguments)])
    assert killed.returncode == -signal.SIGKILL
    assert list((tmp_path / ".there.unfinished" / "content").glob(".part-00001.tar.*.tmp"))
    assert egma_prep(*arguments).exit_code == 0
    assert files(tmp_path / "there") == files(exported["webdataset"])
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_second_export_to_the_same_place_is_told_of_the_first(
    clean_out: Path, tmp_path: Path
) -> None:
    with locked(tmp_path / ".there.lock"):
        result = egma_prep("export", tmp_path / "there", "--to", "png", "--out", clean_out)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"another export is writing {tmp_path / 'there'}" in result.stderr


def test_a_full_disk_is_told_with_the_place(clean_out: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, before[1]))
    try:
        result = egma_prep("export", tmp_path / "there", "--to", "png", "--out", clean_out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    work = tmp_path / ".there.unfinished"
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == (
        f"egma-prep: cannot write {work} (File too large); mend that and repeat the same command"
    )


@pytest.mark.parametrize("place", ["shards/q", "tables", "images/a/b", "state/q"])
def test_a_place_among_the_runs_own_files_is_refused(place: str, clean_out: Path) -> None:
    result = egma_prep("export", clean_out / place, "--to", "png", "--out", clean_out)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "lies in the run's own" in result.stderr
    assert egma_prep("verify", "--out", clean_out, "--sample", 0).exit_code == 0


def test_what_another_kind_left_is_not_taken_for_a_part(
    clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(official_egma, "finish", lambda *_: (_ for _ in ()).throw(OSError("full")))
    egma_prep("export", tmp_path / "there", "--to", "official-egma", "--out", clean_out)
    assert (tmp_path / ".there.unfinished").exists()
    done = egma_prep("export", tmp_path / "there", "--to", "png", "--out", clean_out)
    assert done.exit_code == 0 and not list((tmp_path / "there").rglob("*.jpg"))


def test_a_missing_package_is_named_in_one_line(
    clean_out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.delitem(sys.modules, "egma_prep.exports.hf_dataset", raising=False)
    result = egma_prep("export", tmp_path / "there", "--to", "hf-dataset", "--out", clean_out)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "needs the package datasets; install it: pip install datasets" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_kind_is_on_the_page_of_exports() -> None:
    table = PAGE.split("\n\n")[2]
    assert set(re.findall(r"`([\w-]+)`", "".join(re.findall(r"^\|([^|]*)\|", table, re.M)))) == {
        *kinds()
    }


def test_the_line_of_the_page_reads_a_tar(
    exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.chdir(exported["webdataset"])
    scope: dict[str, list[str]] = {}
    exec(snippet, scope)
    assert len(scope["texts"]) > 1 and all(isinstance(one, str) for one in scope["texts"])


# -- official-egma --------------------------------------------------------------------------------
# A reader of its own, written from the description of the published class (docs/exports.md).


def split_as_published(report: str) -> list[str]:
    pieces = []
    for passage in re.split(r"[0-9]+\.+[^0-9]", report.replace("\n", " ")):
        for piece in passage.split(". "):
            tokens = re.findall(r"\w+|[^\w\s]+", piece.lower())  # nltk.wordpunct_tokenize
            kept = [t.encode("ascii", "ignore").decode("ascii") for t in tokens]
            kept = [token for token in kept if token]
            if len(kept) >= 1:
                pieces.append(" ".join(kept))
    return pieces


def read_as_published(folder: Path) -> list[dict]:
    """One item a row: sentences, and a map for each, as the class would hand them on."""
    items = []
    for row in pd.read_csv(folder / "readings.csv").to_dict("records"):
        src = folder / row["imgpath"]
        assert row["imgpath"].endswith("src.jpg") and "aug" not in src.name
        image = Image.open(src)
        whole = Image.open(str(src).replace("src.jpg", "hm_array.jpg"))
        sentences, maps = split_as_published(row["report"]), []
        for index in range(len(sentences)):
            name = f"sentence_hm/{index}_sent_hm_array.jpg"
            one = Image.open(str(src).replace("src.jpg", name)).resize(image.size)
            low, high = one.getextrema()
            maps.append((whole if low == high else one, low != high))
        items.append(row | {"image": image, "sentences": sentences, "maps": maps})
    return items


def label_area(one: Image.Image) -> int:
    """Count positive cells after the class's anti-aliased 7 x 7 resize."""
    values = Image.fromarray(np.asarray(one, np.float32) / 255)
    return int((np.asarray(values.resize((7, 7), Image.Resampling.BILINEAR)) > 0).sum())


@pytest.fixture(scope="module")
def read_back(exported: dict[str, Path]) -> list[dict]:
    return read_as_published(exported["official-egma"])


def test_the_published_class_finds_every_reading_once_with_its_labels(
    read_back: list[dict], ours: dict[Key, Reading]
) -> None:
    assert sorted((one["dataset"], one["reading_id"]) for one in read_back) == sorted(ours)
    for one in read_back:
        labels = ours[one["dataset"], one["reading_id"]].labels
        for name in official_egma.LABELS:
            told, known = one[name], labels.get(f"chexpert:{name}")
            assert told == known or (known is None and np.isnan(told))


def test_its_sentences_are_ours_in_order(read_back: list[dict], ours: dict[Key, Reading]) -> None:
    def letters(text: str) -> str:
        return re.sub(r"[\W_]", "", text.lower())

    for one in read_back:
        said = [s.text for s in ours[one["dataset"], one["reading_id"]].sentences]
        assert [*map(letters, one["sentences"])] == [*map(letters, said)]


def test_its_images_are_grey_and_its_maps_have_their_size(
    read_back: list[dict], ours: dict[Key, Reading]
) -> None:
    for one in read_back:
        reading = ours[one["dataset"], one["reading_id"]]
        assert one["image"].mode == "L" and one["image"].size == (224, 224)
        assert {two.size for two, _ in one["maps"]} == {(224, 224)}
        difference = np.asarray(one["image"], int) - reading.image
        assert np.abs(difference).mean() < 2


def test_a_sentence_without_gaze_falls_back_to_the_whole_map_as_the_class_does(
    read_back: list[dict], ours: dict[Key, Reading]
) -> None:
    has_gaze = [
        (with_gaze, sentence.heatmap is not None)
        for one in read_back
        for (_, with_gaze), sentence in zip(
            one["maps"], ours[one["dataset"], one["reading_id"]].sentences, strict=True
        )
    ]
    assert {told for told, _ in has_gaze} == {True, False}
    assert all(told == known for told, known in has_gaze)


def test_its_label_areas_are_ours_within_two_cells_on_average(
    read_back: list[dict], ours: dict[Key, Reading]
) -> None:
    pairs = [
        (label_area(one), int((sentence.grid > 0).sum()))
        for item in read_back
        for (one, with_gaze), sentence in zip(
            item["maps"], ours[item["dataset"], item["reading_id"]].sentences, strict=True
        )
        if with_gaze and sentence.grid is not None
    ]
    assert len(pairs) > 50
    assert np.mean([abs(theirs - known) for theirs, known in pairs]) < 1
    untouched = [
        label_area(Image.fromarray(sentence.heatmap)) - int((sentence.grid > 0).sum())
        for reading in ours.values()
        for sentence in reading.sentences
        if sentence.heatmap is not None and sentence.grid is not None
    ]
    assert np.mean(untouched) > 4  # what clearing near-zero values is for


def test_the_peak_of_a_map_stays_where_it_is(ours: dict[Key, Reading]) -> None:
    for reading in ours.values():
        if reading.heatmap is not None:
            cleared = official_egma.near_zero_cleared(reading.heatmap)
            changed = cleared != reading.heatmap
            assert not cleared[changed].any() and reading.heatmap[changed].max() <= 64


def test_the_label_file_that_the_class_names_is_there(exported: dict[str, Path]) -> None:
    # The class opens "..../EGMA/local_data/sentence-label.csv" below its working folder.
    stub = pd.read_csv(exported["official-egma"] / "...." / "EGMA/local_data/sentence-label.csv")
    assert [*stub] == ["index", "Reports", *official_egma.LABELS] and len(stub) == 1


SPOKEN = st.text(
    st.sampled_from("ab12. .,/-\t\né?\u2028") | st.characters(codec="utf-8"), max_size=12
)


@example([".."])
@given(st.lists(SPOKEN, max_size=6))
def test_any_sentences_survive_the_published_splitter(texts: list[str]) -> None:
    kept = [text for text in texts if official_egma.keeps(text)]
    if kept:
        pieces = split_as_published(official_egma.report_of(kept))
        assert len(pieces) == len(kept)
        for piece, text in zip(pieces, kept, strict=True):
            told = [one for one in piece if one.isalnum()]
            assert told == [one for one in text.lower() if one.isalnum() and one.isascii()]
    left_out = [piece for text in texts if text not in kept for piece in split_as_published(text)]
    assert not any(one.isalnum() for piece in left_out for one in piece)


@pytest.mark.parametrize(
    ("sentences", "pieces"),
    [
        (["It is 1.5 cm.", "Grade 2.", "Stable."], ["it is 1 . 5 cm", "grade 2", "stable ."]),
        (["Seen by Dr. X.", "1. Clear lungs."], ["seen by dr x", "1 clear lungs ."]),
    ],
)
def test_periods_inside_sentences_do_not_cut_them(sentences: list[str], pieces: list[str]) -> None:
    assert split_as_published(official_egma.report_of(sentences)) == pieces


def test_words_are_refused_as_sentences(clean_out: Path, tmp_path: Path) -> None:
    shutil.copytree(clean_out, tmp_path / "out")
    words = ("--level", "word", "--set", "execution.processes=false")
    assert egma_prep("render-heatmaps", "--out", tmp_path / "out", *words).exit_code == 0
    arguments = ("--to", "official-egma", "--out", tmp_path / "out")
    result = egma_prep("export", tmp_path / "there", *arguments)
    assert result.exit_code == 2 and "--level sentence" in result.stderr


# -- webdataset -----------------------------------------------------------------------------------


def test_webdataset_opens_its_tars(exported: dict[str, Path], ours: dict[Key, Reading]) -> None:
    import webdataset

    tars = sorted(str(path) for path in exported["webdataset"].glob("*.tar"))
    samples = list(webdataset.WebDataset(tars, shardshuffle=False).decode("l8"))
    assert len({one["__key__"] for one in samples}) == len(samples) == len(ours)
    for sample in samples:
        reading = ours[sample["json"]["dataset"], sample["json"]["reading_id"]]
        assert np.array_equal(sample["image.png"], reading.image)
        assert ("heatmap.png" in sample) == (reading.heatmap is not None)
        stored = sample["sentences.npz"]
        for index, sentence in enumerate(reading.sentences):
            told = sample["json"]["sentences"][index]
            assert told["text"] == sentence.text and told["gaze_seconds"] == sentence.gaze_seconds
            assert stored["has_gaze"][index] == (sentence.heatmap is not None)
            if sentence.heatmap is not None:
                assert np.array_equal(stored["heatmaps"][index], sentence.heatmap)


# -- hf-dataset -----------------------------------------------------------------------------------


def test_hugging_face_opens_its_dataset(
    exported: dict[str, Path], ours: dict[Key, Reading]
) -> None:
    import datasets

    loaded = datasets.load_from_disk(exported["hf-dataset"])
    assert isinstance(loaded.features["image"], datasets.Image) and len(loaded) == len(ours)
    for row in loaded:
        reading = ours[row["dataset"], row["reading_id"]]
        assert np.array_equal(np.asarray(row["image"]), reading.image)
        assert (row["heatmap"] is None) == (reading.heatmap is None)
        assert {one["name"]: one["value"] for one in row["labels"]} == reading.labels
        for told, sentence in zip(row["sentences"], reading.sentences, strict=True):
            assert told["text"] == sentence.text and told["begin"] == sentence.begin
            if sentence.heatmap is None or sentence.grid is None:
                assert told["heatmap"] is told["grid"] is None
            else:
                assert np.array_equal(np.asarray(told["heatmap"]), sentence.heatmap)
                assert told["grid"] == sentence.grid.ravel().tolist()


def test_its_card_begins_as_hugging_face_reads_it(exported: dict[str, Path]) -> None:
    card = (exported["hf-dataset"] / "README.md").read_text()
    assert card.startswith("---\nlicense: other\n") and "\n---\n" in card


# -- png ------------------------------------------------------------------------------------------


def test_png_folders_hold_every_image_map_and_fact(
    exported: dict[str, Path], ours: dict[Key, Reading]
) -> None:
    for (dataset, reading_id), reading in ours.items():
        place = exported["png"] / dataset / reading_id
        maps = {f"sentence-{i:03d}.png": one.heatmap for i, one in enumerate(reading.sentences)}
        maps |= {"image.png": reading.image, "heatmap.png": reading.heatmap}
        for name, values in maps.items():
            assert (place / name).exists() == (values is not None)
            if values is not None:
                assert np.array_equal(np.asarray(Image.open(place / name)), values)
        facts = json.loads((place / "reading.json").read_text())
        assert [one["text"] for one in facts["sentences"]] == [s.text for s in reading.sentences]
    assert len(list(exported["png"].glob("*/*/reading.json"))) == len(ours)
