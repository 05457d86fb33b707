"""What `stepdistill serve` costs and withstands: a load generator beside a server, each on its own core.

    python benchmarks/serve.py overhead RUN          what HTTP adds to the call in the process
    python benchmarks/serve.py batching RUN          32 clients: shared batches beside one by one
    python benchmarks/serve.py flood RUN             50,000 requests at twice the capacity
    python benchmarks/serve.py drain RUN             SIGTERM under load

RUN is a finished run; its best student is exported to CTranslate2 and asked the task's test texts. With
--shape, random weights of that shape stand in for the student's. Everything stays on 127.0.0.1.
Prints JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deploy_cases import SHAPES
from serve_load import Sent, Target, arriving, closed, groups, run
from serve_served import CORES, SERVER, Offline, Others, Served, offline, serving

from stepdistill.deploy.export import ctranslate2
from stepdistill.weights import be_quiet

CLIENTS = 32
FLOOD = ("--set", "max_queue=256")
"""The least that takes a request of 256 texts; filled by fewer connections than the server lets in."""
CONNECTIONS = 400
QUIET, TRIES = 0.08, 20
"""Cores that others may take during a round; how many rounds are tried for each that counts."""


def main() -> None:
    """Run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=WORK)
    parser.add_argument("run", type=Path)
    parser.add_argument("--precision", choices=ctranslate2.PRECISIONS, default="int8")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape instead")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement, about")
    parser.add_argument("--requests", type=int, default=50_000, help="of the flood")
    parser.add_argument("--load", type=float, default=0.8, help="share of the capacity")
    parser.add_argument("--texts", type=int, default=500, help="that are asked")
    parser.add_argument("--explain", action="store_true", help="batching: ask for rationales too")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--cores", type=int, default=1, help="of the server; clients have the last one")
    given = parser.parse_args()
    be_quiet()
    SERVER[:] = CORES[: given.cores]
    with offline(given.run, given.precision, given.shape, given.texts) as student:
        found = {"run": given.run.name, "shape": given.shape, "precision": given.precision}
        found["cores"] = given.cores
        found |= WORK[given.what](student, given)
    text = json.dumps(found, indent=2)
    print(text)
    if given.json:
        given.json.write_text(text + "\n")


def overhead(student: Offline, given: Any) -> dict[str, Any]:
    """Latency with nobody else, and at a share of the capacity, each beside the call in the process."""
    with serving(student.folder) as served:
        capacity_of(served.target(student.texts), student, 1.0)
        rows = rounds(given, (served,), lambda number: _overhead(served, student, given, number))
    return {"load": given.load, "runs": spreads(rows)}


def _overhead(served: Served, student: Offline, given: Any, number: int) -> dict[str, float]:
    """The call in this process on the server's cores; one client alone; `CLIENTS` of them in a closed loop,
    whose requests a second are the capacity; arrivals at a share of it, without the server and with it.
    """
    target, row = served.target(student.texts), dict[str, float]()
    direct = student.seconds()
    n = max(50, int(0.25 * given.seconds / statistics.median(direct)))
    alone = run(closed(target, list(groups(n, len(student.texts), number)), 1))
    row["capacity"], _ = capacity_of(target, student, given.seconds / 2)
    row["rate"] = rate = given.load * row["capacity"]
    asked = list(groups(max(200, int(rate * given.seconds)), len(student.texts), number))
    queued = student.arriving(asked, rate, number)
    busy = served.processor(), time.perf_counter()
    loaded = run(arriving(target, asked, rate, CONNECTIONS, number))
    row["server_busy"] = (served.processor() - busy[0]) / (time.perf_counter() - busy[1])
    row["n"] = check(student, [*alone, *loaded], only={200})["requests"] - len(alone)
    row["late_p99"] = milliseconds([one.started - one.due for one in loaded])["p99"]
    found = {"in_process": direct, "alone": latencies(alone), "queued": queued, "loaded": latencies(loaded)}
    quantiles = {name: milliseconds(values) for name, values in found.items()}
    row |= {f"{name}_{key}": value for name, made in quantiles.items() for key, value in made.items()}
    for one, other in (("alone", "in_process"), ("loaded", "in_process"), ("loaded", "queued")):
        for key in ("p50", "p99"):
            row[f"{one}_over_{other}_{key}"] = quantiles[one][key] - quantiles[other][key]
    return row


def rounds(given: Any, servers: Sequence[Served], work: Callable[[int], dict[str, float]]) -> list[Any]:
    """Rows of so many rounds; one during which other processes took much of the machine is made again."""
    rows: list[dict[str, float]] = []
    for number in range(TRIES * given.runs):
        with Others(*servers) as others:
            row = work(number)
        print(f"round {number}: others took {others.share:.2f} cores", file=sys.stderr, flush=True)
        if others.share < QUIET:
            rows.append(row | {"others": others.share})
        if len(rows) == given.runs:
            return rows
    raise SystemExit("too much else runs on this machine")


def batching(student: Offline, given: Any) -> dict[str, Any]:
    """Requests a second of 32 clients: batches shared by requests beside a batch for each, in turns."""
    path = "/v1/explain" if given.explain else "/v1/predict"

    def work(_: int) -> dict[str, float]:
        before, row, cost = shared.batches(), dict[str, float](), []
        for name, served in (("shared", shared), ("one by one", alone)):
            used = served.processor()
            row[name], n = capacity_of(served.target(student.texts, path), student, given.seconds / 2)
            cost.append((served.processor() - used) / n)
            row[f"{name}, processor ms"] = 1000 * cost[-1]
        count, total = (b - a for a, b in zip(before, shared.batches(), strict=True))
        times = {"times": row["shared"] / row["one by one"], "times by processor": cost[1] / cost[0]}
        return row | times | {"texts of a batch": total / count}

    with serving(student.folder) as shared, serving(student.folder, "--set", "max_batch=1") as alone:
        for served in (shared, alone):
            capacity_of(served.target(student.texts, path), student, 1.0)
        rows = rounds(given, (shared, alone), work)
    return {"clients": CLIENTS, "path": path, "runs": spreads(rows)}


def flood(student: Offline, given: Any) -> dict[str, Any]:
    """Arrivals at twice the capacity; every answer is compared with the offline one, refusals are counted.

    A tenth of the requests has two to eight texts. Memory is compared after a first flood, a tenth as long
    and at least three seconds, and after the whole.
    """
    with serving(student.folder, *FLOOD) as served:
        target = served.target(student.texts)
        capacity, _ = capacity_of(target, student, given.seconds / 2, many=0.1)
        rate, sent, memory = 2 * capacity, list[Sent](), []
        warm = max(given.requests // 10, int(3 * rate))
        check(student, run(arriving(target, _many(warm, student, 0), rate, CONNECTIONS, 0)), {200, 429})
        begun = time.perf_counter()
        memory.append(served.memory())
        for part in range(10):
            asked = _many(given.requests // 10, student, 1 + part)
            sent += run(arriving(target, asked, rate, CONNECTIONS, 1 + part))
            memory.append(served.memory())
        seconds = time.perf_counter() - begun
        found = check(student, sent, {200, 429})
        code = served.stop()
    answered = found["statuses"].get(200, 0)
    return found | {
        "capacity": capacity,
        "offered_a_second": rate,
        "sent_a_second": len(sent) / seconds,
        "answered_a_second": answered / seconds,
        "refused_share": 1 - answered / len(sent),
        "memory_mb": [round(value / 1e6, 1) for value in memory],
        "memory_growth": memory[-1] / memory[0] - 1,
        "exit_code": code,
    }


def drain(student: Offline, given: Any) -> dict[str, Any]:
    """SIGTERM while 64 clients ask, half of them on a new connection for each request."""
    rows = []
    for number in range(given.runs):
        with serving(student.folder) as served:
            target = served.target(student.texts)
            asked = _many(1_000_000, student, number, quick=True)
            sent, seconds, code = run(_stopped(target, asked, served, 1.0 + random.Random(number).random()))
        found = check(student, sent, {200, 503, 0})
        rows.append(found | {"seconds_to_stop": seconds, "exit_code": code})
    return {
        "clients": 64,
        "runs": rows,
        "lost": sum(row["requests"] - row["statuses"].get(200, 0) for row in rows),
    }


async def _stopped(
    target: Target, asked: Sequence[tuple[int, ...]], served: Served, after: float
) -> tuple[list[Sent], float, int]:
    asking = asyncio.create_task(closed(target, asked, 64, fresh=32, until_refused=True))
    await asyncio.sleep(after)
    begun = time.perf_counter()
    code = await asyncio.to_thread(served.stop)
    seconds = time.perf_counter() - begun
    return await asyncio.wait_for(asking, 60), seconds, code


def _many(n: int, student: Offline, seed: int, quick: bool = False) -> list[tuple[int, ...]]:
    found = list(groups(min(n, 50_000), len(student.texts), seed, many=0.1))
    return found * (n // len(found)) if quick else found


def capacity_of(target: Target, student: Offline, seconds: float, many: float = 0.0) -> tuple[float, int]:
    """Requests a second of `CLIENTS` in a closed loop, at the longest try; and how many all tries had."""
    n, total = 2 * CLIENTS, 0
    while True:
        asked = list(groups(n, len(student.texts), n, many))
        begun = time.perf_counter()
        sent = run(closed(target, asked, CLIENTS))
        took = time.perf_counter() - begun
        check(student, sent, {200})
        rate, total = n / took, total + n
        if took > seconds / 2:
            return rate, total
        n = max(2 * n, int(rate * seconds))


def check(student: Offline, sent: Sequence[Sent], only: set[int]) -> dict[str, Any]:
    """Counts by status; stops where a status is not allowed, or an answer is not that of its text."""
    statuses = collections.Counter(one.status for one in sent)
    good = [one for one in sent if one.status == 200]
    wrong = [one for one in good if student.wrong(one)]
    if wrong:
        raise SystemExit(f"{len(wrong)} wrong answers, such as {wrong[0].body!r} for {wrong[0].texts}")
    if strange := set(statuses) - only:
        first = next(one for one in sent if one.status in strange)
        raise SystemExit(f"statuses {dict(statuses)}, such as {first.status}: {first.body!r}")
    return {"requests": len(sent), "statuses": dict(statuses), "wrong": len(wrong), "texts": sum(
        len(one.texts) for one in good)}  # fmt: skip


def latencies(sent: Sequence[Sent]) -> list[float]:
    """Seconds from the moment at which a request was due."""
    return [one.done - one.due for one in sent]


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    """Quantiles."""
    ranked = sorted(seconds)
    return {f"p{at}": 1000 * ranked[max(0, math.ceil(len(ranked) * at / 100) - 1)] for at in (50, 95, 99)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def spreads(rows: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Of every number."""
    return {key: spread([row[key] for row in rows]) for key in rows[0]}


WORK = {"overhead": overhead, "batching": batching, "flood": flood, "drain": drain}

if __name__ == "__main__":
    main()
