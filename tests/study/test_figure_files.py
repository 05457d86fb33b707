"""Figures as files: the same bytes each time, fit for one page together, and none left of earlier rows."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from PIL import Image
from rows import metrics, study

from stepdistill.errors import DataError, RunFolderError
from stepdistill.study.figures.draw import draw_all
from stepdistill.study.figures.figure import Drawn

SVG = "{http://www.w3.org/2000/svg}"
ROWS = study(fractions=(0.25, 0.5, 1.0), n=60)
METRICS = {one.trial: [metrics(one.name, ["yes & no", "<b>"])] for one in ROWS}


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Drawn]]:
    folder = tmp_path_factory.mktemp("figures") / "new"
    return folder, draw_all(ROWS, METRICS, folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_every_figure_has_both_files_and_every_missing_one_a_reason(once: tuple[Path, list[Drawn]]) -> None:
    folder, drawn = once
    there = [one for one in drawn if not one.missing]
    assert [one.name for one in drawn if one.missing] == ["accuracy-size", "minimum"]
    assert all(one.svg is None and one.png is None for one in drawn if one.missing)
    written = sorted(path for one in there for path in (one.svg, one.png) if path)
    assert written == sorted(folder.iterdir())
    assert len(written) == 2 * len(there)
    for one in there:
        assert one.caption
        assert one.png is not None
        assert one.png.stat().st_size < 200_000
        with Image.open(one.png) as image:
            assert image.width == 1040


def test_the_same_rows_in_any_order_give_the_same_bytes(
    once: tuple[Path, list[Drawn]], tmp_path: Path
) -> None:
    shuffled = list(ROWS)
    random.Random(1).shuffle(shuffled)
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        draw_all(shuffled, METRICS, tmp_path)
        assert matplotlib.rcParams["font.size"] == 30, "the user's settings are as before"
    assert contents(tmp_path) == contents(once[0])


def test_all_svgs_can_stand_in_one_page(once: tuple[Path, list[Drawn]]) -> None:
    seen: set[str] = set()
    for one in once[1]:
        if one.svg is None:
            continue
        text = one.svg.read_text(encoding="utf-8")
        assert text.startswith("<svg ")
        root = ElementTree.fromstring(text)
        ids = [element.get("id", "") for element in root.iter() if element.get("id")]
        assert all(id_ == one.name or id_.startswith(f"{one.name}-") for id_ in ids)
        assert seen.isdisjoint(ids)
        seen.update(ids)
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text)) <= set(ids)
        assert re.findall(r"([^\s{}>]*) \*\{", text) == [f"#{one.name}"]
        assert root.findtext(f"{SVG}title") == one.title
        assert root.findtext(f"{SVG}desc") == one.alt
        assert root.get("role") == "img"
        assert (root.get("aria-labelledby") or "").split() == [f"{one.name}-title", f"{one.name}-alt"]
        assert not list(root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}RDF"))


def test_words_are_words_in_the_svg_with_typefaces_that_are_everywhere(
    once: tuple[Path, list[Drawn]],
) -> None:
    root = ElementTree.parse(once[0] / "confusion.svg").getroot()
    texts = ["".join(text.itertext()).strip() for text in root.iter(f"{SVG}text")]
    assert {"yes & no", "<b>", "unread", "gold label"} <= set(texts)
    styles = {text.get("style", "") for text in root.iter(f"{SVG}text")}
    assert all("Verdana" in style and "sans-serif" in style for style in styles)


def test_figures_of_earlier_rows_go_and_other_files_stay(tmp_path: Path) -> None:
    for name in ("accuracy-data.svg", "confusion-7.png", "mine.svg", "accuracy-data.txt"):
        (tmp_path / name).write_text("old")
    draw_all(study(n=30), {}, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"mine.svg", "accuracy-data.txt", "accuracy.svg", "cost.png"} <= names
    assert names.isdisjoint({"accuracy-data.svg", "confusion-7.png"})


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results, so no figures; run the study first"):
        draw_all([], {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_row_is_enough_for_a_figure(tmp_path: Path) -> None:
    drawn = draw_all(study(("finetune",), n=30)[1:], {}, tmp_path)
    assert [one.name for one in drawn if not one.missing] == ["accuracy"]
    assert all(one.missing for one in drawn[1:])


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="a part of the path is a file"):
        draw_all(study(n=30), {}, tmp_path / "file" / "figures")


@pytest.mark.parametrize("module", ["stepdistill.study.figures.draw"])
def test_drawing_needs_no_window_and_no_global_figure(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('matplotlib.pyplot', 'torch') if m in sys.modules])"
    done: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
