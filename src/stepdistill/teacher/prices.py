"""What an answer costs: exact afterwards, at most beforehand; in billionths of a US dollar."""

from __future__ import annotations

import math
from dataclasses import dataclass

from stepdistill.config import PriceConfig, TeacherConfig
from stepdistill.errors import ConfigError
from stepdistill.teacher.protocol import Prompt, Reply

NANO = 1_000_000_000
FREE_OF_CHARGE = ("local", "vllm")
BATCH_SHARE = 0.5
"""Batch requests cost half, at OpenAI and those who offer the same protocol."""
PRICES = {
    "gpt-4o": PriceConfig(input=2.5, output=10, cached_input=1.25),
    "gpt-4o-mini": PriceConfig(input=0.15, output=0.6, cached_input=0.075),
    "gpt-4.1": PriceConfig(input=2, output=8, cached_input=0.5),
    "gpt-4.1-mini": PriceConfig(input=0.4, output=1.6, cached_input=0.1),
    "gpt-4.1-nano": PriceConfig(input=0.1, output=0.4, cached_input=0.025),
    "gpt-3.5-turbo": PriceConfig(input=0.5, output=1.5),
    "claude-3-5-haiku-latest": PriceConfig(input=0.8, output=4),
    "claude-3-7-sonnet-latest": PriceConfig(input=3, output=15),
    "gemini-2.0-flash": PriceConfig(input=0.1, output=0.4, cached_input=0.025),
    "gemini-2.5-flash": PriceConfig(input=0.3, output=2.5, cached_input=0.075),
}
"""List prices in US dollars for a million tokens, as of mid 2025; `teacher.price` overrides them.

Prices change and nothing is looked up: for a budget that matters, give the price of today.
"""


@dataclass(frozen=True, slots=True)
class Price:
    """Billionths of a dollar for a token; None where nobody knows the price."""

    input: float
    output: float
    cached: float

    def of(self, reply: Reply, bound: int) -> int:
        """What a reply has cost; `bound` where the server counted no tokens."""
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return bound
        cached = min(reply.cached_tokens or 0, reply.prompt_tokens)
        fresh = reply.prompt_tokens - cached
        return math.ceil(fresh * self.input + cached * self.cached + reply.completion_tokens * self.output)

    def bound(self, prompt: Prompt, max_tokens: int) -> int:
        """The most that an answer can cost: no token is shorter than a byte."""
        return math.ceil(most_tokens(prompt) * self.input + max_tokens * self.output)


def price_of(teacher: TeacherConfig) -> Price | None:
    """The price of a teacher's tokens: the file's, else the table's; None where neither knows it."""
    if teacher.backend in FREE_OF_CHARGE:
        return Price(0, 0, 0)
    listed = teacher.price or PRICES.get(str(teacher.model))
    if listed is None:
        return None
    # A million tokens for a dollar are a thousand billionths of a dollar a token.
    unit = 1000 * (BATCH_SHARE if teacher.backend == "openai-batch" and teacher.price is None else 1)
    cached = listed.input if listed.cached_input is None else listed.cached_input
    return Price(listed.input * unit, listed.output * unit, cached * unit)


def need_price(teacher: TeacherConfig, max_cost_usd: float | None) -> Price | None:
    """The price, which must be known where there is a budget.

    Raises:
        ConfigError: a budget is set and the price is not known.
    """
    price = price_of(teacher)
    if price is None and max_cost_usd is not None:
        raise ConfigError(
            f"annotate.max_cost_usd is set and no price is known for the model '{teacher.model}'; give US "
            "dollars for a million tokens as teacher.price: {input: 0.15, output: 0.6}"
        )
    return price


def most_tokens(prompt: Prompt) -> int:
    """An upper bound of a prompt's tokens: its bytes, and a chat template's marks for each turn."""
    return 32 + sum(16 + len(message.content.encode("utf-8", "surrogatepass")) for message in prompt.messages)


def about_tokens(prompt: Prompt) -> int:
    """A usual number of tokens for the prompt's text: a quarter of its characters."""
    return sum(4 + len(message.content) // 4 for message in prompt.messages)


def dollars(nano: int) -> str:
    """An amount for people.

    >>> dollars(1_234_567_890), dollars(1_200_000)
    ('1.23 USD', '0.0012 USD')
    """
    amount = nano / NANO
    return f"{amount:.2f} USD" if amount >= 1 or nano == 0 else f"{amount:.4f} USD"
