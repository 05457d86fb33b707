"""Predictions of students and of the teacher, through one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from stepdistill.evaluate.words import Interview, read_words
from stepdistill.records import (
    Annotation,
    Example,
    Prediction,
    TaskName,
    Unparsed,
    Watcher,
    unwatched,
)
from stepdistill.student.generate import generate
from stepdistill.student.methods import Form
from stepdistill.student.model import Student
from stepdistill.task.answers import AnswerKind

Surely = Callable[[Sequence[str]], Sequence[tuple[str, tuple[float, ...]]]]
"""Answers to input texts, each with the probabilities of a closed set of labels."""


@dataclass(frozen=True)
class StudentPredictor:
    """Asks a student for the label of every example, in the form that it was trained in.

    Args:
        student: who is asked.
        kind: reads the answers.
        new_tokens: the most tokens of an answer, by task.
        explain: whether the rationale is wanted too, where writing it is extra work.
        watch: told of progress.
        form, given, surely: as in `Interview`; `surely` is given texts.
    """

    student: Student
    kind: AnswerKind
    new_tokens: Mapping[TaskName, int]
    explain: bool = False
    watch: Watcher = unwatched
    form: Form = "label"
    given: Callable[[Example], str | None] | None = None
    surely: Surely | None = None

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Greedy answers, read by the task's answer kind, with the rationales that were written or given."""
        pairs = zip(examples, self._interview.words(examples), strict=True)
        return [read_words(self.kind, example, words) for example, words in pairs]

    def explanations(self, examples: Sequence[Example]) -> list[str | None]:
        """The rationales that the student writes for these examples, whatever its labels are.

        None for an example without one, and all are where the form has none that is extra work.
        """
        return self._interview.explanations(examples)

    @property
    def _interview(self) -> Interview:
        surely = self.surely
        sure = None if surely is None else lambda examples: surely([example.text for example in examples])
        return Interview(self.form, self._write, self.explain, self.given, sure)

    def _write(self, task: TaskName, texts: Sequence[str], stop: str | None) -> list[str]:
        return generate(self.student, texts, self.new_tokens[task], watch=self.watch, task=task, stop=stop)


@dataclass(frozen=True)
class TeacherPredictor:
    """The teacher's own answers: the few-shot CoT baseline of the paper."""

    annotations: Mapping[str, Annotation | Unparsed]

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """What was read of the teacher's answers; an example it was not asked counts as unread."""
        return [self._prediction(example) for example in examples]

    def _prediction(self, example: Example) -> Prediction:
        read = self.annotations.get(example.id)
        if isinstance(read, Annotation):
            return Prediction(example.id, read.label, read.label, None, read.rationale)
        return Prediction(example.id, "", None, read.reason if read else "no answer")
