"""A trained student can be asked from Python, and says what it cannot do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import stepdistill
from stepdistill.deploy.cards import students
from stepdistill.deploy.model import Model
from stepdistill.deploy.runtime import Runtime
from stepdistill.errors import ConfigError, DataError, RunFolderError
from stepdistill.records import Example

ROW = {"question": "Where is the fish?", "choices": ["sea", "attic", "field"], "answer": "sea"}


@pytest.fixture(scope="module")
def folder(choices: Any) -> Path:
    """A run on a choice task so small that the student learns it by heart."""
    return Path(choices.folder)


def test_a_student_gives_the_answers_that_it_was_measured_with(folder: Path, choices: Any) -> None:
    rows = [json.loads(line) for line in (folder / "predictions.jsonl").open()]
    for name in ("finetune", "step-by-step"):
        student = stepdistill.load(folder, name)
        examples = student.read_input(choices.rows, "rows")
        measured = [row["label"] for row in rows if row["name"] == name]
        assert [p.label for p in student.predict(examples)] == measured


def test_options_are_found_in_a_text_that_has_them_as_lines(folder: Path) -> None:
    text = "Where is the cow?\nAnswer Choices:\n(a) sea\n(b) attic\n(c) field"
    assert stepdistill.load(folder).predict([text])[0].label == "field"


def test_the_student_that_explains_is_taken_where_both_are_equally_good(folder: Path) -> None:
    student = stepdistill.load(folder)
    assert student.explains
    assert student.explain(student.read_input([ROW], "rows")[0]) == "One looks there."


def test_a_student_can_be_moved_and_asked_alone(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "students" / "finetune", tmp_path / "mine")
    student = stepdistill.load(tmp_path / "mine")
    assert student.predict(student.read_input([ROW], "rows"))[0].label == "sea"


def test_what_was_taught_no_rationales_does_not_invent_them(folder: Path) -> None:
    with pytest.raises(RunFolderError, match="taught no rationales"):
        stepdistill.load(folder, "finetune").predict(["text"], explain=True)


@pytest.mark.parametrize(
    ("row", "part"),
    [
        ({"question": "Where?"}, "no column"),
        ({"text": 7}, "not text"),
        ({"text": "   "}, "empty"),
        ({"question": "Where?", "choices": "sea"}, "a list is expected"),
    ],
)
def test_a_row_that_cannot_be_asked_is_named(folder: Path, row: dict[str, object], part: str) -> None:
    with pytest.raises(DataError, match=part) as caught:
        stepdistill.load(folder).read_input([ROW, row], "in.jsonl")
    assert "in.jsonl, row 2" in str(caught.value)


def stored(folder: Path, name: str, **changes: object) -> None:
    """The card of a student that was never trained, with what `load` looks at."""
    card = {
        "name": name,
        "form": "both",
        "family": "encoder-decoder",
        "explains": True,
        "test_rationales": None,
        "validation": 0.5,
        "prefix": "encoder",
        "rationales": "teacher",
        "task": {},
        "new_tokens": {"label": 4, "rationale": 8},
        "machine": {"device": "cpu"},
    }
    (folder / "students" / name).mkdir(parents=True)
    (folder / "students" / name / "student.json").write_text(json.dumps(card | changes))


def test_a_student_that_needs_the_teachers_help_is_taken_only_where_there_is_no_other(tmp_path: Path) -> None:
    helped = {"form": "rationale-input", "explains": False, "test_rationales": "teacher", "validation": 0.9}
    stored(tmp_path, "rationale-input", **helped)
    assert stepdistill.load(tmp_path).card["name"] == "rationale-input"
    stored(tmp_path, "finetune", form="label", explains=False)
    assert stepdistill.load(tmp_path).card["name"] == "finetune"


def test_of_equals_one_that_writes_rationales_is_taken_whatever_its_form(tmp_path: Path) -> None:
    stored(tmp_path, "finetune", form="label", explains=False, rationales=None)
    stored(tmp_path, "step-by-step+none", explains=False, rationales="none")
    stored(tmp_path, "label-first", form="label-first")
    assert stepdistill.load(tmp_path).card["name"] == "label-first"


def test_a_text_alone_is_refused_by_a_student_that_needs_the_teachers_help(
    tmp_path: Path, folder: Path
) -> None:
    card = json.loads((folder / "students" / "finetune" / "student.json").read_text())
    helped = {"form": "rationale-input", "explains": False, "test_rationales": "teacher"}
    stored(tmp_path, "rationale-input", task=card["task"], **helped)
    student = stepdistill.load(tmp_path)
    with pytest.raises(RunFolderError, match="`rationale` column") as caught:
        student.predict(student.read_input([ROW], "rows"))
    assert "\n" not in str(caught.value)
    with pytest.raises(RunFolderError, match="taught no rationales"):
        student.predict(["text"], explain=True)


@pytest.fixture
def helped(folder: Path, tmp_path: Path) -> stepdistill.Runtime:
    """A student that answers with the help of a rationale."""
    task = json.loads((folder / "students" / "finetune" / "student.json").read_text())["task"]
    stored(tmp_path, "helped", task=task, form="rationale-input", explains=False, test_rationales="teacher")
    return stepdistill.load(tmp_path)


@pytest.mark.parametrize(
    ("given", "kept"), [("since", "since"), (" since \n", "since"), ("", None), (None, None)]
)
def test_a_row_may_bring_a_rationale(
    helped: stepdistill.Runtime, given: str | None, kept: str | None
) -> None:
    (example,) = helped.read_input([ROW | {"rationale": given}], "rows")
    assert example.rationale == kept


def test_a_rationale_that_is_no_text_is_refused(helped: stepdistill.Runtime) -> None:
    with pytest.raises(DataError, match="rows, row 1: the rationale is not text"):
        helped.read_input([ROW | {"rationale": 7}], "rows")


def test_a_rationale_that_nobody_needs_may_be_anything(folder: Path) -> None:
    (example,) = stepdistill.load(folder, "finetune").read_input([ROW | {"rationale": [7]}], "rows")
    assert example.rationale is None


@pytest.mark.parametrize("control", ["shuffled", "filler", "none"])
def test_a_control_is_asked_only_where_it_is_named(tmp_path: Path, control: str) -> None:
    stored(tmp_path, f"step-by-step+{control}", validation=0.9, rationales=control, explains=False)
    assert stepdistill.load(tmp_path).card["rationales"] == control
    stored(tmp_path, "step-by-step+human", validation=0.1, rationales="human")
    assert stepdistill.load(tmp_path).card["rationales"] == "human"
    assert stepdistill.load(tmp_path, explain=True).card["rationales"] == "human"
    assert stepdistill.load(tmp_path, f"step-by-step+{control}").card["rationales"] == control


@pytest.mark.parametrize("key", ["prefix", "family", "form", "new_tokens", "machine"])
def test_a_card_of_an_earlier_version_is_refused_in_one_line(folder: Path, tmp_path: Path, key: str) -> None:
    card = json.loads((folder / "students" / "finetune" / "student.json").read_text())
    del card[key]
    (tmp_path / "student.json").write_text(json.dumps(card))
    with pytest.raises(RunFolderError, match=r"student\.json: made by an earlier version; train again$"):
        stepdistill.load(tmp_path)


def of_form(folder: Path, form: str) -> Runtime:
    """The student, as if it had been trained in another form."""
    ((_, card),) = students(folder).values()
    return Runtime(Model(folder, {**card, "form": form}))


def test_where_no_rationale_was_written_there_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "write", lambda self, task, texts, *_, **__: [""] * len(texts))
    stepped = of_form(folder / "students" / "step-by-step", "rationale-first")
    assert stepped.explain("Where?\n(a) sea\n(b) field") == ""


def test_a_damaged_card_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "students" / "finetune", tmp_path / "mine")
    (tmp_path / "mine" / "student.json").write_text("{")
    with pytest.raises(DataError, match="malformed JSON"):
        stepdistill.load(tmp_path / "mine")


def test_a_card_with_a_value_that_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "students" / "finetune", tmp_path / "mine")
    card = json.loads((tmp_path / "mine" / "student.json").read_text())
    (tmp_path / "mine" / "student.json").write_text(json.dumps(card | {"form": "labels"}))
    with pytest.raises(ConfigError, match="form: unknown value 'labels'; did you mean 'label'"):
        stepdistill.load(tmp_path / "mine")


def test_a_students_own_folder_is_of_one_student(folder: Path) -> None:
    with pytest.raises(RunFolderError, match="unknown student 'step-by-step'"):
        stepdistill.load(folder / "students" / "finetune", "step-by-step")


@pytest.mark.parametrize("text", ["half \ud83d", Example("1", "x", options=("\udc00",)), 7, b"bytes"])
def test_what_is_no_text_is_refused(folder: Path, text: Any) -> None:
    student = stepdistill.load(folder)
    for ask in (lambda: student.predict(["fine", text]), lambda: student.check(text)):
        with pytest.raises(DataError, match=r"input [12]: "):
            ask()
