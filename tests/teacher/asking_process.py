"""A child process that works on a ledger, in one of a few ways; started by the tests of ledger and work."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from asking import PRICE, ask_of, order_of, prompt, reply_to

from stepdistill.records import unwatched
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.protocol import Prompt, Reply, Sampling, Tally, in_batches
from stepdistill.teacher.work import Order, Work


def answer(path: Path, sent: Path, n: int) -> None:
    """Have n questions answered; each one that is asked adds a line to a file."""
    order = order_of([f"question {number}" for number in range(n)])
    with sent.open("a", encoding="utf-8") as file, Ledger(path) as ledger:

        def complete(prompts: Sequence[Prompt], sampling: Sampling, draws: Sequence[int]) -> list[Reply]:
            for one in prompts:
                file.write(one.tail[-1].content + "\n")
            file.flush()
            time.sleep(0.002)
            return [reply_to(one) for one in prompts]

        in_batches(Work(ledger, order, Tally()), complete, 7)


def hold(path: Path) -> None:
    """Claim two questions at a bound of 50 each, say so, and wait to be killed."""
    order = order_of(())
    with Ledger(path) as ledger:
        with ledger.transaction():
            ledger.claim([ask_of(order, "question 0", 50), ask_of(order, "question 1", 50)])
        print("held", flush=True)
        time.sleep(600)


def enter(path: Path, start: Path) -> None:
    """Open a new ledger at the same moment as others, again and again."""
    print("ready", flush=True)
    while not start.exists():
        time.sleep(0.001)
    for _ in range(3):
        with Ledger(path) as ledger:
            ledger.money()
    print("done", flush=True)


def stream(path: Path, n: int) -> None:
    """Have n prompts answered at once, and print the peak of memory in kB."""

    def prompts() -> Iterator[tuple[str, Prompt, int]]:
        return ((f"id-{number}", prompt(f"question {number} {'x' * 300}"), 0) for number in range(n))

    order = Order("ask", prompts, n, order_of(()).keys, Sampling(max_tokens=128), PRICE, None, unwatched)
    one = Reply("so the answer is 7", "stop", "m", 10, 10)
    with Ledger(path) as ledger:
        work = Work(ledger, order, Tally())
        in_batches(work, lambda prompts, sampling, draws: [one] * len(prompts), 256)
        assert work.tally.answered == n
    status = Path("/proc/self/status").read_text()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    ways = {"answer": answer, "hold": hold, "enter": enter, "stream": stream}
    given = [int(part) if part.isdigit() else Path(part) for part in sys.argv[2:]]
    ways[sys.argv[1]](*given)  # type: ignore[operator]
