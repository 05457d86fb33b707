"""The curve shows what was logged, in both files, the same each time."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stepdistill.errors import RunFolderError
from stepdistill.student.curve import draw

SVG = "{http://www.w3.org/2000/svg}"
ROWS: list[dict[str, Any]] = [
    {"step": 1, "loss": 5.0, "loss_label": 2.0, "loss_rationale": 3.0, "learning_rate": 1e-3},
    {"step": 2, "loss": 4.0, "loss_label": 1.5, "loss_rationale": 2.5, "share_label": 0.4},
    {"step": 2, "eval_accuracy": 0.25},
    {"step": 4, "loss": 2.0, "loss_label": 1.0, "loss_rationale": 1.0},
    {"step": 4, "eval_accuracy": 0.5},
]


def drawn(rows: list[dict[str, Any]], folder: Path) -> ElementTree.Element:
    folder.mkdir(exist_ok=True)
    draw(rows, folder)
    return ElementTree.parse(folder / "curve.svg").getroot()


def texts(svg: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()).strip() for text in svg.iter(f"{SVG}text")]


def line(svg: ElementTree.Element, name: str) -> list[list[tuple[float, float]]]:
    """The pieces of a line, each as its corners."""
    group = next(group for group in svg.iter(f"{SVG}g") if group.get("id") == name)
    pieces = re.split(r"M", next(group.iter(f"{SVG}path")).get("d", ""))[1:]
    numbers = [[float(number) for number in re.findall(r"-?[\d.]+", piece)] for piece in pieces]
    return [list(zip(values[::2], values[1::2], strict=True)) for values in numbers]


def test_both_tasks_and_the_accuracy_are_drawn_where_the_numbers_are(tmp_path: Path) -> None:
    svg = drawn(ROWS, tmp_path)
    assert {"label", "rationale", "loss (nats per token)", "validation accuracy", "optimizer step"} <= set(
        texts(svg)
    )
    label, rationale, accuracy = (
        line(svg, name)[0] for name in ("loss_label", "loss_rationale", "eval_accuracy")
    )
    assert [len(label), len(rationale), len(accuracy)] == [3, 3, 2]
    # Steps 1, 2, 4 lie as far apart as they are, in both panels.
    assert label[2][0] - label[1][0] == pytest.approx(2 * (label[1][0] - label[0][0]), rel=1e-4)
    assert [x for x, _ in accuracy] == pytest.approx([label[1][0], label[2][0]])
    # Down the page is down in value: 3.0 above 2.0, and both tasks meet at 1.0.
    assert rationale[0][1] < label[0][1] < label[2][1]
    assert rationale[2] == label[2]
    assert accuracy[1][1] < accuracy[0][1]
    assert min(y for _, y in accuracy) > max(y for _, y in label)


def test_the_picture_has_the_size_and_more_than_one_colour(tmp_path: Path) -> None:
    drawn(ROWS, tmp_path)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (960, 780)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
        assert image.info.keys() <= {"dpi"}
    assert {(255, 255, 255), (0, 114, 178), (213, 94, 0), (0, 158, 115)} <= colours


@pytest.mark.parametrize(
    ("rows", "lines", "panels"),
    [
        ([row for row in ROWS if "eval_accuracy" not in row], {"loss_label", "loss_rationale"}, 1),
        (
            [{"step": 1, "loss_label": 2.0}, {"step": 2, "eval_accuracy": 0.5}],
            {"loss_label", "eval_accuracy"},
            2,
        ),
        ([{"step": 1, "loss": 2.0, "loss_label": None}], {"loss"}, 1),
        ([{"step": 3, "eval_accuracy": 0.5}], {"loss", "eval_accuracy"}, 2),
        ([], {"loss"}, 1),
    ],
)
def test_what_was_not_logged_is_not_drawn(
    tmp_path: Path, rows: list[dict[str, Any]], lines: set[str], panels: int
) -> None:
    svg = drawn(rows, tmp_path)
    ids = [group.get("id") for group in svg.iter(f"{SVG}g")]
    assert {"loss", "loss_label", "loss_rationale", "eval_accuracy"} & set(ids) == lines
    assert sum(str(name).startswith("axes_") for name in ids) == panels


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_a_gap(tmp_path: Path, bad: float) -> None:
    values = [2.0, 1.5, bad, 1.2, 1.0]
    svg = drawn([{"step": i, "loss_label": value} for i, value in enumerate(values)], tmp_path)
    assert [len(piece) for piece in line(svg, "loss_label")] == [2, 2]


def test_the_same_rows_give_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    drawn(ROWS, tmp_path / "a")
    code = f"from pathlib import Path; from stepdistill.student.curve import draw; draw({ROWS!r}, Path('b'))"
    (tmp_path / "b").mkdir()
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    for name in ("curve.svg", "curve.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_many_steps_are_a_line_without_marks(tmp_path: Path) -> None:
    few, many = (
        sum(1 for _ in drawn([{"step": i, "loss_label": 1.0} for i in range(n)], tmp_path).iter(f"{SVG}use"))
        for n in (40, 400)
    )
    assert few - many >= 40


def test_drawing_leaves_no_state_behind(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib; from pathlib import Path; from stepdistill.student.curve import draw\n"
        "names = ('svg.hashsalt', 'svg.fonttype', 'font.size')\n"
        "before = [matplotlib.rcParams[name] for name in names]; draw([], Path('.'))\n"
        "print(before == [matplotlib.rcParams[name] for name in names], 'matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert done.stdout.split() == ["True", "False"]


def test_the_folder_is_made_or_the_obstacle_named(tmp_path: Path) -> None:
    draw(ROWS, tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "curve.svg").is_file()
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="a file, not a folder"):
        draw(ROWS, tmp_path / "file" / "b")
