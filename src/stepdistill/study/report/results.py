"""The tables of results: every predictor, the means over seeds, and what is measured beside accuracy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from stepdistill.study.folder import ORDER
from stepdistill.study.gather import SINGLE
from stepdistill.study.report.table import Cell, Column, Table, interval, number, percent, words
from stepdistill.study.results import ResultRow

Scores = Mapping[str, Sequence[Mapping[str, Any]]]
"""Rows of each trial's `metrics.jsonl`, by the trial's name."""


def all_results(rows: Sequence[ResultRow]) -> Table:
    """Every predictor of every trial."""
    columns = [
        Column("task"),
        Column("method"),
        Column("accuracy", number=True),
        Column("95 % interval", number=True, hint="Wilson's, of this seed's test examples"),
        Column("labels", hint="whose labels it learned; of a teacher: its model"),
        Column("rationales", hint="where its rationales come from"),
        Column("λ", hint="weight of the rationale's loss"),
        Column("teacher"),
        Column("student", students=True),
        Column("parameters", number=True, students=True),
        Column("data", number=True, hint="share of the training examples", students=True),
        Column("n train", number=True, students=True),
        Column("seed", number=True, students=True),
        Column("n test", number=True),
        Column("unread", number=True, hint="answers in which no label could be read; they count as wrong"),
        Column("validation", number=True),
        Column("training, s", number=True, hint="seconds on the machine of the run"),
        Column("teacher, $", number=True, hint="what the teacher's answers for training cost", students=True),
        Column("trial"),
    ]
    ordered = sorted(rows, key=_order)
    keep = ("method", "accuracy", "95 % interval")
    note = "One row a predictor and trial. A click on a heading sorts."
    table = Table("results", "All results", columns, [_result(row) for row in ordered], note)
    return table.short(keep)


def means(rows: Sequence[ResultRow]) -> Table:
    """The mean over seeds of all that differ in nothing else, with the lowest and highest seed.

    Rows of one seed in one cell differ in what is not among the axes: they are shown apart, by trial.
    """
    groups: dict[tuple[Any, ...], list[ResultRow]] = defaultdict(list)
    for row in sorted(rows, key=_order):
        groups[axes(row)].append(row)
    alike: list[list[ResultRow]] = []
    for found in groups.values():
        is_cell = len({row.seed for row in found}) == len(found)
        alike += [found] if is_cell else [[row] for row in found]
    columns = [
        Column("task"),
        Column("method"),
        Column("mean accuracy", number=True),
        Column("lowest – highest seed", number=True),
        Column("labels"),
        Column("rationales"),
        Column("λ"),
        Column("teacher"),
        Column("student", students=True),
        Column("data", number=True, students=True),
        Column("n train", number=True, students=True),
        Column("seeds", number=True),
        Column("trial"),
    ]
    apart = {row.trial for found in groups.values() if found not in alike for row in found}
    body = [_mean(found, apart) for found in alike]
    note = "The range over seeds is no interval: it says nothing of other test examples. Intervals of "
    note += "differences are in the comparisons."
    if apart:
        note += " Results of one seed that differ in what is no column here are shown apart, by trial."
    return Table("means", "Means over seeds", columns, body, note).short(("method", "mean accuracy"))


def axes(row: ResultRow) -> tuple[Any, ...]:
    """What a row is besides its seed."""
    named = (row.task, row.test, row.name, row.labels, row.rationales, row.lambda_, row.teacher)
    return (*named, row.student, row.parameters, row.fraction)


def measured(rows: Sequence[ResultRow], scores: Scores) -> Table:
    """What `metrics.jsonl` says of the given rows besides accuracy."""
    columns = [
        Column("task"),
        Column("method"),
        Column("accuracy", number=True),
        Column("macro-F1", number=True, hint="mean over labels of F1"),
        Column("ECE", number=True, hint="expected calibration error: how far confidence is from accuracy"),
        Column("unread", number=True),
        Column("words of a rationale", number=True, hint="mean"),
        Column("leads to its label", number=True, hint="share of rationales that lead to the label answered"),
        Column("contradicts it", number=True, hint="share of rationales that lead to another label"),
        Column("leads to none", number=True, hint="share of rationales in which no label can be read"),
        Column("chrF", number=True, hint="likeness to people's rationales, 0 to 100"),
        Column("trial"),
    ]
    body = []
    for row, found in _found(rows, scores):
        told = found.get("rationale") or {}
        shares = [percent(told.get(key)) for key in ("consistent", "contradicts", "silent")]
        body.append(
            [
                words(row.task),
                words(row.name),
                percent(found.get("accuracy")),
                percent(found.get("macro_f1")),
                percent(found.get("ece")),
                percent(found.get("unread_share")),
                number(told.get("words_mean"), ".1f"),
                *shares,
                number(told.get("chrf"), ".1f"),
                _trial(row),
            ]
        )
    return Table("metrics", "Beside accuracy", columns, body).short(("method", "accuracy"))


def by_label(rows: Sequence[ResultRow], scores: Scores) -> Table:
    """Precision, recall and F1 of every label."""
    titles = ("precision", "recall", "F1")
    columns = [Column("task"), Column("method"), Column("label"), Column("n", number=True)]
    columns += [Column(title, number=True) for title in titles]
    body = [
        [
            words(row.task),
            words(row.name),
            words(label),
            number(one.get("support")),
            *(percent(one.get(title.lower())) for title in titles),
        ]
        for row, found in _found(rows, scores)
        for label, one in (found.get("per_class") or {}).items()
    ]
    return Table("labels", "Label by label", columns, body).short(("method", "label"))


def by_slice(rows: Sequence[ResultRow], scores: Scores) -> Table:
    """Accuracy on parts of the test examples."""
    columns = [Column("task"), Column("method"), Column("column"), Column("value"), Column("n", number=True)]
    columns += [Column("accuracy", number=True), Column("95 % interval", number=True)]
    body = [
        [
            words(row.task),
            words(row.name),
            words(column),
            words(value),
            number(one.get("n")),
            percent(one.get("accuracy")),
            _span(one),
        ]
        for row, found in _found(rows, scores)
        for column, values in (found.get("slices") or {}).items()
        for value, one in values.items()
    ]
    return Table("slices", "Slices of the test examples", columns, body).short(("method", "column", "value"))


def chosen(rows: Iterable[ResultRow]) -> list[ResultRow]:
    """One row for each predictor of a task: all the data, the largest student, the first seed."""
    found: dict[tuple[str, str, str, str], ResultRow] = {}
    for row in sorted(rows, key=_preference):
        found.setdefault((row.task, row.test, row.name, row.labels), row)
    return sorted(found.values(), key=_order)


def _preference(row: ResultRow) -> tuple[Any, ...]:
    return (-(row.fraction or 1.0), -(row.parameters or 0), row.seed or 0, str(row.lambda_), row.trial)


def _found(rows: Iterable[ResultRow], scores: Scores) -> Iterator[tuple[ResultRow, Mapping[str, Any]]]:
    for row in rows:
        for found in scores.get(row.trial, ()):
            if found.get("name") == row.name:
                yield row, found


def _span(one: Mapping[str, Any]) -> Cell:
    ends = [one.get(key) for key in ("low", "accuracy", "high")]
    return interval(*ends) if all(isinstance(end, int | float) for end in ends) else words(None)  # type: ignore[arg-type]


def _order(row: ResultRow) -> tuple[Any, ...]:
    place = ORDER.index(row.name) if row.name in ORDER else len(ORDER)
    sizes = (row.parameters or 0, row.fraction or 0.0, str(row.lambda_), row.seed or 0)
    return (row.task, place, row.name, row.labels, row.teacher, *sizes, row.trial)


def student_name(student: str | None) -> str | None:
    """The end of a student's path.

    >>> student_name("HuggingFaceTB/SmolLM2-135M-Instruct")
    'SmolLM2-135M-Instruct'
    """
    return student.rstrip("/").rsplit("/", 1)[-1] if student else None


def _setting(row: ResultRow, *scores: Cell) -> list[Cell]:
    weight = number(row.lambda_, "g") if isinstance(row.lambda_, int | float) else words(row.lambda_)
    named = [words(row.task), words(row.name), *scores, words(row.labels), words(row.rationales)]
    return [*named, weight, words(row.teacher), words(student_name(row.student))]


def share(fraction: float | None) -> Cell:
    """A part of the training examples."""
    return percent(fraction, 0 if fraction is None or (100 * fraction).is_integer() else 1)


def _trial(row: ResultRow) -> Cell:
    return words(None if row.trial == SINGLE else row.trial)


def _result(row: ResultRow) -> list[Cell]:
    return [
        *_setting(row, percent(row.value), interval(row.low, row.value, row.high)),
        number(row.parameters),
        share(row.fraction),
        number(row.n_train),
        number(row.seed, "d"),
        number(row.n),
        number(row.unread),
        percent(row.validation),
        number(row.train_seconds),
        number(row.cost_usd, ",.2f"),
        _trial(row),
    ]


def _mean(found: Sequence[ResultRow], apart: Collection[str]) -> list[Cell]:
    row, shares = found[0], [one.value for one in found]
    mean = sum(shares) / len(shares)
    spread = interval(min(shares), mean, max(shares)) if len(shares) > 1 else words(None)
    setting = _setting(row, percent(mean), spread)
    trial = _trial(row) if row.trial in apart else words(None)
    return [*setting, share(row.fraction), number(row.n_train), number(len(found)), trial]
