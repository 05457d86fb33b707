"""Learning curves: known curves are found again, and what is no curve gives no promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.errors import DataError
from stepdistill.evaluate.learning import fit

SIZES = (50, 100, 200, 400, 800)


def exact(a: float, b: float, c: float, n: int = 100_000) -> dict[int, list[str]]:
    """Outcomes whose shares lie on the curve, to a hundred-thousandth."""
    return {size: ["1" * (right := round(n * (a - b * size**-c))) + "0" * (n - right)] for size in SIZES}


def measured(a: float, b: float, c: float, seeds: int, rng: np.random.Generator) -> dict[int, list[str]]:
    """Outcomes on 300 test examples that are hard for all alike; 1 point of spread of each training."""
    hard = rng.random(300)
    points = {}
    for size in SIZES:
        levels = a - b * size**-c + rng.normal(0, 0.01, seeds)
        points[size] = ["".join("01"[int(hit)] for hit in hard < level) for level in levels]
    return points


@pytest.mark.parametrize(("a", "b", "c"), [(0.85, 1.5, 0.5), (0.7, 2.0, 0.7), (0.95, 0.8, 0.2)])
def test_a_curve_without_noise_is_found_again(a: float, b: float, c: float) -> None:
    curve = fit(exact(a, b, c), resamples=10)
    assert curve.c == pytest.approx(c, abs=0.03)
    assert curve.a == pytest.approx(a, abs=0.02)
    for n in (50, 300, 800, 1600):
        assert curve.at(n).value == pytest.approx(a - b * n**-c, abs=0.002)
    assert curve.gain(800, 1600).value == pytest.approx(b * (800**-c - 1600**-c), abs=0.002)


def test_intervals_hold_the_truth_also_beyond_the_data() -> None:
    rng = np.random.default_rng(1)
    a, b, c = 0.85, 1.5, 0.5
    held = np.zeros(3)
    for _ in range(40):
        curve = fit(measured(a, b, c, 3, rng), resamples=300)
        gain = curve.gain(800, 1600)
        held += [
            curve.at(800).low <= a - b * 800**-c <= curve.at(800).high,
            curve.at(1600).low <= a - b * 1600**-c <= curve.at(1600).high,
            gain.low <= b * (800**-c - 1600**-c) <= gain.high,
        ]
    assert (held >= 36).all()


def test_extrapolating_further_is_less_certain() -> None:
    curve = fit(measured(0.85, 1.5, 0.5, 3, np.random.default_rng(0)))
    near, far = curve.at(800), curve.at(8000)
    assert far.high - far.low > near.high - near.low
    assert curve.seeds == 3
    assert curve.sizes == SIZES


@pytest.mark.parametrize(
    "shares", [(0.7, 0.7, 0.7), (0.8, 0.7, 0.6), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (0.5, 0.9, 0.1)]
)
def test_a_flat_or_falling_curve_promises_nothing(shares: tuple[float, ...]) -> None:
    points = {
        size: ["1" * round(200 * s) + "0" * round(200 - 200 * s)]
        for size, s in zip(SIZES, shares, strict=False)
    }
    curve = fit(points, resamples=200)
    gain = curve.gain(200, 100_000)
    assert gain.low <= 0 <= gain.high
    assert gain.value == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [20, 200])
def test_equal_outcomes_at_all_sizes_are_a_flat_curve_that_is_not_certain(n: int) -> None:
    curve = fit({size: ["10" * (n // 2)] * 2 for size in SIZES}, resamples=500)
    gain, level = curve.gain(800, 1600), curve.at(800)
    assert (gain.value, gain.low) == (0.0, 0.0)
    assert 0 < gain.high < 4 / n
    assert level.low < level.value < level.high


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 100_000), st.text("01-", min_size=15, max_size=15)),
        min_size=3,
        max_size=6,
        unique_by=lambda point: point[0],
    )
)
def test_a_curve_never_falls_nor_leaves_0_to_1(points: list[tuple[int, str]]) -> None:
    curve = fit({size: [text] for size, text in points}, resamples=50)
    places = [1, 10, 1000, 10**6, 10**9]
    found = [curve.at(n) for n in places]
    for one in found:
        assert 0 <= one.low <= one.value <= one.high <= 1
    assert all(x.value <= y.value + 1e-12 for x, y in pairwise(found))
    assert all(curve.gain(n, 2 * n).low >= 0 for n in places)


def test_unequal_numbers_of_seeds_are_allowed_and_the_fewest_is_said() -> None:
    points = measured(0.85, 1.5, 0.5, 3, np.random.default_rng(0))
    points[50] = points[50][:1]
    assert fit(points, resamples=50).seeds == 1


def test_too_few_sizes_and_other_examples_are_errors_that_say_what_is_needed() -> None:
    with pytest.raises(
        DataError, match=r"at least 3 different numbers .* there are 2 \(10, 20\); add fractions"
    ):
        fit({10: ["01"], 20: ["11"]})
    with pytest.raises(DataError, match="same test examples"):
        fit({10: ["01"], 20: ["11"], 30: ["111"]})
