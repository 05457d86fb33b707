"""What a run has found, as a table for people or JSON for machines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table

from stepdistill.cli.console import console
from stepdistill.evaluate.scorecards import compare
from stepdistill.files import read_jsonl
from stepdistill.records import RunRecord
from stepdistill.student.methods import JOIN
from stepdistill.study.folder import TEACHER
from stepdistill.study.reads import JOURNAL, Reads
from stepdistill.study.run import Run


def show(run: Run, records: Sequence[RunRecord], as_json: bool) -> None:
    """Print the results of a run."""
    times = {record.name: run.folder.cost(record.name) for record in records}
    if as_json:
        print(json.dumps([{**asdict(r), **times[r.name]} for r in records]))
        return
    out = console()
    title = f"{run.task.spec.name}: accuracy on {records[0].scorecard.n} test examples"
    if run.task.spec.data.generator:
        simulated = any(teacher.backend == "simulated" for teacher in run.config.asked)
        title += " (SIMULATED letters and teacher)" if simulated else " (SIMULATED letters)"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("method", "labels", "rationales"):
        table.add_column(heading)
    for heading in ("n train", "accuracy", "95 % interval", "unread", "student", "seconds"):
        table.add_column(heading, justify="right")
    for record in records:
        table.add_row(*_cells(record, times[record.name]))
    out.print(table)
    lines = [*_beside(run, records), *_comparisons(records), *_left_out(run, records), *_unread(run)]
    for line in [*lines, *_readings(run, records)]:
        out.print(line, soft_wrap=True, highlight=False)
    out.print(f"Everything is in {run.folder.path}", soft_wrap=True, highlight=False)


def _cells(record: RunRecord, cost: dict[str, float | None]) -> list[str]:
    card = record.scorecard
    seconds = cost["train_seconds"]
    return [
        record.name,
        record.labels,
        "" if record.rationales is None else f"{record.n_rationales:,} {record.rationales}",
        "" if record.n_train is None else f"{record.n_train:,}",
        f"{100 * card.value:.1f} %",
        f"{100 * card.low:.1f} - {100 * card.high:.1f}",
        str(card.unread),
        "" if record.parameters is None else size(record.parameters),
        "" if seconds is None else f"{seconds:,.0f}",
    ]


def _beside(run: Run, records: Sequence[RunRecord]) -> list[str]:
    """Macro-F1 and calibration, where the labels are a closed set."""
    rows = {row["name"]: row for row in read_jsonl(run.folder.metrics)}
    names = [record.name for record in records]
    parts = []
    for title, key in (("macro-F1", "macro_f1"), ("calibration error (ECE)", "ece")):
        found = [f"{name} {100 * value:.1f} %" for name in names if (value := rows[name][key]) is not None]
        parts += [f"{title}: {', '.join(found)}"] if found else []
    return ["; ".join(parts)] if parts else []


def _readings(run: Run, records: Sequence[RunRecord]) -> list[str]:
    """How often test was read: who looks many times may have chosen by what he saw."""
    again = [f"{record.name} {record.reopened} x" for record in records if record.reopened]
    lines = [f"Test was read again for this configuration: {', '.join(again)}"] if again else []
    journal = Reads(run.folder.path.parent / JOURNAL)
    reads = [read for read in journal.all() if read.task == run.task.spec.name]
    configs = len({read.config for read in reads})
    if configs > 1:
        who = f"{configs} configurations of this task"
        lines.append(f"Test has been read {len(reads)} times by {who} ({journal.path})")
    return lines


def _comparisons(records: Sequence[RunRecord]) -> list[str]:
    """One arm against each other one, on the same examples."""
    students = [record for record in records if record.name != TEACHER]
    if len(students) < 2:
        return []
    chief = _chief(students)
    lines = []
    for other in students:
        if other is chief:
            continue
        gap, p = compare(other.scorecard, chief.scorecard)
        verdict = "" if p < 0.05 else ": not beyond chance"
        lines.append(f"{chief.name} - {other.name}: {100 * gap:+.1f} points, McNemar p = {p:.2g}{verdict}")
    return lines


def _chief(students: Sequence[RunRecord]) -> RunRecord:
    """Whom the others are compared with: distilling step-by-step, else the last arm that is no control."""
    method = [record for record in students if JOIN not in record.name]
    named = [record for record in method if record.name == "step-by-step"]
    return (named or method or students)[-1]


def _left_out(run: Run, records: Sequence[RunRecord]) -> list[str]:
    left = [(record.name, record.n_unlabelled_left_out) for record in records]
    lines = [f"{name}: {n:,} unlabelled rows are left out of its training" for name, n in left if n]
    for name in (record.name for record in records if record.name != TEACHER):
        found = run.folder.card(name)["limits"]
        if n := found["left_out"]:
            lines.append(f"{name}: {n:,} of {found['seen']:,} examples were too long and are left out")
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
    return [f"{total} of {report['answers']} teacher's answers on train are left out ({reasons})"]


def size(parameters: int) -> str:
    """A number of weights, short.

    >>> size(134_515_008), size(820_000)
    ('134.5M', '0.8M')
    """
    return f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.1f}M"
