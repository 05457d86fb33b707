"""What an annotation would send and cost, without sending it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from stepdistill.config import TeacherConfig
from stepdistill.errors import ConfigError
from stepdistill.teacher.annotate import Asked
from stepdistill.teacher.asked import AskedTeacher, Pair, chunks
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import Price, about_tokens, price_of
from stepdistill.teacher.protocol import Prompt, Reply, Style


@dataclass
class Preview:
    """What one teacher would be asked.

    Attributes:
        prompts: the first stage's prompts of the first examples: (example id, prompt, tokens).
        exact: whether tokens are counted by the model's tokenizer, not estimated.
        asks: requests of the first stage that the ledger has no answer for; `reused` are answered.
        further: requests of a second stage, at most: which of them are made depends on the answers.
        tokens: of all those requests' prompts, estimated.
        about: estimated cost in billionths of a US dollar, if answers are as long as those in the
            ledger (or half of `max_tokens`); None where no price is known. `most` is the upper bound.
    """

    teacher: str
    style: Style = "chat"
    exact: bool = False
    prompts: list[tuple[str, Prompt, int]] = field(default_factory=list)
    asks: int = 0
    reused: int = 0
    further: int = 0
    tokens: int = 0
    about: int | None = None
    most: int | None = None


def preview(asked: Asked, n: int) -> list[Preview]:
    """What every teacher that is prompted would be asked; shows the prompts of the first `n` examples.

    Raises:
        ConfigError: no teacher of the run is prompted.
    """
    teachers = [config for config in asked.config.asked if config.modelled]
    if not teachers:
        names = ", ".join(config.backend for config in asked.config.asked)
        raise ConfigError(f"teacher.backend: '{names}' prompts nobody, so there is no prompt to show")
    with ExitStack() as stack:
        path = asked.ledger
        if not path.exists():  # a look at what would be done leaves nothing behind
            path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "empty.sqlite"
        ledger = stack.enter_context(Ledger(path))
        return [_preview(asked, config, ledger, n) for config in teachers]


def _preview(asked: Asked, config: TeacherConfig, ledger: Ledger, n: int) -> Preview:
    teacher = AskedTeacher(asked.task, config, asked.config.seed, ledger)
    found = Preview(teacher.name, config.style, exact=config.backend in ("local", "vllm"))
    count = _counter(config) if found.exact else about_tokens
    for _, example in islice(asked.stream(), n):
        prompt = teacher.prompter.ask(example)
        found.prompts.append((example.id, prompt, count(prompt)))
    written = round(ledger.mean_tokens(teacher.keys.teacher) or config.max_tokens // 2)
    bill = _Bill(found, price_of(config), written, config.max_tokens)
    if bill.price:
        found.about = found.most = 0
    for part in chunks(asked.stream()):
        _add(bill, teacher, part)
    return found


@dataclass
class _Bill:
    """Adds requests to a preview."""

    found: Preview
    price: Price | None
    written: int
    max_tokens: int

    def add(self, prompt: Prompt, reasons: int = 0, most_reasons: int = 0) -> None:
        """A request whose prompt repeats so many tokens of an answer that is not there yet, and at most."""
        found, tokens = self.found, about_tokens(prompt) + reasons
        found.tokens += tokens
        if self.price:
            cost = self.price.of(Reply("", "stop", "", tokens, self.written), 0)
            found.about = (found.about or 0) + cost
            most = self.price.bound(prompt, self.max_tokens) + round(most_reasons * self.price.input)
            found.most = (found.most or 0) + most


def _add(bill: _Bill, teacher: AskedTeacher, part: list[Pair]) -> None:
    wanted = [(prompt, draw) for _, prompt, draw in teacher.first(part)]
    entries = teacher.find(wanted)
    for (prompt, _), entry in zip(wanted, entries, strict=True):
        if entry is None:
            bill.found.asks += 1
            bill.add(prompt)
        else:
            bill.found.reused += 1
    for _, stage in teacher.stages()[1:]:
        then = [(prompt, draw) for _, prompt, draw in stage(part)]
        for (prompt, _), entry in zip(then, teacher.find(then), strict=True):
            if entry is None:
                bill.found.further += 1
                bill.add(prompt)
    draws = teacher.teacher.draws
    open_ = [pair for i, pair in enumerate(part) if None in entries[i * draws : (i + 1) * draws]]
    repeats = teacher.teacher.prompt == "zero-shot"
    for prompt in teacher.later(open_):
        bill.found.further += 1
        bill.add(prompt, repeats * bill.written, repeats * bill.max_tokens)


def _counter(config: TeacherConfig) -> Callable[[Prompt], int]:
    """Counts with the model's own tokenizer; the weights are not loaded for it."""
    from stepdistill.teacher.tokens import Tokens

    tokens = Tokens(config)
    return lambda prompt: len(tokens.encode(prompt))
