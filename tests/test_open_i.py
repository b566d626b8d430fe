"""Open-i's images and reports, in both of their forms."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import egma_prep, run_etl
from tables import rejects, shards, table

from egma_prep.synth import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("open-i") / "data"
    write_tree(root, 24, small=True, seed=3, layout="open_i")
    return root


@pytest.fixture(scope="module")
def truth(tree: Path) -> list[dict[str, Any]]:
    return json.loads((tree / "PHANTOM-truth.json").read_text())["readings"]


@pytest.fixture(scope="module")
def out(tree: Path) -> Path:
    done = run_etl(tree, tree.with_name("out"))
    assert done.exit_code == 0, done.output
    return tree.with_name("out")


def as_kaggle(tree: Path, truth: list[dict[str, Any]], root: Path) -> Path:
    """Write the same readings as Kaggle's tables, from their truth."""
    folder = root / "images" / "images_normalized"
    folder.mkdir(parents=True)
    seen, reports = {}, []
    projections = []
    for one in truth:
        uid = one["study_id"]
        shutil.copy(tree / one["image"], folder / f"{one['reading_id']}.dcm.png")
        view = "Frontal" if uid not in seen else "Lateral"
        projections.append((uid, f"{one['reading_id']}.dcm.png", view))
        if uid not in seen:
            seen[uid] = one
            said = [each["text"].replace("___", "XXXX") for each in one["sentences"]]
            mesh = ";".join(label.partition(":")[2] for label in one["labels"])
            last = said[-1] if said else ""
            reports.append((uid, mesh, "", "PHANTOM", "", "None.", " ".join(said[:-1]), last))
    heads = {
        "reports": "uid,MeSH,Problems,image,indication,comparison,findings,impression",
        "projections": "uid,filename,projection",
    }
    for name, rows in (("reports", reports), ("projections", projections)):
        with (root / f"indiana_{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([heads[name].split(","), *rows])
    return root


def test_phantoms_give_the_reports_that_are_true_of_them(
    out: Path, truth: list[dict[str, Any]]
) -> None:
    found = shards(out)
    kept = [one for one in truth if not one["reject"]]
    assert {key for _, key in found} == {one["reading_id"] for one in kept} and len(kept) > 20
    for one in kept:
        row = found["open_i", one["reading_id"]]
        assert [each["text"] for each in row["sentences"]] == [s["text"] for s in one["sentences"]]
        assert [name for name, value in row["labels"] if value == 1] == sorted(one["labels"])
        for name in ("subject_id", "study_id", "dicom_id", "split", "view", "width", "height"):
            assert row[name] == one[name]
        assert row["heatmap"] is None and not row["regions"]
        assert all(each["begin"] is None and not each["gaze_seconds"] for each in row["sentences"])
    refused = {(one["reading_id"], one["reason"]) for one in rejects(out)}
    assert refused == {(one["reading_id"], one["reject"]) for one in truth if one["reject"]}
    assert refused


def test_a_removed_name_is_no_word(out: Path) -> None:
    said = [row["text"] for row in table(out, "sentences")]
    assert "No acute disease ___." in said and not any("XXXX" in text for text in said)


def test_kaggles_tables_give_the_same_with_views(
    tree: Path, truth: list[dict[str, Any]], out: Path, tmp_path: Path
) -> None:
    data = as_kaggle(tree, truth, tmp_path / "data")
    done = run_etl(data, tmp_path / "out")
    assert done.exit_code == 0, done.output
    ours, others = shards(tmp_path / "out"), shards(out)
    assert ours.keys() == others.keys()
    for key, row in ours.items():
        assert row.pop("view") == ("FRONTAL" if "-1001" in key[1] else "LATERAL")
        others[key].pop("view")
        assert row == others[key]
    checked = egma_prep("verify", "--out", tmp_path / "out", "--against", data)
    assert checked.exit_code == 0, checked.output


BOMB = """<?xml version="1.0"?><!DOCTYPE e [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">
<!ENTITY c SYSTEM "file:///etc/passwd">]><eCitation><AbstractText Label="FINDINGS">&b;&c;
</AbstractText><parentImage id="CXR90000000_IM-0000-1001"/></eCitation>"""
BAD_REPORTS = {
    "entities": (BOMB, "bad_xml"),
    "entities in UTF-16": (BOMB.encode("utf-16"), "bad_xml"),
    "no XML": ("findings: clear", "bad_xml"),
    "XML that is cut": ("<eCitation><MeSH>", "bad_xml"),
    "an entity of nobody's": ("<eCitation>&b;</eCitation>", "bad_xml"),
    "nothing": ("", "empty_file"),
    "five megabytes": ("<a>" + " " * 5_000_000 + "</a>", "oversized"),
    "bytes": (b"\xff\xfe\xff", "not_utf8"),
    "an image that leads out": (
        '<e><AbstractText Label="FINDINGS">Clear.</AbstractText><parentImage id="../x"/></e>',
        "bad_id",
    ),
    "an image that is not there": (
        '<e><AbstractText Label="FINDINGS">Clear.</AbstractText><parentImage id="x"/></e>',
        "missing_file",
    ),
    "removed words alone": (
        '<e><AbstractText Label="FINDINGS">XXXX. XXXX</AbstractText><parentImage id="x"/></e>',
        "no_report_section",
    ),
}


@pytest.mark.parametrize("what", BAD_REPORTS)
def test_a_bad_report_is_rejected_and_the_others_are_read(
    tree: Path, tmp_path: Path, what: str
) -> None:
    text, reason = BAD_REPORTS[what]
    (tmp_path / "ecgen-radiology").mkdir()
    for path in [*tree.glob("CXR9000000[12]*.png"), *tree.glob("*/9000000[12].xml")]:
        shutil.copy(path, tmp_path / path.relative_to(tree))
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "ecgen-radiology" / "1.xml").write_bytes(content)
    result = run_etl(tmp_path, tmp_path / "out", "--max-reject-share", 1)
    assert result.exit_code == 0, result.output
    assert "written 4 (open_i 4) + rejected 1" in result.output
    assert [row["reason"] for row in rejects(tmp_path / "out")] == [reason]


def test_a_report_without_images_is_told_of(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "data")
    (tmp_path / "data" / "ecgen-radiology" / "1.xml").write_text("<eCitation></eCitation>")
    result = run_etl(tmp_path / "data", tmp_path / "out")
    assert "ecgen-radiology/1.xml: names no image" in result.output


def test_kaggles_tables_that_contradict_each_other_reject_the_images_in_question(
    tree: Path, truth: list[dict[str, Any]], tmp_path: Path
) -> None:
    data = as_kaggle(tree, truth[:6], tmp_path / "data")
    first, second, third = (truth[at]["study_id"] for at in (0, 2, 4))
    reports = (data / "indiana_reports.csv").read_text().splitlines()
    kept = [line for line in reports if not line.startswith(f"{third},")]
    again = next(line for line in reports if line.startswith(f"{second},"))
    kept += [again, f"{first},normal,,,,,Another text.,"]  # once the same, once another
    (data / "indiana_reports.csv").write_text("\n".join(kept) + "\n")
    result = run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    assert "planned 6 = written 2" in result.output, result.output
    found = {row["reading_id"]: row["reason"] for row in rejects(tmp_path / "out")}
    assert [found.get(one["reading_id"]) for one in truth[:6]] == [
        *["duplicate_id"] * 2, None, None, *["no_metadata_row"] * 2
    ]  # fmt: skip
    (data / "indiana_projections.csv").write_text("uid,projection\n1,Frontal\n")
    broken = run_etl(data, tmp_path / "out", "--max-reject-share", 1)
    assert broken.exit_code == 2 and "has no column 'filename'" in broken.stderr


@pytest.mark.parametrize(
    ("datasets", "named", "unnamed"),
    [
        (["localized_narratives"], ["CC BY 4.0", "J. Pont-Tuset"], ["PhysioNet", "REFLACX"]),
        (["open_i"], ["CC BY-NC-ND 4.0", "D. Demner-Fushman"], ["PhysioNet", "REFLACX"]),
        (["reflacx"], ["PhysioNet Credentialed Health Data"], ["CC BY"]),
        (["reflacx", "open_i"], ["PhysioNet Credentialed", "CC BY-NC-ND 4.0"], ["CC BY 4.0"]),
        (["nobody_s"], ["no declaration says under which terms"], ["PhysioNet"]),
    ],
)
def test_a_models_card_has_the_terms_of_what_it_was_trained_on(
    datasets: list[str], named: list[str], unnamed: list[str]
) -> None:
    from egma_train.run_folder import model_card  # torch, which the others do without

    counts = {"readings": 1, "images": 1, "readings_with_used_gaze": 0, "datasets": datasets}
    options = {"loss": {"objective": "clip"}}
    record = {"preset": "tiny", "options": options, "counts": counts, "epochs_done": 1}
    record |= {"started_from": "x", "shards_fingerprint": "x", "versions": {}}
    card = model_card(record)
    assert all(text in card for text in [*named, "not for clinical decisions"])
    assert not any(text in card for text in unnamed)
