"""The least data and the smallest student that reach the teacher (the paper's Figures 8 and 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from matplotlib.lines import Line2D

from stepdistill.study.figures.accuracy import count, level_of_teachers
from stepdistill.study.figures.cells import Cell, Panel, cells_of, panels
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import BELOW, picture
from stepdistill.study.figures.layout import (
    beside,
    examples,
    left_out,
    named,
    paged,
    shown,
    span,
    ticks,
    words,
)
from stepdistill.study.figures.series import Series
from stepdistill.study.figures.style import FAINT, INK, Look, house_style, looks, percent
from stepdistill.study.results import ResultRow

_HEIGHT = 2.5
_PAGE = 4
_SMALLEST, _LARGEST = 4.0, 20.0
"""Points: widths of the bubbles; where many stand beside each other the largest are smaller."""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Widths of bubbles for the students' sizes, in ascending order."""

    sizes: Sequence[int]
    largest: float

    def width(self, parameters: int) -> float:
        low, high, here = (log(max(1, n)) for n in (self.sizes[0], self.sizes[-1], parameters))
        part = (here - low) / (high - low) if high > low else 0.5
        return _SMALLEST + part * (self.largest - _SMALLEST)


@house_style
def bubbles(rows: Sequence[ResultRow]) -> list[Figure]:
    """Accuracy against data, the bubble's size for the student's, filled where the teacher is reached.

    Raises:
        UndrawnError: no task has a teacher's row, two fractions and two sizes of students.
    """
    found = [p for p in panels(rows, by_student=False) if _varies(p)]
    if not found:
        raise UndrawnError(
            "needs, of one task, the teacher's accuracy, several `fractions` and `students` of several sizes"
        )
    style = looks(cell.series for cell in cells_of(rows))
    return paged(found, _PAGE, lambda part, suffix: _figure(part, suffix, style))


def least(panel: Panel, series: Series) -> Cell | None:
    """Of a series' cells that reach the best teacher: the smallest student, then the least data."""
    target = max(row.value for row in panel.teachers)
    reached = [cell for cell in panel.of(series) if cell.accuracy.value >= target]
    return min(reached, key=lambda cell: (cell.first.parameters or 0, cell.fraction), default=None)


def _varies(panel: Panel) -> bool:
    sizes = {cell.first.parameters for cell in panel.cells} - {None}
    return bool(panel.teachers) and len(sizes) > 1 and len({cell.fraction for cell in panel.cells}) > 1


def _figure(found: Sequence[Panel], suffix: str, style: Mapping[Series, Look]) -> Figure:
    figure, places = picture([_HEIGHT] * len(found))
    sizes = sorted({cell.first.parameters or 0 for panel in found for cell in panel.cells})
    beside_each_other = max(len({c.fraction for c in p.cells}) * len(shown(p)) for p in found)
    scale = _Scale(sizes, max(_SMALLEST + 3, min(_LARGEST, 180 / beside_each_other)))
    for axes, panel in zip(places, found, strict=True):
        _panel(axes, panel, style, scale)
    places[-1].set_xlabel("share of the training examples (below: their number)")
    _legend(figure, list(dict.fromkeys(one for panel in found for one in shown(panel))), style, scale)
    seeds = "; ".join(dict.fromkeys(panel.seeds().partition(":")[0] for panel in found))
    return Figure(
        name=f"minimum{suffix}",
        title="Least data and smallest student",
        caption=(
            f"Accuracy on the test examples ({examples(found)}; mean over {seeds}) against the share of the "
            "training examples, all shares at equal distances; the larger the bubble, the larger the student "
            "(its width grows with the logarithm of the parameters). Filled: at or above the teacher's line; "
            "hollow: below it. A ring marks, of each method, the smallest student that reaches the line, "
            "with the least data. Being above the line is no proof of being better: intervals are in the "
            "other figures." + left_out(found)
        ),
        alt="Bubble chart. " + " ".join(map(_said, found)),
        picture=figure,
    )


def _panel(axes: Any, panel: Panel, style: Mapping[Series, Look], scale: _Scale) -> None:
    target = max(row.value for row in panel.teachers)
    series = shown(panel)
    fractions = sorted({cell.fraction for cell in panel.cells})
    cells = sorted(
        (c for c in panel.cells if c.series in series), key=lambda cell: -(cell.first.parameters or 0)
    )
    for cell in cells:
        place = _aside(fractions.index(cell.fraction), series.index(cell.series), len(series))
        look, width = style[cell.series], scale.width(cell.first.parameters or 0)
        _bubble(axes, (place, cell.accuracy.value), look, width, cell.accuracy.value >= target)
        if least(panel, cell.series) is cell:
            axes.plot(
                [place], [cell.accuracy.value], "o", ms=width + 7, mfc="none", mec=INK, mew=1.3, zorder=4
            )
    levels = level_of_teachers(panel)
    values = [cell.accuracy.value for cell in cells]
    span(axes, [*values, *(value for value, *_ in levels)], least=0.14)
    for value, _, colour, line in levels:
        axes.axhline(value, color=colour, linestyle=line, linewidth=1.0, zorder=1.5)
    beside(axes, _HEIGHT, [(value, text, colour) for value, text, colour, _ in levels])
    axes.set_xlim(-0.6, len(fractions) - 0.4)
    most = {f: max(c.first.n_train or 0 for c in panel.cells if c.fraction == f) for f in fractions}
    ticks(axes, {float(k): f"{percent(f)}\n{most[f]:,}" for k, f in enumerate(fractions)}, width=3.3)
    axes.set_title(words(panel))
    axes.set_ylabel("accuracy")


def _bubble(axes: Any, point: tuple[float, float], look: Look, width: float, reached: bool) -> None:
    face = (*_rgb(look.colour), 0.55) if reached else (1.0, 1.0, 1.0, 0.0)
    marker = {"marker": look.marker, "markersize": width, "markerfacecolor": face, "linestyle": ""}
    edge = {"markeredgecolor": look.colour, "markeredgewidth": 1.4}
    axes.plot([point[0]], [point[1]], **marker, **edge, zorder=3)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    return red, green, blue


def _aside(rank: int, place: int, series: int) -> float:
    """The place of a cell on the x axis, where fractions stand 1 apart by their rank.

    The series of a fraction stand beside each other within 0.8, so that none covers another, whichever
    fractions there are.
    """
    return rank + 0.8 * (place - (series - 1) / 2) / max(1, series)


def _legend(figure: Any, series: Sequence[Series], style: Mapping[Series, Look], scale: _Scale) -> None:
    empty: dict[str, Any] = {"linestyle": "", "markerfacecolor": "none"}
    named(figure, [(one.label, style[one]) for one in series], line=False)
    some = (
        scale.sizes
        if len(scale.sizes) <= 4
        else [scale.sizes[0], scale.sizes[len(scale.sizes) // 2], scale.sizes[-1]]
    )
    handles = [
        Line2D([], [], marker="o", color=FAINT, markersize=scale.width(n), label=count(n), **empty)
        for n in some
    ]
    title = "parameters of the student"
    found = figure.legend(
        handles=handles,
        loc="lower left",
        borderaxespad=0,
        ncols=len(some),
        title=title,
        columnspacing=1.5,
        labelspacing=1.2,
        handleheight=0.13 * scale.largest,
        borderpad=0.3,
    )
    found.set_gid(BELOW)


def _said(panel: Panel) -> str:
    said = []
    for one in shown(panel):
        cell = least(panel, one)
        where = "reaches it nowhere"
        if cell:
            size, share = count(cell.first.parameters or 0), percent(cell.fraction)
            where = f"reaches it first with {size} parameters and {share} of the data"
        said.append(f"{one.label} {where}")
    target = max(row.value for row in panel.teachers)
    return f"{panel.title}: teacher {100 * target:.1f} %; {'; '.join(said)}."
