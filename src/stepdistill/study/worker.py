"""A slot of a study: a process that imports torch once, and runs trials in forks of itself, one at a time.

It reads the trials' folders from its input, a JSON line each, and answers with two lines: the process that
runs the trial, and how that ended. A crash costs that process alone, and all its memory comes back. The
import of torch and transformers costs as much as a tenth of a small trial.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from stepdistill.errors import StepdistillError
from stepdistill.study.slots import GPUS, TERMINATED
from stepdistill.study.trial import LOG, run_trial

_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND


class _TerminatedError(BaseException):
    """SIGTERM, as an exception: it ends the work as orderly as Ctrl-C does."""


def main(cores: Sequence[int]) -> None:
    """Serve until the input ends; pinned to `cores` where the system can do that."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    slot = _Slot(begin=_forked if _can_fork() else _fresh)
    signal.signal(signal.SIGTERM, slot.stop)
    # Ctrl-C is the study's to understand; it says so to each slot.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in iter(sys.stdin.readline, ""):
        slot.run(**json.loads(line))


class _Slot:
    """Runs one trial after another, and passes a SIGTERM on to the one that runs."""

    def __init__(self, begin: Callable[[Path, bool], int]) -> None:
        self._begin, self._child, self._stopping = begin, 0, False

    def stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True
        if not self._child:
            raise SystemExit(TERMINATED)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._child, signal.SIGTERM)

    def run(self, folder: str, reopen: bool) -> None:
        # Between the fork and the note of who it is, nobody could be told to stop.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        self._child = self._begin(Path(folder), reopen)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        _tell(pid=self._child)
        _, status = os.waitpid(self._child, 0)
        self._child = 0
        _tell(code=os.waitstatus_to_exitcode(status))
        if self._stopping:
            raise SystemExit(TERMINATED)


def _can_fork() -> bool:
    """Import what a trial needs, if a fork of this process can use it: not where there is a GPU.

    A driver that was touched before a fork is of no use after it, and imports may touch it.
    """
    if any(os.path.exists(path) for path in GPUS):
        return False
    import transformers.trainer

    import stepdistill.study.run

    _ = transformers.trainer, stepdistill.study.run
    return threading.active_count() == 1


def _fresh(folder: Path, reopen: bool) -> int:
    """Start the trial as a program of its own."""
    flags = ["--reopen-test"] if reopen else []
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "stepdistill", "trial", str(folder), *flags],
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(folder / LOG), _APPEND, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsigmask=[],
        setsigdef=[signal.SIGTERM, signal.SIGINT],
    )


def _forked(folder: Path, reopen: bool) -> int:
    """Run the trial in a fork of this process."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        _into_log(folder)
        signal.signal(signal.SIGTERM, _terminate)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        outcome = run_trial(folder, _Lines(), reopen)
        code = outcome.exit
        print(outcome.traceback or "done", flush=True)
    except _TerminatedError:
        code = TERMINATED
    except StepdistillError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    except BaseException:  # noqa: BLE001 - the fork must never go on as a slot
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _into_log(folder: Path) -> None:
    log = os.open(folder / LOG, _APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise _TerminatedError


def _tell(**news: int) -> None:
    # Whoever started this may be gone; the trial that runs is ended all the same.
    with contextlib.suppress(BrokenPipeError):
        print(json.dumps(news), flush=True)


class _Lines:
    """A `Watcher` that writes a line when a stage begins and when it ends."""

    def __init__(self) -> None:
        self._open: set[str] = set()

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        if what in self._open and done < total:
            return
        self._open.add(what)
        print(f"{time.strftime('%H:%M:%S')} {what}: {done:,} of {total:,} {note}".rstrip(), flush=True)


if __name__ == "__main__":
    main([int(core) for core in sys.argv[1:]])
