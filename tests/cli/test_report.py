"""`stepdistill report`: the page of a real run, and mistakes in one line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def test_the_report_of_a_run_is_written_where_it_is_asked_for(
    cli: Callable, finished: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    page = tmp_path / "pages" / "run.html"
    called = cli("report", folder, "--out", page)
    assert (called.code, called.out.strip()) == (0, str(page))
    text = page.read_text("utf-8")
    assert "SIMULATED" in text
    assert "All results" in text
    assert "Beside accuracy" in text
    assert "Dear Sir" in text or "Hello" in text, "the wrong answers' inputs"
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["nowhere"], "no such folder; check the path"),
        (["."], "no results here; give the `out`"),
        (["file"], "is a file; give its folder"),
        (["began"], "its run has measured nothing yet"),
    ],
)
def test_mistakes_are_one_line_and_code_2(
    cli: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "began").mkdir()
    (tmp_path / "began" / "run.json").write_text("{}")
    called = cli("report", *given)
    assert called.code == 2
    assert said in called.error
    assert called.error.count("\n") == 1
    assert called.out == ""
