"""Accuracy of every method at the most data, one under the other: what a single run can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepdistill.evaluate.bootstrap import Interval
from stepdistill.study.figures.cells import Panel, cells_of, most_data, of_largest, panels
from stepdistill.study.figures.figure import Figure, UndrawnError
from stepdistill.study.figures.frame import picture
from stepdistill.study.figures.layout import examples, paged, words, wrapped
from stepdistill.study.figures.series import Series, shortened
from stepdistill.study.figures.style import (
    SMALL,
    TEACHERS,
    Look,
    house_style,
    in_percent,
    looks,
    percent,
)
from stepdistill.study.results import ResultRow

_PAGE = 4
_MOST = 24
"""Rows of a panel; a page has no room for more."""
_Row = tuple[str, Interval, Look]


@house_style
def by_method(rows: Sequence[ResultRow]) -> list[Figure]:
    """Accuracy of teacher and methods with intervals, one panel a task, of its largest student.

    Raises:
        UndrawnError: there are no students' rows.
    """
    found = [most_data(panel) for panel in of_largest(panels(rows, by_student=True))]
    if not found:
        raise UndrawnError("no student was measured")
    style = looks(cell.series for cell in cells_of(rows))
    return paged(found, _PAGE, lambda part, suffix: _figure(part, suffix, style))


def _figure(found: Sequence[Panel], suffix: str, style: Mapping[Series, Look]) -> Figure:
    lists = [_rows(panel, style) for panel in found]
    figure, places = picture([0.1 + 0.36 * len(one[:_MOST]) for one in lists])
    drawn = [found for list_ in lists for _, found, _ in list_[:_MOST]]
    low, high = min(found.low for found in drawn), max(found.high for found in drawn)
    for axes, panel, list_ in zip(places, found, lists, strict=True):
        _panel(axes, list_[:_MOST], (low, high))
        axes.set_title(words(panel))
    places[-1].set_xlabel("accuracy")
    seeds = "; ".join(dict.fromkeys(panel.seeds() for panel in found))
    shares = ", ".join(dict.fromkeys(percent(panel.cells[0].fraction) for panel in found))
    more = sum(max(0, len(list_) - _MOST) for list_ in lists)
    return Figure(
        name=f"accuracy{suffix}",
        title="Accuracy of every method",
        caption=(
            f"Accuracy on the test examples ({examples(found)}) after training on {shares} of the "
            "training examples (where there "
            f"are several students, of the largest): means over seeds with 95 % intervals ({seeds}; of a "
            "teacher: over test examples). Whether two methods differ is seen from their paired difference, "
            "not from here." + (f" {more} more are not drawn." if more else "")
        ),
        alt="Dot chart. " + " ".join(map(_said, found, lists)),
        picture=figure,
    )


def _rows(panel: Panel, style: Mapping[Series, Look]) -> list[_Row]:
    alone = len(panel.teachers) == 1
    teachers: list[_Row] = [
        (
            "teacher" if alone else f"teacher {shortened(t.teacher, 24)}",
            Interval(t.value, t.low, t.high),
            TEACHERS,
        )
        for t in panel.teachers
    ]
    return [*teachers, *((cell.series.label, cell.accuracy, style[cell.series]) for cell in panel.cells)]


def _panel(axes: Any, rows: Sequence[_Row], ends: tuple[float, float]) -> None:
    for place, (_, found, look) in enumerate(rows):
        axes.hlines(place, found.low, found.high, color=look.colour, linewidth=1.6)
        axes.plot([found.value], [place], **look.points(7), linestyle="")
        axes.text(
            1.015,
            place,
            f"{100 * found.value:.1f} %",
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=SMALL,
        )
    axes.set_yticks(range(len(rows)), [wrapped(name) for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    low, high = ends
    room = max(0.05 * (high - low), 0.01)
    axes.set_xlim(max(-0.015, low - room), min(1.015, high + room))
    axes.locator_params(axis="x", nbins=7)
    in_percent(axes.xaxis)
    axes.grid(axis="x", alpha=0.35, linewidth=0.6)
    axes.tick_params(axis="y", length=0)


def _said(panel: Panel, rows: Sequence[_Row]) -> str:
    said = [
        f"{n} {100 * f.value:.1f} % ({100 * f.low:.1f} to {100 * f.high:.1f})" for n, f, _ in rows[:_MOST]
    ]
    return f"{panel.title}: {'; '.join(said)}."
