"""Columns beside the input: found by id, whatever was cut from the split; an unknown one is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig, LimitConfig
from stepdistill.errors import ConfigError
from stepdistill.task.columns import read_columns
from stepdistill.task.load import Task, load_examples, load_task

ROWS: list[dict[str, Any]] = [
    {
        "id": f"r{i}",
        "text": f"text {i}",
        "team": "ab"[i % 2],
        "channel": ["mail", "web"][i % 3 == 0],
        "at": {"hour": i},
    }
    for i in range(9)
]
for row in ROWS[4:]:
    row["late"] = True


def make(home: Path, **changes: Any) -> Task:
    for name in ("train", "test"):
        (home / f"{name}.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    spec = {
        "name": "t",
        "instruction": "x",
        "input": "{text}",
        "id": "id",
        "answer": {"kind": "label", "column": "team", "labels": ["a", "b"]},
        "data": {"files": {"train": "train.jsonl", "test": "test.jsonl"}, **changes.pop("data", {})},
    } | changes
    (home / "task.yaml").write_text(yaml.safe_dump(spec))
    return load_task(str(home / "task.yaml"))


@pytest.fixture(autouse=True)
def _no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)


@pytest.mark.parametrize("id_", ["id", None])
@pytest.mark.parametrize("cut", [{}, {"validation": {"from": "test", "n": 3, "seed": 1}}])
def test_each_example_has_the_values_of_its_own_row(
    tmp_path: Path, id_: str | None, cut: dict[str, Any]
) -> None:
    task, data = make(tmp_path, id=id_, data=cut), DataConfig(limit=LimitConfig(test=5))
    examples = load_examples(task, data)["test"]
    found = read_columns(task, data, "test", ["channel", "at.hour", "late"], [e.id for e in examples])
    by_text = {row["text"]: row for row in ROWS}
    assert len(found) == 5
    for example in examples:
        row = by_text[example.text]
        expected = {"channel": row["channel"], "at.hour": row["at"]["hour"], "late": row.get("late")}
        assert found[example.id] == expected


def test_a_column_that_no_row_has_is_answered_with_a_suggestion(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluate\.slices: unknown column 'chanel'; did you mean 'channel'"
    ):
        read_columns(make(tmp_path), DataConfig(), "test", ["late", "chanel"], [])
    assert read_columns(make(tmp_path), DataConfig(), "test", [], ["r1"]) == {"r1": {}}


def test_generated_rows_have_columns_too() -> None:
    task, data = load_task("claims"), DataConfig(limit=LimitConfig(train=4, validation=4, test=4))
    examples = load_examples(task, data)["test"]
    found = read_columns(task, data, "test", ["decision"], [e.id for e in examples])
    assert [found[e.id]["decision"] for e in examples] == [e.label for e in examples]
