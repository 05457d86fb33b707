"""One trial of a study: a folder that says what is to be run in it, and a command that runs it anywhere."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import yaml

from stepdistill.config import RunConfig, check, read_yaml
from stepdistill.errors import DataError, RunFolderError, StepdistillError
from stepdistill.files import lock, read_text, write_json, write_text
from stepdistill.records import Watcher, unwatched
from stepdistill.study.bill import cost_usd
from stepdistill.study.folder import TRIAL_FILES, RunFolder
from stepdistill.study.grid import Trial
from stepdistill.study.validation import has_validation, measure_validation

FILE, OUTCOME, LOG = TRIAL_FILES
Measured = Literal["test", "validation"]
"""Where a trial's student is measured: on validation alone while recipes are being chosen."""
_GRACE = 1.0
"""Seconds to wait for a trial that is held: another process may only look whether it is."""
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


class TrialHeldError(RunFolderError):
    """Another process works on the trial."""

    exit_code = 75


@dataclass(frozen=True)
class TrialOutcome:
    """How a trial ended; one that was interrupted has none, and goes on when it is started again.

    Attributes:
        status: "done", or "failed".
        seconds: of the session that ended it.
        started: time at which that session began, UTC.
        error: in one line; None where it is done.
        traceback: of the failure; None where it is done, or the process was killed.
        exit: what `stepdistill trial` exits with; of a killed process the negative signal.
        cost_usd: what the teacher's answers on the training examples cost; None where unknown.
        measured: "test", or "validation" where test has not been read.
    """

    status: Literal["done", "failed"]
    seconds: float
    started: str
    error: str | None = None
    traceback: str | None = None
    exit: int = 0
    cost_usd: float | None = None
    measured: Measured = "test"


def write_trial(trial: Trial, keep_students: bool = True, measure: Measured = "test") -> None:
    """Make the trial's folder, or bring its `trial.yaml` up to date; a finished trial is left alone.

    `measure` "validation" stops before test is read; written again with "test", the trial goes on to it.
    One whose `evaluate` section has changed is not finished any more: what is said of its predictions is made
    anew, and test is not read again.

    Raises:
        RunFolderError: the folder is another trial's, or cannot be written.
    """
    folder = trial.folder
    path, before = folder / FILE, None
    there: dict[str, Any] = {}
    if path.exists():
        before, there = read_text(path), read_yaml(path)
        if there.get("key") != trial.key:
            raise RunFolderError(f"{folder}: holds another trial; delete the folder, or choose another `out`")
    values = {
        "name": trial.name,
        "key": trial.key,
        "arm": trial.arm,
        "axes": dict(trial.axes),
        "keep_students": keep_students,
        "measure": measure,
        # Paths of a run file start from where the command is called.
        "base": os.getcwd(),
        "run": trial.config.plain(),
    }
    text = yaml.safe_dump(values, sort_keys=False)
    if text == before:
        return
    if is_done(folder, measure):
        if measure != "test" or _evaluate(there) == _evaluate(values):
            return
        (folder / OUTCOME).unlink()
    write_text(path, text)


def _evaluate(values: Mapping[str, Any]) -> Any:
    return (values.get("run") or {}).get("evaluate")


def read_outcome(folder: Path) -> TrialOutcome | None:
    """How the trial in a folder ended; None where it has not.

    Raises:
        DataError: `outcome.json` is damaged.
    """
    path = folder / OUTCOME
    if not path.exists():
        return None
    try:
        values = dict(json.loads(read_text(path)))
        values.setdefault("measured", "test")
        return TrialOutcome(**{name: values[name] for name in TrialOutcome.__dataclass_fields__})
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: damaged ({error}); delete it, and the trial is looked at again") from None


def is_done(folder: Path, measure: Measured = "test") -> bool:
    """Whether the trial in a folder is finished: trained, and measured on test, or on validation."""
    outcome = read_outcome(folder)
    if outcome is None or outcome.status != "done":
        return False
    return has_validation(folder) if measure == "validation" else outcome.measured == "test"


def is_held(folder: Path) -> bool:
    """Whether some process works in the folder at this moment."""
    try:
        handle = (folder / ".lock").open("a")
    except FileNotFoundError:
        return False
    with handle:
        try:
            # Shared: two that look do not take each other for one that works.
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def run_trial(folder: Path, watch: Watcher = unwatched, reopen: bool = False) -> TrialOutcome:
    """Run a trial to its end as `stepdistill run` runs a run file, and write `outcome.json`.

    Does nothing for one that is done; goes on where an interrupted or failed one was. A failure is
    returned, and not raised. An interruption is raised, and leaves no outcome.

    Args:
        folder: with the `trial.yaml` that `study` has written.
        watch: told of progress.
        reopen: read test also where it has been read for this trial and no result of it is here.

    Raises:
        DataError: the folder is no trial's.
        TrialHeldError: another process works on it.
    """
    folder = folder.expanduser().absolute()
    if not (folder / FILE).exists():
        raise DataError(f"{folder}: no trial's folder: it has no {FILE}; `stepdistill study FILE` makes them")
    with _held(folder):
        before, values = read_outcome(folder), read_yaml(folder / FILE)
        measure: Measured = values.get("measure", "test")
        if before is not None and is_done(folder, measure):
            return before
        # Where test has been read before, that stays true whatever is measured now.
        measured: Measured = "test" if is_done(folder) else measure
        if before is not None and before.status == "failed":
            (folder / OUTCOME).unlink()  # interrupted from here on, the trial has no outcome
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
        ended: dict[str, Any] = {"status": "done"}
        try:
            ended["cost_usd"] = _run(values, folder, watch, reopen)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong in a trial is its outcome
            ended = _failure(error)
        seconds = round(time.monotonic() - clock, 1)
        outcome = TrialOutcome(seconds=seconds, started=started, measured=measured, **ended)
        if outcome.status == "done" and measured == "test" and not values.get("keep_students", True):
            drop_weights(folder)
        write_json(folder / OUTCOME, asdict(outcome))
        return outcome


def note_killed(folder: Path, number: int, seconds: float, started: str) -> TrialOutcome | None:
    """Write the outcome of a trial whose process a signal has ended.

    None, and nothing is written, where another process works on it by now, or has finished it.
    """
    why = " (out of memory?)" if number == 9 else ""
    error = f"killed by signal {number}{why}; the last lines of {folder / LOG} may say more"
    outcome = TrialOutcome("failed", round(seconds, 1), started, error, None, -number)
    try:
        with lock(folder):
            before = read_outcome(folder)
            if before is not None and before.status == "done":
                return None
            write_json(folder / OUTCOME, asdict(outcome))
    except RunFolderError:
        if is_held(folder):
            return None
        raise
    return outcome


def drop_weights(folder: Path) -> None:
    """Delete the weights of a finished trial's students; what was measured and said of them stays."""
    for student in (folder / "students").glob("[!.]*"):
        for pattern in _WEIGHTS:
            for path in student.glob(pattern):
                path.unlink()


def _run(values: dict[str, Any], folder: Path, watch: Watcher, reopen: bool) -> float | None:
    base = Path(values["base"])
    if not base.is_dir():
        raise DataError(
            f"{folder / FILE}: its paths start from {base}, which is no folder here; start "
            "`stepdistill study` anew where they begin, or change `base`"
        )
    config = check(RunConfig, {**values["run"], "out": str(folder)}, f"{folder / FILE}: run")
    with contextlib.chdir(base):
        # Torch is imported here: what is wrong with the folder comes at once.
        from stepdistill.study.run import Run

        # A result that is here was measured: an interruption after it is no reason to read test again.
        reopen = reopen and values["arm"] not in RunFolder(folder).records()
        run = Run(config, watch, reopen=reopen)
        run.open(test=values.get("measure") != "validation")
        run.annotate()
        run.train()
        if values.get("measure") == "validation":
            measure_validation(run)
        else:
            run.evaluate()
        return cost_usd(run)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        end = time.monotonic() + _GRACE
        while True:
            try:
                stack.enter_context(lock(folder))
                break
            except RunFolderError as error:
                if time.monotonic() > end:
                    if is_held(folder):
                        busy = f"{folder}: another process works on this trial; wait for it"
                        raise TrialHeldError(busy) from None
                    raise error
                time.sleep(0.05)
        yield


def _failure(error: Exception) -> dict[str, Any]:
    code = error.exit_code if isinstance(error, StepdistillError) else 1
    line = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, StepdistillError):
        line = f"{type(error).__name__}: {line}"
    text = "".join(traceback.format_exception(error))
    return {"status": "failed", "error": line, "traceback": text, "exit": code}
