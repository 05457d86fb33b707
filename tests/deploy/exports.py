"""Runs that exports are made of: real ones, with enough examples for a proof."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stepdistill.config import load_run
from stepdistill.records import unwatched
from stepdistill.study.run import Run

TASK = """
name: where
instruction: Say where it is.
input: "{question}"
answer: {kind: label, column: answer, labels: [sea, attic, field]}
data: {files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
"""
RUN = """
task: TASK
teacher: {completions: {train: ANSWERS}}
student: {model: "scratch:", scratch: {d_model: 32, d_ff: 64, heads: 2, layers: 1, dropout: 0.0}}
methods: [finetune, step-by-step]
train: {epochs: 3, batch_size: 8, learning_rate: 3e-3, threads: 1}
out: OUT
"""
PLACES = {"fish": "sea", "whale": "sea", "box": "attic", "trunk": "attic", "cow": "field", "hare": "field"}


def rows(n: int, begin: int = 0) -> list[dict[str, Any]]:
    """Questions that are all different, every fifth answered wrongly: nobody can be right on all."""
    things = list(PLACES)
    found = []
    for i in range(begin, begin + n):
        thing = things[i % len(things)]
        answer = PLACES[things[(i + 2) % len(things)] if i % 5 == 4 else thing]
        found.append({"question": f"Where is the {thing} number {i}?", "answer": answer})
    return found


def write_rows(path: Path, values: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    path.write_text("\n".join(map(json.dumps, values)) + "\n")


def trained(home: Path, validation: int = 60) -> Path:
    """The folder of a finished run with 180 training examples."""
    (home / "task.yaml").write_text(TASK)
    write_rows(home / "train.jsonl", rows(180))
    write_rows(home / "validation.jsonl", rows(validation, 1000))
    write_rows(home / "test.jsonl", rows(12, 2000))
    answers = [
        {"id": f"train-{i}", "rationale": "One looks there.", "label": row["answer"]}
        for i, row in enumerate(rows(180))
    ]
    write_rows(home / "answers.jsonl", answers)
    text = RUN.replace("TASK", f"{home}/task.yaml").replace("ANSWERS", f"{home}/answers.jsonl")
    (home / "run.yaml").write_text(text.replace("OUT", f"{home}/out"))
    run = Run(load_run(home / "run.yaml"), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()
    return home / "out"
