"""The value of an arithmetic expression in text, by a parser that can do nothing else.

Model output is untrusted text, so it never reaches Python's `eval`: `9**9**9` would stop the
machine and a call would run. The grammar is + - * / ( ) and decimal numbers in ASCII digits.
"""

from __future__ import annotations

import re

MAX_LENGTH = 400
"""Characters; the longest expression in SVAMP has under 60."""
MAX_DEPTH = 40
"""Brackets and signs inside each other; bounds the recursion."""
MAX_MAGNITUDE = 1e15
"""Of any number or intermediate value; above it, doubles no longer hold every integer."""

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?|\.[0-9]+)|(?P<sign>[-+*/()]))", re.ASCII)


class ExpressionError(ValueError):
    """The text is not an expression that has a value; the message is a short reason."""


def evaluate(text: str) -> float:
    """Value of an arithmetic expression.

    Raises:
        ExpressionError: not an expression, a division by zero, or beyond a limit of this module.

    >>> evaluate("( ( 14.0 + 21.0 ) / 7.0 )")
    5.0
    >>> evaluate("9**9**9")
    Traceback (most recent call last):
    stepdistill.task.expression.ExpressionError: not arithmetic
    """
    if len(text) > MAX_LENGTH:
        raise ExpressionError("too long")
    parser = _Parser(_tokens(text))
    value = parser.sum(0)
    if parser.position != len(parser.tokens):
        raise ExpressionError("not arithmetic")
    return value


def _tokens(text: str) -> list[str]:
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None:
            raise ExpressionError("not arithmetic")
        tokens.append(match["number"] or match["sign"])
        position = match.end()
    if not tokens:
        raise ExpressionError("empty")
    return tokens


class _Parser:
    """Recursive descent over tokens: a sum of products of atoms."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.position = 0

    def sum(self, depth: int) -> float:
        value = self._product(depth)
        while self._next() in ("+", "-"):
            value = self._apply(self._take(), value, self._product(depth))
        return value

    def _product(self, depth: int) -> float:
        value = self._atom(depth)
        while self._next() in ("*", "/"):
            value = self._apply(self._take(), value, self._atom(depth))
        return value

    def _atom(self, depth: int) -> float:
        if depth >= MAX_DEPTH:
            raise ExpressionError("nested too deeply")
        token = self._take()
        if token in ("-", "+"):
            value = self._atom(depth + 1)
            return -value if token == "-" else value
        if token == "(":
            value = self.sum(depth + 1)
            if self._take() != ")":
                raise ExpressionError("not arithmetic")
            return value
        if token in ("*", "/", ")", ""):
            raise ExpressionError("not arithmetic")
        return _bounded(float(token))

    def _apply(self, sign: str, left: float, right: float) -> float:
        if sign == "/" and right == 0:
            raise ExpressionError("division by zero")
        if sign == "+":
            return _bounded(left + right)
        if sign == "-":
            return _bounded(left - right)
        return _bounded(left * right if sign == "*" else left / right)

    def _next(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def _take(self) -> str:
        token = self._next()
        self.position += 1
        return token


def _bounded(value: float) -> float:
    if abs(value) > MAX_MAGNITUDE:
        raise ExpressionError("too large")
    return value
