"""The annotate stage from a library's side: its files, its teachers told apart, what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from annotating import annotate_into, asked_of

from stepdistill.config import TeacherConfig, check
from stepdistill.config.teacher import BackendName
from stepdistill.errors import DataError, TeacherError
from stepdistill.files import iter_jsonl, write_jsonl
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.task.load import Task
from stepdistill.task.schema import TaskSpec
from stepdistill.teacher.annotations import count, read_annotations
from stepdistill.teacher.export import FORMATS, export_annotations

TASK = {
    "name": "own",
    "instruction": "Decide.",
    "input": "{text}",
    "id": "id",
    "answer": {"kind": "label", "labels": ("yes", "no"), "column": "gold"},
    "data": {"files": {"train": "train.jsonl", "test": "test.jsonl"}},
}
TRAIN = [Example(name, f"text {name}", "yes") for name in "abcd"]
TEST = [Example("a", "another text", "no")]
SAID = {"a": "Why a. So the answer is yes.", "b": "Why b. So the answer is no.", "c": "Hm."}


@pytest.fixture
def recorded(tmp_path: Path) -> dict[str, Any]:
    """A teacher with answers to three of four training examples and to the test example."""
    for split, rows in (("train", TRAIN), ("test", TEST)):
        texts = [{"id": e.id, "text": e.text, "gold": e.label} for e in rows]
        write_jsonl(tmp_path / f"{split}.jsonl", texts)
        answers = [{"id": e.id, "completion": SAID[e.id]} for e in rows if e.id in SAID]
        write_jsonl(tmp_path / f"said-{split}.jsonl", answers)
    return {split: str(tmp_path / f"said-{split}.jsonl") for split in ("train", "test")}


def work(folder: Path, completions: Any, **annotate: Any) -> Any:
    task = Task(TaskSpec.model_validate(TASK), folder)
    examples = {"train": TRAIN, "test": TEST}
    return asked_of(task, examples, TeacherConfig(completions=completions), **annotate)


def test_rows_files_and_report_agree(tmp_path: Path, recorded: Any) -> None:
    asked = work(tmp_path, recorded, verify="agree-with-gold")
    outcome = annotate_into(tmp_path, asked)
    rows = list(iter_jsonl(tmp_path / "annotations.jsonl"))
    assert [(row["split"], row["id"]) for row in rows] == [
        *(("train", name) for name in "abc"),
        ("test", "a"),
    ]
    left_out = list(iter_jsonl(tmp_path / "left_out.jsonl"))
    assert left_out[:2] == [row for row in rows if "left_out" in row]
    assert {row["id"]: row["left_out"] for row in left_out} == {
        "b": "disagrees with gold",
        "c": "unread: no answer marker",
        "d": "no answer",
    }
    assert outcome.left_out.total() == 3
    read = read_annotations(tmp_path / "annotations.jsonl")
    assert isinstance(read["train"]["a"], Annotation)
    assert read["train"]["b"] == Unparsed("b", "disagrees with gold")
    # Test is what is measured on: a teacher that is wrong there is kept, and counts as wrong.
    assert isinstance(read["test"]["a"], Annotation)
    assert json.loads((tmp_path / "parse_report.json").read_text()) == outcome.report
    train = outcome.report["train"]
    assert (train["examples"], train["answers"], train["read"]) == (4, 3, 2)
    assert train["accuracy"] == {"exact": {"right": 1, "n": 2}}
    assert not asked.ledger.exists()


def test_only_the_splits_that_are_named_are_annotated(tmp_path: Path, recorded: Any) -> None:
    annotate_into(tmp_path, work(tmp_path, recorded, splits=["test"]))
    assert list(read_annotations(tmp_path / "annotations.jsonl")) == ["test"]


def test_nothing_is_written_where_no_answer_fits(tmp_path: Path, recorded: Any) -> None:
    write_jsonl(tmp_path / "said-train.jsonl", [{"id": "z", "completion": "x"}])
    with pytest.raises(TeacherError, match="none of the teacher's completions"):
        annotate_into(tmp_path, work(tmp_path, recorded, splits=["train"]))
    assert not (tmp_path / "annotations.jsonl").exists()
    assert not list(tmp_path.glob(".*"))


def test_confidence_and_further_rationales_come_back(tmp_path: Path) -> None:
    row = {"id": "a", "split": "train", "rationale": "r", "label": "yes", "rule": "exact", "unread": None}
    write_jsonl(tmp_path / "x.jsonl", [row, {**row, "id": "b", "confidence": 0.75, "more": ["s", "t"]}])
    found = read_annotations(tmp_path / "x.jsonl")["train"]
    assert found["a"] == Annotation("a", "r", "yes", "exact")
    assert found["b"] == Annotation("b", "r", "yes", "exact", 0.75, ("s", "t"))
    assert count({"train": found}, {"train": TRAIN})["train"]["read"] == 2


@pytest.mark.parametrize("ending", sorted(FORMATS))
def test_an_export_keeps_any_words(tmp_path: Path, recorded: Any, ending: str) -> None:
    hostile = "\ud800 \x00 \u2028 ${x} So the answer is yes."
    write_jsonl(tmp_path / "said-train.jsonl", [{"id": "b", "completion": hostile}])
    asked = work(tmp_path, recorded)
    annotate_into(tmp_path, asked)
    export_annotations(tmp_path / "annotations.jsonl", asked, tmp_path / f"all{ending}")
    if ending == ".parquet":
        rows = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "all.parquet").to_pylist()
    else:
        rows = list(iter_jsonl(tmp_path / "all.jsonl"))
    assert [(row["split"], row["id"], row["text"]) for row in rows] == [
        ("train", "b", "text b"),
        ("test", "a", "another text"),
    ]
    assert rows[0]["completion"].encode("utf-8", "backslashreplace").decode() == hostile.replace(
        "\ud800", "\\ud800"
    )
    assert rows[0]["unread"] == "broken characters"


def test_a_half_written_export_leaves_nothing(tmp_path: Path, recorded: Any) -> None:
    pytest.importorskip("pyarrow")
    asked = work(tmp_path, recorded)
    annotate_into(tmp_path, asked)
    whole = (tmp_path / "annotations.jsonl").read_text()
    for damaged in (whole + "{", whole + "{}", "".join(reversed(whole.splitlines(keepends=True)))):
        (tmp_path / "annotations.jsonl").write_text(damaged)
        with pytest.raises(DataError, match=r"annotations\.jsonl"):
            export_annotations(tmp_path / "annotations.jsonl", asked, tmp_path / "all.parquet")
    assert not [path for path in tmp_path.iterdir() if "all.parquet" in path.name]


def test_every_teacher_on_the_page_about_teachers_is_a_valid_one() -> None:
    page = (Path(__file__).parents[2] / "docs" / "teacher.md").read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    found = [yaml.safe_load(part)["teacher"] for part in re.split(r"\n(?=teacher:)", blocks)[1:]]
    assert {teacher["backend"] for teacher in found} == set(get_args(BackendName)) - {"simulated"}
    assert all(check(TeacherConfig, teacher, "page") for teacher in found)


@pytest.mark.parametrize("module", ["stepdistill.study.job", "stepdistill.cli.annotate"])
def test_the_way_to_a_teacher_is_light(module: str) -> None:
    heavy = ("torch", "transformers", "datasets", "numpy", "pyarrow", "aiohttp", "sklearn")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
