"""The search for the least data: what it certifies is true, it asks little, and it does not pretend."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.study.looks import (
    Decision,
    Look,
    Probe,
    Rule,
    answer,
    bisect,
    look,
    planned_probes,
    probe,
    split,
)

N = 300


class Oracle:
    """Students whose true accuracy is known; which seeds were asked for is noted.

    Examples are easy or hard for method and target alike; `spread` is how much seeds differ, as a share.
    """

    def __init__(self, truth: Callable[[float], float], seed: int = 0, spread: float = 0.0) -> None:
        self.truth, self.spread = truth, spread
        self.random = np.random.default_rng(seed)
        self.hard = self.random.normal(size=N)
        self.bars: dict[int, str] = {}
        self.asked: list[tuple[float, int]] = []

    def __call__(self, fraction: float, seed: int) -> tuple[str, str]:
        self.asked.append((fraction, seed))
        mine = self.truth(fraction) + self.random.normal(0, self.spread)
        return self._answer(mine), self.bars.setdefault(seed, self._answer(0.6))

    def _answer(self, accuracy: float) -> str:
        own = math.sqrt(0.7) * self.hard + math.sqrt(0.3) * self.random.normal(size=N)
        # Its rank, so that an accuracy of 0.6 is 180 of 300 but for the seed's own noise.
        limit = np.quantile(self.random.normal(size=4000), min(max(accuracy, 0.001), 0.999))
        return "".join("1" if one < limit else "0" for one in own)


def search(oracle: Oracle, fractions: Sequence[float], seeds: int, margin: float) -> list[Probe]:
    looks = planned_probes(len(fractions)) * seeds
    rule = Rule(margin, split(0.95, looks), alone=seeds == 1)
    return bisect(fractions, lambda f: probe(oracle, f, range(seeds), rule))


FRACTIONS = (0.125, 0.25, 0.5, 1.0)
Decided = dict[float, Decision]


@given(st.lists(st.sampled_from(["reached", "abandoned", "undecided"]), min_size=1, max_size=40))
def test_few_probes_find_a_fraction_whose_smaller_neighbour_was_measured(decisions: list[Decision]) -> None:
    """Also where accuracy falls with more data, so that bisection's premise is false."""
    fractions = [float(i + 1) for i in range(len(decisions))]
    asked: list[float] = []

    def measure(fraction: float) -> Probe:
        asked.append(fraction)
        return Probe(fraction, decisions[int(fraction) - 1], ())

    probes = bisect(fractions, measure)
    assert len(asked) == len(set(asked)) == len(probes)
    assert len(probes) <= planned_probes(len(fractions)) <= math.log2(len(fractions)) + 2
    found, measured = answer(probes), {one.fraction: one.decision for one in probes}
    assert (found is None) == (decisions[-1] != "reached")
    if found is None:
        assert asked == [fractions[-1]]
    elif found.fraction > 1:
        assert measured[found.fraction - 1] != "reached"


@given(st.integers(1, 40), st.data())
def test_bisection_finds_the_least_where_more_data_never_harm(n: int, data: st.DataObject) -> None:
    least = data.draw(st.integers(1, n))
    probes = bisect(
        [float(i + 1) for i in range(n)], lambda f: Probe(f, "reached" if f >= least else "abandoned", ())
    )
    found = answer(probes)
    assert found is not None
    assert found.fraction == least


@pytest.mark.parametrize(("seeds", "spread"), [(1, 0.0), (2, 0.0), (2, 0.02), (3, 0.02)])
def test_what_is_false_is_certified_no_more_often_than_stated(seeds: int, spread: float) -> None:
    """All fractions lie just at what is allowed; one seed says nothing of others, so there they are alike."""
    trials = 120
    wrong = sum(
        answer(search(Oracle(lambda f: 0.57, seed, spread), FRACTIONS, seeds, 0.03)) is not None
        for seed in range(trials)
    )
    # 5 % of 120 are 6; more than 12 come by chance once in 200.
    assert wrong <= 12


def test_what_is_enough_is_found_and_what_is_not_is_abandoned_early() -> None:
    def truth(fraction: float) -> float:
        return 0.75 if fraction >= 0.5 else 0.25

    oracle = Oracle(truth)
    probes = search(oracle, FRACTIONS, 5, 0.02)
    found = answer(probes)
    assert found is not None
    assert found.fraction == 0.5
    assert {one.fraction: one.decision for one in probes} == {
        1.0: "reached",
        0.25: "abandoned",
        0.5: "reached",
    }
    # One seed shows that it is far below; two at least must show that it is enough.
    asked = [fraction for fraction, _ in oracle.asked]
    assert asked.count(0.25) == 1
    assert 2 <= asked.count(1.0) < 5
    assert 0.125 not in asked


def test_what_is_never_enough_is_given_up_at_the_largest() -> None:
    oracle = Oracle(lambda f: 0.3)
    (only,) = search(oracle, FRACTIONS, 3, 0.0)
    assert (only.fraction, only.decision, len(oracle.asked)) == (1.0, "abandoned", 1)


def test_equal_students_without_a_margin_stay_undecided() -> None:
    oracle = Oracle(lambda f: 0.6, spread=0.02)
    (only,) = search(oracle, FRACTIONS, 3, 0.0)
    assert only.decision == "undecided"
    assert len(only.looks) == len(oracle.asked) == 3


def test_one_seed_of_several_certifies_nothing_and_alone_it_does() -> None:
    better = Look(1, 0.2, 0.1, 0.3)
    assert Rule(0.0, 0.95).decide(better) == "undecided"
    assert Rule(0.0, 0.95, alone=True).decide(better) == "reached"
    worse = Look(1, -0.2, -0.35, -0.05)
    assert Rule(0.0, 0.95).decide(worse) == "undecided"
    assert Rule(0.0, 0.95, alone=True).decide(worse) == "abandoned"
    assert Rule(0.0, 0.95).decide(Look(2, -0.2, -0.35, -0.05)) == "abandoned"


@settings(max_examples=50)
@given(st.integers(2, 400), st.integers(1, 3), st.floats(0.8, 0.999))
def test_a_sample_without_disagreement_is_not_certain(n: int, seeds: int, confidence: float) -> None:
    found = look(["1" * n] * seeds, ["1" * n] * seeds, confidence)
    assert found.low < 0 == found.value < found.high
    # As careful as the exact bound of 0 in n, but for what a normal approximation gives away.
    exact = 1 - ((1 - confidence) / 2) ** (1 / n)
    assert -found.low > 0.5 * exact


def test_seeds_that_differ_widen_the_interval_and_more_confidence_does() -> None:
    bar = "1" * 50 + "0" * 50
    alike, apart = ["1" * 60 + "0" * 40] * 3, ["1" * k + "0" * (100 - k) for k in (45, 60, 75)]
    narrow, wide = look(alike, [bar] * 3, 0.95), look(apart, [bar] * 3, 0.95)
    assert narrow.value == wide.value == pytest.approx(0.1)
    assert wide.low < narrow.low
    assert look(alike, [bar] * 3, 0.99).low < narrow.low


def test_looks_are_at_the_same_examples_and_seeds() -> None:
    for mine, theirs in ((["11"], ["111"]), (["11"], ["11", "10"])):
        with pytest.raises(ValueError, match="cannot be compared"):
            look(mine, theirs, 0.95)
