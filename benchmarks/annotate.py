"""How fast prompts get answered and kept: ours beside Curator and the plain OpenAI SDK, in one run.

    python benchmarks/annotate.py --peers PEERS/bin/python --runs 5 > annotate.json

The server (tests/teacher/faulty_server.py) is a process of its own on one core, each client runs on the
other. The cases take turns, so that a machine whose speed drifts is fair to all; medians are what counts.
PEERS is a virtual environment with `bespokelabs-curator openai`; without --peers, ours runs alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SERVER = HERE.parent / "tests" / "teacher" / "faulty_server.py"
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
PIN = {"server": CORES[-1:], "client": CORES[:1]} if len(CORES) > 1 else {"server": [], "client": []}


@dataclass(frozen=True)
class Case:
    """One client under one load."""

    name: str
    client: str
    n: int
    flight: int
    delay: float = 0.0
    rate: float = 0.0

    def command(self, peers: str | None, url: str, folder: str) -> list[str]:
        """How the client is started."""
        given = [str(self.n), str(self.flight), url, folder]
        if self.client == "ours":
            return [sys.executable, str(HERE / "annotate_client.py"), *given]
        return [str(peers), str(HERE / "peers" / f"annotate_{self.client}.py"), *given]


CASES = (
    Case("ours, 64 in flight", "ours", 5000, 64),
    Case("ours, 512 in flight", "ours", 5000, 512),
    Case("ours, 64 in flight, 50 ms", "ours", 20_000, 64, delay=0.05),
    Case("OpenAI SDK under asyncio, 64 in flight", "openai", 1000, 64),
    Case("Curator, 64 in flight", "curator", 1000, 64),
)
LIMITED = Case("ours, server grants 300/s", "ours", 18_000, 64, rate=300)
MANY = (
    Case("ours, 10,000 prompts", "ours", 10_000, 64),
    Case("ours, 1,000,000 prompts", "ours", 1_000_000, 64),
)


@contextmanager
def server(case: Case) -> Iterator[str]:
    """A server of our own for one client; gives its address."""
    command = [
        sys.executable,
        str(SERVER),
        "--port",
        "0",
        "--delay",
        str(case.delay),
        "--answer-bytes",
        "1400",
    ]
    command += ["--labels", "billing,technical,other"]
    if case.rate:
        command += ["--rate", str(case.rate), "--burst", str(case.rate / 10), "--retry-after", "ceil"]
    process = subprocess.Popen(pinned(command, "server"), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield str(json.loads(process.stdout.readline())["url"])
    finally:
        process.terminate()
        process.wait()


def pinned(command: list[str], whose: str) -> list[str]:
    """The command on its own core, where there are two."""
    cores = ",".join(map(str, PIN[whose]))
    return ["taskset", "-c", cores, *command] if cores else command


def measured(case: Case, peers: str | None) -> dict[str, Any]:
    """What one run of a case gives."""
    with server(case) as url, tempfile.TemporaryDirectory() as folder:
        command = pinned(case.command(peers, url, folder), "client")
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        if done.returncode:
            raise SystemExit(f"{case.name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        stats = subprocess.run(
            ["curl", "-s", url.removesuffix("/v1") + "/stats?seen=0"],
            capture_output=True,
            text=True,
            check=True,
        )
        found["server"] = json.loads(stats.stdout)["counts"]
    found["requests_per_second"] = round(case.n / found["seconds"], 1)
    return found


def environment() -> dict[str, str]:
    """One thread each, no accounts, no telemetry, nothing of the user's."""
    kept = {
        key: os.environ[key] for key in ("PATH", "HOME", "LANG", "TIKTOKEN_CACHE_DIR") if key in os.environ
    }
    return {**kept, "OMP_NUM_THREADS": "1", "OPENAI_API_KEY": "none", "PYTHONPATH": str(HERE.parent / "src")}


def main() -> None:
    """Run the cases in turn and print medians as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", help="python of an environment with the peers")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--limited", action="store_true", help="the 429 case instead (about a minute a run)")
    parser.add_argument("--memory", action="store_true", help="10,000 against 1,000,000 prompts instead")
    given = parser.parse_args()
    cases = (LIMITED,) if given.limited else MANY if given.memory else CASES
    cases = tuple(case for case in cases if case.client == "ours" or given.peers)
    found: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    for number in range(given.runs):
        for case in cases:
            result = measured(case, given.peers)
            found[case.name].append(result)
            print(f"{number + 1}/{given.runs} {case.name}: {json.dumps(result)}", file=sys.stderr, flush=True)
    print(json.dumps({name: summary(rows) for name, rows in found.items()}, indent=2))


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, least and most of every number, and the server's counts of all runs."""
    numbers = [key for key, value in rows[0].items() if isinstance(value, int | float)]
    table: dict[str, Any] = {"runs": len(rows)}
    for key in numbers:
        values = [row[key] for row in rows]
        table[key] = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    table["server"] = [row["server"] for row in rows]
    return table


if __name__ == "__main__":
    main()
