"""People's reasons come out of the column that the task file names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig
from stepdistill.records import Example
from stepdistill.task.load import load_examples, load_task

TASK: dict[str, Any] = {
    "name": "own",
    "instruction": "Decide.",
    "input": "{message}",
    "answer": {"kind": "text", "column": "team", "rationale": "why"},
    "data": {"files": {"train": "train.jsonl"}},
}


def load(place: Path, rows: list[dict[str, Any]], **changes: Any) -> list[Example]:
    """The training examples of a task file with these rows beside it."""
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "own.yaml").write_text(yaml.safe_dump(TASK | changes))
    return load_examples(load_task(str(place / "own.yaml")), DataConfig())["train"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"why": " it is so \n"}, "it is so"),
        ({"why": ""}, None),
        ({"why": None}, None),
        ({"why": "  "}, None),
        ({"why": 7}, "7"),
        ({}, None),
    ],
)
def test_a_reason_is_text_or_not_there(tmp_path: Path, row: dict[str, Any], expected: str | None) -> None:
    (example,) = load(tmp_path, [{"message": "m", "team": "a"} | row])
    assert example.rationale == expected


def test_a_column_that_is_not_named_is_not_read(tmp_path: Path) -> None:
    rows = [{"message": "m", "team": "a", "why": "so", "rationale": "so"}]
    (example,) = load(tmp_path, rows, answer={"kind": "text", "column": "team"})
    assert example.rationale is None


def test_the_reason_is_no_part_of_the_input(tmp_path: Path) -> None:
    (example,) = load(tmp_path, [{"message": "m", "team": "a", "why": "so"}])
    assert example.text == "m"


def test_the_hub_may_have_another_name_for_the_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    row = {"message": "m", "team": "a", "explained": {"by_us": "so"}}
    (tmp_path / "hub" / "train.jsonl").write_text(json.dumps(row) + "\n")
    hub = {"id": str(tmp_path / "hub"), "splits": {"train": "train"}, "rationale": "explained.by_us"}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TASK | {"data": {"hub": hub}}))
    found = load_examples(load_task(str(tmp_path / "own.yaml")), DataConfig(source="hub"))
    assert [example.rationale for example in found["train"]] == ["so"]


def test_unlabelled_rows_come_without_the_reasons_that_would_give_their_labels_away(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    rows = [{"message": f"m{i}", "team": "a", "why": "so"} for i in range(3)]
    load(tmp_path / "other", rows)
    (tmp_path / "train.jsonl").write_text(json.dumps({"message": "m", "team": "a", "why": "so"}) + "\n")
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(TASK))
    data = DataConfig(unlabelled=str(tmp_path / "other" / "own.yaml"))
    found = load_examples(load_task(str(tmp_path / "own.yaml")), data)["train"]
    assert [example.rationale for example in found] == ["so", None, None, None]


def test_esnli_has_an_explanation_for_nearly_every_example(real_data: Path) -> None:
    found = load_examples(load_task("esnli"), DataConfig(root=str(real_data)), ["validation"])["validation"]
    explained = [example for example in found if example.rationale]
    assert len(explained) > 0.99 * len(found)
    assert explained[0].rationale == "the to go packages may not be from lunch ."
    assert all(example.rationale not in example.text for example in explained[:1])


def test_cqa_has_the_explanations_of_cos_e(real_data: Path) -> None:
    found = load_examples(load_task("cqa"), DataConfig(root=str(real_data)))["train"]
    assert sum(example.rationale is not None for example in found) > 0.99 * len(found)


@pytest.mark.parametrize("name", ["svamp", "asdiv", "claims"])
def test_these_tasks_have_no_rationales_of_people(name: str) -> None:
    assert load_task(name).spec.answer.rationale is None
