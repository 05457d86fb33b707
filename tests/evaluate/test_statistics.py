"""Wilson's interval, McNemar's exact test and Holm's correction against published and computed values."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.evaluate.statistics import holm, mcnemar, wilson

SHARES = st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
COUNTS = st.integers(0, 200)


# Newcombe (1998), Statistics in Medicine 17, 857-872, table I, method 3.
@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_interval_is_the_published_one(right: int, n: int, low: float, high: float) -> None:
    assert [round(bound, 4) for bound in wilson(right, n)] == [low, high]


def test_the_interval_solves_wilsons_equation() -> None:
    for bound in wilson(37, 120):
        assert abs(37 / 120 - bound) == pytest.approx(1.959964 * math.sqrt(bound * (1 - bound) / 120))


@given(SHARES)
def test_the_interval_lies_between_0_and_1_around_the_share(share: tuple[int, int]) -> None:
    right, n = share
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert low < high


@given(SHARES)
def test_wrong_and_right_change_places(share: tuple[int, int]) -> None:
    right, n = share
    low, high = wilson(right, n)
    assert wilson(n - right, n) == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(SHARES)
def test_one_more_right_moves_both_bounds_up(share: tuple[int, int]) -> None:
    right, n = share
    if right < n:
        assert all(a < b for a, b in zip(wilson(right, n), wilson(right + 1, n), strict=True))


@given(SHARES)
def test_more_examples_of_the_same_share_narrow_the_interval(share: tuple[int, int]) -> None:
    right, n = share
    (low, high), (lower, higher) = wilson(right, n), wilson(2 * right, 2 * n)
    assert higher - lower < high - low


def test_a_wider_confidence_gives_a_wider_interval() -> None:
    assert wilson(5, 20, z=2.5758)[0] < wilson(5, 20)[0] < wilson(5, 20)[1] < wilson(5, 20, z=2.5758)[1]


@pytest.mark.parametrize(("right", "n"), [(0, 0), (1, 0), (-1, 5), (6, 5), (0, -3)])
def test_a_share_that_does_not_exist_is_an_error(right: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"a share of {right} in {n} does not exist"):
        wilson(right, n)


def exact(only_first: int, only_second: int) -> float:
    """Twice the smaller tail of a fair coin, from its definition."""
    n, k = only_first + only_second, max(only_first, only_second)
    tail = sum((Fraction(math.comb(n, i), 2**n) for i in range(k, n + 1)), Fraction(0))
    return float(min(Fraction(1), 2 * tail))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (1, 7, 2 * (1 + 8) / 256),
        (2, 10, 2 * (1 + 12 + 66) / 4096),
        (7, 7, 1.0),
    ],
)
def test_the_p_value_is_the_one_worked_out_by_hand(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p)


def test_the_p_value_of_agrestis_kind_of_table() -> None:
    assert mcnemar(121, 59) == pytest.approx(exact(121, 59), rel=1e-9)
    assert mcnemar(121, 59) == pytest.approx(4.4e-6, rel=0.05)


@given(COUNTS, COUNTS)
def test_the_p_value_is_exact(only_first: int, only_second: int) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(exact(only_first, only_second), rel=1e-12)


@given(COUNTS, COUNTS)
def test_the_order_of_the_two_does_not_matter(only_first: int, only_second: int) -> None:
    assert mcnemar(only_first, only_second) == mcnemar(only_second, only_first)


@given(COUNTS, COUNTS)
def test_a_p_value_is_a_probability_above_0(only_first: int, only_second: int) -> None:
    assert 0 < mcnemar(only_first, only_second) <= 1


def test_thousands_of_disagreements_do_not_overflow() -> None:
    z = (100 - 1) / math.sqrt(5000 + 5100)
    assert mcnemar(5000, 5100) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)


def test_scipy_agrees() -> None:
    stats = pytest.importorskip("scipy.stats")
    for pair in ((2, 10), (121, 59), (40, 41)):
        assert mcnemar(*pair) == pytest.approx(stats.binomtest(pair[0], sum(pair)).pvalue)


@pytest.mark.parametrize(("right", "n"), [(148, 200), (0, 30), (30, 30), (943, 1221)])
def test_statsmodels_gives_the_same_interval(right: int, n: int) -> None:
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    assert wilson(right, n) == pytest.approx(
        proportion.proportion_confint(right, n, method="wilson"), abs=1e-9
    )


def test_statsmodels_gives_the_same_p_value() -> None:
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    for only_first, only_second in ((4, 9), (30, 12), (0, 3)):
        found = tables.mcnemar([[50, only_first], [only_second, 20]], exact=True)
        assert mcnemar(only_first, only_second) == pytest.approx(found.pvalue)


def test_holms_own_steps() -> None:
    # The smallest of four is compared with 0.05/4, the next with 0.05/3, and so on until one fails.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_statsmodels_gives_the_same_corrected_p_values() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    for ps in ([0.2], [0.5, 0.5, 0.001], [0.04, 0.03, 0.02, 0.01, 1.0, 0.0], [k / 1000 for k in range(30)]):
        assert holm(ps) == pytest.approx(list(multitest.multipletests(ps, method="holm")[1]))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_correcting_never_makes_a_p_value_smaller_nor_changes_their_order(ps: list[float]) -> None:
    adjusted = holm(ps)
    assert all(p <= a <= 1 for p, a in zip(ps, adjusted, strict=True))
    pairs = sorted(zip(ps, adjusted, strict=True))
    assert [a for _, a in pairs] == sorted(a for _, a in pairs)
