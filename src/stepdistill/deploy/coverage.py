"""What a threshold brings: the share that a student still answers, and how often it is right there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from stepdistill.errors import ConfigError, DataError
from stepdistill.evaluate.statistics import wilson

POINTS = 50
"""Thresholds that are looked at, at most: every one of them stands in the model card's table."""
LEAST = 10
"""Answers that must be left over a threshold; any student is right on the one that it is surest of."""
Z90 = 1.6448536269514722
"""95 % point of the normal distribution: a two-sided 90 % interval's lower end, one-sided 95 %."""


@dataclass(frozen=True, slots=True)
class Point:
    """Answers whose confidence is at least `threshold`: `n` of them, `coverage` their share of all.

    `low` and `high` are Wilson's 95 % interval of their accuracy, as if the threshold had been given
    beforehand.
    """

    threshold: float
    coverage: float
    accuracy: float
    low: float
    high: float
    n: int

    @property
    def assured(self) -> float:
        """The accuracy that is exceeded with 95 % certainty: Wilson's one-sided bound."""
        return wilson(round(self.accuracy * self.n), self.n, Z90)[0]


def curve(confidences: Sequence[float], right: Sequence[bool], most: int = POINTS) -> list[Point]:
    """The accuracy/coverage curve (El-Yaniv & Wiener 2010); at its first point, 0, all are answered.

    A further threshold is one of the confidences, so equal ones are kept or refused together. Of more than
    `most` the curve keeps some, in about equal steps of coverage, and always the last.

    Raises:
        DataError: there is no answer.
        ValueError: their numbers differ, or a confidence is not between 0 and 1.
    """
    pairs = sorted(zip(confidences, right, strict=True), key=lambda pair: -pair[0])
    if not pairs:
        raise DataError("no validation answer with a confidence: no threshold can be chosen")
    if not all(0 <= confidence <= 1 for confidence, _ in pairs):
        raise ValueError("a confidence is not between 0 and 1")
    hits = list(accumulate(int(hit) for _, hit in pairs))
    total = len(pairs)
    # Behind the last of equal confidences: how many are kept where this one is the threshold.
    ends = [i + 1 for i in range(total) if i + 1 == total or pairs[i][0] != pairs[i + 1][0]]
    points = [_point(pairs[end - 1][0], hits[end - 1], end, total) for end in reversed(_thinned(ends, most))]
    # The least confidence of validation is not the least there is: below it nothing shall be refused.
    return [_point(0.0, hits[-1], total, total), *points[1:]]


def threshold_for(
    points: Sequence[Point], target_accuracy: float | None = None, target_share: float | None = None
) -> float:
    """The threshold of `point_for`; for `Settings.threshold`.

    Raises:
        ConfigError: as `point_for`.
    """
    return point_for(points, target_accuracy, target_share).threshold


def point_for(
    points: Sequence[Point], target_accuracy: float | None = None, target_share: float | None = None
) -> Point:
    """Where on a curve to stand: give one target, both as shares.

    For an accuracy: the least threshold over which validation reaches it, so the most that the student may
    answer. By the point estimate, as "90 % on validation" is meant; it is picked among many, so on new texts
    expect a little less, and what may be counted on is `Point.assured`, to be shown beside it. To demand the
    bound itself would refuse a student who is right on 95 % of 100 answers a target of 92 %.
    For a share: the highest threshold over which the student still answers that share.

    Raises:
        ConfigError: not one target, one that is no share, or an accuracy that no threshold reaches; it says
            which is the best.
    """
    if (target_accuracy is None) == (target_share is None):
        raise ConfigError("give one of a target accuracy and a target share")
    name, target = ("accuracy", target_accuracy) if target_accuracy is not None else ("share", target_share)
    if target is None or not 0 < target <= 1:
        raise ConfigError(f"target {name} {target}: give a share above 0 and at most 1, such as 0.9")
    if name == "share":
        return max((p for p in points if p.coverage >= target), key=lambda p: p.threshold)
    # The whole validation set may be smaller than that; its first point is no one's choice.
    usable = [p for p in points if p.n >= LEAST] or [points[0]]
    reached = [p for p in usable if p.accuracy >= target]
    if not reached:
        best = max(usable, key=lambda p: (p.accuracy, p.coverage))
        raise ConfigError(
            f"target accuracy {target:g}: no threshold reaches it on validation; the best is "
            f"{best.accuracy:.3f}, where {100 * best.coverage:.0f} % are answered (threshold "
            f"{best.threshold:.3f}); give at most that, or train a better student"
        )
    return min(reached, key=lambda p: p.threshold)


def cost_per_1000(point: Point, teacher_usd_per_request: float) -> float:
    """US dollars that the teacher takes for its part of 1,000 requests; the student's own are not counted.

    >>> round(cost_per_1000(Point(0.8, 0.75, 0.95, 0.9, 0.98, 150), 0.002), 6)
    0.5
    """
    return 1000 * (1 - point.coverage) * teacher_usd_per_request


def _point(threshold: float, hits: int, n: int, total: int) -> Point:
    return Point(threshold, n / total, hits / n, *wilson(hits, n), n)


def _thinned(ends: Sequence[int], most: int) -> list[int]:
    """At most so many of rising numbers, the first and the last among them, about evenly spread in value."""
    if len(ends) <= most:
        return list(ends)
    step, kept = (ends[-1] - ends[0]) / (most - 1), [ends[0]]
    for here, following in pairwise(ends[1:]):
        # The last one before the next goal is passed.
        if following > ends[0] + step * len(kept):
            kept.append(here)
    return [*kept, ends[-1]]
