"""Rationales: their length, their likeness to people's, and whether they lead to their label."""

from __future__ import annotations

import sys

import pytest
import sacrebleu

from stepdistill.evaluate.rationales import Explained, chrf, judge, rationale_scores, read_label
from stepdistill.task.closed import ChoiceKind, LabelKind
from stepdistill.task.opened import NumberKind, TextKind

TEAMS = LabelKind(("billing", "technical"))


@pytest.mark.parametrize(
    ("rationale", "label", "verdict"),
    [
        ("A bill is named, so this is for billing.", "billing", "consistent"),
        ("A bill is named, so this is for billing.", "technical", "contradicts"),
        ("A crash is named.", "technical", "silent"),
        ("It is billing or technical.", "billing", "silent"),
        ("This is for billing.", None, "silent"),
        ("", "billing", "silent"),
    ],
)
def test_the_label_is_read_from_the_rationale_as_from_an_answer(
    rationale: str, label: str | None, verdict: str
) -> None:
    assert judge(TEAMS, Explained(rationale, label, read_label(TEAMS, rationale))) == verdict


def test_each_kind_of_answer_compares_in_its_way() -> None:
    assert (
        judge(NumberKind(), Explained("2 + 2 = 4", "4.0", read_label(NumberKind(), "2 + 2 = 4")))
        == "consistent"
    )
    words = "Fish live in the sea."
    assert read_label(ChoiceKind(), words, ["sea", "attic"]) == "sea"
    assert read_label(TEAMS, None) is None


def test_shares_and_lengths_are_of_the_rationales_that_were_written() -> None:
    given = [
        Explained("so it is billing", "billing", "billing"),
        Explained("billing", "technical", "billing"),
        Explained("who knows", "technical", None),
        Explained(" ", "technical", None),
        Explained("it must be technical", "technical", "technical"),
    ]
    found = rationale_scores(TEAMS, given)
    assert found is not None
    assert (found.n, found.words_mean, found.words_median) == (4, 11 / 4, 3.0)
    assert (found.consistent, found.contradicts, found.silent) == (0.5, 0.25, 0.25)
    assert (found.chrf, found.chrf_note) == (None, None)
    assert rationale_scores(TEAMS, given[3:4]) is None
    text = rationale_scores(TextKind(), given, closed=False)
    assert text is not None
    assert (text.n, text.consistent, text.contradicts, text.silent) == (4, None, None, None)


def test_likeness_is_sacrebleus_chrf_over_those_that_a_person_explained_too() -> None:
    pairs = [("the bill is wrong", "because the bill is wrong"), ("a crash", "it crashes")]
    given = [Explained(a, "billing", None, b) for a, b in pairs] + [Explained("nobody else", "billing", None)]
    found = rationale_scores(TEAMS, given)
    assert found is not None
    expected = sacrebleu.CHRF().corpus_score([a for a, _ in pairs], [[b for _, b in pairs]]).score
    assert found.chrf == pytest.approx(expected)
    assert 0 < expected < 100
    assert chrf([("same", "same")]) == (pytest.approx(100), None)


def test_without_sacrebleu_the_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    found = rationale_scores(TEAMS, [Explained("a", "billing", None, "a")])
    assert found is not None
    assert found.chrf is None
    assert "pip install 'stepdistill[metrics]'" in (found.chrf_note or "")
    without = rationale_scores(TEAMS, [Explained("a", "billing", None)])
    assert without is not None
    assert without.chrf_note is None
