"""`find`: grids it refuses before any work, and whole searches with tiny students."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from stepdistill.config import StudyConfig, check
from stepdistill.errors import ConfigError, DataError, RunFolderError
from stepdistill.study.contestants import contestants
from stepdistill.study.folder import RunFolder
from stepdistill.study.grid import Trial, trials
from stepdistill.study.minimum import MINIMUM, Certificate, RunTrials, find
from stepdistill.study.seen import FILE as READS
from stepdistill.study.trial import Measured, run_trial, write_trial

SMALL = {
    "model": "scratch:",
    "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1, "vocabulary": 64},
}
LARGE = {
    "model": "scratch:",
    "scratch": {"d_model": 24, "d_ff": 16, "heads": 2, "layers": 1, "vocabulary": 64},
}
TASK = """
name: boxes
instruction: Say which box it is.
input: "{text}"
id: id
answer: {kind: label, column: gold, labels: [red, blue]}
data: {files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
demonstrations: []
"""
SIZES = {"train": 24, "validation": 40, "test": 30}
STUDY: dict[str, Any] = {
    "run": {
        "teacher": {"backend": "recorded"},
        "annotate": {"splits": ["train", "validation", "test"]},
        "train": {"steps": 1, "batch_size": 8, "threads": 1},
    },
    "grid": {
        "methods": ["finetune", "step-by-step"],
        "fractions": [0.5, 1.0],
        "students": [LARGE, SMALL],
        "seeds": [0],
    },
    "minimum": {"target": "finetune", "margin": 0.9},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of two labels, and a teacher that is always right."""
    home = tmp_path_factory.mktemp("boxes")
    (home / "task.yaml").write_text(TASK)
    for split, size in SIZES.items():
        gold = ["red" if number % 2 else "blue" for number in range(size)]
        rows = [{"id": f"{split}{i}", "text": f"Box {i} is {g}.", "gold": g} for i, g in enumerate(gold)]
        said = [{"id": row["id"], "completion": f"I see it. So the answer is {row['gold']}."} for row in rows]
        (home / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (home / f"{split}.said.jsonl").write_text("\n".join(map(json.dumps, said)))
    return home


def study(data: Path, out: Path, **changed: Any) -> StudyConfig:
    """The study with dotted keys changed (`__` for the dot); None takes a key away."""
    values = deepcopy(STUDY) | {"out": str(out)}
    values["run"]["task"] = str(data / "task.yaml")
    values["run"]["teacher"]["completions"] = {split: str(data / f"{split}.said.jsonl") for split in SIZES}
    for key, value in changed.items():
        *outer, last = key.split("__")
        place = values
        for part in outer:
            place = place.setdefault(part, {})
        if value is None:
            place.pop(last, None)
        else:
            place[last] = value
    return check(StudyConfig, values, "study")


class Runner:
    """Runs trials here, and notes which were run, and measured on what."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Measured]] = []

    def __call__(self, trials: Sequence[Trial], measure: Measured) -> None:
        for trial in trials:
            self.ran.append((trial.name, measure))
            write_trial(trial, measure=measure)
            run_trial(trial.folder)


def search(config: StudyConfig, runner: RunTrials) -> Certificate:
    """As `study --minimum` does it."""
    return find(config, runner, contestants(config, trials(config)))


def nobody(trials: Sequence[Trial], measure: Measured) -> None:
    raise AssertionError("nothing was to be run")


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"minimum__method": "stp-by-step"}, ["unknown method 'stp-by-step'", "did you mean"]),
        ({"minimum__method": "distill"}, ["minimum.method", "'distill'", "grid.methods"]),
        ({"minimum__target": "distill"}, ["minimum.target", "'distill'", "grid.methods"]),
        ({"minimum__target": "step-by-step"}, ["both 'step-by-step'"]),
        ({"grid__fractions": [0.25, 0.5]}, ["'finetune' on all the data", "add 1 to grid.fractions"]),
        ({"grid__lambdas": [0.5, 1.0]}, ["varies train.lambda", "one value"]),
        ({"minimum__target": "teacher", "run__annotate": None}, ["annotate.splits: [train, val", "on: test"]),
        (
            {"minimum__target": "teacher", "run__annotate__splits": ["train"], "minimum__on": "test"},
            ["not asked on test", "annotate.splits"],
        ),
    ],
)
def test_a_grid_in_which_the_answer_cannot_lie_is_refused_before_any_work(
    data: Path, tmp_path: Path, changed: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        search(study(data, tmp_path / "out", **changed), nobody)
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_what_decides_is_validation_or_test(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"minimum.on.*test, validation"):
        study(data, tmp_path, minimum__on="train")


@pytest.fixture(scope="module")
def searched(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyConfig, Certificate, Runner]:
    """A search that ends: with nine tenths of all accuracy allowed, any student is as good as another."""
    config, runner = study(data, tmp_path_factory.mktemp("minimum") / "out"), Runner()
    return config, search(config, runner), runner


@pytest.mark.slow
def test_the_least_is_found_and_said(searched: tuple[StudyConfig, Certificate, Runner]) -> None:
    config, found, _ = searched
    small, large = found.students
    assert small.parameters < large.parameters
    assert (small.student, large.student) == ("scratch-16x1", "scratch-24x1")
    assert found.target_student == large.student
    for one in found.students:
        assert (one.verdict, one.fraction, one.n_train, one.n) == ("reached", 0.5, 12, 40)
        assert [(p.fraction, len(p.looks), len(p.trials)) for p in one.probes] == [(1.0, 1, 1), (0.5, 1, 1)]
        assert one.inferred == {}
        assert one.test is not None
        assert (one.test.n, one.test.look.seeds, one.test.confidence) == (30, 1, 0.975)
    assert found.looks == found.planned_looks == 2 * 2
    assert found.look_confidence == pytest.approx(1 - 0.05 / 4)
    assert "One seed: nothing is said of other seeds." in found.notes
    written = json.loads((Path(config.out) / MINIMUM).read_text())
    assert [one["fraction"] for one in written["students"]] == [0.5, 0.5]
    sentence = found.sentences[0]
    assert written["sentences"][0] == sentence
    assert sentence.startswith(
        "step-by-step with scratch-16x1 reaches the accuracy of finetune with scratch-24x1"
    )
    assert "50 % of the data (12 examples)" in sentence
    assert "on 40 validation examples (90 points below is still as good)" in sentence
    assert "no smaller part is in the grid. On 30 test examples, read once" in sentence


@pytest.mark.slow
def test_test_is_read_for_what_was_chosen_alone(searched: tuple[StudyConfig, Certificate, Runner]) -> None:
    config, found, runner = searched
    assert len(runner.ran) == len(set(runner.ran))
    read = {name for name, measure in runner.ran if measure == "test"}
    chosen = {name for one in found.students for name in one.probes[-1].trials}
    (target,) = {name for name, _ in runner.ran if name.startswith("boxes-finetune")}
    assert read == {*chosen, target}
    folders = list((Path(config.out) / "trials").glob("boxes-*"))
    assert len(folders) == 5
    for folder in folders:
        assert bool(RunFolder(folder).records()) == (folder.name in read)


@pytest.mark.slow
def test_a_second_search_runs_nothing_and_finds_the_same(
    searched: tuple[StudyConfig, Certificate, Runner],
) -> None:
    config, found, _ = searched
    assert search(config, nobody) == found


@pytest.mark.slow
def test_what_was_read_of_test_before_the_search_is_said(
    data: Path, searched: tuple[StudyConfig, Certificate, Runner], tmp_path: Path
) -> None:
    config, found, runner = searched
    assert found.read_before == ()
    assert "Validation chose; test was read for what it chose alone, once." in found.notes
    read = sorted({name for name, measure in runner.ran if measure == "test"})
    out = tmp_path / "out"
    shutil.copytree(config.out, out)
    # Another margin is another search, that could have been set by what the first one has read.
    again = search(study(data, out, minimum__margin=0.89), nobody)
    assert list(again.read_before) == read
    assert any(f"test had been read for {len(read)} of these 6 trials" in note for note in again.notes)
    assert not any("once" in text for text in (*again.notes, *again.sentences))
    # It is not forgotten when that search is called again, nor by the first one.
    assert search(study(data, out, minimum__margin=0.89), nobody) == again
    assert list(search(study(data, out), nobody).read_before) == read


@pytest.mark.slow
def test_an_interrupted_search_knows_its_own_readings_and_those_that_were_repeated(
    data: Path, searched: tuple[StudyConfig, Certificate, Runner], tmp_path: Path
) -> None:
    config, _, _ = searched
    out = tmp_path / "out"
    shutil.copytree(config.out, out)
    (out / MINIMUM).unlink()
    assert search(study(data, out), nobody).read_before == ()
    results = next(iter((out / "trials").glob("boxes-finetune*/results.jsonl")))
    rows = [json.loads(line) | {"reopened": 1} for line in results.read_text().splitlines()]
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert search(study(data, out), nobody).read_before == (results.parent.name,)
    (out / READS).write_text("{}")
    with pytest.raises(DataError, match=r"damaged.*delete it"):
        search(study(data, out), nobody)


@pytest.mark.slow
def test_an_unreachable_teacher_is_not_reached_and_costs_no_test(data: Path, tmp_path: Path) -> None:
    changed = {"grid__students": [SMALL], "minimum": {"target": "teacher"}}
    runner = Runner()
    found = search(study(data, tmp_path / "out", **changed), runner)
    (one,) = found.students
    assert (one.verdict, one.fraction, one.test) == ("not reached", None, None)
    assert [(p.fraction, p.decision) for p in one.probes] == [(1.0, "abandoned")]
    assert (one.inferred, one.target_accuracy) == ({"0.5": "not reached"}, 1.0)
    assert [measure for _, measure in runner.ran] == ["validation"]
    assert "does not reach the teacher's accuracy (100 %), not with 100 %" in found.sentences[0]
    assert "Nothing was chosen, so test was not read." in found.notes
    # On test itself, the trial goes on from where it is, and the certificate says so.
    changed["minimum"] = {"target": "teacher", "on": "test"}
    again = search(study(data, tmp_path / "out", **changed), runner)
    assert (again.students[0].verdict, again.students[0].n) == ("not reached", 30)
    assert any("no examples are left" in note for note in again.notes)


@pytest.mark.slow
def test_a_trial_that_fails_ends_the_search_in_one_line(data: Path, tmp_path: Path) -> None:
    def fails(trials: Sequence[Trial], measure: Measured) -> None:
        for trial in trials:
            write_trial(trial, measure=measure)
            (trial.folder / "run.json").write_text('{"task": "another"}')
            (trial.folder / "annotations.jsonl").write_text("")
            run_trial(trial.folder)

    with pytest.raises(RunFolderError, match=r"another configuration.*run the same command again") as failed:
        search(study(data, tmp_path / "out", grid__students=[SMALL]), fails)
    assert "\n" not in str(failed.value)
