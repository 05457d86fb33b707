"""Arithmetic in text has the value that exact fractions give it, and no text can do anything else."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from fractions import Fraction

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stepdistill.task.expression import MAX_DEPTH, MAX_LENGTH, MAX_MAGNITUDE, ExpressionError, evaluate

REASONS = ("too long", "not arithmetic", "empty", "nested too deeply", "division by zero", "too large")
ROUNDING = Fraction(1, 2**52)


@dataclass(frozen=True)
class Tree:
    sign: str
    left: Tree | str
    right: Tree | str | None = None


class NoValueError(Exception):
    pass


def bound(value: Fraction, error: Fraction) -> tuple[Fraction, Fraction]:
    if abs(value) > MAX_MAGNITUDE + error:
        raise NoValueError("too large")
    assume(abs(value) + 2 * error < MAX_MAGNITUDE)
    return value, error + (abs(value) + error) * ROUNDING


def exact(tree: Tree | str) -> tuple[Fraction, Fraction]:
    """Value, and how far doubles may be from it at most."""
    if isinstance(tree, str):
        return bound(Fraction(tree), Fraction(0))
    left, off_left = exact(tree.left)
    if tree.right is None:
        return (-left if tree.sign == "-" else left), off_left
    right, off_right = exact(tree.right)
    if tree.sign in "+-":
        return bound(left + right if tree.sign == "+" else left - right, off_left + off_right)
    if tree.sign == "*":
        return bound(left * right, abs(left) * off_right + abs(right) * off_left + off_left * off_right)
    if right == 0 and off_right == 0:
        raise NoValueError("division by zero")
    assume(abs(right) > 2 * off_right)
    error = (off_left + abs(left / right) * off_right) / (abs(right) - off_right)
    return bound(left / right, error)


def render(tree: Tree | str, space: st.DataObject, strength: int = 0) -> str:
    """Text with only some of the brackets that are not needed, and white space anywhere."""
    blank = space.draw(st.sampled_from(["", "", " ", "\t", "  "]))
    if isinstance(tree, str):
        return f"{blank}{tree}"
    if tree.right is None:
        text, own = f"{blank}{tree.sign}{render(tree.left, space, 4)}", 3
    else:
        own = 1 if tree.sign in "+-" else 2
        text = f"{render(tree.left, space, own)}{blank}{tree.sign}{render(tree.right, space, own + 1)}"
    wanted = own < strength or space.draw(st.integers(0, 3)) == 0
    return f"{blank}({text}{blank})" if wanted else text


NUMBERS = st.one_of(
    st.integers(0, 99).map(str),
    st.integers(10**6, 10**9).map(str),
    st.builds("{}.{}".format, st.integers(0, 99), st.integers(0, 99)),
    st.integers(0, 99).map(".{}".format),
    st.integers(0, 99).map("{}.".format),
)
TREES = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.builds(Tree, st.sampled_from("+-*/"), inner, inner), st.builds(Tree, st.sampled_from("+-"), inner)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(tree=TREES, space=st.data())
def test_an_expression_has_the_value_of_exact_fractions(tree: Tree | str, space: st.DataObject) -> None:
    text = render(tree, space)
    assume(len(text) <= MAX_LENGTH)
    assume(sum(map(text.count, "(+-")) < MAX_DEPTH)
    try:
        value, error = exact(tree)
    except NoValueError as reason:
        with pytest.raises(ExpressionError, match=str(reason)):
            evaluate(text)
    else:
        assert abs(Fraction(evaluate(text)) - value) <= 2 * error


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.text(max_size=500), st.text("0123456789+-*/(). ", max_size=500)))
def test_no_text_raises_anything_but_expression_error(text: str) -> None:
    reason = "too long"
    try:
        assert math.isfinite(evaluate(text))
    except ExpressionError as error:
        reason = str(error)
    assert reason in REASONS


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8 - 3 - 2", 3),
        ("24 / 4 / 2", 3),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("- 2 * 3", -6),
        ("3 - - 2", 5),
        ("--+-5", -5),
        ("2*-3", -6),
        ("-(1 + 2)", -3),
        (".5 + 5.", 5.5),
        ("007", 7),
        ("1\n+\t1", 2),
        ("0.1 + 0.2", 0.3),
        ("999999999999999", 999999999999999),
    ],
)
def test_signs_brackets_and_order_mean_what_they_mean_at_school(text: str, value: float) -> None:
    assert evaluate(text) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        (" \t\n ", "empty"),
        ("1/0", "division by zero"),
        ("1/(2-2)", "division by zero"),
        ("0/0", "division by zero"),
        ("9**9**9", "not arithmetic"),
        ("9//2", "not arithmetic"),
        ("7 % 2", "not arithmetic"),
        ("2^3", "not arithmetic"),
        ("()", "not arithmetic"),
        ("2(3)", "not arithmetic"),
        ("(2)3", "not arithmetic"),
        ("1 2", "not arithmetic"),
        ("1 + ", "not arithmetic"),
        ("* 3", "not arithmetic"),
        ("(1 + 2", "not arithmetic"),
        ("1 + 2)", "not arithmetic"),
        (")1(", "not arithmetic"),
        ("1,000", "not arithmetic"),
        ("1_000", "not arithmetic"),
        ("0x10", "not arithmetic"),
        ("1e3", "not arithmetic"),
        ("1e999", "not arithmetic"),
        ("1.2.3", "not arithmetic"),
        ("1..2", "not arithmetic"),
        (".", "not arithmetic"),
        ("inf", "not arithmetic"),
        ("nan", "not arithmetic"),
        ("1j", "not arithmetic"),
        ("True", "not arithmetic"),
        ("__import__('os').system('true')", "not arithmetic"),
        ("().__class__", "not arithmetic"),
        ("x + 1", "not arithmetic"),
        ("1\x00+1", "not arithmetic"),
        ("\x00", "not arithmetic"),
        ("\u0663 + \u0664", "not arithmetic"),
        ("\uff11 + \uff12", "not arithmetic"),
        ("\u00b2", "not arithmetic"),
        ("2 \u00d7 3", "not arithmetic"),
        ("5 \u2212 3", "not arithmetic"),
        ("1\u00a0+\u00a01", "not arithmetic"),
        ("\ud800", "not arithmetic"),
        ("9" * 16, "too large"),
        ("9" * 400, "too large"),
        ("100000000 * 100000000", "too large"),
        ("1 - 999999999999999 - 3", "too large"),
        ("1 / ." + "0" * 300 + "1", "too large"),
        ("9" * 15 + " * 9 / 9", "too large"),
        ("-" * 399 + "1", "nested too deeply"),
        ("(" * 199 + "1" + ")" * 199, "nested too deeply"),
        ("1" * (MAX_LENGTH + 1), "too long"),
        ("1 + 1" + " " * MAX_LENGTH, "too long"),
    ],
)
def test_what_is_not_plain_arithmetic_is_refused_with_a_short_reason(text: str, reason: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize("depth", [1, MAX_DEPTH - 1])
def test_brackets_up_to_the_limit_are_read(depth: int) -> None:
    assert evaluate("(" * depth + "7" + ")" * depth) == 7
    assert abs(evaluate("-" * depth + "7")) == 7


def test_one_bracket_over_the_limit_is_refused() -> None:
    with pytest.raises(ExpressionError, match="nested too deeply"):
        evaluate("(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000,
        "(" * 10_000 + "1" + ")" * 10_000,
        "-" * 10_000 + "1",
        "1" * 1_000_000,
        "1 " * 200,
        " " * 399 + "x",
        "9**" * 130 + "9",
        "9*" * 199 + "9",
        "1+" * 5_000_000 + "1",
    ],
    ids=lambda text: f"{text[:4]!r}x{len(text)}",
)
def test_hostile_length_and_depth_are_refused_at_once(text: str) -> None:
    start = time.process_time()
    with pytest.raises(ExpressionError):
        evaluate(text)
    assert time.process_time() - start < 0.5


def test_an_expression_error_is_a_value_error() -> None:
    assert issubclass(ExpressionError, ValueError)
