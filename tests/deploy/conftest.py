"""Trained students and exported ones that all tests of the deploy stage share."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stepdistill.config import load_run
from stepdistill.deploy.bundle import of_student, seal
from stepdistill.deploy.cards import students
from stepdistill.records import unwatched
from stepdistill.study.run import Run

LABELS = """
name: where
instruction: Say where it is.
input: "{question}"
answer: {kind: label, column: answer, labels: [sea, attic, field]}
data: {files: {train: train.jsonl, test: train.jsonl}}
"""
CHOICES = """
name: where
instruction: Say where it is.
input: "{question}\\nAnswer Choices:\\n{options}"
answer: {kind: choice, column: answer, options: choices}
data: {files: {train: train.jsonl, test: train.jsonl}}
"""
RUN = """
task: TASK
teacher: {completions: {train: ANSWERS}}
student: {model: "scratch:", scratch: {d_model: 32, d_ff: 64, heads: 2, layers: 1, dropout: 0.0}}
methods: METHODS
train: {epochs: 12, batch_size: 4, learning_rate: 3e-3, threads: 1}
out: OUT
"""
ROWS: list[dict[str, Any]] = [
    {"question": f"Where is the {thing}?", "choices": ["sea", "attic", "field"], "answer": place}
    for thing, place in [("fish", "sea"), ("box", "attic"), ("cow", "field"), ("whale", "sea")] * 10
]
"""What the students of these tests are trained on, and know by heart."""


@dataclass(frozen=True)
class Place:
    """A finished run, and the rows that its students know by heart."""

    folder: Path
    rows: list[dict[str, Any]]

    def student(self, name: str) -> Path:
        return self.folder / "students" / name


def trained(home: Path, task: str, methods: list[str]) -> Place:
    """A run so small that its students learn it by heart, in a second or two."""
    (home / "task.yaml").write_text(task)
    (home / "train.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    answers = [
        {"id": f"train-{i}", "rationale": "One looks there.", "label": r["answer"]}
        for i, r in enumerate(ROWS)
    ]
    (home / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    text = RUN.replace("TASK", f"{home}/task.yaml").replace("ANSWERS", f"{home}/answers.jsonl")
    (home / "run.yaml").write_text(text.replace("OUT", f"{home}/out").replace("METHODS", json.dumps(methods)))
    run = Run(load_run(home / "run.yaml"), unwatched)
    run.open()
    run.annotate()
    run.train()
    values = {record.name: record.scorecard.value for record in run.evaluate()}
    assert values == dict.fromkeys(methods, 1.0)
    return Place(home / "out", ROWS)


@pytest.fixture(scope="session")
def choices(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A finished run on a task of kind `choice`: T5s from scratch, `finetune` and `step-by-step`."""
    return trained(tmp_path_factory.mktemp("choices"), CHOICES, ["finetune", "step-by-step"])


@pytest.fixture(scope="session")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The same on a task of kind `label`, and `step-by-step` alone."""
    return trained(tmp_path_factory.mktemp("labels"), LABELS, ["step-by-step"])


def sealed(student: Path, folder: Path, kind: str) -> Path:
    """A bundle of a student, put together by hand; never proven."""
    ((_, card),) = students(student).values()
    manifest = of_student(student, card)
    if kind == "ctranslate2":
        from ctranslate2.converters import TransformersConverter

        TransformersConverter(str(student)).convert(str(folder))
        shutil.copy(student / "tokenizer.json", folder)
    else:
        folder.mkdir()
        for name in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copy(student / name, folder)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(student / name, folder)
    seal(folder, manifest.model_copy(update={"format": kind}))
    return folder


@pytest.fixture(scope="session", params=["huggingface", "ctranslate2"])
def bundle(request: pytest.FixtureRequest, labels: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The student `step-by-step` of `labels`, exported; a copy is to be changed, never this."""
    return sealed(labels.student("step-by-step"), tmp_path_factory.mktemp("bundles") / "it", request.param)


@pytest.fixture(scope="session")
def light(labels: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as CTranslate2's, which is asked without torch."""
    return sealed(labels.student("step-by-step"), tmp_path_factory.mktemp("light") / "it", "ctranslate2")
