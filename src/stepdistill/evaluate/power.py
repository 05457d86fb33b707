"""What a test set can show, before a cent is spent: power of the exact McNemar test."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from stepdistill.evaluate.variance import Variance

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MOST = 1_000_000
"""The most examples that are looked for."""


def mcnemar_power(n: int, only_first: float, only_second: float, alpha: float = 0.05) -> float:
    """Probability that McNemar's exact two-sided test of n examples shows a difference.

    Args:
        n: number of test examples.
        only_first, only_second: shares of examples that only one of the two gets right.
        alpha: level of the test.

    Summed over the number of examples on which exactly one is right (binomial of n) and, given it, over
    those the second wins. Unconditional and exact; nothing is approximated.

    Raises:
        ValueError: shares that do not exist.

    >>> round(mcnemar_power(50, 0.08, 0.32, alpha=0.1), 4)
    0.8394
    """
    both = only_first + only_second
    if n < 1 or min(only_first, only_second) < 0 or both > 1 + 1e-12 or not 0 < alpha < 1:
        raise ValueError(f"no test of {n} examples, shares {only_first} and {only_second}, alpha {alpha}")
    if both == 0:
        return 0.0
    return _power(n, only_second - only_first, both, alpha)


def smallest_difference(n: int, disagreement: float, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest difference of accuracies, as a share, that n test examples show with this power.

    Args:
        disagreement: share of the examples on which exactly one of the two is right.

    None where even the largest possible difference, which is the disagreement, would not be shown.

    Raises:
        ValueError: values that do not exist.
    """
    _check(power, alpha, disagreement)

    def shown(gap: float) -> bool:
        return _power(n, gap, disagreement, alpha) >= power

    if not shown(disagreement):
        return None
    low, high = 0.0, disagreement
    while high - low > 2e-5:
        middle = (low + high) / 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def needed(difference: float, disagreement: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The number of test examples with which this difference (a share) is shown with this power.

    The power of an exact test goes up and down a little from one n to the next; at this n it is reached,
    and the one below misses it. None where it would take more than a million.

    Raises:
        ValueError: values that do not exist, or a difference of 0 or above the disagreement.
    """
    _check(power, alpha, disagreement)
    if not 0 < difference <= disagreement:
        raise ValueError(f"a difference of {difference} with a disagreement of {disagreement} does not exist")

    def shown(n: int) -> bool:
        return _power(n, difference, disagreement, alpha) >= power

    high = 8
    while not shown(high):
        high *= 2
        if high > MOST:
            return None
    low = high // 2 if high > 8 else 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if shown(middle) else (middle, high)
    return high


def smallest_over_seeds(error: Variance, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest difference, as a share, that a test over seeds shows with this power, about.

    Args:
        error: variance of the difference and the degrees of freedom with which it is known
            (`bootstrap.error`).

    It is the noncentrality at which Student's t passes its two-sided critical value with this power, in
    standard errors: 2.8 of many seeds, 5.7 with 2 degrees of freedom. "About", since the standard error is an
    estimate. None where it would be more than 100 points.
    """
    from scipy.special import nctdtrinc, stdtrit

    freedom = min(error.freedom, 1e6)
    far = float(stdtrit(freedom, 1 - alpha / 2))
    found = math.sqrt(error.total) * float(nctdtrinc(freedom, 1 - power, far))
    return found if found <= 1 else None


def counted(n: int, seeds: int, shared: float = 0.5) -> int:
    """For how many examples of one seed the mean over `seeds` on the same n examples counts.

    Args:
        shared: share of the variance that is the examples' own, the same under every seed: 1 and more seeds
            do not help, 0 and they are as good as more examples.

    >>> counted(200, 3)
    300
    """
    if not 0 <= shared <= 1 or seeds < 1:
        raise ValueError(f"{seeds} seeds and a shared part of {shared} do not exist")
    return math.floor(n / (shared + (1 - shared) / seeds) + 1e-9)


def _power(n: int, difference: float, disagreement: float, alpha: float) -> float:
    share = (1 - difference / disagreement) / 2
    return sum(_shown(n, disagreement, part, alpha / 2) for part in (share, 1 - share))


def _shown(n: int, both: float, share: float, tail: float) -> float:
    """Probability that the test finds the first, which wins `share` of the `both`, to be the loser."""
    from scipy.special import bdtr

    number, weight, most = _test(n, both, tail)
    return float((weight * np.where(most >= 0, bdtr(np.maximum(most, 0), number, share), 0.0)).sum())


@lru_cache(maxsize=8)
def _test(n: int, both: float, tail: float) -> tuple[Ints, Floats, Floats]:
    """Likely numbers of examples on which exactly one is right, their probabilities, and the critical values:
    the most wins of the loser with which the test still rejects, -1 where it never does.
    """
    from scipy.special import bdtr, gammaln, ndtri, xlog1py, xlogy

    reach = 9 * math.sqrt(n * both * (1 - min(both, 1.0))) + 40
    low, high = max(0, math.floor(n * both - reach)), min(n, math.ceil(n * both + reach))
    number = np.arange(low, high + 1, dtype=np.int64)
    logs = gammaln(n + 1) - gammaln(number + 1) - gammaln(n - number + 1)
    weight = np.exp(logs + xlogy(number, both) + xlog1py(n - number, -min(both, 1.0)))
    most = np.minimum(np.floor(number / 2 + ndtri(tail) * np.sqrt(number) / 2) + 2, number)
    while (over := (most >= 0) & (bdtr(np.maximum(most, 0), number, 0.5) > tail)).any():
        most = np.where(over, most - 1, most)
    return number, weight, most


def _check(power: float, alpha: float, disagreement: float) -> None:
    if not (0 < power < 1 and 0 < alpha < 1 and 0 < disagreement <= 1):
        raise ValueError(f"power {power}, alpha {alpha}, disagreement {disagreement}: shares between 0 and 1")
