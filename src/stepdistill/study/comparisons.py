"""Which of two methods is ahead, cell by cell of a study, and one sentence that says how sure that is."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from stepdistill.errors import DataError
from stepdistill.evaluate.bootstrap import Difference, across_seeds, error, pooled
from stepdistill.evaluate.power import smallest_difference, smallest_over_seeds
from stepdistill.evaluate.statistics import holm
from stepdistill.study.folder import TEACHER
from stepdistill.study.pairs import Cell, any_row, cells_of, needed_teacher, pairs_of
from stepdistill.study.results import ResultRow

Outcomes = tuple[str, ...]
"""Outcomes of one predictor, one string a seed."""

LEVEL = 0.05
"""Largest p, after Holm, that is called a difference."""

# The same pairs are asked for by verdict, tables and figures.
_difference = lru_cache(maxsize=4096)(across_seeds)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two predictors in one cell of the grid, on the same test examples under the same seeds.

    Args:
        labels: what labels the second learned; "teacher against gold" where the first learned others.
        first: whom the second is compared with; `difference` is second - first.
        adjusted: p after Holm over the comparisons of its table.
        seeds: those that both were run with.
        teacher: whom the second learned from; "" where it needed none.
        validation: the second's mean score on validation.
        outcomes: of the first and of the second.
    """

    task: str
    labels: str
    fraction: float | None
    student: str | None
    first: str
    second: str
    difference: Difference
    adjusted: float
    seeds: tuple[int | None, ...]
    teacher: str
    rationales: str | None
    lambda_: float | str | None
    n_train: int | None
    parameters: int | None
    validation: float | None
    outcomes: tuple[Outcomes, Outcomes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison in words and numbers.

    Args:
        sentence: for people, with its confidence and what it is about.
        found: whether the method is shown to be ahead or behind; "nothing" where there are no results.
        difference: over the `about` cells, method - against; None where there is nothing.
        adjusted: its p after Holm over all comparisons of the table.
        smallest: the smallest difference that such a test shows at 80 % power, as a share, after Holm: with
            the level that the least p of the table must meet. None where none.
        about: the comparisons it is about, one a task.
        table: all comparisons of the two, with their adjusted p-values.
    """

    sentence: str
    found: Literal["ahead", "behind", "not shown", "nothing"]
    difference: Difference | None
    adjusted: float | None
    smallest: float | None
    about: tuple[Comparison, ...]
    table: tuple[Comparison, ...]


def compare_rows(rows: Sequence[ResultRow], method: str, against: str) -> list[Comparison]:
    """`method` compared with `against` in every cell where both have results, in the rows' order.

    A cell is a task, student and fraction, with the labels, the teacher, the rationales' source and lambda
    where these apply to both: labels or sources that one of the two never learned from (as of an arm that
    is defined by its source) do not part them. Seeds that only one of the two was run with are left out.
    p-values are adjusted over the table (Holm). Against "teacher" it is `against_teacher`.

    Raises:
        DataError: the two were measured on different test examples, or two rows stand in the same place.
    """
    if against == TEACHER:
        return against_teacher(rows, method)
    pairs = pairs_of(rows, method, against)
    return adjust(found for pair in pairs if (found := _compared(*pair)))


def against_teacher(rows: Sequence[ResultRow], method: str) -> list[Comparison]:
    """`method` compared with its own teacher's answers, in every cell; empty where he is not measured.

    Where the teacher's answers differ from seed to seed, each student is compared with those of its seed;
    else only the student's seeds vary.

    Raises:
        DataError: the teacher was measured on other test examples, or two rows stand in the same place.
    """
    teachers: dict[tuple[str, str], Cell] = {}
    for row in rows:
        if row.name == TEACHER:
            teachers.setdefault((row.task, row.teacher), {})[row.seed] = row
    found = []
    for cell in cells_of(rows, method):
        row = any_row(cell)
        if teacher := teachers.get((row.task, row.teacher)):
            found.append(_compared(dict.fromkeys(cell, teacher[None]) if None in teacher else teacher, cell))
    return adjust(comparison for comparison in found if comparison)


def adjust(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons as one table: p-values adjusted over all of them (Holm)."""
    table = list(comparisons)
    ps = holm([found.difference.p for found in table])
    return [replace(found, adjusted=p) for found, p in zip(table, ps, strict=True)]


def verdict(rows: Sequence[ResultRow], method: str, against: str) -> Verdict:
    """Whether `method` is ahead of `against` where all the data are used, as far as the results show it.

    It is about one cell of each task, chosen without a look at test: the largest fraction; the largest
    student; of labels, teachers and sources the first in the rows' order; of lambdas the one that is best on
    validation. Several tasks are pooled: the mean of their differences, each task weighing the same. Ahead or
    behind is said where p is at most 0.05 after Holm over all comparisons of the two, the pooled one among
    them.

    Raises:
        DataError: the two were measured on different test examples.
    """
    table = compare_rows(rows, method, against)
    if not table:
        return Verdict(_nothing(rows, method, against), "nothing", None, None, None, (), ())
    about = tuple(
        _chief([c for c in table if c.task == task]) for task in dict.fromkeys(c.task for c in table)
    )
    if len(about) == 1:
        difference, adjusted, count = about[0].difference, about[0].adjusted, len(table)
    else:
        difference = pooled([c.outcomes for c in about])
        adjusted = holm([difference.p, *(c.difference.p for c in table)])[0]
        count = len(table) + 1
    shown = adjusted <= LEVEL and difference.value != 0
    found: Literal["ahead", "behind", "not shown"] = "not shown"
    if shown:
        found = "ahead" if difference.value > 0 else "behind"
    smallest = _smallest(about, difference, LEVEL / count)
    words = _words(difference, adjusted, count)
    said = {
        "ahead": f"{method} is ahead of {against} by {words}",
        "behind": f"{method} is behind {against}: {words}",
        "not shown": f"{method} is not shown to differ from {against}: {words}",
    }[found]
    reach = "" if shown else _reach(smallest, len(about) > 1 or difference.seeds > 1)
    return Verdict(
        f"{_place(about, table)}, {said}{reach}.", found, difference, adjusted, smallest, about, tuple(table)
    )


def points(share: float) -> str:
    """A difference in points, with its sign.

    >>> points(0.0321), points(-0.02), points(-0.0001)
    ('+3.2', '-2.0', '0.0')
    """
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text


def p_value(p: float) -> str:
    """A p-value, short, but never rounded over `LEVEL`.

    >>> p_value(0.031), p_value(0.31234), p_value(0.0002), p_value(1.0), p_value(0.0503)
    ('p = 0.031', 'p = 0.31', 'p < 0.001', 'p = 1', 'p = 0.0503')
    """
    if p < 0.001:
        return "p < 0.001"
    texts = (f"{p:.{digits}g}" for digits in range(2, 18))
    return "p = " + next(text for text in texts if (float(text) <= LEVEL) == (p <= LEVEL))


def _compared(first: Cell, second: Cell) -> Comparison | None:
    seeds = tuple(seed for seed in second if seed in first)
    if not seeds:
        return None
    pairs = [(first[seed], second[seed]) for seed in seeds]
    before, after = pairs[0]
    tests = {row.test: row for pair in pairs for row in pair}
    if len(tests) > 1:
        one, other = list(tests.values())[:2]
        raise DataError(
            f"{one.name} in {one.trial} and {other.name} in {other.trial} were measured on different test "
            f"examples of {one.task}; only results on the same ones can be compared, so measure one of "
            "them again"
        )
    outcomes = (tuple(a.outcomes for a, _ in pairs), tuple(b.outcomes for _, b in pairs))
    scores = [b.validation for _, b in pairs if b.validation is not None]
    difference = _difference(*outcomes)
    alike = before.name == TEACHER or before.labels == after.labels
    return Comparison(
        task=after.task,
        labels=after.labels if alike else f"{after.labels} against {before.labels}",
        fraction=after.fraction,
        student=after.student,
        first=before.name,
        second=after.name,
        difference=difference,
        adjusted=difference.p,
        seeds=seeds,
        teacher=needed_teacher(after),
        rationales=after.rationales,
        lambda_=after.lambda_,
        n_train=after.n_train,
        parameters=after.parameters,
        validation=sum(scores) / len(scores) if len(scores) == len(seeds) else None,
        outcomes=outcomes,
    )


def _chief(cells: Sequence[Comparison]) -> Comparison:
    """The cell that speaks for its task; see `verdict`."""
    most = max(c.fraction or 0.0 for c in cells)
    cells = [c for c in cells if (c.fraction or 0.0) == most]
    largest = max(c.parameters or 0 for c in cells)
    cells = [c for c in cells if (c.parameters or 0) == largest]
    cells = [c for c in cells if _kind(c) == _kind(cells[0])]
    return max(cells, key=lambda c: -1.0 if c.validation is None else c.validation)


def _kind(cell: Comparison) -> tuple[object, ...]:
    return cell.student, cell.labels, cell.teacher, cell.rationales


def _smallest(about: Sequence[Comparison], found: Difference, level: float) -> float | None:
    pairs = [pair for one in about for pair in zip(*one.outcomes, strict=True)]
    differing = sum((a == "1") != (b == "1") for pair in pairs for a, b in zip(*pair, strict=True))
    if not differing:
        return None
    if len(pairs) > 1:
        return smallest_over_seeds(error([one.outcomes for one in about]), alpha=level)
    return smallest_difference(found.n, differing / found.n, alpha=level)


def _words(found: Difference, adjusted: float, count: int) -> str:
    p = p_value(found.p)
    if count > 1:
        alone = f"{p} by itself, " if found.p <= LEVEL < adjusted else ""
        p = f"{alone}{p_value(adjusted)} after Holm over {count} comparisons"
    size = f"{found.n:,} test examples"
    size = (
        f"{found.seeds} seeds x {size}"
        if found.seeds > 1
        else f"{size}; one seed, so nothing is said of other seeds"
    )
    return f"{points(found.value)} points (95 %: {points(found.low)} to {points(found.high)}; {p}; {size})"


def _reach(smallest: float | None, several: bool) -> str:
    """What such a test can show; `several` seeds or tasks, whose standard error is an estimate."""
    if smallest is not None:
        about = "about " if several else ""
        return (
            f"; such a test can show differences of {about}{100 * smallest:.1f} points or more at 80 % power"
        )
    few = "too few test examples, or seeds that differ too much," if several else None
    return (
        f"; {few or 'the two differ on too few test examples'} for any difference to be shown at 80 % power"
    )


def _place(about: Sequence[Comparison], table: Sequence[Comparison]) -> str:
    """What the sentence is about; of axes only those that vary in the table are named."""
    names = [cell.task for cell in about]
    tasks = f"On {names[0]}" if len(names) == 1 else f"On the mean of {len(names)} tasks ({', '.join(names)})"
    most = {cell.fraction or 1.0 for cell in about}
    share = "all" if most == {1.0} else " or ".join(f"{100 * part:g} %" for part in sorted(most))
    said = [f"{tasks} with {share} of the training data"]
    for axis in ("student", "labels", "teacher", "lambda_"):
        if len({getattr(cell, axis) for cell in table}) > 1:
            values = dict.fromkeys(str(getattr(cell, axis)) for cell in about)
            said.append(f"{axis.strip('_')} {' and '.join(values)}")
    return ", ".join(said)


def _nothing(rows: Sequence[ResultRow], method: str, against: str) -> str:
    names = {row.name for row in rows}
    missing = [name for name in (method, against) if name not in names]
    if missing:
        return f"There is nothing to compare: no result of {' and none of '.join(missing)}."
    return f"There is nothing to compare: {method} and {against} have no seed of a common cell."
