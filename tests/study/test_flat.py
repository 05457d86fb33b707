"""When to stop paying: the parts, and what is decided on curves that are known."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.evaluate.bootstrap import Interval
from stepdistill.study.flat import FIRST, PARTS, judge, share, sizes, stops

VALIDATION = 400


def outcomes(accuracy: float) -> str:
    """Answers of a student of that accuracy; the better one is right wherever the worse one is."""
    right = round(accuracy * VALIDATION)
    return "1" * right + "0" * (VALIDATION - right)


def power_law(a: float, b: float, c: float, parts: list[int]) -> dict[int, str]:
    return {n: outcomes(a - b * n**-c) for n in parts}


@given(st.integers(16, 10**7))
def test_parts_double_and_end_with_all(total: int) -> None:
    found = sizes(total)
    assert found == sorted(set(found))
    assert found[-1] == total
    assert len(found) >= PARTS
    assert found[0] <= FIRST
    assert all(second <= 2 * first for first, second in pairwise(found))
    assert all(second == 2 * first for first, second in pairwise(found[:-1]))


@given(st.integers(1, 10**6), st.data())
def test_a_fraction_gives_back_its_part_exactly(total: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, total))
    found = share(n, total)
    assert 0 < found <= 1
    assert round(found * total) == n
    assert float(repr(found)) == found


def test_a_steep_curve_goes_on_and_a_flat_one_stops() -> None:
    parts = [100, 200, 400]
    gain, why = judge(power_law(0.9, 9.0, 0.7, parts), 800, 0.005, floor=0.3)
    assert gain is not None
    assert gain.value > 0.005
    assert "not below 0.5 points" in why
    gain, why = judge(power_law(0.9, 20.0, 1.5, parts), 800, 0.005, floor=0.3)
    assert gain is not None
    assert gain.value < 0.005
    assert "below 0.5 points" in why
    assert gain.low <= gain.value <= gain.high


def test_a_known_curve_gives_the_gain_that_it_has() -> None:
    parts = [100, 200, 400, 800]
    gain, _ = judge(power_law(0.9, 4.0, 0.6, parts), 1600, 0.01, floor=0.3)
    true = 4.0 * (800**-0.6 - 1600**-0.6)
    assert gain is not None
    assert gain.value == pytest.approx(true, abs=0.004)


@given(st.lists(st.one_of(st.none(), st.floats(0, 0.02)), max_size=6))
def test_it_ends_only_after_two_estimates_in_a_row_that_are_too_low(values: list[float | None]) -> None:
    gains = [None if value is None else Interval(value, 0.0, 1.0) for value in values]
    expected = len(values) >= 2 and all(value is not None and value < 0.01 for value in values[-2:])
    assert stops(gains, 0.01) == expected


def test_the_first_estimate_of_three_points_ends_nothing() -> None:
    flat = power_law(0.9, 20.0, 1.5, [100, 200, 400, 800])
    gains = [judge(dict(list(flat.items())[:k]), 100 * 2**k, 0.005, floor=0.3)[0] for k in (1, 2, 3, 4)]
    assert [gain is not None and gain.value < 0.005 for gain in gains] == [False, False, True, True]
    assert [stops(gains[:k], 0.005) for k in (1, 2, 3, 4)] == [False, False, False, True]


def test_two_points_decide_nothing() -> None:
    gain, why = judge(power_law(0.9, 20.0, 1.5, [100, 200]), 400, 0.5, floor=0.3)
    assert gain is None
    assert "3 points" in why


def test_a_student_that_has_learned_nothing_is_not_taken_for_flat() -> None:
    """Always the same label at first, then it learns: a power law sees a flat curve."""
    flat = {100: outcomes(0.40), 200: outcomes(0.40), 400: outcomes(0.41)}
    gain, why = judge(flat, 800, 0.005, floor=0.4)
    assert gain is None
    assert "nothing is learned yet" in why
    gain, _ = judge(flat, 800, 0.005, floor=0.25)
    assert gain is not None
    assert gain.value < 0.005


def test_noise_does_not_stop_it_where_much_is_left_to_gain() -> None:
    """Right and wrong drawn at random: a curve that still gains 7 points is stopped seldom."""
    random, stopped = np.random.default_rng(0), 0
    for _ in range(10):
        hard = random.random(VALIDATION)
        points = {
            n: "".join(
                "1" if one < 0.9 - 4.0 * n**-0.5 else "0" for one in hard + random.normal(0, 0.1, VALIDATION)
            )
            for n in (100, 200, 400)
        }
        gain, _ = judge(points, 800, 0.01, floor=0.3)
        stopped += gain is not None and gain.value < 0.01
    assert stopped <= 1
