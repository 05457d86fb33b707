"""What a study has to do, how long it will take and what it will cost, without doing any of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepdistill.config import StudyConfig
from stepdistill.records import Example
from stepdistill.study.estimate import Clock, machine_speed, parameters, work
from stepdistill.study.grid import Trial
from stepdistill.study.slots import cores_of_slots, threads_of
from stepdistill.study.trial import is_done, read_outcome
from stepdistill.task.load import load_task, stream_examples
from stepdistill.task.stream import Examples
from stepdistill.teacher.annotate import Asked
from stepdistill.teacher.ledger import LEDGER
from stepdistill.teacher.preview import Preview, preview
from stepdistill.teacher.prices import NANO

_COPIES = 10
"""Bytes of a training on the disk, in weights of 4: two checkpoints with moments, a third on its way."""


@dataclass(frozen=True)
class Cell:
    """The trials of one place in the table: all axes but the seed."""

    axes: Mapping[str, Any]
    trials: int
    done: int
    failed: int


@dataclass(frozen=True)
class Money:
    """What one teacher would be asked, a second stage at most; US dollars, None where no price is known."""

    teacher: str
    prompts: int
    answered: int
    about_usd: float | None
    most_usd: float | None


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes:
        cells: the trials, in their order.
        seconds: until all is done; None where nobody can say.
        measured: whether `seconds` goes by finished trials of the same students; else it is right within a
            factor of 3 or so.
        disk_bytes: weights of the students, and of the checkpoints of those in training.
    """

    cells: tuple[Cell, ...]
    jobs: int
    seconds: float | None
    measured: bool
    money: tuple[Money, ...]
    disk_bytes: int | None

    @property
    def trials(self) -> int:
        """How many there are."""
        return sum(cell.trials for cell in self.cells)

    @property
    def done(self) -> int:
        """How many are finished."""
        return sum(cell.done for cell in self.cells)


def plan(study: StudyConfig, trials: Sequence[Trial], jobs: int) -> Plan:
    """Look at what is there and what is not; nothing is asked, started or written.

    Raises:
        StepdistillError: of any kind that a run file can cause.
    """
    finished = [trial for trial in trials if is_done(trial.folder)]
    names = {trial.name for trial in finished}
    left = [trial for trial in trials if trial.name not in names]
    clock = Clock(work(trials))
    for trial in finished:
        clock.learn(trial)
    threads = [trial.config.train.threads or threads_of(cores_of_slots(jobs)[0]) for trial in left]
    measured = all(map(clock.knows, left))
    speed = None if measured else machine_speed(min(threads, default=1))
    seconds = clock.left(left, jobs, {}, speed)
    money = tuple(one for part in _parts(left) for one in _money(part))
    return Plan(_cells(trials), jobs, seconds, measured, money, _disk(study, left, jobs))


def _cells(trials: Sequence[Trial]) -> tuple[Cell, ...]:
    cells: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        cells[repr({key: value for key, value in trial.axes.items() if key != "seed"})].append(trial)
    return tuple(_cell(members) for members in cells.values())


def _cell(members: Sequence[Trial]) -> Cell:
    outcomes = [read_outcome(trial.folder) for trial in members]
    axes = {key: value for key, value in members[0].axes.items() if key != "seed"}
    done = sum(is_done(trial.folder) for trial in members)
    failed = sum(outcome is not None and outcome.status == "failed" for outcome in outcomes)
    return Cell(axes, len(members), done, failed)


def _parts(trials: Sequence[Trial]) -> list[list[Trial]]:
    """Trials that ask the same questions: whose answers one pays for serve the others."""
    parts: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        config = trial.config
        chosen = any(teacher.demonstrations.choose != "fixed" for teacher in config.asked)
        data = config.data.model_copy(update={"fraction": None, "fraction_seed": None})
        asked = [teacher.model_dump_json() for teacher in config.asked]
        parts[repr((config.task, data, asked, config.annotate, config.seed if chosen else 0))].append(trial)
    return list(parts.values())


def _money(part: Sequence[Trial]) -> list[Money]:
    """What the teachers of these trials would be asked about all their training examples together."""
    config = part[0].config
    if not any(teacher.modelled for teacher in config.asked):
        return []
    ledger = Path(config.annotate.ledger or part[0].folder.parent / LEDGER).expanduser()
    asked = Asked(load_task(config.task), _together(part), config, ledger)
    return [_sum(found) for found in preview(asked, 0)]


def _together(part: Sequence[Trial]) -> dict[Any, Examples]:
    """The examples of all these trials; fractions of one seed nest, so of each seed the largest counts."""
    task, largest = load_task(part[0].config.task), dict[int | None, Trial]()
    for trial in part:
        data = trial.config.data
        seed = data.fraction_seed if data.fraction else None
        other = largest.get(seed)
        if other is None or (other.config.data.fraction or 1) < (data.fraction or 1):
            largest[seed] = trial
    whole = largest.get(None)
    streams = dict(stream_examples(task, (whole or part[0]).config.data))
    if whole is None and "train" in streams:
        found: dict[str, Example] = {}
        for trial in largest.values():
            found |= {e.id: e for e in stream_examples(task, trial.config.data, ("train",))["train"]}
        streams["train"] = Examples(lambda: iter(found.values()), len(found))
    return dict(streams)


def _sum(found: Preview) -> Money:
    about, most = (None if cost is None else cost / NANO for cost in (found.about, found.most))
    return Money(found.teacher, found.asks + found.further, found.reused, about, most)


def _disk(study: StudyConfig, left: Sequence[Trial], jobs: int) -> int | None:
    sizes = [parameters(trial.config.student) for trial in left]
    known = [4 * size for size in sizes if size is not None]
    if len(known) < len(sizes):
        return None
    kept = sum(known) if study.keep_students else 0
    return kept + min(jobs, len(known)) * _COPIES * max(known, default=0)
