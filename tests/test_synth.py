"""The phantom trees: do the files keep their formats, and does the truth keep to the files?"""

from __future__ import annotations

import ast
import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import egma_prep

from egma_prep import synth
from egma_prep.synth.anatomy import draw_chest_place
from egma_prep.synth.findings import KINDS, draw_finding, draw_xray

REFLACX_FIXATIONS = (
    "timestamp_start_fixation,timestamp_end_fixation,x_position,y_position,pupil_area_normalized,"
    "angular_resolution_x_pixels_per_degree,angular_resolution_y_pixels_per_degree,window_width,"
    "window_level,xmin_shown_from_image,ymin_shown_from_image,xmax_shown_from_image,"
    "ymax_shown_from_image,xmin_in_screen_coordinates,ymin_in_screen_coordinates,"
    "xmax_in_screen_coordinates,ymax_in_screen_coordinates"
)
PHASE_1 = (
    "Airway wall thickening,Atelectasis,Consolidation,Emphysema,Enlarged cardiac silhouette,"
    "Fibrosis,Fracture,Groundglass opacity,Mass,Nodule,Other,Pleural effusion,Pleural thickening,"
    "Pneumothorax,Pulmonary edema,Quality issue,Support devices,Wide mediastinum"
)
PHASE_2 = (
    "Abnormal mediastinal contour,Acute fracture,Atelectasis,Consolidation,"
    "Enlarged cardiac silhouette,Enlarged hilum,Groundglass opacity,Hiatal hernia,"
    "High lung volume / emphysema,Interstitial lung disease,Lung nodule or mass,Other,"
    "Pleural abnormality,Pneumothorax,Pulmonary edema,Support devices"
)
REFLACX_METADATA = (
    ",id,split,eye_tracking_data_discarded,image,dicom_id,subject_id,image_size_x,image_size_y,"
    f"{PHASE_1},Abnormal mediastinal contour,Acute fracture,Enlarged hilum,Hiatal hernia,"
    "High lung volume / emphysema,Interstitial lung disease,Lung nodule or mass,Pleural abnormality"
)
GAZEPOINT = (
    ",SESSION_ID,MEDIA_ID,DICOM_ID,CNT,Time (in secs),TIMETICK(f=10000000),FPOGX,FPOGY,FPOGS,FPOGD,"
    "FPOGID,FPOGV,BPOGX,BPOGY,BPOGV,LPCX,LPCY,LPD,LPS,LPV,RPCX,RPCY,RPD,RPS,RPV,BKID,BKDUR,BKPMIN,"
    "LPMM,LPMMV,RPMM,RPMMV,SACCADE_MAG,SACCADE_DIR,VID_FRAME,X_ORIGINAL,Y_ORIGINAL"
)
MASTER_SHEET = (
    ",dicom_id,path,study_id,patient_id,stay_id,gender,anchor_age,image_top_pad,image_bottom_pad,"
    "image_left_pad,image_right_pad,dx1,dx1_icd,dx2,dx2_icd,dx3,dx3_icd,dx4,dx4_icd,dx5,dx5_icd,"
    "dx6,dx6_icd,dx7,dx7_icd,dx8,dx8_icd,dx9,dx9_icd,normal_reports,Normal,CHF,pneumonia,"
    "consolidation,enlarged_cardiac_silhouette,linear__patchy_atelectasis,"
    "lobar__segmental_collapse,"
    "not_otherwise_specified_opacity___pleural__parenchymal_opacity__,"
    "pleural_effusion_or_thickening,pulmonary_edema__hazy_opacity,normal_anatomically,"
    "elevated_hemidiaphragm,hyperaeration,vascular_redistribution,atelectasis__chx,"
    "cardiomegaly__chx,consolidation__chx,edema__chx,enlarged_cardiomediastinum__chx,"
    "fracture__chx,lung_lesion__chx,lung_opacity__chx,no_finding__chx,pleural_effusion__chx,"
    "pleural_other__chx,pneumonia__chx,pneumothorax__chx,support_devices__chx,cxr_exam_indication"
)
CXR_META = (
    ",dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,"
    "StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,"
    "PatientOrientationCodeSequence_CodeMeaning,in_eye_gaze,in_reflacx,StudyDateTime,stay_id"
)
CHEXPERT = (
    ",subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,"
    "Fracture,Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,"
    "Pneumothorax,Support Devices"
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("phantom")
    synth.write_tree(root, 24, small=True, seed=3)
    return root


@pytest.fixture(scope="module")
def truth(tree):
    return json.loads((tree / "PHANTOM-truth.json").read_text())["readings"]


def rows_of(path):
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def header_of(path):
    return path.read_text().split("\n")[0].rstrip("\r")


def patient(tree, reading):
    return tree / f"patient_{reading['subject_id']}"


def main_data(tree, reading):
    return patient(tree, reading) / "REFLACX" / "main_data" / reading["reading_id"]


def with_quirk(truth, quirk, dataset=None):
    return [r for r in truth if quirk in r["quirks"] and dataset in (None, r["dataset"])]


def usable(truth, dataset):
    return [r for r in truth if r["dataset"] == dataset and not r["reject"]]


def fixation_rows(tree, reading):
    if reading["dataset"] == "reflacx":
        return rows_of(main_data(tree, reading) / "fixations.csv")
    table = rows_of(patient(tree, reading) / "EyeGaze" / "fixations.csv")
    return [r for r in table if r["DICOM_ID"] == reading["dicom_id"]]


def transcript(tree, reading):
    folder = patient(tree, reading) / "EyeGaze" / "audio_segmentation_transcripts"
    return json.loads((folder / reading["dicom_id"] / "transcript.json").read_text())


def digest(root):
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def even(length):
    return length + length % 2


# ---- the whole tree


def test_the_same_arguments_give_identical_bytes(tmp_path, tree):
    synth.write_tree(tmp_path, 24, small=True, seed=3)
    assert digest(tmp_path) == digest(tree)


def test_more_readings_leave_the_earlier_ones_as_they_are(tmp_path, truth):
    path = synth.write_tree(tmp_path, 12, small=True, seed=3)
    assert json.loads(path.read_text())["readings"] == truth[:12]


def test_another_seed_gives_other_readings(tmp_path, truth):
    path = synth.write_tree(tmp_path, 2, small=True, seed=4)
    assert json.loads(path.read_text())["readings"][0]["tokens"] != truth[0]["tokens"]


def test_progress_is_called_once_for_each_reading(tmp_path):
    calls = []
    path = synth.write_tree(tmp_path / "new" / "folder", 3, small=True, progress=calls.append)
    assert calls == [1, 1, 1]
    assert path == tmp_path / "new" / "folder" / "PHANTOM-truth.json"


@pytest.mark.parametrize("readings", [2, 9, 10, 12, 21, 22, 24])
def test_both_datasets_appear_and_rejects_stay_below_a_tenth(readings):
    from egma_prep.synth.readings import plan_readings

    plan = plan_readings(readings, small=True, seed=0)
    rejects = [r for r in plan if r.reject]
    assert {r.dataset for r in plan} == {"reflacx", "eye_gaze"}
    assert len(rejects) <= readings / 10
    assert readings >= 10 or not rejects


def test_ids_lie_outside_the_real_ranges_and_are_well_formed(truth):
    for r in truth:
        assert r["subject_id"].startswith("90") and len(r["subject_id"]) == 8
        assert r["study_id"].startswith("9") and len(r["study_id"]) == 8
        groups = r["dicom_id"].split("-")
        assert [len(g) for g in groups] == [8] * 5
        assert not set("".join(groups)) - set("0123456789abcdef")
    assert len({(r["dataset"], r["reading_id"]) for r in truth}) == len(truth)


def test_subjects_keep_to_one_split_and_all_splits_appear(truth):
    split_of = {}
    for r in truth:
        assert split_of.setdefault(r["subject_id"], r["split"]) == r["split"]
    assert set(split_of.values()) == {"train", "validate", "test"}


def test_everything_says_that_it_is_invented(tree):
    assert (tree / "PHANTOM.txt").read_text().count("\n") == 2
    reports = list(tree.glob("patient_*/CXR-DICOM/s*.txt"))
    assert reports and all("PHANTOM" in p.read_text().splitlines()[0] for p in reports)


def test_no_module_imports_the_rest_of_the_package():
    for path in Path(synth.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", [])]
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2, path
                names.append(node.module or "") if node.level == 0 else None
            elif not isinstance(node, ast.Import):
                continue
            assert not any(name.split(".")[0] == "egma_prep" for name in names), path


# ---- formats


def test_headers_are_the_published_ones(tree, truth):
    expected = {
        "CXR-JPG/cxr_meta.csv": CXR_META,
        "CXR-JPG/cxr_chexpert.csv": CHEXPERT,
        "CXR-JPG/cxr_negbio.csv": CHEXPERT,
        "CXR-JPG/cxr_split.csv": ",dicom_id,study_id,subject_id,split",
        "REFLACX/metadata.csv": REFLACX_METADATA,
        "EyeGaze/master_sheet.csv": MASTER_SHEET,
        "EyeGaze/fixations.csv": GAZEPOINT,
        "EyeGaze/eye_gaze.csv": GAZEPOINT,
        "EyeGaze/bounding_boxes.csv": ",dicom_id,bbox_name,x1,x2,y1,y2",
    }
    for name, header in expected.items():
        paths = list(tree.glob(f"patient_*/{name}"))
        assert paths and {header_of(p) for p in paths} == {header}, name
    for r in usable(truth, "reflacx"):
        folder = main_data(tree, r)
        labels = PHASE_1 if r["reading_id"][1] == "1" else PHASE_2
        assert header_of(folder / "fixations.csv") == REFLACX_FIXATIONS
        words = header_of(folder / "timestamps_transcription.csv")
        assert words == "word,timestamp_start_word,timestamp_end_word"
        ellipses = header_of(folder / "anomaly_location_ellipses.csv")
        assert ellipses == f"xmin,ymin,xmax,ymax,certainty,{labels}"
        assert header_of(folder / "chest_bounding_box.csv") == "xmin,ymin,xmax,ymax"
        samples = folder.parents[1] / "gaze_data" / r["reading_id"] / "gaze.csv"
        assert header_of(samples) == "timestamp_sample," + REFLACX_FIXATIONS.split(",", 2)[2]


def test_all_spreadsheets_are_there_and_eye_gaze_is_the_fixation_table(tree):
    folder = tree / "spreadsheets"
    names = {str(p.relative_to(folder)) for p in folder.rglob("*.csv")}
    assert names == {
        "cxr_meta.csv", "cxr_meta_with_stay_id_only.csv", "CXR-JPG/cxr_chexpert.csv",
        "CXR-JPG/cxr_negbio.csv", "CXR-JPG/cxr_split.csv", "REFLACX/metadata.csv",
        "EyeGaze/bounding_boxes.csv", "EyeGaze/eye_gaze.csv", "EyeGaze/fixations.csv",
        "EyeGaze/master_sheet_with_updated_stayId.csv",
    }  # fmt: skip
    fixations = (folder / "EyeGaze" / "fixations.csv").read_bytes()
    assert (folder / "EyeGaze" / "eye_gaze.csv").read_bytes() == fixations


def test_line_ends_are_mixed_as_in_the_published_tree(tree, truth):
    for r in usable(truth, "reflacx"):
        assert b"\r\n" in (main_data(tree, r) / "fixations.csv").read_bytes()
        assert b"\n" not in (main_data(tree, r) / "transcription.txt").read_bytes()
    tables = [p.read_bytes() for p in tree.glob("patient_*/*/*.csv")]
    assert len({b"\r\n" in t for t in tables}) == 2


def test_index_columns_do_not_count_from_zero(tree):
    for name in ("cxr_meta", "cxr_split", "cxr_chexpert"):
        for path in tree.glob(f"patient_*/CXR-JPG/{name}.csv"):
            index = [int(r[""]) for r in rows_of(path)]
            assert index and index != list(range(len(index)))


# ---- images


def test_images_decode_at_the_stated_size(tree, truth):
    for r in truth:
        data = np.fromfile(tree / r["image"], np.uint8)
        assert cv2.imdecode(data, cv2.IMREAD_UNCHANGED).shape == (r["height"], r["width"])
        assert data[-2:].tobytes() == b"\xff\xd9"
    assert any(r["width"] % 2 for r in truth) and any(r["height"] % 2 for r in truth)
    assert any(r["width"] == r["height"] for r in truth)


def test_a_full_size_image_is_as_heavy_as_a_real_one(tmp_path):
    path = synth.write_tree(tmp_path, 1)
    (reading,) = json.loads(path.read_text())["readings"]
    assert (reading["width"], reading["height"]) == (2544, 3056)
    assert 1.5e6 < (tmp_path / reading["image"]).stat().st_size < 2.8e6


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(424, 509), (1273, 1529)])
def test_a_planted_finding_shows_and_stays_inside_its_ellipse(kind, size):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        chest = draw_chest_place(*size, rng)
        finding = draw_finding(chest, rng, kind)
        change = cv2.absdiff(draw_xray(chest, (finding,)), draw_xray(chest, ()))
        x0, y0, x1, y1 = finding.ellipse
        rows, columns = np.mgrid[: size[1], : size[0]]
        a = (columns - (x0 + x1) / 2) / ((x1 - x0) / 2)
        b = (rows - (y0 + y1) / 2) / ((y1 - y0) / 2)
        inside = a**2 + b**2 <= 1
        assert change[~inside].max() == 0
        # A twelfth of the ellipse differs by 25 grey levels: seen at a glance.
        assert (change[inside] > 25).mean() > 1 / 12


def test_the_burnt_in_word_is_the_same_whatever_is_found():
    pictures = []
    for seed in (1, 2):
        rng = np.random.default_rng(seed)
        chest = draw_chest_place(341, 341, rng)
        corner = draw_xray(chest, (draw_finding(chest, rng, "consolidation"),))[4:18, 6:60]
        pictures.append(corner > 200)
    assert pictures[0].any() and (pictures[0] == pictures[1]).mean() > 0.98


# ---- truth against the files


def test_reflacx_truth_has_the_values_of_the_files(tree, truth):
    for r in usable(truth, "reflacx"):
        words = rows_of(main_data(tree, r) / "timestamps_transcription.csv")
        stated = [(t["text"], t["begin"], t["end"]) for t in r["tokens"]]
        assert stated == [tuple(map(_number, row.values())) for row in words]
        fixations = fixation_rows(tree, r)
        stated = [(f["begin"], f["end"], f["x"], f["y"]) for f in r["fixations"]]
        assert stated == [tuple(float(v) for v in list(row.values())[:4]) for row in fixations]
        text = (main_data(tree, r) / "transcription.txt").read_text()
        spaced = text.replace(".", " .").replace(",", " ,").replace("/", " / ")
        assert spaced == " ".join(t["text"] for t in r["tokens"])
        assert text == " ".join(s["text"] for s in r["sentences"])


def _number(text):
    try:
        return float(text) if text[0].isdigit() and "." in text else text
    except ValueError:
        return text


def test_eye_gaze_truth_has_the_values_of_the_files(tree, truth):
    for r in usable(truth, "eye_gaze"):
        kept = [row for row in fixation_rows(tree, r) if row["FPOGV"] == "1"]
        assert len(kept) == len(r["fixations"])
        for f, row in zip(r["fixations"], kept, strict=True):
            begin, x = float(row["FPOGS"]), int(row["X_ORIGINAL"])
            assert (f["begin"], f["end"]) == (begin, begin + float(row["FPOGD"]))
            assert float(row["Time (in secs)"]) == pytest.approx(f["end"], abs=1e-9)
            assert f["x"] == (x - 1 if x == r["width"] else x)
        words = []
        for p in transcript(tree, r)["time_stamped_text"]:
            begin, letters = p["begin_time"], len(p["phrase"].replace(" ", ""))
            for word in p["phrase"].split(" "):
                end = begin + (p["end_time"] - p["begin_time"]) * len(word) / letters
                words.append((word, pytest.approx(begin), pytest.approx(end)))
                begin = end
        assert words == [(t["text"], t["begin"], t["end"]) for t in r["tokens"]]


def test_eye_gaze_places_follow_from_the_screen_by_the_published_mapping(tree, truth):
    for r in (r for r in truth if r["dataset"] == "eye_gaze"):
        (sheet,) = [
            row
            for row in rows_of(patient(tree, r) / "EyeGaze" / "master_sheet.csv")
            if row["dicom_id"] == r["dicom_id"]
        ]
        top, bottom, left, right = (
            int(sheet[f"image_{side}_pad"]) for side in ("top", "bottom", "left", "right")
        )
        assert top + bottom == 0 or r["width"] > r["height"]
        scale_x = even(r["width"]) / (1920 - left - right)
        scale_y = even(r["height"]) / (1080 - top - bottom)
        for row in fixation_rows(tree, r):
            x, y = float(row["FPOGX"]) * 1920, float(row["FPOGY"]) * 1080
            place = int(row["X_ORIGINAL"]), int(row["Y_ORIGINAL"])
            if left < x < 1920 - right and top < y < 1080 - bottom:
                assert place == (int(scale_x * (x - left)), int(scale_y * (y - top)))
            else:
                assert max(place) < 0


def test_full_size_pads_are_those_of_the_published_canvas():
    from egma_prep.synth.gaze import eye_gaze_pads, reflacx_screen

    assert eye_gaze_pads(2544, 3056) == (0, 0, 534, 534)
    assert eye_gaze_pads(3056, 2544) == (86, 86, 448, 448)
    scale, left, top = reflacx_screen(2544, 3056)
    assert (round(left), round(left + 2544 * scale), top) == (1021, 2819, 0)


def test_sentences_cover_every_token_once_and_in_order(truth):
    for r in truth:
        covered = []
        for number, s in enumerate(r["sentences"]):
            members = range(s["first_token"], s["last_token"] + 1)
            covered += members
            assert {r["tokens"][k]["sentence"] for k in members} == {number}
            assert s["begin"] == r["tokens"][members[0]]["begin"]
            assert s["end"] == r["tokens"][members[-1]]["end"]
        assert covered == list(range(len(r["tokens"])))
        assert r["reject"] or 3 <= len(r["sentences"]) <= 9


def test_alignment_is_every_positive_overlap(truth):
    for r in truth:
        begins = np.array([t["begin"] for t in r["tokens"]])[:, None]
        ends = np.array([t["end"] for t in r["tokens"]])[:, None]
        starts = np.array([f["begin"] for f in r["fixations"]])
        stops = np.array([f["end"] for f in r["fixations"]])
        shared = np.minimum(ends, stops) - np.maximum(begins, starts)
        dense = np.zeros(shared.shape)
        for t, f, seconds in r["alignment"]:
            dense[t, f] = seconds
        assert np.array_equal(dense, np.maximum(shared, 0))
        on_image = np.array([f["on_image"] for f in r["fixations"]], bool)
        for s in r["sentences"]:
            shared = np.minimum(s["end"], stops) - np.maximum(s["begin"], starts)
            assert s["gaze_seconds"] == pytest.approx(np.maximum(shared, 0)[on_image].sum())


def test_fixations_are_sorted_and_never_overlap(truth):
    for r in truth:
        for before, after in zip(r["fixations"], r["fixations"][1:], strict=False):
            assert before["begin"] < before["end"] <= after["begin"]
        for f in r["fixations"]:
            inside = 0 <= f["x"] < r["width"] and 0 <= f["y"] < r["height"]
            assert f["on_image"] == inside


def test_gaze_rests_on_what_is_spoken_of(truth):
    during, overall = [], []
    for r in truth:
        if "off_image" in r["quirks"]:
            continue
        margin = 0.05 * min(r["width"], r["height"])
        for s in (s for s in r["sentences"] if s["target_box"]):
            x0, y0, x1, y1 = s["target_box"]
            weights, hits = [], []
            for f in (f for f in r["fixations"] if f["on_image"]):
                weights.append(max(0, min(f["end"], s["end"]) - max(f["begin"], s["begin"])))
                inside_x = x0 - margin <= f["x"] <= x1 + margin
                hits.append(inside_x and y0 - margin <= f["y"] <= y1 + margin)
            if sum(weights):
                during.append(np.average(hits, weights=weights))
                overall.append(np.mean(hits))
    assert np.mean(during) > 0.75
    assert np.mean(overall) < 0.4


def test_speech_is_paced_like_dictation(truth):
    for r in (r for r in truth if not r["reject"]):
        words = [t for t in r["tokens"] if t["text"] not in ".,/"]
        assert 15 <= len(words) <= 80
        spoken = sum(t["end"] - t["begin"] for t in r["tokens"])
        assert 0.3 <= 1 - spoken / r["fixations"][-1]["end"] <= 0.62
        assert r["tokens"][0]["begin"] >= 1
        assert r["fixations"][0]["begin"] < r["tokens"][0]["begin"]
        assert r["fixations"][-1]["end"] > r["tokens"][-1]["end"]


def test_ellipses_and_labels_agree_with_what_was_planted(tree, truth):
    for r in usable(truth, "reflacx"):
        ellipses = rows_of(main_data(tree, r) / "anomaly_location_ellipses.csv")
        drawn = [f for f in r["findings"] if f["name"] != "Support devices"]
        assert len(ellipses) == len(drawn)
        for finding, row in zip(drawn, ellipses, strict=True):
            xs = sorted((int(row["xmin"]), int(row["xmax"])))
            assert [xs[0], int(row["ymin"]), xs[1], int(row["ymax"])] == finding["ellipse"]
            assert row[finding["name"]] == "True" and 1 <= int(row["certainty"]) <= 5
        metadata = rows_of(patient(tree, r) / "REFLACX" / "metadata.csv")
        (row,) = [m for m in metadata if m["id"] == r["reading_id"]]
        for finding in drawn:
            assert float(row[finding["name"]]) >= 3
        assert (row["image_size_x"], row["image_size_y"]) == (str(r["width"]), str(r["height"]))


def test_chexpert_labels_follow_the_findings(tree, truth):
    column = {"Nodule": "Lung Lesion", "Lung nodule or mass": "Lung Lesion",
              "Pneumothorax": "Pneumothorax", "Consolidation": "Consolidation",
              "Pleural effusion": "Pleural Effusion", "Pleural abnormality": "Pleural Effusion",
              "Enlarged cardiac silhouette": "Cardiomegaly"}  # fmt: skip
    for r in truth:
        table = rows_of(patient(tree, r) / "CXR-JPG" / "cxr_chexpert.csv")
        (row,) = [c for c in table if c["study_id"] == r["study_id"]]
        assert {*row.values()} - {r["subject_id"], r["study_id"], row[""]} <= {
            "1.0", "0.0", "-1.0", ""
        }  # fmt: skip
        assert (row["No Finding"] == "1.0") == (not r["findings"])
        for f in r["findings"]:
            assert row[column[f["name"]]] == "1.0" if f["name"] in column else True


# ---- every quirk appears at 24 readings


def test_discarded_readings_leave_two_files_and_an_empty_gaze_folder(tree, truth):
    discarded = [r for r in truth if r["reject"] == "discarded"]
    assert discarded and all(r["reading_id"][1] in "12" for r in discarded)
    for r in discarded:
        left = {p.name for p in main_data(tree, r).glob("*.csv")}
        assert left == {"anomaly_location_ellipses.csv", "chest_bounding_box.csv"}
        samples = patient(tree, r) / "REFLACX" / "gaze_data" / r["reading_id"]
        assert samples.is_dir() and not list(samples.iterdir())
        metadata = rows_of(patient(tree, r) / "REFLACX" / "metadata.csv")
        (row,) = [m for m in metadata if m["id"] == r["reading_id"]]
        assert row["eye_tracking_data_discarded"] == "True"


def test_an_empty_transcript_is_a_reject(tree, truth):
    (empty,) = [r for r in truth if r["reject"] == "empty_transcript"]
    content = transcript(tree, empty)
    assert content["time_stamped_text"] == [] and content["full_text"]
    assert empty["fixations"] and not empty["tokens"]


def test_images_are_shared_by_readers_patients_and_datasets(tree, truth):
    readers, datasets, studies = {}, {}, {}
    for r in truth:
        readers.setdefault(r["dicom_id"], []).append(r["reading_id"])
        datasets.setdefault(r["dicom_id"], set()).add(r["dataset"])
        studies.setdefault(r["subject_id"], set()).add(r["study_id"])
    assert max(map(len, readers.values())) == 5
    assert any(len(d) == 2 for d in datasets.values())
    assert any(len(s) > 1 for s in studies.values())
    flags = [
        (r["in_eye_gaze"], r["in_reflacx"]) for r in rows_of(tree / "spreadsheets/cxr_meta.csv")
    ]
    assert {*flags} == {("True", "True"), ("True", "False"), ("False", "True")}


def test_odd_ellipses_and_chest_boxes_appear(tree, truth):
    swapped = two = empty = outside = 0
    for r in truth:
        if r["dataset"] != "reflacx":
            continue
        ellipses = rows_of(main_data(tree, r) / "anomaly_location_ellipses.csv")
        swapped += any(int(e["xmin"]) > int(e["xmax"]) for e in ellipses)
        two += any(list(e.values()).count("True") == 2 for e in ellipses)
        empty += not ellipses
        (box,) = rows_of(main_data(tree, r) / "chest_bounding_box.csv")
        outside += int(box["xmin"]) < 0 and int(box["ymax"]) > r["height"]
    assert swapped and two and empty and outside


def test_reflacx_token_quirks_appear(truth):
    texts = [[t["text"] for t in r["tokens"]] for r in usable(truth, "reflacx")]
    for sign in (".", ",", "/", "none"):
        assert any(sign in words for words in texts), sign
    assert any(words[k : k + 3] == ["1", ".5", "cm"] for words in texts for k in range(len(words)))
    assert any(words[-1] != "." and "." in words for words in texts)
    assert any(s["text"].endswith("and/or edema.") for r in truth for s in r["sentences"])
    (squeezed,) = with_quirk(truth, "zero_length")
    zero = [t["begin"] for t in squeezed["tokens"] if t["begin"] == t["end"]]
    assert len(zero) == 3 and len(set(zero)) == 1


def test_a_transcript_without_punctuation_is_cut_at_its_pauses(truth):
    (r,) = with_quirk(truth, "no_punctuation")
    assert not {".", ",", "/"} & {t["text"] for t in r["tokens"]}
    for before, after in zip(r["tokens"], r["tokens"][1:], strict=False):
        pause = after["begin"] - before["end"]
        assert pause >= 0.8 if after["sentence"] != before["sentence"] else pause < 0.5


def test_eye_gaze_transcript_quirks_appear(tree, truth):
    readings = usable(truth, "eye_gaze")
    phrases = [p["phrase"] for r in readings for p in transcript(tree, r)["time_stamped_text"]]
    assert any(". " in p for p in phrases)
    assert any("1.5 cm" in p for p in phrases) and any("vs." in p.split() for p in phrases)
    assert any(not r["tokens"][-1]["text"].endswith(".") for r in readings)
    text = json.dumps([transcript(tree, r) for r in readings])
    assert "00000000000" in text  # binary noise of tenths
    for r in readings:
        sentence_ends = [t for t in r["tokens"] if t["text"].endswith(".") and t["text"] != "vs."]
        assert len(sentence_ends) in (len(r["sentences"]), len(r["sentences"]) - 1)


def test_gaze_quirks_appear(tree, truth):
    silent = [r for r in truth if any(s["gaze_seconds"] == 0 for s in r["sentences"])]
    assert any(any(f["on_image"] for f in r["fixations"]) for r in silent)
    assert any(r["fixations"] and not any(f["on_image"] for f in r["fixations"]) for r in silent)
    for r in usable(truth, "reflacx"):
        assert r["fixations"][-1]["x"] < 0  # the Next button
        for row in fixation_rows(tree, r):
            assert int(row["xmin_shown_from_image"]) >= 0
            assert int(row["ymax_shown_from_image"]) <= r["height"]
    for r in with_quirk(truth, "zoomed"):
        per_deg = set()
        for row in fixation_rows(tree, r):
            across = int(row["xmax_shown_from_image"]) - int(row["xmin_shown_from_image"])
            zoom = r["width"] / across
            per_deg.add((zoom > 1.5, int(row["angular_resolution_x_pixels_per_degree"]) * zoom))
        assert {zoomed for zoomed, _ in per_deg} == {False, True}
        values = [value for _, value in per_deg]
        assert max(values) == pytest.approx(min(values), rel=0.3)  # ints, and few of them
    rows = [row for r in usable(truth, "eye_gaze") for row in fixation_rows(tree, r)]
    assert {row["FPOGV"] for row in rows} == {"0", "1"}
    assert {-2, -3} & {int(row["X_ORIGINAL"]) for row in rows}
    (edge,) = with_quirk(truth, "edge_column")
    assert any(int(row["X_ORIGINAL"]) == edge["width"] for row in fixation_rows(tree, edge))
    assert all(int(fixation_rows(tree, r)[0]["FPOGID"]) > 1 for r in usable(truth, "eye_gaze"))


def test_calibration_rows_reach_the_spreadsheet_but_no_patient(tree):
    ids = {len(r["DICOM_ID"]) for r in rows_of(tree / "spreadsheets/EyeGaze/fixations.csv")}
    assert ids == {39, 44}
    for path in tree.glob("patient_*/EyeGaze/*.csv"):
        column = "dicom_id" if "DICOM_ID" not in header_of(path) else "DICOM_ID"
        assert {len(r[column]) for r in rows_of(path)} == {44}


def test_metadata_has_float_text_and_blanks_after_the_concatenation(tree):
    table = rows_of(tree / "spreadsheets/REFLACX/metadata.csv")
    assert {r["id"][1] for r in table} == {"1", "2", "3"}
    for r in table:
        asked_once, other = ("Nodule", "Lung nodule or mass")
        if r["id"][1] != "1":
            asked_once, other = other, asked_once
        assert r[asked_once].endswith(".0") and r[other] == ""
    assert sorted({int(r[""]) for r in table})[0] == 0 and len({r[""] for r in table}) < len(table)


def test_master_sheet_has_newlines_commas_and_quotes_in_a_cell(tree):
    rows = rows_of(tree / "spreadsheets/EyeGaze/master_sheet_with_updated_stayId.csv")
    assert all({"\n", ",", '"'} <= set(r["cxr_exam_indication"]) for r in rows)
    for r in rows:
        assert sum(int(r[c]) for c in ("Normal", "CHF", "pneumonia")) == 1
    assert {r["Normal"] for r in rows} == {"0", "1"}
    assert len({r["stay_id"].isdigit() for r in rows}) == 2


def test_boxes_are_float_text_in_their_own_column_order(tree, truth):
    counts = {}
    for r in rows_of(tree / "spreadsheets/EyeGaze/bounding_boxes.csv"):
        counts[r["dicom_id"]] = counts.get(r["dicom_id"], 0) + 1
        assert all(r[c].endswith(".0") for c in ("x1", "x2", "y1", "y2"))
        assert float(r["x1"]) < float(r["x2"]) and float(r["y1"]) < float(r["y2"])
    assert all(5 <= c <= 17 for c in counts.values())


def test_folders_hold_litter_laterals_and_studies_without_image(tree, truth):
    for pattern in ("", "/REFLACX/main_data", "/REFLACX/main_data/*",
                    "/EyeGaze/audio_segmentation_transcripts/*"):  # fmt: skip
        assert list(tree.glob(f"patient_*{pattern}/index.html")), pattern
    assert list(tree.glob("**/.DS_Store"))
    gazed = {r["dicom_id"] for r in truth}
    assert {p.stem for p in tree.glob("patient_*/CXR-JPG/s*/*.jpg")} - gazed
    for name in ("cxr_split", "cxr_chexpert"):
        studies = [r["study_id"] for p in tree.glob(f"**/{name}.csv") for r in rows_of(p)]
        assert set(studies) - {r["study_id"] for r in truth}


def test_masks_have_the_size_of_their_image(tree, truth):
    for r in (r for r in truth if r["dataset"] == "eye_gaze"):
        folder = patient(tree, r) / "EyeGaze" / "audio_segmentation_transcripts" / r["dicom_id"]
        for name in ("aortic_knob", "left_lung", "right_lung", "mediastanum"):
            mask = cv2.imread(str(folder / f"{name}.png"), cv2.IMREAD_UNCHANGED)
            assert mask.shape == (r["height"], r["width"]) and mask.any()


def test_samples_of_the_eye_are_few_and_blank_in_blinks(tree, truth):
    for r in usable(truth, "reflacx"):
        samples = rows_of(patient(tree, r) / "REFLACX/gaze_data" / r["reading_id"] / "gaze.csv")
        assert 50 < len(samples) <= 200
        assert any(s["x_position"] == "" and s["xmin_shown_from_image"] for s in samples)
    for r in usable(truth, "eye_gaze"):
        table = rows_of(patient(tree, r) / "EyeGaze" / "eye_gaze.csv")
        assert 0 < sum(s["DICOM_ID"] == r["dicom_id"] for s in table) <= 100


def test_a_tree_that_was_cut_is_named_as_one(tmp_path: Path) -> None:
    def cut(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synth.write_tree(tmp_path / "tree", 6, small=True, progress=cut)
    result = egma_prep("synth", tmp_path / "tree", "--readings", 6, "--small")
    assert result.exit_code == 2
    assert "is a phantom tree that is being written or was cut; if nobody" in result.stderr
    synth.write_tree(tmp_path / "whole", 6, small=True, checksums=True)
    assert not list(tmp_path.glob("whole/**/*unfinished*"))
    assert "unfinished" not in (tmp_path / "whole" / "SHA256SUMS.txt").read_text()
