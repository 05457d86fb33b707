"""Result rows gathered into cells: one series at one place of the grid, with all its seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from stepdistill.evaluate.bootstrap import Interval, mean_accuracy
from stepdistill.study.figures.series import Series, series_of, shortened
from stepdistill.study.folder import TEACHER
from stepdistill.study.results import ResultRow

_Key = tuple[str, str, str, Series, float]


@dataclass(frozen=True, slots=True)
class Cell:
    """Trials that differ in their seed alone, in the order of the seeds."""

    series: Series
    rows: tuple[ResultRow, ...]

    @property
    def first(self) -> ResultRow:
        """The row of the lowest seed: what all rows have in common stands in it."""
        return self.rows[0]

    @property
    def fraction(self) -> float:
        """Share of the training examples."""
        return _share(self.first)

    @property
    def seeds(self) -> int:
        """Number of trials."""
        return len(self.rows)

    @property
    def accuracy(self) -> Interval:
        """Mean over the seeds with its 95 % interval over seeds and test examples."""
        return _accuracy(tuple(row.outcomes for row in self.rows))

    def mean(self, values: Iterable[float | None]) -> float | None:
        """The mean of one value a row; None where a row has none."""
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(self.rows) else None


@dataclass(frozen=True, slots=True)
class Panel:
    """What can be compared with each other: cells and teachers on the same test examples.

    `student` is empty where a panel holds several.
    """

    task: str
    test: str
    student: str
    title: str
    cells: tuple[Cell, ...]
    teachers: tuple[ResultRow, ...]

    @property
    def n(self) -> int:
        """Number of test examples."""
        return [*(cell.first for cell in self.cells), *self.teachers][0].n

    @property
    def series(self) -> list[Series]:
        """Its series in the order of legends."""
        return list(dict.fromkeys(cell.series for cell in self.cells))

    def of(self, series: Series) -> list[Cell]:
        """The cells of one series in the order of their fractions."""
        return sorted((c for c in self.cells if c.series == series), key=lambda cell: cell.fraction)

    def seeds(self) -> str:
        """How many seeds its cells have, and so what their intervals can know, in words."""
        counts = {cell.seeds for cell in self.cells}
        low, high = min(counts), max(counts)
        if high == 1:
            return "one seed: they show the choice of test examples only"
        if low == high:
            return f"{high} seeds: they are over seeds and test examples"
        alone = ", where there is one seed over test examples only" if low == 1 else ""
        return f"{low} to {high} seeds: they are over seeds and test examples{alone}"


def cells_of(rows: Sequence[ResultRow]) -> list[Cell]:
    """The students' cells: by series, in the order of legends, then by size and fraction."""
    rows = sorted(rows, key=lambda row: (row.task, row.trial, row.name))
    groups: dict[_Key, dict[int, ResultRow]] = defaultdict(dict)
    for place, series in series_of(rows).items():
        row, twin = rows[place], 0
        while True:
            apart = series if not twin else replace(series, twin=twin, label=f"{series.label} #{twin + 1}")
            seeds = groups[(row.task, row.test, row.student or "", apart, _share(row))]
            known = seeds.setdefault(row.seed or 0, row)
            if known.outcomes == row.outcomes:
                break
            twin += 1
    found = [Cell(key[3], tuple(row for _, row in sorted(seeds.items()))) for key, seeds in groups.items()]
    order = {one: place for place, one in enumerate(dict.fromkeys(cell.series for cell in found))}
    return sorted(found, key=lambda cell: (order[cell.series], cell.first.parameters or 0, cell.fraction))


def panels(rows: Sequence[ResultRow], by_student: bool) -> list[Panel]:
    """One panel a task (and a student): tasks in the order of their names, students by size."""
    groups: dict[tuple[str, str, int, str], list[Cell]] = defaultdict(list)
    for cell in cells_of(rows):
        row = cell.first
        student = (row.parameters or 0, row.student or "") if by_student else (0, "")
        groups[(row.task, row.test, *student)].append(cell)
    tests = {(task, test) for task, test, _, _ in groups}
    return [
        Panel(
            task=task,
            test=test,
            student=student,
            title=_title(task, test if sum(t == task for t, _ in tests) > 1 else "", student),
            cells=tuple(cells),
            teachers=tuple(teachers_of(rows, task, test)),
        )
        for (task, test, _, student), cells in sorted(groups.items())
    ]


def of_largest(found: Iterable[Panel]) -> list[Panel]:
    """Of each task the panel of its largest student alone."""
    return list({(panel.task, panel.test): panel for panel in found}.values())


def teachers_of(rows: Sequence[ResultRow], task: str, test: str) -> list[ResultRow]:
    """The teachers' rows on these test examples, each teacher once, by name.

    The score is the mean where there is a row for each seed.
    """
    found: dict[tuple[str, str], list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.name == TEACHER and row.task == task and row.test == test:
            found[row.teacher, row.labels].append(row)
    return [_mean(some) for _, some in sorted(found.items())]


def _mean(rows: Sequence[ResultRow]) -> ResultRow:
    """One row, with the mean score of all."""
    if len(rows) == 1:
        return rows[0]
    score = _accuracy(tuple(row.outcomes for row in rows))
    return replace(rows[0], value=score.value, low=score.low, high=score.high)


def most_data(panel: Panel) -> Panel:
    """The panel with those cells alone that have seen the largest fraction of it."""
    most = max(cell.fraction for cell in panel.cells)
    return replace(panel, cells=tuple(cell for cell in panel.cells if cell.fraction == most))


def _title(task: str, test: str, student: str) -> str:
    more = [shortened(student.split("/")[-1].removesuffix(".gguf"), 26)] if student else []
    more += [f"test {test[:6]}"] if test else []
    return ", ".join([shortened(task, 24), *more])


def _share(row: ResultRow) -> float:
    return 1.0 if row.fraction is None else row.fraction


@lru_cache(maxsize=4096)
def _accuracy(outcomes: tuple[str, ...]) -> Interval:
    # Several figures show the same cells: the resampling is done once.
    return mean_accuracy(outcomes)
