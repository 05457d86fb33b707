"""A run's arms: refused before any work where they cannot be, and told apart in files and tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import stepdistill
from stepdistill.cli.table import show
from stepdistill.config import load_run
from stepdistill.errors import ConfigError
from stepdistill.records import Target, unwatched
from stepdistill.student.methods import find_arm
from stepdistill.student.model import new_student
from stepdistill.student.rationales import FILLERS
from stepdistill.study.job import Job
from stepdistill.study.run import Run

ROWS = [
    {"text": f"letter {i} about {what}", "team": team, "why": f"since {what} is named"}
    for i, (what, team) in enumerate([("a bill", "billing"), ("a crash", "technical")] * 8)
]
TASK = {
    "name": "teams",
    "instruction": "Choose a team.",
    "input": "{text}",
    "answer": {
        "kind": "label",
        "column": "team",
        "rationale": "why",
        "labels": ["billing", "technical", "other"],
    },
    "data": {"files": {"train": "train.jsonl", "test": "test.jsonl"}},
}
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A run file on a tiny task whose every example the teacher has answered; the task or keys changed."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)

    def maker(task: dict[str, Any] | None = None, **changes: Any) -> Path:
        for split in ("train", "test"):
            (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
            answers = [
                {"id": f"{split}-{i}", "rationale": f"It is case {i}.", "label": row["team"]}
                for i, row in enumerate(ROWS)
            ]
            (tmp_path / f"{split}-answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(task or TASK))
        run = {
            "task": str(tmp_path / "task.yaml"),
            "teacher": {"completions": {s: str(tmp_path / f"{s}-answers.jsonl") for s in ("train", "test")}},
            "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
            "train": {"epochs": 1, "batch_size": 8, "threads": 1},
            "out": str(tmp_path / "out"),
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(run | changes))
        return tmp_path / "run.yaml"

    return maker


def job(file: Path) -> Job:
    return Job(load_run(file), unwatched)


def finished(file: Path) -> Run:
    """A whole run."""
    run = Run(load_run(file), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()
    return run


def test_a_teacher_that_was_not_asked_cannot_help_when_it_is_measured(make: Make) -> None:
    file = make(methods=["rationale-input"], annotate={"splits": ["train"]})
    with pytest.raises(ConfigError, match=r"annotate\.splits lacks test; add it, or give train\.test_rat"):
        job(file).check()


@pytest.mark.parametrize(
    "change", [{"train": {"test_rationales": "student"}}, {"methods": ["rationale-input+human"]}]
)
def test_rationales_that_are_not_the_teachers_need_no_answers_of_it(
    make: Make, change: dict[str, Any]
) -> None:
    job(make(**{"methods": ["rationale-input"], "annotate": {"splits": ["train"]}} | change)).check()


def test_human_rationales_need_a_column(make: Make) -> None:
    task = TASK | {"answer": {key: value for key, value in TASK["answer"].items() if key != "rationale"}}
    with pytest.raises(ConfigError, match=r"name their column as `answer\.rationale`"):
        job(make(task, methods=["step-by-step+human"])).check()


def test_one_arm_under_two_names_is_refused(make: Make) -> None:
    names = ["step-by-step", "step-by-step+filler"]
    assert [arm.source for arm in job(make(methods=names)).methods] == ["teacher", "filler"]
    with pytest.raises(ConfigError, match="are the same arm"):
        job(make(methods=names, train={"rationales": "filler"})).check()


def targets(file: Path, name: str) -> list[list[Target]]:
    """What an arm of a run whose teacher has been read would be trained on."""
    run = Run(load_run(file), unwatched)
    if not run.folder.annotations.exists():
        run.open()
        run.annotate()
    student = new_student(run.config.student, 0, run.matter.texts())
    return list(run.matter.targets(find_arm(name, run.config.train.rationales), student))


def test_a_persons_reasons_are_those_of_the_data(make: Make) -> None:
    written = [pairs[1].target for pairs in targets(make(), "step-by-step+human")]
    assert written == [row["why"] for row in ROWS]


def test_the_source_of_the_run_file_is_that_of_arms_that_name_none(make: Make) -> None:
    file = make(train={"rationales": "human"})
    assert targets(file, "step-by-step") == targets(file, "step-by-step+human")


def test_a_share_leaves_the_labels_of_all_and_the_rationales_of_some(make: Make) -> None:
    found = targets(make(train={"rationale_share": 0.5}), "step-by-step+shuffled")
    explained = {pairs[0].example_id for pairs in found if len(pairs) > 1}
    assert 0 < len(explained) < len(found) == len(ROWS)
    texts = {pairs[1].target for pairs in found if len(pairs) > 1}
    # Exchanged among themselves: a rationale from outside would make the share a larger one.
    assert texts == {f"It is case {id_.removeprefix('train-')}." for id_ in explained}


@pytest.fixture
def two_teachers(make: Make) -> Callable[..., Path]:
    """A run file with a second teacher, who argues otherwise and knows "billing" only."""

    def maker(**train: Any) -> Path:
        first = str(make().parent / "train-answers.jsonl")
        second = make().parent / "second.jsonl"
        rows = [
            {"id": f"train-{i}", "rationale": f"As in {i}.", "label": "billing"} for i in range(len(ROWS))
        ]
        second.write_text("\n".join(map(json.dumps, rows)))
        teachers = [{"completions": {"train": path}} for path in (first, str(second))]
        asked = {"splits": ["train"], "combine": "all"}
        file = make(teachers=teachers, annotate=asked, methods=["step-by-step"], train=train)
        values = yaml.safe_load(file.read_text())
        del values["teacher"]
        file.write_text(yaml.safe_dump(values))
        return file

    return maker


@pytest.mark.parametrize("most", [1, 2, 3])
def test_of_many_rationales_as_many_are_learned_as_the_run_file_says(
    two_teachers: Callable[..., Path], most: int
) -> None:
    found = targets(two_teachers(rationales_per_example=most), "step-by-step")
    for i, (label, *reasons) in enumerate(found):
        assert label.task == "label"
        assert [target.target for target in reasons] == [f"It is case {i}.", f"As in {i}."][:most]
        assert [target.weight for target in reasons] == [1 / len(reasons)] * len(reasons)


@pytest.mark.parametrize(("weights", "doubtful"), [("equal", 1.0), ("votes", 0.5)])
def test_rationales_weigh_what_the_run_file_says(
    two_teachers: Callable[..., Path], weights: str, doubtful: float
) -> None:
    found = targets(two_teachers(weights=weights), "step-by-step")
    # Of the two teachers, both or only the first has said the label.
    assert [pairs[1].weight for pairs in found] == [1.0, doubtful] * (len(ROWS) // 2)


def test_a_student_that_was_told_the_task_on_the_decoder_is_asked_there(make: Make) -> None:
    train = {"epochs": 15, "batch_size": 8, "threads": 1, "learning_rate": 0.02, "prefix": "decoder"}
    run = finished(make(methods=["step-by-step"], train=train))
    assert run.folder.card("step-by-step")["prefix"] == "decoder"
    rows = [json.loads(line) for line in run.folder.predictions.open()]
    measured = [row["label"] for row in rows if row["name"] == "step-by-step"]
    # It has learned the task, which is asked nowhere but where it was told.
    assert measured == [row["team"] for row in ROWS]
    loaded = stepdistill.load(run.folder.path)
    assert [one.label for one in loaded.predict([row["text"] for row in ROWS])] == measured


def test_what_is_asked_later_has_the_rationale_that_it_will_be_asked_with(make: Make) -> None:
    run = finished(make(methods=["rationale-input", "rationale-input+filler"]))
    student = new_student(run.config.student, 0, run.matter.texts())
    asked = {arm.source: list(run.matter.asked(arm, student)) for arm in run.methods}
    assert asked["teacher"][3] == f"{ROWS[3]['text']}\n[rationale] It is case 3."
    (word,) = set(asked["filler"][3].split("[rationale] ")[1].split())
    assert word in FILLERS
    rows = [json.loads(line) for line in run.folder.predictions.open()]
    said = [row["rationale"] for row in rows if row["name"] == "rationale-input"]
    assert said == [f"It is case {i}." for i in range(len(ROWS))]


def test_arms_stand_in_one_table_and_controls_are_compared_with_the_method(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["step-by-step+none", "step-by-step+human", "label-first", "step-by-step", "finetune"]
    run = finished(make(methods=names))
    order = ["teacher", "finetune", "step-by-step", "step-by-step+human", "step-by-step+none", "label-first"]
    assert list(run.folder.records()) == order
    show(run, run.evaluate(), as_json=False)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "McNemar" in line]
    assert [line.split(":")[0] for line in lines] == [
        f"step-by-step - {name}" for name in names if name != "step-by-step"
    ]
    assert "16 human" in out
    assert "0 none" in out


def test_unlabelled_rows_that_an_arm_cannot_use_are_told(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    more = make().parent / "more"
    more.mkdir()
    rows = [{"text": f"more {i}", "team": "billing"} for i in range(5)]
    (more / "extra.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = TASK | {"name": "more", "data": {"files": {"train": "extra.jsonl"}}}
    (more / "task.yaml").write_text(yaml.safe_dump(other))
    answers = [
        {"id": id_, "rationale": "It is a case.", "label": "billing"}
        for id_ in [f"train-{i}" for i in range(len(ROWS))] + [f"more:train-{i}" for i in range(5)]
    ]
    file = make(
        methods=["finetune", "distill", "step-by-step"],
        data={"unlabelled": str(more / "task.yaml")},
        train={"labels": "gold-else-teacher", "epochs": 1, "batch_size": 8, "threads": 1},
    )
    (file.parent / "train-answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    run = finished(file)
    counts = {name: (r.n_train, r.n_unlabelled_left_out) for name, r in run.folder.records().items()}
    assert counts == {
        "teacher": (None, None),
        "finetune": (16, 5),
        "distill": (21, 0),
        "step-by-step": (21, 0),
    }
    show(run, run.evaluate(), as_json=False)
    told = [line for line in capsys.readouterr().out.splitlines() if "unlabelled rows" in line]
    assert told == ["finetune: 5 unlabelled rows are left out of its training"]
