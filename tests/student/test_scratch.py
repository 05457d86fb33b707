"""Students from random weights: the seed decides them, and their tokenizer gives the text back."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import ScratchConfig, StudentConfig
from stepdistill.errors import ConfigError
from stepdistill.student.model import Student, new_student
from stepdistill.student.scratch import train_tokenizer

TEXTS = (
    "Anna has 3 apples and buys 12,405 more.",
    "It's a test; isn't it?",
    '[label] Is this (really) so? "Yes" - 50% of $3.75!',
    "two  spaces, a trailing one ",
    "(3 + 4) * 2 = 14, not 3+4*2",
    "naïve café, 東京 🙂 snake_case",
    "",
)
WORDS = ("Anna", "apples", "has", "12", "7", "(3 + 4)", "it's", "-", "$3.75", "x.")
TOKENIZER = train_tokenizer([" ".join(WORDS), " ".join(TEXTS)], 500)


def back(text: str) -> str:
    return TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True)


@pytest.mark.parametrize("text", TEXTS)
def test_known_words_come_back_as_they_were(text: str) -> None:
    assert back(text) == text


@given(words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=8))
def test_any_order_of_known_words_comes_back(words: list[str]) -> None:
    assert back(" ".join(words)) == " ".join(words)


@pytest.mark.parametrize("text", ["so 7\nTherefore 7", "a\n\nb", "line 1\nline 2\nline 3"])
def test_a_line_break_comes_back_with_blanks_around_it_at_most(text: str) -> None:
    tokenizer = train_tokenizer([text], 500)
    found = tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True)
    assert re.sub(" *\n *", "\n", found) == text


def test_a_line_break_makes_a_difference() -> None:
    tokenizer = train_tokenizer(["a b\nc"], 500)
    assert tokenizer("a\nb")["input_ids"] != tokenizer("a b")["input_ids"]


def test_a_word_is_the_same_behind_a_blank_and_behind_a_line_break() -> None:
    tokenizer = train_tokenizer(["a b\nc"], 500)
    assert set(tokenizer("a\nb")["input_ids"]) >= set(tokenizer("a b")["input_ids"])


def test_a_number_is_read_digit_by_digit() -> None:
    assert len(TOKENIZER("12405", add_special_tokens=False)["input_ids"]) == 6


def test_an_unknown_word_is_one_unknown_token() -> None:
    ids = TOKENIZER("Anna has zebras.", add_special_tokens=False)["input_ids"]
    assert ids.count(TOKENIZER.unk_token_id) == 1
    assert back("Anna has zebras.") == "Anna has."


def test_the_vocabulary_is_no_larger_than_asked_and_keeps_the_frequent_words() -> None:
    tokenizer = train_tokenizer(["often often often seldom once"], 4)
    assert len(tokenizer) == 4
    assert tokenizer.unk_token_id not in tokenizer("often")["input_ids"]
    assert tokenizer.unk_token_id in tokenizer("seldom")["input_ids"]


def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts() -> None:
    assert train_tokenizer(["b a a", "c"], 50).get_vocab() == train_tokenizer(["c", "b a a"], 50).get_vocab()


def weights(student: Student) -> list[bytes]:
    return [value.detach().numpy().tobytes() for value in student.model.state_dict().values()]


def test_the_seed_decides_the_weights(make_student: Callable[..., Student]) -> None:
    assert weights(make_student(seed=3)) == weights(make_student(seed=3))
    assert weights(make_student(seed=3)) != weights(make_student(seed=4))


def test_the_sizes_asked_for_are_those_of_the_model(words: list[str]) -> None:
    sizes = ScratchConfig(d_model=24, d_ff=40, heads=3, layers=2, vocabulary=20, dropout=0.3)
    student = new_student(StudentConfig(model="scratch:", scratch=sizes), 0, words)
    config = student.model.config
    assert (config.d_model, config.d_ff, config.num_heads, config.dropout_rate) == (24, 40, 3, 0.3)
    assert (config.num_layers, config.num_decoder_layers, config.vocab_size) == (2, 2, 20)
    assert student.family == "encoder-decoder"


def test_tied_weights_are_counted_once(make_student: Callable[..., Student]) -> None:
    student = make_student()
    distinct = {weight.data_ptr(): weight.numel() for weight in student.model.state_dict().values()}
    assert student.parameters == sum(distinct.values())


def test_sizes_in_the_name_of_the_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"give the sizes under student\.scratch"):
        new_student(StudentConfig(model="scratch:128"), 0, [])
