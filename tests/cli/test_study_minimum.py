"""`stepdistill study --minimum` on the command line: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

TASK = """
name: boxes
instruction: Say the colour of the box.
input: "{text}"
id: id
answer: {kind: label, column: gold, labels: [red, blue]}
data: {files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
demonstrations: []
"""
SIZES = {"train": 16, "validation": 40, "test": 10}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A study whose student learns next to nothing, and whose teacher knows all."""
    (tmp_path / "task.yaml").write_text(TASK)
    for split, size in SIZES.items():
        gold = ["red" if number % 2 else "blue" for number in range(size)]
        rows = [{"id": f"{split}{i}", "text": f"Box {i} is {g}.", "gold": g} for i, g in enumerate(gold)]
        said = [{"id": row["id"], "rationale": "I see it.", "label": row["gold"]} for row in rows]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / f"{split}.said.jsonl").write_text("\n".join(map(json.dumps, said)))
    values = {
        "run": {
            "task": str(tmp_path / "task.yaml"),
            "teacher": {"completions": {split: str(tmp_path / f"{split}.said.jsonl") for split in SIZES}},
            "annotate": {"splits": list(SIZES)},
            "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
            "train": {"steps": 1, "threads": 1},
        },
        "grid": {"methods": ["step-by-step"], "fractions": [0.5, 1.0]},
        "minimum": {"target": "teacher"},
        "out": str(tmp_path / "out"),
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.mark.slow
def test_what_is_found_is_said_and_certified(cli: Any, study: Path) -> None:
    done = cli("study", study, "--minimum", "-q", "--set", "method=step-by-step", "--set", "against=teacher")
    assert done.code == 0, done.error
    first, *_, last = done.out.splitlines()
    assert first.startswith("step-by-step with scratch-16x1 does not reach the teacher's accuracy (100 %)")
    written = study.parent / "out" / "minimum.json"
    assert last == f"The certificate is in {written}"
    found = json.loads(written.read_text())
    assert found["sentences"] == [first]
    assert [probe["fraction"] for probe in found["students"][0]["probes"]] == [1.0]
    # The smaller fraction was not tried, and test was not read.
    assert not list((study.parent / "out").rglob("predictions.jsonl"))
    assert len(list((study.parent / "out" / "trials").glob("*/students"))) == 1
    again = json.loads(cli("study", study, "--minimum", "--json").out)
    assert again == found


@pytest.mark.parametrize(
    ("setting", "parts"),
    [
        ("minimum.target=finetune", ["minimum.target", "'finetune'", "grid.methods"]),
        ("minimum.target=finetnue", ["did you mean 'finetune'?"]),
        ("minimum.confidence=95", ["minimum.confidence", "less than 1"]),
        ("minimum.margin=-1", ["minimum.margin", "greater than or equal to 0"]),
        ("minimum.on=train", ["minimum.on", "test, validation"]),
        ("run.annotate.splits=[train, test]", ["annotate.splits: [train, validation, test]", "on: test"]),
    ],
)
def test_a_mistake_gets_one_line_and_writes_nothing(
    cli: Any, study: Path, setting: str, parts: list[str]
) -> None:
    done = cli("study", study, "--minimum", "-q", "--set", setting)
    assert (done.code, done.out, done.error.count("\n")) == (2, "", 1)
    assert [part for part in parts if part not in done.error] == [], done.error
    assert not (study.parent / "out").exists()


def test_without_a_validation_split_it_names_the_ways_out(cli: Any, study: Path) -> None:
    task = study.parent / "task.yaml"
    task.write_text(TASK.replace("validation: validation.jsonl, ", ""))
    done = cli("study", study, "--minimum", "-q")
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "no validation examples to choose by" in done.error
    assert "minimum.on: test" in done.error
