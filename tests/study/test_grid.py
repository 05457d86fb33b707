"""A grid is every experiment once, under a key that says what it is."""

from __future__ import annotations

import contextlib
import json
import random
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepdistill.config import StudyConfig
from stepdistill.errors import ConfigError, StepdistillError
from stepdistill.study.grid import Trial, arm_name, trials
from stepdistill.task.load import load_task, stream_examples

RUN: dict[str, Any] = {
    "task": "tiny.yaml",
    "data": {"limit": {"train": 24}},
    "teacher": {"backend": "simulated"},
    "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
    "train": {"epochs": 1, "threads": 1},
}
BIG = {"model": "scratch:", "scratch": {"d_model": 32, "d_ff": 16, "heads": 2, "layers": 1}}
METHODS = [
    "finetune",
    "distill",
    "step-by-step",
    "rationale-first",
    "step-by-step+none",
    "label-first+shuffled",
]
AXES: dict[str, list[Any]] = {
    "methods": METHODS,
    "fractions": [0.125, 0.25, 0.5, 1.0],
    "students": [RUN["student"], BIG],
    "teachers": [{"backend": "simulated"}, {"backend": "simulated", "error_rate": 0.5}],
    "lambdas": [0.5, 1.0, "auto"],
    "labels": ["gold", "teacher"],
    "rationales": ["teacher", "shuffled", "filler"],
    "seeds": [0, 1, 2],
}


TASK = """
name: tiny
instruction: Decide.
input: "{q}"
answer: {kind: label, column: a, labels: [approve, ask]}
data: {files: {train: train.jsonl, test: test.jsonl}}
"""


def write_task(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "tiny.yaml").write_text(TASK)
    for split, n in (("train", 32), ("test", 4)):
        rows = [{"q": f"letter {i}", "a": ("approve", "ask")[i % 2]} for i in range(n)]
        (home / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Relative paths of the runs start from a folder with a small task."""
    folder = tmp_path_factory.mktemp("home")
    write_task(folder)
    with contextlib.chdir(folder):
        yield folder


def study(grid: Mapping[str, Any], run: Mapping[str, Any] = RUN, **more: Any) -> StudyConfig:
    return StudyConfig.model_validate({"run": run, "grid": grid, "out": "runs/x", **more})


def changed(run: Mapping[str, Any], **sections: Mapping[str, Any]) -> dict[str, Any]:
    return {**run, **{name: {**run.get(name, {}), **values} for name, values in sections.items()}}


@st.composite
def grids(draw: st.DrawFn) -> dict[str, list[Any]]:
    grid: dict[str, list[Any]] = {}
    for axis, values in AXES.items():
        least = 1 if axis in ("methods", "seeds") else 0
        places = draw(st.sets(st.integers(0, len(values) - 1), min_size=least, max_size=2))
        grid[axis] = [values[place] for place in sorted(places)]
    return grid


FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])


def test_students_and_teachers_of_one_name_are_told_apart() -> None:
    wide = {"model": "scratch:", "scratch": {**RUN["student"]["scratch"], "d_ff": 48}}
    given = {"methods": ["finetune", "step-by-step"], "students": [RUN["student"], wide, BIG]}
    found = trials(study({**given, "teachers": AXES["teachers"]}))
    assert {trial.axes["student"] for trial in found} == {
        "scratch-16x1 d_ff=16",
        "scratch-16x1 d_ff=48",
        "scratch-32x1",
    }
    usual = found[0].config.teacher.error_rate
    assert {trial.axes["teacher"] for trial in found} == {
        None,
        f"simulated error_rate={usual}",
        "simulated error_rate=0.5",
    }
    assert len({repr(trial.axes) for trial in found}) == len(found)


@FEW
@given(grids(), st.randoms(use_true_random=False))
def test_the_order_of_lists_changes_neither_keys_nor_folders(
    grid: dict[str, list[Any]], chance: random.Random
) -> None:
    mixed = {axis: chance.sample(values, len(values)) for axis, values in grid.items()}
    first, second = trials(study(grid)), trials(study(mixed))
    assert {(t.key, t.name, t.arm) for t in first} == {(t.key, t.name, t.arm) for t in second}


@FEW
@given(grids())
def test_no_experiment_stands_there_twice_and_each_has_its_own_folder(grid: dict[str, list[Any]]) -> None:
    found = trials(study(grid))
    assert len({trial.key for trial in found}) == len(found)
    assert len({trial.config.out for trial in found}) == len(found)
    shown = {(repr(sorted(trial.config.identity().items())), trial.arm) for trial in found}
    assert len(shown) == len(found)
    for trial in found:
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,100}", trial.name)
        assert trial.name.endswith(trial.key[:8])
        assert trial.config.methods == (trial.arm,)
        assert Path(trial.config.out) == Path("runs/x/trials") / trial.name


@FEW
@given(grids())
def test_each_grid_of_a_list_adds_its_trials_and_repeats_none(grid: dict[str, list[Any]]) -> None:
    twice = StudyConfig.model_validate({"run": RUN, "grids": [grid, grid], "out": "runs/x"})
    assert trials(twice) == trials(study(grid))


def test_what_does_not_matter_to_an_arm_makes_no_second_training() -> None:
    found = trials(study({key: AXES[key] for key in AXES if key != "methods"} | {"methods": ["finetune"]}))
    # Seeds, fractions and students matter; teachers, lambdas, labels and sources do not.
    assert len(found) == 3 * 4 * 2
    assert {trial.axes["lambda"] for trial in found} == {None}
    assert {trial.config.train.lambda_ for trial in found} == {1.0}
    assert {trial.config.train.labels for trial in found} == {"gold"}
    assert {trial.config.teacher.error_rate for trial in found} == {0.25}


@pytest.mark.parametrize(
    ("method", "axis", "count"),
    [
        ("distill", "labels", 1),
        ("distill", "teachers", 2),
        ("distill", "lambdas", 1),
        ("distill", "rationales", 1),
        ("step-by-step", "labels", 2),
        ("step-by-step", "teachers", 2),
        ("step-by-step", "lambdas", 3),
        ("step-by-step", "rationales", 3),
        ("step-by-step+none", "lambdas", 1),
        ("step-by-step+none", "teachers", 1),
        ("step-by-step+shuffled", "rationales", 1),
        ("rationale-first", "lambdas", 1),
        ("rationale-input", "lambdas", 1),
    ],
)
def test_an_axis_multiplies_the_arms_to_which_it_matters(method: str, axis: str, count: int) -> None:
    grid = {"methods": [method], axis: AXES[axis]}
    assert len(trials(study(grid))) == count


def test_all_of_the_data_is_the_same_experiment_as_no_fraction() -> None:
    whole, part = trials(study({"methods": ["finetune"], "fractions": [1.0, 0.5], "seeds": [3]}))[::-1]
    assert (whole.config.data.fraction, whole.config.data.fraction_seed) == (None, None)
    assert (part.config.data.fraction, part.config.data.fraction_seed) == (0.5, 3)
    assert whole.key == trials(study({"methods": ["finetune"], "seeds": [3]}))[0].key


def test_the_fractions_of_a_seed_nest_and_those_of_another_are_others() -> None:
    found = trials(study({"methods": ["finetune"], "fractions": AXES["fractions"], "seeds": [0, 1]}))
    ids = {(t.axes["seed"], t.axes["fraction"]): ids_of(t) for t in found}
    for seed in (0, 1):
        parts = [ids[seed, fraction] for fraction in AXES["fractions"]]
        assert [len(part) for part in parts] == [3, 6, 12, 24]
        assert all(small < large for small, large in pairwise(parts))
    assert ids[0, 0.5] != ids[1, 0.5]


def ids_of(trial: Trial) -> set[str]:
    streams = stream_examples(load_task(trial.config.task), trial.config.data, ("train",))
    return {example.id for example in streams["train"]}


@pytest.mark.parametrize(
    "other",
    [
        changed(RUN, train={"epochs": 2}),
        changed(RUN, train={"learning_rate": 0.5}),
        changed(RUN, data={"limit": {"train": 23}}),
        changed(RUN, data={"limit": {"train": 24, "test": 2}}),
        changed(RUN, annotate={"splits": ["train"]}),
    ],
)
def test_another_experiment_has_another_key(other: dict[str, Any]) -> None:
    grid = {"methods": ["step-by-step", "finetune"]}
    assert keys(study(grid)).isdisjoint(keys(study(grid, other)))


@pytest.mark.parametrize(
    "same",
    [
        changed(RUN, train={"micro_batch_size": 4}),
        changed(RUN, train={"save_every": 7}),
        changed(RUN, annotate={"max_cost_usd": 3.0}),
        changed(RUN, train={"lambda": 1.0}),
    ],
)
def test_what_changes_no_result_changes_no_key(same: dict[str, Any]) -> None:
    grid = {"methods": ["step-by-step", "finetune"]}
    assert keys(study(grid)) == keys(study(grid, same)) == keys(study(grid, out="runs/y"))


def keys(config: StudyConfig) -> set[str]:
    return {trial.key for trial in trials(config)}


def test_the_key_is_what_a_task_file_says_and_not_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_task(tmp_path / name)
    grid, run = {"methods": ["finetune"]}, {**RUN, "data": {}}
    monkeypatch.chdir(tmp_path / "a")
    here = keys(study(grid, {**run, "task": "tiny.yaml"}))
    assert here == keys(study(grid, {**run, "task": str(tmp_path / "b" / "tiny.yaml")}))
    with (tmp_path / "b" / "train.jsonl").open("a") as file:
        file.write('{"q": "new", "a": "ask"}\n')
    assert here != keys(study(grid, {**run, "task": str(tmp_path / "b" / "tiny.yaml")}))


def test_a_source_that_is_the_studys_own_is_not_in_the_arms_name() -> None:
    config = study({"methods": ["step-by-step", "step-by-step+teacher", "step-by-step+shuffled"]})
    assert [trial.arm for trial in trials(config)] == ["step-by-step", "step-by-step+shuffled"]
    assert arm_name(config, "step-by-step+teacher") == "step-by-step"
    by_axis = study({"methods": ["step-by-step"], "rationales": ["shuffled", "teacher"]})
    assert keys(by_axis) == keys(config)


def test_set_of_a_grid_is_laid_over_the_run_and_may_not_take_what_the_study_sets() -> None:
    (trial,) = trials(study({"methods": ["finetune"], "set": {"train.epochs": 5}}))
    assert trial.config.train.epochs == 5
    with pytest.raises(ConfigError, match="a study sets it"):
        trials(study({"methods": ["finetune"], "set": {"seed": 5}}))


@pytest.mark.parametrize(
    ("grid", "said"),
    [
        ({"methods": ["fintune"]}, "did you mean 'finetune'"),
        ({"methods": ["finetune"], "set": {"train.epoch": 5}}, "did you mean 'epochs'"),
        ({"methods": ["finetune"], "tasks": ["clams"]}, "did you mean 'claims'"),
    ],
)
def test_mistakes_are_told_in_one_line(grid: dict[str, Any], said: str) -> None:
    with pytest.raises(StepdistillError, match=said):
        trials(study(grid))
