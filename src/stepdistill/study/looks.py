"""The search for the least data that is enough: looks seed by seed, and bisection over fractions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from stepdistill.evaluate.resampling import pair
from stepdistill.evaluate.variance import variance

Decision = Literal["reached", "abandoned", "undecided"]
Ask = Callable[[float, int], tuple[str, str]]
"""`ask(fraction, seed)`: the outcomes of the method and of its target, on the same examples."""


@dataclass(frozen=True, slots=True)
class Look:
    """Accuracy of the method less that of the target, as a share, over the first `seeds` seeds."""

    seeds: int
    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Probe:
    """All looks at one fraction, and what the last one decided; "undecided" counts as not reached."""

    fraction: float
    decision: Decision
    looks: tuple[Look, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """When a look decides.

    Args:
        margin: how far below the target is still as good, as a share.
        confidence: of the two-sided interval of each single look.
        alone: whether nobody asked for more than one seed. Else one seed cannot show that the target is
            reached, and what is abandoned after it must lie below twice the interval: it does not know
            how far seeds differ.
    """

    margin: float
    confidence: float
    alone: bool = False

    def decide(self, look: Look) -> Decision:
        """What one look says."""
        first = look.seeds == 1 and not self.alone
        if look.low >= -self.margin and not first:
            return "reached"
        highest = look.high + (look.high - look.value) * first
        return "abandoned" if highest < -self.margin else "undecided"


def split(confidence: float, looks: int) -> float:
    """Confidence of each of some looks, such that all their intervals hold at once with `confidence`.

    >>> round(split(0.95, 10), 6)
    0.995
    """
    return 1 - (1 - confidence) / looks


def planned_probes(fractions: int) -> int:
    """The most probes of `bisect`: the largest fraction, then a half of what is left each time.

    >>> [planned_probes(n) for n in (1, 2, 3, 4, 8, 9)]
    [1, 2, 3, 3, 4, 5]
    """
    return 1 + math.ceil(math.log2(fractions))


def look(method: Sequence[str], target: Sequence[str], confidence: float) -> Look:
    """The mean difference over seeds and its two-sided interval.

    Args:
        method, target: outcomes of each seed, the seeds in the same order; `1` is right, all else wrong.

    Seeds and examples are crossed, and both are samples (`evaluate.variance`), at Student's quantile for
    Satterthwaite's degrees of freedom: percentiles of a bootstrap of two or three seeds are far too narrow
    at the high confidence that many looks need. z^2 / 2 examples are thought to disagree besides (half of
    them each way), after Agresti & Coull (1998) and Agresti & Min (2005): a sample without any
    disagreement would otherwise be certain, however small. With one seed, nothing is said of others.

    Raises:
        ValueError: they are not over the same seeds and examples.

    >>> look(["1" * 90 + "0" * 10], ["1" * 90 + "0" * 10], 0.95).low > -0.03
    True
    """
    from scipy.special import ndtri, stdtrit

    theirs, mine = pair(target, method)
    table = mine - theirs
    n, tail = table.shape[1], (1 + confidence) / 2
    found, z = variance(table), float(ndtri(tail))
    spread = math.sqrt(found.total + z * z / 2 / n**2)
    reach = spread * float(stdtrit(min(found.freedom, 1e6), tail))
    value = float(table.mean())
    return Look(len(table), value, max(value - reach, -1.0), min(value + reach, 1.0))


def probe(ask: Ask, fraction: float, seeds: Sequence[int], rule: Rule) -> Probe:
    """Look at one fraction after each seed, until a look decides or no seed is left."""
    looks: list[Look] = []
    method, target = [], []
    decision: Decision = "undecided"
    for seed in seeds:
        mine, theirs = ask(fraction, seed)
        method.append(mine)
        target.append(theirs)
        looks.append(look(method, target, rule.confidence))
        decision = rule.decide(looks[-1])
        if decision != "undecided":
            break
    return Probe(fraction, decision, tuple(looks))


def bisect(fractions: Sequence[float], measure: Callable[[float], Probe]) -> list[Probe]:
    """Probes of the largest fraction and, if it reaches the target, of those between reached and not.

    Args:
        fractions: in rising order, each once.
        measure: probes one.

    The last one reached is the answer: the next smaller fraction was then probed and not reached, or there
    is none. What lies below that one, and what lies above the answer and was not probed, is inferred.
    """
    probes = [measure(fractions[-1])]
    if probes[0].decision != "reached":
        return probes
    below, least = -1, len(fractions) - 1
    while least - below > 1:
        middle = (below + least) // 2
        probes.append(measure(fractions[middle]))
        if probes[-1].decision == "reached":
            least = middle
        else:
            below = middle
    return probes


def answer(probes: Sequence[Probe]) -> Probe | None:
    """The probe of the least fraction that reached the target; None where the largest did not."""
    return min((p for p in probes if p.decision == "reached"), key=lambda p: p.fraction, default=None)
