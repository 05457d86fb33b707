"""Whether confidence can be believed: expected calibration error and its bins (Guo et al. 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

BINS = 15
"""As in Guo et al. 2017, section 2 and table 1."""


@dataclass(frozen=True)
class Bin:
    """Predictions whose confidence is above `low` and at most `high`: how many, how sure, how often right."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


def reliability(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> list[Bin]:
    """The bins of equal width over (0, 1] that hold a prediction; a confidence of 0 is in the first.

    Raises:
        ValueError: their numbers differ, or a confidence is not between 0 and 1.
    """
    groups: dict[int, list[tuple[float, bool]]] = {}
    for confidence, hit in zip(confidences, right, strict=True):
        if not 0 <= confidence <= 1:
            raise ValueError(f"a confidence of {confidence} is not between 0 and 1")
        groups.setdefault(_bin(confidence, bins), []).append((confidence, hit))
    return [_summed(index, bins, groups[index]) for index in sorted(groups)]


def ece(found: Sequence[Bin]) -> float:
    """Expected calibration error: the mean of |accuracy - confidence| over the bins, weighted by their size.

    Raises:
        ValueError: there is no prediction.

    >>> ece([Bin(0.8, 0.9, 3, 0.85, 1.0), Bin(0.9, 1.0, 1, 0.95, 0.0)])
    0.35
    """
    total = sum(one.n for one in found)
    if not total:
        raise ValueError("no prediction has a confidence")
    return math.fsum(one.n * abs(one.accuracy - one.confidence) for one in found) / total


def _bin(confidence: float, bins: int) -> int:
    """Which bin; one whose upper end is the confidence itself, where there is such a one."""
    index = max(0, math.ceil(confidence * bins) - 1)
    # A product is rounded: 0.2 * 15 may be a little more than 3, whose end is 0.2 all the same.
    if confidence <= index / bins and index:
        index -= 1
    return min(index, bins - 1)


def _summed(index: int, bins: int, group: Sequence[tuple[float, bool]]) -> Bin:
    n = len(group)
    confidence = math.fsum(value for value, _ in group) / n
    return Bin(index / bins, (index + 1) / bins, n, confidence, sum(hit for _, hit in group) / n)
