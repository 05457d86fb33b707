"""Calibration: bins and ECE as Guo et al. 2017 define them, by hand and by numpy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.evaluate.calibration import BINS, Bin, ece, reliability

PAIRS = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


def test_an_example_worked_out_by_hand() -> None:
    found = reliability([0.95, 0.85, 0.65, 0.62, 0.15], [True, False, True, True, False], bins=5)
    assert [(one.low, one.high, one.n) for one in found] == [(0.0, 0.2, 1), (0.6, 0.8, 2), (0.8, 1.0, 2)]
    assert [one.accuracy for one in found] == [0.0, 1.0, 0.5]
    assert [one.confidence for one in found] == pytest.approx([0.15, 0.635, 0.9])
    assert ece(found) == pytest.approx((1 * 0.15 + 2 * 0.365 + 2 * 0.4) / 5)


@given(PAIRS)
def test_it_is_the_mean_over_fifteen_bins_open_below(pairs: list[tuple[float, bool]]) -> None:
    confidence, right = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs], dtype=float)
    total, edges = 0.0, [k / 15 for k in range(16)]
    for low, high in pairwise(edges):
        inside = (confidence > low) & (confidence <= high) | ((low == 0) & (confidence == 0))
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    found = reliability([c for c, _ in pairs], [r for _, r in pairs])
    assert ece(found) == pytest.approx(total, abs=1e-12)
    assert sum(one.n for one in found) == len(pairs)


@pytest.mark.parametrize("k", range(1, BINS + 1))
def test_an_edge_belongs_to_the_bin_below(k: int) -> None:
    (found,) = reliability([k / BINS], [True])
    assert (found.low, found.high) == ((k - 1) / BINS, k / BINS)


def test_one_who_is_as_often_right_as_he_is_sure_has_no_error() -> None:
    assert ece(reliability([0.75] * 4, [True, True, True, False])) == 0.0
    assert ece(reliability([1.0] * 3, [False] * 3)) == 1.0


def test_nothing_can_be_said_of_nothing() -> None:
    with pytest.raises(ValueError, match="no prediction"):
        ece(reliability([], []))
    with pytest.raises(ValueError, match="not between 0 and 1"):
        reliability([1.1], [True])
    assert reliability([0.0], [True]) == [Bin(0.0, 1 / 15, 1, 0.0, 1.0)]
