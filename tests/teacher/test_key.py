"""Keys differ exactly where the answer could."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from asking import teacher
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import TeacherConfig
from stepdistill.teacher.key import Keys
from stepdistill.teacher.protocol import Message, Prompt, Role, Sampling

WORDS = st.text(max_size=6) | st.sampled_from(["\ud800", "#1", "user:1:", "", "é", "e\u0301"])
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), WORDS), max_size=4)
CHAT = Keys(teacher(), Sampling())
TEXT = Keys(teacher(api="completions", style="text"), Sampling())


def key(keys: Keys, messages: list[Message], split: int = 0, draw: int = 0) -> bytes:
    return keys.slot(Prompt(tuple(messages[:split]), tuple(messages[split:])), draw)


@given(MESSAGES, MESSAGES, st.integers(0, 20), st.integers(0, 20))
def test_chats_have_the_same_key_only_if_they_are_the_same(
    one: list[Message], two: list[Message], first: int, second: int
) -> None:
    same = (one, first) == (two, second)
    assert (key(CHAT, one, draw=first) == key(CHAT, two, draw=second)) == same


@given(MESSAGES, st.integers(0, 4))
def test_where_the_shared_part_ends_does_not_count(messages: list[Message], split: int) -> None:
    assert key(CHAT, messages, split) == key(CHAT, messages)
    assert key(TEXT, messages, split) == key(TEXT, messages)


@given(MESSAGES)
def test_a_text_is_its_words_alone(messages: list[Message]) -> None:
    whole = Message("user", "".join(message.content for message in messages))
    assert key(TEXT, messages) == key(TEXT, [whole])


@given(st.lists(st.tuples(MESSAGES, MESSAGES, st.integers(0, 3)), max_size=5))
def test_a_key_does_not_depend_on_what_was_hashed_before(
    prompts: list[tuple[list[Message], list[Message], int]],
) -> None:
    keys = Keys(teacher(), Sampling())
    for head, tail, draw in prompts:
        prompt = Prompt(tuple(head), tuple(tail))
        assert keys.slot(prompt, draw) == Keys(teacher(), Sampling()).slot(prompt, draw)


def test_a_key_is_what_its_documentation_says() -> None:
    """Written out by hand: a change of this would have every answer in every ledger paid again."""
    role: Role = "user"
    prompt = Prompt((Message("system", "Be brief."),), (Message(role, "2 + 2 = ?"),))
    start = [1, "openai", "m", "chat", "chat", 0.5, 1.0, ["\nQ:"], [["seed", "1"]]]
    raw = json.dumps(start).encode() + b"system:9:Be brief.user:9:2 + 2 = ?#2"
    sampling = Sampling(0.5, 1.0, 64, ("\nQ:",), (("seed", "1"),))
    found = Keys(teacher(), sampling).slot(prompt, 2)
    assert found == hashlib.sha256(raw).digest()[:16]


@pytest.mark.parametrize("change", ["draw", "temperature", "top_p", "stop", "extra"])
def test_sampling_counts(change: str) -> None:
    other = {
        "draw": Sampling(),
        "temperature": Sampling(temperature=0.1),
        "top_p": Sampling(top_p=0.5),
        "stop": Sampling(stop=("x",)),
        "extra": Sampling(extra=(("x", "1"),)),
    }[change]
    one = [Message("user", "words")]
    assert key(Keys(teacher(), other), one, draw=int(change == "draw")) != key(CHAT, one)


def test_the_limit_of_tokens_and_the_way_to_the_server_do_not() -> None:
    one = [Message("user", "words")]
    for config in (teacher(base_url="http://x/v2"), teacher(backend="openai-batch"), teacher(draws=2)):
        assert key(Keys(config, Sampling(max_tokens=9)), one) == key(CHAT, one)


def test_weights_that_change_under_their_name_are_another_model(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"one")
    local = TeacherConfig(backend="local", model=str(file))
    said = [Message("user", "x")]
    first = key(Keys(local, Sampling()), said)
    assert key(Keys(local, Sampling()), said) == first
    file.write_bytes(b"two")
    assert key(Keys(local, Sampling()), said) != first
