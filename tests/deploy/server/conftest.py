"""A real server process with a real student, and requests to it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pytest

KEY = "the-key-of-these-tests"
WAIT = 60.0
"""Seconds until a server is ready or a request is answered; longer means it hangs."""


@dataclass
class Served:
    """A running server."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        """Status, headers and the JSON or text that came; `body` may be bytes, chunks, or a JSON value."""
        client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=WAIT)
        sent = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **(headers or {})}
        given = body if body is None or isinstance(body, bytes | Iterator) else json.dumps(body).encode()
        try:
            client.request(method, path, given, {k: v for k, v in sent.items() if v})
            answer = client.getresponse()
            raw = answer.read().decode()
        finally:
            client.close()
        found = {name.lower(): value for name, value in answer.getheaders()}
        is_json = found.get("content-type") == "application/json"
        return answer.status, found, json.loads(raw) if is_json and raw else raw

    def ask(self, body: Any, path: str = "/v1/predict", **headers: str) -> tuple[int, Any]:
        status, _, found = self.request("POST", path, body, headers)
        return status, found

    def counts(self) -> dict[str, float]:
        """The server's own counts by name with labels."""
        text = self.request("GET", "/metrics")[2]
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT)


Starts = Callable[..., AbstractContextManager[Served]]


@contextlib.contextmanager
def start(folder: Path, *options: str, log: IO[str], ready: bool = True) -> Iterator[Served]:
    command = [sys.executable, "-m", "stepdistill", "serve", str(folder), "--port", "0", *options]
    environment = {**os.environ, "STEPDISTILL_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout
        line = process.stdout.readline()
        found = re.search(r"http://[\d.]+:(\d+)", line)
        assert found, f"{line!r}, and {Path(log.name).read_text()}"
        served = Served(process, int(found[1]), Path(log.name))
        until = time.monotonic() + WAIT
        while ready and served.request("GET", "/readyz")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.05)
        yield served
    finally:
        process.kill()
        process.wait()
        if process.stdout:
            process.stdout.close()


@pytest.fixture(scope="session")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Starts:
    """Starts a server with further options, ended with its block."""

    @contextlib.contextmanager
    def begun(folder: Path, *options: str, ready: bool = True) -> Iterator[Served]:
        place = tmp_path_factory.mktemp("server") / "log"
        with place.open("w") as log, start(folder, *options, log=log, ready=ready) as served:
            yield served

    return begun


@pytest.fixture(scope="session")
def server(light: Path, starts: Starts) -> Iterator[Served]:
    """A server with small limits that all tests of a process share."""
    limits = {"max_body_bytes": 100_000, "max_texts": 8, "max_queue": 8, "body_seconds": 1}
    with starts(light, *(f"--set={name}={value}" for name, value in limits.items())) as served:
        yield served


@pytest.fixture
def key() -> str:
    return KEY
