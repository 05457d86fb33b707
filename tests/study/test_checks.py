"""What a run refuses before it trains, and what it leaves whole when it is interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from stepdistill import weights
from stepdistill.config import load_run
from stepdistill.errors import RunFolderError, StudentError
from stepdistill.records import unwatched
from stepdistill.student import team
from stepdistill.student.methods import find_arm
from stepdistill.student.model import load_student, new_student
from stepdistill.student.rationales import SOURCES
from stepdistill.student.team import Team
from stepdistill.study import run as study
from stepdistill.study.run import Run

TASK = {
    "name": "teams",
    "instruction": "Choose a team.",
    "input": "{text}",
    "answer": {"kind": "label", "column": "team", "rationale": "why", "labels": ["billing", "technical"]},
    "data": {"files": {"train": "train.jsonl", "test": "test.jsonl"}},
}
ROWS = [
    {"text": f"letter {i} about {what}", "team": team, "why": f"since {what} is named"}
    for i, (what, team) in enumerate([("a bill", "billing"), ("a crash", "technical")] * 4)
]
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A run whose teacher's answers are read; its test split has the reasons of people, or not."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)

    def maker(explained: bool = True, train: dict[str, Any] | None = None, **changes: Any) -> Run:
        answers = []
        for split in ("train", "test"):
            rows = [row if split == "train" or explained else {**row, "why": ""} for row in ROWS]
            (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
            answers = [
                {"id": f"{split}-{i}", "rationale": f"It is case {i}.", "label": row["team"]}
                for i, row in enumerate(rows)
            ]
            (tmp_path / f"{split}-answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(TASK))
        given = {
            "task": str(tmp_path / "task.yaml"),
            "teacher": {"completions": {s: str(tmp_path / f"{s}-answers.jsonl") for s in ("train", "test")}},
            "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
            "train": {"epochs": 1, "batch_size": 8, "threads": 1, **(train or {})},
            "out": str(tmp_path / "out"),
        }
        (tmp_path / "run.yaml").write_text(yaml.safe_dump(given | changes))
        run = Run(load_run(tmp_path / "run.yaml"), unwatched)
        run.open()
        run.annotate()
        return run

    return maker


@pytest.mark.parametrize("method", ["step-by-step", "rationale-first", "label-first"])
def test_only_rationales_that_mean_something_explain(make: Make, method: str) -> None:
    run = make()
    arm = find_arm(method)
    targets = run.matter.targets(arm, new_student(run.config.student, 0, run.matter.texts()))
    found = [name for name in SOURCES if run.matter.facts(replace(arm, source=name), targets)["explains"]]
    assert found == ["teacher", "human"]


def test_an_arm_that_could_answer_nothing_is_not_trained(make: Make) -> None:
    run = make(explained=False, methods=["rationale-input+human"])
    with pytest.raises(StudentError, match="no 'test' example has one of people") as caught:
        run.train()
    assert "\n" not in str(caught.value)
    assert not run.folder.has_students()


def test_one_rationale_is_enough_to_be_asked(make: Make) -> None:
    run = make(methods=["rationale-input+human"])
    test = list(run.examples["test"])
    rest = [replace(example, rationale=None) for example in test[1:]]
    matter = replace(run.matter, examples={**run.examples, "test": [test[0], *rest]})
    student = new_student(run.config.student, 0, run.matter.texts())
    asked = list(matter.asked(run.methods[0], student))
    assert [text.count("[rationale]") for text in asked] == [1] + [0] * len(rest)


def test_what_is_wrong_before_training_is_told_by_one_process(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(explained=False, methods=["rationale-input+human"])
    monkeypatch.setattr(team, "GRACE", 0.0)
    run.__dict__["team"] = replace(Team(), rank=1)
    with pytest.raises(SystemExit) as caught:
        run._train(run.methods[0])
    assert caught.value.code == StudentError.exit_code


def test_a_curve_is_there_whole_or_drawn_again(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(methods=["finetune"])
    run.train()
    folder = run.folder.student("finetune")
    whole = {path.name: path.read_bytes() for path in folder.glob("curve.*")}
    assert sorted(whole) == ["curve.png", "curve.svg"]
    for name in whole:
        (folder / name).unlink()

    def torn(_: Any, where: Path) -> None:
        where.mkdir(exist_ok=True)
        (where / "curve.png").write_bytes(b"half")
        (where / "curve.svg").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(study, "draw", torn)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    assert not list(folder.glob("curve.*"))
    run.train()
    assert {path.name: path.read_bytes() for path in folder.glob("curve.*")} == whole
    assert [path.name for path in folder.parent.iterdir()] == ["finetune"]


def test_a_student_of_an_earlier_version_is_refused_in_one_line(make: Make) -> None:
    run = make(methods=["finetune"])
    run.train()
    run.evaluate()
    card = run.folder.student("finetune") / "student.json"
    stored = json.loads(card.read_text())
    del stored["limits"]
    card.write_text(json.dumps(stored))
    with pytest.raises(RunFolderError, match="made by an earlier version; train again"):
        run.evaluate()


def test_a_run_on_the_cpu_trains_and_measures_there_beside_a_gpu(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = make(methods=["finetune"])
    first.train()
    base = first.folder.student("finetune")
    devices: list[str] = []
    load = weights.load

    def noted(where: str, role: Any, dtype: Any, code: bool, device: Any) -> Any:
        devices.append(device)
        return load(where, role, dtype, code, device)

    monkeypatch.setattr(weights, "load", noted)
    student, out = {"model": str(base)}, str(tmp_path / "second")
    run = make(methods=["finetune"], student=student, out=out, train={"device": "cpu"})
    run.train()
    run.evaluate()
    assert devices == ["cpu", "cpu"]


def test_a_device_that_fails_is_one_line(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(methods=["finetune"])
    run.train()
    folder = str(run.folder.student("finetune"))
    moved: list[str] = []

    def move(self: torch.nn.Module, device: str) -> torch.nn.Module:
        moved.append(device)
        if device == "cuda":
            raise RuntimeError("CUDA error: no kernel image\nmore words")
        return self

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("transformers.PreTrainedModel.to", move)
    load_student(folder, device="cpu")
    assert moved == ["cpu"]
    with pytest.raises(
        StudentError, match=r"cannot be put on cuda \(CUDA error: no kernel image\); give train"
    ):
        load_student(folder)

    def full(self: torch.nn.Module, device: str) -> torch.nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transformers.PreTrainedModel.to", full)
    with pytest.raises(StudentError, match="does not fit into the GPU's memory"):
        load_student(folder)
