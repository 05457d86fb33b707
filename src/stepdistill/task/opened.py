"""Answers from an open set: a number, an arithmetic expression, free text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from stepdistill.errors import brief
from stepdistill.task.expression import MAX_MAGNITUDE, ExpressionError, evaluate
from stepdistill.task.reading import Reading, normal, unread

# A figure as it stands, and what of figures is a number: a piece of one would be a wrong label.
_FIGURE = re.compile(r"[-+]?(?:[0-9][0-9,]*(?:\.[0-9]+)*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
# A sign must not be lost: LLMs write the minus of print, and put the currency between sign and number.
_MINUS = {0x2212: "-", 0x2013: "-", 0xFF0D: "-"}
_SIGNED_MONEY = re.compile(r"([-+])\s*[$€£]\s*")
_RAISED = re.compile("[²³¹⁰-⁹]")


@dataclass(frozen=True, slots=True)
class NumberKind:
    """A number; two are the same within `tolerance`, absolute or relative to the larger."""

    tolerance: float = 1e-6

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The only number in the text, or the one behind the last equals sign.

        >>> NumberKind().read("$1,250 in all.")
        Reading(label='1250', rule='number', reason='')
        """
        if len(text) > 10_000:
            return unread("too long")
        part = _SIGNED_MONEY.sub(r"\1", text.translate(_MINUS).rsplit("=", 1)[-1])
        if _RAISED.search(part):
            return unread("several numbers")
        figures = {figure.rstrip(",") for figure in _FIGURE.findall(part)}
        if not figures:
            return unread("no number")
        figure = figures.pop()
        if figures or not _NUMBER.fullmatch(figure):
            return unread("several numbers")
        value = float(figure.replace(",", ""))
        return Reading(_plain(value), "number") if abs(value) <= MAX_MAGNITUDE else unread("too large")

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """The number as the data has it, as a number or as text."""
        found = self.read(str(value))
        if found.label is None:
            raise ValueError(f"label {brief(value)} is not a number ({found.reason})")
        return found.label

    def same(self, left: str, right: str) -> bool:
        """Numbers are the same within the tolerance."""
        return _close(float(left), float(right), self.tolerance)

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """The number itself."""
        return label


@dataclass(frozen=True, slots=True)
class EquationKind:
    """An arithmetic expression; two are the same when their values are, within `tolerance`.

    The rule `whole` reads all that stands behind the marker: "(16 * 17) * 4." is 1088. The rule
    `brackets` reads from the first bracket to the last, as the authors' code does: the same answer
    becomes 272. `whole` is the default, because `brackets` misreads right answers and would train
    a student on the damage; `brackets` is there to repeat the published teacher accuracy.
    """

    tolerance: float = 1e-6
    rule: str = "whole"

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The expression, where it has a value.

        >>> EquationKind().read("(84 / 2).")
        Reading(label='(84 / 2)', rule='whole', reason='')
        >>> EquationKind().read("(25 + x)").reason
        'not arithmetic'
        """
        if len(text) > 10_000:
            return unread("too long")
        expression = text.strip().removesuffix(".").strip()
        if self.rule == "brackets":
            start, end = text.find("("), text.rfind(")")
            expression = text[start : end + 1] if 0 <= start < end else ""
        elif expression.count("=") == 1:
            expression = expression.split("=")[0].strip()
        try:
            evaluate(expression)
        except ExpressionError as error:
            return unread(str(error))
        return Reading(expression, self.rule)

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """The expression as the data has it."""
        try:
            evaluate(str(value))
        except ExpressionError as error:
            raise ValueError(f"label {brief(value)} is not arithmetic ({error})") from None
        return str(value).strip()

    def same(self, left: str, right: str) -> bool:
        """Expressions are the same when their values are."""
        return _close(evaluate(left), evaluate(right), self.tolerance)

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """The expression itself."""
        return label


@dataclass(frozen=True, slots=True)
class TextKind:
    """Free text; two are the same when they are equal up to case, punctuation and spaces."""

    def read(self, text: str, options: Sequence[str] = ()) -> Reading:
        """The whole text, without white space around it."""
        return Reading(text.strip(), "text") if normal(text) else unread("empty answer")

    def gold(self, value: object, options: Sequence[str] = ()) -> str:
        """The text as the data has it."""
        if not normal(str(value)):
            raise ValueError(f"label {brief(value)} is empty")
        return str(value).strip()

    def same(self, left: str, right: str) -> bool:
        """Texts are the same when their normal forms are."""
        return normal(left) == normal(right)

    def show(self, label: str, options: Sequence[str] = ()) -> str:
        """The text itself."""
        return label


def _close(left: float, right: float, tolerance: float) -> bool:
    return abs(left - right) <= tolerance * max(1.0, abs(left), abs(right))


def _plain(value: float) -> str:
    return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
