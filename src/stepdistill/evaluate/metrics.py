"""What predictions are worth beside accuracy: macro-F1, scores of each label, confusion matrix, slices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepdistill.evaluate.statistics import wilson


@dataclass(frozen=True)
class ClosedScores:
    """Scores of answers from a closed set of labels.

    Attributes:
        macro_f1: the mean F1 of all labels that are gold or were given at least once.
        per_class: precision, recall, F1 and support (number of gold examples) by label, of all labels; a
            quotient of nothing by nothing is 0.
        matrix: counts; rows are gold labels, columns the labels read, in the order of the task, and last
            what could not be read.
    """

    macro_f1: float
    per_class: dict[str, dict[str, float]]
    matrix: list[list[int]]


def closed_scores(labels: Sequence[str], gold: Sequence[str], read: Sequence[str | None]) -> ClosedScores:
    """Score answers from a closed set, by scikit-learn; what could not be read is a miss of its gold label.

    Args:
        labels: the closed set.
        gold: one of the labels for each example.
        read: what was read of the answers, None where nothing could be.

    Raises:
        ValueError: a label outside the set, or no example.

    >>> closed_scores(["a", "b"], ["a", "a", "b"], ["a", None, "b"]).matrix
    [[1, 0, 1], [0, 1, 0]]
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    place = {label: index for index, label in enumerate(labels)}
    strange = sorted({*gold, *(label for label in read if label is not None)} - place.keys())
    if strange or not gold:
        raise ValueError(f"labels outside the closed set: {strange}" if strange else "no example to score")
    # By number, the last for what was not read: a label may itself be called "unread".
    true = [place[label] for label in gold]
    given = [len(labels) if label is None else place[label] for label in read]
    classes = list(range(len(labels)))
    scores = precision_recall_fscore_support(true, given, labels=classes, zero_division=0)
    names = ("precision", "recall", "f1", "support")
    columns = [column.tolist() for column in scores]
    columns[-1] = [int(support) for support in columns[-1]]
    per_class = {
        label: dict(zip(names, values, strict=True))
        for label, values in zip(labels, zip(*columns, strict=True), strict=True)
    }
    seen = sorted({*true, *given} & set(classes))
    matrix = confusion_matrix(true, given, labels=[*classes, len(labels)])[: len(labels)]
    return ClosedScores(
        macro_f1=sum(columns[2][index] for index in seen) / len(seen),
        per_class=per_class,
        matrix=[[int(count) for count in row] for row in matrix],
    )


def slices(values: Sequence[Any], outcomes: str) -> dict[str, dict[str, float]]:
    """Accuracy with its 95 % Wilson interval by the values of a column, in the order of their names.

    Args:
        values: of each example; what is no text is named as JSON has it, a missing one "null".
        outcomes: one character an example, `1` for right.

    Raises:
        ValueError: their numbers differ.

    >>> slices(["x", "y", "x"], "10-")["x"]["accuracy"]
    0.5
    """
    groups: dict[str, list[str]] = {}
    for value, outcome in zip(values, outcomes, strict=True):
        groups.setdefault(named(value), []).append(outcome)
    return {name: _share(groups[name]) for name in sorted(groups)}


def named(value: Any) -> str:
    """The name of a slice.

    >>> named("x"), named(3), named(None)
    ('x', '3', 'null')
    """
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _share(outcomes: Sequence[str]) -> dict[str, float]:
    n, right = len(outcomes), outcomes.count("1")
    low, high = wilson(right, n)
    return {"n": n, "accuracy": right / n, "low": low, "high": high}
