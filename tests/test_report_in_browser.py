"""The report as a reader sees it: clicked through in a headless Chromium.

With ``EGMA_SCREENSHOTS=docs/img`` the screenshots are kept there.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, DRIVER, chromium
from conftest import egma_prep, run_etl
from selenium.webdriver import ActionChains, Chrome, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from tables import by_reading, table

from egma_prep import open_shards

HOW = "needs chromium and chromedriver: apt install chromium chromium-driver"
pytestmark = [
    pytest.mark.needs_chromium,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason=HOW),
]

EVIL = "<script>document.title='hacked'</script><b>"


@pytest.fixture(scope="module")
def out(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose transcripts hold markup."""
    place = tmp_path_factory.mktemp("browser")
    shutil.copytree(phantom, place / "data")
    for path in (place / "data").glob("*/REFLACX/main_data/*/timestamps_transcription.csv"):
        head, first, *rest = path.read_text().splitlines()
        marked = ",".join([EVIL, *first.split(",")[1:]])
        path.write_text("\n".join([head, marked, *rest]) + "\n")
    assert run_etl(place / "data", place / "out").exit_code == 0
    assert egma_prep("report", "--out", place / "out").exit_code == 0
    return place / "out"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser: Chrome, out: Path) -> Iterator[Chrome]:
    """The report, just opened; at the end nothing may have gone wrong in it."""
    browser.get((out / "report.html").as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.title == "Readings with sentence heatmaps"


def all_of(page: Chrome | WebElement, css: str) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, css)


def one_of(page: Chrome | WebElement, css: str) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, css)


def wait(page: Chrome, css: str, at_least: int = 1) -> list[WebElement]:
    return WebDriverWait(page, 20).until(lambda _: len(f := all_of(page, css)) >= at_least and f)


def scroll_to(page: Chrome, css: str) -> None:
    page.execute_script("document.querySelector(arguments[0]).scrollIntoView()", css)


def search(page: Chrome, text: str) -> str:
    field = one_of(page, "#search")
    field.clear()
    field.send_keys(text)
    told = one_of(page, "#found")
    WebDriverWait(page, 20).until(lambda _: " of " in told.text)
    return told.text


def is_loaded(page: Chrome, image: WebElement) -> bool:
    script = "return arguments[0].complete && arguments[0].naturalWidth > 0"
    return WebDriverWait(page, 20).until(lambda _: page.execute_script(script, image))


def test_cards_are_made_as_one_scrolls(page: Chrome) -> None:
    assert all_of(page, ".card") == []
    scroll_to(page, "#gallery")
    first = wait(page, ".card", 12)
    assert is_loaded(page, one_of(first[0], ".picture img"))
    scroll_to(page, "#more")
    wait(page, ".card", 22)
    assert not one_of(page, "#more").is_displayed()


def test_markup_in_a_transcript_is_shown_as_text(page: Chrome, out: Path) -> None:
    marked = [one for one in open_shards(out) if any(EVIL in s.text for s in one.sentences)]
    assert len(marked) > 10
    assert search(page, EVIL) == f"{len(marked)} of 22 readings"
    card = wait(page, ".card")[0]
    assert EVIL in one_of(card, ".sentences").text
    assert all_of(page, ".sentences script, .sentences b") == []


def test_a_search_that_finds_nothing_says_so(page: Chrome) -> None:
    assert search(page, "no such words") == "0 of 22 readings"
    assert all_of(page, ".card") == []


def test_a_sentence_shows_its_own_map(page: Chrome) -> None:
    scroll_to(page, "#gallery")
    card = wait(page, ".card", 12)[0]
    overlay = one_of(card, "img.map")
    sources = []
    for button in all_of(card, ".sentences button"):
        button.click()
        assert button.get_attribute("aria-pressed") == "true"
        assert len(all_of(card, "[aria-pressed=true]")) == 1
        has_gaze = "no gaze" not in button.text
        assert overlay.is_displayed() == has_gaze
        if has_gaze:
            assert is_loaded(page, overlay)
            sources.append(overlay.get_attribute("src"))
    assert len(set(sources)) == len(sources) > 2


def test_a_reading_opens_by_keyboard_with_its_time_line_and_closes_by_escape(
    page: Chrome,
) -> None:
    scroll_to(page, "#gallery")
    card = wait(page, ".card", 12)[0]
    button = one_of(card, "button.open")
    page.execute_script("arguments[0].focus()", button)
    ActionChains(page).send_keys(Keys.ENTER).perform()
    dialog = one_of(page, "#reading")
    assert dialog.is_displayed()
    drawn = all_of(dialog, "#timeline rect")
    sentences, words = len(all_of(card, ".sentences li")) - 1, 15
    assert len(drawn) > sentences + words
    ActionChains(page).send_keys(Keys.TAB, Keys.TAB, Keys.ENTER).perform()
    assert page.switch_to.active_element.get_attribute("aria-pressed") == "true"
    assert all_of(dialog, "circle")
    ActionChains(page).send_keys(Keys.ESCAPE).perform()
    assert not dialog.is_displayed()
    assert page.switch_to.active_element == button


def test_fixations_are_drawn_as_on_or_off_the_image_as_the_table_says(
    page: Chrome, out: Path
) -> None:
    rows_of = {key[1]: rows for key, rows in by_reading(table(out, "fixations")).items()}

    def in_padding(row: dict) -> bool:
        return not row["on_image"] and max(abs(row[one] - 112) for one in ("x_224", "y_224")) < 111

    beside = max(rows_of, key=lambda name: sum(map(in_padding, rows_of[name])))
    assert sum(map(in_padding, rows_of[beside])) > 50  # the phantom that looks beside the image
    mixed = next(one for one, some in rows_of.items() if len({r["on_image"] for r in some}) == 2)
    for name in (beside, mixed):
        search(page, name)
        title = "return document.querySelector('.card h3')?.textContent.includes(arguments[0])"
        WebDriverWait(page, 20).until(lambda _, one=(title, name): page.execute_script(*one))
        one_of(page, "button.open").click()
        assert one_of(page, "#detail [aria-pressed=true]").text == "whole reading"
        off = sum(not row["on_image"] for row in rows_of[name])
        assert len(all_of(page, "#detail circle")) == len(rows_of[name])
        assert len(all_of(page, "#detail circle.off")) == off
        assert len(all_of(page, "#timeline rect.off")) == off
        one_of(page, "#reading form button").click()


def test_every_control_has_a_name_and_every_drawing_a_text(page: Chrome) -> None:
    scroll_to(page, "#gallery")
    wait(page, ".card", 12)
    controls = [one for one in all_of(page, "button, input, a") if one.is_displayed()]
    assert len(controls) > 50 and all(one.accessible_name for one in controls)
    assert all(one.get_attribute("aria-label") for one in all_of(page, "main > section svg"))
    focusable = one_of(page, "#timeline[tabindex]")
    assert focusable.get_attribute("role") == "region" and focusable.get_attribute("aria-label")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_follows_the_systems_scheme_and_its_own_button(
    page: Chrome, scheme: str, reported: Path, tmp_path: Path
) -> None:
    page.get((reported / "report.html").as_uri())
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def is_dark() -> bool:
        script = "return getComputedStyle(document.body).backgroundColor"
        red = int(page.execute_script(script).split("(")[1].split(",")[0])
        return red < 128

    assert is_dark() == (scheme == "dark")
    ink = page.execute_script(
        "return getComputedStyle(document.querySelector('#distributions svg text')).fill"
    )
    assert (int(ink.split("(")[1].split(",")[0]) > 128) == (scheme == "dark")
    folder = Path(os.environ.get("EGMA_SCREENSHOTS", tmp_path))
    for name, place in {"report": "#maps", "gallery": "#gallery"}.items():
        scroll_to(page, place)
        if name == "gallery":
            for image in wait(page, ".card img")[:6]:
                is_loaded(page, image)
        page.save_screenshot(str(folder / f"{name}-{scheme}.png"))
    assert all(path.stat().st_size < 300_000 for path in folder.glob(f"*-{scheme}.png"))
    scroll_to(page, "header")
    one_of(page, "#theme").click()
    assert is_dark() == (scheme == "light")
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_the_version_to_be_shared_opens_without_errors(browser: Chrome, reported: Path) -> None:
    browser.get((reported / "report-shareable.html").as_uri())
    assert all_of(browser, "img, #gallery") == []
    one_of(browser, "#theme").click()
    assert browser.get_log("browser") == []
