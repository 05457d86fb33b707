"""Probabilities of a closed set: they are a distribution, and say what the model says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stepdistill.deploy.bundle import Readout, Settings
from stepdistill.deploy.engines import Prompt, Question
from stepdistill.deploy.readout import READOUTS, all_scores, probabilities, scores, softmax
from stepdistill.errors import StudentError

END, VOCABULARY = 0, 6
ROWS = st.lists(st.floats(-8, 8), min_size=VOCABULARY, max_size=VOCABULARY)
TABLES = st.lists(ROWS, min_size=VOCABULARY, max_size=VOCABULARY)
TARGETS = st.lists(
    st.lists(st.integers(1, 4), max_size=3).map(lambda ids: (*ids, END)), min_size=1, max_size=5
)
UNIQUE = TARGETS.filter(lambda targets: len(set(targets)) == len(targets))


@dataclass
class Bigrams:
    """A whole language model: the odds of a token depend on the one before it."""

    table: Sequence[Sequence[float]]
    calls: list[str] = field(default_factory=list)

    def log_p(self, before: int, token: int) -> float:
        row = self.table[before]
        return row[token] - math.log(math.fsum(map(math.exp, row)))

    def first(self, questions: Sequence[Question]) -> list[list[float]]:
        self.calls.append("first")
        return [[self.log_p(q.prompt.source[-1], target[0]) for target in q.targets] for q in questions]

    def spell(self, questions: Sequence[Question]) -> list[list[list[float]]]:
        self.calls.append("spell")
        return [
            [[self.log_p(*two) for two in pairwise((q.prompt.source[-1], *target))] for target in q.targets]
            for q in questions
        ]

    def write(self, prompts: Sequence[Prompt], new_tokens: int, stop: str | None = None) -> list[list[int]]:
        raise AssertionError("a closed set is not answered by writing")


def ask(table: Sequence[Sequence[float]], targets: Sequence[tuple[int, ...]]) -> tuple[Bigrams, Question]:
    return Bigrams(table), Question(Prompt((5,)), tuple(targets))


@given(TABLES, TARGETS, st.sampled_from(READOUTS), st.floats(0.05, 20))
def test_probabilities_sum_to_one(
    table: list[list[float]], targets: list[tuple[int, ...]], readout: Readout, temperature: float
) -> None:
    engine, question = ask(table, targets)
    (row,) = probabilities(engine, [question], Settings(readout=readout, temperature=temperature))
    assert math.fsum(row) == pytest.approx(1.0, abs=1e-12)
    assert all(0 <= share <= 1 for share in row)


@given(TABLES, TARGETS, st.sampled_from(READOUTS), st.randoms())
def test_the_order_of_labels_does_not_matter(
    table: list[list[float]], targets: list[tuple[int, ...]], readout: Readout, random: object
) -> None:
    places = list(range(len(targets)))
    random.shuffle(places)  # type: ignore[attr-defined]
    engine, question = ask(table, targets)
    turned = Question(question.prompt, tuple(targets[place] for place in places))
    plain, other = scores(engine, [question, turned], readout)
    assert [plain[place] for place in places] == pytest.approx(other, abs=1e-9)


@given(TABLES, UNIQUE)
def test_what_begins_alike_shares_what_the_first_token_has(
    table: list[list[float]], targets: list[tuple[int, ...]]
) -> None:
    engine, question = ask(table, targets)
    (row,) = scores(engine, [question], "first")
    for begin in {target[0] for target in targets}:
        together = math.fsum(
            math.exp(score) for score, target in zip(row, targets, strict=True) if target[0] == begin
        )
        assert together == pytest.approx(math.exp(engine.log_p(5, begin)), rel=1e-9)


@given(TABLES, st.lists(st.integers(1, 4), min_size=1, max_size=3), st.lists(st.integers(1, 4), min_size=1))
def test_a_label_that_is_a_prefix_of_another_is_told_by_its_end(
    table: list[list[float]], short: list[int], more: list[int]
) -> None:
    engine, question = ask(table, [(*short, END), (*short, *more, END)])
    (row,) = scores(engine, [question], "first")
    ended, went_on = engine.log_p(short[-1], END), 0.0
    for two in pairwise((short[-1], *more, END)):
        went_on += engine.log_p(*two)
    assert row[0] - row[1] == pytest.approx(ended - went_on, abs=1e-9)


@given(ROWS, st.sets(st.integers(1, 4), min_size=1))
def test_first_is_sum_where_all_behind_the_first_token_is_determined(
    row: list[float], begins: set[int]
) -> None:
    # Behind any token but the last of the prompt stands the end, as good as surely.
    ends = [[500.0, *[0.0] * (VOCABULARY - 1)] for _ in range(VOCABULARY - 1)]
    engine, question = ask([*ends, row], [(begin, END) for begin in sorted(begins)])
    first, total = (scores(engine, [question], readout)[0] for readout in ("first", "sum"))  # type: ignore[arg-type]
    assert first == pytest.approx(total, abs=1e-9)
    assert engine.calls == ["first", "spell"]


@given(TABLES, UNIQUE, UNIQUE)
def test_all_readouts_at_once_are_each_by_itself(
    table: list[list[float]], some: list[tuple[int, ...]], others: list[tuple[int, ...]]
) -> None:
    engine, question = ask(table, some)
    questions = [question, Question(Prompt((4,)), tuple(others)), question]
    together = all_scores(engine, questions)
    for readout in READOUTS:
        for row, found in zip(scores(engine, questions, readout), together, strict=True):
            assert found[readout] == pytest.approx(row, abs=1e-9)


def test_readouts_are_what_they_are_called() -> None:
    table = [[math.log(share) for share in (0.1, 0.2, 0.3, 0.15, 0.05, 0.2)]] * VOCABULARY
    engine, question = ask(table, [(1, END), (2, 3, END), (2, END)])
    found = {
        readout: [math.exp(score) for score in scores(engine, [question], readout)[0]] for readout in READOUTS
    }
    assert found["sum"] == pytest.approx([0.02, 0.0045, 0.03])
    assert found["mean"] == pytest.approx([0.02**0.5, 0.0045 ** (1 / 3), 0.03**0.5])
    # 0.3 for what begins with 2, divided as 0.15 * 0.1 to 0.1.
    assert found["first"] == pytest.approx([0.2, 0.3 * 0.015 / 0.115, 0.3 * 0.1 / 0.115])


def test_only_questions_whose_labels_begin_alike_are_spelled_out() -> None:
    engine, apart = ask([[0.0] * VOCABULARY] * VOCABULARY, [(1, 2, END), (2, 2, END)])
    scores(engine, [apart, apart], "first")
    assert engine.calls == ["first"]
    scores(engine, [apart, Question(apart.prompt, ((1, END), (1, 2, END))), apart], "first")
    assert engine.calls == ["first", "first", "spell"]
    assert scores(engine, [], "first") == scores(engine, [], "sum") == []


@given(st.lists(st.floats(-50, 0), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_temperature_changes_how_sure_and_not_what(row: list[float], temperature: float) -> None:
    plain, warm = softmax(tuple(row)), softmax(tuple(row), temperature)
    assume(len(set(row)) == len(row))
    assert warm.index(max(warm)) in [i for i, share in enumerate(plain) if share == max(plain)]
    if temperature > 1:
        assert max(warm) <= max(plain) + 1e-12


@pytest.mark.parametrize("row", [(math.nan, 0.0), (0.0, math.nan), (-math.inf, -math.inf), (math.inf, 0.0)])
def test_numbers_that_are_none_are_no_probabilities(row: tuple[float, ...]) -> None:
    with pytest.raises(StudentError, match="not finite"):
        softmax(row)
    assert softmax((0.0, -math.inf)) == (1.0, 0.0)
