"""The way between examples, ledger and backend: only what nobody has answered is asked, and paid once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stepdistill.errors import BudgetError
from stepdistill.records import Watcher
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import NANO, Price, about_tokens, dollars
from stepdistill.teacher.protocol import Ask, Prompt, Reply, Result, Sampling, Tally

CHUNK = 256
"""Prompts looked up in the ledger at a time."""
PATIENCE = 0.2
"""Seconds between looks at what another process is asking."""


@dataclass(frozen=True)
class Order:
    """What is to be answered, by whom, at what price.

    `what` names it in the progress; `prompts` gives (example id, prompt, draw) anew each time that it is
    called; `total` is how many.
    """

    what: str
    prompts: Callable[[], Iterable[tuple[str, Prompt, int]]]
    total: int
    keys: Keys
    sampling: Sampling
    price: Price | None
    max_cost: int | None
    watch: Watcher


class Work:
    """Takes prompts from an order in a stream, so that a million need no more memory than a thousand."""

    def __init__(self, ledger: Ledger, order: Order, tally: Tally) -> None:
        self.order, self.tally = order, tally
        self.sampling = order.sampling
        self._ledger = ledger
        self._source: Iterator[tuple[str, Prompt, int]] = iter(order.prompts())
        self._held: dict[bytes, Ask] = {}
        self._flying: set[bytes] = set()
        self._hopeless: set[bytes] = set()
        self._damaged: set[int] = set()
        self._elsewhere = False
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether all is answered, or given up."""
        return self._ended and not (self._held or self._flying or self._elsewhere)

    def exchange(self, results: Sequence[tuple[Ask, Result]], want: int) -> list[Ask]:
        """Store results and take up to `want` further asks, in one durable transaction.

        An empty list means "not now" unless `finished`: the rest waits for money that requests on
        their way hold, or is being asked by another process.

        Raises:
            BudgetError: nothing is on its way and the next answer could cost too much.
            LedgerError: the ledger is full or damaged; the results are not stored.
        """
        fresh = self._pull(want - len(self._held)) if want else []
        granted: list[Ask] = []
        if results or fresh or self._held:
            with self._ledger.transaction():
                self._store(results)
                if want:
                    granted = self._claim([*self._held.values(), *fresh], want)
        self._report()
        if want and not granted and not results and not self.finished:
            self._wait()
        return granted

    def _pull(self, want: int) -> list[Ask]:
        """Further asks that the ledger cannot answer, without a look at claims and money."""
        found: list[Ask] = []
        while len(found) < want and not self._ended:
            rows = list(islice(self._source, CHUNK))
            if not rows:
                self._ended = True
                break
            asks: dict[bytes, Ask] = {}
            for example_id, prompt, draw in rows:
                slot = self.order.keys.slot(prompt, draw)
                asks.setdefault(slot, Ask(slot, prompt, draw, example_id))
            answered, damaged = self._ledger.find(list(asks), self.sampling.max_tokens)
            self._damaged.update(damaged)
            self.tally.reused += len(answered) + len(rows) - len(asks)
            known = (answered, self._hopeless, self._flying, self._held)
            found += [self._priced(ask) for slot, ask in asks.items() if not any(slot in k for k in known)]
        return found

    def _priced(self, ask: Ask) -> Ask:
        price, most = self.order.price, self.sampling.max_tokens
        bound = price.bound(ask.prompt, most) if price else 0
        return Ask(ask.slot, ask.prompt, ask.draw, ask.example_id, bound, about_tokens(ask.prompt) + most)

    def _store(self, results: Sequence[tuple[Ask, Result]]) -> None:
        done: list[tuple[Ask, Reply, int | None]] = []
        for ask, result in results:
            self._flying.discard(ask.slot)
            if isinstance(result, Reply):
                done.append((ask, result, self._account(ask, result)))
                continue
            presumed = ask.bound if result.maybe_paid else 0
            self._ledger.fail(ask, result, presumed)
            self.tally.presumed += presumed
            if result.again:
                self._held[ask.slot] = ask
            else:
                self._hopeless.add(ask.slot)
                self.tally.failed[result.reason] = self.tally.failed.get(result.reason, 0) + 1
        self._ledger.drop(self._damaged)
        self._damaged.clear()
        if done:
            self._ledger.add(self.order.keys.teacher, self.sampling.max_tokens, done)

    def _account(self, ask: Ask, reply: Reply) -> int | None:
        cost = self.order.price.of(reply, ask.bound) if self.order.price else None
        self.tally.answered += 1
        self.tally.cost += cost or 0
        self.tally.prompt_tokens += reply.prompt_tokens or 0
        self.tally.completion_tokens += reply.completion_tokens or 0
        return cost

    def _claim(self, asks: Sequence[Ask], want: int) -> list[Ask]:
        """Of the asks, those that this process may send now; the rest is held, or another's."""
        slots = [ask.slot for ask in asks]
        claimed = self._ledger.claims(slots)
        answered, _ = self._ledger.find(slots, self.sampling.max_tokens)
        left = None
        if self.order.max_cost is not None:
            left = self.order.max_cost - self._ledger.money().total
        granted: list[Ask] = []
        held: dict[bytes, Ask] = {}
        for ask in asks:
            if ask.slot in answered:
                self.tally.reused += 1
            elif ask.slot in claimed:
                self._elsewhere = True
            elif held or len(granted) >= want or (left is not None and ask.bound > left):
                held[ask.slot] = ask
            else:
                granted.append(ask)
                left = None if left is None else left - ask.bound
        self._held = held
        self._ledger.claim(granted)
        self._flying.update(ask.slot for ask in granted)
        return granted

    def _wait(self) -> None:
        """Nothing could be taken: because of money, or because another process is at it."""
        if self._flying:
            return
        if self._held:
            money = self._ledger.money()
            if not money.reserved:
                raise BudgetError(self._too_dear(money.paid, money.presumed))
        elif self._ended and self._elsewhere:
            # The whole way again: what the other process has answered by now is found in the ledger.
            self._elsewhere = self._ended = False
            self._source = iter(self.order.prompts())
            self.tally.reused = -self.tally.answered  # our own answers will be found again, too
        time.sleep(PATIENCE)

    def _too_dear(self, paid: int, presumed: int) -> str:
        unsure = f", and up to {dollars(presumed)} for requests whose fate is unknown" if presumed else ""
        done, total = self.tally.reused + self.tally.answered, self.order.total
        bound = next(iter(self._held.values())).bound
        return (
            f"the budget is reached after {done:,} of {total:,} answers: {dollars(paid)} are paid{unsure}, "
            f"and the next can cost {dollars(bound)} of annotate.max_cost_usd "
            f"{(self.order.max_cost or 0) / NANO:g}; raise it and run the same command to go on"
        )

    def _report(self) -> None:
        done = self.tally.reused + self.tally.answered + sum(self.tally.failed.values())
        spent = dollars(self.tally.cost + self.tally.presumed) if self.order.price else ""
        self.order.watch(self.order.what, min(done, self.order.total), self.order.total, spent)
