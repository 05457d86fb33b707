"""One answer in the ledger: its row, its seal, and which requests it serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from stepdistill.teacher.protocol import Ask, Reply

COLUMNS = "slot, max_tokens, draw, text, finish, model, prompt_tokens, completion_tokens, cost, seal, id"
INSERT = (
    "INSERT INTO completions (slot, max_tokens, teacher, draw, example, text, finish, model, prompt_tokens, "
    "completion_tokens, cost, seconds, at, seal) VALUES (?, ?, ?, ?, CAST(? AS TEXT), CAST(? AS TEXT), "
    "CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
)


@dataclass(frozen=True, slots=True)
class Entry:
    """A stored answer whose seal is whole."""

    slot: bytes
    max_tokens: int
    draw: int
    text: str
    finish: str
    model: str
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: int | None

    @property
    def is_cut(self) -> bool:
        """Whether the limit of tokens ended it, or may have: not every server says why an answer ended."""
        if self.finish in ("stop", "content_filter"):
            return False
        used = self.completion_tokens
        return self.finish == "length" or used is None or used >= self.max_tokens

    def serves(self, wanted: int) -> bool:
        """Whether another limit of tokens could not have changed this answer.

        An answer that ended by itself is the same under any larger limit, and under a smaller one
        that it keeps to; one that was cut is the same only under its own.
        """
        if wanted == self.max_tokens:
            return True
        if self.is_cut:
            return False
        used = self.completion_tokens
        return wanted > self.max_tokens or (used is not None and used <= wanted)


def seal(slot: bytes, max_tokens: int, parts: Sequence[object]) -> bytes:
    """Checksum of a stored answer, so that a flipped byte never passes as the teacher's words."""
    total = blake2b(slot, digest_size=8)
    total.update(b"%d" % max_tokens)
    for part in parts:
        raw = part if isinstance(part, bytes) else str(part).encode()
        total.update(b"|%d|" % len(raw))
        total.update(raw)
    return total.digest()


def pack(
    teacher: str, max_tokens: int, ask: Ask, reply: Reply, cost: int | None, at: str
) -> tuple[object, ...]:
    """The values of `INSERT` for an answer."""
    text, finish, model = raw(reply.text), raw(reply.finish), raw(reply.model)
    counts = (reply.prompt_tokens, reply.completion_tokens, cost)
    mark = seal(ask.slot, max_tokens, (ask.draw, text, finish, model, *counts))
    head = (ask.slot, max_tokens, teacher, ask.draw, raw(ask.example_id), text, finish, model)
    return (*head, *counts, reply.seconds, at, mark)


def unpack(row: tuple[Any, ...]) -> Entry | None:
    """A row of `COLUMNS` as an answer; None where its seal is broken."""
    slot, max_tokens, draw, text, finish, model, asked, written, cost, mark, _ = row
    if not isinstance(slot, bytes) or not isinstance(max_tokens, int):
        return None
    if seal(slot, max_tokens, (draw, text, finish, model, asked, written, cost)) != mark:
        return None
    words = [part.decode("utf-8", "surrogatepass") for part in (text, finish, model)]
    return Entry(slot, max_tokens, draw, words[0], words[1], words[2], asked, written, cost)


def raw(text: str) -> bytes:
    """Text for SQLite, as bytes: a lone surrogate, which JSON may carry, cannot be bound as text."""
    return text.encode("utf-8", "surrogatepass")


def now() -> str:
    """The time, for people; nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
