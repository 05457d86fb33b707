"""What a reader of the results must know before believing them, in sentences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from stepdistill.errors import StepdistillError
from stepdistill.evaluate.power import smallest_difference
from stepdistill.study.folder import TEACHER
from stepdistill.study.gather import SINGLE
from stepdistill.study.report.clean import nowhere
from stepdistill.study.report.place import Place
from stepdistill.study.report.results import chosen
from stepdistill.study.results import ResultRow
from stepdistill.task.load import load_task

_UNREAD = 0.01
"""Share of unread answers from which on it is said."""


def cautions(place: Place, rows: Sequence[ResultRow], pair: tuple[str, str] | None) -> list[str]:
    """All that apply, the gravest first."""
    return [
        *_unfinished(place, rows),
        *_reopened(rows),
        *_seeds(rows),
        *_tests(rows),
        *_unread(rows),
        *_power(rows, pair),
    ]


def simulated(place: Place) -> list[str]:
    """What of the data and answers is made up by a generator and not by people or a model."""
    trials = list(place.trials.values())
    teachers = {t.task for t in trials if any(one.get("backend") == "simulated" for one in t.teachers)}
    tasks = {trial.task for trial in trials if trial.settings}
    letters = {task for task in tasks if _is_generated(task)}
    if not teachers and not letters:
        return []
    both = letters & teachers
    said = [f"{_and(both)}: the letters and their teacher are a simulation."] if both else []
    said += [f"{_and(letters - both)}: the letters are a simulation."] if letters - both else []
    said += [f"{_and(teachers - both)}: the teacher is a simulation."] if teachers - both else []
    return [f"{one} The training is real; the accuracies say nothing about real texts." for one in said]


def _is_generated(task: str) -> bool:
    try:
        return load_task(task).spec.data.generator is not None
    except StepdistillError:
        return False  # a task file that is not here any more


def _unfinished(place: Place, rows: Sequence[ResultRow]) -> Iterator[str]:
    total, failed = len(place.trials), len(place.failed)
    if failed:
        yield f"{failed} of {total} trials failed and are in no figure and no table: see Failures."
    done = {row.trial for row in rows}
    open_ = [trial.name for trial in place.trials.values() if trial.name not in done and not trial.has_failed]
    if open_ and place.is_study:
        yield (
            f"Not finished: {len(open_)} of {total} trials have no result yet ({_some(open_)}). "
            "`stepdistill study` goes on with them."
        )


def _reopened(rows: Sequence[ResultRow]) -> Iterator[str]:
    again = [row for row in rows if row.reopened]
    if again:
        times = sum(row.reopened for row in again)
        names = _some(sorted({row.name if row.trial == SINGLE else row.trial for row in again}))
        yield (
            f"The test examples were read again {times} time{'s' if times > 1 else ''} for the same "
            f"configuration ({names}): what was chosen after looking at them is no longer a fair measure."
        )


def _seeds(rows: Sequence[ResultRow]) -> Iterator[str]:
    seeds = {row.seed for row in rows if row.name != TEACHER}
    if len(seeds) == 1:
        yield (
            f"All training is with one seed ({seeds.pop()}): the intervals are those of the test examples, "
            "and say nothing of what another seed would give."
        )


def _tests(rows: Sequence[ResultRow]) -> Iterator[str]:
    tests: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        tests[row.task].add(row.test)
    for task, found in tests.items():
        if len(found) > 1:
            yield f"{task}: measured on {len(found)} sets of test examples; only equal ones compare."


def _unread(rows: Sequence[ResultRow]) -> Iterator[str]:
    worst: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        worst[row.task, row.name] = max(worst[row.task, row.name], row.unread / row.n)
    said = [
        f"{name} on {task} {100 * share:.1f} %" for (task, name), share in worst.items() if share >= _UNREAD
    ]
    if said:
        yield f"Unread answers count as wrong; at most, in one trial: {', '.join(said)}."


def _power(rows: Sequence[ResultRow], pair: tuple[str, str] | None) -> Iterator[str]:
    """Which difference the test examples can show, one seed, at the disagreement that was seen."""
    if pair is None:
        return
    best = chosen(rows)
    for task in sorted({row.task for row in best}):
        found = {row.name: row for row in best if row.task == task}
        second, first = (found.get(name) for name in pair)
        if second is None or first is None or second.test != first.test:
            continue
        differing = sum(
            (a == "1") != (b == "1") for a, b in zip(second.outcomes, first.outcomes, strict=True)
        )
        if not differing:
            continue
        share = differing / second.n
        least = smallest_difference(second.n, share)
        yield (
            f"{task}: {second.n:,} test examples, of which the two answer {100 * share:.0f} % differently, "
            + "can show "
            + (f"a difference of {100 * least:.1f} points or more" if least else "no difference at all")
            + " with one seed (80 % power, 5 % level)."
        )


def _some(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _and(names: set[str]) -> str:
    return nowhere(", ".join(sorted(names)))
