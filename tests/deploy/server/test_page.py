"""The page in a browser: a text is typed, and label, probabilities and rationale are seen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

pytestmark = pytest.mark.slow

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync")
HOSTILE = "<img src=x onerror=window.ran=1></script><script>window.ran=2</script>"
Chrome = webdriver.Chrome


@pytest.fixture(scope="module")
def driver() -> Iterator[Chrome]:
    found = shutil.which("chromium")
    if found is None or shutil.which("chromedriver") is None:
        say = pytest.fail if os.environ.get("STEPDISTILL_BROWSER") == "required" else pytest.skip
        say("no chromium or no chromedriver on the PATH: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(found)
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = Chrome(options, Service(shutil.which("chromedriver")))
    yield chrome
    chrome.quit()


def ask(driver: Chrome, text: str, **fields: str) -> str:
    """Type a text, ask, and give what is then seen of the answer or the error."""
    for name, value in {"text": text, **fields}.items():
        field = driver.find_element(By.ID, name)
        field.clear()
        field.send_keys(value)
    driver.find_element(By.ID, "ask").click()
    return seen(driver)


def seen(driver: Chrome) -> str:
    def there(_: Any) -> str:
        return "".join(driver.find_element(By.ID, name).text for name in ("answer", "error"))

    return str(WebDriverWait(driver, 30).until(there))


def problems(driver: Chrome) -> list[str]:
    return [entry["message"] for entry in driver.get_log("browser")]


def test_a_text_is_answered_with_bars_and_reasons_and_hostile_text_stays_text(
    driver: Chrome, light: Path, starts: Any
) -> None:
    with starts(light, "--no-key") as served:
        driver.get(served.url)
        assert "field" in ask(driver, "Where is the cow?")
        assert driver.find_element(By.ID, "label").text == "field"
        assert driver.find_element(By.ID, "rationale").text == "One looks there."
        lines = [line.text.split()[0] for line in driver.find_elements(By.CSS_SELECTOR, "#bars tr")]
        assert lines[0] == "field"
        assert sorted(lines) == ["attic", "field", "sea"]
        widths = (
            "return [...document.querySelectorAll('.bar')].map((bar) => bar.getBoundingClientRect().width)"
        )
        first, *others = driver.execute_script(widths)
        assert first > 3 * sum(others) > 0
        ask(driver, HOSTILE)
        assert driver.execute_script("return window.ran === undefined")
        assert "the text is empty" in ask(driver, " ")
        expected = ["422"]  # the browser notes each answer that is an error
        assert [said for said in problems(driver) if not any(code in said for code in expected)] == []

        driver.get(served.url + "/docs")
        WebDriverWait(driver, 30).until(lambda _: "POST /v1/predict" in driver.page_source)
        assert "Authorization" not in driver.find_element(By.ID, "curl").text
        assert problems(driver) == []


def test_the_key_is_asked_for_and_used(driver: Chrome, light: Path, starts: Any, key: str) -> None:
    with starts(light) as served:
        driver.get(served.url)
        hint = driver.find_element(By.ID, "hint")
        WebDriverWait(driver, 30).until(lambda _: "asks for its key" in hint.text)
        assert not driver.find_element(By.ID, "error").is_displayed()
        assert "the key is missing or wrong" in ask(driver, "Where is the cow?", key="wrong")
        assert "field" in ask(driver, "Where is the cow?", key=key)
        driver.get(served.url + "/docs")
        WebDriverWait(driver, 30).until(lambda _: "POST /v1/predict" in driver.page_source)
        assert "Authorization: Bearer $STEPDISTILL_API_KEY" in driver.find_element(By.ID, "curl").text
        driver.back()
        kept = (
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert key not in driver.execute_script(kept)


def test_options_are_typed_one_a_line(driver: Chrome, starts: Any, chosen: Path) -> None:
    with starts(chosen, "--no-key") as served:
        driver.get(served.url)
        WebDriverWait(driver, 30).until(lambda _: driver.find_element(By.ID, "options").is_displayed())
        said = ask(driver, "Where is the fish?", options=f"sea\nattic\n{HOSTILE}")
        assert len(driver.find_elements(By.CSS_SELECTOR, "#bars tr")) == 3
        assert HOSTILE in said
        assert driver.execute_script("return window.ran === undefined")


def test_with_the_key_the_fields_appear_before_anything_is_sent(
    driver: Chrome, starts: Any, chosen: Path, key: str
) -> None:
    with starts(chosen) as served:
        driver.get(served.url)
        options = driver.find_element(By.ID, "options")
        WebDriverWait(driver, 30).until(lambda _: driver.find_element(By.ID, "key").is_displayed())
        driver.find_element(By.ID, "key").send_keys(key)
        driver.find_element(By.ID, "text").send_keys("Where is the fish?")
        WebDriverWait(driver, 30).until(lambda _: options.is_displayed())
        assert served.counts().get('stepdistill_requests_total{path="/v1/predict",status="200"}', 0) == 0
        options.send_keys("sea\nattic")
        driver.find_element(By.ID, "ask").click()
        assert "sea" in seen(driver)


@pytest.fixture
def chosen(choices: Any) -> Path:
    folder: Path = choices.student("step-by-step")
    return folder
