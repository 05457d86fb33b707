"""The stage between the data and the student: every completion, read, in `annotations.jsonl`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.config import DataConfig, TeacherConfig
from stepdistill.errors import DataError, TeacherError
from stepdistill.files import digest, read_jsonl, read_text, write_jsonl
from stepdistill.records import Annotation, Completion, Example, Unparsed, Watcher
from stepdistill.task.load import Task, data_root, find_file, load_examples
from stepdistill.task.schema import Split
from stepdistill.teacher.parse import parse
from stepdistill.teacher.recorded import Answer, Apart, numbered, read_recorded
from stepdistill.teacher.simulated import simulated_teacher

Annotations = dict[Split, dict[str, Annotation | Unparsed]]
"""What was read of the teacher's answers, by split and example id."""


@dataclass(frozen=True)
class Asked:
    """What `annotate` works on: a task, its examples, and which teacher answers."""

    task: Task
    examples: Mapping[Split, Sequence[Example]]
    data: DataConfig
    teacher: TeacherConfig
    seed: int


def annotate(asked: Asked, path: Path, watch: Watcher) -> None:
    """Collect the teacher's answer for every example, read it, and write the file in one step.

    A row holds the completion verbatim beside what was read of it, so that reading can be repeated
    without asking again.

    Raises:
        TeacherError: no completion fits any example.
    """
    answers = BACKENDS[asked.teacher.backend](asked)
    rows = []
    for split, examples in asked.examples.items():
        found = answers.get(split, {})
        for done, example in enumerate(examples, start=1):
            if example.id in found:
                rows.append(_row(split, example, found[example.id], asked.task))
            watch(f"annotate {split}", done, len(examples))
    if not rows:
        raise TeacherError(
            f"{asked.task.spec.name}: none of the teacher's completions belongs to an example; name "
            "their files in teacher.completions, with the ids of the data"
        )
    write_jsonl(path, rows)


def read_annotations(path: Path) -> Annotations:
    """Read `annotations.jsonl`.

    Raises:
        DataError: no such file, or a malformed line.
    """
    found: Annotations = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        missing = [key for key in ("id", "split", "rationale", "label", "rule", "unread") if key not in row]
        if missing:
            what = f"{path}, row {number}: no {', '.join(missing)}"
            raise DataError(f"{what}; run `stepdistill annotate` again")
        read = (
            Unparsed(row["id"], row["unread"])
            if row["label"] is None
            else Annotation(row["id"], row["rationale"], row["label"], row["rule"])
        )
        found.setdefault(row["split"], {})[row["id"]] = read
    return found


def count(annotations: Annotations, examples: Mapping[Split, Sequence[Example]]) -> dict[str, Any]:
    """The parse report by split: asked, read, unread by reason, read by rule."""
    report: dict[str, Any] = {}
    for split, rows in annotations.items():
        unread = Counter(r.reason for r in rows.values() if isinstance(r, Unparsed))
        rules = Counter(r.rule for r in rows.values() if isinstance(r, Annotation))
        report[split] = {
            "examples": len(examples.get(split, ())),
            "answers": len(rows),
            "read": sum(rules.values()),
            "unread": dict(unread.most_common()),
            "rules": dict(rules.most_common()),
        }
    return report


def completion_files(task: Task, data: DataConfig, teacher: TeacherConfig) -> dict[Split, Path]:
    """Files of recorded completions by split: those of the run file, else those that the task names.

    Raises:
        DataError: the task names some that are not there.
    """
    if teacher.completions:
        return {split: Path(name).expanduser() for split, name in teacher.completions.items()}
    found: dict[Split, Path] = {}
    root = data_root(task, data)
    for split, name in task.spec.data.completions.items():
        # The files are numbered, so the first stands for all when the folder is looked for.
        first = find_file(root or Path(), task.spec.name, name.replace("{i}", "0"))
        found[split] = first.with_name(Path(name).name)
    return found


def completion_digests(task: Task, data: DataConfig, teacher: TeacherConfig) -> dict[str, str]:
    """Hashes of the recorded completions by split; empty for a teacher that is asked."""
    if teacher.backend != "recorded":
        return {}
    files = completion_files(task, data, teacher)
    return {
        f"completions {split}": digest(*(read_text(file) for file in numbered(path)))
        for split, path in files.items()
    }


def _recorded(asked: Asked) -> dict[Split, dict[str, Answer]]:
    given = completion_files(asked.task, asked.data, asked.teacher)
    if not given:
        raise TeacherError(
            f"{asked.task.spec.name}: no recorded completions are known for this task; name them: "
            "teacher.completions: {train: FILE, test: FILE}"
        )
    whole = _file_order(asked)
    answers = {split: read_recorded(path, whole.get(split, [])) for split, path in given.items()}
    if asked.task.spec.data.validation and "validation" not in answers:
        answers["validation"] = answers.get(asked.task.spec.data.validation.from_, {})
    return answers


def _file_order(asked: Asked) -> dict[Split, list[str]]:
    """Ids of every split as its file has them: without limits, and with validation put back."""
    spec = asked.task.spec
    open_ended = asked.task.spec.model_copy(
        update={"data": spec.data.model_copy(update={"validation": None})}
    )
    plain = asked.data.model_copy(update={"limit": DataConfig().limit, "unlabelled": None})
    found = load_examples(Task(open_ended, asked.task.folder), plain)
    return {split: [example.id for example in rows] for split, rows in found.items()}


def _simulated(asked: Asked) -> dict[Split, dict[str, Answer]]:
    teacher = simulated_teacher(asked.task, asked.teacher.error_rate, asked.seed)
    return {
        split: {c.example_id: c for c in teacher.complete(examples)}
        for split, examples in asked.examples.items()
    }


BACKENDS = {"recorded": _recorded, "simulated": _simulated}
"""Where completions come from, by `teacher.backend`."""


def _read_apart(answer: Apart, task: Task, options: Sequence[str]) -> Annotation | Unparsed:
    """A label in a column of its own, written as the data has it or as a teacher does."""
    if answer.label is None:
        return Unparsed(answer.example_id, "empty answer")
    try:
        label = task.kind.gold(answer.label, options)
        return Annotation(answer.example_id, answer.rationale, label, "column")
    except ValueError:
        reading = task.kind.read(str(answer.label), options)
    if reading.label is None:
        return Unparsed(answer.example_id, reading.reason)
    return Annotation(answer.example_id, answer.rationale, reading.label, reading.rule)


def _row(split: Split, example: Example, answer: Answer, task: Task) -> dict[str, Any]:
    if isinstance(answer, Completion):
        words, model = answer.text, answer.model
        read = parse(answer, task, example.options)
    else:
        words, model = answer.words(), "recorded"
        read = _read_apart(answer, task, example.options)
    row: dict[str, Any] = {"id": example.id, "split": split, "completion": words, "model": model}
    if isinstance(read, Unparsed):
        return {**row, "rationale": None, "label": None, "rule": None, "unread": read.reason}
    label = read.label
    return {**row, "rationale": read.rationale, "label": label, "rule": read.rule, "unread": None}
