"""Costs: by hand for known counts, never above the bound; a budget needs a price."""

from __future__ import annotations

import pytest
from asking import teacher
from hypothesis import given
from hypothesis import strategies as st

from stepdistill.config import PriceConfig
from stepdistill.errors import ConfigError
from stepdistill.teacher.prices import (
    NANO,
    PRICES,
    Price,
    about_tokens,
    dollars,
    most_tokens,
    need_price,
    price_of,
)
from stepdistill.teacher.protocol import Message, Prompt, Reply

PROMPT = Prompt((Message("system", "é" * 10),), (Message("user", "abc"),))
PER_TOKEN = st.floats(0, 1e5)


def test_a_cost_by_hand() -> None:
    price = price_of(teacher(model="gpt-4o-mini"))
    assert price is not None
    reply = Reply("", "stop", "m", prompt_tokens=1000, completion_tokens=200, cached_tokens=400)
    # (600 x 0.15 + 400 x 0.075 + 200 x 0.60) dollars for a million tokens
    assert price.of(reply, 0) == round((600 * 0.15 + 400 * 0.075 + 200 * 0.6) / 1e6 * NANO) == 240_000


def test_batch_jobs_cost_half_of_the_table_and_all_of_a_given_price() -> None:
    live, batch = (price_of(teacher(backend=name, model="gpt-4.1")) for name in ("openai", "openai-batch"))
    assert live is not None
    assert batch == Price(live.input / 2, live.output / 2, live.cached / 2)
    given_price = PriceConfig(input=1, output=2)
    assert price_of(teacher(backend="openai-batch", price=given_price)) == Price(1000, 2000, 1000)


def test_the_given_price_comes_before_the_table_and_unknown_is_none() -> None:
    own = PriceConfig(input=7, output=8, cached_input=6)
    assert price_of(teacher(model="gpt-4o", price=own)) == Price(7000, 8000, 6000)
    assert price_of(teacher(model="unheard-of")) is None
    assert price_of(teacher(backend="local", model="gpt-4o")) == Price(0, 0, 0)
    assert price_of(teacher(backend="vllm", model="x")) == Price(0, 0, 0)


def test_a_budget_needs_a_price() -> None:
    assert need_price(teacher(model="unheard-of"), None) is None
    with pytest.raises(ConfigError, match=r"'unheard-of'.*teacher\.price: \{input"):
        need_price(teacher(model="unheard-of"), 5.0)
    assert need_price(teacher(backend="local", model="unheard-of"), 5.0) == Price(0, 0, 0)


@given(
    PER_TOKEN,
    PER_TOKEN,
    st.floats(0, 1),
    st.integers(0, most_tokens(PROMPT)),
    st.integers(0, 256),
    st.none() | st.integers(0, 10**6),
)
def test_no_answer_costs_more_than_its_bound(
    asked: float, written: float, rebate: float, prompt: int, completion: int, cached: int | None
) -> None:
    price = Price(asked, written, asked * rebate)
    cost = price.of(Reply("", "stop", "m", prompt, completion, cached), 10**12)
    assert 0 <= cost <= price.bound(PROMPT, 256)
    assert isinstance(cost, int)


@pytest.mark.parametrize(("asked", "written"), [(None, 5), (5, None), (None, None)])
def test_where_the_server_counts_nothing_the_bound_is_the_cost(
    asked: int | None, written: int | None
) -> None:
    assert Price(1000, 1000, 1000).of(Reply("", "stop", "m", asked, written), 123) == 123


def test_the_bound_counts_bytes_and_the_marks_of_each_turn() -> None:
    assert most_tokens(PROMPT) >= 20 + 3 + 2 * 16
    assert most_tokens(Prompt((), (Message("user", "\ud800"),))) > 0
    assert 0 < about_tokens(PROMPT) < most_tokens(PROMPT)


def test_every_listed_price_is_sane() -> None:
    for name, price in PRICES.items():
        assert 0 < price.input < price.output, name
        assert price.cached_input is None or price.cached_input < price.input, name


@pytest.mark.parametrize(
    ("nano", "said"),
    [(0, "0.00 USD"), (1, "0.0000 USD"), (999_999_999, "1.0000 USD"), (12_345 * NANO, "12345.00 USD")],
)
def test_amounts_for_people(nano: int, said: str) -> None:
    assert dollars(nano) == said
