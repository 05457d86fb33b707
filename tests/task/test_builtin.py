"""The built-in tasks have the sizes, labels and demonstrations that their data sets are known by."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from stepdistill.config import DataConfig
from stepdistill.errors import DataError
from stepdistill.records import Annotation, Completion, Example
from stepdistill.task import claims
from stepdistill.task.load import builtin_names, load_examples, load_task
from stepdistill.task.stream import digest_examples
from stepdistill.teacher.parse import parse

NAMES = ("anli-r1", "anli-r2", "anli-r3", "asdiv", "claims", "cqa", "esnli", "svamp")
NLI = {"entailment", "neutral", "contradiction"}


@pytest.fixture
def data(real_data: Path) -> DataConfig:
    return DataConfig(root=str(real_data))


def test_these_tasks_come_with_the_package() -> None:
    assert builtin_names() == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_builtin_task_loads_under_its_own_name(name: str) -> None:
    task = load_task(name)
    assert task.spec.name == name
    assert task.spec.answer.marker in task.spec.instruction


@pytest.mark.parametrize("name", sorted({*NAMES} - {"claims"}))
def test_ten_different_demonstrations_are_read_back_as_written(name: str) -> None:
    task = load_task(name)
    demonstrations = task.demonstrations()
    assert len({d.text for d in demonstrations}) == 10
    for shown in demonstrations:
        text = task.show(shown.rationale, shown.label, shown.options)
        read = parse(Completion("1", f"{text}\n\nQ: next", "someone"), task, shown.options)
        assert isinstance(read, Annotation), text
        assert (read.rationale, read.label) == (shown.rationale, shown.label)


@pytest.mark.parametrize("name", ["anli-r1", "anli-r2", "anli-r3", "esnli"])
def test_demonstrations_of_inference_tasks_name_every_label(name: str) -> None:
    assert {d.label for d in load_task(name).demonstrations()} == NLI


def test_demonstrations_are_not_taken_from_the_data(data: DataConfig) -> None:
    for name in ("svamp", "cqa", "asdiv"):
        task = load_task(name)
        texts = {e.text for rows in load_examples(task, data).values() for e in rows}
        assert not texts & {d.text for d in task.demonstrations()}


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("svamp", {"train": 720, "validation": 80, "test": 200}),
        ("cqa", {"train": 8766, "validation": 975, "test": 1221}),
        ("asdiv", {"train": 2305}),
    ],
)
def test_splits_have_the_published_sizes_and_share_no_id(
    data: DataConfig, name: str, sizes: dict[str, int]
) -> None:
    found = load_examples(load_task(name), data)
    assert {split: len(rows) for split, rows in found.items()} == sizes
    assert len({e.id for rows in found.values() for e in rows}) == sum(sizes.values())
    assert load_examples(load_task(name), data) == found


@pytest.mark.parametrize("name", ["svamp", "cqa"])
def test_validation_is_a_seeded_share_of_the_train_file(data: DataConfig, name: str) -> None:
    task = load_task(name)
    found = load_examples(task, data)
    apart = task.spec.data.model_copy(update={"validation": None})
    whole = load_examples(type(task)(task.spec.model_copy(update={"data": apart})), data)["train"]
    place = {e.id: number for number, e in enumerate(whole)}
    for rows in (found["train"], found["validation"]):
        assert [whole[place[e.id]] for e in rows] == rows == sorted(rows, key=lambda e: place[e.id])
    assert len(found["train"]) + len(found["validation"]) == len(whole)
    spread = [place[e.id] / len(whole) for e in found["validation"]]
    assert 0.4 < sum(spread) / len(spread) < 0.6


def test_svamp_holds_no_test_problem_in_its_training_inputs(data: DataConfig) -> None:
    found = load_examples(load_task("svamp"), data)
    test = {e.text for e in found["test"]}
    assert len(test) == 200
    assert not test & {e.text for e in found["train"] + found["validation"]}


def test_svamp_labels_are_all_arithmetic(data: DataConfig) -> None:
    kind = load_task("svamp").kind
    found = load_examples(load_task("svamp"), data)
    assert all(kind.same(str(e.label), str(e.label)) for rows in found.values() for e in rows)
    assert found["test"][0].label == "( 10.0 * 45.0 )"
    assert found["test"][0].id == "test-0"


def test_cqa_labels_are_among_the_five_options_and_stand_in_the_text(data: DataConfig) -> None:
    for rows in load_examples(load_task("cqa"), data).values():
        assert {len(e.options) for e in rows} == {5}
        assert all(e.label in e.options for e in rows)
        assert all(f"\n({'abcde'[e.options.index(str(e.label))]}) {e.label}" in e.text for e in rows)


def test_asdiv_is_unlabelled(data: DataConfig) -> None:
    found = load_examples(load_task("asdiv"), data)["train"]
    assert {e.label for e in found} == {None}
    assert found[0].id == "nluds-0001"
    assert found[0].text.startswith("Seven red apples and two green apples are in the basket.\nHow many")


def test_unlabelled_inputs_of_asdiv_join_the_training_of_svamp_alone(data: DataConfig) -> None:
    task = load_task("svamp")
    plain, more = load_examples(task, data), load_examples(task, with_(data, unlabelled="asdiv"))
    added = more["train"][len(plain["train"]) :]
    assert more["train"][:720] == plain["train"]
    assert len(added) == 2305
    assert all(e.id.startswith("asdiv:") and e.label is None for e in added)
    assert (more["validation"], more["test"]) == (plain["validation"], plain["test"])
    assert digest_examples(more) != digest_examples(plain)


def with_(data: DataConfig, **changes: Any) -> DataConfig:
    return data.model_copy(update=changes)


def test_esnli_without_its_train_file_still_gives_the_other_splits(data: DataConfig) -> None:
    found = load_examples(load_task("esnli"), data, only=("validation", "test"))
    assert {split: len(rows) for split, rows in found.items()} == {"validation": 9842, "test": 9824}
    for rows in found.values():
        assert {e.label for e in rows} == NLI
        assert all(e.text.startswith("Premise: ") and "\nHypothesis: " in e.text for e in rows)
    assert [e.label for e in found["test"][:2]] == ["neutral", "entailment"]


def test_a_missing_train_file_of_esnli_is_named(data: DataConfig) -> None:
    with pytest.raises(DataError, match=r"esnli_train\.json: no such file .*data\.root") as caught:
        load_examples(load_task("esnli"), data)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [1, 2, 3])
def test_anli_is_read_from_files_of_the_authors_layout(tmp_path: Path, number: int) -> None:
    for split, label in (("train", 0), ("valid", 1), ("test", 2)):
        rows = [{"premise": f"It rains {i}.", "hypothesis": "It is wet.", "label": label} for i in range(3)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"anli{number}_{split}.json").write_text(text)
    found = load_examples(load_task(f"anli-r{number}"), DataConfig(root=str(tmp_path)))
    assert {split: [e.label for e in rows] for split, rows in found.items()} == {
        "train": ["entailment"] * 3,
        "validation": ["neutral"] * 3,
        "test": ["contradiction"] * 3,
    }
    assert found["test"][2].text == "Premise: It rains 2.\nHypothesis: It is wet."


@pytest.fixture(scope="module")
def letters() -> dict[Any, list[Example]]:
    return load_examples(load_task("claims"), DataConfig(root="/no/such/folder"))


def test_claims_need_no_file_and_are_the_same_every_time(letters: dict[Any, list[Example]]) -> None:
    task = load_task("claims")
    assert task.spec.data.generator is not None
    assert {split: len(rows) for split, rows in letters.items()} == task.spec.data.generator.sizes
    assert set(letters) == {"train", "validation", "test"}
    assert digest_examples(load_examples(task, DataConfig())) == digest_examples(letters)


def test_claims_share_no_letter_between_splits_and_no_label_word_with_the_text(
    letters: dict[Any, list[Example]],
) -> None:
    texts = [e.text for rows in letters.values() for e in rows]
    assert len(set(texts)) == len(texts) >= 1500
    assert not [text for text in texts if {*re.findall(r"\w+", text.lower())} & {*claims.LABELS}]


def test_claims_have_balanced_labels(letters: dict[Any, list[Example]]) -> None:
    for rows in letters.values():
        shares = Counter(e.label for e in rows)
        assert set(shares) == set(claims.LABELS)
        assert all(0.17 < count / len(rows) < 0.33 for count in shares.values()), shares
