"""A trial is a folder and a command: it ends like a run, records its failure, and goes on after all else."""

from __future__ import annotations

import fcntl
import json
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies import RUN, small_study

from stepdistill.cli.main import main
from stepdistill.config import load_run
from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import lock, write_json
from stepdistill.records import unwatched
from stepdistill.study.grid import Trial, trials
from stepdistill.study.run import Run
from stepdistill.study.trial import (
    TrialHeldError,
    TrialOutcome,
    _held,
    drop_weights,
    is_done,
    is_held,
    note_killed,
    read_outcome,
    run_trial,
    write_trial,
)

pytestmark = pytest.mark.slow  # whole runs


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A trial whose folder is made and that has not begun."""
    (made,) = trials(small_study(tmp_path / "study"))
    write_trial(made)
    return made


def stamps(folder: Path) -> dict[str, int]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in paths}


def test_a_trial_ends_like_a_run_of_the_same_file_and_is_not_run_again(trial: Trial, tmp_path: Path) -> None:
    outcome = run_trial(trial.folder)
    assert (outcome.status, outcome.exit, outcome.error, outcome.cost_usd) == ("done", 0, None, 0.0)
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({**RUN, "methods": ["finetune"], "out": str(tmp_path / "run")}))
    run = Run(load_run(file), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()
    for name in ("results.jsonl", "predictions.jsonl", "annotations.jsonl"):
        assert (trial.folder / name).read_bytes() == (tmp_path / "run" / name).read_bytes()
    before = stamps(trial.folder)
    write_trial(trial)
    assert run_trial(trial.folder) == outcome
    assert stamps(trial.folder) == before


def test_an_interruption_is_no_failure_and_the_trial_goes_on(trial: Trial) -> None:
    def interrupt(what: str, done: int, total: int, note: str = "", /) -> None:
        if what.startswith("train"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_trial(trial.folder, interrupt)
    assert read_outcome(trial.folder) is None
    assert not is_held(trial.folder)
    read = (trial.folder / "annotations.jsonl").stat().st_mtime_ns
    assert run_trial(trial.folder).status == "done"
    assert (trial.folder / "annotations.jsonl").stat().st_mtime_ns == read


def test_a_changed_evaluation_is_written_anew_and_test_is_not_read_again(tmp_path: Path) -> None:
    run = write_task(tmp_path / "task")
    (trial,) = trials(small_study(tmp_path / "study", run))
    write_trial(trial)
    assert run_trial(trial.folder).status == "done"
    journal = (trial.folder.parent / "test_reads.jsonl").read_bytes()
    (sliced,) = trials(small_study(tmp_path / "study", {**run, "evaluate": {"slices": ["q"]}}))
    assert sliced.name == trial.name
    write_trial(sliced)
    assert not is_done(trial.folder)
    assert run_trial(trial.folder, reopen=True).error is None
    metrics = [json.loads(line) for line in (trial.folder / "metrics.jsonl").open()]
    assert [list(row["slices"]) for row in metrics] == [["q"]] * 2
    assert (trial.folder.parent / "test_reads.jsonl").read_bytes() == journal
    before = stamps(trial.folder)
    write_trial(sliced)
    assert stamps(trial.folder) == before


def test_another_task_file_is_another_experiment_for_the_journal(tmp_path: Path) -> None:
    run = write_task(tmp_path / "task")
    task = Path(run["task"])
    (trial,) = trials(small_study(tmp_path / "study", run))
    write_trial(trial)
    assert run_trial(trial.folder).status == "done"
    task.write_text(task.read_text().replace("Decide.", "Decide now."))
    (other,) = trials(small_study(tmp_path / "study", run))
    assert other.key != trial.key
    write_trial(other)
    outcome = run_trial(other.folder)
    assert outcome.error is None
    lines = (trial.folder.parent / "test_reads.jsonl").read_text().splitlines()
    assert [json.loads(line)["reopened"] for line in lines] == [False, False]


def write_task(home: Path) -> dict[str, Any]:
    """A task with recorded answers, as the sections of a run file."""
    home.mkdir()
    (home / "task.yaml").write_text(
        "name: tiny\ninstruction: Decide.\ninput: '{q}'\n"
        "answer: {kind: label, column: a, labels: [approve, ask]}\n"
        "data: {files: {train: train.jsonl, test: test.jsonl}}\n"
    )
    for split, n in (("train", 16), ("test", 4)):
        rows = [{"q": f"letter {i}", "a": ("approve", "ask")[i % 2]} for i in range(n)]
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        answers = [{"id": f"{split}-{i}", "rationale": "So it is.", "label": "ask"} for i in range(n)]
        (home / f"{split}-answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    completions = {split: str(home / f"{split}-answers.jsonl") for split in ("train", "test")}
    return {"task": str(home / "task.yaml"), "data": {}, "teacher": {"completions": completions}}


def test_who_only_looks_does_not_keep_a_trial_from_its_start(trial: Trial) -> None:
    (trial.folder / ".lock").touch()
    with (trial.folder / ".lock").open() as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)
        assert not is_held(trial.folder)
        threading.Timer(0.2, fcntl.flock, (handle.fileno(), fcntl.LOCK_UN)).start()
        with _held(trial.folder):
            assert is_held(trial.folder)


def test_a_killed_trial_that_another_process_works_on_or_has_done_is_left_alone(trial: Trial) -> None:
    with lock(trial.folder):
        assert note_killed(trial.folder, 9, 1.0, "2026-01-01T00:00:00+00:00") is None
    assert read_outcome(trial.folder) is None
    assert note_killed(trial.folder, 9, 1.0, "2026-01-01T00:00:00+00:00") == read_outcome(trial.folder)
    done = TrialOutcome("done", 1.0, "2026-01-01T00:00:00+00:00")
    write_json(trial.folder / "outcome.json", asdict(done))
    assert note_killed(trial.folder, 9, 1.0, "2026-01-01T00:00:00+00:00") is None
    assert read_outcome(trial.folder) == done


def test_a_failure_is_recorded_with_its_traceback_and_tried_again(tmp_path: Path) -> None:
    (good,) = trials(small_study(tmp_path / "study"))
    broken = replace(good, config=good.config.model_copy(update={"task": str(tmp_path / "gone.yaml")}))
    write_trial(broken)
    outcome = run_trial(good.folder)
    assert (outcome.status, outcome.exit) == ("failed", 2)
    assert "gone.yaml: no such file" in str(outcome.error)
    assert "Traceback" in str(outcome.traceback)
    assert read_outcome(good.folder) == outcome
    assert not is_done(good.folder)
    write_trial(good)
    assert run_trial(good.folder).status == "done"


def test_a_trial_that_another_process_works_on_is_left_alone(trial: Trial) -> None:
    assert not is_held(trial.folder)
    with lock(trial.folder):
        assert is_held(trial.folder)
        with pytest.raises(TrialHeldError, match="another process works on this trial"):
            run_trial(trial.folder)
    assert read_outcome(trial.folder) is None


def test_weights_can_go_when_all_is_measured(tmp_path: Path) -> None:
    (made,) = trials(small_study(tmp_path / "study"))
    write_trial(made, keep_students=False)
    assert run_trial(made.folder).status == "done"
    student = made.folder / "students" / "finetune"
    assert not list(made.folder.rglob("*.safetensors"))
    assert (student / "student.json").exists()
    drop_weights(made.folder)
    assert run_trial(made.folder).status == "done"


def test_a_folder_that_was_moved_runs_from_anywhere(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = tmp_path / "elsewhere"
    trial.folder.rename(moved)
    monkeypatch.chdir("/")
    monkeypatch.setattr("sys.argv", ["stepdistill", "trial", str(moved), "--quiet"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert is_done(moved)
    assert not trial.folder.exists()


def test_what_is_no_trial_is_told(tmp_path: Path, trial: Trial) -> None:
    with pytest.raises(DataError, match=r"has no trial.yaml"):
        run_trial(tmp_path)
    other = replace(trial, key="0" * 16)
    with pytest.raises(RunFolderError, match="holds another trial"):
        write_trial(other)
    (trial.folder / "outcome.json").write_text("{")
    with pytest.raises(DataError, match=r"outcome.json: damaged"):
        read_outcome(trial.folder)
