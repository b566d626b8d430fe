"""Zero-shot classification: protocols, class names, unreadable images, the command."""

import csv
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import invoked
from evaluation import (
    SMALL,
    OracleEncoder,
    RandomEncoder,
    egma_eval,
    picture,
    save_tiny_model,
    write_picture,
    written,
)
from numpy.typing import NDArray
from sklearn.metrics import f1_score

from egma_train.cli import main as egma_train
from egma_train.errors import BadUsageError
from egma_train.evaluate.checkpoints import load_encoder, model_hash
from egma_train.evaluate.datasets.image_lists import ImageList, read_csv
from egma_train.evaluate.datasets.prompts import Prompts, read_prompts, shipped_prompts
from egma_train.evaluate.images.frames import read_frame
from egma_train.evaluate.reports import read_rows
from egma_train.evaluate.zero_shot import PROTOCOLS, class_scores, log_shares, zero_shot

CLASSES = ("No Finding", "Pneumonia", "Pneumothorax")


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> tuple[ImageList, list[Path]]:
    """60 images whose grey level tells their class, and noise, so that no two are equal."""
    root = tmp_path_factory.mktemp("images")
    labels = np.random.default_rng(5).permutation(np.arange(60) % 3)
    for i, label in enumerate(labels):
        pixels = picture(int(label))
        pixels[:5] = np.random.default_rng(i).integers(0, 255, (5, 60))
        write_picture(root / f"{i}.png", pixels)
    ids = tuple(f"{i}.png" for i in range(60))
    return ImageList("made", CLASSES, ids, labels), [root / one for one in ids]


def reordered(prompts: Prompts, reverse: bool) -> Prompts:
    return Prompts(prompts.name, dict(sorted(prompts.queries.items(), reverse=reverse)))


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("score", ["pooled", "best-patch"])
@pytest.mark.parametrize("reverse", [False, True])
def test_an_oracle_is_always_right_whatever_the_order_of_the_prompts(
    listed: tuple[ImageList, list[Path]], protocol: str, score: str, reverse: bool
) -> None:
    prompts = reordered(shipped_prompts("8x200"), reverse)
    encoder = OracleEncoder(prompts.queries, CLASSES)
    report = zero_shot(*listed, prompts, encoder, protocol=protocol, score=score)
    figures = report["metrics"]
    assert [figures[name]["value"] for name in figures] == [1.0] * 4
    assert report["confusion"]["rows_are_truth"] == [[20, 0, 0], [0, 20, 0], [0, 0, 20]]
    assert report["recall"] == dict.fromkeys(CLASSES, 1.0)


def test_a_random_model_is_at_chance_within_its_interval(
    listed: tuple[ImageList, list[Path]],
) -> None:
    prompts = shipped_prompts("8x200")
    report = zero_shot(*listed, prompts, RandomEncoder(prompts.queries, CLASSES))
    assert report["chance"] == 1 / 3
    for name, chance in (("accuracy", 1 / 3), ("balanced_accuracy", 1 / 3), ("auroc", 1 / 2)):
        figure = report["metrics"][name]
        assert figure["low"] < chance < figure["high"]
        assert figure["high"] - figure["low"] < 0.4


class Plane(OracleEncoder):
    """Sees every image at angle 0 and texts at the angle that they say."""

    def texts(self, texts: Sequence[str], *, unit: bool = True) -> torch.Tensor:
        angles = torch.tensor([float(text) for text in texts]).deg2rad()
        return torch.stack([angles.cos(), angles.sin()], dim=1)

    def images(self, frames: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
        pooled = self.texts(["0"] * len(frames))
        return pooled, pooled[:, None]


@pytest.mark.parametrize(("protocol", "wins"), [("paper", "A"), ("mean", "B")])
def test_a_class_is_its_best_prompt_by_default_and_its_mean_prompt_if_asked(
    tmp_path: Path, protocol: str, wins: str
) -> None:
    prompts = Prompts("made", {"A": ("0", "90"), "B": ("30",)})  # A's mean is at 45 degrees
    images = ImageList("made", ("A", "B"), ("x.png",), np.array([0]))
    write_picture(tmp_path / "x.png", picture(0))
    plane = Plane(prompts.queries, ("A", "B"))
    report = zero_shot(images, [tmp_path / "x.png"], prompts, plane, protocol=protocol)
    assert report["rows"][0]["predicted"] == wins


def gloria(cosines: dict[str, NDArray[np.float64]]) -> list[str]:
    """GLoRIA's rule in words of our own: the best prompt, then each class in deviations."""
    best = pd.DataFrame({name: own.max(axis=1) for name, own in cosines.items()})
    if len(best) > 1:
        best = (best - best.mean()) / best.std(ddof=0)
    return best.idxmax(axis=1).tolist()


def medclip(cosines: dict[str, NDArray[np.float64]]) -> list[str]:
    """MedCLIP's rule in words of our own: the mean logit over a class's prompts."""
    logits = [torch.from_numpy(own).mul(1 / 0.07).mean(dim=1) for own in cosines.values()]
    return [[*cosines][int(i)] for i in torch.stack(logits, dim=1).argmax(dim=1)]


def cxr_clip(cosines: dict[str, NDArray[np.float64]]) -> list[str]:
    """CXR-CLIP's rule in words of our own: an image's mean similarity to a class's prompts."""
    n = len(next(iter(cosines.values())))
    means = [{name: float(np.mean(own[i])) for name, own in cosines.items()} for i in range(n)]
    return [max(one, key=one.__getitem__) for one in means]


@pytest.mark.parametrize(
    ("protocol", "published"),
    [("gloria-z", gloria), ("mean-of-cosines", medclip), ("mean-of-cosines", cxr_clip)],
    ids=["GLoRIA", "MedCLIP", "CXR-CLIP"],
)
@pytest.mark.parametrize("count", [60, 1])
def test_a_protocol_by_name_answers_as_the_published_rule(
    listed: tuple[ImageList, list[Path]],
    protocol: str,
    published: Callable[[dict[str, NDArray[np.float64]]], list[str]],
    count: int,
) -> None:
    images, paths = listed[0].only(range(count)), listed[1][:count]
    queries = {
        name: tuple(f"{name} {i}" for i in range(2 + 5 * k)) for k, name in enumerate(CLASSES)
    }
    encoder = RandomEncoder({}, ())
    seen = encoder.images(np.stack([read_frame(path) for path in paths]))[0].double()
    cosines = {
        name: (seen @ encoder.texts(own).double().T).numpy() for name, own in queries.items()
    }
    report = zero_shot(images, paths, Prompts("made", queries), encoder, protocol=protocol)
    predicted = [row["predicted"] for row in report["rows"]]
    assert predicted == published(cosines)
    plain = zero_shot(images, paths, Prompts("made", queries), encoder)
    assert count == 1 or predicted != [row["predicted"] for row in plain["rows"]]


def test_a_class_that_no_image_is_nearer_to_than_another_has_no_deviation() -> None:
    cosines = np.array([[0.5, 0.1, 0.3], [0.5, 0.3, 0.1]])
    found = class_scores(cosines, [1, 2], "gloria-z")
    assert found.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_what_always_answering_the_commonest_class_gets_stands_beside_accuracy(
    listed: tuple[ImageList, list[Path]],
) -> None:
    kept = [i for i, label in enumerate(listed[0].labels) if label < 2 and (label or i % 2)]
    images, paths = listed[0].only(kept), [listed[1][i] for i in kept]
    share = np.mean(images.labels == 1)
    report = zero_shot(images, paths, shipped_prompts("8x200"), RandomEncoder({}, ()))
    assert report["majority"] == {
        "class": "Pneumonia",
        "accuracy": pytest.approx(share),
        "balanced_accuracy": pytest.approx(1 / 2),
        "macro_f1": pytest.approx(f1_score(images.labels, np.ones(len(kept)), average="macro")),
    }


def test_the_published_sampling_draws_50_of_each_class_and_repeats_itself() -> None:
    prompts = Prompts("made", {"A": tuple(map(str, range(60))), "B": ("b",)})
    drawn = prompts.sampled(3)
    assert len(set(drawn.queries["A"])) == 50 and drawn.queries["B"] == ("b",)
    assert drawn.sha256 == prompts.sampled(3).sha256 != prompts.sampled(4).sha256


def test_table_v_and_vi_have_the_printed_numbers_of_queries() -> None:
    counts = {name: len(q) for name, q in shipped_prompts("5x200").queries.items()}
    assert (counts["Atelectasis"], counts["Consolidation"], counts["Pleural Effusion"]) == (
        2 * 6 * 5, 3 * 5 * 5, 2 * 3 * 3,
    )  # fmt: skip
    assert (
        "mild linear atelectasis at the lung bases"
        in (shipped_prompts("5x200").queries["Atelectasis"])
    )
    assert {len(q) for q in shipped_prompts("8x200").queries.values()} == {5}
    assert len(shipped_prompts("8x200").queries) == 8


def test_prompts_are_read_from_json_with_blank_parts_and_from_the_published_csv(
    tmp_path: Path,
) -> None:
    (tmp_path / "own.json").write_text(
        json.dumps({"Edema": {"severity": ["", "mild"], "subtype": ["edema"]}, "Fracture": ["one"]})
    )
    assert read_prompts(tmp_path / "own.json").queries == {
        "Edema": ("edema", "mild edema"),
        "Fracture": ("one",),
    }
    (tmp_path / "query.csv").write_text('Variable,Text\nEdema,"Mild, it is."\nEdema,Other.\n')
    assert read_prompts(tmp_path / "query.csv").queries == {"Edema": ("Mild, it is.", "Other.")}


@pytest.mark.parametrize("blank", [[""], ["  "], {"severity": [""], "finding": [" "]}])
def test_a_prompt_that_says_nothing_is_refused(blank: Any, tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps({"A": blank, "B": ["no edema"]}))
    with pytest.raises(BadUsageError, match="a query is no blank text"):
        read_prompts(tmp_path / "own.json")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("models") / "untrained")


@pytest.fixture
def own_csv(listed: tuple[ImageList, list[Path]], tmp_path: Path) -> Path:
    images, paths = listed
    path = tmp_path / "own.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label"])
        rows.writerows([p.name, CLASSES[c]] for p, c in zip(paths, images.labels, strict=True))
    return path


def test_the_command_classifies_a_list_of_ones_own(
    listed: tuple[ImageList, list[Path]], own_csv: Path, model: Path, tmp_path: Path
) -> None:
    root = listed[1][0].parent
    call = ("zero-shot", "--task", "csv", "--images", root, "--labels", own_csv, "--out", tmp_path)
    result = egma_eval(*call, model)
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-csv").read_text())
    assert report["evaluated"]["counts"] == dict.fromkeys(CLASSES, 20)
    assert report["evaluated"]["sha256"] == read_csv(own_csv).sha256 and not report["unreadable"]
    again = json.loads(json.dumps(report))
    assert egma_eval(*call, model).exit_code == 0
    assert json.loads(written(tmp_path, "zero-shot-csv").read_text()) == again
    with written(tmp_path, "zero-shot-csv", ".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    hits = np.mean([row["label"] == row["predicted"] for row in rows])
    assert hits == pytest.approx(report["metrics"]["accuracy"]["value"])
    best = [max(CLASSES, key=lambda c: float(row[f"score {c}"])) for row in rows]
    assert best == [row["predicted"] for row in rows]


def test_reports_of_other_protocols_prompts_and_models_stand_beside_each_other(
    listed: tuple[ImageList, list[Path]], own_csv: Path, model: Path, tmp_path: Path
) -> None:
    root = listed[1][0].parent
    call = ("zero-shot", "--task", "csv", "--images", root, "--labels", own_csv, "--out", tmp_path)
    (tmp_path / "first.txt").write_text("\n".join(f"{i}.png" for i in range(40)))
    queries = [f'"{name}" = ["{name} is seen"]' for name in (*CLASSES, "Nothing of this")]
    (tmp_path / "own.toml").write_text("\n".join(queries))
    same_name = save_tiny_model(tmp_path / "elsewhere/untrained", seed=1)
    for useless in ("train.epochs=3", "model.text_layers=1"):
        result = egma_eval(*call, model, "--set", useless)
        assert result.exit_code == 2 and "--set" in result.stderr, result.output
    for more in (
        [model],
        [model, "--protocol", "mean"],
        [model, "--score", "best-patch"],
        [model, "--seed", 1],
        [model, "--list", tmp_path / "first.txt"],
        [model, "--prompts", tmp_path / "own.toml"],
        [same_name],
    ):
        result = egma_eval(*call, *more)
        assert result.exit_code == 0, result.output
    reports = [*(tmp_path / "evaluation/zero-shot-csv").glob("untrained-*.json")]
    assert len(reports) == 7
    told = [json.loads(path.read_text())["confusion"]["classes"] for path in reports]
    assert sorted(map(len, told)) == [len(CLASSES)] * 6 + [len(CLASSES) + 1]


def test_log_shares_tell_apart_what_rounds_to_one() -> None:
    logits = np.array([[80.0, 0.0, 1.0], [90.0, 0.0, 1.0], [1.0, 2.0, 3.0]])
    found = log_shares(logits)
    expected = torch.log_softmax(torch.from_numpy(logits), 1).numpy()
    assert found == pytest.approx(expected, abs=1e-12)
    assert found[0, 0] < found[1, 0] < 0


def test_equal_prompts_of_two_classes_are_decided_alike_in_any_order(
    listed: tuple[ImageList, list[Path]],
) -> None:
    reports = []
    for classes in (CLASSES, CLASSES[::-1]):
        prompts = Prompts("equal", {name: ("seen",) for name in classes})
        numbers = np.array([classes.index(CLASSES[label]) for label in listed[0].labels])
        images = replace(listed[0], classes=classes, labels=numbers)
        reports.append(zero_shot(images, listed[1], prompts, RandomEncoder({}, ())))
    first, second = ([row["predicted"] for row in report["rows"]] for report in reports)
    assert first == second


def test_a_model_is_another_with_another_tokenizer(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "other")
    tokenizer = tmp_path / "other/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert model_hash(tmp_path / "other", {}) != model_hash(model, {})
    shutil.copytree(model, tmp_path / "copy")
    assert model_hash(tmp_path / "copy", {}) == model_hash(model, {})


def test_images_that_are_missing_or_cut_are_listed_and_the_rest_measured(
    listed: tuple[ImageList, list[Path]], own_csv: Path, model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "images"
    shutil.copytree(listed[1][0].parent, root)
    (root / "3.png").unlink()
    (root / "7.png").write_bytes((root / "7.png").read_bytes()[:-20])
    call = ("zero-shot", "--task", "csv", "--images", root, "--labels", own_csv, "--out", tmp_path)
    result = egma_eval(*call, model)
    assert result.exit_code == 0 and "58 of 60 images" in result.output
    report = json.loads(written(tmp_path, "zero-shot-csv").read_text())
    assert {one["id"]: one["reason"] for one in report["unreadable"]} == {
        "3.png": "not found",
        "7.png": "cut off: no end marker",
    }
    assert report["evaluated"]["sha256"] != report["list"]["given"]["sha256"]
    for i in range(20):
        (root / f"{i}.png").unlink(missing_ok=True)
    assert egma_eval(*call, model).exit_code == 1  # more than a fifth is not there
    for path in root.iterdir():
        path.unlink()
    result = egma_eval(*call, model)
    assert result.exit_code == 2 and "none of 60 images can be read" in result.output


def test_the_command_takes_a_run_that_egma_train_wrote(
    clean_out: Path, listed: tuple[ImageList, list[Path]], own_csv: Path, tmp_path: Path
) -> None:
    sizes = [f"--set=model.{name}={value}" for name, value in SMALL["model"].items()]
    call = [
        "--shards",
        clean_out / "shards",
        "--out",
        tmp_path,
        "--preset",
        "tiny",
        "--name",
        "own",
    ]
    call += ["--epochs", 1, "--set", f'execution.cache="{tmp_path / "cache"}"', *sizes]
    trained = invoked(egma_train, *call)
    assert trained.exit_code == 0, trained.output
    images = ("--images", listed[1][0].parent, "--labels", own_csv, "--out", tmp_path)
    result = egma_eval("zero-shot", "--task", "csv", *images, tmp_path / "runs/own")
    assert result.exit_code == 0, result.output
    report = json.loads(written(tmp_path, "zero-shot-csv", name="own").read_text())
    assert report["checkpoint"]["objective"] == "egma" and report["evaluated"]["images"] == 60


@pytest.mark.parametrize("option", ["--out", "--images", "--labels"])
def test_urls_are_refused_in_one_line(option: str, model: Path, tmp_path: Path) -> None:
    call = ["zero-shot", "--task", "csv", "--images", tmp_path, "--labels", "x", "--out", tmp_path]
    result = egma_eval(*call, option, "s3://bucket/x", model)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "s3:/bucket/x is no local path" in result.stderr


def test_biovils_prompts_are_averaged_before_they_have_length_1(tmp_path: Path) -> None:
    class Long(Plane):
        """Prompts of 90 degrees are ten times as long."""

        def texts(self, texts: Sequence[str], *, unit: bool = True) -> torch.Tensor:
            made = super().texts(texts)
            long = torch.tensor([10.0 if text == "90" else 1.0 for text in texts])
            return made if unit else made * long[:, None]

    prompts = Prompts("made", {"A": ("0", "90"), "B": ("60",)})  # A's raw mean is at 84 degrees
    images = ImageList("made", ("A", "B"), ("x.png",), np.array([0]))
    write_picture(tmp_path / "x.png", picture(0))
    plane = Long(prompts.queries, ("A", "B"))
    rows = {
        protocol: zero_shot(images, [tmp_path / "x.png"], prompts, plane, protocol=protocol)["rows"]
        for protocol in ("mean", "biovil")
    }
    cosines = {name: [own[0]["score A"], own[0]["score B"]] for name, own in rows.items()}
    assert cosines["mean"] == pytest.approx([math.cos(math.pi / 4), 0.5], abs=1e-5)
    assert cosines["biovil"] == pytest.approx([1 / math.sqrt(101), 0.5], abs=1e-5)


def test_chexzeros_classes_are_compared_with_their_denials() -> None:
    cosines = np.array([[0.5, 0.4, 0.3, 0.0], [0.5, 0.1, 0.3, 0.2]])
    scores = class_scores(cosines, [2, 2], "pos-neg")
    assert scores == pytest.approx(np.array([[0.1, 0.3], [0.4, 0.1]]))


def test_vectors_of_another_program_are_measured_as_a_model_is(
    listed: tuple[ImageList, list[Path]], own_csv: Path, model: Path, tmp_path: Path
) -> None:
    images, paths = listed
    encoder = load_encoder(model)
    (seen,) = encoder.each(images.ids, paths, 100, {})
    folder = tmp_path / "other-program"
    folder.mkdir()
    printed = egma_eval("prompts", "--task", "csv")
    texts = printed.output.splitlines()
    assert printed.exit_code == 0 and len(texts) == len(set(texts)) == 40
    vectors = (10 * seen.pooled).tolist()  # of any length
    schema = {"id": list(images.ids)[1:], "vector": vectors[1:]}
    table = pa.table(schema).replace_schema_metadata({"egma.logit_scale": str(encoder.scale)})
    pq.write_table(table, folder / "images.parquet")
    said = {"text": texts, "vector": encoder.texts(texts).tolist()}
    pq.write_table(pa.table(said), folder / "texts.parquet")
    call = ("zero-shot", "--task", "csv", "--images", paths[0].parent, "--labels", own_csv)
    result = egma_eval(*call, "--out", tmp_path, model, f"vectors={folder}")
    assert result.exit_code == 0, result.output
    ours, theirs = (
        json.loads(written(tmp_path, "zero-shot-csv", name=name).read_text())
        for name in (model.name, "other-program")
    )
    (lost,) = theirs["unreadable"]
    assert lost == {"id": images.ids[0], "reason": "no vector in images.parquet"}
    rows = [
        read_rows(written(tmp_path, "zero-shot-csv", name=name))
        for name in (model.name, "other-program")
    ]
    predicted = [{row["path"]: row["predicted"] for row in own} for own in rows]
    assert predicted[1] == {key: predicted[0][key] for key in images.ids[1:]}
    assert theirs["checkpoint"]["system"]["scale"] == pytest.approx(encoder.scale)
    assert ours["logit_scale"] == pytest.approx(theirs["logit_scale"])

    pq.write_table(
        pa.table({"text": texts[1:], "vector": said["vector"][1:]}), folder / "texts.parquet"
    )
    result = egma_eval(*call, "--out", tmp_path, f"vectors={folder}")
    assert result.exit_code == 2 and "texts.parquet has no vector of" in result.stderr
    (folder / "texts.parquet").write_bytes(b"cut")
    result = egma_eval(*call, "--out", tmp_path, f"vectors={folder}")
    assert result.exit_code == 2 and "texts.parquet holds no vectors" in result.stderr


@pytest.mark.parametrize("scale", ["-5", "nan", "inf", "0"])
def test_vectors_of_an_impossible_scale_or_without_an_id_are_refused(
    tmp_path: Path, scale: str
) -> None:
    rows = {"id": ["a", "b"], "vector": [[1.0, 0.0], [0.0, 1.0]]}
    texts = {"text": ["a", "b"], "vector": rows["vector"]}
    pq.write_table(pa.table(texts), tmp_path / "texts.parquet")
    table = pa.table(rows).replace_schema_metadata({"egma.logit_scale": scale})
    pq.write_table(table, tmp_path / "images.parquet")
    with pytest.raises(BadUsageError, match="logit_scale is"):
        load_encoder(f"vectors={tmp_path}")
    pq.write_table(pa.table(rows | {"id": ["a", None]}), tmp_path / "images.parquet")
    with pytest.raises(BadUsageError, match="a blank id"):
        load_encoder(f"vectors={tmp_path}")
    pq.write_table(pa.table(rows), tmp_path / "images.parquet")
    encoder = load_encoder(f"vectors={tmp_path}")
    assert encoder.scale == pytest.approx(1 / 0.07) and "1/0.07 is taken" in encoder.cautions[0]
    for ask in (lambda: encoder.sentences(["a"]), lambda: encoder.grid):
        with pytest.raises(BadUsageError, match="vectors have no patches"):
            ask()


def test_a_model_in_bfloat16_says_so_and_scores_nearly_the_same(
    listed: tuple[ImageList, list[Path]], own_csv: Path, model: Path, tmp_path: Path
) -> None:
    root = listed[1][0].parent
    call = ("zero-shot", "--task", "csv", "--images", root, "--labels", own_csv)
    for precision in ("float32", "bfloat16"):
        asked = ("--out", tmp_path, "--set", f"execution.precision={precision}")
        assert egma_eval(*call, *asked, model).exit_code == 0
    tables = {}
    for path in (tmp_path / "evaluation" / "zero-shot-csv").glob("*.json"):  # beside each other
        report = json.loads(path.read_text())
        with path.with_suffix(".csv").open(newline="") as file:
            rows = [[float(row[f"score {c}"]) for c in CLASSES] for row in csv.DictReader(file)]
        tables[report["checkpoint"]["system"]["precision"]] = np.array(rows)
    assert 0 < np.abs(tables["float32"] - tables["bfloat16"]).max() < 0.1
