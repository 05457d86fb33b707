"""Task files and their data are found, limited and refused as the documentation says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stepdistill.config import DataConfig, LimitConfig
from stepdistill.errors import ConfigError, DataError
from stepdistill.task.load import Task, load_examples, load_task
from stepdistill.task.schema import template_fields

ROWS = [{"message": f"message {i}", "team": "yes" if i % 3 else "no"} for i in range(60)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `own` with the data of a task, the environment variable not set."""
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    (tmp_path / "own").mkdir()
    for split in ("train", "test"):
        text = "".join(json.dumps(row) + "\n" for row in ROWS)
        (tmp_path / "own" / f"{split}.jsonl").write_text(text)
    return tmp_path


@pytest.fixture
def make(place: Path) -> Callable[..., Task]:
    """A task file in the folder `files`, away from its data."""

    def maker(**changes: Any) -> Task:
        spec = {
            "name": "own",
            "instruction": "Decide.",
            "input": "{message}",
            "answer": {"kind": "label", "column": "team", "labels": ["yes", "no"]},
            "data": {
                "files": {"train": "train.jsonl", "test": "test.jsonl"},
                "validation": {"from": "train", "n": 10, "seed": 0},
            },
        } | changes
        (place / "files").mkdir(exist_ok=True)
        (place / "files" / "own.yaml").write_text(yaml.safe_dump(spec))
        return load_task(str(place / "files" / "own.yaml"))

    return maker


@pytest.mark.parametrize("root", ["own", "."])
def test_data_root_is_the_folder_of_the_files_or_its_parent(
    make: Callable[..., Task], place: Path, root: str
) -> None:
    found = load_examples(make(), DataConfig(root=str(place / root)))
    assert {split: len(rows) for split, rows in found.items()} == {"train": 50, "validation": 10, "test": 60}


@pytest.mark.parametrize("root", ["own", "."])
def test_the_environment_variable_stands_for_data_root(
    make: Callable[..., Task], place: Path, monkeypatch: pytest.MonkeyPatch, root: str
) -> None:
    given = load_examples(make(), DataConfig(root=str(place / root)))
    monkeypatch.setenv("STEPDISTILL_DATA", str(place / root))
    assert load_examples(make(), DataConfig()) == given


def test_data_root_goes_before_the_environment_variable(
    make: Callable[..., Task], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPDISTILL_DATA", "/no/such/folder")
    assert load_examples(make(), DataConfig(root=str(place)))


def test_a_tilde_stands_for_the_home_folder(
    make: Callable[..., Task], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert load_examples(make(), DataConfig(root="~/own"))


@pytest.mark.parametrize("root", ["nowhere", "own/train.jsonl"])
def test_a_data_root_that_is_no_folder_is_refused(make: Callable[..., Task], place: Path, root: str) -> None:
    with pytest.raises(DataError, match=r"no such folder; .*data\.root"):
        load_examples(make(), DataConfig(root=str(place / root)))


def test_without_any_root_a_builtin_task_says_which_files_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)
    with pytest.raises(DataError, match=r"svamp_train\.json, svamp_test\.json as data\.root .*STEPDISTILL"):
        load_examples(load_task("svamp"), DataConfig(source="files"))


def test_smaller_limits_are_prefixes_of_larger_ones(make: Callable[..., Task], place: Path) -> None:
    def limited(n: int | None) -> dict[str, list[Any]]:
        limit = LimitConfig(train=n, validation=n and n // 4, test=n)
        return load_examples(make(), DataConfig(root=str(place), limit=limit))  # type: ignore[return-value]

    ten, twenty, whole = limited(10), limited(20), limited(None)
    assert [len(ten[s]) for s in ("train", "validation", "test")] == [10, 2, 10]
    for split in whole:
        assert whole[split][: len(twenty[split])] == twenty[split]
        assert twenty[split][: len(ten[split])] == ten[split]


def test_the_validation_split_depends_on_its_own_seed_alone(make: Callable[..., Task], place: Path) -> None:
    data = DataConfig(root=str(place))

    def chosen(seed: int) -> list[str]:
        validation = {"from": "train", "n": 10, "seed": seed}
        task = make(data={"files": {"train": "train.jsonl"}, "validation": validation})
        return [e.id for e in load_examples(task, data)["validation"]]

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


@pytest.mark.parametrize("n", [60, 61])
def test_a_validation_split_as_large_as_its_origin_is_refused(
    make: Callable[..., Task], place: Path, n: int
) -> None:
    task = make(data={"files": {"train": "train.jsonl"}, "validation": {"from": "train", "n": n}})
    with pytest.raises(DataError, match=rf"{n} examples for validation do not fit into 60 of 'train'"):
        load_examples(task, DataConfig(root=str(place)))


# A defect when written: validation alone was empty, since train was not read.
@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_one_split_alone_is_the_same_as_among_all(make: Callable[..., Task], place: Path, split: Any) -> None:
    data = DataConfig(root=str(place))
    assert load_examples(make(), data, only=(split,)) == {split: load_examples(make(), data)[split]}


def test_unlabelled_inputs_hide_the_gold_labels_of_the_other_task(
    make: Callable[..., Task], place: Path
) -> None:
    other = yaml.safe_load((make(), place / "files" / "own.yaml")[1].read_text()) | {"name": "other"}
    other["input"] = "Elsewhere: " + other["input"]
    (place / "files" / "other.yaml").write_text(yaml.safe_dump(other))
    data = DataConfig(root=str(place / "own"), unlabelled=str(place / "files" / "other.yaml"))
    found = load_examples(make(), data)["train"]
    assert len(found) == 100
    assert {(e.id.split(":")[0], e.label) for e in found[50:]} == {("other", None)}


def test_unlabelled_inputs_that_are_held_out_are_not_trained_on(
    make: Callable[..., Task], place: Path
) -> None:
    twin = yaml.safe_load((make(), place / "files" / "own.yaml")[1].read_text()) | {"name": "twin"}
    (place / "files" / "twin.yaml").write_text(yaml.safe_dump(twin))
    data = DataConfig(root=str(place / "own"), unlabelled=str(place / "files" / "twin.yaml"))
    found = load_examples(make(), data)
    held_out = {e.text for split in ("validation", "test") for e in found.get(split, [])}
    added = [e for e in found["train"] if e.id.startswith("twin:")]
    assert held_out.isdisjoint(e.text for e in added)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("savmp", ["unknown task 'savmp'", "did you mean 'svamp'", "cqa", ".yaml"]),
        ("", ["unknown task ''", "svamp"]),
        ("../svamp", ["unknown task '../svamp'"]),
        ("absent.yaml", ["absent.yaml", "no such file"]),
    ],
)
def test_an_unknown_task_is_answered_with_the_list(name: str, said: list[str]) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        load_task(name)
    assert [part for part in said if part not in str(caught.value)] == []


LABEL = {"kind": "label", "column": "team", "labels": ["yes", "no"]}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": "{message.upper}"}, ["input", "only plain {column} fields"]),
        ({"answer": LABEL | {"labels": ["yes"]}}, ["answer", "at least two different `labels`"]),
        ({"answer": LABEL | {"labels": ["yes", "yes"]}}, ["at least two different `labels`"]),
        ({"answer": LABEL | {"kind": "lable"}}, ["answer.kind", "did you mean 'label'", "equation"]),
        ({"answer": LABEL | {"codes": {0: "yess"}}}, ["codes", "yess"]),
        ({"answer": LABEL | {"read": "brackets"}}, ["read: brackets", "'label'", "none"]),
        ({"answer": {"kind": "equation", "read": "first"}}, ["read: first", "whole, brackets"]),
        ({"answer": {"kind": "choice"}}, ["'choice' needs `options`"]),
        ({"answer": {"kind": "text", "marker": ""}}, ["marker"]),
        # A defect when written: such a marker stands everywhere.
        ({"answer": {"kind": "text", "marker": " \n"}}, ["marker"]),
        ({"answer": {"kind": "text", "markr": "x"}}, ["answer.markr", "did you mean 'marker'"]),
        ({"data": {}}, ["data needs `files` or `hub`"]),
        ({"data": {"files": {"trian": "a"}}}, ["trian", "did you mean 'train'"]),
        (
            {"demonstrations": [{"row": {}, "rationale": "r", "label": "yes"}]},
            ["demonstration 1", "'message'"],
        ),
        (
            {"demonstrations": [{"row": {"message": "m"}, "rationale": "r", "label": "maybe"}]},
            ["demonstration 1", "'maybe'", "yes, no"],
        ),
        ({"name": ""}, ["name", "at least 1 character"]),
        ({"instructoin": "x"}, ["instructoin", "did you mean 'instruction'"]),
    ],
)
def test_a_wrong_task_file_is_refused_with_its_name_and_place(
    make: Callable[..., Task], changes: dict[str, Any], said: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(**changes)
    message = str(caught.value)
    assert [part for part in ["own.yaml", *said] if part not in message] == [], message
    assert "\n" not in message


# A defect when written: reading drops case and punctuation, so these were silently taken for one another.
@pytest.mark.parametrize(
    "labels", [["+", "-"], ["C", "C++", "D"], ["1", "-1"], ["yes", "Yes!"], ["...", "a"]]
)
def test_labels_that_reading_cannot_tell_apart_are_refused(
    make: Callable[..., Task], labels: list[str]
) -> None:
    with pytest.raises(ConfigError, match="labels") as caught:
        make(answer=LABEL | {"labels": labels})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "names"),
    [
        ("Q: {question} {{sic}}", ["question"]),
        ("{a}{b}{a}", ["a", "b", "a"]),
        ("{two words}", ["two words"]),
        ("no field", []),
    ],
)
def test_plain_fields_are_the_columns_of_a_template(template: str, names: list[str]) -> None:
    assert template_fields(template) == names


# A defect when written: "{0}" was let through and raised IndexError at the first row.
@pytest.mark.parametrize(
    "template",
    ["{a.b}", "{a[0]}", "{a!r}", "{a:>10}", "{a:{b}}", "{}", "{0}", "{12}", "{!r}", "{", "}", "{a", "{a}}"],
)
def test_anything_but_plain_fields_is_refused(make: Callable[..., Task], template: str) -> None:
    with pytest.raises(ValueError):
        template_fields(template)
    with pytest.raises(ConfigError, match="input"):
        make(input=template)


# A defect when written: "{a!r}" was refused as "{a}", which is allowed.
@pytest.mark.parametrize("template", ["{a!r}", "{a:>10}"])
def test_a_refused_field_is_quoted_as_it_stands(template: str) -> None:
    with pytest.raises(ValueError) as caught:
        template_fields(template)
    assert template in str(caught.value)


def test_values_with_braces_are_put_in_as_they_are(make: Callable[..., Task]) -> None:
    assert make().render({"message": "{team} {0} {"}) == "{team} {0} {"


def test_json_rows_may_lack_the_label_but_not_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(
        "{name: t, instruction: i, input: '{x}', answer: {kind: label, labels: [a, b], column: y}, "
        "data: {files: {train: train.jsonl}}}"
    )
    task, rows = load_task(str(tmp_path / "task.yaml")), tmp_path / "train.jsonl"
    rows.write_text('{"x": 1}\n{"x": 2, "y": "a"}\n')
    assert [e.label for e in load_examples(task, DataConfig())["train"]] == [None, "a"]
    rows.write_text('{"x": 1}\n{"x": 2}\n')
    with pytest.raises(DataError, match="row 1: no column 'y'; the row has: x"):
        load_examples(task, DataConfig())
