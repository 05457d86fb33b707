"""Examples that are read several times come from the file that was checked, or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig, LimitConfig
from stepdistill.errors import DataError
from stepdistill.records import Example
from stepdistill.task import stream
from stepdistill.task.load import Task, load_task, stream_examples

LINES = [json.dumps({"message": f"message {i}"}) + "\n" for i in range(20)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `a.jsonl`."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    (tmp_path / "a.jsonl").write_text("".join(LINES))
    return tmp_path


def task_at(folder: Path, file: str = "a.jsonl", **data: Any) -> Task:
    spec = {
        "name": "own",
        "instruction": "Say.",
        "input": "{message}",
        "answer": {"kind": "text"},
        "data": {"files": {"train": file}} | data,
    }
    (folder / "own.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    return load_task(str(folder / "own.yaml"))


def grow(path: Path) -> None:
    with path.open("a") as file:
        file.write(LINES[0])


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replace(path: Path) -> None:
    path.with_name("other.jsonl").write_text("".join(LINES[7:9]))
    os.utime(path.with_name("other.jsonl"), ns=(0, 1))
    path.with_name("other.jsonl").replace(path)


@pytest.mark.parametrize("change", [grow, touch, replace, Path.unlink])
def test_a_file_that_changes_after_the_check_is_refused(place: Path, change: Callable[[Path], Any]) -> None:
    task = task_at(place, validation={"from": "train", "n": 3})
    found = stream_examples(task, DataConfig(limit=LimitConfig(train=2)))
    change(place / "a.jsonl")
    for split in ("train", "validation"):
        with pytest.raises(
            DataError, match=r"a\.jsonl: the file has changed since it was checked; run again"
        ):
            list(found[split])


def test_a_file_that_changes_during_a_pass_is_refused_at_its_end(place: Path) -> None:
    passing = iter(stream_examples(task_at(place), DataConfig())["train"])
    next(passing)
    grow(place / "a.jsonl")
    with pytest.raises(DataError, match="has changed since it was checked"):
        list(passing)


def test_a_file_that_changes_while_it_is_checked_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stream._read

    def meanwhile(*given: Any) -> Iterator[Example]:
        yield from whole(*given)
        touch(place / "a.jsonl")

    monkeypatch.setattr(stream, "_read", meanwhile)
    with pytest.raises(DataError, match="has changed since it was checked"):
        stream_examples(task_at(place), DataConfig())


def test_a_saved_folder_that_changes_after_the_check_is_refused(place: Path) -> None:
    rows = [json.loads(line) for line in LINES]
    pytest.importorskip("datasets").Dataset.from_list(rows).save_to_disk(str(place / "folder"))
    found = stream_examples(task_at(place, "folder"), DataConfig())["train"]
    touch(next((place / "folder").glob("*.arrow")))
    with pytest.raises(DataError, match="folder: the file has changed"):
        list(found)


def test_a_pipe_is_refused_instead_of_waiting_for_ever(place: Path) -> None:
    (place / "a.jsonl").unlink()
    os.mkfifo(place / "a.jsonl")
    with pytest.raises(DataError, match=r"a\.jsonl: not a regular file"):
        stream_examples(task_at(place), DataConfig())
