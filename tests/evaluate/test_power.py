"""Power of McNemar's exact test, against published examples, exact arithmetic and simulation."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.evaluate.power import (
    _shown,
    counted,
    mcnemar_power,
    needed,
    smallest_difference,
    smallest_over_seeds,
)
from stepdistill.evaluate.statistics import mcnemar
from stepdistill.evaluate.variance import Variance


def exactly(n: int, only_first: Fraction, only_second: Fraction) -> float:
    """The two-sided test at 0.05 summed over all tables, as fractions."""
    rest, total = 1 - only_first - only_second, Fraction(0)
    for a in range(n + 1):
        for b in range(n + 1 - a):
            if mcnemar(a, b) <= 0.05:
                ways = comb(n, a) * comb(n - a, b)
                total += ways * only_first**a * only_second**b * rest ** (n - a - b)
    return float(total)


def test_the_example_of_the_gpower_manual() -> None:
    """Odds ratio 0.25, 40 % discordant, n = 50, one-sided: 0.839343 in the manual, which sums approximately.

    Summed as fractions it is 0.839357; the test's own level is the manual's, 0.032578.
    """
    found = _shown(50, 0.4, 0.08 / 0.4, 0.05)
    assert found == pytest.approx(0.839343, abs=2e-5)
    assert found == pytest.approx(0.8393569848602909, rel=1e-12)
    assert _shown(50, 0.4, 0.5, 0.05) == pytest.approx(0.032578, abs=1e-6)
    # A two-sided test at twice the level is this side and a little of the other.
    assert mcnemar_power(50, 0.08, 0.32, alpha=0.1) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize(
    ("n", "first", "second"), [(12, (1, 10), (3, 10)), (30, (1, 20), (1, 3)), (25, (0, 1), (1, 4))]
)
def test_the_power_is_exact(n: int, first: tuple[int, int], second: tuple[int, int]) -> None:
    shares = Fraction(*first), Fraction(*second)
    assert mcnemar_power(n, *map(float, shares)) == pytest.approx(exactly(n, *shares), rel=1e-9)


def test_simulated_studies_show_the_difference_as_often_as_computed() -> None:
    rng = np.random.default_rng(0)
    tables = rng.multinomial(300, [0.1, 0.17, 0.73], 2000)
    shown = np.mean([mcnemar(int(a), int(b)) <= 0.05 for a, b, _ in tables])
    assert mcnemar_power(300, 0.1, 0.17) == pytest.approx(shown, abs=0.03)


@settings(max_examples=50)
@given(st.integers(1, 500), st.floats(0.01, 1))
def test_a_test_of_equals_keeps_its_level(n: int, disagreement: float) -> None:
    assert mcnemar_power(n, disagreement / 2, disagreement / 2) <= 0.05 + 1e-12


@settings(max_examples=30)
@given(st.integers(20, 3000), st.floats(0.05, 0.9))
def test_the_smallest_difference_is_shown_and_less_is_not(n: int, disagreement: float) -> None:
    gap = smallest_difference(n, disagreement)
    if gap is None:
        assert mcnemar_power(n, 0, disagreement) < 0.8
        return
    assert mcnemar_power(n, (disagreement - gap) / 2, (disagreement + gap) / 2) >= 0.8 - 1e-9
    less = gap - 1e-3
    if less > 0:
        assert mcnemar_power(n, (disagreement - less) / 2, (disagreement + less) / 2) < 0.8


@settings(max_examples=20)
@given(st.floats(0.02, 0.3), st.floats(0.3, 0.9))
def test_the_needed_examples_reach_the_power_and_one_less_does_not(
    difference: float, disagreement: float
) -> None:
    n = needed(difference, disagreement)
    assert n is not None
    shares = (disagreement - difference) / 2, (disagreement + difference) / 2
    assert mcnemar_power(n, *shares) >= 0.8 > mcnemar_power(n - 1, *shares)


def test_large_test_sets_meet_the_normal_formula() -> None:
    # (1.96 sqrt(d) + 0.84 sqrt(d - gap^2))^2 / gap^2, Miettinen (1968).
    n = needed(0.02, 0.25)
    normal = (1.959964 * 0.25**0.5 + 0.841621 * (0.25 - 0.0004) ** 0.5) ** 2 / 0.0004
    assert n == pytest.approx(normal, rel=0.02)


def test_what_cannot_be_shown_is_none() -> None:
    assert smallest_difference(5, 0.3) is None
    assert needed(0.0001, 0.5) is None


@pytest.mark.parametrize("freedom", [2.0, 4.0, 30.0])
@pytest.mark.parametrize("alpha", [0.05, 0.05 / 9])
def test_over_seeds_the_smallest_difference_is_shown_in_80_of_100_studies(
    freedom: float, alpha: float
) -> None:
    special = pytest.importorskip("scipy.special")
    gap = smallest_over_seeds(Variance(0.0001, freedom), alpha=alpha)
    assert gap is not None
    rng = np.random.default_rng(0)
    error = 0.01 * np.sqrt(rng.chisquare(freedom, 20_000) / freedom)
    shown = rng.normal(gap, 0.01, 20_000) / error > special.stdtrit(freedom, 1 - alpha / 2)
    assert shown.mean() == pytest.approx(0.8, abs=0.01)


def test_over_seeds_no_more_than_100_points_are_promised() -> None:
    assert smallest_over_seeds(Variance(0.01, 1.0)) is None
    assert smallest_over_seeds(Variance(0.0001, float("inf"))) == pytest.approx(0.028016, abs=1e-4)


def test_more_seeds_count_between_none_and_all_of_their_examples() -> None:
    assert [counted(200, seeds) for seeds in (1, 2, 3)] == [200, 266, 300]
    assert (counted(200, 3, shared=1), counted(200, 3, shared=0)) == (200, 600)


@pytest.mark.parametrize("values", [(0, 0.1, 0.1), (10, -0.1, 0.1), (10, 0.6, 0.6)])
def test_shares_that_do_not_exist_are_an_error(values: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="no test of"):
        mcnemar_power(*values)
    with pytest.raises(ValueError, match="does not exist"):
        needed(0.3, 0.2)
    with pytest.raises(ValueError, match="shares between 0 and 1"):
        smallest_difference(100, 0.2, power=1)
