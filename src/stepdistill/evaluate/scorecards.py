"""Predictions against gold labels, as scorecards that keep every single outcome."""

from __future__ import annotations

from collections.abc import Sequence

from stepdistill.errors import DataError
from stepdistill.evaluate.statistics import mcnemar, wilson
from stepdistill.records import Example, Prediction, Scorecard
from stepdistill.task.answers import AnswerKind


def score(kind: AnswerKind, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Scorecard:
    """Accuracy with its Wilson interval; what could not be read counts as wrong.

    Raises:
        DataError: no example has a gold label.
        ValueError: the predictions are not those of the examples, in order.
    """
    if [e.id for e in examples] != [p.example_id for p in predictions]:
        raise ValueError("predictions and examples differ")
    outcomes = "".join(
        _outcome(kind, example.label, prediction.label)
        for example, prediction in zip(examples, predictions, strict=True)
        if example.label is not None
    )
    if not outcomes:
        raise DataError("no example has a gold label, so nothing can be measured on this split")
    right, n = outcomes.count("1"), len(outcomes)
    low, high = wilson(right, n)
    return Scorecard("accuracy", right / n, low, high, n, outcomes.count("-"), outcomes)


def compare(first: Scorecard, second: Scorecard) -> tuple[float, float]:
    """Difference of two accuracies on the same examples (second - first) and its McNemar p-value.

    Raises:
        ValueError: they are not over the same number of examples.
    """
    if first.n != second.n:
        raise ValueError(f"{first.n} and {second.n} examples cannot be compared in pairs")
    pairs = [(a == "1", b == "1") for a, b in zip(first.outcomes, second.outcomes, strict=True)]
    only_first, only_second = pairs.count((True, False)), pairs.count((False, True))
    return (only_second - only_first) / first.n, mcnemar(only_first, only_second)


def _outcome(kind: AnswerKind, gold: str, label: str | None) -> str:
    if label is None:
        return "-"
    return "1" if kind.same(gold, label) else "0"
