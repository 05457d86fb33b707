"""A data set of the hub's form is read with its own names of columns and splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig
from stepdistill.errors import DataError, MissingExtraError
from stepdistill.records import Example
from stepdistill.task.load import Task, load_examples, load_task

datasets = pytest.importorskip("datasets")
HUB = DataConfig(source="hub")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as `load_dataset` takes it from the hub or from a folder."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    place = tmp_path / "hub"
    place.mkdir()
    for split, words in (("train", ["sea", "lake", "pond"]), ("validation", ["well"])):
        rows = [
            {
                "ask": f"Where is the {word}?",
                "offer": {"text": [word, "sky"], "label": ["A", "B"]},
                "key": "A",
            }
            for word in words
        ]
        (place / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Callable[..., Task]:
    def maker(**changes: Any) -> Task:
        hub = {
            "id": str(folder),
            "splits": {"train": "train", "test": "validation"},
            "input": "{ask}\n{options}",
            "column": "key",
            "options": "offer.text",
        }
        spec = {
            "name": "where",
            "instruction": "Choose.",
            "input": "{question}\n{options}",
            "id": "id",
            "answer": {"kind": "choice", "column": "answer", "options": "choices"},
            "data": {"files": {"train": "none.jsonl"}, "hub": hub | changes},
        }
        (tmp_path / "task.yaml").write_text(yaml.safe_dump(spec))
        return load_task(str(tmp_path / "task.yaml"))

    return maker


def test_columns_and_splits_of_the_hub_become_the_tasks(make: Callable[..., Task]) -> None:
    found = load_examples(make(), HUB)
    assert found["test"] == [
        Example("test-0", "Where is the well?\n(a) well\n(b) sky", "well", ("well", "sky"))
    ]
    assert [e.id for e in found["train"]] == ["train-0", "train-1", "train-2"]
    assert set(found) == {"train", "test"}


def test_hub_is_taken_where_no_folder_of_files_is_known(make: Callable[..., Task]) -> None:
    task = Task(make().spec, folder=None)
    assert load_examples(task, DataConfig(), only=("test",)) == load_examples(task, HUB, only=("test",))


def test_files_are_taken_before_the_hub_where_a_folder_is_known(make: Callable[..., Task]) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load_examples(make(), DataConfig())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "/no/such/folder"}, ["/no/such/folder (split train)", "cannot be loaded", "data.root"]),
        ({"splits": {"train": "tarin"}}, ["(split tarin)", "cannot be loaded", "data.root"]),
        ({"column": "gold"}, ["row 1", "no column 'gold'", "ask, offer, key"]),
        # A defect when written: only the last part of the name was told.
        ({"options": "offer.words"}, ["row 1", "no column 'offer.words'"]),
        ({"input": "{question}"}, ["row 1", "no column 'question'", "ask, offer, key"]),
        ({"input": "{ask.__class__}"}, ["row 1", "only plain {column} fields"]),
    ],
)
def test_what_the_hub_does_not_have_is_named_in_one_line(
    make: Callable[..., Task], changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(DataError) as caught:
        load_examples(make(**changes), HUB, only=("train",))
    message = str(caught.value)
    assert [part for part in said if part not in message] == [], message
    assert "\n" not in message


def test_the_hub_without_the_datasets_package_says_what_to_install(
    make: Callable[..., Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepdistill\[data\]'"):
        load_examples(make(), HUB)


# A defect when written: the message asked for files that were there.
def test_a_task_without_a_hub_cannot_be_read_from_it(tmp_path: Path) -> None:
    spec = {
        "name": "own",
        "instruction": "Say.",
        "input": "{x}",
        "answer": {"kind": "text"},
        "data": {"files": {"train": "a.jsonl"}},
    }
    (tmp_path / "task.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "a.jsonl").write_text('{"x": "1"}\n')
    with pytest.raises(DataError, match=r"own: .*data\.hub"):
        load_examples(load_task(str(tmp_path / "task.yaml")), HUB)
