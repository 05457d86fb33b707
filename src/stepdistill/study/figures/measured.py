"""Which predictors' metrics are drawn: of each task the chief ones, with their seeds together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.study.figures.cells import Cell, Panel, most_data, panels
from stepdistill.study.figures.figure import Metrics
from stepdistill.study.figures.series import shortened
from stepdistill.study.figures.style import TEACHER, Look
from stepdistill.study.results import ResultRow

MOST = 4
"""Predictors of a task that are drawn: more pages of one kind would not be read."""
_TEACHER = Look(TEACHER, "*", "-", "full")


@dataclass(frozen=True, slots=True)
class Measured:
    """A predictor with the lines of `metrics.jsonl` of each of its seeds."""

    title: str
    label: str
    lines: tuple[Mapping[str, Any], ...]


def measured(
    rows: Sequence[ResultRow], metrics: Metrics, key: str, method: str, against: str
) -> list[Measured]:
    """Of each task at most `MOST` predictors whose metrics have `key`.

    They are the teacher, then `method` and `against`, then others, of the largest student, trained on the
    most data.
    """
    largest: dict[tuple[str, str], Panel] = {}
    for panel in panels(rows, by_student=True):
        largest[panel.task, panel.test] = most_data(panel)
    found = []
    for panel in largest.values():
        cells = sorted(panel.cells, key=lambda cell: _rank(cell, method, against))
        ours = [_teacher(row, panel, metrics, key) for row in panel.teachers[:1]]
        ours += [_student(cell, panel, metrics, key) for cell in cells]
        found += [one for one in ours if one.lines][:MOST]
    return found


def _rank(cell: Cell, method: str, against: str) -> int:
    return {method: 0, against: 1}.get(cell.series.name, 2)


def _teacher(row: ResultRow, panel: Panel, metrics: Metrics, key: str) -> Measured:
    return Measured(shortened(panel.task, 24), "teacher", _lines([row], metrics, key)[:1])


def _student(cell: Cell, panel: Panel, metrics: Metrics, key: str) -> Measured:
    return Measured(shortened(panel.task, 24), cell.series.label, _lines(cell.rows, metrics, key))


def _lines(rows: Sequence[ResultRow], metrics: Metrics, key: str) -> tuple[Mapping[str, Any], ...]:
    return tuple(
        line
        for row in rows
        for line in metrics.get(row.trial, ())
        if line["name"] == row.name and line.get(key)
    )
