"""A trial is a folder and a command: it ends like a run, records its failure, and goes on after all else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from studies import RUN, small_study

from stepdistill.cli.main import main
from stepdistill.config import load_run
from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import lock
from stepdistill.records import unwatched
from stepdistill.study.grid import Trial, trials
from stepdistill.study.run import Run
from stepdistill.study.trial import (
    TrialHeldError,
    drop_weights,
    is_done,
    is_held,
    read_outcome,
    run_trial,
    write_trial,
)


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
