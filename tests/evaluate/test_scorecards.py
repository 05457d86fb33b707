"""Scores: every outcome is kept, and what could not be read counts as wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.errors import DataError
from stepdistill.evaluate.scorecards import compare, score
from stepdistill.evaluate.statistics import mcnemar, wilson
from stepdistill.records import Example, Prediction, Scorecard
from stepdistill.task.closed import LabelKind
from stepdistill.task.opened import NumberKind

KIND = LabelKind(("yes", "no"))
PAIRS = st.lists(
    st.tuples(st.sampled_from(["yes", "no", None]), st.sampled_from(["yes", "no", None])), min_size=1
)


def card(pairs: list[tuple[str | None, str | None]]) -> Scorecard:
    """Score of (gold, predicted) pairs."""
    examples = [Example(str(i), "x", gold) for i, (gold, _) in enumerate(pairs)]
    predictions = [Prediction(str(i), label or "", label) for i, (_, label) in enumerate(pairs)]
    return score(KIND, examples, predictions)


def marks(text: str) -> Scorecard:
    """A scorecard with these outcomes."""
    return card([("yes", {"1": "yes", "0": "no", "-": None}[mark]) for mark in text])


def test_every_outcome_stands_in_the_order_of_the_split() -> None:
    found = card([("yes", "yes"), ("no", "yes"), ("yes", None), ("no", "no")])
    low, high = wilson(2, 4)
    assert found == Scorecard("accuracy", 0.5, low, high, 4, 1, "10-1")


def test_what_could_not_be_read_counts_as_wrong_and_is_counted() -> None:
    found = marks("1---")
    assert (found.value, found.n, found.unread) == (0.25, 4, 3)


def test_an_unlabelled_example_is_left_out() -> None:
    found = card([("yes", "yes"), (None, "yes"), (None, None), ("no", "yes")])
    assert (found.outcomes, found.n, found.unread) == ("10", 2, 0)


def test_labels_are_compared_as_the_answer_kind_says() -> None:
    examples, predictions = [Example("1", "x", "4")], [Prediction("1", "4.0", "4.0")]
    assert score(NumberKind(), examples, predictions).outcomes == "1"
    assert score(KIND, examples, predictions).outcomes == "0"


@pytest.mark.parametrize("ids", [["2", "1"], ["1"], ["1", "2", "3"], ["1", "1"], []])
def test_predictions_of_other_examples_are_an_error(ids: list[str]) -> None:
    examples = [Example("1", "x", "yes"), Example("2", "x", "yes")]
    with pytest.raises(ValueError, match="predictions and examples differ"):
        score(KIND, examples, [Prediction(i, "yes", "yes") for i in ids])


@pytest.mark.parametrize("pairs", [[], [(None, "yes")]])
def test_without_any_gold_label_nothing_can_be_measured(pairs: list[tuple[None, str]]) -> None:
    with pytest.raises(DataError, match="no example has a gold label"):
        card(pairs)


@given(PAIRS)
def test_the_value_is_the_share_of_right_outcomes(pairs: list[tuple[str | None, str | None]]) -> None:
    labelled = [(gold, label) for gold, label in pairs if gold is not None]
    if not labelled:
        return
    found = card(pairs)
    assert found.value == found.outcomes.count("1") / found.n
    assert found.n == len(found.outcomes) == len(labelled)
    assert found.unread == found.outcomes.count("-") == sum(label is None for _, label in labelled)
    assert found.outcomes.count("1") == sum(gold == label for gold, label in labelled)
    assert (found.low, found.high) == wilson(found.outcomes.count("1"), found.n)


def test_two_predictors_are_compared_example_by_example() -> None:
    difference, p = compare(marks("1100-1"), marks("111110"))
    assert difference == pytest.approx((5 - 3) / 6)
    assert p == mcnemar(1, 3)


def test_the_same_accuracy_on_other_examples_is_no_difference() -> None:
    assert compare(marks("1100"), marks("0011")) == (0.0, 1.0)


def test_unread_and_wrong_are_the_same_in_a_comparison() -> None:
    assert compare(marks("0-0-1"), marks("-0-01")) == (0.0, 1.0)


@given(st.lists(st.tuples(st.sampled_from("10-"), st.sampled_from("10-")), min_size=1))
def test_a_comparison_turned_round_changes_its_sign_alone(pairs: list[tuple[str, str]]) -> None:
    first, second = (marks("".join(side)) for side in zip(*pairs, strict=True))
    difference, p = compare(first, second)
    assert difference == pytest.approx(second.value - first.value)
    assert compare(second, first) == (-difference, p)


def test_predictors_on_other_numbers_of_examples_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="2 and 3 examples cannot be compared in pairs"):
        compare(marks("10"), marks("101"))
