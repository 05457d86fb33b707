"""The trials of a study: started as cores and memory allow, none run twice, each failure kept apart."""

from __future__ import annotations

import selectors
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from stepdistill.files import read_text
from stepdistill.records import Watcher, unwatched
from stepdistill.study.estimate import Clock, Memory, work
from stepdistill.study.grid import Trial
from stepdistill.study.slots import TERMINATED, Slot, open_slots
from stepdistill.study.trial import (
    LOG,
    OUTCOME,
    Measured,
    TrialHeldError,
    drop_weights,
    is_done,
    is_held,
    note_killed,
    read_outcome,
    write_trial,
)

_LOOK = 2.0
"""Seconds between two looks at what nobody tells of: a trial that another process runs, free memory."""
_SHOW = 30.0
"""Seconds after which the time left is shown anew."""
_AGAIN = 2
"""How often a trial is put back that was not begun, or was ended in order, by a signal to its slot alone."""
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
"""What a container may use, and uses."""


@dataclass(frozen=True)
class Failure:
    """A trial that has failed: the error in one line, and the file that says more."""

    trial: str
    error: str
    where: Path


@dataclass(frozen=True)
class Manner:
    """How trials are run.

    Args:
        jobs: how many side by side.
        keep_students: whether the weights of finished trials stay.
        measure: "validation": test is not read.
        reopen: read test also where it has been read for a trial whose result is gone (`--reopen-test`).
        watch: told of progress.
    """

    jobs: int = 1
    keep_students: bool = True
    measure: Measured = "test"
    reopen: bool = False
    watch: Watcher = unwatched


def run_trials(trials: Sequence[Trial], manner: Manner) -> list[Failure]:
    """Run those trials that are not done to their ends; those that have failed are tried again, once.

    Trials that another process works on are waited for. When this is interrupted, those that run are
    ended in an orderly way, and go on the next time.

    Returns:
        the failures, in the order of the trials.

    Raises:
        StepdistillError: a folder cannot be used.
    """
    for trial in trials:
        write_trial(trial, manner.keep_students, manner.measure)
    waiting = [trial for trial in trials if not is_done(trial.folder, manner.measure)]
    failures: dict[str, Failure] = {}
    if waiting:
        shop = _Shop(manner, trials, waiting)
        with open_slots(min(manner.jobs, len(waiting))) as slots:
            shop.work(slots)
        failures = shop.failures
    if not manner.keep_students and manner.measure == "test":
        for trial in trials:
            if is_done(trial.folder):
                drop_weights(trial.folder)
    return [failures[trial.name] for trial in trials if trial.name in failures]


def available_memory() -> int:
    """Bytes that a new process can have: of the machine, or of the container where that is less."""
    free = int(psutil.virtual_memory().available)
    if all(path.exists() for path in _LIMITS):
        most, used = (read_text(path).strip() for path in _LIMITS)
        if most.isdecimal() and used.isdecimal():
            free = min(free, max(0, int(most) - int(used)))
    return free


class _Shop:
    """Hands trials to slots, and takes note of how they end."""

    def __init__(self, manner: Manner, trials: Sequence[Trial], waiting: Sequence[Trial]) -> None:
        self.failures: dict[str, Failure] = {}
        self._manner, self._total = manner, len(trials)
        self._waiting, self._elsewhere = deque(waiting), list[Trial]()
        self._running: list[Slot] = []
        self._again = Counter[str]()
        self._memory, self._clock = Memory(), Clock(work(trials))
        todo = {trial.name for trial in waiting}
        for trial in trials:
            if trial.name not in todo:
                self._learn(trial)

    def work(self, slots: Sequence[Slot]) -> None:
        """Until there is nothing left to do."""
        while self._waiting or self._elsewhere or any(slot.trial for slot in slots):
            self._look_elsewhere()
            self._start(slots)
            self._running = [slot for slot in slots if slot.trial is not None]
            self._show()
            if self._running or self._waiting or self._elsewhere:
                self._listen(len(self._running) < len(slots))
        self._running = []
        self._show()

    def _start(self, slots: Sequence[Slot]) -> None:
        for slot in slots:
            while slot.trial is None and self._waiting and self._fits(self._waiting[0], slots):
                trial = self._waiting.popleft()
                if is_held(trial.folder):
                    self._elsewhere.append(trial)
                else:
                    slot.start(trial, self._manner.reopen)

    def _fits(self, trial: Trial, slots: Sequence[Slot]) -> bool:
        """Whether there is memory for one more, those that run grown to their full size; one always runs."""
        running = [(slot, slot.trial) for slot in slots if slot.trial is not None]
        if not running:
            return True
        grown = sum(max(0, self._memory.needed(other) - slot.resident()) for slot, other in running)
        return available_memory() - grown >= self._memory.needed(trial)

    def _listen(self, idle: bool) -> None:
        """Wait for news; not for long where there may be none and something changes all the same."""
        look = bool(self._elsewhere) or (idle and bool(self._waiting))
        with selectors.DefaultSelector() as selector:
            for slot in self._running:
                selector.register(slot.source, selectors.EVENT_READ, slot)
            timeout = _LOOK if look else _SHOW
            if not self._running:  # some systems return at once where there is nothing to wait for
                time.sleep(timeout)
            ready = [key.data for key, _ in selector.select(timeout)] if self._running else []
        for slot in ready:
            code, trial = slot.hear(), slot.trial
            if code is None or trial is None:
                continue
            slot.trial = None
            # A slot may have been killed and not its trial, which then works on by itself.
            if code == TrialHeldError.exit_code or is_held(trial.folder):
                self._elsewhere.append(trial)
            else:
                self._judge(trial, code, slot)

    def _look_elsewhere(self) -> None:
        for trial in [trial for trial in self._elsewhere if not is_held(trial.folder)]:
            self._elsewhere.remove(trial)
            if is_done(trial.folder, self._manner.measure):
                self._learn(trial)
            else:
                self._waiting.appendleft(trial)

    def _judge(self, trial: Trial, code: int, slot: Slot) -> None:
        if is_done(trial.folder, self._manner.measure):
            self._learn(trial)
            return
        # Were the study to end, nobody would hear of this any more.
        if (not slot.pid or code == TERMINATED) and self._again[trial.name] < _AGAIN:
            self._again[trial.name] += 1
            self._waiting.appendleft(trial)
            return
        outcome, log = read_outcome(trial.folder), trial.folder / LOG
        if code < 0:
            outcome = note_killed(trial.folder, -code, time.monotonic() - slot.began, slot.started)
            if outcome is None:
                self._elsewhere.append(trial)
                return
        error = (outcome and outcome.error) or f"ended with exit code {code} and without an outcome"
        where = log if log.exists() else trial.folder / OUTCOME
        self.failures[trial.name] = Failure(trial.name, error, where)

    def _learn(self, trial: Trial) -> None:
        self._memory.learn(trial)
        self._clock.learn(trial)

    def _show(self) -> None:
        failed, running = len(self.failures), [slot.trial for slot in self._running if slot.trial]
        left = [*running, *self._waiting, *self._elsewhere]
        notes = [f"{len(running)} running"]
        if self._elsewhere:
            notes.append(f"{len(self._elsewhere)} elsewhere")
        if failed:
            notes.append(f"{failed} failed")
        spent = {slot.trial.name: time.monotonic() - slot.began for slot in self._running if slot.trial}
        if left and (seconds := self._clock.left(left, self._manner.jobs, spent)) is not None:
            notes.append(f"about {duration(seconds)} left")
        self._manner.watch("trials", self._total - len(left), self._total, ", ".join(notes) if left else "")


def duration(seconds: float) -> str:
    """A time for people.

    >>> duration(50), duration(200), duration(10_000)
    ('50 s', '3 min', '2 h 47 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
