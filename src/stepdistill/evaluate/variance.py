"""The variance of a mean over seeds and examples that are crossed, without bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

UNSEEN = 1.96**2 / 2
"""Examples that are thought to disagree besides, half of them each way; see `unseen`."""


@dataclass(frozen=True, slots=True)
class Variance:
    """Variance of a mean, and the degrees of freedom with which it is known."""

    total: float
    freedom: float


def variance(table: Floats, against: Floats | None = None) -> Variance:
    """Of the mean of a table, seeds x examples, both of them samples; with `against`, of the difference.

    With x_si = m + seed_s + example_i + rest_si (two-way random effects) the mean's variance is

        var(seed)/S + var(example)/N + var(rest)/(S N),

    and the analysis of variance estimates it without bias: the variance of the N means over examples,
    divided by N, is on average var(example)/N + var(rest)/(S N); that of the S means over seeds, divided by
    S, is var(seed)/S + var(rest)/(S N); the residual mean square is var(rest). What the seeds add (the second
    less the residual part) is taken as 0 where it comes out negative, so the sum errs to the large side.

    Of a difference, examples are paired: their part is that of the differences. Seeds are those of two
    trainings that have no chance in common but a number, so each brings its own part: with twice the degrees
    of freedom of the seeds' paired differences, and too large if equal seeds do go together. Degrees of
    freedom after Satterthwaite (1946). One seed: the examples' part alone.
    """
    arms = [table] if against is None else [table, against]
    columns = (table if against is None else table - against).mean(axis=0)
    n = len(columns)
    free = max(n - 1, 1)
    parts = [(float(columns.var()) / free, float(free))]
    total = parts[0][0]
    for arm in arms if len(table) > 1 else ():
        of_seeds, of_rest = _of_seeds(arm)
        if of_seeds > of_rest:
            total += of_seeds - of_rest
            parts.append((of_seeds, len(arm) - 1.0))
    return Variance(total, _freedom(total, parts))


def _of_seeds(table: Floats) -> tuple[float, float]:
    """Variance of the means over seeds and the residual mean square, both of the mean over the table."""
    seeds, n = table.shape
    rows = table.mean(axis=1) - table.mean()
    rest = table - table.mean(axis=1)[:, None] - table.mean(axis=0)[None] + table.mean()
    of_rest = float((rest * rest).sum()) / ((seeds - 1) * max(n - 1, 1)) / (seeds * n)
    return float(rows @ rows) / (seeds - 1) / seeds, of_rest


def unseen(n: int) -> float:
    """What is added to the variance of a difference over n examples, since none can be certain.

    z^2 / 2 examples more are thought to disagree, half of them each way, after Agresti & Coull (1998) and
    Agresti & Min (2005): a sample without any disagreement, or with all of it on one side, would otherwise be
    certain, however small. Of many disagreements it is a small part.

    >>> round(1.96 * unseen(100) ** 0.5, 3)
    0.027
    """
    return UNSEEN / n**2


def mean_variance(parts: Sequence[Variance]) -> Variance:
    """Of the mean of independent means."""
    shares = [(part.total / len(parts) ** 2, part.freedom) for part in parts]
    total = sum(share for share, _ in shares)
    return Variance(total, _freedom(total, shares))


def _freedom(total: float, parts: Sequence[tuple[float, float]]) -> float:
    """Satterthwaite's degrees of freedom of a sum of variances."""
    unsure = sum(part * part / max(free, 1.0) for part, free in parts)
    return total * total / unsure if unsure else float("inf")
