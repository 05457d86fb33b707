"""The table of answer kinds: each reads a label out of text and compares two labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stepdistill.task.closed import ChoiceKind, LabelKind
from stepdistill.task.opened import EquationKind, NumberKind, TextKind
from stepdistill.task.reading import AnswerKind, Reading

if TYPE_CHECKING:
    from stepdistill.task.schema import AnswerSpec

__all__ = ["KINDS", "RULES", "AnswerKind", "Reading"]

KINDS: dict[str, Callable[[AnswerSpec], AnswerKind]] = {
    "label": lambda spec: LabelKind(tuple(spec.labels), dict(spec.codes)),
    "choice": lambda spec: ChoiceKind(spec.read or "sole-letter"),
    "number": lambda spec: NumberKind(spec.tolerance),
    "equation": lambda spec: EquationKind(spec.tolerance, spec.read or "whole"),
    "text": lambda spec: TextKind(),
}
"""Every answer kind, made from the `answer` section of a task file."""

RULES = {"choice": ("sole-letter", "first-letter", "text"), "equation": ("whole", "brackets")}
"""Reading rules a task file may choose with `answer.read`; the first is the default."""
