"""What a student says in each form, taken apart: the answer, and the rationale beside it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from stepdistill.records import Example, Prediction, TaskName
from stepdistill.student.methods import MARKERS, Form, with_rationale
from stepdistill.task.answers import AnswerKind

Write = Callable[[TaskName, Sequence[str], str | None], Sequence[str]]
"""Writes behind input texts what a task asks for; may end once the string, where one is given, is written."""
Surely = Callable[[Sequence[Example]], Sequence[tuple[str, tuple[float, ...]]]]
"""Answers to examples, each with the probabilities of a closed set of labels."""
NO_MARKER = f"no {MARKERS['label']} marker"
"""Why the words of a student that reasons first are unread when it never came to its answer."""
NO_RATIONALE = "no rationale to answer with"
"""Why an example is unread whose rationale should have been part of the input."""


@dataclass(frozen=True)
class Words:
    """A student's words: all of them, the answer among them (or why there is none), and the rationale."""

    text: str
    answer: str | None
    rationale: str | None = None
    reason: str | None = None
    probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Interview:
    """How a student of a form is asked, whoever runs its model.

    Args:
        form: what the student writes.
        write: has the student write.
        explain: whether the rationale is wanted too, where writing it is extra work.
        given: for `rationale-input`: the rationale that goes into an example's input, or None where there is
            none; without this function the student writes it first.
        surely: gives the answers with the probabilities of all labels beside each, where the label is written
            by itself and from the text alone (forms `label` and `both`); without it they are not measured.
    """

    form: Form
    write: Write
    explain: bool = False
    given: Callable[[Example], str | None] | None = None
    surely: Surely | None = None

    def words(self, examples: Sequence[Example]) -> list[Words]:
        """What the student says of each example, in order."""
        texts = [example.text for example in examples]
        if self.form == "rationale-input":
            return self._with_rationales(examples)
        if self.form == "rationale-first":
            return [reason_first(text) for text in self._write("label", texts)]
        if self.form == "label-first":
            stop = None if self.explain else MARKERS["rationale"]
            return [label_first(text, self.explain) for text in self._write("label", texts, stop)]
        answers = self._answers(examples)
        wanted = self.explain and self.form == "both"
        reasons = self._write("rationale", texts) if wanted else [None] * len(texts)
        return [
            Words(text, text, reason, probabilities=shares)
            for (text, shares), reason in zip(answers, reasons, strict=True)
        ]

    def explanations(self, examples: Sequence[Example]) -> list[str | None]:
        """The rationales that the student writes for these examples, whatever its labels are.

        None for an example without one, and all are where the form has none that is extra work.
        """
        texts = [example.text for example in examples]
        if self.form == "both":
            return list(self._write("rationale", texts))
        if self.form == "label-first":
            return [label_first(text).rationale for text in self._write("label", texts)]
        return [None] * len(texts)

    def _answers(self, examples: Sequence[Example]) -> list[tuple[str, tuple[float, ...] | None]]:
        if self.surely is None:
            return [(text, None) for text in self._write("label", [example.text for example in examples])]
        return list(self.surely(examples))

    def _with_rationales(self, examples: Sequence[Example]) -> list[Words]:
        reasons: list[str | None]
        if self.given:
            reasons = [self.given(example) for example in examples]
        else:
            reasons = [text or None for text in self._write("rationale", [e.text for e in examples])]
        ready = [(e.text, reason) for e, reason in zip(examples, reasons, strict=True) if reason]
        answers = iter(self._write("label", [with_rationale(*pair) for pair in ready]))
        return [_answered(answers, reason) for reason in reasons]

    def _write(self, task: TaskName, texts: Sequence[str], stop: str | None = None) -> Sequence[str]:
        return self.write(task, texts, stop) if texts else []


def read_words(kind: AnswerKind, example: Example, words: Words) -> Prediction:
    """The label in a student's words, as the task reads it, or why there is none."""
    if words.answer is None:
        return Prediction(example.id, words.text, None, words.reason, words.rationale)
    reading = kind.read(words.answer, example.options)
    reason = None if reading.label is not None else reading.reason
    return Prediction(example.id, words.text, reading.label, reason, words.rationale, words.probabilities)


def reason_first(text: str) -> Words:
    """Split `rationale [label] answer` at the last marker: a rationale may quote one, an answer does not.

    >>> words = reason_first("2 and 2. [label] 4")
    >>> words.rationale, words.answer
    ('2 and 2.', '4')
    """
    marks = list(_marker("label").finditer(text))
    if not marks:
        return Words(text, None, text.strip() or None, NO_MARKER)
    before, after = text[: marks[-1].start()], text[marks[-1].end() :]
    return Words(text, after.strip(), before.strip() or None)


def label_first(text: str, explain: bool = True) -> Words:
    """Split `answer [rationale] rationale` at the first marker; only the answer, unless `explain`.

    >>> label_first("4 [rationale] 2 and 2.").rationale
    '2 and 2.'
    """
    mark = _marker("rationale").search(text)
    if not mark:
        return Words(text, text)
    reason = text[mark.end() :].strip() or None
    return Words(text, text[: mark.start()].strip(), reason if explain else None)


def _marker(task: TaskName) -> re.Pattern[str]:
    # Some tokenizers give a marker back with spaces in it.
    name = MARKERS[task].strip("[]")
    return re.compile(rf"\[\s*{name}\s*\]")


def _answered(answers: Iterator[str], reason: str | None) -> Words:
    if not reason:
        return Words("", None, None, NO_RATIONALE)
    text = next(answers)
    return Words(text, text, reason)
