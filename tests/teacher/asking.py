"""Orders, answers and a backend in this process, for tests of ledger and work."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stepdistill.config import TeacherConfig
from stepdistill.records import unwatched
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import Price
from stepdistill.teacher.protocol import Ask, Message, Prompt, Reply, Sampling, Tally, in_batches
from stepdistill.teacher.work import Order, Work

HEAD = (Message("system", "Answer the question."),)
PRICE = Price(1000, 2000, 1000)


def prompt(words: str) -> Prompt:
    return Prompt(HEAD, (Message("user", words),))


def teacher(**changes: Any) -> TeacherConfig:
    return TeacherConfig(**{"backend": "openai", "model": "m", "temperature": 0.5, "draws": 3} | changes)


@functools.cache
def answer_to(words: str) -> str:
    """Some words that depend on the question alone: about 1 kB, now and then 9 kB."""
    chance = random.Random(words)
    size = 9000 if chance.random() < 0.03 else chance.randint(600, 1400)
    return f"{words}: " + "".join(chance.choices("abcdefgh ÿ☃", k=size))


def reply_to(one: Prompt, finish: str = "stop") -> Reply:
    return Reply(answer_to(one.tail[-1].content), finish, "m-1", 40, 100, 0, 0.25)


def order_of(
    words: Sequence[str] | Callable[[], Iterable[str]],
    sampling: Sampling | None = None,
    price: Price | None = PRICE,
    max_cost: int | None = None,
    config: TeacherConfig | None = None,
) -> Order:
    source = words if callable(words) else lambda: words
    sampling = sampling or Sampling(max_tokens=128)

    def prompts() -> Iterable[tuple[str, Prompt, int]]:
        return ((f"id-{word}", prompt(word), 0) for word in source())

    total = 0 if callable(words) else len(words)
    keys = Keys(config or teacher(), sampling)
    return Order("ask", prompts, total, keys, sampling, price, max_cost, unwatched)


def answer_all(ledger: Ledger, order: Order, size: int = 64, asked: list[str] | None = None) -> list[str]:
    """Have an order answered; which questions were asked (also added to `asked`, should it fail)."""
    asked = [] if asked is None else asked

    def complete(prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        asked.extend(one.tail[-1].content for one in prompts)
        return [reply_to(one) for one in prompts]

    in_batches(Work(ledger, order, Tally()), complete, size)
    return asked


def make(path: Path, words: Sequence[str]) -> None:
    """A ledger with an answer to each question."""
    with Ledger(path) as ledger:
        answer_all(ledger, order_of(words), 256)


def served(path: Path, words: Sequence[str]) -> dict[str, str]:
    """The stored answers to some questions."""
    order = order_of(words)
    slots = {order.keys.slot(prompt(word), 0): word for word in words}
    with Ledger(path) as ledger:
        found, _ = ledger.find(list(slots), order.sampling.max_tokens)
    return {slots[slot]: entry.text for slot, entry in found.items()}


def ask_of(order: Order, word: str, bound: int = 0) -> Ask:
    return Ask(order.keys.slot(prompt(word), 0), prompt(word), 0, f"id-{word}", bound)
