"""The stage between the data and the student: ask, read, settle, and write `annotations.jsonl`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stepdistill.config import RunConfig
from stepdistill.errors import TeacherError
from stepdistill.files import iter_jsonl, write_json, write_jsonl
from stepdistill.records import Example, Watcher
from stepdistill.task.load import Task
from stepdistill.task.schema import Split
from stepdistill.task.stream import Examples
from stepdistill.teacher.annotations import row_of
from stepdistill.teacher.asked import AskedTeacher, Pair, chunks
from stepdistill.teacher.ledger import Ledger, Money
from stepdistill.teacher.protocol import Tally
from stepdistill.teacher.ready import Ready
from stepdistill.teacher.report import ParseReport
from stepdistill.teacher.settle import Heard, settle, verified


@dataclass(frozen=True)
class Asked:
    """What `annotate` works on: a task, its examples, and the configuration that says who answers."""

    task: Task
    examples: Mapping[Split, Examples | Sequence[Example]]
    config: RunConfig
    ledger: Path

    def stream(self) -> Iterator[Pair]:
        """The examples of the splits that are to be annotated, split by split."""
        for split in self.splits:
            yield from ((split, example) for example in self.examples[split])

    @property
    def splits(self) -> list[Split]:
        """The splits that are to be annotated and that there are."""
        return [split for split in self.examples if split in self.config.annotate.splits]

    @property
    def total(self) -> int:
        """Number of examples in them."""
        return sum(len(self.examples[split]) for split in self.splits)


@dataclass
class Outcome:
    """What an annotation has come to: what happened, what was read, what the ledger holds.

    `kept`: nothing was done, since a student has been trained on the annotations that are there.
    """

    tally: Tally = field(default_factory=Tally)
    report: dict[str, Any] = field(default_factory=dict)
    money: Money | None = None
    kept: bool = False


@dataclass(frozen=True)
class Files:
    """What the stage writes."""

    annotations: Path
    left_out: Path
    report: Path


class Teacher(Protocol):
    """A teacher whose answers, as far as there are any, can be looked up."""

    name: str

    def heard(self, pairs: Sequence[Pair]) -> list[list[Heard]]:
        """The answers to each of some examples."""
        ...


def annotate(
    asked: Asked, files: Files, watch: Watcher, ask: bool = True, tally: Tally | None = None
) -> Outcome:
    """Have the examples answered, read the answers, and write the files, each in one step.

    A row holds the words verbatim beside what was read of them, so that reading can be repeated
    without asking again: with `ask` False nobody is asked, and what the ledger has is read anew.
    `tally` is counted up on the way, for whoever wants to know when this does not come to its end.

    Raises:
        TeacherError: the teacher does not answer, or no answer fits any example.
        BudgetError: the budget is reached. What was answered until then is in the ledger.
    """
    outcome = Outcome(Tally() if tally is None else tally)
    with ExitStack() as stack:
        teachers: list[Teacher] = []
        chosen = {split: asked.examples[split] for split in asked.splits}
        ledger: Ledger | None = None
        for config in asked.config.asked:
            if not config.modelled:
                teachers.append(Ready(asked.task, chosen, asked.config, config))
                continue
            ledger = ledger or stack.enter_context(Ledger(asked.ledger))
            teachers.append(AskedTeacher(asked.task, config, asked.config.seed, ledger))
        _tell_apart(teachers)
        for teacher in teachers:
            if ask and isinstance(teacher, AskedTeacher):
                most = asked.config.annotate.max_cost_usd
                teacher.ask(asked.stream, asked.total, most, watch, outcome.tally)
        _write(asked, teachers, files, outcome, watch)
        outcome.money = ledger.money() if ledger else None
    return outcome


def _tell_apart(teachers: Sequence[Teacher]) -> None:
    """Number the later ones of one name: one model, prompted in two ways, is two teachers that vote."""
    seen: Counter[str] = Counter()
    for teacher in teachers:
        seen[teacher.name] += 1
        if (number := seen[teacher.name]) > 1:
            teacher.name = f"{teacher.name} ({number})"


def _write(asked: Asked, teachers: Sequence[Teacher], files: Files, outcome: Outcome, watch: Watcher) -> None:
    report = ParseReport(asked.task.kind.same)
    write_jsonl(files.annotations, _rows(asked, teachers, report, watch))
    outcome.report = report.plain()
    thinned = asked.config.annotate.verify != "none" or any(p["unread"] for p in outcome.report.values())
    rows = iter_jsonl(files.annotations) if thinned else ()
    write_jsonl(files.left_out, (row for row in rows if "left_out" in row))
    for split in outcome.report:
        outcome.report[split]["examples"] = len(asked.examples[split])  # type: ignore[index]
    write_json(files.report, outcome.report)


def _rows(
    asked: Asked, teachers: Sequence[Teacher], report: ParseReport, watch: Watcher
) -> Iterator[dict[str, Any]]:
    done, wrote = 0, False
    for part in chunks(asked.stream()):
        answers = [teacher.heard(part) for teacher in teachers]
        for number, (split, example) in enumerate(part):
            heard = [one for theirs in answers for one in theirs[number]]
            _count(report, split, example, heard)
            if any(not one.hinted for one in heard):
                wrote = True
                yield _row(asked, split, example, heard)
        done += len(part)
        watch("read", done, asked.total)
    if not wrote and any(config.modelled for config in asked.config.asked):
        raise TeacherError(f"{asked.ledger}: holds no answer to any example; run `stepdistill annotate`")
    if not wrote:
        raise TeacherError(
            f"{asked.task.spec.name}: none of the teacher's completions belongs to an example; name "
            "their files in teacher.completions, with the ids of the data"
        )


def _row(asked: Asked, split: Split, example: Example, heard: Sequence[Heard]) -> dict[str, Any]:
    same, config = asked.task.kind.same, asked.config.annotate
    settled = settle(heard, example, same, config)
    if split == "train":  # of the other splits all is measured: a teacher is not helped by leaving out
        settled = verified(settled, example, same, config)
    return row_of(split, example, settled, heard)


def _count(report: ParseReport, split: Split, example: Example, heard: Iterable[Heard]) -> None:
    free = [one for one in heard if not one.hinted]
    for one in free:
        report.add(split, example, one.words, one.read, one.teacher)
    if not free:
        report.skip(split)
