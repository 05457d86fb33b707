"""What passes between the ledger and a backend: prompts in, replies out, each under its own key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
Style = Literal["chat", "text"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat; a prompt of style `text` is a single `user` message."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """Exactly what is sent: `head` is the part that many prompts share, one and the same tuple.

    With fixed demonstrations the head stands first and is the same, byte for byte, in every request,
    so that prefix caches hit; it is hashed and encoded once.
    """

    head: tuple[Message, ...]
    tail: tuple[Message, ...]

    @property
    def messages(self) -> tuple[Message, ...]:
        """All turns in order."""
        return self.head + self.tail

    @property
    def text(self) -> str:
        """The whole prompt as one text, for backends and endpoints that continue a text."""
        return "".join(message.content for message in self.messages)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. All but `max_tokens` belongs to an answer's key.

    `extra` are further fields of the request, as a sorted tuple of (name, JSON text).
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    extra: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """One prompt to be answered once.

    Attributes:
        slot: the key (hash of backend, model, messages, draw and sampling but `max_tokens`).
        prompt: what is sent.
        draw: number of the draw, from 0.
        example_id: whose prompt it is; the first example's, where several have the same prompt.
        bound: what the answer can cost at most, in billionths of a US dollar.
        tokens: what a request can use of a tokens-per-minute limit: prompt and answer, estimated.
    """

    slot: bytes
    prompt: Prompt
    draw: int
    example_id: str
    bound: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The model's words, verbatim, and what the server said of them.

    `finish` is "stop" where the model ended by itself, "length" where `max_tokens` cut it,
    "content_filter" where the provider withheld it; other words are kept as they come. `seconds` is
    the latency. Token counts are None where the server gave none.
    """

    text: str
    finish: str
    model: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Failed:
    """No usable reply: why, in a few fixed words that can be counted, and whether it may have been paid.

    `again` asks for another attempt.
    """

    reason: str
    detail: str = ""
    maybe_paid: bool = False
    again: bool = False


Result = Reply | Failed


@dataclass
class Tally:
    """What has happened so far in this process, for progress and the summary.

    `strays` are lines of a batch job's results that nobody asked for or that cannot be read.
    """

    reused: int = 0
    answered: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    attempts: int = 0
    slowed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: int = 0
    presumed: int = 0
    strays: int = 0


class Work(Protocol):
    """Where a backend gets prompts from and gives replies back to; see `teacher/work.py`."""

    sampling: Sampling
    tally: Tally

    def exchange(self, results: Sequence[tuple[Ask, Result]], want: int) -> list[Ask]:
        """Store results and take up to `want` further asks, in one durable transaction."""
        ...

    def take(self, batch: str, state: str, want: int) -> list[Ask]:
        """As `exchange`, for a batch job: it is noted, and given the claims, in the same transaction."""
        ...

    def give_back(self, asks: Sequence[Ask]) -> None:
        """Asks that were not sent after all; they come first the next time."""
        ...

    def batches(self) -> dict[str, str]:
        """Batch jobs for this process to fetch, with their states: its own, and those nobody waits for."""
        ...

    def note_batch(self, batch: str, state: str) -> None:
        """Keep what is known of a batch job, durably; this process waits for it."""
        ...

    def entrusted(self, batch: str) -> dict[bytes, int]:
        """The slots of a batch job that have no result yet, and what each can cost."""
        ...

    def bring(self, results: Sequence[tuple[Ask, Result]], max_tokens: int, over: str | None = None) -> None:
        """Store results of a batch job, whose limit of tokens may have been another, in one transaction.

        What has to be asked again is looked for in the order once more, so the asks need no prompt.
        `over` is the job, if it is to be forgotten with this.
        """
        ...

    @property
    def finished(self) -> bool:
        """Whether nothing is left to take: an empty list then means the end, else "not now"."""
        ...


class Backend(Protocol):
    """A way to a language model; the literal table of them is in `teacher/backends.py`."""

    def answer(self, work: Work) -> None:
        """Take asks from `work` until it is finished, and give a result back for each.

        Raises:
            TeacherError: the model cannot be reached or refuses for good.
        """
        ...


class Complete(Protocol):
    """A model that answers many prompts in one call, such as one in this process."""

    def __call__(self, prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
        """Replies in the order of the prompts; `draws` are the draw numbers, for seeding."""
        ...


def in_batches(
    work: Work, complete: Complete, size: int, too_long: Callable[[Prompt], str | None] = lambda _: None
) -> None:
    """Answer all of `work` with a model that takes `size` prompts at a time.

    What is answered is stored before the next batch is begun. `too_long` says why a prompt cannot be
    asked, if it cannot; the others are.
    """
    results: list[tuple[Ask, Result]] = []
    while True:
        asks = work.exchange(results, size)
        results = []
        if not asks:
            if work.finished:
                return
            continue
        faults = [too_long(ask.prompt) for ask in asks]
        results = [
            (ask, Failed("prompt too long", why)) for ask, why in zip(asks, faults, strict=True) if why
        ]
        asks = [ask for ask, why in zip(asks, faults, strict=True) if not why]
        work.tally.attempts += len(asks)
        if asks:
            replies = complete([ask.prompt for ask in asks], work.sampling, [ask.draw for ask in asks])
            results += zip(asks, replies, strict=True)


def as_extra(fields: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Further request fields in the form that `Sampling` keeps.

    >>> as_extra({"seed": 1})
    (('seed', '1'),)
    """
    import json

    return tuple(sorted((name, json.dumps(value, sort_keys=True)) for name, value in fields.items()))
