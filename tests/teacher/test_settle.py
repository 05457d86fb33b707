"""Many answers become one: votes, combination, hints and the check against gold, as invariants."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import AnnotateConfig
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.teacher.settle import Heard, Settled, settle, verified, vote

EXAMPLE = Example("x", "?", "y")


def same(left: str, right: str) -> bool:
    return left.casefold() == right.casefold()


def heard(
    label: str | None, why: str = "why", teacher: str = "t", draw: int = 0, hinted: bool = False
) -> Heard:
    read = Unparsed("x", "no answer marker") if label is None else Annotation("x", why, label, "exact")
    return Heard(teacher, teacher, draw, f"{why} {label}", read, hinted)


def settled(answers: list[Heard], example: Example = EXAMPLE, **annotate: Any) -> Settled:
    config = AnnotateConfig(**annotate)
    return verified(settle(answers, example, same, config), example, same, config)


def label(found: Settled) -> str | None:
    return found.read.label if isinstance(found.read, Annotation) else None


answers = st.lists(
    st.builds(
        heard,
        st.sampled_from(["y", "Y", "n", "m", None]),
        st.sampled_from(["", "r1", "r2", "r3"]),
        st.sampled_from(["s", "t"]),
    ),
    min_size=1,
    max_size=9,
)


@given(answers, st.sampled_from(["voted", "all", "one"]))
def test_the_winner_has_most_votes_and_confidence_is_their_share_of_all_answers(
    said: list[Heard], keep: str
) -> None:
    found = vote(said, same, keep)
    votes = Counter(one.read.label.casefold() for one in said if isinstance(one.read, Annotation))
    if not votes:
        assert found.read == said[0].read
        return
    assert isinstance(found.read, Annotation)
    won = votes[found.read.label.casefold()]
    assert won == max(votes.values())
    assert found.read.confidence == won / len(said)
    assert found.source in said
    # Of equally many, the label that was said first.
    tied = [name for name, n in votes.items() if n == won]
    assert found.read.label.casefold() == tied[0]


@given(answers)
def test_rationales_are_kept_once_each_and_never_empty(said: list[Heard]) -> None:
    of = {keep: vote(said, same, keep).read for keep in ("voted", "all", "one")}
    for keep, read in of.items():
        if not isinstance(read, Annotation):
            continue
        texts = [read.rationale, *read.more]
        assert len(set(texts)) == len(texts)
        assert all(read.more)
        said_for = {
            one.read.rationale
            for one in said
            if isinstance(one.read, Annotation)
            and one.read.rationale
            and (keep == "all" or same(one.read.label, read.label))
        }
        assert set(filter(None, texts)) == said_for if keep != "one" else len(texts) == 1
        # A rationale is taken where the winning label has any.
        if keep == "voted":
            assert bool(read.rationale) == bool(said_for)


@given(answers, st.sampled_from(["first", "vote", "all"]))
def test_every_way_to_combine_gives_a_label_where_anything_was_read(said: list[Heard], combine: str) -> None:
    said = sorted(said, key=lambda one: one.teacher)
    found = settled(said, combine=combine)
    assert isinstance(found.read, Annotation) == any(isinstance(one.read, Annotation) for one in said)
    assert (found.left_out is None) == isinstance(found.read, Annotation)


def test_the_first_teacher_is_taken_unless_nothing_of_it_is_read() -> None:
    b = [heard("n", "b", "b", draw) for draw in range(3)]
    assert label(settled([heard("y", "a", "a"), *b])) == "y"
    assert label(settled([heard(None, "a", "a"), *b])) == "n"
    assert label(settled([heard("y", "a", "a"), *b], combine="vote")) == "n"


def test_of_all_teachers_each_has_one_vote_and_all_rationales_are_kept() -> None:
    many = [heard("n", f"b{draw}", "b", draw) for draw in range(5)]
    found = settled([heard("y", "a", "a"), *many, heard("y", "c", "c")], combine="all")
    assert isinstance(found.read, Annotation)
    assert (found.read.label, found.read.confidence) == ("y", pytest.approx(2 / 3))
    assert [found.read.rationale, *found.read.more] == ["a", "b0", "b1", "b2", "b3", "b4", "c"]


@pytest.mark.parametrize(
    ("free", "hint", "expected"),
    [
        ("n", "y", ("y", "hinted: exact")),
        (None, "Y", ("Y", "hinted: exact")),
        ("y", "y", ("y", "exact")),
        ("n", "n", ("n", "exact")),
        ("n", None, ("n", "exact")),
    ],
)
def test_a_hinted_answer_stands_in_only_where_it_is_right_and_the_free_one_is_not(
    free: str | None, hint: str | None, expected: tuple[str, str]
) -> None:
    found = settled([heard(free), heard(hint, "told", hinted=True)])
    assert isinstance(found.read, Annotation)
    assert (found.read.label, found.read.rule) == expected
    assert found.source.hinted == expected[1].startswith("hinted")


def test_hinted_answers_do_not_vote() -> None:
    said = [heard("n"), heard("y", hinted=True), heard("y", hinted=True)]
    assert label(settled(said, Example("x", "?", None))) == "n"
    assert settled(said, Example("x", "?", None)).read.confidence == 1.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("said", "gold", "verify", "reason"),
    [
        ("yyn", "n", "none", None),
        ("yyn", "n", "agree-with-gold", "disagrees with gold"),
        ("yyn", "Y", "agree-with-gold", None),
        ("yyn", None, "agree-with-gold", None),
        ("yyn", None, "majority", None),
        ("yn", None, "majority", "no majority"),
        ("yn-", "y", "majority", "no majority"),
        ("y-", None, "majority", "no majority"),
        ("--", "y", "none", "unread: no answer marker"),
        ("--", "y", "majority", "unread: no answer marker"),
    ],
)
def test_what_is_left_out_has_a_reason(said: str, gold: str | None, verify: str, reason: str | None) -> None:
    words = [heard(None if c == "-" else c, draw=i) for i, c in enumerate(said)]
    assert settled(words, Example("x", "?", gold), verify=verify).left_out == reason


def test_agreeing_with_gold_drops_rationales_for_other_labels() -> None:
    mixed = [heard("y", "a"), heard("y", "b", draw=1), heard("n", "c", draw=2)]
    assert settled(mixed, keep="all").read.more == ("b", "c")  # type: ignore[union-attr]
    assert settled(mixed, keep="all", verify="agree-with-gold").read.more == ("b",)  # type: ignore[union-attr]


def test_a_hinted_rationale_has_the_votes_that_its_label_had_and_needs_no_majority() -> None:
    mixed = [heard("n", "a"), heard("n", "b", draw=1), heard("y", "c", draw=2), heard("y", "d", hinted=True)]
    found = settled(mixed, verify="majority")
    assert (label(found), found.left_out) == ("y", None)
    assert found.read.confidence == pytest.approx(1 / 3)  # type: ignore[union-attr]
