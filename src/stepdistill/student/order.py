"""Which examples an optimizer step holds, and how they are dealt to micro-batches and processes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import PCG64

from stepdistill.errors import StudentError

WINDOW = 50
"""Steps among which examples are grouped by length: more than that saves hardly any more padding."""

WINDOWS = 4
"""An epoch has at least so many windows; in a single one, the same examples would meet in every epoch."""

Indices = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(eq=False)
class StepSampler:
    """The micro-batches of one process, epoch by epoch; a `batch_sampler` for torch's DataLoader.

    Each epoch has every example exactly once. Which examples make a step depends on the seed, the epoch,
    `batch_size`, the lengths and `group` alone, not on `micro`, `world` or `rank`. Every step, the last and
    incomplete one too, is `parts` micro-batches on each process. A micro-batch is a list of example
    numbers; `~i` stands for example `i` muted and fills what would be empty. A step begins with its
    examples of middle length.

    Nothing is remembered but the epoch: iterating again gives the same.

    Attributes:
        lengths: int (examples,), the tokens of each.
        batch_size: examples in an optimizer step.
        micro: the most examples in a micro-batch.
        world: number of processes.
        rank: number of this process.
        seed: together with the epoch, fixes the order; 0 or more.
        group: whether a step holds examples of similar length.
        epoch: set by `set_epoch`.

    Raises:
        StudentError: there is no example, or `batch_size` is not a multiple of `micro * world`.
    """

    lengths: np.ndarray[Any, np.dtype[np.int32]]
    batch_size: int
    micro: int
    world: int = 1
    rank: int = 0
    seed: int = 0
    group: bool = True
    epoch: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if not len(self.lengths):
            raise StudentError("no example is left to train on; check the data and what was left out of it")
        if min(self.batch_size, self.micro, self.world) < 1 or self.batch_size % (self.micro * self.world):
            raise StudentError(
                f"batch_size {self.batch_size} is not a multiple of {self.micro * self.world} = "
                f"micro_batch_size {self.micro} x {self.world} processes; change one of them"
            )
        if not 0 <= self.rank < self.world:
            raise StudentError(f"process {self.rank} of {self.world}: processes are counted from 0")

    @property
    def parts(self) -> int:
        """Micro-batches of a step on one process."""
        return self.batch_size // (self.micro * self.world)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch; the last may be incomplete."""
        return -(-len(self.lengths) // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Have the next iteration give this epoch's order."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps_per_epoch * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            yield from self._dealt(step)

    def steps(self) -> Iterator[Indices]:
        """The examples of each optimizer step of the epoch over all processes, by rising length."""
        # Of NumPy's random numbers only the raw ones of a bit generator, and its seeding, are promised
        # to stay the same in later versions; sorting them is the shuffle.
        bits = PCG64([self.seed, self.epoch])
        order = _shuffled(bits, len(self.lengths))
        whole = len(order) // self.batch_size
        # What is left over is taken from the shuffle: from a window it would be the longest examples.
        filled, rest = order[: whole * self.batch_size], order[whole * self.batch_size :]
        if self.group:
            window = max(1, min(WINDOW, whole // WINDOWS)) * self.batch_size
            for start in range(0, len(filled), window):
                filled[start : start + window] = self._by_length(filled[start : start + window])
        for step in _shuffled(bits, whole):
            yield self._by_length(filled[step * self.batch_size :][: self.batch_size])
        if len(rest):
            yield self._by_length(rest)

    def _by_length(self, examples: Indices) -> Indices:
        return examples[np.argsort(self.lengths[examples], kind="stable")]

    def _dealt(self, step: Indices) -> Iterator[list[int]]:
        dealt = np.array_split(step, self.parts * self.world)
        # What comes first is looked at where one micro-batch has to stand for the step.
        middle = min(self.parts, -(-len(step) // self.world)) // 2
        for turn in (*range(middle, self.parts), *range(middle)):
            # There and back, as cards to two players: the processes wait for the one with the most to do.
            place = self.world - 1 - self.rank if turn % 2 else self.rank
            # The shortest costs least where it is muted.
            yield dealt[turn * self.world + place].tolist() or [~int(step[0])]


def padding_share(lengths: np.ndarray[Any, np.dtype[np.int32]], sampler: StepSampler) -> float:
    """Share of padding, muted examples included, where each micro-batch is as wide as its longest example.

    >>> padding_share(np.array([2, 4]), StepSampler(np.array([2, 4]), batch_size=2, micro=2))
    0.25
    """
    used = places = 0
    for batch in sampler:
        examples = [~i if i < 0 else i for i in batch]
        used += sum(int(lengths[i]) for i in batch if i >= 0)
        places += len(batch) * int(lengths[examples].max())
    return 1 - used / places


def _shuffled(bits: PCG64, n: int) -> Indices:
    return np.argsort(bits.random_raw(n), kind="stable")
