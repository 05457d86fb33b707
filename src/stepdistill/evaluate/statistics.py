"""How sure a number is: the Wilson interval of a share, and the exact McNemar test of two."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""97.5 % point of the normal distribution."""


def wilson(right: int, n: int, z: float = Z95) -> tuple[float, float]:
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
