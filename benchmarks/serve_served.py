"""What benchmarks/serve.py asks: a bundle of a run's student, its offline answers, and a server of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from deploy_cases import make_student
from serve_load import Sent, Target, run

from stepdistill.deploy.bundle import Settings, of_student, seal
from stepdistill.deploy.export import ctranslate2, job
from stepdistill.deploy.inputs import from_text
from stepdistill.deploy.runtime import Runtime, load
from stepdistill.deploy.server.batching import Batcher
from stepdistill.deploy.server.limits import ServeConfig
from stepdistill.deploy.server.run import _SWITCH

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
SERVER = CORES[:1]
"""The server's cores; this process is on the last, where there are two."""
TOLERANCES = {"float32": 1e-3, "bfloat16": 1e-3, "int8": 5e-3}
"""Of a probability: which texts share a batch changes the last digits, and in eight bits, where the last
digits decide to which of two whole numbers a value is rounded, up to 0.002 were seen."""
SINGLES = 300
READY = 60.0
_ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Offline:
    """A bundle, texts, and what the student says of them in this process, one text at a time."""

    folder: Path
    runtime: Runtime
    texts: list[str]
    answers: list[dict[str, Any]]
    tolerance: float

    def seconds(self) -> list[float]:
        """Of the call in this process, one text at a time, on the server's core."""
        found = []
        pin(SERVER)
        for text in self.texts[:SINGLES]:
            begun = time.perf_counter()
            self.runtime.predict([text])
            found.append(time.perf_counter() - begun)
        pin(CORES[-1:])
        return found

    def arriving(self, asked: Sequence[tuple[int, ...]], rate: float, seed: int) -> list[float]:
        """Seconds of the answers to the arrivals of `serve_load.arriving`, without a server.

        They wait for the model and share its batches in the same way, on the same cores, in this process.
        """
        limits = ServeConfig()
        seconds: list[float] = []

        async def asking() -> None:
            batcher = Batcher(
                self.runtime.predict, limits.max_batch, limits.max_wait_ms / 1000, limits.max_queue
            )
            working, draw, due = asyncio.create_task(batcher.run()), Random(seed), time.perf_counter()
            futures = []
            for places in asked:
                due += draw.expovariate(rate)
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                futures.append(
                    batcher.submit([from_text(self.runtime.task, self.texts[i], i) for i in places])
                )
                futures[-1].add_done_callback(lambda _, due=due: seconds.append(time.perf_counter() - due))  # type: ignore[misc]
            await asyncio.gather(*futures)
            working.cancel()
            batcher.worker.close()

        pin(SERVER)
        sys.setswitchinterval(_SWITCH)
        run(asking())
        pin(CORES[-1:])
        return seconds

    def wrong(self, sent: Sent) -> bool:
        """Whether a 200 has another label, or other probabilities, than the texts that were sent."""
        rows = json.loads(sent.body)["answers"]
        if len(rows) != len(sent.texts):
            return True
        return any(not self.same(row, i) for row, i in zip(rows, sent.texts, strict=True))

    def same(self, row: dict[str, Any], place: int) -> bool:
        """Whether an answer is that of the text at this place; where two labels are as likely, either."""
        label, shares = self.answers[place]["label"], self.answers[place]["probabilities"]
        near = all(abs(row["probabilities"][name] - shares[name]) < self.tolerance for name in shares)
        return near and (row["label"] == label or shares[label] - shares[row["label"]] < self.tolerance)


@contextlib.contextmanager
def offline(folder_of_run: Path, precision: str, shape: str | None, texts: int) -> Iterator[Offline]:
    """A bundle of the run's best student, not proven; with `shape`, random weights stand in its place."""
    source = job.find(folder_of_run)
    with tempfile.TemporaryDirectory() as scratch:
        weights = source.student
        if shape:
            weights = make_student(shape, Path(scratch), source.student)
        folder = Path(scratch) / "bundle"
        folder.mkdir()
        ctranslate2.convert(weights, folder, precision)
        about = of_student(weights, source.card)
        wanted = {"format": "ctranslate2", "precision": precision, "settings": Settings(readout="first")}
        seal(folder, about.model_copy(update=wanted))
        found = [one.text for one in source.examples.get("test") or ()][:texts]
        pin(SERVER)
        runtime = load(folder, threads=1)
        runtime.predict(found[:20])
        answers = []
        for text in found:
            (answer,) = runtime.predict([text])
            answers.append({"label": answer.label, "probabilities": dict(answer.probabilities or {})})
        student = Offline(folder, runtime, found, answers, TOLERANCES[precision])
        pin(CORES[-1:])
        yield student


def pin(cores: Sequence[int]) -> None:
    """This thread and those that it starts."""
    if cores:
        os.sched_setaffinity(0, cores)


class Others:
    """What other processes took of the machine while a block ran, in cores: `share`."""

    def __init__(self, *ours: Served) -> None:
        self._ours, self.share = ours, 0.0

    def _now(self) -> tuple[float, float]:
        ticks = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
        busy = sum(int(n) for place, n in enumerate(ticks) if place not in (3, 4)) / os.sysconf("SC_CLK_TCK")
        own = time.process_time() + sum(served.processor() for served in self._ours)
        return busy - own, time.monotonic()

    def __enter__(self) -> Others:
        self._begun = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        used, until = self._now()
        self.share = (used - self._begun[0]) / (until - self._begun[1])


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    key: str
    log: Path

    def target(self, texts: Sequence[str], path: str = "/v1/predict") -> Target:
        """For clients."""
        return Target(self.port, self.key, texts, path)

    def memory(self) -> int:
        """Resident bytes now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def processor(self) -> float:
        """Seconds of the processor so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def batches(self) -> tuple[float, float]:
        """How many batches there were, and texts in them."""
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/metrics", headers={"Authorization": f"Bearer {self.key}"}
        )
        with urllib.request.urlopen(asked, timeout=READY) as answer:
            text = answer.read().decode()
        count, total = (
            next(
                float(line.split()[1])
                for line in text.splitlines()
                if line.startswith(f"stepdistill_{name} ")
            )
            for name in ("batch_texts_count", "batch_texts_sum")
        )
        return count, total

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(READY)


@contextlib.contextmanager
def serving(folder: Path, *options: str) -> Iterator[Served]:
    """`stepdistill serve` on a core of its own, with one thread for the model; killed at the end."""
    key = secrets.token_hex(16)
    environment = {**os.environ, "STEPDISTILL_API_KEY": key, "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(_ROOT / "src")
    command = [sys.executable, "-m", "stepdistill", "serve", str(folder), "--port", "0", "--threads", "1"]
    if CORES:
        command = ["taskset", "-c", ",".join(map(str, SERVER)), *command]
    with tempfile.NamedTemporaryFile("w", suffix=".log") as log:
        process = subprocess.Popen(
            [*command, *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        assert process.stdout
        try:
            found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            if not found:
                raise SystemExit(f"the server did not start: {Path(log.name).read_text()[-2000:]}")
            served = Served(process, int(found[1]), key, Path(log.name))
            _until_ready(served)
            yield served
            if written := Path(log.name).read_text().strip():
                print(f"the server wrote: {written[-2000:]}", file=sys.stderr)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _until_ready(served: Served) -> None:
    until = time.monotonic() + READY
    while time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{served.port}/readyz", timeout=READY).close()
            return
        time.sleep(0.1)
    raise SystemExit("the server is not ready")
