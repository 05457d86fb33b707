"""Predictions of students and of the teacher, through one protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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
from stepdistill.student.methods import PREFIXES
from stepdistill.student.model import Student
from stepdistill.task.answers import AnswerKind


@dataclass(frozen=True)
class StudentPredictor:
    """Asks a student for the label of every example, and for the rationale where `explain`."""

    student: Student
    kind: AnswerKind
    new_tokens: Mapping[str, int]
    explain: bool = False
    watch: Watcher = unwatched

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Greedy answers, read by the task's answer kind."""
        texts = self._write("label", examples)
        reasons = self._write("rationale", examples) if self.explain else [None] * len(examples)
        return [
            read_prediction(self.kind, example, text, rationale)
            for example, text, rationale in zip(examples, texts, reasons, strict=True)
        ]

    def _write(self, task: TaskName, examples: Sequence[Example]) -> list[str]:
        inputs = [PREFIXES[task] + example.text for example in examples]
        return generate(self.student, inputs, self.new_tokens[task], watch=self.watch)


def read_prediction(
    kind: AnswerKind, example: Example, text: str, rationale: str | None = None
) -> Prediction:
    """Read a student's words; what is no answer stays without a label, with the reason."""
    reading = kind.read(text, example.options)
    reason = None if reading.label is not None else reading.reason
    return Prediction(example.id, text, reading.label, reason, rationale)


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
