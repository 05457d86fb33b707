"""The variance of a mean over seeds and examples, against the model that it estimates."""

from __future__ import annotations

import numpy as np
import pytest

from stepdistill.evaluate.variance import Variance, mean_variance, unseen, variance


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_over_many_studies_it_is_the_true_one(seeds: int) -> None:
    """Two-way random effects: sd 1 of seeds, 2 of examples, 3 of the rest."""
    rng = np.random.default_rng(seeds)
    n, studies = 20, 3000
    tables = (
        rng.normal(0, 1, (studies, seeds, 1))
        + rng.normal(0, 2, (studies, 1, n))
        + rng.normal(0, 3, (studies, seeds, n))
    )
    true = 1 / seeds + 4 / n + 9 / (seeds * n)
    assert tables.mean(axis=(1, 2)).var() == pytest.approx(true, rel=0.08)
    # A component below 0 is taken for 0, which adds a little.
    assert 0.97 <= np.mean([variance(table).total for table in tables]) / true <= 1.08


def test_of_a_difference_both_seeds_and_the_paired_examples_count() -> None:
    rng = np.random.default_rng(0)
    n, studies, seeds = 30, 2000, 3
    shared = rng.normal(0, 5, (studies, 1, n))
    first, second = (
        shared + rng.normal(0, 1, (studies, seeds, 1)) + rng.normal(0, 1, (studies, seeds, n))
        for _ in range(2)
    )
    true = 2 / seeds + 2 / (seeds * n)
    found = [variance(b, a) for a, b in zip(first, second, strict=True)]
    assert 0.95 <= np.mean([one.total for one in found]) / true <= 1.1
    assert 2 < np.mean([one.freedom for one in found]) < 6


def test_one_seed_is_the_textbooks_standard_error() -> None:
    table = np.array([[1.0, 0, 0, 1, 1]])
    assert variance(table) == Variance(pytest.approx(table.var(ddof=1) / 5), pytest.approx(4))


def test_no_spread_is_no_variance() -> None:
    assert variance(np.ones((3, 7))).total == 0


def test_what_no_sample_shows_is_that_of_agresti_and_min() -> None:
    """A pair of differing examples more, 0.96 each way: 1.92 squared steps of 1/n."""
    assert unseen(50) == pytest.approx(2 * 0.9604 / 50**2, rel=1e-3)


def test_welchs_degrees_of_freedom() -> None:
    # Two means with equal variances and n - 1 = 9 degrees of freedom each: together 18.
    found = mean_variance([Variance(0.4, 9), Variance(0.4, 9)])
    assert (found.total, found.freedom) == (pytest.approx(0.2), pytest.approx(18))
