"""Sources of rationales: whose they are, for which examples, and that the controls are what they say."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.errors import StudentError
from stepdistill.records import Annotation, Example, Unparsed
from stepdistill.student.methods import all_targets, find_method
from stepdistill.student.rationales import FILLERS, Filler, Rationales, Reasons, chosen, shuffle
from stepdistill.student.scratch import train_tokenizer

ANSWERS: dict[str, Annotation | Unparsed] = {
    "1": Annotation("1", "one", "a", "", 0.5, ("uno", "un")),
    "2": Annotation("2", "two and two", "b", "", 1.0),
    "3": Annotation("3", "", "c", ""),
    "4": Unparsed("4", "no marker"),
}
EXAMPLES = [Example(str(i), f"text {i}", "y", (), f"human {i}" if i < 3 else None) for i in range(1, 6)]
Words = Callable[[str], list[int]]


def words(text: str) -> list[int]:
    """Ids of a student that has one id a word, and 0 for what it does not know."""
    return [FILLERS.index(word) + 1 if word in FILLERS else 0 for word in text.split()]


def texts(rationales: Rationales) -> list[tuple[str, ...]]:
    return [rationales.of(example).texts for example in EXAMPLES]


def test_the_teachers_are_the_first_few_that_it_wrote() -> None:
    assert texts(Rationales("teacher", ANSWERS)) == [("one",), ("two and two",), (), (), ()]
    assert texts(Rationales("teacher", ANSWERS, most=2))[0] == ("one", "uno")
    assert texts(Rationales("teacher", ANSWERS, most=9))[0] == ("one", "uno", "un")


def test_an_empty_first_rationale_makes_room_for_the_next() -> None:
    answers = {"1": Annotation("1", "", "a", "", more=("uno",))}
    assert texts(Rationales("teacher", answers))[0] == ("uno",)


def test_a_persons_are_those_of_the_data_whatever_the_teacher_said() -> None:
    assert texts(Rationales("human", ANSWERS, most=3)) == [("human 1",), ("human 2",), (), (), ()]


def test_none_are_none() -> None:
    assert texts(Rationales("none", ANSWERS)) == [()] * 5


@pytest.mark.parametrize(("votes", "weight"), [(True, 0.5), (False, 1.0)])
def test_votes_weigh_the_teachers_rationales(votes: bool, weight: float) -> None:
    assert Rationales("teacher", ANSWERS, votes=votes).of(EXAMPLES[0]) == Reasons(("one",), weight)
    assert Rationales("human", ANSWERS, votes=votes).of(EXAMPLES[0]).weight == 1.0


@given(st.lists(st.text(), min_size=2, unique=True), st.integers(0, 2**31))
def test_shuffling_gives_each_away_once_and_none_to_itself(ids: list[str], seed: int) -> None:
    others = shuffle(ids, seed)
    assert sorted(others) == sorted(ids) == sorted(others.values())
    assert all(one != other for one, other in others.items())


def test_shuffling_depends_on_the_seed_and_nothing_else() -> None:
    ids = [str(i) for i in range(50)]
    assert shuffle(ids, 1) == shuffle(ids, 1) != shuffle(ids, 2)


@pytest.mark.parametrize("ids", [[], ["1"]])
def test_fewer_than_two_cannot_be_shuffled(ids: list[str]) -> None:
    with pytest.raises(StudentError, match="two are needed"):
        shuffle(ids, 0)


def test_shuffled_texts_are_the_teachers_in_other_places() -> None:
    others = shuffle(["1", "2"], 0)
    plain, mixed = (texts(Rationales(s, ANSWERS, most=3, others=others)) for s in ("teacher", "shuffled"))
    assert Counter(itertools.chain(*plain)) == Counter(itertools.chain(*mixed))
    assert mixed == [("two and two",), ("one", "uno", "un"), (), (), ()]


def test_a_shuffled_rationale_keeps_the_weight_of_those_who_voted_for_it() -> None:
    others = shuffle(["1", "2"], 0)
    assert Rationales("shuffled", ANSWERS, votes=True, others=others).of(EXAMPLES[1]).weight == 0.5


def test_an_example_with_an_empty_id_gets_no_rationale_of_nobody() -> None:
    answers = {"": Annotation("", "hers", "a", "")}
    assert Rationales("shuffled", answers).of(Example("1", "x")).texts == ()


def test_filler_has_the_length_of_the_teachers_and_other_words() -> None:
    filler = Rationales("filler", ANSWERS, most=3, filler=Filler(words, 0))
    assert texts(filler) == [("so", "so", "so"), ("so so so",), (), (), ()]


def test_the_word_that_fills_is_one_known_token() -> None:
    without = [word for word in FILLERS if word not in ("so", "the")]
    assert Filler(lambda text: [1 if w in without else 0 for w in text.split()], 0).word == "and"
    # In two letters, "so" is two tokens; "a" is the first word of one.
    assert Filler(lambda text: [1 for c in text if c != " "]).word == "a"


@pytest.mark.parametrize(
    "ids",
    [lambda text: [0 for _ in text.split()], lambda text: [1], lambda text: [1, *map(len, text.split())]],
    ids=["unknown", "merged", "led by a sign"],
)
def test_a_student_without_such_a_word_is_an_error(ids: Words) -> None:
    with pytest.raises(StudentError, match="choose 'shuffled' or 'none'"):
        Filler(ids, 0)


def test_a_tokenizer_that_merges_long_repetitions_is_found_out() -> None:
    def merging(text: str) -> list[int]:
        return [1] * min(len(text.split()), 70)

    filler = Filler(merging)
    assert filler.text(70).count("so") == 70
    with pytest.raises(StudentError, match="71 times is not 71"):
        filler.text(71)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 200])
def test_filler_of_a_real_tokenizer_has_exactly_so_many_tokens(n: int) -> None:
    tokenizer = train_tokenizer(["the sum is 4 , so it is 4 ."], 60)

    def ids(text: str) -> list[int]:
        return list(tokenizer(text, add_special_tokens=False)["input_ids"])

    found = ids(Filler(ids, tokenizer.unk_token_id).text(n))
    assert len(found) == n
    assert len(set(found)) == 1
    assert tokenizer.unk_token_id not in found


def test_filler_needs_its_filler() -> None:
    with pytest.raises(ValueError, match="needs a Filler"):
        Rationales("filler", ANSWERS)


@given(st.text(), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_a_smaller_share_is_part_of_a_larger_one(name: str, one: float, other: float, seed: int) -> None:
    small, large = sorted((one, other))
    assert chosen(name, large, seed) or not chosen(name, small, seed)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_a_share_is_about_as_large_as_it_says(share: float) -> None:
    n = sum(chosen(str(i), share, 0) for i in range(4000))
    # Four standard deviations of a fair draw.
    assert abs(n - 4000 * share) <= 4 * (4000 * share * (1 - share)) ** 0.5


def test_another_seed_is_another_share() -> None:
    one, other = ([chosen(str(i), 0.5, seed) for i in range(100)] for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize("source", ["teacher", "shuffled", "filler", "human"])
def test_the_share_is_the_same_examples_whatever_the_source(source: str) -> None:
    examples = [Example(str(i), f"x{i}", "y", (), f"h{i}") for i in range(200)]
    answers = {e.id: Annotation(e.id, f"r{e.id}", "y", "") for e in examples}
    inside = {e.id for e in examples if chosen(e.id, 0.25, 3)}
    options = {"share": 0.25, "seed": 3, "filler": Filler(words), "others": shuffle(inside, 3)}
    found = all_targets(
        find_method("step-by-step"),
        "gold",
        examples,
        answers,
        Rationales(source, answers, **options),
    )
    assert {rows[0].example_id for rows in found if len(rows) > 1} == inside
    assert (len(found), found.n_rationales) == (200, len(inside))
