"""What an annotation would send and cost, without sending it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError
from stepdistill.teacher.annotate import Asked
from stepdistill.teacher.asked import AskedTeacher, chunks
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import about_tokens, price_of
from stepdistill.teacher.protocol import Prompt, Reply


@dataclass
class Preview:
    """What one teacher would be asked.

    Attributes:
        prompts: the first ones: (example id, prompt, tokens).
        exact: whether tokens are counted by the model's tokenizer, not estimated.
        asks: requests of the first stage that the ledger has no answer for; `reused` are answered.
        tokens: of those requests' prompts, estimated.
        about: estimated cost in billionths of a US dollar, if answers are as long as those in the
            ledger (or half of `max_tokens`); None where no price is known. `most` is the upper bound.
    """

    teacher: str
    exact: bool = False
    prompts: list[tuple[str, Prompt, int]] = field(default_factory=list)
    asks: int = 0
    reused: int = 0
    tokens: int = 0
    about: int | None = None
    most: int | None = None


def preview(asked: Asked, n: int) -> list[Preview]:
    """What every teacher that is prompted would be asked; shows the first `n` prompts of each.

    Raises:
        ConfigError: no teacher of the run is prompted.
    """
    teachers = [config for config in asked.config.asked if config.modelled]
    if not teachers:
        names = ", ".join(config.backend for config in asked.config.asked)
        raise ConfigError(f"teacher.backend: '{names}' prompts nobody, so there is no prompt to show")
    with Ledger(asked.ledger) as ledger:
        return [_preview(asked, config, ledger, n) for config in teachers]


def _counter(config: TeacherConfig) -> Callable[[Prompt], int]:
    """Counts with the model's own tokenizer; the weights are not loaded for it."""
    from stepdistill.teacher.tokens import Tokens

    tokens = Tokens(config)
    return lambda prompt: len(tokens.encode(prompt))


def _preview(asked: Asked, config: TeacherConfig, ledger: Ledger, n: int) -> Preview:
    teacher = AskedTeacher(asked.task, config, asked.config.seed, ledger)
    found = Preview(teacher.name, exact=config.backend in ("local", "vllm"))
    count = _counter(config) if found.exact else about_tokens
    for example_id, prompt, _ in islice(teacher.first(list(islice(asked.stream(), n))), n):
        found.prompts.append((example_id, prompt, count(prompt)))
    price, written = price_of(config), ledger.mean_tokens(teacher.keys.teacher) or config.max_tokens // 2
    about = most = 0
    for part in chunks(asked.stream()):
        wanted = [(prompt, draw) for _, prompt, draw in teacher.first(part)]
        for (prompt, _), entry in zip(wanted, teacher.find(wanted), strict=True):
            if entry is not None:
                found.reused += 1
                continue
            tokens = about_tokens(prompt)
            found.asks += 1
            found.tokens += tokens
            if price:
                about += price.of(Reply("", "stop", "", tokens, round(written)), 0)
                most += price.bound(prompt, config.max_tokens)
    if price:
        found.about, found.most = about, most
    return found
