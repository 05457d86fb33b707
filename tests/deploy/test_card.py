"""The model card tells what a student is, what was measured, and what was not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from card_samples import (
    CURVE,
    FACTS,
    PROOF,
    RECORDS,
    SIDE,
    TASK,
    manifest,
    metadata,
    record,
    rows,
)

from stepdistill.config import TeacherConfig
from stepdistill.deploy.bundle import Settings
from stepdistill.deploy.export.card import render
from stepdistill.errors import ConfigError
from stepdistill.evaluate.statistics import mcnemar


def test_a_card_tells_all_that_is_known() -> None:
    text = render(manifest(), PROOF, FACTS)
    for said in (
        "Sort the letter.",
        "`good`, `bad`",
        '{"letter": "…"}',
        "Outputs of gpt-4o-mini fall under its provider's terms; check whether they may be used to train",
        "L_label + 1 * L_rationale",
        "808f2368ceaf67a2",
        "70.0 %",
        "measured before the export, by free text",
        "99.67 % (98.10 % to 99.94 %)",
        "280 of validation, and 20 training inputs, which count for agreement alone",
        "2.8 MB | 812.0 kB",
        "1.23 ms",
        "temperature of 1.31",
        "0.101 | 0.052",
        "the cheapest readout",
        "55.0 % or more would be 95 % certain",
        "By free text the checkpoint had 74.1 % on validation",
        "out of scope",
        "no faithful account",
        'stepdistill.load("DIR")',
        "ctranslate2 4.8.5",
        "torch 2.13.0",
    ):
        assert said in text, said


def test_the_student_is_compared_with_everybody_else_on_the_same_examples() -> None:
    elsewhere = replace(FACTS, records=(*RECORDS, record("distill", "1" * 100, data="other")))
    table = {row[0]: row for row in rows(render(manifest(), PROOF, elsewhere)) if len(row) == 7}
    assert table["teacher (gold)"][4] == "+10.0"
    assert table["teacher (gold)"][6].startswith(f"p = {mcnemar(5, 15):.2g} (p = ")
    assert table["distill"][4:] == ["other examples", "", ""]


def test_what_was_not_measured_is_said_and_not_made_up() -> None:
    unknown = {**SIDE, "accuracy": None, "low": None, "high": None, "examples_per_second": None}
    proof = {**PROOF, "checkpoint": unknown, "export": unknown, "calibration": None, "coverage": []}
    text = render(manifest(settings=Settings()), proof, replace(FACTS, records=()))
    assert "Not measured." in text
    assert "| accuracy on validation, n = 280 | - | - |" in text
    assert "probabilities are not calibrated" in text
    assert "model-index" not in metadata(text)
    assert "abstain" not in text


def test_an_export_that_was_accepted_without_proof_says_so() -> None:
    text = render(manifest(), {**PROOF, "lacks": "it agrees on 190 of 200 examples"}, FACTS)
    assert "**It did not pass: it agrees on 190 of 200 examples. It was accepted all the same.**" in text
    assert "did not pass" not in render(manifest(), PROOF, FACTS)


def test_open_answers_have_no_probabilities_to_speak_of() -> None:
    task = {**TASK, "answer": {"kind": "equation"}}
    proof = {**PROOF, "calibration": None, "coverage": []}
    text = render(manifest({"task": task}, settings=Settings()), proof, FACTS)
    assert "an equation, written freely" in text
    assert "## Probabilities" not in text
    assert "scores the labels" not in text
    assert metadata(text)["pipeline_tag"] == "text-generation"


def test_a_form_that_reasons_first_is_not_said_to_be_scored() -> None:
    assert "scores the labels" not in render(manifest({"form": "rationale-first"}), PROOF, FACTS)


def test_options_of_a_choice_stand_in_the_row() -> None:
    answer = {"kind": "choice", "options": "choices", "column": "answer"}
    task = {**TASK, "input": "{question}\n{options}", "answer": answer}
    text = render(manifest({"task": task}), PROOF, FACTS)
    assert '{"question": "…", "choices": ["…", "…"]}' in text
    assert """--json '{"examples": [{"text": "…", "options": ["…", "…"]}]}'""" in text


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (TeacherConfig(backend="simulated"), "a SIMULATION | a seeded program, wrong on purpose in 25 %"),
        (TeacherConfig(backend="recorded"), "The run does not say whose they are."),
        (TeacherConfig(backend="local", model="/home/me/models/m.gguf"), "The licence of m.gguf may bind"),
        (TeacherConfig(backend="openai-batch", model="org/big"), "Outputs of org/big fall under"),
    ],
)
def test_every_teacher_has_its_terms(teacher: TeacherConfig, said: str) -> None:
    text = render(manifest(), PROOF, replace(FACTS, teachers=(teacher,)))
    assert said in text
    assert "/home" not in text
    assert ("simulation" in metadata(text)["tags"]) == (teacher.backend == "simulated")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"labels": "gold", "rationales": None}, "labels of the data set; of the run's teacher nothing"),
        ({"labels": "teacher", "rationales": None}, "the teacher's labels."),
        ({"rationales": "human"}, "rationales that people wrote; of the run's teacher nothing"),
        ({"rationales": "shuffled"}, "the teacher's rationales of other examples. **It is a control"),
    ],
)
def test_whom_the_student_learned_from_is_said(card: dict[str, Any], said: str) -> None:
    assert said in render(manifest(card), PROOF, FACTS)


def test_the_curve_is_shown_in_part_and_with_the_threshold_that_is_set() -> None:
    priced = [{**one, "usd_per_1000": 2 * (1 - one["coverage"])} for one in CURVE]
    text = render(manifest(), {**PROOF, "coverage": priced}, FACTS)
    table = [row for row in rows(text) if len(row) == 6 and row[1].endswith("%")]
    assert [row[0] for row in table if "set" in row[0]] == ["0.8000 **(set)**"]
    assert 8 < len(table) < 14
    assert {row[1]: row[5] for row in table}["50.0 %"] == "1.00 USD"
    assert "has no price for it" in render(manifest(), PROOF, FACTS)


def test_the_hub_reads_the_front_matter() -> None:
    from huggingface_hub import ModelCard

    found: Any = ModelCard(render(manifest(), PROOF, replace(FACTS, base_model="google/t5-v1_1-base"))).data
    assert found.base_model == "google/t5-v1_1-base"
    assert found["library_name"] == "stepdistill"
    assert found.license is None
    assert found.eval_results[0].metric_value == 0.7
    assert found.eval_results[0].dataset_name == "letters"


def test_a_card_of_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="instruction"):
        render(manifest({"task": {"name": "x"}}), PROOF, FACTS)
