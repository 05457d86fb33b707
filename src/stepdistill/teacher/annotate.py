"""The stage between the data and the student: ask, read, settle, and write `annotations.jsonl`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from stepdistill.config import RunConfig
from stepdistill.errors import TeacherError
from stepdistill.files import iter_jsonl, write_json, write_jsonl
from stepdistill.records import Annotation, Example, Watcher
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
    left_out: Counter[str] = field(default_factory=Counter)
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
        prompted = [teacher for teacher in teachers if ask and isinstance(teacher, AskedTeacher)]
        for teacher in prompted:  # all, before the first is paid
            teacher.prepare(asked.config.annotate.max_cost_usd)
        for teacher in prompted:
            teacher.ask(asked.stream, asked.total, watch, outcome.tally)
        if prompted and not outcome.tally.answered and not outcome.tally.reused:
            why = ", ".join(f"{reason}: {n:,}" for reason, n in outcome.tally.failed.items())
            raise TeacherError(
                f"no prompt has got an answer ({why}); mend it, then run the same command again"
            )
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
    files.report.unlink(missing_ok=True)  # written last, it says that the others belong together
    write_jsonl(files.annotations, _rows(asked, teachers, report, watch))
    outcome.report = report.plain()
    for split in outcome.report:
        outcome.report[split]["examples"] = len(asked.examples[split])  # type: ignore[index]
    write_jsonl(files.left_out, _left_out(asked, files.annotations, outcome.left_out))
    write_json(files.report, outcome.report)


def _rows(
    asked: Asked, teachers: Sequence[Teacher], report: ParseReport, watch: Watcher
) -> Iterator[dict[str, Any]]:
    done, wrote = 0, False
    for part in chunks(asked.stream()):
        answers = [teacher.heard(part) for teacher in teachers]
        for number, (split, example) in enumerate(part):
            heard = [one for theirs in answers for one in theirs[number]]
            _count(report, split, example, heard, asked.task.kind.same)
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


def _left_out(asked: Asked, annotations: Path, count: Counter[str]) -> Iterator[dict[str, Any]]:
    """Training examples on whose answers nothing is trained: their rows, or that they have no answer."""
    if "train" not in asked.splits:
        return
    rows = (row for row in iter_jsonl(annotations) if row["split"] == "train")
    row = next(rows, None)
    for example in asked.examples["train"]:
        if row is None or row["id"] != example.id:
            count["no answer"] += 1
            yield {"id": example.id, "split": "train", "left_out": "no answer"}
            continue
        if "left_out" in row:
            count[row["left_out"]] += 1
            yield row
        row = next(rows, None)


def _count(
    report: ParseReport,
    split: Split,
    example: Example,
    heard: Sequence[Heard],
    same: Callable[[str, str], bool],
) -> None:
    free = [one for one in heard if not one.hinted]
    for one in heard:
        if one.hinted and example.label is not None:
            right = isinstance(one.read, Annotation) and same(one.read.label, example.label)
            report.hint(split, right)
    for one in free:
        report.add(split, example, one.words, one.read, one.teacher)
    if not free:
        report.skip(split)
