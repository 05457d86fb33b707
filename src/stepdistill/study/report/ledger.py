"""How the teacher's answers were read: by which rule, why not, and how often the label was right."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.study.report.clean import nowhere
from stepdistill.study.report.place import Place, Trial
from stepdistill.study.report.table import Cell, Column, Table, number, percent, words

REPORT = "parse_report.json"


@dataclass(frozen=True, slots=True)
class Sample:
    """The beginning of an answer that could not be read."""

    reason: str
    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """What was read of one teacher's answers on one task."""

    sentence: str
    table: Table
    samples: Sequence[Sample]


def ledgers(place: Place) -> list[Ledger]:
    """One for each task and teacher: of its trials, that with the most answers."""
    found: dict[tuple[str, str], tuple[int, dict[str, Any]]] = {}
    for trial in place.trials.values():
        if not trial.has(REPORT):
            continue
        report = trial.object(REPORT)
        size = sum(int(part.get("answers") or 0) for part in report.values() if isinstance(part, Mapping))
        key = _key(trial)
        if key not in found or size > found[key][0]:
            found[key] = size, report
    return [_ledger(index, *key, found[key][1]) for index, key in enumerate(sorted(found))]


def _key(trial: Trial) -> tuple[str, str]:
    names = [str(one.get("model") or one.get("backend")) for one in trial.teachers]
    # Recorded answers of two sources differ in the files that they come from.
    files = {json.dumps(one.get("completions")) for one in trial.teachers} - {"null"}
    return trial.task, " + ".join([*names, *sorted(files)])


def _ledger(index: int, task: str, teacher: str, report: Mapping[str, Any]) -> Ledger:
    parts = {split: part for split, part in report.items() if isinstance(part, Mapping)}
    columns = [
        Column("split"),
        Column("was it read"),
        Column("rule or reason"),
        Column("answers", number=True),
        Column("share", number=True),
        Column(
            "right", number=True, hint="share of the labels read that are the gold label, where there is one"
        ),
    ]
    body = [row for split, part in parts.items() for row in _rows(split, part)]
    table = Table(f"ledger-{index}", f"Read and unread, {nowhere(task)}", columns, body).short(
        ("split", "was it read")
    )
    samples = [
        Sample(reason, str(one.get("id")), str(one.get("text")))
        for part in parts.values()
        for reason, kept in (part.get("unread_examples") or {}).items()
        for one in kept
    ]
    return Ledger(_sentence(task, teacher, parts), table, samples)


def _sentence(task: str, teacher: str, parts: Mapping[str, Mapping[str, Any]]) -> str:
    answers = sum(int(part.get("answers") or 0) for part in parts.values())
    read = sum(int(part.get("read") or 0) for part in parts.values())
    share = f" ({100 * read / answers:.1f} %)" if answers else ""
    return (
        f"{nowhere(task)}, teacher {nowhere(teacher)}: of {answers:,} answers {read:,}{share} could be read."
    )


def _rows(split: str, part: Mapping[str, Any]) -> Iterator[list[Cell]]:
    answers = int(part.get("answers") or 0)
    accuracy = part.get("accuracy") or {}
    for is_read, counts in (("read", part.get("rules") or {}), ("unread", part.get("unread") or {})):
        for name, count in counts.items():
            judged = accuracy.get(name) if is_read == "read" else None
            right = judged["right"] / judged["n"] if judged and judged.get("n") else None
            share = count / answers if answers else None
            told = (split, is_read, name)
            yield [*map(words, told), number(count), percent(share), percent(right)]
