"""What a run has found, as a table for people or JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from stepdistill.evaluate.scorecards import compare
from stepdistill.records import RunRecord
from stepdistill.study.folder import TEACHER
from stepdistill.study.run import Run


def show(run: Run, records: Sequence[RunRecord], as_json: bool) -> None:
    """Print the results of a run."""
    times = {record.name: run.folder.cost(record.name) for record in records}
    if as_json:
        print(json.dumps([{**asdict(r), **times[r.name]} for r in records]))
        return
    console = _console()
    title = f"{run.task.spec.name}: accuracy on {records[0].scorecard.n} test examples"
    if run.task.spec.data.generator:
        title += " (SIMULATED letters and teacher)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "labels"):
        table.add_column(heading)
    for heading in ("n train", "accuracy", "95 % interval", "unread", "student", "seconds"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(*_cells(record, times[record.name]))
    console.print(table)
    for line in [*_comparisons(records), *_unread(run)]:
        console.print(line, soft_wrap=True, highlight=False)
    console.print(f"Everything is in {run.folder.path}", soft_wrap=True, highlight=False)


def show_parse(report: dict[str, Any], path: Path, as_json: bool) -> None:
    """Print how the teacher's answers were read."""
    if as_json:
        print(json.dumps(report))
        return
    title = "The teacher's answers"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("split", "examples", "answers", "read", "unread, by reason"):
        table.add_column(heading)
    for split, row in report.items():
        reasons = ", ".join(f"{reason}: {n}" for reason, n in row["unread"].items())
        table.add_row(split, *(str(row[k]) for k in ("examples", "answers", "read")), reasons)
    console = _console()
    console.print(table)
    console.print(f"Everything is in {path}", soft_wrap=True, highlight=False)


def _console() -> Console:
    # Into a file or pipe there is no width to keep to.
    return Console() if sys.stdout.isatty() else Console(width=120)


def _cells(record: RunRecord, cost: dict[str, float | None]) -> list[str]:
    card = record.scorecard
    seconds = cost["train_seconds"]
    return [
        record.name,
        record.labels,
        "" if record.n_train is None else f"{record.n_train:,}",
        f"{100 * card.value:.1f} %",
        f"{100 * card.low:.1f} - {100 * card.high:.1f}",
        str(card.unread),
        "" if record.parameters is None else size(record.parameters),
        "" if seconds is None else f"{seconds:,.0f}",
    ]


def _comparisons(records: Sequence[RunRecord]) -> list[str]:
    """The last method against each other one, on the same examples."""
    students = [record for record in records if record.name != TEACHER]
    if len(students) < 2:
        return []
    *others, last = students
    lines = []
    for other in others:
        gap, p = compare(other.scorecard, last.scorecard)
        verdict = "" if p < 0.05 else ": not beyond chance"
        lines.append(f"{last.name} - {other.name}: {100 * gap:+.1f} points, McNemar p = {p:.2g}{verdict}")
    return lines


def _unread(run: Run) -> list[str]:
    report = run.parse_report().get("train")
    if run.annotations.get("test") and not run.teacher_is_measured():
        asked, n = len(run.annotations["test"]), len(run.examples["test"])
        return [f"The teacher is not in the table: it was asked {asked} of {n} test examples"]
    if not report or not report["unread"]:
        return []
    reasons = ", ".join(f"{reason}: {n}" for reason, n in report["unread"].items())
    total = sum(report["unread"].values())
    return [f"{total} of {report['answers']} teacher's answers on train could not be read ({reasons})"]


def size(parameters: int) -> str:
    """A number of weights, short.

    >>> size(134_515_008), size(820_000)
    ('134.5M', '0.8M')
    """
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"
