"""Which predictors' metrics are drawn: of each task the chief ones, with their seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.study.figures.cells import Cell, Panel, most_data, of_largest, panels
from stepdistill.study.figures.figure import Metrics
from stepdistill.study.figures.series import Series, shortened
from stepdistill.study.results import ResultRow

_PAGES = 4
"""Pages of one kind, which the tasks share; more would not be read."""
_MOST = 3
"""Predictors of one task."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A predictor with the lines of `metrics.jsonl` of each of its seeds; a teacher has no series."""

    title: str
    label: str
    series: Series | None
    lines: tuple[Mapping[str, Any], ...]


def measured(
    rows: Sequence[ResultRow], metrics: Metrics, key: str, method: str, against: str
) -> list[Measured]:
    """Of each task the chief predictors whose metrics have `key`.

    They are `method`, then the teacher, `against`, and others, of the largest student, trained on the most
    data: as many as leave a few pages for each task, at least one.
    """
    largest = [most_data(panel) for panel in of_largest(panels(rows, by_student=True))]
    most = max(1, min(_MOST, _PAGES // max(1, len(largest))))
    found = []
    for panel in largest:
        cells = sorted(panel.cells, key=lambda cell: _rank(cell, method, against))
        ours = [_student(cell, panel, metrics, key) for cell in cells]
        ours[1:1] = [_teacher(row, panel, metrics, key) for row in panel.teachers[:1]]
        found += [one for one in ours if one.lines][:most]
    return found


def _rank(cell: Cell, method: str, against: str) -> int:
    return {method: 0, against: 1}.get(cell.series.name, 2)


def _teacher(row: ResultRow, panel: Panel, metrics: Metrics, key: str) -> Measured:
    return Measured(shortened(panel.task, 24), "teacher", None, _lines([row], metrics, key)[:1])


def _student(cell: Cell, panel: Panel, metrics: Metrics, key: str) -> Measured:
    return Measured(
        shortened(panel.task, 24), cell.series.label, cell.series, _lines(cell.rows, metrics, key)
    )


def _lines(rows: Sequence[ResultRow], metrics: Metrics, key: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        line
        for row in rows
        for line in metrics.get(row.trial, ())
        if line["name"] == row.name and line.get(key)
    )
