"""An answer of kind `choice` is read as one of the options of its example, by one of three rules."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepdistill.task.answers import RULES, Reading
from stepdistill.task.closed import ChoiceKind, options_in
from stepdistill.task.reading import normal

LAKE = ("sea", "lake", "deep sea", "michigan", "a well")

quick = settings(max_examples=150, deadline=None)
words = st.text("abcdefgh ÄßİΣ0123456789-'", min_size=1, max_size=12)
options = st.lists(words.map(str.strip).filter(normal), min_size=2, max_size=8, unique_by=normal)
noise = st.one_of(st.text(max_size=200), st.text("()abcdeABC .:,\n", max_size=60))


@pytest.mark.parametrize("rule", RULES["choice"])
@quick
@given(text=noise, given_options=options)
def test_a_choice_kind_reads_options_of_the_example_only(
    rule: str, text: str, given_options: list[str]
) -> None:
    for asked in (text, f"({text[:1]}) {given_options[0]}.", f"{given_options[1]} {text}"):
        assert ChoiceKind(rule).read(asked, given_options).label in (None, *given_options)


# A defect when written: the words of an answer are not its list of options.
@pytest.mark.parametrize("text", ["(a) lake.", "(a) sea (b) lake", "lake", "a"])
@pytest.mark.parametrize("rule", RULES["choice"])
def test_a_choice_without_options_has_no_label(rule: str, text: str) -> None:
    assert ChoiceKind(rule).read(text).label is None


@pytest.mark.parametrize("rule", RULES["choice"])
@quick
@given(given_options=options)
def test_an_option_that_is_shown_is_read_back(rule: str, given_options: list[str]) -> None:
    kind = ChoiceKind(rule)
    for label in given_options:
        assert kind.read(kind.show(label, given_options) + ".", given_options).label == label
        assert kind.gold(label, given_options) == label


# A defect when written: a letter in brackets inside the words of an option is no second answer.
def test_an_option_with_a_letter_in_brackets_is_read_back() -> None:
    given_options = ("vitamin (c)", "plan (a)", "iron")
    for label in given_options:
        shown = ChoiceKind().show(label, given_options)
        assert ChoiceKind().read(f"{shown}.", given_options).label == label


def test_of_equal_options_the_first_is_shown_and_the_text_is_the_label() -> None:
    assert ChoiceKind().show("bank", ("park", "bank", "bank")) == "(b) bank"
    assert ChoiceKind().read("(c) bank", ("park", "bank", "bank")).label == "bank"


@pytest.mark.parametrize(
    ("text", "sole", "first", "by_text"),
    [
        ("(b) lake.", "lake", "lake", "lake"),
        ("(B) Lake.", "lake", "lake", None),
        ("(b)", "lake", "lake", None),
        ("(b", None, None, None),
        ("b)", "lake", "lake", None),
        ("b) lake", "lake", "lake", None),
        ("b", "lake", "lake", None),
        ("B.", "lake", "lake", None),
        ("b: lake", "lake", "lake", None),
        ("bathtub", None, None, None),
        ("a well", "a well", "a well", "a well"),
        ("lake", "lake", "lake", "lake"),
        ("the lake", "lake", "lake", None),
        ("a deep sea", "deep sea", "deep sea", None),
        ("sea or lake", None, None, None),
        ("either (a) sea or (b) lake.", None, "sea", None),
        ("(b) lake, yes (b)", "lake", "lake", None),
        ("(d) Michigan.", "michigan", "michigan", None),
        ("(d) michigan", "michigan", "michigan", "michigan"),
        ("(a) lake.", "sea", "sea", "lake"),
        ("(f) river", None, None, None),
        ("f", None, None, None),
        ("(\u0430) sea", "sea", "sea", None),
        ("", None, None, None),
        ("none of them", None, None, None),
    ],
)
def test_the_three_rules_read_options_as_documented(
    text: str, sole: str | None, first: str | None, by_text: str | None
) -> None:
    found = [ChoiceKind(rule).read(text, LAKE) for rule in RULES["choice"]]
    assert [reading.label for reading in found] == [sole, first, by_text]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("either (a) sea or (b) lake.", "several options"),
        ("sea, lake", "several options"),
        ("(f) river", "no such option"),
        ("river", "not an option"),
        ("...", "empty answer"),
    ],
)
def test_an_unread_choice_says_why(text: str, reason: str) -> None:
    assert ChoiceKind().read(text, LAKE) == Reading(None, "", reason)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Where?\nAnswer Choices:\n(a) sea\n(b) deep lake \n", ("sea", "deep lake")),
        ("(a) x\n(c) y", ()),
        # A defect when written: "bc" is a part of the alphabet, too.
        ("(b) x\n(c) y", ()),
        ("(b) x\n(a) y", ()),
        ("no options", ()),
        ("", ()),
    ],
)
def test_options_are_found_in_a_text_when_lettered_from_a_without_a_gap(
    text: str, found: tuple[str, ...]
) -> None:
    assert options_in(text) == found


# A defect when written: the time grew with the square of the white space, in texts of strangers.
@pytest.mark.parametrize("text", ["\n" * 20_000, "(a) x" + " " * 20_000 + "y"])
def test_options_are_found_in_time_that_grows_with_the_text(text: str) -> None:
    start = time.process_time()
    options_in(text)
    assert time.process_time() - start < 0.2


@pytest.mark.parametrize(
    ("text", "label"),
    [
        *(("lake", "lake"), ("Lake.", "lake"), ("(b) lake", "lake"), ("(B)", "lake"), ("b", "lake")),
        *(("b.", "lake"), ("b) lake", "lake"), ("(b) sea", None), ("the lake", None), ("not (b)", None)),
        *(("(f)", None), ("", None), ("...", None), ("sea, lake", None), ("lkae", None)),
    ],
)
def test_an_option_that_stands_alone_is_all_of_the_text(text: str, label: str | None) -> None:
    found = ChoiceKind().alone(text, LAKE)
    assert (found.label, found.rule) == (label, "exact" if label else "")


def test_the_rule_text_takes_no_letter_for_an_option_that_stands_alone() -> None:
    assert ChoiceKind("text").alone("(B)", LAKE).label is None
    assert ChoiceKind("text").alone("lake", LAKE) == Reading("lake", "exact")


@quick
@given(text=noise, given_options=options)
def test_what_stands_alone_is_read_the_same_way_as_an_answer(text: str, given_options: list[str]) -> None:
    for asked in (text, *given_options):
        found = ChoiceKind().alone(asked, given_options)
        assert found.label is None or ChoiceKind().read(asked, given_options).label == found.label
