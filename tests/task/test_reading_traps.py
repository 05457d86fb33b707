"""Answers that one rule would take for another: exact words before letters, signs, common column names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stepdistill.config import DataConfig
from stepdistill.deploy.runtime import Runtime
from stepdistill.task.closed import ChoiceKind
from stepdistill.task.load import load_examples, load_task
from stepdistill.task.opened import NumberKind


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("A", ["O", "A", "B", "AB"]),
        ("-5", ["5", "-5", "10"]),
        ("C++", ["C", "C++"]),
        ("C. elegans", ["mouse", "C. elegans", "rat"]),
        ("sin(x)", ["cos(x)", "sin(x)"]),
        ("vitamin (c)", ["vitamin (c)", "iron", "salt"]),
    ],
)
@pytest.mark.parametrize("end", ["", "."])
def test_the_words_of_an_option_are_that_option(text: str, options: list[str], end: str) -> None:
    assert ChoiceKind().read(text + end, options).label == text


def test_words_that_fit_two_options_are_not_decided() -> None:
    assert ChoiceKind().read("'sea'", ["Sea", "sea."]).reason == "several options"


@pytest.mark.parametrize(
    ("text", "label"),
    [("\u22125", "-5"), ("\u20135", "-5"), ("-$5", "-5"), ("$-5", "-5"), ("+ \u20ac 7", "7")],
)
def test_a_sign_is_not_lost(text: str, label: str) -> None:
    assert NumberKind().read(text).label == label


def test_a_power_is_not_read_as_its_base() -> None:
    assert NumberKind().read("5\u00b2").label is None


TASK = """
name: traps
instruction: x
input: "TEMPLATE"
answer: {kind: choice, column: answer, options: options}
data: {files: {train: train.jsonl}}
"""


@pytest.mark.parametrize("template", ["Review: {text}", "{text}\\n{options}"])
def test_what_is_asked_later_is_rendered_as_in_training(tmp_path: Path, template: str) -> None:
    (tmp_path / "task.yaml").write_text(TASK.replace("TEMPLATE", template))
    row = {"text": "great", "options": ["good", "bad"], "answer": "good"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    task = load_task(str(tmp_path / "task.yaml"))
    trained = load_examples(task, DataConfig())["train"][0]
    card = {"task": task.spec.model_dump(mode="json", by_alias=True), "rationales": False}
    asked = Runtime(tmp_path, card).read_input([row], "row")[0]
    assert (asked.text, asked.options) == (trained.text, trained.options)
