"""A run of the scheduler against the fault-injecting server, and what the ledger has afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asking import HEAD, order_of, prompt, teacher
from faulty_server import FaultyServer, echo, prompt_hash

from stepdistill.config import TeacherConfig
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.openai import OpenAIEndpoint
from stepdistill.teacher.pace import Pace
from stepdistill.teacher.protocol import Sampling, Tally
from stepdistill.teacher.scheduler import Scheduler
from stepdistill.teacher.work import Work

SAMPLING = Sampling(temperature=0.5, max_tokens=128)


def at(url: str, limits: dict[str, Any] | None = None, **more: Any) -> TeacherConfig:
    return teacher(**{"base_url": url, "draws": 1, "limits": {"concurrency": 8} | (limits or {})} | more)


def words(n: int) -> list[str]:
    return [f"question {number}" for number in range(n)]


def run(
    folder: Path, config: TeacherConfig, asked: Sequence[str], tally: Tally | None = None, wait: float = 0.005
) -> Tally:
    """Have questions answered; the tally is filled also where the run raises."""
    tally = tally or Tally()
    with Ledger(folder / "ledger.sqlite") as ledger:
        work = Work(ledger, order_of(asked, SAMPLING, config=config), tally)
        pace = Pace(config.limits.requests_per_minute, config.limits.tokens_per_minute)
        Scheduler(OpenAIEndpoint(config, SAMPLING), config.limits, work, pace, wait).run()
    return tally


def rows(folder: Path, config: TeacherConfig, asked: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Text and finish by question, joined by the key; the ledger holds no other row and none twice."""
    order = order_of(asked, SAMPLING, config=config)
    slots = {order.keys.slot(prompt(word), 0): word for word in asked}
    with Ledger(folder / "ledger.sqlite") as ledger:
        found, damaged = ledger.find(list(slots), SAMPLING.max_tokens)
    assert damaged == []
    assert count(folder, "completions") == len(found)
    return {slots[slot]: (entry.text, entry.finish) for slot, entry in found.items()}


def count(folder: Path, table: str) -> int:
    with sqlite3.connect(folder / "ledger.sqlite") as base:
        return int(base.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0])


def failures(folder: Path) -> list[tuple[str, str, str]]:
    """(example, reason, detail) of every failed attempt that is noted."""
    with sqlite3.connect(folder / "ledger.sqlite") as base:
        return list(base.execute("SELECT example, reason, detail FROM failures ORDER BY id"))


def said(word: str) -> str:
    """What the server says to a question."""
    return echo()([{"role": "user", "content": word}], 128)


def hash_of(word: str) -> str:
    """The server's name of a question."""
    turns = [{"role": m.role, "content": m.content} for m in prompt(word).messages]
    return prompt_hash({"messages": turns})


def assert_all_answered(
    folder: Path, config: TeacherConfig, asked: Sequence[str], server: FaultyServer
) -> None:
    assert rows(folder, config, asked) == {word: (said(word), "stop") for word in asked}
    assert server.record.strays == []


__all__ = ["HEAD", "SAMPLING", "FaultyServer"]
