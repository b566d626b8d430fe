"""What a model sees: its page and pictures say what its patches say."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, chromium
from evaluation import egma_eval, picture, save_tiny_model, write_picture
from PIL import Image
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

from egma_train.data.shards import ShardReading, find_shards, read_shard
from egma_train.evaluate import sight
from egma_train.evaluate.checkpoints import load_encoder
from egma_train.evaluate.encoder import Encoder
from egma_train.evaluate.grounding import grounding
from egma_train.evaluate.sight import View, best_and_worst, overlaid, views_of_split
from egma_train.evaluate.sight_page import write_sight_page

HOW = "needs chromium and chromedriver: apt install chromium chromium-driver"
EVIL = "<script>document.title='hacked'</script><b>"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model") / "untrained")


@pytest.fixture(scope="module")
def encoder(model: Path) -> Encoder:
    return load_encoder(model)


@pytest.fixture(scope="module")
def readings(clean_out: Path) -> dict[str, ShardReading]:
    every = (one for path in find_shards(clean_out) for one in read_shard(path, maps=True))
    return {one.reading_id: one for one in every}


# -- what is seen ----------------------------------------------------------------------------------


def test_every_sentence_is_brightest_where_its_most_similar_patch_is(
    clean_out: Path, encoder: Encoder, readings: dict[str, ShardReading]
) -> None:
    name, reading = next((k, v) for k, v in readings.items() if len(v.texts) > 3)
    views = sight.views_of_reading(clean_out, encoder, name)
    assert [one.text for one in views] == reading.texts
    frame = np.frombuffer(reading.image, np.uint8).reshape(1, 224, 224)
    _, (patches,) = encoder.images(frame)
    for view, text in zip(views, reading.texts, strict=True):
        cosines = (encoder.sentences([text])[0] @ patches.T).numpy()
        row, column = divmod(int(cosines.argmax()), 7)
        y, x = np.unravel_index(view.similarity.argmax(), (224, 224))
        assert abs(y - (32 * row + 15.5)) <= 16 and abs(x - (32 * column + 15.5)) <= 16
        assert view.similarity.min() == 0 and view.similarity.max() == 1
        assert view.cosines == pytest.approx((cosines.min(), cosines.max()), abs=1e-5)
        np.testing.assert_array_equal(view.image, frame[0])


def test_figures_are_those_of_grounding(clean_out: Path, encoder: Encoder) -> None:
    rows = grounding(clean_out, encoder, splits=("train",))["rows"]
    views = {(one.name, one.number): one for one in views_of_split(clean_out, encoder, ("train",))}
    for row in rows:
        view = views[row["reading_id"], row["sentence"]]
        for name in ("pointing", "iou", "auroc", "cnr"):
            np.testing.assert_allclose(view.figures[name], row[name], rtol=1e-6)
    kept, seen = best_and_worst(views.values(), 10_000)
    known = [row for row in rows if not np.isnan(row["auroc"])]
    assert seen["sentences"] == len(known) == len(kept)
    assert seen["auroc"] == pytest.approx(np.mean([row["auroc"] for row in known]))
    assert seen["pointing"] == pytest.approx(np.mean([row["pointing"] for row in known]))


def invented(number: int, auroc: float, text: str = "x", right: float = 1.0) -> View:
    """A sentence whose reader looked left and whose model looks right."""
    image = np.full((224, 224), 100, np.uint8)
    left = np.zeros((224, 224), np.uint8)
    left[:, :100] = 255
    figures = {"pointing": right, "iou": 0.5, "cnr": 1.0, "auroc": auroc}
    similarity = np.asarray(left[:, ::-1] / 255, np.float64)
    return View(f"P{number}", "test", 0, text, image, similarity, (0.1, 0.3), left, figures)


@pytest.mark.parametrize("most", [4, 5])
def test_the_best_and_the_worst_are_kept_however_many_come(most: int) -> None:
    order = np.random.default_rng(0).permutation(57).tolist()
    kept, seen = best_and_worst((invented(i, i / 57) for i in [*order]), most)
    assert [one.name for one in kept[: most - most // 2]] == ["P56", "P55", "P54"][: most - 2]
    assert [one.name for one in kept[most - most // 2 :]] == ["P1", "P0"]
    assert seen["sentences"] == 57 and seen["auroc"] == pytest.approx(28 / 57)
    nothing, seen = best_and_worst([invented(1, float("nan"))], most)
    assert nothing == [] and seen["sentences"] == 0


def test_colours_lie_where_there_is_something_and_leave_the_rest_grey() -> None:
    view = invented(0, 0.5)
    made = overlaid(view.image, view.similarity)
    assert (made[:, :120] == 100).all()
    assert (made[:, 130:] == made[0, 200]).all() and made[0, 200, 2] > 100  # red in BGR


# -- the command -----------------------------------------------------------------------------------


def test_the_command_draws_a_reading_and_a_file(
    clean_out: Path, model: Path, readings: dict[str, ShardReading], tmp_path: Path
) -> None:
    name = next(iter(readings))
    base = ("show", "--shards", clean_out, "--out", tmp_path)
    result = egma_eval(*base, "--reading", name, model)
    assert result.exit_code == 0, result.output
    drawn = Image.open(result.output.splitlines()[-1])
    rows = len(readings[name].texts)
    assert drawn.size[1] > 300 * rows and np.asarray(drawn.convert("L")).std() > 20
    write_picture(tmp_path / "a.png", picture(1, 300, 200))
    asked = ("--image", tmp_path / "a.png", "--text", "pneumonia", "--text", "no effusion")
    result = egma_eval("show", "--out", tmp_path, *asked, model)
    assert result.exit_code == 0, result.output
    assert Image.open(result.output.splitlines()[-1]).size[1] < drawn.size[1]
    assert {one.suffix for one in (tmp_path / "evaluation" / "show").glob("un*")} == {".png"}
    # CheXpert's views have one name: another patient's is another picture.
    write_picture(tmp_path / "other" / "a.png", picture(2, 300, 200))
    more = ("--image", tmp_path / "other" / "a.png", "--text", "pneumonia " * 500)
    assert egma_eval("show", "--out", tmp_path, *more, model).exit_code == 0
    assert len(list((tmp_path / "evaluation" / "show").glob("un*"))) == 3
    many = [word for _ in range(101) for word in ("--text", "a")]
    result = egma_eval("show", "--out", tmp_path, *asked[:2], *many, model)
    assert result.exit_code == 2 and "101 sentences are too many for one picture" in result.stderr


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--reading", "P300R00"), "no reading 'P300R00' among "),
        (("--image", "a.png"), "give --image with --text, or --reading ID, or neither"),
        (("--reading", ""), "give --image with --text, or --reading ID"),
        (("--image", "a.png", "--text", "a\udcff"), "is no line of UTF-8 text"),
        (("--reading", "x", "--split", "test"), "give --image with --text"),
        (("--text", "a"), "give --image with --text"),
        (("--split", "tets"), "no split 'tets'; there are: "),
        (("--image", "nowhere.png", "--text", "a"), "No such file"),
        (("--most", "1"), "1 is not in the range"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_line(
    clean_out: Path, model: Path, tmp_path: Path, asked: tuple[str, ...], said: str
) -> None:
    result = egma_eval("show", "--shards", clean_out, "--out", tmp_path, *asked, model)
    assert result.exit_code == 2 and said in result.stderr.splitlines()[-1]
    assert len(result.stderr) < 400 and not list(tmp_path.rglob("untrained*"))


# -- the page --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    folder = tmp_path_factory.mktemp("page")
    views = [
        invented(0, 0.9, f"heart {EVIL}"), invented(1, 0.8, "left effusion", 0.0),
        invented(2, 0.3, "the heart is normal", 0.0),
    ]  # fmt: skip
    seen = {"sentences": 3, "pointing": 1 / 3, "auroc": 2 / 3}
    write_sight_page(folder / "page.html", views, seen, [("model", EVIL)])
    with chromium() as driver:
        driver.get((folder / "page.html").as_uri())
        yield driver
        assert driver.get_log("browser") == [] and driver.title == "What a model sees"


def shown(page: Chrome) -> list[str]:
    cards = page.find_elements(By.CSS_SELECTOR, ".card")
    return [one.find_element(By.TAG_NAME, "h2").text[:2] for one in cards if one.is_displayed()]


def chosen(page: Chrome, what: str, value: str) -> None:
    Select(page.find_element(By.ID, what)).select_by_value(value)


@pytest.mark.needs_chromium
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=HOW)
def test_a_page_is_searched_filtered_and_turned_round(page: Chrome) -> None:
    assert shown(page) == ["P0", "P1", "P2"]
    chosen(page, "kind", "wrong")
    assert shown(page) == ["P1", "P2"]
    chosen(page, "order", "worst")
    assert shown(page) == ["P2", "P1"]
    page.find_element(By.ID, "search").send_keys("heart")
    assert shown(page) == ["P2"] and page.find_element(By.ID, "found").text == "1 of 3"
    chosen(page, "kind", "all")
    assert shown(page) == ["P2", "P0"]
    assert EVIL in page.find_element(By.CSS_SELECTOR, "#cards").text  # as text, and not run
    assert page.find_elements(By.CSS_SELECTOR, ".card script, .card b") == []
    sizes = "return [...document.images].map((one) => one.naturalWidth)"
    assert page.execute_script(sizes) == [160] * 9


@pytest.mark.needs_chromium
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=HOW)
def test_a_split_is_one_page_whose_pictures_are_the_models(
    clean_out: Path, model: Path, tmp_path: Path, encoder: Encoder
) -> None:
    result = egma_eval(
        "show", "--shards", clean_out, "--out", tmp_path, "--split", "train", "--most", 6, model
    )
    assert result.exit_code == 0, result.output
    told, _, path = result.output.splitlines()
    assert "untrained: points right for " in told
    with chromium() as driver:
        driver.get(Path(path).as_uri())
        assert len(driver.find_elements(By.CSS_SELECTOR, ".card")) == 6
        first = driver.find_element(By.CSS_SELECTOR, ".card h2").text
        target = Path(os.environ.get("EGMA_SCREENSHOTS", tmp_path)) / "sight.png"
        driver.save_screenshot(str(target))
        assert driver.get_log("browser") == []
    kept, _ = best_and_worst(views_of_split(clean_out, encoder, ("train",)), 6)
    assert first.startswith(f"{kept[0].name}, sentence {kept[0].number}")
    shutil.rmtree(tmp_path / "evaluation")


def test_a_page_without_its_reader_is_no_page(tmp_path: Path) -> None:
    without: Any = invented(0, 0.5)._replace(gaze=None)
    with pytest.raises(ValueError, match="without gaze"):
        write_sight_page(tmp_path / "a.html", [without], {"sentences": 1}, [])
    assert not list(tmp_path.iterdir())
