"""Temperature: what scipy finds, what was put in, and what must not be claimed of a few examples."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from stepdistill.deploy.calibrate import COLDEST, HOTTEST, choose, compared, fit, reason
from stepdistill.errors import DataError, StudentError

Labelled = tuple[list[list[float]], list[int]]


def drawn(n: int, labels: int = 4, scale: float = 1.0, seed: int = 0) -> Labelled:
    """Scores of a student whose softmax at temperature `scale` is the very chance of each label."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 1.5, (n, labels))
    chances = softmax(logits, axis=1)
    gold = [int(random.choice(labels, p=row)) for row in chances]
    return (logits * scale).tolist(), gold


def mean_nll(labelled: Labelled, temperature: float) -> float:
    scores, gold = labelled
    rows = zip(scores, gold, strict=True)
    return float(np.mean([-log_softmax(np.array(row) / temperature)[place] for row, place in rows]))


@st.composite
def validation_sets(draw: st.DrawFn) -> Labelled:
    number = st.floats(-30, 0, allow_nan=False)
    rows = draw(st.lists(st.lists(number, min_size=2, max_size=6), min_size=1, max_size=30))
    return rows, [draw(st.integers(0, len(row) - 1)) for row in rows]


@given(validation_sets())
def test_no_temperature_within_the_bounds_has_a_lower_nll(labelled: Labelled) -> None:
    found = fit(*labelled)
    if all(row[place] == max(row) for row, place in zip(*labelled, strict=True)):
        assert found.temperature == 1
        assert "right on all of validation" in found.notes[0]
        return
    best = minimize_scalar(
        lambda t: mean_nll(labelled, float(np.exp(t))),
        bounds=(np.log(COLDEST), np.log(HOTTEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert mean_nll(labelled, found.temperature) <= best.fun + 1e-7


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_the_temperature_that_the_data_was_made_with_is_found(scale: float) -> None:
    labelled = drawn(4000, scale=scale)
    found = fit(*labelled)
    assert found.temperature == pytest.approx(scale, rel=0.06)
    assert found.nll_before == pytest.approx(mean_nll(labelled, 1.0))
    assert found.notes == () or scale == 1.0
    if scale != 1:
        assert found.ece_before > 5 * found.ece_after
        assert found.ece_before > 5 * found.ece_perfect
    assert found.ece_after < 2 * found.ece_perfect


def test_what_is_said_after_is_of_examples_that_were_not_fitted_on() -> None:
    few = drawn(12, scale=3.0, seed=1)
    found = fit(*few)
    assert found.folds == 5
    # On the same examples the fitted temperature is the best there is; on held-out ones it is not.
    assert found.nll_after > mean_nll(few, found.temperature)


def test_an_order_of_the_labels_is_none_of_the_folds() -> None:
    scores, gold = drawn(200, scale=2.0)
    order = sorted(range(200), key=gold.__getitem__)
    sorted_by_label = fit([scores[i] for i in order], [gold[i] for i in order])
    assert sorted_by_label.temperature == fit(scores, gold).temperature
    assert sorted_by_label.nll_after == pytest.approx(fit(scores, gold).nll_after, rel=0.05)


def test_the_same_scores_give_the_same_numbers_and_a_shift_of_a_row_changes_nothing() -> None:
    scores, gold = drawn(100, scale=2.0)
    shifted = [[value - 50 * i for value in row] for i, row in enumerate(scores)]
    assert fit(scores, gold) == fit(scores, gold)
    assert fit(shifted, gold).temperature == pytest.approx(fit(scores, gold).temperature, rel=1e-5)


def test_bounds_are_said_when_they_are_reached() -> None:
    wrong = fit([[0.0, -5.0]] * 10, [1] * 10)
    assert wrong.temperature == HOTTEST
    assert "upper bound" in wrong.notes[0]
    # One of 200 is wrong, by hardly anything: as good as separable.
    nearly = fit([[0.0, -0.9]] * 199 + [[0.0, -1e-6]], [0] * 199 + [1])
    assert nearly.temperature == COLDEST
    assert "lower bound" in nearly.notes[0]


def test_a_student_that_is_always_right_is_not_made_more_sure() -> None:
    found = fit([[-0.5, -1.5], [-2.0, -0.4]] * 20, [0, 1] * 20)
    assert found.temperature == 1
    assert found.ece_after == found.ece_before > 0
    assert fit([[-3.0]], [0]).folds == 1, "one option, one example: nothing to fit, and nothing fails"


def test_short_rows_are_as_options_that_are_not_there() -> None:
    scores, gold = drawn(60, labels=3, scale=2.0)
    longer = [[*row, -1e6] if i % 2 else row for i, row in enumerate(scores)]
    assert fit(longer, gold) == fit(scores, gold)


def test_what_cannot_be_calibrated_is_refused() -> None:
    with pytest.raises(DataError, match="no validation example"):
        fit([], [])
    with pytest.raises(StudentError, match="example 1 are not finite"):
        fit([[0.0, 1.0], [float("nan"), 0.0]], [0, 0])
    with pytest.raises(ValueError, match="gold label 2 of 2"):
        fit([[0.0, 1.0]], [2])
    with pytest.raises(ValueError, match="1 rows of scores and 2"):
        fit([[0.0, 1.0]], [0, 1])


def rows_right(right: list[bool]) -> list[list[float]]:
    return [[0.0, -1.0] if one else [-1.0, 0.0] for one in right]


@settings(max_examples=30)
@given(st.integers(0, 12))
def test_another_readout_is_chosen_only_where_mcnemar_says_so(more: int) -> None:
    first = [True] * 50 + [False] * 20
    other = [True] * (50 + more) + [False] * (20 - more)
    by_readout = {"mean": rows_right(other), "first": rows_right(first)}
    # Two-sided exact: 2 / 2**n is below 0.05 from 6 on.
    assert choose(by_readout, [0] * 70) == ("mean" if more >= 6 else "first")
    said = reason(compared(by_readout, [0] * 70))
    assert ("'mean' is more accurate than 'first'" in said) == (more >= 6)
    assert "first 71.4 %" in said


def test_two_further_readouts_are_two_tests_and_a_worse_one_is_never_chosen() -> None:
    first, better = [True] * 50 + [False] * 20, [True] * 56 + [False] * 14
    worse = [False] * 30 + [True] * 20 + [False] * 20
    by_readout = {"first": rows_right(first), "sum": rows_right(better), "mean": rows_right(first)}
    assert choose(by_readout, [0] * 70) == "first", "0.031, twice over"
    assert choose({"first": rows_right(first), "sum": rows_right(worse)}, [0] * 70) == "first"
    assert choose({"sum": rows_right(worse)}, [0] * 70) == "sum"
    assert "nothing else was tried" in reason(compared({"sum": rows_right(worse)}, [0] * 70))


@pytest.mark.parametrize("module", ["calibrate", "coverage"])
def test_it_needs_no_training_library(module: str) -> None:
    heavy = ("torch", "transformers", "scipy", "sklearn", "pyarrow", "matplotlib")
    code = f"import sys, stepdistill.deploy.{module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
