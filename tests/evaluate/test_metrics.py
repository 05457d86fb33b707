"""Scores of closed sets agree with scikit-learn and with what can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from stepdistill.evaluate.metrics import closed_scores, slices
from stepdistill.evaluate.statistics import wilson

LABELS = ["approve", "deny", "unread"]
"""The last one is called as the column of what could not be read is."""
PAIRS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from([*LABELS, None])), min_size=1, max_size=30
)


def test_scores_worked_out_by_hand() -> None:
    gold = ["approve", "approve", "approve", "deny", "deny", "deny"]
    read = ["approve", "approve", "deny", "deny", None, "approve"]
    found = closed_scores(LABELS, gold, read)
    assert found.per_class["approve"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert found.per_class["deny"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 3, "f1": 2 / 5, "support": 3}
    )
    assert found.per_class["unread"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert found.macro_f1 == pytest.approx((2 / 3 + 2 / 5) / 2)
    assert found.matrix == [[2, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]


@given(PAIRS)
def test_scores_are_those_of_scikit_learn(pairs: list[tuple[str, str | None]]) -> None:
    gold, read = [g for g, _ in pairs], [r for _, r in pairs]
    found = closed_scores(LABELS, gold, read)
    given = [f"not read {r}" if r is None else r for r in read]
    seen = sorted({*gold, *(r for r in read if r is not None)})
    assert found.macro_f1 == pytest.approx(
        reference.f1_score(gold, given, labels=seen, average="macro", zero_division=0)
    )
    report = reference.classification_report(gold, given, labels=LABELS, output_dict=True, zero_division=0)
    for label in LABELS:
        theirs = {key.removesuffix("-score"): value for key, value in report[label].items()}
        assert found.per_class[label] == pytest.approx(theirs)
    assert sum(map(sum, found.matrix)) == len(pairs)
    assert sum(row[-1] for row in found.matrix) == read.count(None)
    assert sum(found.matrix[i][i] for i in range(3)) / len(pairs) == pytest.approx(
        reference.accuracy_score(gold, given)
    )


@pytest.mark.parametrize(("gold", "read"), [(["maybe"], ["deny"]), (["deny"], ["maybe"]), ([], [])])
def test_what_is_no_label_is_an_error(gold: list[str], read: list[str | None]) -> None:
    with pytest.raises(ValueError, match=r"closed set|no example"):
        closed_scores(LABELS, gold, read)


def test_slices_have_their_own_intervals_and_names() -> None:
    found = slices(["mail", "web", "mail", None, 3, 3.5, True], "1-01100")
    assert list(found) == ["3", "3.5", "mail", "null", "true", "web"]
    low, high = wilson(1, 2)
    assert found["mail"] == {"n": 2, "accuracy": 0.5, "low": low, "high": high}
    assert found["web"]["accuracy"] == 0
    assert sum(one["n"] for one in found.values()) == 7
    with pytest.raises(ValueError, match="zip"):
        slices(["mail"], "11")
