"""How memory grows with the training data: examples are written, ordered and read once, in two sizes.

    python benchmarks/memory.py > memory.json

Each size has a process of its own. What counts is anonymous memory (RssAnon): pages of the mapped file
are the kernel's to take back. The examples are made up, with lengths as texts have them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from stepdistill.student.corpus import write_corpus
from stepdistill.student.encode import Branch, Item, Row
from stepdistill.student.order import StepSampler

BATCH, MICRO = 64, 16


def examples(n: int) -> Iterator[tuple[str, Item]]:
    """Inputs of about 60 tokens with a label and a rationale of about 40."""
    draw = np.random.default_rng(0)
    for i in range(n):
        asked, told = (int(draw.lognormal(mean, 0.4)) + 1 for mean in (4.1, 3.7))
        ids: list[int] = draw.integers(3, 32_000, asked + told).tolist()
        branches = (Branch("label", [3], [ids[0], 1]), Branch("rationale", [4], ids[asked:]))
        yield str(i), (Row(ids[:asked], branches),)


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this system does not tell a process's anonymous memory (RssAnon, Linux 4.5 or later)")


@contextmanager
def peak() -> Iterator[list[int]]:
    """A list whose only number is the largest anonymous memory meanwhile, looked at every millisecond."""
    largest, done = [anonymous()], threading.Event()

    def look() -> None:
        while not done.wait(0.001):
            largest[0] = max(largest[0], anonymous())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield largest
    finally:
        done.set()
        thread.join()


def measure(n: int, folder: Path) -> dict[str, Any]:
    """One size: peak, the file's bytes, and microseconds to read an example at random."""
    # What is loaded on the first use is no growth.
    write_corpus(folder / "first.arrow", examples(2000))
    before = anonymous()
    with peak() as largest:
        corpus = write_corpus(folder / "train.arrow", examples(n))
        sampler = StepSampler(corpus.lengths, BATCH, MICRO)
        began, read = time.perf_counter(), 0
        for batch in sampler:
            read += len([corpus[i] for i in batch])
        seconds = time.perf_counter() - began
    if read < n:
        raise SystemExit(f"{read} examples of {n} were read")
    return {
        "examples": n,
        "growth": largest[0] - before,
        "file": corpus.path.stat().st_size,
        "microseconds": round(1e6 * seconds / n, 1),
    }


def main() -> None:
    """Measure both sizes and say what an example more costs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs=2, default=(10_000, 200_000))
    parser.add_argument("--one", type=int, help="measure this size alone, in this process")
    given = parser.parse_args()
    if given.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(given.one, Path(folder))))
        return
    found = []
    for n in given.sizes:
        command = [sys.executable, __file__, "--one", str(n)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    small, large = found
    more = large["examples"] - small["examples"]
    each = {f"{key} per example": round((large[key] - small[key]) / more, 1) for key in ("growth", "file")}
    print(json.dumps({"sizes": found, **each}, indent=2))


if __name__ == "__main__":
    main()
