"""Teachers whose answers are there already: recorded with the data, or simulated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stepdistill.config import DataConfig, RunConfig, TeacherConfig
from stepdistill.errors import TeacherError
from stepdistill.files import digest, read_text
from stepdistill.records import Annotation, Completion, Example, Unparsed
from stepdistill.task.load import Task, data_root, load_examples
from stepdistill.task.schema import Split
from stepdistill.task.sources import find_file
from stepdistill.teacher.parse import parse
from stepdistill.teacher.recorded import Answer, Apart, numbered, read_recorded
from stepdistill.teacher.settle import Heard
from stepdistill.teacher.simulated import simulated_teacher


class Ready:
    """A teacher whose answers are there already: recorded, or simulated."""

    def __init__(
        self,
        task: Task,
        examples: Mapping[Split, Iterable[Example]],
        run: RunConfig,
        teacher: TeacherConfig,
    ) -> None:
        self.name: str = teacher.backend
        self._task = task
        if teacher.backend == "simulated":
            self._answers = _simulated(task, examples, teacher, run.seed)
        else:
            self._answers = _recorded(task, run.data, teacher)

    def heard(self, pairs: Sequence[tuple[Split, Example]]) -> list[list[Heard]]:
        """The answer to each example, if there is one."""
        return [self._hear(split, example) for split, example in pairs]

    def _hear(self, split: Split, example: Example) -> list[Heard]:
        answer = self._answers.get(split, {}).get(example.id)
        if answer is None:
            return []
        if isinstance(answer, Completion):
            read = parse(answer, self._task, example.options, example.text)
            return [Heard(self.name, answer.model, 0, answer.text, read)]
        return [
            Heard(self.name, "recorded", 0, answer.words(), _read_apart(answer, self._task, example.options))
        ]


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


def _recorded(task: Task, data: DataConfig, teacher: TeacherConfig) -> dict[Split, dict[str, Answer]]:
    given = completion_files(task, data, teacher)
    if not given:
        raise TeacherError(
            f"{task.spec.name}: no recorded completions are known for this task; name them: "
            "teacher.completions: {train: FILE, test: FILE}"
        )
    whole = _file_order(task, data)
    answers = {split: read_recorded(path, whole.get(split, [])) for split, path in given.items()}
    if task.spec.data.validation and "validation" not in answers:
        answers["validation"] = answers.get(task.spec.data.validation.from_, {})
    return answers


def _file_order(task: Task, data: DataConfig) -> dict[Split, list[str]]:
    """Ids of every split as its file has them: all of them, and with validation put back."""
    spec = task.spec
    open_ended = spec.model_copy(update={"data": spec.data.model_copy(update={"validation": None})})
    plain = DataConfig(root=data.root, source=data.source)
    found = load_examples(Task(open_ended, task.folder), plain)
    return {split: [example.id for example in rows] for split, rows in found.items()}


def _simulated(
    task: Task, examples: Mapping[Split, Iterable[Example]], teacher: TeacherConfig, seed: int
) -> dict[Split, dict[str, Answer]]:
    scripted = simulated_teacher(task, teacher.error_rate, seed)
    return {
        split: {c.example_id: c for c in scripted.complete(list(rows))} for split, rows in examples.items()
    }


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
