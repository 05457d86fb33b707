"""The accuracy/coverage curve: by hand, by its invariants, and the thresholds chosen on it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.deploy.coverage import LEAST, POINTS, Point, cost_per_1000, curve, point_for, threshold_for
from stepdistill.errors import ConfigError, DataError
from stepdistill.evaluate.statistics import wilson

Answers = list[tuple[float, bool]]
# Few different values, so that ties are common.
ANSWERS = st.lists(
    st.tuples(st.one_of(st.sampled_from([0.25, 0.5, 0.9, 1.0]), st.floats(0, 1)), st.booleans()),
    min_size=1,
    max_size=150,
)


def of(answers: Answers, most: int = POINTS) -> list[Point]:
    return curve([c for c, _ in answers], [r for _, r in answers], most)


def kept(answers: Answers, threshold: float) -> list[bool]:
    return [hit for confidence, hit in answers if confidence >= threshold]


def test_an_example_worked_out_by_hand() -> None:
    found = of([(0.9, True), (0.5, False), (0.7, True), (0.7, False)])
    assert [(p.threshold, p.coverage, p.n) for p in found] == [(0.0, 1.0, 4), (0.7, 0.75, 3), (0.9, 0.25, 1)]
    assert [p.accuracy for p in found] == [0.5, 2 / 3, 1.0]
    assert (found[1].low, found[1].high) == wilson(2, 3)


@given(ANSWERS)
def test_every_point_is_what_is_kept_at_its_threshold(answers: Answers) -> None:
    for point in of(answers):
        hits = kept(answers, point.threshold)
        assert (point.n, point.coverage) == (len(hits), len(hits) / len(answers))
        assert point.accuracy == sum(hits) / len(hits)
        assert point.low <= point.accuracy <= point.high
        assert point.low <= point.assured <= point.accuracy


@given(ANSWERS, st.integers(2, 60))
def test_coverage_falls_from_all_and_the_curve_has_so_many_points_at_most(
    answers: Answers, most: int
) -> None:
    found = of(answers, most)
    distinct = {c for c, _ in answers}
    assert len(found) == len(distinct) <= most or len(found) <= most < len(distinct)
    assert (found[0].threshold, found[0].coverage) == (0.0, 1.0)
    for before, after in pairwise(found):
        assert before.threshold < after.threshold
        assert before.coverage > after.coverage
    if len(found) > 1:
        assert found[-1].threshold == max(distinct)


def test_a_thinned_curve_goes_in_even_steps() -> None:
    found = of([(i / 1000, True) for i in range(1000)])
    steps = [a.coverage - b.coverage for a, b in pairwise(found)]
    assert len(found) == POINTS
    assert max(steps) < 1.2 / POINTS


@given(ANSWERS, st.floats(0.01, 1))
def test_a_target_accuracy_is_reached_by_the_least_threshold_or_the_best_is_told(
    answers: Answers, target: float
) -> None:
    points = of(answers)
    usable = [p for p in points if p.n >= LEAST] or points[:1]
    best = max(p.accuracy for p in usable)
    if best < target:
        with pytest.raises(ConfigError, match=f"the best is {best:.3f}"):
            threshold_for(points, target_accuracy=target)
        return
    threshold = threshold_for(points, target_accuracy=target)
    hits = kept(answers, threshold)
    assert sum(hits) / len(hits) >= target
    assert all(p.accuracy < target for p in usable if p.threshold < threshold)


@given(ANSWERS, st.floats(0.001, 1))
def test_a_target_share_is_still_answered_and_no_higher_threshold_answers_it(
    answers: Answers, target: float
) -> None:
    points = of(answers)
    threshold = threshold_for(points, target_share=target)
    assert len(kept(answers, threshold)) / len(answers) >= target
    assert all(p.coverage < target for p in points if p.threshold > threshold)


def test_equal_confidences_are_kept_or_refused_together() -> None:
    found = of([(0.5, True)] * 30)
    assert [p.threshold for p in found] == [0.0]
    assert threshold_for(found, target_share=0.1) == 0.0


def test_the_surest_few_are_not_taken_for_a_target_reached() -> None:
    answers = [(0.99, True)] * (LEAST - 1) + [(0.6, i % 2 == 0) for i in range(50)]
    with pytest.raises(ConfigError, match=r"no threshold reaches it on validation; the best is 0\.576"):
        threshold_for(of(answers), target_accuracy=0.99)
    assert threshold_for(of([(0.99, True), *answers]), target_accuracy=0.99) == 0.99


def test_what_may_be_counted_on_is_less_than_what_was_seen() -> None:
    point = point_for(of([(0.9, i > 4) for i in range(100)]), target_accuracy=0.95)
    assert point.accuracy == 0.95
    assert point.low < point.assured < 0.91


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({}, "give one of"),
        ({"target_accuracy": 0.9, "target_share": 0.9}, "give one of"),
        ({"target_accuracy": 90}, "target accuracy 90: give a share"),
        ({"target_share": 0.0}, "target share 0"),
        ({"target_share": float("nan")}, "target share nan"),
    ],
)
def test_a_target_is_one_share(targets: dict[str, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        threshold_for(of([(0.5, True)]), **targets)


def test_nothing_comes_of_nothing() -> None:
    with pytest.raises(DataError, match="no validation answer"):
        curve([], [])
    with pytest.raises(ValueError, match="not between 0 and 1"):
        curve([1.5], [True])


def test_the_teacher_is_paid_for_what_the_student_leaves() -> None:
    low, *_, high = of([(i / 10, True) for i in range(10)])
    assert cost_per_1000(low, 0.01) == 0
    assert cost_per_1000(high, 0.01) == pytest.approx(9.0)
