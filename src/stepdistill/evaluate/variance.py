"""The variance of a mean over seeds and examples that are crossed, without bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Variance:
    """Variance of a mean, and the degrees of freedom with which it is known."""

    total: float
    freedom: float


def variance(table: npt.NDArray[np.float64]) -> Variance:
    """Of the mean of a table, seeds x examples, both of them samples (two-way random effects).

    With x_si = m + seed_s + example_i + rest_si the mean's variance is

        var(seed)/S + var(example)/N + var(rest)/(S N),

    and each of the three is estimated by the analysis of variance, which is unbiased: the variance of the
    S means over seeds, divided by S, is on average var(seed)/S + var(rest)/(S N); that of the N means over
    examples, by N, is var(example)/N + var(rest)/(S N); the residual mean square is var(rest). A component
    that comes out negative is 0, so the sum errs, if at all, to the large side. Degrees of freedom after
    Satterthwaite (1946). One seed: var(example)/N, and n - 1 degrees.
    """
    seeds, n = table.shape
    mean = table.mean()
    rows, columns = table.mean(axis=1) - mean, table.mean(axis=0) - mean
    of_examples = float(columns @ columns) / max(n - 1, 1) / n
    if seeds == 1:
        return Variance(of_examples, max(n - 1, 1))
    of_seeds = float(rows @ rows) / (seeds - 1) / seeds
    rest = table - mean - rows[:, None] - columns[None, :]
    free = (seeds - 1) * max(n - 1, 1)
    of_rest = float((rest * rest).sum()) / free / (seeds * n)
    total = of_rest + max(of_seeds - of_rest, 0.0) + max(of_examples - of_rest, 0.0)
    parts = [(of_seeds, seeds - 1.0), (of_examples, n - 1.0), (of_rest, float(free))]
    if of_seeds <= of_rest:
        parts[0] = (0.0, 1.0)
    return Variance(total, _freedom(total, parts))


def mean_variance(parts: Sequence[Variance]) -> Variance:
    """Of the mean of independent means."""
    shares = [(part.total / len(parts) ** 2, part.freedom) for part in parts]
    total = sum(share for share, _ in shares)
    return Variance(total, _freedom(total, shares))


def _freedom(total: float, parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances."""
    unsure = sum(part * part / max(free, 1.0) for part, free in parts)
    return total * total / unsure if unsure else float("inf")
