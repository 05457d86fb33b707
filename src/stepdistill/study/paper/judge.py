"""Published numbers beside ours: does either lie in the other's interval, and does the direction agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stepdistill.evaluate.statistics import Z95, wilson
from stepdistill.study.paper.judged import Judged, Measured, Reported
from stepdistill.study.paper.published import Scores, Shares, published
from stepdistill.study.results import ResultRow

PALM = "PaLM-540B"
"""The teacher whose outputs were released; in a row, `recorded` completions of the paper's tasks are its."""
TEACHER = "teacher"
NOT_RUN = "nothing comparable was run here"
ALPHA = 0.05


def judge(rows: Sequence[ResultRow], name: str) -> list[Judged]:
    """Every published number of a table or figure, beside ours of the same task, method and labels.

    Ours are of all the data, or of the largest part that was run; a number that was measured with several
    students stands there once for each. Numbers of another student than the paper's are set beside it too,
    and say so: of those only the direction compares.

    Args:
        rows: results of a study or of several.
        name: "table1", "figure4" and so on; others give an empty list.
    """
    found: list[Judged] = []
    for block in published().scores:
        if name in block.names:
            found += [*_accuracies(rows, block), *_differences(rows, block)]
    for share in published().shares:
        if name in share.names:
            found += _shares(rows, share)
    # The tables share columns: the same number beside the same of ours is said once.
    once = {(j.kind, j.task, j.what, j.published.value, j.published.runs, j.ours): j for j in reversed(found)}
    kept = {id(one) for one in once.values()}
    return [one for one in found if id(one) in kept]


def _accuracies(rows: Sequence[ResultRow], block: Scores) -> Iterator[Judged]:
    tests = published().tests
    for method, values in block.accuracy.items():
        what = method + _whose(method, block)
        for task, percent in values.items():
            n, value = tests[task], percent / 100
            reported = Reported(value, *wilson(value * n, n), n, block.runs, block.source)
            groups = _by_student(matching(rows, task, method, block.labels, block.teacher))
            for student, group in groups.items():
                ours = _mean(student, group, block)
                if block.judged:
                    yield Judged("accuracy", task, what, reported, ours, *_inside(reported, ours))
                else:
                    yield Judged("accuracy", task, what, reported, ours, why_not=block.why)
            if not groups:
                yield Judged("accuracy", task, what, reported, why_not=block.why or NOT_RUN)


def _mean(student: str | None, rows: Sequence[ResultRow], block: Scores) -> Measured:
    """The mean over the seeds at the largest part of the data."""
    from stepdistill.evaluate.bootstrap import mean_accuracy

    part = max(map(_fraction, rows))
    outcomes = {row.seed: row.outcomes for row in rows if _fraction(row) == part}
    found = mean_accuracy(list(outcomes.values()))
    same = block.student is None or called(student) == block.student
    return Measured(found.value, found.low, found.high, None, len(outcomes), part, called(student), same)


def _differences(rows: Sequence[ResultRow], block: Scores) -> Iterator[Judged]:
    """Of step-by-step and every other method of a source."""
    ahead = block.accuracy.get("step-by-step", {})
    for method, values in block.accuracy.items():
        for task in values if method != "step-by-step" and block.judged else ():
            if task not in ahead:
                continue
            reported = _unpaired(values[task] / 100, ahead[task] / 100, published().tests[task], block)
            what = f"step-by-step - {method}" + _whose("step-by-step", block)
            beyond = bool(reported.low and reported.high and reported.low * reported.high > 0)
            before = _by_student(matching(rows, task, method, block.labels, block.teacher))
            after = _by_student(matching(rows, task, "step-by-step", block.labels, block.teacher))
            measured = [
                one
                for student in before
                if student in after
                if (one := _difference(before[student], after[student], block.student))
            ]
            for ours in measured:
                sign = _sign(ours.value) == _sign(reported.value)
                shown = ours.p is not None and ours.p <= ALPHA
                inside = _inside(reported, ours)
                yield Judged("difference", task, what, reported, ours, *inside, sign, shown, beyond)
            if not measured:
                yield Judged("difference", task, what, reported, published_shown=beyond, why_not=NOT_RUN)


def _difference(
    before: Sequence[ResultRow], after: Sequence[ResultRow], student: str | None
) -> Measured | None:
    """At the largest part of the data that both were trained on, over the seeds that both have."""
    parts = {_fraction(row) for row in before} & {_fraction(row) for row in after}
    if not parts:
        return None
    part = max(parts)
    return compared(
        [row for row in before if _fraction(row) == part],
        [row for row in after if _fraction(row) == part],
        student,
    )


def compared(before: Sequence[ResultRow], after: Sequence[ResultRow], student: str | None) -> Measured | None:
    """How far `after` is ahead over the seeds that both have; None where they share none."""
    from stepdistill.evaluate.bootstrap import across_seeds

    first, second = ({(r.seed, r.test): r for r in rows} for rows in (before, after))
    both = [key for key in first if key in second]
    if not both:
        return None
    found = across_seeds([first[key].outcomes for key in both], [second[key].outcomes for key in both])
    row = second[both[0]]
    name = called(row.student)
    return Measured(
        found.value, found.low, found.high, found.p, found.seeds, _fraction(row), name, name == student
    )


def _shares(rows: Sequence[ResultRow], block: Shares) -> Iterator[Judged]:
    what = f"{block.method} against {block.against} on all data"
    for task, value in block.share.items():
        reported = Reported(value, None, None, published().tests[task], 4, block.source)
        after = _by_student(matching(rows, task, block.method, block.labels, PALM))
        before = _by_student(matching(rows, task, block.against, block.labels, PALM))
        measured = [
            (student, found)
            for student in after
            if (found := _passed(before.get(student, []), after[student], block.student))
        ]
        for _, (ours, shown) in measured:
            yield Judged("share", task, what, reported, ours, shown=shown)
        if not measured:
            yield Judged("share", task, what, reported, why_not=NOT_RUN)


def _passed(
    before: Sequence[ResultRow], after: Sequence[ResultRow], student: str
) -> tuple[Measured, bool] | None:
    """The smallest part with which the mean is at least the other's on all; None below two parts."""
    whole = [row for row in before if _fraction(row) == 1]
    parts = sorted({_fraction(row) for row in after})
    if not whole or len(parts) < 2:
        return None
    for part in parts:
        found = compared(whole, [row for row in after if _fraction(row) == part], student)
        if found and found.value is not None and found.value >= 0:
            shown = found.value > 0 and found.p is not None and found.p <= ALPHA
            return Measured(
                part, None, None, found.p, found.seeds, part, found.student, found.same_student
            ), shown
    name = called(after[0].student)
    seeds = len({row.seed for row in after})
    return Measured(None, None, None, None, seeds, parts[-1], name, name == student), False


def matching(
    rows: Sequence[ResultRow], task: str, method: str, labels: str | None, teacher: str
) -> list[ResultRow]:
    """Rows of a method with the teacher's rationales and a lambda of 1, as the paper has them."""
    return [
        row
        for row in rows
        if (row.task, row.name) == (task, method)
        and row.rationales in (None, "teacher")
        and row.lambda_ in (None, 1.0)
        and (method == TEACHER or row.labels == labels)
        and (method == "finetune" or (PALM if row.teacher == "recorded" else row.teacher) == teacher)
    ]


def called(student: str | None) -> str | None:
    """The end of a student's path or hub id: "t5-v1_1-base" wherever it lies."""
    return student.rstrip("/").rsplit("/", 1)[-1] if student else None


def _by_student(rows: Sequence[ResultRow]) -> dict[str | None, list[ResultRow]]:
    found: dict[str | None, list[ResultRow]] = {}
    for row in rows:
        found.setdefault(row.student, []).append(row)
    return found


def _whose(method: str, block: Scores) -> str:
    """Whose rationales, where they are not the usual teacher's."""
    return "" if block.teacher == PALM or method == "finetune" else f", rationales of {block.teacher}"


def _fraction(row: ResultRow) -> float:
    return 1.0 if row.fraction is None else row.fraction


def _unpaired(first: float, second: float, n: int, block: Scores) -> Reported:
    value = second - first
    half = Z95 * math.sqrt((first * (1 - first) + second * (1 - second)) / n)
    return Reported(value, value - half, value + half, n, block.runs, block.source)


def _inside(reported: Reported, ours: Measured) -> tuple[bool, bool]:
    """Whether the published number lies in our interval, and ours in its."""
    given = (ours.value, ours.low, ours.high, reported.low, reported.high)
    value, low, high, bottom, top = (number if number is not None else math.nan for number in given)
    return low <= reported.value <= high, bottom <= value <= top


def _sign(value: float | None) -> int:
    return 0 if not value else 1 if value > 0 else -1
