"""What does not fit is counted and refused, or left out when asked; nothing is cut."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError
from stepdistill.records import Target
from stepdistill.student.encode import Branch, Encoder, Item, Row
from stepdistill.student.limits import (
    Limits,
    check_asked,
    check_inputs,
    check_label_set,
    limits_of,
    placed_tokens,
)
from stepdistill.student.methods import Form, one_sequence, with_rationale
from stepdistill.student.model import Student

FAMILIES = ("encoder-decoder", "causal")
SIZE = st.integers(1, 12)
SHAPES = st.lists(
    st.tuples(SIZE, st.lists(st.tuples(st.booleans(), st.integers(0, 3), SIZE), min_size=1, max_size=3)),
    min_size=1,
    max_size=8,
)


def an_item(source: int, label: int | None = 2, rationale: int | None = None, opening: int = 0) -> Item:
    """An item of one row whose parts have the given lengths."""
    branches = [
        Branch("label" if task == 0 else "rationale", [3] * opening, [7] * (size - 1) + [1])
        for task, size in enumerate((label, rationale))
        if size is not None
    ]
    return (Row([5] * source, tuple(branches)),)


def sifted(limits: Limits, items: list[Item]) -> list[str]:
    """Ids, counted from 0, of what passes."""
    return [name for name, _ in limits.sift((str(i), item) for i, item in enumerate(items))]


def limits(family: str = "causal", **more: Any) -> Limits:
    plain: dict[str, Any] = {"max_input": 10, "max_target": 6, "positions": None}
    return Limits(**{**plain, "family": family, **more})  # type: ignore[arg-type]


def refusal(found: Limits) -> str:
    with pytest.raises(StudentError) as caught:
        found.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_as_long_as_allowed_pass_unchanged(family: str) -> None:
    found, item = limits(family), an_item(10, 6, 6, opening=2)
    assert list(found.sift([("a", item)])) == [("a", item)]
    found.check()
    assert found.note is None
    assert found.report() == {"seen": 1, "left_out": 0, "over": {}}


@pytest.mark.parametrize(
    ("items", "said", "key"),
    [
        (
            [an_item(11), an_item(10), an_item(13)],
            "2 of 3 examples have an input of more than 10 tokens (the longest: 13; ids: '0', '2')",
            "train.max_input_tokens",
        ),
        (
            [an_item(5), an_item(5, 2, 9), an_item(5, 7)],
            "2 of 3 examples have a target of more than 6 tokens (the longest: 9; ids: '1', '2')",
            "train.max_target_tokens",
        ),
    ],
)
def test_a_text_too_long_is_refused_with_count_longest_ids_and_setting(
    items: list[Item], said: str, key: str
) -> None:
    found = limits()
    sifted(found, items)
    message = refusal(found)
    assert message.startswith(said)
    assert message.endswith(f"raise {key}, or leave such examples out (train.too_long: drop)")


def test_all_that_is_too_long_is_said_at_once() -> None:
    found = limits(positions=15)
    sifted(found, [an_item(11), an_item(4, 7), an_item(10, 6), an_item(10, 6, opening=1)])
    message = refusal(found)
    for part in (
        "1 of 4 examples have an input",
        "1 of 4 examples have a target",
        "more than the model's 15 ",
    ):
        assert part in message
    assert "positions for input and answer (the longest: 16; ids: '3')" in message
    assert "max_input_tokens, raise train.max_target_tokens, take a student with more positions" in message


def test_left_out_by_choice_is_counted_and_noted() -> None:
    found = limits(policy="drop")
    assert sifted(found, [an_item(11, 9), an_item(5), an_item(12)]) == ["1"]
    found.check()
    assert found.report() == {
        "seen": 3,
        "left_out": 2,
        "over": {
            "input": {"limit": 10, "count": 2, "longest": 12, "first": ["0", "2"]},
            "target": {"limit": 6, "count": 1, "longest": 9, "first": ["0"]},
        },
    }
    assert found.note
    assert found.note.startswith("left out 2 of 3 examples: 2 of 3 examples have an input of more than 10 ")
    assert "\n" not in found.note


def test_of_many_ids_the_first_stand_for_the_rest() -> None:
    found = limits(policy="drop")
    sifted(found, [an_item(11)] * 50 + [an_item(2)])
    assert found.report()["over"]["input"]["first"] == ["0", "1", "2"]
    assert "ids: '0', '1', '2', …)" in str(found.note)


def test_an_id_with_a_line_break_stays_in_one_line() -> None:
    found = limits()
    list(found.sift([("a\nb" + "c" * 100, an_item(11))]))
    assert len(refusal(found)) < 300


@pytest.mark.parametrize("policy", ["error", "drop"])
def test_to_be_left_with_nothing_is_an_error_under_either_policy(policy: str) -> None:
    found = limits(policy=policy)
    assert sifted(found, [an_item(11), an_item(12)]) == []
    assert "2 of 2 examples have an input" in refusal(found)
    assert "no training example is left of 0" in refusal(limits(policy=policy))


def test_to_be_left_without_rationales_is_an_error() -> None:
    found = limits(policy="drop")
    assert sifted(found, [an_item(5, 2, 9), an_item(5, 2)]) == ["1"]
    assert "finetuning under another name" in refusal(found)
    plain = limits(policy="drop")
    sifted(plain, [an_item(11), an_item(5, 2)])
    plain.check()
    kept = limits(policy="drop")
    sifted(kept, [an_item(5, 2, 9), an_item(5, 2, 3)])
    kept.check()


def test_a_causal_model_places_input_marker_and_target_in_one_row() -> None:
    # Branches begin at the same place, so they do not add up; the last token is only predicted.
    item = an_item(8, 3, 6, opening=2)
    assert sifted(limits(positions=8 + 2 + 6 - 1), [item]) == ["0"]
    assert sifted(limits(positions=8 + 2 + 6 - 2), [item]) == []


def test_an_encoder_decoder_places_input_and_target_by_themselves() -> None:
    item = an_item(8, 3, 6, opening=1)
    assert sifted(limits("encoder-decoder", positions=8), [item]) == ["0"]
    assert sifted(limits("encoder-decoder", positions=7), [item]) == []
    long = an_item(3, 3, 6, opening=2)
    assert sifted(limits("encoder-decoder", positions=8), [long]) == ["0"]
    assert sifted(limits("encoder-decoder", positions=7), [long]) == []


@pytest.mark.parametrize("family", FAMILIES)
@given(shapes=SHAPES, bounds=st.tuples(SIZE, SIZE, st.none() | st.integers(1, 20)))
def test_kept_and_left_out_are_all_there_is_in_order(
    family: str, shapes: Any, bounds: tuple[int, int, int | None]
) -> None:
    items = [
        (Row([5] * size, tuple(Branch("rationale" if r else "label", [3] * o, [1] * t) for r, o, t in rest)),)
        for size, rest in shapes
    ]
    max_input, max_target, positions = bounds
    found = limits(family, max_input=max_input, max_target=max_target, positions=positions, policy="drop")
    kept = sifted(found, items)
    expected = [
        str(i)
        for i, (size, rest) in enumerate(shapes)
        if size <= max_input
        and all(t <= max_target for _, _, t in rest)
        and (
            positions is None
            or all(
                (size + o + t - 1 if family == "causal" else max(size, o + t)) <= positions
                for _, o, t in rest
            )
        )
    ]
    assert kept == expected
    assert found.report()["left_out"] == len(shapes) - len(kept)
    assert (found.note is None) == (len(kept) == len(shapes))


def test_examples_are_read_one_at_a_time() -> None:
    read = 0

    def endless() -> Iterator[tuple[str, Item]]:
        nonlocal read
        for number in itertools.count():
            read += 1
            yield str(number), an_item(11 if number % 2 else 5)

    found = limits(policy="drop")
    passed = found.sift(endless())
    assert [next(passed)[0] for _ in range(1000)] == [str(2 * i) for i in range(1000)]
    assert read == 1999
    assert len(found.found.over["input"].first) == 3


def test_two_limits_share_no_counts() -> None:
    first, second = limits(), limits()
    sifted(first, [an_item(11)])
    assert second.found.seen == 0
    assert first == second
    assert dataclasses.replace(first, policy="drop") != second


def test_room_for_an_answer_is_a_quarter_more_than_the_longest_kept_target() -> None:
    found = limits(policy="drop", max_target=100)
    sifted(found, [an_item(5, 2, 41), an_item(5, 8, 3), an_item(11, 90), an_item(5, 2, 101)])
    assert found.new_tokens == {"label": 14, "rationale": 55}


def test_room_for_an_answer_ends_at_the_decoders_positions() -> None:
    found = limits("encoder-decoder", positions=12, max_target=100)
    sifted(found, [an_item(5, 8, opening=1)])
    assert found.new_tokens == {"label": 11}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_limits_of_a_run_file_fit_the_student(make_student: Callable[..., Student], family: str) -> None:
    student = make_student(family)
    config = TrainConfig(max_input_tokens=20, max_target_tokens=9, too_long="drop")
    found = limits_of(student.encoder, config, student.model)
    assert (found.max_input, found.max_target, found.policy) == (20, 9, "drop")
    assert found.positions == (128 if family == "causal" else None)
    assert found.unknown == student.tokenizer.unk_token_id
    student.tokenizer.unk_token = student.tokenizer.eos_token
    assert limits_of(student.encoder, config, student.model).unknown is None


def test_a_label_that_the_tokenizer_does_not_know_is_refused(make_student: Callable[..., Student]) -> None:
    student = make_student()
    encoder = student.encoder
    known, unknown = Target("0", "How many?", "7", "label"), Target("1", "How many?", "zebras", "label")
    reason = Target("0", "How many?", "zebras", "rationale")
    found = limits_of(encoder, TrainConfig(), student.model)
    sifted(found, [encoder.item([known, reason])])
    found.check()
    sifted(found, [encoder.item([unknown])])
    assert "1 of 2 labels have words or signs" in refusal(found)


@pytest.mark.parametrize("form", ["rationale-first", "label-first"])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_one_sequence_only_the_labels_words_must_be_known(
    make_student: Callable[..., Student], family: str, form: Form
) -> None:
    student = make_student(family)
    found = limits_of(student.encoder, TrainConfig(), student.model)
    for label, reason in (
        ("7", "zebras make 7."),
        ("7", ""),
        ("7", "3 and 4"),
        ("yak", "3 and 4"),
        ("yak", ""),
    ):
        target = Target("0", "How many?", one_sequence(form, label, reason), "label")
        sifted(found, [student.encoder.item([target])])
    assert "2 of 5 labels have words or signs" in refusal(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_input_to_be_asked_must_leave_room_for_the_answer(
    make_student: Callable[..., Student], family: str
) -> None:
    encoder, text = make_student(family).encoder, "Ben has 3 apples and gets 4 more today."
    length = len(encoder.source(text, "label"))
    beside = len(encoder.opening("label")) + 8 - 1 if family == "causal" else 0
    enough = limits(family, max_input=length, positions=length + beside)
    check_inputs(encoder, iter([text, "How many?"]), 8, enough)
    check_inputs(encoder, [], 8, limits(family, max_input=1, positions=1))
    with pytest.raises(
        StudentError, match=f"has {length + beside - 1} positions .* needs {length + beside} "
    ):
        check_inputs(encoder, [text], 8, limits(family, max_input=99, positions=length + beside - 1))
    with pytest.raises(
        StudentError, match=rf"1 of 2 inputs .* more than {length - 1} tokens .* has {length}\)"
    ):
        check_inputs(encoder, ["How many?", text], 8, limits(family, max_input=length - 1))


def test_an_answer_must_fit_the_decoder_too(make_student: Callable[..., Student]) -> None:
    encoder = make_student("encoder-decoder").encoder
    check_inputs(encoder, ["7"], 20, limits("encoder-decoder", positions=20))
    with pytest.raises(StudentError, match=r"has 19 positions .* needs 20 "):
        check_inputs(encoder, ["7"], 20, limits("encoder-decoder", positions=19))


def test_the_task_that_is_asked_counts(make_student: Callable[..., Student]) -> None:
    student = make_student("encoder-decoder")
    encoder = Encoder(student.tokenizer, "encoder-decoder")
    label, rationale = (len(encoder.source("7", task)) for task in ("label", "rationale"))
    tight = limits("encoder-decoder", max_input=min(label, rationale))
    check_inputs(encoder, ["7"], 8, tight, "label" if label <= rationale else "rationale")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bound", ["max_input", "positions"])
def test_a_rationale_that_the_student_writes_first_takes_room_in_the_input(
    make_student: Callable[..., Student], family: str, bound: str
) -> None:
    encoder, text = make_student(family).encoder, "Ben has 3 apples and gets 4 more today."

    def allowing(size: int) -> Limits:
        found = limits(family, **{"max_input": 99, "positions": None, "max_target": 99, bound: size})
        found.found.new_tokens.update(label=2, rationale=20)
        return found

    with_marker = len(encoder.source(with_rationale(text, ""), "label"))
    beside = len(encoder.opening("label")) + 2 - 1 if family == "causal" and bound == "positions" else 0
    needed = with_marker + 20 + beside
    check_asked(encoder, [text], allowing(needed), reasons_first=True)
    with pytest.raises(StudentError, match=f"{needed}.*, 20 of them for a rationale of its own") as caught:
        check_asked(encoder, [text], allowing(needed - 1), reasons_first=True)
    assert "\n" not in str(caught.value)
    check_asked(encoder, [text], allowing(needed - 1))


def test_where_rationales_are_learned_there_must_be_room_to_write_them(
    make_student: Callable[..., Student],
) -> None:
    encoder = make_student("causal").encoder
    length = len(encoder.source("How many?", "rationale")) + len(encoder.opening("rationale"))
    found = limits(max_input=99, positions=length + 20 - 1)
    found.found.new_tokens.update(label=2, rationale=20)
    check_asked(encoder, iter(["How many?"]), found)
    found.found.new_tokens["rationale"] = 21
    with pytest.raises(StudentError, match=f"needs {length + 20} with 21 "):
        check_asked(encoder, iter(["How many?"]), found)


def test_labels_that_are_the_same_tokens_are_refused(make_student: Callable[..., Student]) -> None:
    encoder = make_student().encoder
    check_label_set(encoder, ["7", "3", "apples", "3 apples", "7"])
    with pytest.raises(StudentError) as caught:
        check_label_set(encoder, ["7", "zebra", "3", "yak"])
    assert "'zebra' and 'yak' are the same tokens" in str(caught.value)
    assert "rename one" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES)
@given(source=SIZE, opening=st.integers(0, 4), target=SIZE)
def test_places_needed_are_the_tokens_read(family: str, source: int, opening: int, target: int) -> None:
    written = [*["start"] * (family != "causal"), *["open"] * opening, *["word"] * (target - 1)]
    expected = source + len(written) if family == "causal" else max(source, len(written))
    assert placed_tokens(family, source, opening, target) == expected  # type: ignore[arg-type]
