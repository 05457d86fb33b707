"""The hard texts go back to the teacher: what the student abstains from, the LLM is asked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stepdistill.config import TeacherConfig, check, load_run
from stepdistill.deploy.answer import Answer
from stepdistill.deploy.bundle import MANIFEST, Bundle
from stepdistill.deploy.haste import Places, hasty, with_requests
from stepdistill.deploy.teacher import Routing, routing_of
from stepdistill.errors import (
    BudgetError,
    ConfigError,
    LedgerError,
    RunFolderError,
    StepdistillError,
    extras_named,
)
from stepdistill.files import digest
from stepdistill.records import Example, Unparsed, unwatched
from stepdistill.task.load import Task
from stepdistill.teacher.asked import AskedTeacher, Pair, sampling_of
from stepdistill.teacher.backends import BACKENDS
from stepdistill.teacher.ledger import LEDGER, Ledger, Money
from stepdistill.teacher.openai import OpenAIBackend
from stepdistill.teacher.prices import FREE_OF_CHARGE, need_price
from stepdistill.teacher.prompts import Prompter
from stepdistill.teacher.protocol import Backend, Tally
from stepdistill.teacher.settle import Heard, vote

if TYPE_CHECKING:
    from stepdistill.deploy.runtime import Runtime

SECONDS = 20.0
"""How long a request waits for the teacher."""
THREADS = 32
"""Requests that are with the teacher at the same time; those beyond wait, and their time runs."""


@dataclass(frozen=True, slots=True)
class _Heard:
    """What came back for each text, as far as it did, and why not for all."""

    answers: list[list[Heard]]
    why: str


class Router:
    """Asks a run's teacher in the run's own words: task, demonstrations, style, draws.

    Every answer is kept in the ledger before it is given, also one that comes too late, so that a text is
    paid once whoever asks it again. Safe to be used by several threads, also beside a running event loop.
    A backend `openai-batch` is asked as `openai`: nobody waits a day.

    Args:
        task: of the student.
        teacher: a backend that can be asked about new texts.
        seed: the run's; demonstrations may be drawn with it.
        ledger: file of the answers; made if it is not there.
        seconds: how long `ask` waits. A model in this process is loaded when it is first asked.
        max_cost_usd: the most that the ledger may hold of paid answers, whoever paid them; as
            `annotate.max_cost_usd`.

    Raises:
        ConfigError: the teacher cannot be asked, has no key or no address, or a budget has no price.
        LedgerError, RunFolderError: the ledger cannot be used.
        MissingExtraError: what the backend needs is not installed.
    """

    def __init__(
        self,
        task: Task,
        teacher: TeacherConfig,
        seed: int,
        ledger: Path,
        seconds: float = SECONDS,
        max_cost_usd: float | None = None,
    ) -> None:
        if not teacher.modelled:
            raise ConfigError(f"a teacher '{teacher.backend}' cannot be asked about new texts")
        if not 0 < seconds <= 3600:
            raise ConfigError(f"route: {seconds:g} seconds to wait; give more than 0 and at most 3600")
        self.teacher = hasty(teacher, seconds)
        self.seconds, self.ledger, self.max_cost_usd = seconds, ledger, max_cost_usd
        self._task, self._seed = task, seed
        here = teacher.backend in FREE_OF_CHARGE
        # What is wrong is told now, not to the first who is routed, and before a ledger is made.
        with extras_named():
            sampling = sampling_of(self.teacher, Prompter(task, self.teacher, seed))
            need_price(self.teacher, max_cost_usd)
            backend = BACKENDS[self.teacher.backend](self.teacher, sampling, seed)
        self._backend: Backend | None = backend if here else None
        Ledger(ledger).close()
        # A model in this process answers one call at a time.
        self._pool = ThreadPoolExecutor(1 if here else THREADS, "route")
        self._places = Places(teacher.limits.concurrency)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait for what is on its way, and keep it; nothing can be asked afterwards."""
        self._pool.shutdown(cancel_futures=True)

    def __str__(self) -> str:
        """Who gets the texts, and by which key, for people."""
        if self.teacher.backend in FREE_OF_CHARGE:
            return f"{self.teacher.model} in this process"
        key = f", with the key of {self.teacher.key_variable}" if self.teacher.key_variable else ""
        return f"{self.teacher.model} at {self.teacher.base_url}{key}"

    def money(self) -> Money:
        """What the ledger knows of money."""
        with Ledger(self.ledger) as ledger:
            return ledger.money()

    def ask(self, examples: Sequence[Example]) -> list[Answer]:
        """The teacher's answers, in order. Where there is none, `label` is None and `reason` says why."""
        if not examples:
            return []
        pairs = [_pair(example) for example in examples]
        try:
            heard = self._within(pairs)
        except StepdistillError as error:
            heard = _Heard([[] for _ in pairs], _plainly(error))
        return [
            self._answer(example, found, heard.why)
            for example, found in zip(examples, heard.answers, strict=True)
        ]

    def _within(self, pairs: Sequence[Pair]) -> _Heard:
        """What is heard in time; what comes later is kept for the next who asks."""
        asking = self._pool.submit(self._ask, pairs, time.monotonic() + self.seconds)
        try:
            return asking.result(self.seconds)
        except Late:
            asking.cancel()  # of no effect once it has begun: what is paid is to be kept
        with Ledger(self.ledger) as ledger:
            return _Heard(self._asked(ledger).heard(pairs), f"not within {self.seconds:g} s")

    def _ask(self, pairs: Sequence[Pair], until: float) -> _Heard:
        why, tally = "", Tally()
        wanted = len(pairs) * self.teacher.draws
        with self._places.taken(wanted, until - time.monotonic()) as places, Ledger(self.ledger) as ledger:
            asked = self._asked(ledger)
            try:
                if places:
                    self._prepare(asked, places, until - time.monotonic())
                    asked.ask(lambda: pairs, len(pairs), unwatched, tally)
            except StepdistillError as error:
                why = _plainly(error)
            why = ", ".join(tally.failed) or why or f"not within {self.seconds:g} s"
            return _Heard(asked.heard(pairs), why)

    def _asked(self, ledger: Ledger) -> AskedTeacher:
        return AskedTeacher(self._task, self.teacher, self._seed, ledger)

    def _prepare(self, asked: AskedTeacher, places: int, seconds: float) -> None:
        # A server's backend holds the session of one event loop, so each call has its own.
        own = with_requests(self.teacher, places)
        backend = self._backend or OpenAIBackend(own, asked.sampling, max(0.0, seconds))
        asked.prepare(self.max_cost_usd, backend)

    def _answer(self, example: Example, heard: Sequence[Heard], why: str) -> Answer:
        if not heard:
            reason = f"the teacher did not answer: {why}"
            return Answer(example.id, "", None, reason=reason, abstained=True, by="teacher")
        settled = vote(heard, self._task.kind.same, "one")
        read, words = settled.read, settled.source.words
        if isinstance(read, Unparsed):
            reason = f"the teacher's answer could not be read: {read.reason}"
            return Answer(example.id, words, None, reason=reason, abstained=True, by="teacher")
        return Answer(example.id, words, read.label, rationale=read.rationale or None, by="teacher")


def router_for(
    folder: Path,
    bundle: Bundle | None,
    task: Task,
    ledger: Path | None = None,
    seconds: float = SECONDS,
    max_cost_usd: float | None = None,
) -> Router:
    """The router of a student: to the teacher of its run, or to the one that its bundle names.

    Args:
        folder: the student's own in its run, or the bundle.
        bundle: the manifest, where it is one.
        task: of the student.
        ledger: by default the run's; for a bundle, a file beside it, with its name.
        seconds, max_cost_usd: as `Router`; by default the budget of the run, and none for a bundle.

    Raises:
        ConfigError: the teacher cannot be asked about new texts.
        RunFolderError: the student's folder is in no run.
        StepdistillError: as `Router`.
    """
    if bundle is None:
        run = folder.absolute().parent.parent
        if not (run / "config.yaml").is_file():
            raise RunFolderError(f"{folder}: the student is in no run folder, so who taught it is not known")
        config = load_run(run / "config.yaml")
        given = config.annotate.ledger
        place = ledger or (Path(given).expanduser() if given else run.parent / LEDGER)
        budget = config.annotate.max_cost_usd if max_cost_usd is None else max_cost_usd
        found = routing_of(config)
        return Router(task, found.teacher, found.seed, place, seconds, budget)
    if bundle.teacher is None:
        raise ConfigError(f"{folder}: the bundle names no teacher who can be asked about new texts")
    found = check(Routing, bundle.teacher, f"{folder / MANIFEST}: teacher")
    if found.teacher.trust_remote_code:
        raise ConfigError(
            f"{folder}: the bundle's teacher runs code of its own; route to the run folder instead"
        )
    beside = folder.absolute().with_name(f"{folder.absolute().name}.{LEDGER}")
    return Router(task, found.teacher, found.seed, ledger or beside, seconds, max_cost_usd)


def with_router(runtime: Runtime) -> Runtime:
    """The same student, which hands on what it abstains from.

    Raises:
        ConfigError: it never abstains: there is no threshold.
        StepdistillError: as `router_for`.
    """
    if runtime.settings.threshold is None:
        why = "give a threshold" if runtime.closed else "answers that are written have no probabilities"
        raise ConfigError(f"route: '{runtime.card['name']}' never abstains, so nothing is routed; {why}")
    return replace(runtime, router=router_for(runtime.folder, runtime.bundle, runtime.task))


def routed(
    examples: Sequence[Example], answers: Sequence[Answer], router: Router, explain: bool = False
) -> list[Answer]:
    """The same answers; those of which the student abstained are the teacher's, as far as it has any.

    `guess`, `confidence` and `probabilities` stay the student's. Where the teacher fails, so does the
    student's abstaining, with both reasons. Teachers always reason: `explain` says whether it is shown.
    """
    left = [i for i, answer in enumerate(answers) if answer.abstained]
    made = list(answers)
    for i, found in zip(left, router.ask([examples[i] for i in left]), strict=True):
        made[i] = _merged(answers[i], found, explain)
    return made


def unheard(answers: Sequence[Answer], seconds: float) -> list[Answer]:
    """The student's answers where the teacher was not even asked in time."""
    reason = f"the teacher did not answer: not within {seconds:g} s"
    return [replace(a, reason=f"{a.reason}; {reason}") if a.abstained else a for a in answers]


def _merged(own: Answer, found: Answer, explain: bool) -> Answer:
    if found.label is None:
        return replace(own, reason=f"{own.reason}; {found.reason}")
    return replace(
        found,
        guess=own.guess,
        rationale=found.rationale if explain else None,
        probabilities=own.probabilities,
        confidence=own.confidence,
    )


def _pair(example: Example) -> Pair:
    """An example as new texts are: no gold label, and a name by which it always has the same prompt."""
    # Where demonstrations are drawn, they are by the name; a request's place in a batch would be another.
    return "test", Example(digest(example.text, *example.options), example.text, options=example.options)


def _plainly(error: StepdistillError) -> str:
    """Why, for whoever asked the student: no address, path or advice for the operator."""
    if isinstance(error, BudgetError):
        return "the budget is used up"
    if isinstance(error, LedgerError | RunFolderError):
        return "its ledger cannot be used"
    return str(error)
