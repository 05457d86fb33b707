"""The run files that users copy: each is read as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from stepdistill.config import load_run, load_study
from stepdistill.student.methods import find_arm
from stepdistill.study.whole import check_study
from stepdistill.task.load import load_task

FILES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.yaml"))
STUDIES = [path for path in FILES if path.stem.endswith("-study")]
EXAMPLES = [path for path in FILES if path not in STUDIES]


def test_there_are_examples() -> None:
    assert "quickstart.yaml" in {path.name for path in EXAMPLES}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_run_of_known_arms_on_a_known_task(path: Path) -> None:
    run = load_run(path)
    assert [find_arm(name, run.train.rationales).name for name in run.methods] == list(run.methods)
    assert load_task(run.task).spec.name == run.task
    # What two files left in one folder would be one run, or a refusal.
    assert run.out == f"runs/{path.stem}"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.name)
def test_an_example_of_a_study_compares_what_is_in_its_grid(path: Path) -> None:
    study = load_study(path)
    arms = {trial.arm for trial in check_study(study)}
    assert {study.method, study.against} <= arms
    assert study.out == f"runs/{path.stem}"
    for trial in check_study(study):
        assert trial.config.train.threads == 1  # the same figures with any number of jobs
