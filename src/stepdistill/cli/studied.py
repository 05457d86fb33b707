"""What a study shows: its plan before, accuracies and the verdict after."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import typer
from rich import box
from rich.table import Table

from stepdistill.cli.console import console
from stepdistill.config import StudyConfig
from stepdistill.errors import DataError
from stepdistill.evaluate.bootstrap import mean_accuracy
from stepdistill.study.comparisons import verdict
from stepdistill.study.folder import TEACHER
from stepdistill.study.grid import arm_name
from stepdistill.study.plan import Money, Plan
from stepdistill.study.results import RESULTS, ResultRow
from stepdistill.study.runner import duration
from stepdistill.study.whole import Finished

_Label = tuple[str, ...]
_ARMS_OWN = ("labels", "rationales", "lambda", "teacher")


def show_plan(study: StudyConfig, plan: Plan, as_json: bool) -> None:
    """Print the trials by their axes, and what they take."""
    if as_json:
        print(json.dumps({**asdict(plan), "trials": plan.trials, "done": plan.done}))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    cells = [cell.axes for cell in plan.cells]
    axes = ["arm", *_varied(cells, ("task", "student", *_ARMS_OWN), "arm"), "fraction"]
    for axis in axes:
        table.add_column(axis)
    for heading in ("trials", "done", "failed", "to do"):
        table.add_column(heading, justify="right")
    for cell in plan.cells:
        shown = [_axis(axis, cell.axes[axis]) for axis in axes]
        counts = (cell.trials, cell.done, cell.failed, cell.trials - cell.done)
        table.add_row(*shown, *(str(count) if count else "" for count in counts))
    out = console()
    if study.title:
        out.print(study.title, highlight=False, markup=False)
    out.print(table)
    for line in _needs(plan):
        out.print(line, soft_wrap=True, highlight=False, markup=False)


def show_finished(study: StudyConfig, finished: Finished, as_json: bool) -> None:
    """Print accuracies over seeds, the verdict, and the failures, one line each."""
    rows = finished.rows
    said = _verdict(study, rows) if rows else "No trial is finished."
    cells = _cells(rows)
    if as_json:
        shown = [{**axes, "value": v.value, "low": v.low, "high": v.high} for axes, v in cells]
        failed = [{**asdict(one), "where": str(one.where)} for one in finished.failures]
        print(
            json.dumps(
                {
                    "trials": len(finished.trials),
                    "failed": failed,
                    "accuracy": shown,
                    "verdict": said,
                    "results": str(finished.folder / RESULTS),
                }
            )
        )
        return
    out = console()
    if rows:
        out.print(_title(study, rows, cells), soft_wrap=True, highlight=False, markup=False)
        out.print(_table(cells))
    for line in [said, f"Everything is in {finished.folder}"]:
        out.print(line, soft_wrap=True, highlight=False, markup=False)
    for failure in finished.failures:
        typer.echo(f"{failure.trial} failed: {failure.error} (see {failure.where})", err=True)


def _verdict(study: StudyConfig, rows: Sequence[ResultRow]) -> str:
    """One sentence on the method against the other, or why there is none."""
    method = study.method if study.method == TEACHER else arm_name(study, study.method)
    against = study.against if study.against == TEACHER else arm_name(study, study.against)
    try:
        return verdict(rows, method, against).sentence
    except DataError as error:
        # Everything has been trained and measured: it is shown, whatever cannot be compared.
        return f"{method} and {against} cannot be compared: {error}"


def _needs(plan: Plan) -> list[str]:
    left = plan.trials - plan.done
    lines = [f"{plan.trials} trials, {plan.done} of them finished, {left} to do, {plan.jobs} at a time"]
    if not left:
        return lines
    if plan.seconds is None:
        lines.append("Time: unknown until a trial is finished")
    elif plan.measured:
        lines.append(f"Time: about {duration(plan.seconds)}, by the trials that are finished")
    else:
        lines.append(
            f"Time: roughly {duration(plan.seconds)} (within a factor of 3; better once one is finished)"
        )
    lines += map(_money, plan.money) if plan.money else ["Money: none, no teacher is asked"]
    if plan.disk_bytes is not None:
        lines.append(f"Disk: about {plan.disk_bytes / 1e9:,.2f} GB for students and their checkpoints")
    return lines


def _money(money: Money) -> str:
    line = f"Money: {money.prompts:,} prompts to ask of {money.teacher}, {money.answered:,} answered already"
    if money.about_usd is None or money.most_usd is None:
        return f"{line}; no price is known: give teacher.price to see the cost"
    return f"{line}; about {money.about_usd:,.2f} USD, at most {money.most_usd:,.2f} USD"


def _varied(cells: Sequence[Mapping[str, Any]], axes: Sequence[str], arm: str) -> list[str]:
    """Those of the axes that vary for one and the same arm: what differs between arms is in their names."""
    values: dict[tuple[str, Any], set[str]] = defaultdict(set)
    for cell in cells:
        for axis in axes:
            values[axis, cell[arm]].add(str(cell[axis]))
    return [axis for axis in axes if any(len(values[axis, cell[arm]]) > 1 for cell in cells)]


def _axis(name: str, value: Any) -> str:
    return "" if value is None else f"{100 * value:g} %" if name == "fraction" else str(value)


def _cells(rows: Iterable[ResultRow]) -> list[tuple[dict[str, Any], Any]]:
    """Mean accuracy over seeds of each cell: (axes, interval)."""
    cells: dict[tuple[Any, ...], list[ResultRow]] = defaultdict(list)
    for row in rows:
        lambda_ = None if row.lambda_ is None else str(row.lambda_)
        key = (row.task, row.student, row.name, row.labels, row.rationales, lambda_, row.teacher)
        cells[(*key, row.fraction)].append(row)
    names = ("task", "student", "method", "labels", "rationales", "lambda", "teacher", "fraction")
    return [
        (
            {**dict(zip(names, key, strict=True)), "seeds": len(members)},
            mean_accuracy([row.outcomes for row in members]),
        )
        for key, members in cells.items()
    ]


def _title(study: StudyConfig, rows: Sequence[ResultRow], cells: Sequence[tuple[dict[str, Any], Any]]) -> str:
    seeds = max(axes["seeds"] for axes, _ in cells)
    mean = f"mean over {seeds} seeds and" if seeds > 1 else "with its"
    n = " and ".join(f"{n:,}" for n in sorted({row.n for row in rows}))
    return f"{study.title or 'Accuracy'}: accuracy on {n} test examples, {mean} 95 % interval"


def _table(cells: Sequence[tuple[dict[str, Any], Any]]) -> Table:
    """Methods down, fractions across; an axis that varies besides gets a column."""
    students = [axes for axes, _ in cells if axes["fraction"] is not None]
    further = _varied(students, ("task", "student", *_ARMS_OWN), "method")
    fractions = sorted({axes["fraction"] for axes in students})
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", *further):
        table.add_column(heading)
    for fraction in fractions:
        table.add_column(f"{100 * fraction:g} %", justify="right")
    lines: dict[_Label, dict[float, str]] = defaultdict(dict)
    for axes, found in cells:
        label = (axes["method"], *("" if axes[axis] is None else str(axes[axis]) for axis in further))
        shown = f"{100 * found.value:.1f} ({100 * found.low:.1f} - {100 * found.high:.1f})"
        # A teacher is asked and not trained: his line is the same whatever the data.
        for fraction in fractions if axes["fraction"] is None else [axes["fraction"]]:
            lines[label][fraction] = shown
    for label, values in lines.items():
        table.add_row(*label, *(values.get(fraction, "") for fraction in fractions))
    return table
