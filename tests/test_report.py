"""The report: its numbers, and what the version to be shared does not tell."""

import json
import re
import shutil
from collections import Counter
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from conftest import egma_prep, run_etl
from hypothesis import given
from hypothesis import strategies as st
from tables import rejects, shards, table

from egma_prep import open_shards
from egma_prep.etl.card import TERMS, shareable
from egma_prep.etl.out_folder import OutFolder
from egma_prep.look.report.choices import CHOICES, by_choice, lag_of, named_regions
from egma_prep.look.report.leads import LEADS_S, by_lead, half_cells, sampled
from egma_prep.look.report.means import Means, topics
from egma_prep.look.report.numbers import Told, bins
from egma_prep.options import Options
from egma_prep.sources.manifests import vocabulary
from egma_prep.synth import write_tree


@pytest.fixture(scope="module")
def page(reported: Path) -> str:
    return (reported / "report.html").read_text()


@pytest.fixture(scope="module")
def to_share(reported: Path) -> str:
    return (reported / "report-shareable.html").read_text()


def cells(page: str, heading: str) -> list[list[str]]:
    """Rows of the first table after a heading."""
    found = page.split(f"{heading}</h3>")[1].split("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", found, re.DOTALL)
    return [[unescape(one) for one in re.findall(r"<td>(.*?)</td>", row)] for row in rows[1:]]


def test_a_run_without_readings_has_no_report_and_no_export_and_says_so(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", 1, small=True, seed=5)
    for image in (tmp_path / "tree").rglob("*.jpg"):
        image.unlink()
    assert "no usable reading" in run_etl(tmp_path / "tree", tmp_path / "out").output
    export = ("export", tmp_path / "exported", "--to", "hf-dataset")
    for command in (["report"], export):
        result = egma_prep(*command, "--out", tmp_path / "out")
        assert result.exit_code == 2 and "has no readings; see rejects.parquet" in result.output


# -- the page -------------------------------------------------------------------------------------


def test_the_page_opens_with_the_terms_of_use(page: str, to_share: str) -> None:
    for one in (page, to_share):
        main = unescape(one.split("<main>")[1])
        assert TERMS in main and main.index(TERMS) < main.index("<table>")


def test_nothing_in_the_page_is_loaded_from_elsewhere(page: str) -> None:
    assert "default-src 'none'; img-src data:" in page
    loaded = re.findall(r"""\b(?:src|href)=["']([^"']*)""", page)
    assert all(one.startswith(("data:", "#")) for one in loaded)
    assert "url(http" not in page and "@import" not in page


def test_a_report_is_the_same_when_written_again_and_its_owners_alone(
    clean_out: Path, page: str, tmp_path: Path
) -> None:
    shutil.copytree(clean_out, tmp_path / "out")
    assert egma_prep("report", "--out", tmp_path / "out").exit_code == 0
    again = tmp_path / "out" / "report.html"
    assert again.read_text() == page and again.stat().st_mode & 0o777 == 0o600


def test_counts_are_those_of_the_tables(page: str, clean_out: Path) -> None:
    readings = table(clean_out, "readings")
    by_split = Counter((one["dataset"], one["split"] or "none") for one in readings)
    assert {(one, split): int(n) for one, split, n, _ in cells(page, "By split")} == by_split
    by_dataset = {row[0]: row[1:] for row in cells(page, "By dataset")}
    for dataset, told in by_dataset.items():
        some = [one for one in readings if one["dataset"] == dataset]
        assert told[0] == str(len(some))
        assert told[1] == str(len({one["subject_id"] for one in some}))
        assert told[3] == str(sum(one["sentences"] for one in some))
    told_reasons = cells(page, "Rejected: 2 of 24 planned")
    reasons = Counter((one["stage"], one["reason"]) for one in rejects(clean_out))
    assert {(stage, reason): int(n) for stage, reason, n in told_reasons} == reasons


def test_sentences_and_words_without_gaze_are_counted(page: str, clean_out: Path) -> None:
    words = [one for one in table(clean_out, "words") if any(map(str.isalnum, one["text"]))]
    sentences = [one for row in shards(clean_out).values() for one in row["sentences"]]
    rows = {row[0]: row[1:] for row in cells(page, "Without gaze")}
    for name, some in (("word", words), ("sentence, its whole window", sentences)):
        none = sum(one["gaze_seconds"] == 0 for one in some)
        assert rows[name][:3] == [f"{len(some):,}", f"{none:,}", f"{none / len(some):.1%}"]


def test_the_gallery_holds_every_reading_with_its_words_and_fixations(
    page: str, clean_out: Path
) -> None:
    index = json.loads(re.findall(r'id="index">(.*?)</script>', page, re.DOTALL)[0])
    parts = re.findall(r'class="part"[^>]*>(.*?)</script>', page, re.DOTALL)
    cards = [card for part in parts for card in json.loads(part)]
    ours = list(open_shards(clean_out))
    assert [one[0] for one in index] == [one.reading_id for one in ours]
    assert [one[3] for one in index] == [[s.text for s in one.sentences] for one in ours]
    fixations = Counter(one["reading_id"] for one in table(clean_out, "fixations"))
    words = Counter(one["reading_id"] for one in table(clean_out, "words"))
    for reading, card in zip(ours, cards, strict=True):
        assert len(card["fixations"]) == fixations[reading.reading_id]
        assert len(card["words"]) == words[reading.reading_id]
        has_map = [one[3] is not None for one in card["sentences"]]
        assert has_map == [one.heatmap is not None for one in reading.sentences]


def test_a_run_with_privacy_has_a_report_without_fixations(
    phantom: Path, tmp_path: Path, no_cluster: None
) -> None:
    for patient in sorted(phantom.glob("patient_*"))[:2]:
        shutil.copytree(patient, tmp_path / "data" / patient.name)
    run_etl(tmp_path / "data", tmp_path / "out", "--privacy")
    assert egma_prep("report", "--out", tmp_path / "out").exit_code == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Made with --privacy" in page
    assert set(re.findall(r'"fixations":\[(.)', page)) == {"]"}


def test_a_report_of_an_earlier_run_is_named_until_it_is_made_again(
    reported: Path, tmp_path: Path
) -> None:
    shutil.copytree(reported, out := tmp_path / "out")
    assert "report" not in egma_prep("verify", "--out", out).output
    again = ("--sigma", "8", "--set", "execution.processes=false")
    told = egma_prep("render-heatmaps", "--out", out, *again).output
    assert f"report.html is of an earlier run; repeat: egma-prep report --out {out}\n" in told
    verified = egma_prep("verify", "--out", out)
    assert verified.exit_code == 0 and verified.output.count("of an earlier run; repeat") == 2
    assert f"egma-prep report --shareable --out {out}" in verified.output
    (out / "report.html").unlink()
    assert egma_prep("report", "--out", out, "--shareable").exit_code == 0
    assert "earlier" not in egma_prep("verify", "--out", out).output


@pytest.mark.parametrize("command", ["report", "inspect", "export"])
def test_a_lost_shard_is_named_with_what_to_do(
    command: str, phantom: Path, clean_out: Path, tmp_path: Path
) -> None:
    shutil.copytree(clean_out, out := tmp_path / "out")
    lost = sorted((out / "shards").iterdir())[1]
    reading_id = open_shards(lost)[0].reading_id
    lost.unlink()
    arguments = {"inspect": [reading_id], "export": [tmp_path / "to", "--to", "png"]}
    typed = [command, *arguments.get(command, []), "--out", out]
    result = egma_prep(*typed)
    assert result.exit_code == 2
    assert result.stderr == f"egma-prep: {lost} is missing; repeat: egma-prep run DATA\n"
    assert run_etl(phantom, out).exit_code == 0
    assert egma_prep(*typed).exit_code == 0


def test_each_mean_map_says_over_how_many_sentences_and_patients(
    page: str, to_share: str, clean_out: Path
) -> None:
    named = [
        (row["subject_id"], one["text"])
        for row in shards(clean_out).values()
        for one in row["sentences"]
        if one["heatmap"] is not None and any(m["name"] == "heart" for m in one["mentions"])
    ]
    patients = len({patient for patient, _ in named})
    assert f"{len(named)} sentences, {patients} patients" in page and len(named) > patients > 8
    told = re.findall(r"(\d+) (?:sentences|readings), (\d+) patients", to_share)
    assert told and all(int(n) % 10 == 0 for pair in told for n in pair)
    assert all("What sentences say of findings" in one for one in (page, to_share))


def test_a_report_needs_a_run(tmp_path: Path) -> None:
    result = egma_prep("report", "--out", tmp_path)
    assert result.exit_code == 2 and "holds no run" in result.stderr


# -- to be shared ---------------------------------------------------------------------------------


def test_the_version_to_be_shared_has_no_images_ids_or_transcripts(
    to_share: str, clean_out: Path
) -> None:
    assert not re.search(r"data:image|<img|<image|application/json", to_share)
    names = ("reading_id", "subject_id", "study_id", "dicom_id")
    ids = {one[name] for one in table(clean_out, "readings") for name in names}
    texts = {one["text"] for one in table(clean_out, "sentences")}
    assert ids and not [one for one in ids | texts if re.search(rf"\b{re.escape(one)}\b", to_share)]
    paths = pq.read_table(clean_out / "inputs.parquet").column("path").to_pylist()
    assert paths and not [one for one in paths if one in to_share]


def test_the_version_to_be_shared_has_no_small_cells(to_share: str) -> None:
    for heading, names, patients in (("By dataset", 1, 2), ("By split", 2, 3)):
        for row in cells(to_share, heading):
            numbers = [one for one in row[names:] if re.fullmatch(r"[\d,]+", one)]
            assert bool(numbers) == (row[patients] != "<10")
            assert all(int(one.replace(",", "")) % 10 == 0 for one in numbers)
    assert "Rejected: &lt;10 of 20 planned" in to_share


@pytest.mark.fault(
    "small counts in what is shown to others",
    "`shareable.json` and the shareable report of one run, beside its tables; a split that is free"
    " text",
    "one rule in both: `<10`, nothing of fewer than 10 patients, tens; splits by known names only",
)
def test_the_record_that_may_be_shown_has_the_counts_of_the_report_that_may(
    to_share: str, clean_out: Path
) -> None:
    shown = json.loads((clean_out / "shareable.json").read_text())
    exact = json.loads((clean_out / "run.json").read_text())["counts"]
    counts = shown["counts"]
    assert counts["planned"] == 20 and counts["rejected"] == "<10"  # of 24, and 2
    for name, told in counts.items():
        for one, number in told.items() if isinstance(told, dict) else [(name, told)]:
            small = 0 < (exact[name][one] if isinstance(told, dict) else exact[name]) < 10
            assert number == "<10" if small else number is None or number % 10 == 0
    page = {row[0]: row[1] for row in cells(to_share, "By dataset")}
    assert page == {name: "–" if n is None else str(n) for name, n in
                    counts["written_by_dataset"].items()}  # fmt: skip
    assert set(shown["rejected_by_stage"].values()) == {"<10"}
    run = json.loads((clean_out / "run.json").read_text())
    rows = [{"subject_id": str(i), "dataset": "lab", "split": "Mrs Phantom"} for i in range(25)]
    told = shareable(run, rows, [])["counts"]
    assert told["written_by_split"] == {"other": 20} and "Mrs" not in json.dumps(told)
    few = shareable(run, rows[:9], [])["counts"]
    assert few["planned"] is few["sentences"] is None  # nothing of nine patients


@given(st.integers(0, 5000), st.integers(1, 40))
def test_counts_of_few_things_or_of_few_patients_are_not_told(number: int, patients: int) -> None:
    told = Told(10).count(number, patients)
    assert (told == "0") == (number == 0)
    assert (told == "<10") == (0 < number < 10)
    assert (told == "–") == (number >= 10 > patients)
    assert told in ("0", "<10", "–") or int(told.replace(",", "")) == number // 10 * 10
    assert Told(1).count(number, patients) == f"{number:,}"


PATIENTS = st.lists(st.integers(0, 25), max_size=60)


@given(PATIENTS, PATIENTS)
def test_no_share_or_median_is_about_fewer_than_ten_patients(
    one: list[int], other: list[int]
) -> None:
    which = pd.Series([True] * len(one) + [False] * len(other), [*one, *other], dtype=bool)
    small = any(0 < len(set(side)) < 10 for side in (one, other)) or not len(which)
    assert (Told(10).share(which) == "–") == small
    assert (Told(10).quantiles(which.astype(float)) == "–") == (len({*one, *other}) < 10)
    assert (Told(1).share(which) == "–") == (not len(which))


def test_nothing_about_fewer_than_ten_patients_is_made_to_be_shared(
    phantom: Path, tmp_path: Path, no_cluster: None
) -> None:
    for patient in sorted(phantom.glob("patient_*"))[:4]:
        shutil.copytree(patient, tmp_path / "data" / patient.name)
    run_etl(tmp_path / "data", tmp_path / "out")
    result = egma_prep("report", "--out", tmp_path / "out", "--shareable")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "fewer than 10 patients" in result.stderr
    assert not (tmp_path / "out" / "report-shareable.html").exists()


def test_the_version_to_be_shared_says_what_it_withholds_where_it_does(to_share: str) -> None:
    assert "Figures about fewer than 10 patients" in to_share
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", to_share, re.DOTALL)
    assert len(captions) == 6
    assert all("no bar: none, or fewer than 10 patients" in one for one in captions)


def test_bars_of_fewer_than_ten_are_not_drawn_to_be_shared() -> None:
    values = pd.Series([*np.repeat([1.0, 2.0], 57), 3.0, 3.0, 900.0])
    number, edges = bins(values, Told(10))
    assert set(number.tolist()) == {0, 50} and edges.max() < 900
    number, edges = bins(values, Told(1))
    assert number.tolist() == np.histogram(values, 24)[0].tolist() and edges.max() == 900
    values.index = values.index.where(values != 2, 0)  # a patient's own 57
    assert np.count_nonzero(bins(values, Told(10))[0]) == 1


# -- numbers --------------------------------------------------------------------------------------


def test_half_of_a_map_lies_in_as_many_cells_as_by_hand() -> None:
    grid = np.zeros(49, np.float32)
    grid[[3, 17, 40]] = 5, 3, 2
    assert half_cells(grid) == 1
    assert half_cells(np.ones(49, np.float32)) == 25


def test_leads_begin_with_what_the_shards_hold_and_only_gain_gaze(clean_out: Path) -> None:
    leads = by_lead(sampled(OutFolder(clean_out)), Options())
    assert tuple(one.lead_s for one in leads) == LEADS_S
    seen = [row for row in shards(clean_out).values() if row["heatmap"] is not None]
    sentences = [one for row in seen for one in row["sentences"]]
    gaze_s = leads[0].gaze_s
    assert (leads[0].readings, len(gaze_s)) == (len(seen), len(sentences))
    assert gaze_s.to_numpy() == pytest.approx([one["gaze_seconds"] for one in sentences])
    assert Counter(gaze_s.index) == Counter(
        row["subject_id"] for row in seen for _ in row["sentences"]
    )
    cells = [half_cells(np.array(one["grid"])) for one in sentences if one["grid"]]
    assert leads[0].half_cells == pytest.approx(np.mean(cells))
    gaze = [(one.gaze_s > 0).sum() for one in leads]
    assert gaze == sorted(gaze) and gaze[-1] > gaze[0]


def test_choices_are_compared_with_what_the_shards_hold(clean_out: Path) -> None:
    inputs = sampled(OutFolder(clean_out))
    readings = {(one.dataset, one.reading_id): one for one in open_shards(clean_out)}
    regions = {key: one.regions for key, one in readings.items()}
    named = {key: named_regions(one) for key, one in readings.items()}
    found = {one.name: one for one in by_choice(inputs, named, Options())}
    assert found.keys() == CHOICES.keys()
    own = found["as rendered"]
    assert own.in_common == pytest.approx(1)
    assert found["recipe egma"].half_cells == own.half_cells
    assert found["sigma 32"].half_cells > own.half_cells > found["sigma 8"].half_cells
    assert 0.1 < found["sigma 32"].in_common < 1
    hits = []
    for key in ((facts["dataset"], facts["reading_id"]) for facts, _ in inputs):
        for sentence in readings[key].sentences:
            said = {m["name"] for m in sentence.mentions or () if not m["negated"]}
            named = [
                one
                for one in regions[key]
                if one["kind"] == "ellipse" and any(one["name"] in LABELS.get(n, ()) for n in said)
            ]
            if named and sentence.heatmap is not None:
                v, u = np.unravel_index(sentence.heatmap.argmax(), (224, 224))
                hits.append(any(_inside(one, u, v) for one in named))
    assert len(hits) > 5 and own.in_region.tolist() == hits


LABELS = {
    "pleural effusion": ("Pleural effusion", "Pleural abnormality"),
    "cardiomegaly": ("Enlarged cardiac silhouette",),
    "nodule or mass": ("Nodule", "Lung nodule or mass"),
    **{name.lower(): (name,) for name in ("Consolidation", "Atelectasis", "Pneumothorax")},
}


def _inside(one: dict[str, float], x: float, y: float) -> bool:
    across = (2 * x - one["x0"] - one["x1"]) / (one["x1"] - one["x0"])
    down = (2 * y - one["y0"] - one["y1"]) / (one["y1"] - one["y0"])
    return across**2 + down**2 <= 1


def test_the_phantoms_eyes_are_ahead_of_their_voices(clean_out: Path) -> None:
    lag = lag_of(sampled(OutFolder(clean_out)))
    assert lag is not None and lag.low <= lag.seconds <= lag.high
    assert 0.25 < lag.seconds < 1.5  # they look 0.5 to 1.2 s before they speak


def test_a_topics_map_is_the_mean_over_the_sentences_that_mention_it(clean_out: Path) -> None:
    means = Means()
    named = {"heart": np.zeros((56, 56)), "reflacx": np.zeros((56, 56))}
    number, patients = Counter(), set()
    for reading in open_shards(clean_out):
        means.add(reading)
        maps = [(reading.dataset, reading.heatmap)]
        maps += [
            ("heart", s.heatmap) for s in reading.sentences if re.search("heart|cardiac", s.text)
        ]
        for name, heatmap in maps:
            if heatmap is not None and name in named:
                named[name] += heatmap.reshape(56, 4, 56, 4).mean(axis=(1, 3))
                number[name] += 1
                patients |= {reading.subject_id} if name == "heart" else set()
    found = means.shown(1)
    for name, total in named.items():
        assert found[name].maps == number[name] > 5
        assert np.abs(found[name].map_sum - total).max() <= 0.51 * number[name]  # rounded bytes
    assert found["heart"].patients == patients
    assert "heart" not in means.shown(len(patients) + 1)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("the heart is enlarged.", {"heart", "cardiomegaly"}),
        ("opacity in the left lower lobe", {"left lower lung", "opacity"}),
        ("no right pleural effusion", {"no pleural effusion"}),
        ("possible left base atelectasis, right apical pneumothorax",
         {"left lower lung", "right upper lung", "pneumothorax"}),
        ("both lungs are clear", {"lung"}),
        ("frontal view", set()),
    ],
)  # fmt: skip
def test_a_sentence_has_the_topics_that_it_mentions(text: str, names: set[str]) -> None:
    assert topics(vocabulary().mentions(text)) == names
