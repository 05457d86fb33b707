"""Accuracy against training data (the paper's Figures 4 and 5) and against student size (6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepdistill.study.figures.cells import Cell, Panel, cells_of, most_data, panels
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import (
    band,
    beside,
    examples,
    left_out,
    legend,
    paged,
    shown,
    span,
    ticks,
    words,
)
from stepdistill.study.figures.series import Series, shortened
from stepdistill.study.figures.style import (
    TEACHER,
    Look,
    house_style,
    looks,
    percent,
)
from stepdistill.study.results import ResultRow

_HEIGHT = 2.3
_PAGE = 4
_BANDED = 4
"""Up to so many series have bands; those of more would mix to one grey."""
FINETUNE = "finetune"


@house_style
def by_data(rows: Sequence[ResultRow]) -> list[Figure]:
    """Accuracy of every series against its training examples, one panel a task and student.

    Raises:
        UndrawnError: every student was trained on one fraction of the data only.
    """
    found = [p for p in panels(rows, by_student=True) if len({cell.fraction for cell in p.cells}) > 1]
    if not found:
        raise UndrawnError("the training fraction does not vary: give several `fractions`")
    style = looks(cell.series for cell in cells_of(rows))
    return paged(found, _PAGE, lambda part, suffix: _data_figure(part, suffix, style))


def _data_figure(found: Sequence[Panel], suffix: str, style: Mapping[Series, Look]) -> Figure:
    figure, places = picture([_HEIGHT] * len(found))
    for axes, panel in zip(places, found, strict=True):
        _data_panel(axes, panel, style)
    places[-1].set_xlabel("share of the training examples (below: their number)")
    legend(figure, style, (one for panel in found for one in shown(panel)))
    seeds = "; ".join(dict.fromkeys(panel.seeds() for panel in found))
    caption = (
        f"Accuracy on the test examples ({examples(found)}) against the share of the training examples "
        f"(logarithmic), mean over seeds; {_drawn(found)} are 95 % intervals ({seeds}). Thin lines, where "
        "they "
        "are known: the teacher, and finetune on all data."
    )
    return Figure(
        name=f"accuracy-data{suffix}",
        title="Accuracy against training data",
        caption=caption + left_out(found),
        alt="Line chart. " + " ".join(map(_data_words, found)),
        picture=figure,
    )


def _data_panel(axes: Any, panel: Panel, style: Mapping[Series, Look]) -> None:
    series = shown(panel)
    axes.set_xscale("log")
    for one in series:
        cells = panel.of(one)
        band(axes, style[one], [(cell.fraction, cell) for cell in cells], len(series) <= _BANDED)
    references = [*level_of_teachers(panel), *_all_data(panel, style)]
    _levels(axes, [c for c in panel.cells if c.series in series], references)
    fractions = sorted({cell.fraction for cell in panel.cells})
    ratio = fractions[-1] / fractions[0]
    axes.set_xlim(fractions[0] / ratio**0.06, fractions[-1] * ratio**0.06)
    most = {f: max(c.first.n_train or 0 for c in panel.cells if c.fraction == f) for f in fractions}
    ticks(axes, {f: f"{percent(f)}\n{most[f]:,}" for f in fractions}, width=3.3)
    axes.set_title(words(panel))
    axes.set_ylabel("accuracy")


@house_style
def by_size(rows: Sequence[ResultRow]) -> list[Figure]:
    """Accuracy of every series against the student's parameters at the most data, one panel a task.

    Raises:
        UndrawnError: no task has students of two sizes at its largest fraction.
    """
    found = [most_data(panel) for panel in panels(rows, by_student=False)]
    found = [panel for panel in found if len({cell.first.parameters for cell in panel.cells} - {None}) > 1]
    if not found:
        raise UndrawnError("the student's size does not vary: give several `students`")
    style = looks(cell.series for cell in cells_of(rows))
    return paged(found, _PAGE, lambda part, suffix: _size_figure(part, suffix, style))


def _size_figure(found: Sequence[Panel], suffix: str, style: Mapping[Series, Look]) -> Figure:
    figure, places = picture([_HEIGHT] * len(found))
    for axes, panel in zip(places, found, strict=True):
        _size_panel(axes, panel, style)
    places[-1].set_xlabel("parameters of the student")
    legend(figure, style, (one for panel in found for one in shown(panel)))
    seeds = "; ".join(dict.fromkeys(panel.seeds() for panel in found))
    shares = ", ".join(dict.fromkeys(percent(panel.cells[0].fraction) for panel in found))
    caption = (
        f"Accuracy on the test examples ({examples(found)}) against the student's size (logarithmic), "
        "trained "
        f"on {shares} of the training examples, mean over seeds; {_drawn(found)} are 95 % intervals "
        f"({seeds}). "
        "Thin line: the teacher, whose size is not on the axis. Students of different families differ in "
        "more than their size."
    )
    return Figure(
        name=f"accuracy-size{suffix}",
        title="Accuracy against student size",
        caption=caption + left_out(found),
        alt="Line chart. " + " ".join(map(_size_words, found)),
        picture=figure,
    )


def _size_panel(axes: Any, panel: Panel, style: Mapping[Series, Look]) -> None:
    series = shown(panel)
    axes.set_xscale("log")
    cells = [cell for cell in panel.cells if cell.series in series and cell.first.parameters]
    for one in series:
        points = [(float(c.first.parameters or 0), c) for c in cells if c.series == one]
        band(axes, style[one], sorted(points, key=lambda point: point[0]), len(series) <= _BANDED)
    _levels(axes, cells, level_of_teachers(panel))
    sizes = {float(cell.first.parameters or 0): cell.first.student or "" for cell in cells}
    ratio = max(sizes) / min(sizes)
    axes.set_xlim(min(sizes) / ratio**0.1, max(sizes) * ratio**0.1)
    ticks(
        axes,
        {size: f"{count(size)}\n{shortened(name.split('/')[-1], 16)}" for size, name in sizes.items()},
        3.3,
    )
    axes.set_title(words(panel))
    axes.set_ylabel("accuracy")


def count(parameters: float) -> str:
    """A number of parameters in few letters.

    >>> count(134_515_008), count(770e6), count(5_300), count(11e9)
    ('135M', '770M', '5.3k', '11B')
    """
    for unit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= unit:
            return f"{parameters / unit:.3g}{letter}"
    return f"{parameters:.0f}"


def level_of_teachers(panel: Panel) -> list[tuple[float, str, str, Any]]:
    """Level, words, colour and line of each teacher."""
    alone = len(panel.teachers) == 1
    return [
        (
            row.value,
            f"{'teacher' if alone else shortened(row.teacher, 14)}\n{100 * row.value:.1f} %",
            TEACHER,
            "-",
        )
        for row in panel.teachers
    ]


def _all_data(panel: Panel, style: Mapping[Series, Look]) -> list[tuple[float, str, str, Any]]:
    """The level of finetuning on all the data, where there is such a cell."""
    found = [cell for cell in panel.cells if cell.series.name == FINETUNE and cell.fraction == 1]
    return [
        (
            c.accuracy.value,
            f"finetune,\nall data\n{100 * c.accuracy.value:.1f} %",
            style[c.series].colour,
            "--",
        )
        for c in found[:1]
    ]


def _levels(axes: Any, cells: Sequence[Cell], lines: Sequence[tuple[float, str, str, Any]]) -> None:
    """Limits of the y axis, and the lines across it with their words."""
    limits = [limit for cell in cells for limit in (cell.accuracy.low, cell.accuracy.high)]
    span(axes, [*limits, *(value for value, *_ in lines)])
    for value, _, colour, line in lines:
        axes.axhline(value, color=colour, linestyle=line, linewidth=1.0, zorder=1.5)
    beside(axes, _HEIGHT, [(value, text, colour) for value, text, colour, _ in lines])


def _drawn(found: Sequence[Panel]) -> str:
    return "bars" if any(len(shown(panel)) > _BANDED for panel in found) else "bands"


def _data_words(panel: Panel) -> str:
    said = []
    for one in shown(panel):
        steps = [f"{percent(c.fraction)}: {100 * c.accuracy.value:.1f} %" for c in panel.of(one)]
        said.append(f"{one.label} {', '.join(steps)}")
    return f"{panel.title}: {'; '.join(said)}{_teacher_words(panel)}."


def _size_words(panel: Panel) -> str:
    said = []
    for one in shown(panel):
        cells = sorted(panel.of(one), key=lambda cell: cell.first.parameters or 0)
        steps = [f"{count(c.first.parameters or 0)}: {100 * c.accuracy.value:.1f} %" for c in cells]
        said.append(f"{one.label} {', '.join(steps)}")
    return f"{panel.title}: {'; '.join(said)}{_teacher_words(panel)}."


def _teacher_words(panel: Panel) -> str:
    return "".join(f"; teacher {shortened(row.teacher)} {100 * row.value:.1f} %" for row in panel.teachers)
