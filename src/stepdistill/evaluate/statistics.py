"""How sure a number is: Wilson's interval of a share, McNemar's exact test, Holm's correction of many."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution."""


def wilson(right: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Wilson's score interval (1927) for a share of `right` in `n`, 95 % by default.

    Raises:
        ValueError: n is not positive, or `right` is not between 0 and n.

    >>> low, high = wilson(148, 200)
    >>> round(low, 4), round(high, 4)
    (0.6751, 0.7959)
    """
    if n <= 0 or not 0 <= right <= n:
        raise ValueError(f"a share of {right} in {n} does not exist")
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return (
        max(0.0, middle - half) if right else 0.0,
        min(1.0, middle + half) if right < n else 1.0,
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p-value (McNemar 1947) of two predictors on the same examples.

    Args:
        only_first: examples that only the first got right.
        only_second: examples that only the second got right.

    >>> mcnemar(5, 5)
    1.0
    >>> round(mcnemar(2, 10), 6)
    0.038574
    """
    n, k = only_first + only_second, min(only_first, only_second)
    term = tail = 1
    for i in range(k):
        term = term * (n - i) // (i + 1)
        tail += term
    # Integers to the last step: 2**n has no float beyond n = 1023.
    return min(1.0, 2 * tail / (1 << n)) if n else 1.0


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm 1979) of the comparisons of one table, in their order.

    Rejecting where the adjusted p is at most 0.05 calls any equal pair of the table different with a
    probability of at most 5 %, however the comparisons depend on each other.

    >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, least = [0.0] * len(ps), 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = least
    return adjusted
