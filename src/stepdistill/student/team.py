"""The processes that train together: which is first, what they add up, and that an error of one ends all."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object, get_int_from_env
from torch import Tensor

from stepdistill.errors import StepdistillError, StudentError

T = TypeVar("T")

_SIZES = ["WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE"]
"""Where launchers say how many processes there are."""

PATIENCE = timedelta(hours=24)
"""How long processes wait for one another: the first validates alone, which can take long."""
GRACE = 2.0
"""Seconds that a process waits before it leaves without a word."""


@dataclass(frozen=True)
class Team:
    """This process among those that a launcher has started; alone where there was none.

    The first process alone writes files, generates text and speaks to the user.
    """

    rank: int = 0
    world: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in all of them; the others wait.

        An error of the user's is raised in the first process; the others leave without a word, with
        the same exit code, so that it is told once.
        """
        if self.world == 1:
            return work()
        told: list[Any] = [None, None]
        error: StepdistillError | None = None
        if self.is_first:
            try:
                told[1] = work()
            except StepdistillError as raised:
                error, told[0] = raised, raised.exit_code
        broadcast_object_list(told)
        if error is not None:
            raise error
        if told[0] is not None:
            _leave(told[0])
        value: T = told[1]
        return value

    def alike(self, work: Callable[[], T]) -> T:
        """What `work` gives, which comes to the same in all processes; its error is told once, too."""
        try:
            return work()
        except StepdistillError as error:
            if not self.is_first:
                _leave(error.exit_code)
            raise

    def gather(self, value: T) -> list[T]:
        """What each process gives, in their order, in all of them."""
        return [value] if self.world == 1 else list(gather_object([value]))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the processes; `values` stays as it is."""
        if self.world == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total


def _part() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _leave(code: int) -> NoReturn:
    # A launcher ends all processes as soon as one has ended; the first must have spoken by then.
    time.sleep(GRACE)
    raise SystemExit(code) from None


def join(cpu: bool) -> Team:
    """The team of this process, as torchrun, `accelerate launch` or mpirun have laid it down.

    Args:
        cpu: whether to train without a GPU.

    Raises:
        StudentError: several processes were asked of a launcher that has started one.
    """
    if get_int_from_env(_SIZES, 1) == 1:
        # Of `--num_processes` on a CPU, accelerate's launcher leaves everything but the address out.
        if (
            "ACCELERATE_USE_CPU" in os.environ
            and "MASTER_PORT" in os.environ
            and not any(name in os.environ for name in _SIZES)
        ):
            raise StudentError(
                "`accelerate launch --cpu` has started one process where several were asked for; on CPUs use "
                "torchrun --nproc_per_node N -m stepdistill train FILE"
            )
        return Team()
    state = PartialState(cpu=cpu, timeout=PATIENCE)
    # Left to the interpreter's end, the threads of the group can abort the process.
    atexit.register(_part)
    return Team(state.process_index, state.num_processes)
