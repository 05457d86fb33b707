"""What is otherwise than in the paper: all that a study changes is said, and nothing that it does not."""

from __future__ import annotations

import pytest

from stepdistill.study.paper.deviations import deviations
from stepdistill.study.paper.shipped import NAMES, Wanted, load

GRIDS = "grids=[{tasks: [svamp, cqa], fractions: [0.25, 1.0], labels: [teacher], seeds: [0, 1, 2, 3]}]"
CHOSEN = "the checkpoint is chosen on validation (not stated there)"
READ = "inputs of e-SNLI and ANLI read as the task files say"
NEOX = "no rationales of GPT-NeoX-20B, whose outputs were not released"


@pytest.mark.parametrize(
    ("name", "overrides", "said"),
    [
        ("table2", [], [CHOSEN, READ]),
        ("table1", [], [NEOX, CHOSEN, READ]),
        ("table1", ["run.train.evaluate_every=10000"], [NEOX, READ]),
        ("table2", ["run.train.evaluate_every=5000"], [CHOSEN, READ]),
        (
            "table2",
            ["run.data.limit={train: 50, test: 20}"],
            ["at most 50 training examples", "at most 20 test"],
        ),
        ("table2", ["run.train.alpha=0.8"], ["lambda 0.25 (1)"]),
        ("table2", ["run.train.alpha=null", "run.train.lambda=1"], [CHOSEN, READ]),
        ("table2", ["run.train.alpha=null", "run.train.lambda=auto"], ["lambda auto (1)"]),
        ("table2", ["run.train.warmup_steps=500"], ["warm-up steps 500 (0)"]),
        ("table2", ["run.train.rationales=shuffled"], ["rationales shuffled (teacher)"]),
        ("table2", ["run.train.too_long=drop"], ["too long drop (error)"]),
        ("table2", ["run.train.patience=2"], [CHOSEN, "training ends early where validation gains no more"]),
        ("table2", ["run.data.fraction=0.5"], ["svamp with 50 % of the data (100 %)"]),
        ("table2", ["run.data.unlabelled=asdiv"], ["unlabelled examples of asdiv are added"]),
        ("table2", ["run.student.lora={rank: 8}"], ["t5-v1_1-base by LoRA of rank 8 (t5-v1_1-base)"]),
        ("table2", ["run.teacher={backend: openai, model: m}"], ["teacher m (PaLM-540B)"]),
        (
            "figure4",
            [GRIDS],
            ["svamp with 25, 100 % of the data (20, 40, 60, 80, 100 %)", "labels teacher (gold)"],
        ),
        ("figure4", [GRIDS], ["tasks svamp, cqa (esnli, anli-r1, cqa, svamp)"]),
        ("figure5", [], ["the checkpoint is chosen on human labels of validation (not stated there)", READ]),
        ("figure5", [], ["parts of unlabelled data keep the shares of the human labels"]),
        ("figure5", [GRIDS], ["the checkpoint is chosen on human labels of validation (not stated there)"]),
    ],
)
def test_all_that_is_otherwise_than_in_the_paper_is_said(
    name: str, overrides: list[str], said: list[str]
) -> None:
    line = deviations(load(Wanted(name, "paper", overrides=overrides)), name)
    assert line.startswith("Otherwise than in the paper: ")
    parts = line.removeprefix("Otherwise than in the paper: ").split("; ")
    for words in said:
        assert any(words in part for part in parts), line
    # What is not changed is not said, and of what is said everything is expected.
    if set(said) <= {CHOSEN, READ, NEOX}:
        assert parts == said


@pytest.mark.parametrize("name", NAMES)
def test_the_small_form_says_how_it_differs(name: str) -> None:
    line = deviations(load(Wanted(name, "small")), name)
    simulated = name in ("figure6", "figure7", "figure8", "figure9")
    assert (
        "8 epochs" if simulated else "; 120 steps (10,000 steps); batch 8 (64); rate 0.0002 (5e-05)"
    ) in line
    assert ("at most 100" if simulated else "at most 16 validation examples") in line
    # 120 steps and one look at validation choose nothing.
    assert ("the checkpoint is chosen" in line) is simulated
    assert ("human labels" in line) is (name in ("figure7", "figure9"))
