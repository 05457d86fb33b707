"""Completions that exist are joined with their examples, kept verbatim, and refused where they do not fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from annotating import annotate_into, asked_of
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepdistill.config import DataConfig, TeacherConfig
from stepdistill.errors import DataError, StepdistillError, TeacherError
from stepdistill.files import read_jsonl
from stepdistill.records import Annotation, Completion, Example, Unparsed
from stepdistill.task.load import Task, load_examples
from stepdistill.task.schema import Split, TaskSpec
from stepdistill.teacher.annotations import count, read_annotations
from stepdistill.teacher.parse import parse

IDS = ("a", "b", "c")
WORDS = ("Why a. So the answer is yes.", "Why b.", "Why c. So the answer is no.\n\nQ: x")
READ = {
    "a": Annotation("a", "Why a.", "yes", "exact"),
    "b": Unparsed("b", "no answer marker"),
    "c": Annotation("c", "Why c.", "no", "exact"),
}


def own(folder: Path | None = None, data: dict[str, Any] | None = None, **answer: Any) -> Task:
    spec = {
        "name": "own",
        "instruction": "Decide.",
        "input": "{message}",
        "id": "id",
        "answer": {"kind": "label", "labels": ("yes", "no"), "column": "team"} | answer,
        "data": data or {"files": {"train": "train.jsonl"}},
    }
    return Task(TaskSpec.model_validate(spec), folder)


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


ROWS = jsonl(*({"id": id_, "completion": text} for id_, text in zip(IDS, WORDS, strict=True)))
APART = jsonl(
    {"id": "a", "rationale": " Why a. ", "label": "Yes"},
    {"id": "b", "label": "maybe"},
    {"id": "c", "rationale": None, "label": "no", "more": 1},
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    rows = ({"id": id_, "message": f"message {id_}", "team": "yes"} for id_ in IDS)
    (tmp_path / "train.jsonl").write_text(jsonl(*rows))
    return tmp_path


@pytest.fixture
def annotated(place: Path) -> Callable[..., Any]:
    """Annotates the train split with the completions in a file of this name and content."""

    def annotator(name: str, files: dict[str, str], task: Task | None = None, **part: Any) -> Any:
        for file, content in files.items():
            (place / file).write_text(content, encoding="utf-8")
        asked_task = task or own(place)
        data = DataConfig.model_validate(part)
        teacher = TeacherConfig(completions={"train": str(place / name)})
        examples = load_examples(asked_task, data)
        annotate_into(place, asked_of(asked_task, examples, teacher, data))
        return read_annotations(place / "annotations.jsonl")

    return annotator


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("all.jsonl", {"all.jsonl": ROWS}),
        ("all.jsonl", {"all.jsonl": "\n".join(reversed(ROWS.splitlines()))}),
        ("all.json", {"all.json": json.dumps(WORDS)}),
        ("part_{i}.json", {"part_0.json": json.dumps(WORDS[:2]), "part_1.json": json.dumps(WORDS[2:])}),
        ("part_{i}.json", {"part_0.json": json.dumps(WORDS), "part_2.json": '["a stray one"]'}),
    ],
)
def test_every_form_of_completions_is_read_to_the_same_annotations(
    annotated: Callable[..., Any], name: str, files: dict[str, str]
) -> None:
    assert annotated(name, files) == {"train": READ}


def test_rationales_and_labels_apart_are_read_without_a_marker(annotated: Callable[..., Any]) -> None:
    found = annotated("apart.jsonl", {"apart.jsonl": APART})["train"]
    assert found["b"] == Unparsed("b", "not a label")
    assert (found["a"].rationale, found["a"].label) == ("Why a.", "yes")
    assert (found["c"].rationale, found["c"].label) == ("", "no")


# A defect when written: the codes of the data were not known here.
@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ({"kind": "label", "labels": ("yes", "no"), "codes": {"0": "yes"}}, 0),
        ({"kind": "number"}, 0.5),
        ({"kind": "number"}, 7),
        ({"kind": "equation"}, "(1 + 2)"),
        ({"kind": "text"}, "free words"),
    ],
)
def test_a_label_apart_may_be_written_as_in_the_data(
    annotated: Callable[..., Any], place: Path, answer: dict[str, Any], label: Any
) -> None:
    task = own(place, column=None, **answer)
    words = jsonl({"id": "a", "rationale": "Why.", "label": label})
    found = annotated("x.jsonl", {"x.jsonl": words}, task)["train"]["a"]
    assert isinstance(found, Annotation), found
    assert (found.rationale, found.label) == ("Why.", task.kind.gold(label))


# A defect when written: all were unread, as the options of the example were not known.
@pytest.mark.parametrize("label", ["lake", "(b) lake", "b"])
def test_a_choice_apart_is_read_with_the_options_of_its_example(
    annotated: Callable[..., Any], place: Path, label: str
) -> None:
    row = {"id": "a", "message": "Where?", "offer": ["sea", "lake"], "team": "sea"}
    (place / "train.jsonl").write_text(jsonl(row))
    words = jsonl({"id": "a", "rationale": "Why.", "label": label})
    found = annotated("x.jsonl", {"x.jsonl": words}, own(place, kind="choice", options="offer", labels=()))
    assert isinstance(found["train"]["a"], Annotation), found
    assert found["train"]["a"].label == "lake"


# A defect when written: of kind `text` the word None was trained on.
def test_a_label_apart_that_is_null_is_unread(annotated: Callable[..., Any], place: Path) -> None:
    words = jsonl({"id": "a", "rationale": "Why.", "label": None})
    found = annotated("x.jsonl", {"x.jsonl": words}, own(place, kind="text", column=None, labels=()))
    assert found == {"train": {"a": Unparsed("a", "empty answer")}}


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("x.json", json.dumps(WORDS[:2]), ["x.json", "2 completions for 3 examples", '"id"', "JSONL"]),
        ("x.json", json.dumps([*WORDS, "d"]), ["4 completions for 3 examples"]),
        ("x.json", "[]", ["0 completions for 3 examples"]),
        ("x.json", '{"a": "b"}', ["x.json", "JSON list of strings"]),
        ("x.json", '["a", 7, "c"]', ["x.json", "JSON list of strings"]),
        ("x.json", '["a",\n"b"', ["x.json:2", "malformed JSON"]),
        ("x.json", "", ["x.json:1", "malformed JSON"]),
        # A defect when written: tracebacks from the next two.
        ("x.json", "[" * 100_000, ["x.json", "nested too deeply"]),
        ("x.json", "[" + "9" * 5000 + "]", ["x.json", "malformed JSON"]),
        ("x_{i}.json", "[]", ["x_0.json", "no such file", "teacher.completions"]),
        ("x.jsonl", "", ["x.jsonl", "is empty", "at least one completion"]),
        ("x.jsonl", ROWS + "{", ["x.jsonl:4", "malformed JSON"]),
        ("x.jsonl", ROWS + '["a"]', ["x.jsonl:4", "JSON object per line"]),
        ("x.jsonl", ROWS + ROWS[: ROWS.index("\n")], ["row 4", "'a'", "twice"]),
        ("x.jsonl", '{"completion": "x"}', ["row 1", "no 'id'", "completion"]),
        ("x.jsonl", '{"id": null, "completion": "x"}', ["row 1", "no 'id'"]),
        ("x.jsonl", '{"id": "a"}', ["row 1", "'completion'", "'rationale'", "'label'", "has: id"]),
        ("x.jsonl", '{"id": "a", "completion": 7}', ["row 1", "'completion' (text)"]),
        ("x.jsonl", '{"id": "a", "rationale": "r"}', ["row 1", "'label'", "has: id, rationale"]),
        ("x.jsonl", '{"id": "z", "completion": "x"}', ["own", "none", "teacher.completions", "ids"]),
        ("absent.jsonl", None, ["absent.jsonl", "no such file"]),
        ("absent.json", None, ["absent.json", "no such file"]),
    ],
)
def test_completions_that_do_not_fit_are_refused_in_one_line(
    annotated: Callable[..., Any], place: Path, name: str, content: str | None, said: list[str]
) -> None:
    with pytest.raises((TeacherError, DataError)) as caught:
        annotated(name, {} if content is None else {name: content})
    message = str(caught.value)
    assert [part for part in said if part not in message] == [], message
    assert "\n" not in message
    assert not (place / "annotations.jsonl").exists()


def test_a_task_without_known_completions_asks_for_them(place: Path) -> None:
    task = own(place)
    asked = asked_of(task, load_examples(task, DataConfig()))
    with pytest.raises(TeacherError, match=r"own: no recorded completions .*teacher\.completions: \{train"):
        annotate_into(place, asked)


def test_examples_without_an_answer_are_left_out_and_strange_ids_ignored(
    annotated: Callable[..., Any], place: Path
) -> None:
    rows = jsonl({"id": "c", "completion": WORDS[2]}, {"id": "z", "completion": "x"})
    found = annotated("x.jsonl", {"x.jsonl": rows})
    assert found == {"train": {"c": READ["c"]}}
    report = count(found, load_examples(own(place), DataConfig()))["train"]
    assert report == {"examples": 3, "answers": 1, "read": 1, "unread": {}, "rules": {"exact": 1}}


@pytest.mark.parametrize("part", [{"limit": {"train": 2}}, {"fraction": 0.67}])
def test_a_part_of_the_data_does_not_shift_lists_that_are_joined_by_order(
    annotated: Callable[..., Any], part: Any
) -> None:
    found = annotated("x.json", {"x.json": json.dumps(WORDS)}, **part)["train"]
    assert len(found) == 2
    assert found == {id_: READ[id_] for id_ in found}


def test_the_completions_of_train_serve_the_validation_split_cut_from_it(
    annotated: Callable[..., Any], place: Path
) -> None:
    data = {"files": {"train": "train.jsonl"}, "validation": {"from": "train", "n": 1}}
    found = annotated("x.json", {"x.json": json.dumps(WORDS)}, own(place, data))
    assert len(found["validation"]) == 1
    assert {**found["validation"], **found["train"]} == READ


@settings(max_examples=60, deadline=None)
@given(words=st.lists(st.text(st.characters(), max_size=80), min_size=1, max_size=6))
@example(["\ud800 lone", "\u2028\u2029\x85\r\n\x00", "So the answer is yes.\n\nQ: \U0001f600"])
def test_completions_are_kept_verbatim_and_read_as_parsing_reads_them(
    tmp_path_factory: Any, words: list[str]
) -> None:
    folder, task = tmp_path_factory.getbasetemp(), own()
    words = json.loads(json.dumps(words))
    examples = [Example(str(i), f"x {i}", "yes") for i in range(len(words))]
    (folder / "x.jsonl").write_text(jsonl(*({"id": i, "completion": w} for i, w in enumerate(words))))
    rows = ({"id": e.id, "message": e.text, "team": "yes"} for e in examples)
    (folder / "train.jsonl").write_text(jsonl(*rows))
    teacher = TeacherConfig(completions={"train": str(folder / "x.jsonl")})
    splits: dict[Split, list[Example]] = {"train": examples}
    data = DataConfig(root=str(folder))
    annotate_into(folder, asked_of(task, splits, teacher, data))
    written = read_jsonl(folder / "annotations.jsonl")
    assert [row["completion"] for row in written] == words
    found = read_annotations(folder / "annotations.jsonl")
    direct = {e.id: parse(Completion(e.id, w, ""), task) for e, w in zip(examples, words, strict=True)}
    assert found == {"train": direct}
    report = count(found, splits)["train"]
    assert report["examples"] == report["answers"] == report["read"] + sum(report["unread"].values())
    assert report["read"] == sum(isinstance(read, Annotation) for read in direct.values())


# A defect when written: a KeyError, though a DataError is promised.
@pytest.mark.parametrize("row", ["{}", '{"id": "a", "split": "train"}', '{"split": "train", "label": "x"}'])
def test_a_damaged_row_of_annotations_is_refused_with_its_place(place: Path, row: str) -> None:
    (place / "annotations.jsonl").write_text(f"{row}\n")
    with pytest.raises(StepdistillError, match=r"annotations\.jsonl.*1"):
        read_annotations(place / "annotations.jsonl")


def test_progress_is_told_to_the_end(place: Path) -> None:
    (place / "x.jsonl").write_text(ROWS)
    task, told = own(place), []
    teacher = TeacherConfig(completions={"train": str(place / "x.jsonl")})
    asked = asked_of(task, load_examples(task, DataConfig()), teacher)
    annotate_into(place, asked, lambda *event: told.append(event))
    assert told == [("read", 3, 3)]
