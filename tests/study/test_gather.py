"""Rows of results are gathered from the folders that are finished, of a study and of a single run."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
from studies import small_study

from stepdistill.config import StudyConfig
from stepdistill.errors import DataError
from stepdistill.files import read_jsonl, write_jsonl
from stepdistill.study.comparisons import compare_rows
from stepdistill.study.gather import gather, write_gathered
from stepdistill.study.grid import Trial, trials
from stepdistill.study.results import ResultRow, read_results
from stepdistill.study.trial import run_trial, write_trial
from stepdistill.study.whole import open_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyConfig:
    """Two arms, done; a third trial whose folder is made and no more."""
    config = small_study(
        tmp_path_factory.mktemp("gather") / "study",
        methods=["finetune", "step-by-step"],
        fractions=[0.5, 1.0],
    )
    found = trials(config)
    open_study(config, found)
    for trial in done(config):
        assert run_trial(trial.folder).status == "done"
    return config


def done(config: StudyConfig) -> list[Trial]:
    places = [("finetune", 1.0), ("step-by-step", 0.5)]
    return [trial for trial in trials(config) if (trial.arm, trial.axes["fraction"]) in places]


def test_rows_say_where_they_stand_what_came_out_and_what_it_took(study: StudyConfig) -> None:
    folder = Path(study.out)
    teacher, finetune, method = gather(folder)
    half, whole = done(study)
    assert [row.name for row in (teacher, finetune, method)] == ["teacher", "finetune", "step-by-step"]
    assert (finetune.trial, method.trial) == (whole.name, half.name)
    assert (finetune.fraction, finetune.n_train, method.fraction, method.n_train) == (1.0, 24, 0.5, 12)
    assert (finetune.lambda_, method.lambda_, finetune.rationales, method.rationales) == (
        None,
        1.0,
        None,
        "teacher",
    )
    assert (finetune.labels, method.labels, method.teacher) == ("gold", "gold", "simulated")
    assert (finetune.student, finetune.seed, finetune.cost_usd) == ("scratch-16x1", 0, 0.0)
    # Half of the texts give a smaller vocabulary; it is one student all the same.
    made = [read_jsonl(trial.folder / "results.jsonl")[-1]["parameters"] for trial in (whole, half)]
    assert made[1] < made[0] == finetune.parameters == method.parameters
    assert method.train_seconds is not None
    assert method.peak_memory_mb
    assert finetune.test == method.test == teacher.test
    for row in (teacher, finetune, method):
        assert row.n == len(row.outcomes) == 12
        assert row.value == row.outcomes.count("1") / 12
    of_students = (
        "student",
        "fraction",
        "seed",
        "n_train",
        "lambda_",
        "cost_usd",
        "validation",
        "parameters",
    )
    assert {getattr(teacher, key) for key in of_students} == {None}


def test_rows_are_written_and_read_again_as_they_are(study: StudyConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    rows = write_gathered(copy)
    assert read_results(copy / "results.jsonl") == rows == gather(Path(study.out))


def test_a_run_folder_gives_the_rows_of_its_trial(study: StudyConfig) -> None:
    (row,) = [row for row in gather(Path(study.out)) if row.name == "step-by-step"]
    teacher, alone = gather(Path(study.out) / "trials" / row.trial)
    assert teacher.trial == alone.trial == "."
    assert different(row, alone) == {"trial", "parameters"}  # of a study the largest


def different(first: ResultRow, second: ResultRow) -> set[str]:
    one, other = asdict(first), asdict(second)
    return {key for key in one if one[key] != other[key]}


def test_the_teacher_has_one_row_for_each_test_set(study: StudyConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (row,) = [row for row in gather(copy) if row.name == "step-by-step"]
    test = copy / "trials" / row.trial / "test.jsonl"
    rows = read_jsonl(test)
    write_jsonl(test, [{**one, "columns": {"day": "Monday"}, "rationale": "because"} for one in rows])
    assert gather(copy) == gather(Path(study.out))
    for key in ("example_id", "text", "gold", "options"):
        write_jsonl(test, [*rows[1:], {**rows[0], key: "another"}])
        assert [row.name for row in gather(copy)] == ["teacher", "teacher", "finetune", "step-by-step"]


def test_a_teacher_whose_answers_differ_by_seed_has_a_row_for_each(
    study: StudyConfig, tmp_path: Path
) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (before,) = [row for row in gather(copy) if row.name == "teacher"]
    assert before.seed is None
    (row,) = [row for row in gather(copy) if row.name == "step-by-step"]
    results = copy / "trials" / row.trial / "results.jsonl"
    records = [{**record, "seed": 1} for record in read_jsonl(results)]
    write_jsonl(results, records)
    assert [row.seed for row in gather(copy) if row.name == "teacher"] == [None]
    card = next(record for record in records if record["name"] == "teacher")["scorecard"]
    card["outcomes"] = other = "".join("10"[int(one)] for one in card["outcomes"])
    write_jsonl(results, records)
    rows = gather(copy)
    teachers = {row.seed: row.outcomes for row in rows if row.name == "teacher"}
    assert teachers == {0: before.outcomes, 1: other}
    (found,) = compare_rows(rows, "step-by-step", "teacher")
    assert (found.seeds, found.outcomes[0]) == ((1,), (other,))
    (found,) = compare_rows(rows, "finetune", "teacher")
    assert (found.seeds, found.outcomes[0]) == ((0,), (before.outcomes,))


def test_teachers_and_students_that_differ_in_more_than_their_names_are_told_apart(
    study: StudyConfig, tmp_path: Path
) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (row,) = [row for row in gather(copy) if row.name == "step-by-step"]
    mark = copy / "trials" / row.trial / "run.json"
    values = json.loads(mark.read_text())
    mark.write_text(json.dumps({**values, "teacher.error_rate": 0.5, "student.scratch.d_ff": 48}))
    teacher, other, finetune, method = gather(copy)
    assert [finetune.student, method.student] == ["scratch-16x1 d_ff=16", "scratch-16x1 d_ff=48"]
    rate = values["teacher.error_rate"]
    assert [finetune.teacher, method.teacher] == [f"simulated error_rate={rate}", "simulated error_rate=0.5"]
    assert {teacher.teacher, other.teacher} == {finetune.teacher, method.teacher}


@pytest.mark.parametrize("names", ["{", "{}", '["../elsewhere"]', "[1]", '["/tmp"]'])
def test_a_damaged_index_is_told(study: StudyConfig, tmp_path: Path, names: str) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (copy / "trials" / "index.json").write_text(names)
    with pytest.raises(DataError, match=r"index\.json: damaged"):
        gather(copy)


@pytest.mark.parametrize("name", ["run.json", "timings.json"])
def test_damaged_files_of_a_trial_are_told(study: StudyConfig, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (copy / "trials" / done(study)[0].name / name).write_text("{")
    with pytest.raises(DataError, match=name):
        gather(copy)


def test_what_failed_is_unfinished_or_of_an_earlier_grid_gives_no_row(
    study: StudyConfig, tmp_path: Path
) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    first, second = done(study)
    (copy / "trials" / first.name / "outcome.json").unlink()
    assert {row.trial for row in gather(copy)} == {second.name}
    index = copy / "trials" / "index.json"
    index.write_text(json.dumps([name for name in json.loads(index.read_text()) if name != second.name]))
    with pytest.raises(DataError, match="no trial is finished yet"):
        gather(copy)


def test_what_an_earlier_version_has_left_out_is_told(study: StudyConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    (copy / "trials" / done(study)[0].name / "test.jsonl").unlink()
    with pytest.raises(DataError, match=r"has no test.jsonl.*start it again"):
        gather(copy)


def test_another_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="neither a study nor a finished run"):
        gather(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        gather(tmp_path / "nowhere")


def test_a_grid_that_has_grown_keeps_what_is_finished(study: StudyConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(study.out, tmp_path / "copy")
    grown = small_study(copy, methods=["finetune", "step-by-step"], fractions=[0.25, 0.5, 1.0], seeds=[0, 1])
    open_study(grown, trials(grown))
    assert [row.name for row in gather(copy)] == ["teacher", "finetune", "step-by-step"]
    for trial in trials(grown):
        write_trial(trial)
