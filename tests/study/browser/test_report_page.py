"""The report in a browser: sorting, filters, pages, phones, printers, and that nothing runs or is loaded."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_folder import MadeUp, write_study
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

from stepdistill.study.gather import gather
from stepdistill.study.report import write_report
from stepdistill.study.report.results import chosen

pytestmark = pytest.mark.slow

SHOWN = "</script><script>window.ran=1</script><img src=x onerror=window.ran=2> <b>bold</b>"
HOSTILE = SHOWN + " \u2028\ud800"
WIDE = " " + "w" * 300
FAILED = "finetune-25-820000-s0"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Chrome = webdriver.Chrome


def browser() -> str:
    """The browser's file; where there is none, the tests are skipped or, as asked for, fail."""
    found = shutil.which("chromium")
    if found is None or shutil.which("chromedriver") is None:
        say = pytest.fail if os.environ.get("STEPDISTILL_BROWSER") == "required" else pytest.skip
        say("no chromium or no chromedriver on the PATH: install Debian's chromium and chromium-driver")
    return str(found)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = MadeUp(seeds=(0, 1), n=150, hostile=HOSTILE + WIDE, failed={FAILED: "Traceback\n" + WIDE})
    return write_study(tmp_path_factory.mktemp("browser") / "out", made)


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    return write_report(folder)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = browser()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    started = Chrome(options, Service(shutil.which("chromedriver")))
    yield started
    started.quit()


@pytest.fixture
def page(driver: Chrome, report: Path) -> Chrome:
    """The report, opened anew in a window as wide as a desk's."""
    for kind in ("performance", "browser"):
        driver.get_log(kind)
    # Who clicks while the page still glides along misses.
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": [still]})
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    resize(driver, 1280)
    driver.get(report.as_uri())
    return driver


def resize(driver: Chrome, width: int) -> None:
    # By the page's own pixels: a real window is never as narrow as a phone.
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def column(driver: Chrome, table: str, title: str) -> list[str]:
    """What stands in a column, from top to bottom."""
    script = """
      const table = document.querySelector(`#table-${arguments[0]} table`);
      const titles = [...table.tHead.rows[0].cells].map((one) => one.textContent.trim());
      const place = titles.indexOf(arguments[1]);
      return [...table.tBodies[0].rows].map((row) => row.cells[place].textContent.trim());
    """
    return list(driver.execute_script(script, table, title))


def heading(driver: Chrome, table: str, title: str) -> WebElement:
    path = f"//section[@id='table-{table}']//th[normalize-space(.)='{title}']"
    return driver.find_element(By.XPATH, path)


def seen(driver: Chrome) -> list[WebElement]:
    # One question for all cases: one for each takes most of the time of these tests.
    visible = "return [...document.querySelectorAll('.case')].filter((one) => one.checkVisibility())"
    return list(driver.execute_script(visible))


def pick(driver: Chrome, name: str, value: str) -> None:
    Select(driver.find_element(By.ID, name)).select_by_value(value)


def status(driver: Chrome) -> str:
    return driver.find_element(By.ID, "status").text


def requests(driver: Chrome) -> list[str]:
    """Addresses that were asked for, those of texts in the page itself excepted."""
    events = (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    return [url for url in asked if not url.startswith("data:")]


def test_it_opens_without_an_error_and_asks_for_nothing_else(page: Chrome, report: Path) -> None:
    assert page.find_element(By.TAG_NAME, "h1").text.startswith("Letters" + SHOWN)
    assert "SIMULATED" in page.find_element(By.TAG_NAME, "header").text
    assert "finetune" in page.find_element(By.CSS_SELECTOR, ".verdict").text
    assert requests(page) == [report.as_uri()]
    assert page.get_log("browser") == []
    loaded = "return [...document.images].map((one) => one.naturalWidth > 100 && one.alt.length > 20)"
    figures = page.execute_script(loaded)
    motion = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert page.execute_script(motion) == "auto", "asked for by who prefers reduced motion"
    assert len(figures) >= 4
    assert len(list((report.parent / "figures").glob("*.png"))) == len(figures), "and as files"
    assert all(figures)


def test_hostile_texts_do_not_run(page: Chrome) -> None:
    assert page.execute_script("return window.ran === undefined")
    assert (
        page.execute_script("return document.querySelectorAll('.case b:not([dir]), .case script').length")
        == 0
    )
    said = page.execute_script("return document.querySelector('.case .input').textContent")
    assert SHOWN in said


def test_a_script_that_got_into_the_page_would_not_run(driver: Chrome, report: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.html"
    hole = "<script>window.ran=3</script><img src=x onerror='window.ran=4'></main>"
    broken.write_text(report.read_text("utf-8").replace("</main>", hole), "utf-8")
    driver.get(broken.as_uri())
    assert driver.execute_script("return window.ran === undefined")
    refused = [entry["message"] for entry in driver.get_log("browser")]
    assert any("Content Security Policy" in message for message in refused), "the gate was tried"


def test_a_click_sorts_by_number_and_by_word(page: Chrome) -> None:
    title = "accuracy"
    head = heading(page, "results", title)
    assert head.get_attribute("aria-sort") == "none"
    button = head.find_element(By.TAG_NAME, "button")
    button.click()
    falling = [float(text.removesuffix(" %")) for text in column(page, "results", title)]
    assert head.get_attribute("aria-sort") == "descending"
    assert len(set(falling)) > 3
    assert falling == sorted(falling, reverse=True)
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "results", title) == [f"{one} %" for one in sorted(falling)]
    heading(page, "results", "method").find_element(By.TAG_NAME, "button").click()
    assert head.get_attribute("aria-sort") == "none"
    names = column(page, "results", "method")
    assert names == sorted(names)


def test_rows_without_a_value_stand_last_either_way(page: Chrome) -> None:
    button = heading(page, "results", "seed").find_element(By.TAG_NAME, "button")
    for _ in range(2):
        button.click()
        seeds = column(page, "results", "seed")
        assert seeds[-1] == ""
        assert "" not in seeds[:-1]


def test_the_keyboard_sorts_and_rows_stay_whole(page: Chrome) -> None:
    whole = "return [...document.querySelectorAll('#table-results tbody tr')].map((row) => row.textContent)"
    before = page.execute_script(whole)
    button = heading(page, "results", "accuracy").find_element(By.TAG_NAME, "button")
    button.send_keys(Keys.ENTER)
    assert heading(page, "results", "accuracy").get_attribute("aria-sort") == "descending"
    button.send_keys(Keys.SPACE)
    assert heading(page, "results", "accuracy").get_attribute("aria-sort") == "ascending"
    after = page.execute_script(whole)
    assert after != before
    assert sorted(after) == sorted(before)


def test_wrong_answers_are_filtered_by_method_and_by_who_was_right(page: Chrome, folder: Path) -> None:
    outcomes = {row.name: row.outcomes for row in chosen(gather(folder))}
    mine, other = outcomes["step-by-step"], outcomes["finetune"]
    wrong = sum(a != "1" for a in mine)
    alone = sum(a != "1" and b == "1" for a, b in zip(mine, other, strict=True))
    assert 0 < alone < wrong
    assert (
        Select(page.find_element(By.ID, "pick-method")).first_selected_option.text
        == f"step-by-step ({wrong})"
    )
    assert f"of {wrong} in this file, which is all of them" in status(page)
    pick(page, "pick-other", "right 1")
    assert f"of {alone} in this file, which is all of them" in status(page)
    for case in seen(page):
        answers = case.find_elements(By.CSS_SELECTOR, ".answer")
        kinds = [str(answer.get_attribute("class")) for answer in answers]
        assert "wrong" in kinds[2] or "unread" in kinds[2]
        assert "picked" in kinds[2]
        assert "right" in kinds[1]
    pick(page, "pick-other", "wrong 1")
    assert f"of {wrong - alone} in this file" in status(page)
    pick(page, "pick-method", "1")
    assert Select(page.find_element(By.ID, "pick-other")).first_selected_option.text == "all"
    assert f"of {sum(b != '1' for b in other)} in this file" in status(page)


def test_wrong_answers_are_filtered_by_words_and_turned_by_pages(page: Chrome) -> None:
    first = [case.get_attribute("aria-label") for case in seen(page)]
    assert len(first) == 10
    assert not page.find_element(By.ID, "before").is_enabled()
    page.find_element(By.ID, "next").click()
    second = [case.get_attribute("aria-label") for case in seen(page)]
    assert set(first).isdisjoint(second)
    assert status(page).startswith("11 to ")
    box = page.find_element(By.ID, "pick-text")
    wanted = str(first[3]).removeprefix("Test example test-")
    box.send_keys(f"LETTER {wanted} the")
    found = [case.get_attribute("aria-label") for case in seen(page)]
    assert first[3] in found
    assert len(found) < 10
    assert "page 1 of 1" in page.find_element(By.ID, "page").text
    box.send_keys(" nothing-like-it")
    assert seen(page) == []
    assert status(page) == "None in this file."


@pytest.mark.parametrize("width", [320, 390, 1400])
def test_nothing_stands_out_of_the_window(page: Chrome, width: int) -> None:
    resize(page, width)
    page.execute_script("for (const one of document.querySelectorAll('details')) one.open = true")
    assert page.execute_script("return document.scrollingElement.scrollWidth") <= width
    inside = """
      return [...document.querySelectorAll('section, .scroll, .verdict, .case, .answer, figure, details')]
        .filter((one) => one.getBoundingClientRect().right > arguments[0] + 0.5).map((one) => one.className)
    """
    assert page.execute_script(inside, width) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(page: Chrome, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "screen", "features": features})
    low = page.execute_script(CONTRASTS)
    assert low == []


def test_print_shows_all_and_no_controls(page: Chrome) -> None:
    fitting = page.execute_script("return document.querySelectorAll('.case:not(.filtered)').length")
    assert fitting > 10
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert len(seen(page)) == fitting
    for control in ("filters", "before", "next"):
        assert not page.find_element(By.ID, control).is_displayed()
    folded = "return [...document.querySelectorAll('details > :not(summary)')]"
    assert page.execute_script(folded + ".every((one) => one.checkVisibility())")
    boxes = "return [...document.querySelectorAll('.scroll, .input, .why, .said')]"
    assert page.execute_script(boxes + ".filter((s) => s.scrollHeight > s.clientHeight + 1).length") == 0
    paper = base64.b64decode(page.execute_cdp_cmd("Page.printToPDF", {})["data"])
    assert paper.startswith(b"%PDF")


def test_without_scripts_everything_is_there(page: Chrome, report: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    page.get(report.as_uri())
    assert len(seen(page)) == len(page.find_elements(By.CSS_SELECTOR, ".case")) > 10
    assert page.find_element(By.CSS_SELECTOR, "#table-results tbody tr").is_displayed()
    assert page.find_element(By.CSS_SELECTOR, "#figures img").is_displayed()
    for control in page.find_elements(By.CSS_SELECTOR, ".needs-script"):
        assert not control.is_displayed()
    assert page.find_elements(By.CSS_SELECTOR, "th button") == []


def test_all_that_can_be_used_is_reached_by_the_keyboard_and_has_a_name(page: Chrome) -> None:
    nameless: list[Any] = page.execute_script(
        """
        return [...document.querySelectorAll('a, button, select, input, [tabindex="0"]')].filter((one) => {
          const named = one.textContent.trim() || one.getAttribute('aria-label') ||
            one.getAttribute('aria-labelledby') || (one.labels && one.labels.length);
          return !named || one.tabIndex < 0;
        }).map((one) => one.outerHTML.slice(0, 80))
        """
    )
    assert nameless == []


CONTRASTS = """
const parse = (text) => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
const light = ([r, g, b]) => {
  const part = (v) => { v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
};
const behind = (one) => {
  for (; one; one = one.parentElement) {
    const color = parse(getComputedStyle(one).backgroundColor);
    if (color.length < 4 || color[3] > 0) return color;
  }
  return [255, 255, 255];
};
return [...document.querySelectorAll('body *')].filter((one) => {
  const says = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!says || !one.checkVisibility() || one.closest('button:disabled, option, script, style')) return false;
  const [a, b] = [light(parse(getComputedStyle(one).color)), light(behind(one))].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05) < 4.5;
}).map((one) => one.tagName + '.' + one.className + ' ' + one.textContent.slice(0, 30));
"""
