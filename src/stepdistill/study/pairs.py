"""Cells of a study's grid, and which cells of two methods belong together."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from stepdistill.errors import DataError, unknown
from stepdistill.study.folder import TEACHER
from stepdistill.study.results import ResultRow

Cell = dict[int | None, ResultRow]
"""Rows that differ in their seed alone, by seed."""


def pairs_of(rows: Sequence[ResultRow], method: str, against: str) -> list[tuple[Cell, Cell]]:
    """Cells of `against` and of `method` that are to be compared; see `comparisons.compare_rows`.

    Raises:
        DataError: two rows stand in the same place.
    """
    seconds, firsts = cells_of(rows, method), cells_of(rows, against)
    parted = {
        axis: {getattr(any_row(cell), axis) for cell in seconds}
        & {getattr(any_row(cell), axis) for cell in firsts}
        for axis in ("labels", "rationales")
    }
    return [
        (first, second)
        for second in seconds
        for first in firsts
        if _alike(any_row(first), any_row(second), parted)
    ]


def cells_of(rows: Sequence[ResultRow], name: str) -> list[Cell]:
    """The cells of one method, in the rows' order, seeds ascending.

    Raises:
        DataError: two rows stand in the same place.
    """
    cells: dict[tuple[object, ...], Cell] = defaultdict(dict)
    for row in rows:
        if row.name != name or row.name == TEACHER:
            continue
        key = (
            row.task,
            row.student,
            row.fraction,
            row.labels,
            row.rationales,
            row.lambda_,
            needed_teacher(row),
        )
        other = cells[key].setdefault(row.seed, row)
        if other is not row:
            raise DataError(
                f"{name}: the results of {other.trial} and {row.trial} stand in the same place of the grid; "
                "they differ in keys that are no axis of it, so compare them in studies of their own"
            )
    return [dict(sorted(cell.items(), key=lambda item: item[0] or 0)) for cell in cells.values()]


def any_row(cell: Cell) -> ResultRow:
    """A row of the cell: all but seed and scores stand in every one."""
    return next(iter(cell.values()))


def needed_teacher(row: ResultRow) -> str:
    """The teacher that a row learned from, "" where it needed none."""
    # An arm that asks no teacher is the same whichever teacher the other arms of its grid asked.
    asked = row.labels != "gold" or row.rationales in ("teacher", "shuffled", "filler")
    return row.teacher if asked else ""


def _alike(first: ResultRow, second: ResultRow, parted: dict[str, set[str | None]]) -> bool:
    """Whether two cells are to be compared."""
    if (first.task, first.student, first.fraction) != (second.task, second.student, second.fraction):
        return False
    if needed_teacher(first) and needed_teacher(second) and first.teacher != second.teacher:
        return False
    if None not in (first.lambda_, second.lambda_) and first.lambda_ != second.lambda_:
        return False
    pairs = ((shared, getattr(first, axis), getattr(second, axis)) for axis, shared in parted.items())
    return all(not shared or a == b or None in (a, b) for shared, a, b in pairs)


def measured_disagreement(folder: Path, task: str | None = None) -> dict[str, float | int]:
    """How often two students of a finished run or study part: `n`, `disagreement` and the number of `pairs`.

    The mean, over all pairs of arms of the same student, fraction and seed, of the share of test examples on
    which exactly one of the two is right; `n` is the smallest number of test examples.

    Args:
        task: which of several tasks: their disagreements and test sets have nothing to do with each other.

    Raises:
        DataError: no results, none of this task, several tasks and none is named, or no two students on the
            same test examples that ever part.
    """
    from stepdistill.study.gather import gather

    students = [row for row in gather(folder) if row.name != TEACHER]
    tasks = sorted({row.task for row in students})
    if task is None and len(tasks) > 1:
        raise DataError(f"{folder} has results of several tasks ({', '.join(tasks)}): name one by --task")
    if task is not None and tasks and task not in tasks:
        raise DataError(unknown("task", task, tasks))
    places: dict[tuple[object, ...], list[ResultRow]] = defaultdict(list)
    for row in students:
        if task in (None, row.task):
            places[row.test, row.student, row.fraction, row.seed].append(row)
    shares = [
        sum((x == "1") != (y == "1") for x, y in zip(a.outcomes, b.outcomes, strict=True)) / a.n
        for found in places.values()
        for a, b in itertools.combinations(found, 2)
    ]
    if not any(shares):
        raise DataError(
            f"{folder}: no two students differ on its test examples; give --disagreement, such as 0.25"
        )
    n = min(row.n for found in places.values() for row in found)
    return {"n": n, "disagreement": sum(shares) / len(shares), "pairs": len(shares)}
