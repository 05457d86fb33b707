"""The order of training: exact epochs, the same steps however they are dealt, little padding."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.errors import StudentError
from stepdistill.student.order import StepSampler, padding_share

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=70).map(lambda x: np.array(x, np.int32))
FACTORS = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
"""Micro-batches of a step on a process, examples in each, processes."""
COMMON = settings(max_examples=60, deadline=None)


def natural(n: int) -> np.ndarray[Any, np.dtype[np.int32]]:
    """Lengths as texts have them: log-normal."""
    return np.random.default_rng(0).lognormal(4, 0.5, n).astype(np.int32) + 1


def samplers(lengths: Any, factors: tuple[int, int, int], **more: Any) -> list[StepSampler]:
    """One for each process."""
    parts, micro, world = factors
    size = parts * micro * world
    samplers = [StepSampler(lengths, size, micro, world, rank, **more) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(1)
    return samplers


def steps(ranks: list[StepSampler]) -> list[list[int]]:
    """The examples of each optimizer step, sorted, as the processes together are dealt them."""
    dealt = [list(sampler) for sampler in ranks]
    found = []
    for first in range(0, len(ranks[0]), ranks[0].parts):
        batches = [batch for mine in dealt for batch in mine[first : first + ranks[0].parts]]
        found.append(sorted(i for batch in batches for i in batch if i >= 0))
    return found


@COMMON
@given(LENGTHS, FACTORS, st.booleans())
def test_an_epoch_has_every_example_once(lengths: Any, factors: tuple[int, int, int], group: bool) -> None:
    found = [i for s in samplers(lengths, factors, group=group) for batch in s for i in batch if i >= 0]
    assert sorted(found) == list(range(len(lengths)))


@COMMON
@given(LENGTHS, FACTORS)
def test_every_process_has_equally_many_micro_batches_and_none_is_empty_or_too_large(
    lengths: Any, factors: tuple[int, int, int]
) -> None:
    parts, micro, world = factors
    for sampler in samplers(lengths, factors):
        batches = list(sampler)
        assert sampler.parts == parts
        assert len(batches) == len(sampler) == sampler.steps_per_epoch * parts
        assert sampler.steps_per_epoch == -(-len(lengths) // (parts * micro * world))
        assert all(1 <= len(batch) <= micro for batch in batches)


@COMMON
@given(LENGTHS, FACTORS)
def test_a_muted_example_stands_alone_in_the_step_it_is_part_of(
    lengths: Any, factors: tuple[int, int, int]
) -> None:
    ranks = samplers(lengths, factors)
    together = steps(ranks)
    for sampler in ranks:
        for place, batch in enumerate(sampler):
            if min(batch) < 0:
                (muted,) = batch
                assert ~muted in together[place // sampler.parts]


@COMMON
@given(LENGTHS, st.integers(0, 5), st.booleans())
def test_the_steps_are_the_same_however_they_are_dealt(lengths: Any, seed: int, group: bool) -> None:
    ways = [(12, 1, 1), (1, 12, 1), (4, 3, 1), (2, 2, 3), (3, 1, 4), (1, 1, 12)]
    given = [steps(samplers(lengths, factors, seed=seed, group=group)) for factors in ways]
    assert all(one == given[0] for one in given)
    assert [len(step) for step in given[0][:-1]] == [12] * (len(given[0]) - 1)


@COMMON
@given(LENGTHS, FACTORS)
def test_the_rows_of_a_step_are_spread_evenly_and_by_length(
    lengths: Any, factors: tuple[int, int, int]
) -> None:
    parts, _, _ = factors
    dealt = [list(sampler) for sampler in samplers(lengths, factors)]
    for first in range(0, len(dealt[0]), parts):
        mine = [[[i for i in batch if i >= 0] for batch in own[first : first + parts]] for own in dealt]
        rows = [sum(len(batch) for batch in batches) for batches in mine]
        sizes = [len(batch) for batches in mine for batch in batches]
        assert max(rows) - min(rows) <= 1
        assert max(sizes) - min(sizes) <= 1
        held = sorted(sorted(lengths[i] for i in batch) for batches in mine for batch in batches if batch)
        assert list(itertools.chain(*held)) == sorted(itertools.chain(*held))


@COMMON
@given(LENGTHS, FACTORS)
def test_a_step_begins_with_examples_of_middle_length(lengths: Any, factors: tuple[int, int, int]) -> None:
    # The first micro-batch stands for the step where gradients are measured; muted, it would say nothing.
    ranks = samplers(lengths, factors)
    dealt = [list(sampler) for sampler in ranks]
    for number, step in enumerate(ranks[0].steps()):
        begun = [i for own in dealt for i in own[number * factors[0]] if i >= 0]
        places = sorted(step.tolist().index(i) for i in begun)
        assert begun
        if len(step) == ranks[0].batch_size:
            assert places[0] <= len(step) / 2 <= places[-1] + 1


def test_iterating_again_gives_the_same_and_another_epoch_or_seed_does_not() -> None:
    lengths = natural(100)
    sampler = StepSampler(lengths, 8, 4)
    first = list(sampler)
    assert list(sampler) == first
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert list(sampler) == first != second
    assert list(StepSampler(lengths, 8, 4, seed=1)) not in (first, second)
    two = iter(sampler), iter(sampler)
    assert [next(two[0]), next(two[1]), next(two[0])] == [first[0], first[0], first[1]]


def test_lengths_that_are_all_alike_are_shuffled_and_steps_are_not_in_order_of_length() -> None:
    flat = [i for batch in StepSampler(np.full(200, 7, np.int32), 8, 8) for i in batch]
    assert sorted(flat) != flat
    means = [natural(800)[batch].mean() for batch in StepSampler(natural(800), 8, 8)]
    assert sorted(means) != means != sorted(means, reverse=True)


def test_examples_meet_others_in_the_next_epoch() -> None:
    # One window over all examples would put the same neighbours by length together for ever.
    sampler = StepSampler(natural(720), 16, 16)
    met = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        met.append({pair for batch in sampler for pair in itertools.combinations(sorted(batch), 2)})
    assert len(met[0] & met[1]) < 0.2 * len(met[0])


def test_the_order_is_that_of_earlier_versions() -> None:
    # A run begun with one version is continued by another: these numbers never change.
    sampler = StepSampler(np.arange(10, dtype=np.int32) % 4, 4, 2, seed=7)
    sampler.set_epoch(3)
    assert list(sampler) == [[1, 9], [8, 5], [7, 3], [4, 2], [6], [0]]


def test_the_incomplete_step_is_a_fair_sample_and_the_last() -> None:
    lengths = natural(1004)
    sampler = StepSampler(lengths, 8, 8)
    left = []
    for epoch in range(100):
        sampler.set_epoch(epoch)
        *_, last = sampler
        assert len(last) == 4
        left += [int(lengths[i]) for i in last]
    assert np.mean(left) == pytest.approx(lengths.mean(), rel=0.1)


@pytest.mark.parametrize(("micro", "factor"), [(64, 5), (16, 10)])
def test_grouping_leaves_a_fraction_of_the_padding(micro: int, factor: int) -> None:
    lengths = natural(6400)
    shares = [padding_share(lengths, StepSampler(lengths, 64, micro, group=g)) for g in (True, False)]
    assert shares[0] * factor < shares[1]


def test_the_work_of_processes_is_alike() -> None:
    lengths = natural(1000)
    widths = [
        sum(len(batch) * int(lengths[[max(i, ~i) for i in batch]].max()) for batch in sampler)
        for sampler in samplers(lengths, (4, 4, 2))
    ]
    assert max(widths) < 1.04 * min(widths)


def test_one_example_for_several_processes() -> None:
    ranks = [StepSampler(np.array([5], np.int32), 6, 1, 3, rank) for rank in range(3)]
    assert [list(sampler) for sampler in ranks] == [[[0], [-1]], [[-1], [-1]], [[-1], [-1]]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lengths": np.empty(0, np.int32)}, "no example is left to train on"),
        ({"micro": 3}, r"batch_size 8 is not a multiple of 3 = micro_batch_size 3 x 1 processes"),
        ({"micro": 4, "world": 3}, r"not a multiple of 12 = micro_batch_size 4 x 3 processes"),
        ({"micro": 16}, "not a multiple of 16"),
        ({"micro": 0}, "not a multiple of 0"),
        ({"rank": 1}, "process 1 of 1"),
    ],
)
def test_what_cannot_be_dealt_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(StudentError, match=message) as error:
        StepSampler(**{"lengths": np.array([1, 2], np.int32), "batch_size": 8, "micro": 8, **given})
    assert "\n" not in str(error.value)
