"""The way between examples, ledger and backend: only what nobody has answered is asked, and paid once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from stepdistill.errors import BudgetError, LedgerError, TeacherError
from stepdistill.records import Watcher
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.owner import alive
from stepdistill.teacher.prices import NANO, Price, about_tokens, dollars
from stepdistill.teacher.protocol import Ask, Prompt, Reply, Result, Sampling, Tally

CHUNK = 256
"""Prompts looked up in the ledger at a time."""
PATIENCE = 0.2
"""Seconds before another look at what another process is asking; doubled each time up to `LONGEST`."""
LONGEST = 5.0


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
        self._anew = False
        self._batch: tuple[str, str] | None = None
        self._before = (tally.reused, tally.answered)
        self._done_before = _done(tally)
        self._patience = PATIENCE

    @property
    def finished(self) -> bool:
        """Whether all is answered, or given up."""
        return self._ended and not (self._held or self._flying or self._elsewhere or self._anew)

    def exchange(self, results: Sequence[tuple[Ask, Result]], want: int) -> list[Ask]:
        """Store results and take up to `want` further asks, in one durable transaction.

        An empty list means "not now" unless `finished`: the rest waits for money that requests on
        their way hold, or is being asked by another process.

        Raises:
            BudgetError: nothing is on its way and the next answer could cost too much.
            LedgerError: there is no room for more answers, and all on their way are stored; or the ledger
                cannot be written, and the results are not.
        """
        tight = want > 0 and not self._ledger.has_room(len(results) + len(self._flying) + want)
        if tight:
            want = 0
        fresh = self._pull(want - len(self._held)) if want else []
        granted: list[Ask] = []
        if results or fresh or self._held:
            with self._ledger.transaction():
                self._store(results, self.sampling.max_tokens)
                if want:
                    granted = self._claim([*self._held.values(), *fresh], want)
        self._report()
        if tight and not self._flying:
            raise LedgerError(
                f"{self._ledger.path}: the disk is nearly full, so nothing more is asked; make room or set "
                "annotate.ledger to another place, then run the same command again: stored answers are kept"
            )
        if want and not granted and not results and not self.finished:
            self._wait()
        return granted

    def take(self, batch: str, state: str, want: int) -> list[Ask]:
        """As `exchange`, for a batch job: it is noted, and given the claims, in the same transaction."""
        self._batch = (batch, state)
        try:
            return self.exchange((), want)
        finally:
            self._batch = None

    def give_back(self, asks: Sequence[Ask]) -> None:
        """Asks that were not sent after all; they come first the next time."""
        with self._ledger.transaction():
            self._ledger.release(asks)
        self._flying.difference_update(ask.slot for ask in asks)
        self._held |= {ask.slot: ask for ask in asks}

    def batches(self) -> dict[str, str]:
        """Batch jobs for this process to fetch, with their states: its own, and those nobody waits for."""
        ledger, found = self._ledger, {}
        with ledger.transaction():
            for batch, text in ledger.batches(self._place).items():
                watcher, _, state = text.partition("\n")
                if watcher == ledger.owner.name or not alive(ledger.path, watcher):
                    found[batch] = state
                    self._note(batch, state)
        return found

    def note_batch(self, batch: str, state: str) -> None:
        """Keep what is known of a batch job, durably; this process waits for it."""
        with self._ledger.transaction():
            self._note(batch, state)

    def entrusted(self, batch: str) -> dict[bytes, int]:
        """The slots of a batch job that have no result yet, and what each can cost."""
        return self._ledger.entrusted(batch)

    def bring(self, results: Sequence[tuple[Ask, Result]], max_tokens: int, over: str | None = None) -> None:
        """Store results of a batch job, whose limit of tokens may have been another, in one transaction.

        What has to be asked again is looked for in the order once more, so the asks need no prompt.
        `over` is the job, if it is to be forgotten with this.
        """
        with self._ledger.transaction():
            self._store(results, max_tokens, bare=True)
            if over is not None:
                self._ledger.note_batch(self._place, over, None)
        self._report()

    @property
    def _place(self) -> str:
        return f"{self.order.keys.teacher} {self.order.keys.place}"

    def _note(self, batch: str, state: str) -> None:
        self._ledger.note_batch(self._place, batch, f"{self._ledger.owner.name}\n{state}")

    def _pull(self, want: int) -> list[Ask]:
        """Further asks that the ledger cannot answer, without a look at claims and money."""
        found: dict[bytes, Ask] = {}
        if self._anew:
            self._restart()
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
            shared = {s for s in asks if s in self._flying or s in self._held or s in found}
            self.tally.reused += len(answered) + len(shared) + len(rows) - len(asks)
            known = (answered, shared, self._hopeless)
            new = (ask for slot, ask in asks.items() if not any(slot in k for k in known))
            found |= {ask.slot: self._priced(ask) for ask in new}
        return list(found.values())

    def _priced(self, ask: Ask) -> Ask:
        price, most = self.order.price, self.sampling.max_tokens
        bound = price.bound(ask.prompt, most) if price else 0
        return Ask(ask.slot, ask.prompt, ask.draw, ask.example_id, bound, about_tokens(ask.prompt) + most)

    def _store(self, results: Sequence[tuple[Ask, Result]], max_tokens: int, bare: bool = False) -> None:
        done: list[tuple[Ask, Reply, int | None]] = []
        for ask, result in results:
            if isinstance(result, Reply):
                done.append((ask, result, self._account(ask, result)))
                self._flying.discard(ask.slot)
                continue
            self._flying.discard(ask.slot)
            presumed = ask.bound if result.maybe_paid else 0
            self._ledger.fail(ask, result, presumed)
            self.tally.presumed += presumed
            if result.again and bare:
                self._anew = True
            elif result.again:
                self._held[ask.slot] = ask
            else:
                self._hopeless.add(ask.slot)
                self.tally.failed[result.reason] = self.tally.failed.get(result.reason, 0) + 1
        self._ledger.drop(self._damaged)
        self._damaged.clear()
        if done:
            self._ledger.add(self.order.keys.teacher, max_tokens, done)

    def _account(self, ask: Ask, reply: Reply) -> int | None:
        cost = self.order.price.of(reply, ask.bound) if self.order.price else None
        if ask.slot in self._flying:  # else an earlier process asked, and we shall find it in the ledger
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
            elif held or len(granted) >= want or (left is not None and ask.bound > max(left, 0)):
                held[ask.slot] = ask
            else:
                granted.append(ask)
                left = None if left is None else left - ask.bound
        self._held = held
        self._ledger.claim(granted)
        if granted and self._batch is not None:
            self._note(*self._batch)
            self._ledger.entrust(self._batch[0], granted)
        self._flying.update(ask.slot for ask in granted)
        return granted

    def _wait(self) -> None:
        """Nothing could be taken: because of money, or because another process is at it."""
        if self._flying:
            return
        if stranded := self._ledger.stranded(self._place if self._batch else None):
            raise TeacherError(
                f"{stranded[1]:,} requests are in a batch of {stranded[0]} that no process waits for; run "
                "the file that submitted it (openai-batch, this model and address) to fetch it first"
            )
        if self._held:
            money = self._ledger.money()
            if not money.reserved:
                raise BudgetError(self._too_dear(money.paid, money.presumed))
        elif self._ended and self._elsewhere:
            self._restart()
        time.sleep(self._patience)
        self._patience = min(2 * self._patience, LONGEST)  # each look goes through the whole input

    def _restart(self) -> None:
        """The whole way again: what others have answered by now is found in the ledger."""
        self._elsewhere = self._ended = self._anew = False
        self._source = iter(self.order.prompts())
        reused, answered = self._before
        self.tally.reused = reused - (self.tally.answered - answered)  # our own will be found again, too

    def _too_dear(self, paid: int, presumed: int) -> str:
        unsure = f", and up to {dollars(presumed)} for requests whose fate is unknown" if presumed else ""
        done, total = _done(self.tally) - self._done_before, self.order.total
        bound = next(iter(self._held.values())).bound
        return (
            f"the budget is reached after {done:,} of {total:,} answers: {dollars(paid)} are paid{unsure}, "
            f"and the next can cost {dollars(bound)} of annotate.max_cost_usd "
            f"{(self.order.max_cost or 0) / NANO:g}; raise it and run the same command to go on"
        )

    def _report(self) -> None:
        done = _done(self.tally) - self._done_before
        spent = dollars(self.tally.cost + self.tally.presumed) if self.order.price else ""
        self.order.watch(self.order.what, min(done, self.order.total), self.order.total, spent)


def _done(tally: Tally) -> int:
    return tally.reused + tally.answered + sum(tally.failed.values())
