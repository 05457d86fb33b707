"""Trials side by side: what is done is never repeated, failures stay alone, and signals end all in order."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import psutil
import pytest
from studies import small_study, write_study

from stepdistill.config import StudyConfig
from stepdistill.files import lock, write_json
from stepdistill.study import runner
from stepdistill.study.estimate import Memory
from stepdistill.study.grid import trials
from stepdistill.study.runner import Manner, run_trials
from stepdistill.study.slots import Slot, cores_of_slots, open_slots, threads_of
from stepdistill.study.trial import TrialOutcome, is_done, read_outcome, run_trial, write_trial
from stepdistill.study.whole import check_study, open_study, run_study

COMMAND = [sys.executable, "-m", "stepdistill", "study"]


def stamps(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def facts(folder: Path) -> dict[str, bytes]:
    """What must be the same whatever happened on the way; seconds and rows with seconds are not."""
    names = ("results.jsonl", "predictions.jsonl", "annotations.jsonl", "*.safetensors", "metrics.jsonl")
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for name in names
        for path in (folder / "trials").rglob(name)
    }
    rows = [json.loads(line) for line in (folder / "results.jsonl").open()]
    free = ("train_seconds", "predict_seconds", "peak_memory_mb")
    kept = [{key: value for key, value in row.items() if key not in free} for row in rows]
    return {**found, "rows": json.dumps(kept).encode()}


@pytest.fixture
def children() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `stepdistill study` beside the test; none of its processes outlives it."""
    started: list[subprocess.Popen[str]] = []

    def start(file: Path, *flags: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, str(file), "--quiet", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell starts background jobs with SIGINT ignored, and that is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def wait_for(holds: Callable[[], Any], seconds: float = 90) -> Any:
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return found


def working_on(folder: Path) -> list[psutil.Process]:
    """Processes that have a trial's log open: the forks that run it."""
    found = []
    for process in psutil.process_iter():
        try:
            target = os.readlink(f"/proc/{process.pid}/fd/1")
        except OSError:
            continue
        if target == str(folder / "log.txt"):
            found.append(process)
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """A study that has ended: two methods, undisturbed, in the order of their trials."""
    study = small_study(
        tmp_path_factory.mktemp("undisturbed") / "study",
        {"train": {"steps": 6, "batch_size": 4, "threads": 1, "save_every": 2}},
        methods=["finetune", "step-by-step"],
        fractions=[0.5],
    )
    found = check_study(study)
    open_study(study, found)
    done = run_study(study, found, Manner())
    assert (len(done.trials), done.failures, len(done.rows)) == (2, [], 3)
    return study


@pytest.mark.slow
def test_finished_trials_are_never_run_again(finished: StudyConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a process is started")

    before = stamps(Path(finished.out))
    monkeypatch.setattr(subprocess, "Popen", refuse)
    assert run_trials(trials(finished), Manner(jobs=2)) == []
    assert stamps(Path(finished.out)) == before


@pytest.mark.slow
def test_a_trial_of_a_study_is_what_the_trial_command_makes(finished: StudyConfig, tmp_path: Path) -> None:
    (alone,) = [
        trial
        for trial in trials(finished.model_copy(update={"out": str(tmp_path)}))
        if trial.arm == "step-by-step"
    ]
    write_trial(alone)
    run_trial(alone.folder)
    for name in ("results.jsonl", "predictions.jsonl", "students/step-by-step/model.safetensors"):
        assert (alone.folder / name).read_bytes() == (
            Path(finished.out) / "trials" / alone.name / name
        ).read_bytes()


@pytest.mark.slow
def test_killed_at_any_moment_and_started_again_a_study_ends_the_same(
    finished: StudyConfig, tmp_path: Path, children: Any
) -> None:
    study = finished.model_copy(update={"out": str(tmp_path / "killed")})
    file, chance, kills = write_study(tmp_path / "study.yaml", study), random.Random(5), 0
    for _ in range(30):
        process = children(file, "--jobs", "2")
        try:
            _, error = process.communicate(timeout=chance.uniform(3, 9) if kills < 2 else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills += 1
            for trial in trials(study):
                # Of the study alone a trial survives; here it is killed too, most of the time.
                for one in working_on(trial.folder) if chance.random() < 0.8 else []:
                    one.kill()
            continue
        if process.returncode == 0:
            break
        # A trial that was killed while the next session waited for it is a failure, tried again.
        assert "killed by signal 9" in error
    assert kills
    assert facts(Path(study.out)) == facts(Path(finished.out))


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_ends_all_in_order_and_is_no_failure(
    tmp_path: Path, children: Any, sent: signal.Signals, code: int
) -> None:
    study = small_study(
        tmp_path / "study", {"train": {"epochs": 100_000, "batch_size": 8, "threads": 1, "patience": 10_000}}
    )
    (trial,) = trials(study)
    process = children(write_study(tmp_path / "study.yaml", study))
    wait_for(
        lambda: (trial.folder / "log.txt").exists() and "train" in (trial.folder / "log.txt").read_text()
    )
    (fork,) = working_on(trial.folder)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code
    note, said = error.splitlines()  # which two are compared was chosen, since the file names none
    assert note.startswith("Note: ")
    assert "Run the same command to go on" in said
    assert not psutil.pid_exists(fork.pid)
    assert read_outcome(trial.folder) is None


@pytest.mark.slow
def test_failures_are_told_apart_from_the_rest_which_goes_on(tmp_path: Path, children: Any) -> None:
    study = small_study(
        tmp_path / "study",
        students=[
            {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
            {"model": str(tmp_path / "no_such_student")},
            {"model": "scratch:", "scratch": {"d_model": 24, "d_ff": 16, "heads": 2, "layers": 1}},
        ],
    )
    (tmp_path / "no_such_student").mkdir()
    first, broken, killed = trials(study)
    process = children(write_study(tmp_path / "study.yaml", study), "--json")
    wait_for(lambda: working_on(killed.folder))
    for one in working_on(killed.folder):
        one.kill()
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    told = {failure["trial"]: failure for failure in json.loads(out)["failed"]}
    assert told.keys() == {broken.name, killed.name}
    assert "cannot be loaded" in told[broken.name]["error"]
    assert "Traceback" in Path(told[broken.name]["where"]).read_text()
    assert "killed by signal 9 (out of memory?)" in told[killed.name]["error"]
    assert is_done(first.folder)
    # The next time they are tried again, and what is mended is done.
    assert run_trials([first, killed], Manner()) == []
    assert is_done(killed.folder)


def test_what_another_process_works_on_is_waited_for_and_not_run_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trial,) = trials(small_study(tmp_path / "study"))
    write_trial(trial)
    monkeypatch.setattr(runner, "_LOOK", 0.05)
    # With nothing left to do there is nothing to wait for: so long a sleep would be an error.
    monkeypatch.setattr(runner, "_SHOW", float("inf"))
    shown: list[str] = []
    other = contextlib.ExitStack()
    other.enter_context(lock(trial.folder))

    def watch(what: str, done: int, total: int, note: str = "", /) -> None:
        shown.append(f"{done} of {total}, {note}")
        if len(shown) == 3:  # the other process ends its work
            outcome = TrialOutcome("done", 1.0, "2026-01-01T00:00:00+00:00")
            write_json(trial.folder / "outcome.json", asdict(outcome))
            other.close()

    assert run_trials([trial], Manner(watch=watch)) == []
    assert shown[:3] == ["0 of 1, 0 running, 1 elsewhere"] * 3
    assert shown[-1] == "1 of 1, "
    assert not (trial.folder / "log.txt").exists()


@pytest.mark.parametrize(
    ("told", "again"), [({}, True), ({"pid": 1}, False), ({"pid": 1, "code": 143}, True)]
)
def test_a_trial_that_was_not_begun_or_was_ended_in_order_is_put_back_not_for_ever(
    tmp_path: Path, told: dict[str, int], again: bool
) -> None:
    (trial,) = trials(small_study(tmp_path / "study"))
    write_trial(trial)
    shop = runner._Shop(Manner(), [trial], [trial])
    for _ in range(runner._AGAIN):
        shop._waiting.clear()
        shop._judge(trial, told.get("code", 1), Slot([0], pid=told.get("pid", 0)))
        assert (list(shop._waiting), list(shop.failures)) == (([trial], []) if again else ([], [trial.name]))
    shop._judge(trial, told.get("code", 1), Slot([0], pid=told.get("pid", 0)))
    assert list(shop.failures) == [trial.name]


def test_a_second_interruption_while_the_first_is_passed_on_leaves_nothing_running() -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    sleeper.send_signal = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt), open_slots(1) as slots:
        slots[0] = replace(slots[0], process=sleeper, trial=cast(Any, "a trial"))
    assert sleeper.poll() == -signal.SIGKILL


def test_each_slot_has_cores_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 4, 5, 6}, raising=False)
    assert cores_of_slots(1) == [[2, 3, 4, 5, 6]]
    assert cores_of_slots(2) == [[2, 3], [4, 5, 6]]
    assert cores_of_slots(5) == [[2], [3], [4], [5], [6]]
    assert cores_of_slots(7) == [[2], [3], [4], [5], [6], [2], [3]]
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert [threads_of([1]), threads_of([1, 2, 3])] == [1, 2]
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads_of([1, 2, 3]) == 3


def test_another_trial_starts_only_where_there_is_memory_and_one_always_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = trials(small_study(tmp_path / "study", seeds=[0, 1]))
    shop = runner._Shop(Manner(jobs=2), [first, second], [first, second])
    needed = Memory().needed(second)
    with open_slots(2) as slots:
        monkeypatch.setattr(runner, "available_memory", lambda: 0)
        assert shop._fits(first, slots)
        slots[0].trial = first
        # The one that runs has not grown yet: its memory is spoken for.
        monkeypatch.setattr(runner, "available_memory", lambda: 2 * needed - 1)
        assert not shop._fits(second, slots)
        monkeypatch.setattr(runner, "available_memory", lambda: 2 * needed)
        assert shop._fits(second, slots)
        slots[0].trial = None
