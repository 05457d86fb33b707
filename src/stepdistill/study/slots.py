"""Slots of a study: processes side by side, each pinned to its own cores, ended together."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import IO, cast

import psutil

from stepdistill.study.grid import Trial

GPUS = ("/dev/nvidia0", "/dev/kfd", "/dev/dxg")
"""One of them is there where there is a GPU; asking torch would load its driver."""
TERMINATED = 128 + signal.SIGTERM
"""Exit code of a trial that SIGTERM has ended in order."""
PATIENCE = 60.0
"""Seconds that trials have to end orderly; one that writes a large checkpoint takes some."""


@dataclass
class Slot:
    """A process that runs one trial after another on its own cores; started when it is first needed."""

    cores: list[int]
    process: subprocess.Popen[bytes] | None = None
    trial: Trial | None = None
    pid: int = 0
    began: float = 0.0
    started: str = ""
    _rest: bytes = b""

    def start(self, trial: Trial, reopen: bool) -> None:
        """Give it a trial."""
        if self.process is None:
            self.process = _start(self.cores)
        self.trial, self.pid = trial, 0
        self.began, self.started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        line = json.dumps({"folder": str(trial.folder.absolute()), "reopen": reopen})
        given = cast(IO[bytes], self.process.stdin)
        with contextlib.suppress(BrokenPipeError):  # it has died, which is heard next
            given.write(line.encode() + b"\n")
            given.flush()

    @property
    def source(self) -> int:
        """The file descriptor that becomes readable when there is something to hear."""
        return cast(IO[bytes], cast(subprocess.Popen[bytes], self.process).stdout).fileno()

    def hear(self) -> int | None:
        """How its trial ended: an exit code, or a signal's negative number; None while it runs.

        A process that died has ended its trial in the same way, and is started anew for the next one.
        """
        news = os.read(self.source, 1 << 16)
        if not news and self.process is not None:
            ended = self.process.wait()
            _close(self.process)
            self.process, self._rest = None, b""
            return ended
        *lines, self._rest = (self._rest + news).split(b"\n")
        code: int | None = None
        for line in lines:
            told = json.loads(line)
            self.pid, code = told.get("pid", self.pid), told.get("code", code)
        return code

    def resident(self) -> int:
        """Bytes of memory that its trial has now."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss) if self.pid else 0
        except psutil.Error:
            return 0


@contextlib.contextmanager
def open_slots(jobs: int) -> Iterator[list[Slot]]:
    """Slots for trials; when this is left, however it is, nothing runs any more."""
    slots = [Slot(cores) for cores in cores_of_slots(jobs)]
    try:
        yield slots
    finally:
        _end(slots)


def cores_of_slots(jobs: int) -> list[list[int]]:
    """The cores of each of `jobs` slots: a share of those that this process may use, one at least."""
    if hasattr(os, "sched_getaffinity"):
        cores = sorted(os.sched_getaffinity(0))
    else:
        cores = list(range(os.cpu_count() or 1))
    if jobs >= len(cores):
        return [[cores[slot % len(cores)]] for slot in range(jobs)]
    bounds = [slot * len(cores) // jobs for slot in range(jobs + 1)]
    return [cores[start:end] for start, end in pairwise(bounds)]


def threads_of(cores: Sequence[int]) -> int:
    """Threads of a slot: as many as it has cores, or fewer where OMP_NUM_THREADS says so."""
    return min(len(cores), given_threads() or len(cores))


def given_threads() -> int | None:
    """What OMP_NUM_THREADS says, where that is a number."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) or None if given.isdecimal() else None


def _start(cores: Sequence[int]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - our own module, in our own interpreter
        [sys.executable, "-m", "stepdistill.study.worker", *map(str, cores)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": str(threads_of(cores))},
        # Ctrl-C in a terminal goes to all processes of a group; here the study passes it on, in order.
        start_new_session=True,
    )


def _end(slots: Sequence[Slot]) -> None:
    """Have all processes end; a second Ctrl-C, or `PATIENCE` at its end, kills them and their trials."""
    end = time.monotonic() + PATIENCE
    running = [slot.process for slot in slots if slot.process is not None]
    try:
        for slot in slots:
            if slot.process is not None and slot.trial is not None:
                slot.process.send_signal(signal.SIGTERM)
        for process in running:  # those that have nothing to do end by this
            with contextlib.suppress(BrokenPipeError):
                cast(IO[bytes], process.stdin).close()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
    finally:
        for process in running:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
