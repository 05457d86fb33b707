"""How long the report on a large study takes: 200 trials of 10,000 predictions each, with their teacher's.

    python benchmarks/report.py --trials 200 --examples 10000 > report.json

The study is made up and written first, which is not measured. The report is made by the command, in a process
of its own; then Chromium opens it, several times, each time with a fresh profile, and says when it first
painted. What is told of each is the median and the slowest.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "study"))

from report_folder import MadeUp, write_study
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

METHODS = ("finetune", "distill", "step-by-step", "rationale-first")
FRACTIONS = (0.125, 0.25, 0.5, 0.75, 1.0)
STUDENTS = (820_000, 5_000_000)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
PAINTED = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
READY = "return performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd"


def main() -> None:
    """Write the study, make its report, open it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--examples", type=int, default=10_000)
    parser.add_argument("--openings", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="keeps the study; used as it is where it is there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch) / "study"
        if not folder.exists():
            seeds = range(-(-given.trials // (len(METHODS) * len(FRACTIONS) * len(STUDENTS))))
            write_study(folder, MadeUp(METHODS, FRACTIONS, STUDENTS, seeds, n=given.examples))
        found: dict[str, Any] = {"trials": len(list(folder.glob("trials/*/"))), "examples": given.examples}
        found |= make(folder) | show(folder / "report.html", given.openings)
    print(json.dumps(found, indent=2))


def make(folder: Path) -> dict[str, float]:
    """The command's seconds, those of the processor among them, and its peak of resident memory."""
    start = time.monotonic()
    subprocess.run([sys.executable, "-m", "stepdistill", "report", str(folder)], check=True, stdout=2)
    seconds = time.monotonic() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    peak = used.ru_maxrss * 1024
    size = (folder / "report.html").stat().st_size
    found = {"seconds": round(seconds, 1), "cpu_seconds": round(used.ru_utime + used.ru_stime, 1)}
    return found | {"peak_mib": round(peak / 2**20), "html_mb": round(size / 1e6, 2)}


def show(page: Path, openings: int) -> dict[str, float]:
    """When the page first painted, and when its script was done, in seconds after it was asked for."""
    painted, ready = zip(*(opened(page) for _ in range(openings)), strict=True)
    return {
        "first_paint_s": round(statistics.median(painted), 2),
        "first_paint_slowest_s": round(max(painted), 2),
        "interactive_s": round(statistics.median(ready), 2),
        "interactive_slowest_s": round(max(ready), 2),
    }


def opened(page: Path) -> tuple[float, float]:
    """One opening in a browser of its own."""
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options, Service("/usr/bin/chromedriver"))
        try:
            driver.get(page.resolve().as_uri())
            painted = driver.execute_script(PAINTED)
            while painted is None:
                time.sleep(0.02)
                painted = driver.execute_script(PAINTED)
            return painted / 1000, driver.execute_script(READY) / 1000
        finally:
            driver.quit()


if __name__ == "__main__":
    main()
