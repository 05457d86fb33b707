"""An answer of kind `number` is read as the number that stands there, or not at all."""

from __future__ import annotations

import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepdistill.task.answers import Reading
from stepdistill.task.opened import NumberKind

quick = settings(max_examples=150, deadline=None)
values = st.one_of(
    st.integers(-(10**15), 10**15),
    st.floats(-1e15, 1e15, allow_nan=False),
    st.floats(-1, 1),
    st.decimals(-9999, 9999, places=2),
)


# A defect when written: small numbers were shown as 1e-05, which is not read back.
@quick
@given(value=values)
@example(0.00001)
@example(1e-300)
@example(-0.0)
def test_a_number_of_the_data_is_read_back_as_shown(value: object) -> None:
    kind = NumberKind()
    label = kind.gold(value)
    assert kind.same(label, repr(float(value)))  # type: ignore[arg-type]
    assert kind.read(f"{kind.show(label)}.") == Reading(label, "number")


# A defect when written: "inf" and numbers of 19 digits came out.
@quick
@given(text=st.text("0123456789.,-+eE= $%x", max_size=40))
@example("999999999999999999")
@example("1" + ",000" * 200)
@example("0." + "0" * 17 + "1")
def test_a_number_that_is_read_is_finite_and_read_back_as_shown(text: str) -> None:
    kind = NumberKind()
    if (label := kind.read(text).label) is not None:
        assert math.isfinite(float(label))
        assert kind.read(kind.show(label)).label == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("18", "18"),
        ("18.", "18"),
        (" $18.50 ", "18.5"),
        ("-3", "-3"),
        ("+3", "3"),
        ("1,250 in all", "1250"),
        ("1,250,000.75", "1250000.75"),
        ("25%", "25"),
        ("007", "7"),
        ("3.0", "3"),
        ("16 - 4 = 12 dollars", "12"),
        ("x = 2 + 3 = 5", "5"),
        ("12 apples, so 12", "12"),
    ],
)
def test_the_only_number_in_a_text_is_its_answer(text: str, label: str) -> None:
    assert NumberKind().read(text) == Reading(label, "number")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no number"),
        ("none", "no number"),
        ("5 =", "no number"),
        ("\u0661\u0662", "no number"),
        ("\uff11\uff12", "no number"),
        ("\u00bd", "no number"),
        ("inf", "no number"),
        ("nan", "no number"),
        ("3 or 4", "several numbers"),
        ("3 1/2", "several numbers"),
        ("1.2.3.4", "several numbers"),
        ("9" * 10_001, "too long"),
    ],
)
def test_an_answer_without_one_number_says_why(text: str, reason: str) -> None:
    assert NumberKind().read(text) == Reading(None, "", reason)


# A defect when written: a piece of a number is a wrong label that looks right.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".5", 0.5),
        ("-.5", -0.5),
        ("about .25 of it", 0.25),
        ("1e1", 10),
        ("5e-5", 5e-5),
        ("9" * 18, 999999999999999999),
        ("1,25", None),
        ("1234,567", None),
        ("1" * 36, None),
    ],
)
def test_a_number_is_read_whole_or_not_at_all(text: str, value: float | None) -> None:
    label = NumberKind().read(text).label
    if label is not None:
        assert value is not None
        assert int(label) == value if isinstance(value, int) else math.isclose(float(label), value)


@pytest.mark.parametrize("value", ["many", None, True, math.nan, math.inf, "3 or 4", [], ""])
def test_a_gold_label_that_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(ValueError, match="is not a number") as caught:
        NumberKind().gold(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("left", "right", "tolerance", "same"),
    [
        ("18", "18.0", 0.0, True),
        ("18", "18.5", 1e-6, False),
        ("18", "18.5", 0.05, True),
        ("0.0000001", "0", 1e-6, True),
        ("0.1", "0.2", 1e-6, False),
        ("-5", "5", 1e-6, False),
    ],
)
def test_numbers_are_compared_within_the_tolerance(
    left: str, right: str, tolerance: float, same: bool
) -> None:
    assert NumberKind(tolerance).same(left, right) is same
    assert NumberKind(tolerance).same(right, left) is same
