"""Published numbers beside ours: does either lie in the other's interval, and does the direction agree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from stepdistill.evaluate.statistics import Z95, wilson
from stepdistill.study.paper.judged import Judged, Kind, Measured, Reported
from stepdistill.study.paper.published import Scores, Shares, published
from stepdistill.study.results import ResultRow

PALM = "PaLM-540B"
"""The teacher whose outputs were released; in a row, `recorded` completions of the paper's tasks are its."""
TEACHER = "teacher"
NOT_RUN = "nothing comparable was run here"
TWINS = "several results of one seed stand in the same place; give what differs a study of its own"
PART = "on a part of the data"
ENOUGH = 0.8
"""Of the published training examples, what counts as all: those without a readable label are left out."""
ALPHA = 0.05


def judge(rows: Sequence[ResultRow], name: str) -> list[Judged]:
    """Every published number of a table or figure, beside ours of the same task, method and labels.

    Ours are of all the data, or of the largest part that was run; a number that was measured with several
    students, or on several test sets, stands there once for each. Numbers of another student than the paper's
    are set beside it too, and say so: of those only the direction compares. Those of other examples than the
    published ones are shown and not judged.

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
            groups = _alike(matching(rows, task, method, block.labels, block.teacher))
            for group in groups.values():
                part = max(map(_fraction, group))
                yield _accuracy(what, reported, [row for row in group if _fraction(row) == part], block)
            if not groups:
                yield Judged("accuracy", task, what, reported, why_not=block.why or NOT_RUN)


def _accuracy(what: str, reported: Reported, rows: Sequence[ResultRow], block: Scores) -> Judged:
    """One accuracy beside the mean over the seeds of rows of one part of the data."""
    from stepdistill.evaluate.bootstrap import mean_accuracy

    task, why = rows[0].task, hindrance(rows)
    if why == TWINS:
        return Judged("accuracy", task, what, reported, why_not=why)
    outcomes = {row.seed: row.outcomes for row in rows}
    found = mean_accuracy(list(outcomes.values()))
    ours = _measured((found.value, found.low, found.high, None), len(outcomes), rows, block.student)
    if why := block.why or why:
        return Judged("accuracy", task, what, reported, ours, why_not=why)
    return Judged("accuracy", task, what, reported, ours, *_inside(reported, ours))


def _differences(rows: Sequence[ResultRow], block: Scores) -> Iterator[Judged]:
    """Of step-by-step and every other method of a source."""
    ahead = block.accuracy.get("step-by-step", {})
    for method, values in block.accuracy.items():
        for task in values if method != "step-by-step" and block.judged else ():
            if task not in ahead:
                continue
            reported = _unpaired(values[task] / 100, ahead[task] / 100, published().tests[task], block)
            what = f"step-by-step - {method}" + _whose("step-by-step", block)
            before = _alike(matching(rows, task, method, block.labels, block.teacher))
            after = _alike(matching(rows, task, "step-by-step", block.labels, block.teacher))
            judged = [
                one
                for place in before
                if place in after
                if (one := _difference(what, reported, before[place], after[place], block))
            ]
            beyond = _beyond_chance(reported)
            yield from judged or [
                Judged("difference", task, what, reported, published_shown=beyond, why_not=NOT_RUN)
            ]


def _difference(
    what: str, reported: Reported, before: Sequence[ResultRow], after: Sequence[ResultRow], block: Scores
) -> Judged | None:
    """At the largest part of the data that both were trained on, over the seeds that both have."""
    parts = {_fraction(row) for row in before} & {_fraction(row) for row in after}
    before, after = (
        [row for row in rows if _fraction(row) == max(parts, default=0)] for rows in (before, after)
    )
    ours = compared(before, after, block.student)
    if ours is None:
        return None
    begin: tuple[Kind, str, str, Reported] = ("difference", after[0].task, what, reported)
    beyond, shown = _beyond_chance(reported), ours.p is not None and ours.p <= ALPHA
    if why := hindrance(before, after):
        return Judged(*begin, None if why == TWINS else ours, published_shown=beyond, why_not=why)
    sign = _sign(ours.value) == _sign(reported.value)
    return Judged(*begin, ours, *_inside(reported, ours), sign, shown, beyond)


def compared(before: Sequence[ResultRow], after: Sequence[ResultRow], student: str | None) -> Measured | None:
    """How far `after` is ahead over the seeds that both have; None where they share none."""
    from stepdistill.evaluate.bootstrap import across_seeds

    first, second = ({(r.seed, r.test): r for r in rows} for rows in (before, after))
    both = [key for key in first if key in second]
    if not both:
        return None
    found = across_seeds([first[key].outcomes for key in both], [second[key].outcomes for key in both])
    numbers = (found.value, found.low, found.high, found.p)
    return _measured(numbers, found.seeds, [second[key] for key in both], student)


def _shares(rows: Sequence[ResultRow], block: Shares) -> Iterator[Judged]:
    what = f"{block.method} against {block.against} on all data"
    for task, value in block.share.items():
        reported = Reported(value, None, None, published().tests[task], 4, block.source)
        after = _alike(matching(rows, task, block.method, block.labels, PALM))
        before = _alike(matching(rows, task, block.against, block.labels, PALM))
        judged = []
        for place in after:
            whole = [row for row in before.get(place, []) if _fraction(row) == 1]
            if not (found := _passed(whole, after[place], block.student)):
                continue
            ours, shown = found
            why = hindrance(whole, after[place], parts=True)
            mine = None if why == TWINS else ours
            judged.append(Judged("share", task, what, reported, mine, shown=shown, why_not=why))
        yield from judged or [Judged("share", task, what, reported, why_not=NOT_RUN)]


def _passed(
    whole: Sequence[ResultRow], after: Sequence[ResultRow], student: str
) -> tuple[Measured, bool] | None:
    """The smallest part with which the mean is at least the other's on all; None below two parts."""
    parts = sorted({_fraction(row) for row in after})
    if not whole or len(parts) < 2:
        return None
    for part in parts:
        rows = [row for row in after if _fraction(row) == part]
        found = compared(whole, rows, student)
        if found and found.value is not None and found.value >= 0:
            shown = found.value > 0 and found.p is not None and found.p <= ALPHA
            return _measured((part, None, None, found.p), found.seeds, rows, student), shown
    seeds = len({row.seed for row in after})
    largest = [row for row in after if _fraction(row) == parts[-1]]
    return _measured((None, None, None, None), seeds, largest, student), False


def _measured(
    numbers: tuple[float | None, float | None, float | None, float | None],
    seeds: int,
    rows: Sequence[ResultRow],
    student: str | None,
) -> Measured:
    """Ours: value, low, high and p, of rows of one student, part and test set."""
    row, name = rows[0], called(rows[0].student)
    trained = min((one.n_train for one in rows if one.n_train is not None), default=None)
    same = student is None or name == student
    return Measured(*numbers, seeds, _fraction(row), name, same, row.n, trained)


def hindrance(*arms: Sequence[ResultRow], parts: bool = False) -> str:
    """Why results of these arms on one task are not judged beside the published ones; "" where they are.

    With `parts`, parts of the data are what is published, so they hinder nothing.
    """
    if any(map(_twins, arms)):
        return TWINS
    for row in (row for rows in arms for row in rows):
        n, wanted = published().tests[row.task], published().trains[row.task] * _fraction(row)
        if row.n != n:
            return f"another test set ({row.n:,} examples, published of {n:,})"
        if row.n_train is not None and row.n_train < ENOUGH * wanted:
            return f"fewer training examples ({row.n_train:,}, published of {wanted:,.0f})"
    return PART if not parts and any(_fraction(row) != 1 for rows in arms for row in rows) else ""


def _twins(rows: Sequence[ResultRow]) -> bool:
    """Whether two different results are of one seed and one part of the data."""
    found: dict[tuple[int | None, float], tuple[str, str]] = {}
    return any(
        found.setdefault((row.seed, _fraction(row)), (row.config, row.outcomes)) != (row.config, row.outcomes)
        for row in rows
    )


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


def _alike(rows: Sequence[ResultRow]) -> dict[tuple[str | None, str], list[ResultRow]]:
    """By student and test set."""
    found: dict[tuple[str | None, str], list[ResultRow]] = {}
    for row in rows:
        found.setdefault((row.student, row.test), []).append(row)
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


def _beyond_chance(reported: Reported) -> bool:
    return bool(reported.low and reported.high and reported.low * reported.high > 0)


def _sign(value: float | None) -> int:
    return 0 if not value else 1 if value > 0 else -1
