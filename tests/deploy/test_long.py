"""Long texts: no more memory than a full batch of usual ones, and a refusal where one alone is too much."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import stepdistill
from stepdistill.deploy.bundle import Tokens
from stepdistill.deploy.engines import Prompt, Question
from stepdistill.deploy.engines.ctranslate2 import PairEngine
from stepdistill.deploy.engines.rows import LONG, batches
from stepdistill.deploy.engines.words import Words
from stepdistill.deploy.model import BATCH, MOST_TOKENS, Model
from stepdistill.errors import StudentError
from stepdistill.records import Example

WORDS = "Where is the fish? "
LENGTHS = st.lists(st.integers(1, 20_000), max_size=120)


@given(LENGTHS)
def test_no_batch_needs_more_than_a_full_one_of_usual_length(lengths: list[int]) -> None:
    made = list(batches(lengths, BATCH))
    assert sorted(place for part in made for place in part) == list(range(len(lengths)))
    for part in made:
        longest = max(lengths[place] for place in part)
        assert len(part) == 1 or len(part) * max(longest, LONG) ** 2 <= BATCH * LONG**2
    assert made == list(batches(lengths, BATCH))


@given(st.lists(st.integers(1, LONG), max_size=120))
def test_what_is_not_long_comes_in_full_batches_of_similar_length(lengths: list[int]) -> None:
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    assert list(batches(lengths, BATCH)) == [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


def words_of(model: Model, tokens: int) -> str:
    """A text of about so many tokens."""
    each = (len(model.ready().spelling.source(WORDS * 100, "label")) - 1) / 100
    return WORDS * int(tokens / each)


def test_a_long_text_does_not_make_its_neighbours_as_long(light: Path) -> None:
    model = stepdistill.load(light, threads=1).model
    engine, seen = model.ready().engine, []

    class Watched:
        def spell(self, questions: list[Question]) -> Any:
            seen.append([len(question.prompt.source) for question in questions])
            return engine.spell(questions)

    model._loaded = replace(model.ready(), engine=Watched())  # type: ignore[arg-type]
    texts = [words_of(model, 1500), *[WORDS] * 20]
    found = model.scores([(text, ["sea", "attic"]) for text in texts], "sum")
    assert len(found) == 21
    assert [len(lengths) for lengths in seen] == [20, 1]
    assert max(seen[0]) < 20 < 1000 < seen[1][0]


def test_a_text_that_would_fill_the_memory_is_refused_before_it_is_read(bundle: Path) -> None:
    student = stepdistill.load(bundle, threads=1)
    text = words_of(student.model, 2 * MOST_TOKENS)
    line = rf"the input has \d,\d+ tokens, and {MOST_TOKENS:,} are allowed; shorten the text"
    for asked in (
        lambda: student.check(Example("1", text)),
        lambda: student.predict([WORDS, text]),
        lambda: student.predict([text], explain=True),
        lambda: student.model.write("rationale", [text]),
    ):
        with pytest.raises(StudentError, match=line) as error:
            asked()
        assert "\n" not in str(error.value)
    student.check(Example("1", words_of(student.model, MOST_TOKENS - 100)))


@pytest.mark.parametrize(("length", "rows"), [(10, 16), (LONG, 16), (2 * LONG, 4), (4096, 1)])
def test_the_answers_to_a_long_text_are_not_all_weighed_at_once(length: int, rows: int) -> None:
    asked: dict[str, Any] = {}

    def score_batch(sources: list[list[str]], targets: list[list[str]], **options: Any) -> list[Any]:
        asked.update(options)
        return [SimpleNamespace(log_probs=[0.0] * (len(target) + 1)) for target in targets]

    words = Words(("a", "b"), {"a": 0, "b": 1}, Tokens(eos=1, pad=0), Path("tokenizer.json"))
    engine = PairEngine(SimpleNamespace(score_batch=score_batch), words)
    engine.spell([Question(Prompt((0,) * length), ((0, 1), (1, 1)))])
    assert asked["max_batch_size"] == rows
