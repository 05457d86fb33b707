"""A card's ingredients, as small as they can be, and its structure as a reader of Markdown sees it."""

from __future__ import annotations

import re
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from stepdistill.config import TeacherConfig
from stepdistill.deploy.bundle import Bundle, Settings, Tokens
from stepdistill.deploy.export.facts import Facts, Lengths
from stepdistill.evaluate.statistics import wilson
from stepdistill.records import RunRecord, Scorecard

FRONT = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\r|\n|$))")
"""As huggingface_hub finds the YAML of a card."""
TASK: dict[str, Any] = {
    "name": "letters",
    "instruction": "Sort the letter.",
    "input": "{letter}",
    "id": None,
    "answer": {"kind": "label", "labels": ["good", "bad"]},
    "data": {"files": {"train": "train.jsonl"}},
}
CARD: dict[str, Any] = {
    "name": "step-by-step",
    "method": "step-by-step",
    "paper": "distilling step-by-step, Eq. 3 and 4",
    "form": "both",
    "labels": "gold",
    "rationales": "teacher",
    "explains": True,
    "family": "encoder-decoder",
    "prefix": "encoder",
    "student": "scratch:",
    "parameters": 708_992,
    "n_train": 1500,
    "n_left_out": 3,
    "n_rationales": 1490,
    "loss": "L_label + 1 * L_rationale, each the mean",
    "steps": 752,
    "chosen_step": 700,
    "validation": 0.75,
    "learning_rate": 0.001,
    "seed": 0,
    "lora": None,
    "precision": "float32",
    "new_tokens": {"label": 6, "rationale": 60},
    "versions": {"torch": "2.13.0"},
}
SIDE: dict[str, Any] = {
    "accuracy": 0.75,
    "low": 0.698,
    "high": 0.796,
    "size_bytes": 2_841_328,
    "peak_memory_bytes": 400_000_000,
    "latency_ms": {"p50": 1.234, "p95": 3.2},
    "examples_per_second": 1234.5,
    "batch": 16,
    "computes": "float32",
}
CURVE = [
    {
        "threshold": i / 100,
        "coverage": 1 - i / 100,
        "accuracy": 0.7,
        "low": 0.6,
        "high": 0.8,
        "n": 100 - i,
        "usd_per_1000": None,
    }
    for i in range(100)
]
PROOF: dict[str, Any] = {
    "format": "ctranslate2",
    "precision": "int8",
    "n": 300,
    "n_validation": 280,
    "n_validation_of": 280,
    "topped_up": 20,
    "bound": 0.98,
    "lacks": None,
    "free_text": {"validation": 0.741, "test": None},
    "threshold": {**CURVE[80], "assured": 0.55},
    "agreement": 0.9967,
    "agreement_low": 0.981,
    "agreement_high": 0.9994,
    "checkpoint": SIDE,
    "export": {**SIDE, "size_bytes": 812_000},
    "calibration": {
        "reason": "'first' is the cheapest readout",
        "ece_perfect": 0.031,
        "folds": 5,
        "notes": ["few examples"],
        "temperature": 1.31,
        "ece_before": 0.101,
        "ece_after": 0.052,
        "nll_before": 0.9,
        "nll_after": 0.8,
        "n": 280,
    },
    "coverage": CURVE,
    "machine": {"cpu": "a processor", "threads": 1},
    "versions": {"ctranslate2": "4.8.5"},
    "seed": 0,
}


def record(name: str, outcomes: str, data: str = "d") -> RunRecord:
    n, right = len(outcomes), outcomes.count("1")
    card = Scorecard("accuracy", right / n, *wilson(right, n), n, outcomes.count("-"), outcomes)
    nothing: dict[str, Any] = dict.fromkeys(
        ("student", "parameters", "n_train", "n_left_out", "validation", "loss", "precision")
    )
    versions = {"torch": "2"}
    return RunRecord(
        name=name,
        task="letters",
        labels="gold",
        scorecard=card,
        seed=0,
        config="c",
        data=data,
        annotations="a",
        versions=versions,
        **nothing,
    )


RECORDS = (
    record("teacher", "1" * 60 + "0" * 40),
    record("finetune", "1" * 50 + "0" * 50),
    record("step-by-step", "0" * 5 + "1" * 70 + "0" * 25),
)
FACTS = Facts(
    name="step-by-step",
    records=RECORDS,
    teachers=(TeacherConfig(backend="openai", model="gpt-4o-mini"),),
    examples={"train": 1503, "validation": 280, "test": 100},
    lengths=Lengths(322, 349, 368),
    digests={"data": "808f2368ceaf67a2"},
    base_model=None,
    batch_size=16,
)


def manifest(card: dict[str, Any] | None = None, **values: Any) -> Bundle:
    given: dict[str, Any] = {
        "format": "ctranslate2",
        "precision": "int8",
        "card": {"task": TASK, **CARD, **(card or {})},
        "tokens": Tokens(eos=1, pad=0),
        "settings": Settings(readout="first", temperature=1.31, threshold=0.8),
        "stepdistill": "0.1.0",
    }
    return Bundle(**{**given, **values})


def metadata(text: str) -> dict[str, Any]:
    found = FRONT.match(text)
    assert found
    values = yaml.safe_load(found[2])
    assert isinstance(values, dict)
    return values


def tokens(text: str) -> list[Token]:
    found = FRONT.match(text)
    assert found
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = parser.parse(text[found.end() :])
    return [*blocks, *(child for one in blocks for child in one.children or ())]


def shape(text: str) -> list[str]:
    """The card's structure: everything that is not text."""
    ours = ("text", "code_inline", "softbreak")
    return [f"{one.type} {one.level}" for one in tokens(text) if one.type not in ours]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
